"""What autoencoders of equal size lose: NDCG and Gini of lists from reconstructed users, against the base's own lists.

    python benchmarks/sae_variants.py ml-100k=saved/SASRec-….pth amazon-cds=saved/SASRec-….pth --out=variants.json
    python benchmarks/sae_variants.py … --variants 'top-k' 'top-k, k 48' --seeds 1 2 3
    python benchmarks/sae_variants.py … --table            # what is there so far

Each checkpoint is a sequential base under leave one out. Its vectors are collected once; every autoencoder sees the
same number of them. Changes are of the test lists of 10; of one seed, NDCG's has a paired interval over users.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from runs import Runs, parser_of, settle, spread
from torch import Tensor

from recbole_fair.data.facts.interactions import training_interactions
from recbole_fair.evaluator.functional.exposure import gini, item_counts
from recbole_fair.evaluator.functional.ranking import ndcg
from recbole_fair.model.popsteer.quality import measure_sae
from recbole_fair.model.popsteer.sae import SAESettings, TopKSAE, fit_sae
from recbole_fair.model.popsteer.vectors import UserVectors, collect_prefix_vectors
from recbole_fair.quick_start import load_data_and_model

Row = dict[str, Any]
K, SCALE, TOP = 32, 32, 10
#: Small batches and an encoder that starts to scale, as when a run fits once more; FIRST is what it does at first.
RECIPE: Row = {"batch_size": 256, "learning_rate": 0.004, "to_scale": True}
FIRST: Row = {"batch_size": 2048, "learning_rate": 0.006, "max_inputs": 1_000_000}
VARIANTS: dict[str, tuple[Row, Row]] = {
    "top-k": ({}, {}),
    "batch_topk": ({"selection": "batch_topk"}, {}),
    "matryoshka": ({"selection": "matryoshka"}, {}),
    "abs": ({"activation": "abs"}, {}),
    "score-preserving, 1": ({}, {"score_coef": 1.0}),
    "score-preserving, 10": ({}, {"score_coef": 10.0}),
    "first fit": ({}, {**FIRST, "to_scale": False}),
    "first fit, to scale": ({}, FIRST),
    "top-k, not to scale": ({}, {"to_scale": False}),
    "top-k, k 40": ({"k": 40}, {}),
    "top-k, k 48": ({"k": 48}, {}),
    "top-k, k 64": ({"k": 64}, {}),
}
CHOSEN = list(VARIANTS)[:6]


class Lists(NamedTuple):
    """Lists of all test users."""

    ndcg: Tensor
    """``[U]``."""
    gini: float


class Bench:
    """A base with its vectors, its test users and what they chose."""

    def __init__(self, checkpoint: str, data: Row) -> None:
        _, base, _, train, _, test = load_data_and_model(checkpoint, config_dict={**data, "show_progress": False})
        inter = training_interactions(train._dataset)
        self.vectors: UserVectors = collect_prefix_vectors(base, inter.user, inter.item)
        self.items: Tensor = base.item_representations().detach()
        with torch.no_grad():
            batches = [(base.eval().represent_users(rows), wanted) for rows, _, _, wanted in test]
        self.users, self.wanted = (torch.cat(parts) for parts in zip(*batches, strict=True))
        if len(self.users) != len(self.wanted):
            raise SystemExit(f"{checkpoint}: more than one test item a user; leave one out is needed.")
        self.base = self.lists(lambda users: users)

    @torch.no_grad()
    def lists(self, edit: Callable[[Tensor], Tensor]) -> Lists:
        """Lists from edited users."""
        best = []
        for users in self.users.split(2048):
            scores = edit(users) @ self.items.t()
            scores[:, 0] = -math.inf  # the padding
            best.append(scores.topk(TOP).indices)
        found = torch.cat(best)
        hits = found == self.wanted[:, None]
        values = ndcg(hits, torch.ones(len(hits), dtype=torch.long), [TOP])[:, 0]
        return Lists(values.double(), float(gini(item_counts(found, len(self.items)))))

    def fit(self, name: str, seed: int, inputs: int) -> Row:
        """An autoencoder, and what its reconstruction changes."""
        make, recipe = VARIANTS[name]
        d, k = self.items.shape[1], make.get("k", K)
        sae = TopKSAE(d, SCALE * d, k, **{key: value for key, value in make.items() if key != "k"})
        settings = SAESettings(**{"max_inputs": inputs, **RECIPE, **recipe}, seed=seed)
        fit = fit_sae(sae, self.vectors.vectors, self.vectors.users, settings, items=self.items[1:])
        lists = self.lists(lambda users: sae(users).reconstruction)
        rate = measure_sae(sae, self.vectors.vectors[self.vectors.last]).frequency
        share = rate[rate > 0] / rate.sum()
        change, base = lists.ndcg - self.base.ndcg, float(self.base.ndcg.mean())
        return {
            "fvu": fit.quality.fvu,
            "fit_seconds": fit.seconds,
            "l0": float(rate.sum()),
            "firing": int((rate > 0).sum()),
            "effective": float((-share * share.log()).sum().exp()),
            "ndcg": float(change.mean()) / base,
            "ndcg_half": 1.96 * float(change.std()) / math.sqrt(len(change)) / base,
            "gini": lists.gini - self.base.gini,
            "base": [base, self.base.gini],
        }


def shown(row: Mapping[str, Any]) -> str:
    """A run in a line."""
    lost = f"NDCG {100 * row['ndcg']:+.2f} %, Gini {row['gini']:+.4f}"
    return f"FVU {row['fvu']:.4f}, {lost}, {row['effective']:.0f} latents"


def table(done: Mapping[str, Row], data: list[str], names: list[str], seeds: list[int]) -> str:
    """Markdown, a row a data set and variant."""
    heads = "| data | autoencoder | seeds | variance unexplained | latents that count | NDCG@10 | Gini@10 |"
    lines = [heads, "|---" * 7 + "|"]
    for dataset in data:
        for name in names:
            rows = [row for seed in seeds if (row := done.get(f"{dataset} {name} {seed}"))]
            if not rows:
                continue
            half = f" ± {100 * rows[0]['ndcg_half']:.1f}" if len(rows) == 1 else ""
            change = spread([100 * row["ndcg"] for row in rows], 2)
            lines.append(
                f"| {dataset} | {name} | {len(rows)} | {spread([row['fvu'] for row in rows])} | "
                f"{statistics.fmean(row['effective'] for row in rows):.0f} | {change}{half} % | "
                f"{spread([row['gini'] for row in rows])} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = parser_of(__doc__, "sae_variants.json")
    parser.add_argument("checkpoints", nargs="+", help="bases, as DATASET=PATH")
    parser.add_argument("--variants", nargs="+", default=CHOSEN, choices=list(VARIANTS))
    parser.add_argument("--inputs", type=int, default=300_000, help="vectors seen")
    parser.set_defaults(seeds=[2020])
    args = parser.parse_args()
    settle(args)
    files = dict(one.split("=", 1) for one in args.checkpoints)
    runs = Runs(args.out, {"inputs": args.inputs, "k": K, "scale": SCALE}, args.minutes)
    data = {"data_path": args.data_path} if args.data_path else {}
    for dataset, file in () if args.table else files.items():
        make = functools.cache(lambda file=file: Bench(str(Path(file)), data))  # only where something is to be done
        for seed in args.seeds:
            for name in args.variants:
                runs.add(f"{dataset} {name} {seed}", lambda m=make, n=name, s=seed: m().fit(n, s, args.inputs), shown)
    print(table(runs.done, list(files), args.variants, args.seeds))


if __name__ == "__main__":
    main()
