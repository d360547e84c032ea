"""Write docs/metrics.md: what each metric is, and our values beside those of other libraries on the same lists.

    python docs/generate_metrics.py

RecBole and scipy are run; LensKit and RecTools need other versions of numpy or torch, so their values were recorded
with the versions named on the page, on the lists below. A test regenerates the page and compares.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.evaluator import metrics as recbole_metrics
from recbole.evaluator.collector import DataStruct
from scipy import stats
from scipy.integrate import trapezoid
from scipy.spatial.distance import jensenshannon

from recbole_fair.config.general_keys import KEYS
from recbole_fair.config.layers import properties_dir, read_yaml
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.interactions import Interactions
from recbole_fair.data.facts.popularity import Popularity
from recbole_fair.evaluator.functional import history_shares, list_shares
from recbole_fair.evaluator.inputs import EvalInputs
from recbole_fair.evaluator.metrics import values_of
from recbole_fair.evaluator.options import MetricOptions
from recbole_fair.evaluator.specs import SPECS

PAGE = Path(__file__).with_name("metrics.md")
K = 5
N_ITEMS, N_USERS = 30, 12

# Values of other libraries on the lists of `example`, recorded once; see the note on the page.
RECORDED: dict[str, dict[str, float]] = {
    "LensKit 2025.8.1": {
        "recall@5": 0.4583333333333333,
        "precision@5": 0.2333333333333333,
        "hit@5": 1.0,
        "mrr@5": 0.7319444444444444,
        "ndcg@5": 0.423088754141133,
        "giniindex@5": 0.418889,
        "exposuregini@5": 0.442043,
    },
    "RecTools 0.19.0": {
        "recall@5": 0.4583333333333333,
        "precision@5": 0.2333333333333333,
        "hit@5": 1.0,
        "mrr@5": 0.7319444444444444,
        "map@5": 0.3347222222222222,
        "ndcg@5": 0.3027094886456299,
        "averagepopularity@5": 2.6166666666666667,
        "itemcoverage@5": 0.8333333333333334,
    },
}
RECORDED_VERSIONS = "LensKit and RecTools: values recorded with the versions named, with their default settings."


def example() -> tuple[list[list[int]], list[set[int]], list[tuple[int, int]]]:
    """Lists, held-out items and training interactions made by arithmetic, so that any library can be given them.

    Returns:
        Lists of five items of users 1 to 12, their held-out items, and (user, item) training pairs. Items are 1 to 30;
        item 30 is never interacted with.
    """
    users = range(1, N_USERS + 1)
    lists = [[(u * u + 7 * u * j + 3 * j * j) % 13 * 2 + (u + j) % 3 + 1 for j in range(9)] for u in users]
    lists = [list(dict.fromkeys(ranked))[:K] for ranked in lists]
    held_out = [
        {(5 * u) % 29 + 1, (3 * u + 4) % 29 + 1, lists[u - 1][u % 5 if u % 3 else 0]} for u in range(1, N_USERS + 1)
    ]
    pairs = [(u, (u * v * v + 2 * v) % 29 + 1) for u in users for v in range(1, 6 + u % 4)]
    return lists, held_out, pairs


def inputs() -> EvalInputs:
    """The example in the package's form."""
    lists, held_out, pairs = example()
    user, item = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
    inter = Interactions(user, item, None, N_USERS + 1, N_ITEMS + 1)
    items = torch.tensor(lists)
    hits = torch.tensor([[i in wanted for i in ranked] for ranked, wanted in zip(lists, held_out, strict=True)])
    n_positives = torch.tensor([len(wanted) for wanted in held_out])
    bounds = torch.cat([torch.zeros(1, dtype=torch.long), n_positives.cumsum(0)])
    flat = torch.tensor([i for wanted in held_out for i in sorted(wanted)])
    return EvalInputs(
        items, hits, n_positives, torch.arange(1, N_USERS + 1), (bounds, flat), N_ITEMS + 1,
        MetricOptions(topk=(K,)), Popularity.from_interactions(inter), Histories.from_interactions(inter),
    )  # fmt: skip


def our_values(x: EvalInputs) -> dict[str, float]:
    """All metrics of the example but CKL, which needs genres."""
    return {name: value for spec in SPECS if spec.name != "CKL" for name, value in values_of(spec, x)[0].items()}


def recbole_values(x: EvalInputs) -> dict[str, float]:
    """RecBole's classes on the example."""
    for name, alias in {"float": np.float64, "bool": np.bool_, "int": np.int64}.items():
        setattr(np, name, alias)
    config: dict[str, Any] = {"topk": [K], "metric_decimal_place": 15}
    struct = DataStruct()
    struct["rec.items"] = x.items
    struct["rec.topk"] = torch.cat([x.hits.long(), x.n_positives.unsqueeze(1)], dim=1)
    struct["data.num_items"] = x.n_items
    struct["data.count_items"] = Counter({i: c for i, c in enumerate(x.counts.tolist()) if c})
    values: dict[str, float] = {}
    for name in ("Recall", "MRR", "NDCG", "Hit", "Precision", "MAP", "ItemCoverage", "GiniIndex", "ShannonEntropy"):
        values.update(getattr(recbole_metrics, name)(config).calculate_metric(struct))
    for name in ("AveragePopularity", "TailPercentage"):
        values.update(getattr(recbole_metrics, name)(config | {"tail_ratio": None}).calculate_metric(struct))
    return values


def scipy_values(x: EvalInputs) -> dict[str, float]:
    """What scipy and numpy offer for the same quantities."""
    counts = x.recommended_counts(K).numpy()
    ranked = np.sort(counts)
    area = trapezoid(np.concatenate([[0], ranked.cumsum() / ranked.sum()]), dx=1 / len(ranked))
    shown = list_shares(x.segments, x.items, [K])[:, 0].numpy()
    past = history_shares(x.segments, *x.history).numpy()
    return {
        f"giniindex@{K}": 1 - 2 * float(area),
        f"shannonentropy@{K}": float(stats.entropy(counts)),
        f"upd@{K}": float(np.mean([jensenshannon(p, q, 2) ** 2 for p, q in zip(past, shown, strict=True)])),
    }


INTRODUCTION = """\
Names are used in `metrics:` and, with a cutoff, in `valid_metric:` (`GiniIndex@10`); results have them in lower
case. K is the cutoff, n the number of catalogue items, s(i) the training interactions with item i before any
sequence augmentation. The padding item 0 is no item. Values keep full precision; only printing rounds."""

NOTES = """## Intervals, groups, curves

- `bootstrap: N` resamples users N times. An interval is the 2.5 % and 97.5 % points of the resampled values, moved
  so that their mean is the value of the sample: a resample holds about 63 % of the users, so that coverage, Gini
  and entropy of resamples are shifted as a whole, and only their spread says something about uncertainty.
- `group_metrics` reports per-user metrics by group: `[mainstream, gender]` NDCG by these groups, `{mainstream:
  {metrics: [Recall], bins: 3}}` what is named there. `mainstream`: mean Jaccard similarity of a user's training items
  to those of all other users, 5 (or `bins`) equally large groups from low to high. `drift`: symmetric KL divergence
  of the item groups (`group_field`) between the two halves of the history, users above each of `thresholds` (0, 0.5,
  1, 2, 3, 4; groups overlap) or `bins` equal groups. `popularity_taste`: share of head items in the history, lowest
  20 %, middle 60 %, highest 20 % of users. Any other name is a column of the data set's `.user` file, by value or,
  with `bins`, by rank of the number. The file is read beside the data set: neither the model's inputs nor the
  catalogue change.
- `curves` of a result: the calibration curve (mean share of the history at or below each popularity quantile of
  the list; above the diagonal: lists are too popular), the Lorenz curve of item counts, and exposure by popularity
  (see [report](report.md)). With several variants they are `calibration_curves`, `lorenz_curves`, `exposure_curves`.
- `valid_constraint: "GiniIndex@10 <= 0.8"` keeps the best epoch among those that keep the bound; if none does, the
  one that misses it least, and the result says so. Several bounds are a list, or joined by `and`; their metrics must
  stand in `metrics`."""

REASONS = {
    "ndcg": "LensKit discounts by max(1, log2(rank)), so that ranks 1 and 2 count alike; RecTools divides by the gain "
    "of five hits even where fewer items are held out.",
    "exposuregini": "LensKit's exposure falls geometrically with the rank (0.85 a place), ours as 1/log2(rank+1).",
    "itemcoverage": "RecBole divides by the number of items plus the padding item (31 here, 30 ours).",
    "giniindex": "RecBole counts the padding item as one more item that is never shown: (G n + 1) / (n + 1).",
    "shannonentropy": "RecBole divides the entropy by the number of distinct recommended items.",
    "tailpercentage": "RecBole's tail is the least popular 10 % of the items seen in training, never an unseen item; "
    "ours is the least popular 20 % of interactions and every unseen item. With tail_ratio set, ours takes that share "
    "of all items.",
}


def _number(value: float | None) -> str:
    return "" if value is None else "nan" if math.isnan(value) else f"{value:.6f}"


def page() -> str:
    """The whole page."""
    x = inputs()
    mine, others = our_values(x), {"RecBole 1.2.1": recbole_values(x), "scipy": scipy_values(x), **RECORDED}
    lines = [
        "# Metrics",
        "",
        "<!-- Generated by docs/generate_metrics.py; edit that, not this. -->",
        "",
        *INTRODUCTION.splitlines(),
        "",
        "| metric | definition | conventions | range | better |",
        "|---|---|---|---|---|",
    ]
    for spec in SPECS:
        low = "-inf" if spec.low == -math.inf else f"{spec.low:g}"
        high = f"{spec.high:g}" if isinstance(spec.high, (int, float)) else spec.high
        better = "nearest 0" if spec.to_zero else "smaller" if spec.smaller else "larger"
        formula = spec.formula.replace("|", "\\|")
        lines.append(f"| `{spec.name}` | {formula} | {spec.notes} | [{low}, {high}] | {better} |")
    lines += [
        "",
        "RecBole's GAUC, AUC, LogLoss, RMSE and MAE run in RecBole's own classes, unrounded.",
        "",
        "## Options",
        "",
        "| key | default | allowed | meaning |",
        "|---|---|---|---|",
        *_option_rows(),
        "",
        "## Against other libraries",
        "",
        f"Twelve lists of five out of {N_ITEMS} items (`example` in docs/generate_metrics.py), one of them without any",
        f"interaction. {RECORDED_VERSIONS}".rstrip(),
        "",
        "| metric | ours | " + " | ".join(others) + " |",
        "|---|---|" + "---|" * len(others),
    ]
    for name, value in mine.items():
        cells = [_number(values.get(name)) for values in others.values()]
        if any(cells):
            lines.append(f"| {name} | {_number(value)} | " + " | ".join(cells) + " |")
    lines += ["", "Where values differ:", ""]
    lines += [f"- `{name}`: {reason}" for name, reason in REASONS.items()]
    lines += ["", *NOTES.splitlines(), ""]
    return "\n".join(lines)


def _option_rows() -> list[str]:
    defaults = read_yaml(properties_dir() / "overall.yaml")
    names = (
        "coverage_min_count", "segment_head_share", "segment_tail_share", "segment_by", "upd_base", "upd_over",
        "upd_smoothing", "pce_levels", "group_field", "ckl_smoothing", "metric_history", "group_metrics", "bootstrap",
        "valid_constraint", "per_user_file", "per_item_file",
    )  # fmt: skip
    shown = {True: "not set"}
    values = {n: shown.get(defaults[n] is None, defaults[n]) for n in names}
    return [f"| `{n}` | {value} | {KEYS[n].allowed()} | {KEYS[n].what} |" for n, value in values.items()]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
