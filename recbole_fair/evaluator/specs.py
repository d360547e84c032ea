"""The metrics, each declared once: its name, its direction, what it needs and the function that computes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from recbole_fair.data.facts.popularity import HEAD, MID, TAIL
from recbole_fair.data.ragged import owners
from recbole_fair.errors import FairError
from recbole_fair.evaluator import functional as f
from recbole_fair.evaluator.functional.alignment import history_means
from recbole_fair.evaluator.inputs import EvalInputs
from recbole_fair.evaluator.options import MetricOptions

HISTORY, SEGMENTS, POPULARITY, GROUPS = "history", "segments", "popularity", "groups"
HELD_OUT, CONCEPT = "held-out items", "concept"


@dataclass(frozen=True)
class PerUser:
    """Values of a metric for each row, and how they are averaged.

    Attributes:
        values: float64 ``[U, len(topk)]``; NaN leaves a row out.
        weights: ``[U, len(topk)]`` weight of each value in the mean, or None for equal weights.
        strata: long ``[U]`` or None. If given, the result is the mean of the means of the strata; -1 is left out.
    """

    values: Tensor
    weights: Tensor | None = None
    strata: Tensor | None = None

    def mean(self, times: Tensor | None = None) -> Tensor:
        """The value of the system.

        Args:
            times: ``[B, U]``, how often each row is drawn in each of B resamples, or None for the sample itself.

        Returns:
            float64 ``[len(topk)]``, or ``[B, len(topk)]`` for resamples. NaN where no row has a value.
        """
        weights = (~self.values.isnan()).double()
        if self.weights is not None:
            weights = weights * self.weights
        weighted = self.values.nan_to_num() * weights
        drawn = self.values.new_ones(1, len(self.values)) if times is None else times.to(self.values.dtype)
        if self.strata is None:
            result = (drawn @ weighted) / (drawn @ weights)
        else:
            means = []
            for stratum in torch.unique(self.strata):
                if stratum >= 0:
                    rows = self.strata == stratum
                    means.append((drawn[:, rows] @ weighted[rows]) / (drawn[:, rows] @ weights[rows]))
            result = torch.stack(means).nanmean(0)
        return result[0] if times is None else result


@dataclass(frozen=True)
class MetricSpec:
    """One metric.

    Exactly one of ``per_user`` and ``per_item`` is given: the first gives values by user, whose weighted mean is the
    metric; the second gives functions of the counts (or exposures) of all catalogue items, one for each suffix of the
    metric's name.

    Attributes:
        name: Name in configuration files; results use its lower case.
        formula: Definition in one line, for the documentation.
        notes: Conventions that change the value: padding, unseen items, ties, logarithm.
        low: Smallest possible value.
        high: Largest possible value, or text such as ``log n`` where it depends on the data.
        smaller: Whether less is better.
        to_zero: Whether the value nearest to zero is best.
        needs: Any of ``history``, ``segments``, ``popularity``, ``groups``, ``concept``, ``held-out items``.
        per_user: Values by user.
        per_item: From the options, the functions of counts ``[..., n] -> [...]`` by suffix of the name.
        exposure: Whether ``per_item`` takes rank-discounted exposures instead of counts.
        size_note: For metrics of a part of the users: what to call that part in the log, ``{}`` for users or lists.
    """

    name: str
    formula: str
    notes: str
    low: float
    high: float | str
    smaller: bool = False
    to_zero: bool = False
    needs: frozenset[str] = frozenset()
    per_user: Callable[[EvalInputs], PerUser] | None = None
    per_item: Callable[[MetricOptions], Mapping[str, Callable[[Tensor], Tensor]]] | None = None
    exposure: bool = False
    size_note: str | None = field(default=None)

    @property
    def key(self) -> str:
        """The name in results, without cutoff."""
        return self.name.lower()


Ranking = Callable[[Tensor, Tensor, "tuple[int, ...]"], Tensor]


def _ranking(function: Ranking) -> Callable[[EvalInputs], PerUser]:
    return lambda x: PerUser(function(x.hits, x.n_positives, x.topk))


def _ndcg_of_segment(segment: int, x: EvalInputs) -> PerUser:
    """NDCG when only the held-out items of one segment count; rows without such an item are left out."""
    bounds, held_out = x.positives
    rows = owners(bounds)
    n_positives = torch.bincount(rows[x.segments[held_out] == segment], minlength=x.n_rows)
    hits = x.hits & (x.segments[x.items] == segment)
    return PerUser(f.ndcg(hits, n_positives, x.topk))


def _ndcg_from_segment(segment: int, x: EvalInputs) -> PerUser:
    """The part of NDCG that hits of one segment bring; the parts of the three segments add up to it."""
    return PerUser(f.ndcg(x.hits & (x.segments[x.items] == segment), x.n_positives, x.topk))


def _mean_over_places(values: Callable[[EvalInputs], Tensor]) -> Callable[[EvalInputs], PerUser]:
    """Mean over all places of all lists: each list weighs as much as it has items."""
    return lambda x: PerUser(f.list_means(values(x), x.items, x.topk), weights=x.lengths.double())


def _tail(x: EvalInputs) -> Tensor:
    ratio, popularity = x.options.tail_ratio, x.known_popularity
    if ratio is None:
        return x.segments == TAIL
    if ratio > 1:
        tail = x.counts <= ratio
    else:
        order = x.counts[1:].argsort(stable=True) + 1
        tail = torch.zeros_like(x.counts, dtype=torch.bool)
        tail[order[: max(int((popularity.n_items - 1) * ratio), 1)]] = True
        tail |= x.counts == 0
    tail[0] = False
    return tail


def _upd(x: EvalInputs) -> PerUser:
    options = x.options
    values = f.user_popularity_deviation(
        x.segments, x.items, *x.history, x.topk, options.upd_base, options.upd_smoothing
    )
    if options.upd_over == "users":
        return PerUser(values)
    from recbole_fair.data.facts.groups import taste_groups

    bounds = (0.2, 0.8) if options.upd_over == "groups" else (0.2, 0.4, 0.6, 0.8)
    return PerUser(values, strata=taste_groups(x.head_share, bounds))


def _pce(normalised: bool, x: EvalInputs) -> PerUser:
    return PerUser(f.popularity_calibration_error(x.calibration, x.options.pce_levels, normalised))


def _ckl(x: EvalInputs) -> PerUser:
    if x.groups is None:
        raise FairError("CKL needs item groups: set group_field to an item column, such as genre.")
    options = x.options
    return PerUser(f.group_calibration(x.items, *x.history, x.groups.matrix, x.topk, options.ckl_smoothing))


def _concept_gap(x: EvalInputs) -> PerUser:
    in_lists = f.list_means(x.concept_weight, x.items, x.topk)
    return PerUser((in_lists - history_means(x.concept_weight, *x.history).unsqueeze(1)).abs())


def _plain(function: Callable[[Tensor], Tensor]) -> Callable[[MetricOptions], Mapping[str, Callable[[Tensor], Tensor]]]:
    return lambda options: {"": function}


def _coverage(options: MetricOptions) -> Mapping[str, Callable[[Tensor], Tensor]]:
    return {
        "" if count == 1 else f"_min{count}": partial(f.coverage, min_count=count)
        for count in options.coverage_min_count
    }


_SEGMENT_NOTE = (
    "Segments: segment_head_share and segment_tail_share (20 % each) of training interactions (segment_by); unseen "
    "items are tail, ties by ascending id."
)
_HISTORY_NOTE = (
    "History: all training interactions with repeats (under `metric_history: train_valid`, with validation when "
    "testing); users without a history or list are left out."
)


def _segment_ndcg(name: str, formula: str, segment: int, part: bool = False) -> MetricSpec:
    """NDCG of the held-out items of a segment, for users who have one; or the part of NDCG that its hits bring."""
    said = "NDCGFromHead + NDCGFromMid + NDCGFromTail = NDCG."
    if not part:
        said = "Target filter: the label belongs to the held-out item, not to the user."
    return MetricSpec(
        name,
        formula,
        f"{said} {_SEGMENT_NOTE}",
        0,
        1,
        needs=frozenset({SEGMENTS, HELD_OUT}),
        per_user=partial(_ndcg_from_segment if part else _ndcg_of_segment, segment),
        size_note=None if part else f"{{}} with a held-out {name[4:].lower()} item",
    )


_RANKING = (
    ("Recall", "hits in the first k / held-out items", f.recall),
    ("MRR", "1 / rank of the first hit in the first k, else 0", f.mrr),
    ("NDCG", "sum over hits of 1/log2(rank+1) / the same for the best list of min(k, held-out) items", f.ndcg),
    ("Hit", "1 if there is a hit in the first k", f.hit),
    ("Precision", "hits in the first k / k", f.precision),
    ("MAP", "sum over hits of precision at their rank / min(k, held-out items)", f.average_precision),
)

SPECS: tuple[MetricSpec, ...] = (
    *(
        MetricSpec(
            name,
            formula,
            "As RecBole. Users without held-out items are left out.",
            0,
            1,
            needs=frozenset({HELD_OUT}),
            per_user=_ranking(fn),
        )
        for name, formula, fn in _RANKING
    ),
    _segment_ndcg(
        "NDCGHead", "NDCG@k with the head held-out items alone as relevant, mean over users who have one", HEAD
    ),
    _segment_ndcg("NDCGMid", "NDCG@k with the mid held-out items alone as relevant, mean over users who have one", MID),
    _segment_ndcg(
        "NDCGTail", "NDCG@k with the tail held-out items alone as relevant, mean over users who have one", TAIL
    ),
    _segment_ndcg(
        "NDCGFromHead", "the part of NDCG@k that hits of head items bring, mean over all users", HEAD, part=True
    ),
    _segment_ndcg(
        "NDCGFromMid", "the part of NDCG@k that hits of mid items bring, mean over all users", MID, part=True
    ),
    _segment_ndcg(
        "NDCGFromTail", "the part of NDCG@k that hits of tail items bring, mean over all users", TAIL, part=True
    ),
    MetricSpec(
        "ItemCoverage",
        "share of catalogue items in at least coverage_min_count lists",
        "The catalogue leaves out the padding item. Counts other than 1 give itemcoverage_min<count>@k.",
        0,
        1,
        per_item=_coverage,
    ),
    MetricSpec(
        "AggregateDiversity",
        "number of distinct recommended items",
        "The padding item does not count.",
        0,
        "n",
        per_item=_plain(f.aggregate_diversity),
    ),
    MetricSpec(
        "GiniIndex",
        "sum_i (2i - n - 1) c_(i) / (n sum_i c_i), c ascending",
        "Over all n catalogue items, zero counts included, padding left out; 1 - 1/n when one item takes all places.",
        0,
        1,
        smaller=True,
        per_item=_plain(f.gini),
    ),
    MetricSpec(
        "ExposureGini",
        "the Gini index of exposure, sum over an item's places of 1/log2(rank+1)",
        "As GiniIndex.",
        0,
        1,
        smaller=True,
        per_item=_plain(f.gini),
        exposure=True,
    ),
    MetricSpec(
        "ShannonEntropy",
        "-sum_i phi_i log phi_i, phi_i = c_i / sum c",
        "Natural logarithm, summed (RecBole divides by the number of recommended items).",
        0,
        "log n",
        per_item=_plain(f.shannon_entropy),
    ),
    MetricSpec(
        "HerfindahlIndex",
        "sum_i phi_i^2",
        "1/n when exposure is uniform.",
        0,
        1,
        smaller=True,
        per_item=_plain(f.herfindahl),
    ),
    MetricSpec(
        "AveragePopularity",
        "mean of s(i) over all places of all lists",
        "s(i): training interactions with i; unseen items have 0.",
        0,
        "max s",
        smaller=True,
        needs=frozenset({POPULARITY}),
        per_user=_mean_over_places(lambda x: x.counts),
    ),
    MetricSpec(
        "AverageLogPopularity",
        "mean of log max(s(i), 1) over all places of all lists",
        "Natural logarithm; unseen items have 0.",
        0,
        "log max s",
        smaller=True,
        needs=frozenset({POPULARITY}),
        per_user=_mean_over_places(lambda x: x.known_popularity.log_counts.to(x.items.device)),
    ),
    MetricSpec(
        "TailPercentage",
        "share of all places of all lists taken by tail items",
        f"{_SEGMENT_NOTE} With RecBole's tail_ratio: that share of the catalogue, or items with at most that many "
        "interactions.",
        0,
        1,
        needs=frozenset({SEGMENTS}),
        per_user=_mean_over_places(_tail),
    ),
    MetricSpec(
        "PopularityLift",
        "(mean s of list - mean s of history) / mean s of history, mean over users",
        f"{_HISTORY_NOTE} Best at 0.",
        -1,
        "max s - 1",
        smaller=True,
        to_zero=True,
        needs=frozenset({POPULARITY, HISTORY}),
        per_user=lambda x: PerUser(f.popularity_lift(x.counts, x.items, *x.history, x.topk)),
    ),
    MetricSpec(
        "LogPopularityDifference",
        "mean log s of list - mean log s of history, mean over users",
        f"Natural logarithm of max(s, 1). {_HISTORY_NOTE} Best at 0.",
        -math.inf,
        "log max s",
        smaller=True,
        to_zero=True,
        needs=frozenset({POPULARITY, HISTORY}),
        per_user=lambda x: PerUser(
            f.log_popularity_difference(x.known_popularity.log_counts.to(x.items.device), x.items, *x.history, x.topk)
        ),
    ),
    MetricSpec(
        "UPD",
        "Jensen-Shannon divergence between head/mid/tail shares of history and list, mean over users",
        f"Base 2 (upd_base), 0 log 0 = 0; upd_over: groups averages over niche, diverse and blockbuster users, "
        f"fifths over five equal groups by their share of head items. "
        f"{_HISTORY_NOTE} {_SEGMENT_NOTE}",
        0,
        "log_base 2",
        smaller=True,
        needs=frozenset({SEGMENTS, HISTORY}),
        per_user=_upd,
    ),
    MetricSpec(
        "PCE",
        "mean over levels of (tau - tau_hat)^2, mean over users",
        "tau_hat: share of the history at most as popular as the list's tau quantile (order statistic ceil(tau n), the "
        f"minimum at 0). Levels 0, 0.1 ... 1 (pce_levels). {_HISTORY_NOTE}",
        0,
        1,
        smaller=True,
        needs=frozenset({POPULARITY, HISTORY}),
        per_user=partial(_pce, True),
    ),
    MetricSpec(
        "PCESum",
        "PCE summed over its levels: the scale of the SPREE paper's tables",
        "As PCE.",
        0,
        "number of levels",
        smaller=True,
        needs=frozenset({POPULARITY, HISTORY}),
        per_user=partial(_pce, False),
    ),
    MetricSpec(
        "CKL",
        "sum_g p_g ln(p_g / (0.99 q_g + 0.01 p_g)), groups of history (p) and list (q), mean over users",
        "Groups: group_field; an item of several groups counts equally for each, an item of none is ignored. Natural "
        f"logarithm. {_HISTORY_NOTE}",
        0,
        "ln(1 / ckl_smoothing)",
        smaller=True,
        needs=frozenset({HISTORY, GROUPS}),
        per_user=_ckl,
    ),
    MetricSpec(
        "ConceptShare",
        "mean of w(i) over all places of all lists",
        "w(i): 1 for the items of `concept`, else 0; for a concept of users (user:gender=F) the share of the item's "
        f"training interactions that are theirs; for popularity 1 for head items. {_SEGMENT_NOTE}",
        0,
        1,
        needs=frozenset({CONCEPT, SEGMENTS}),
        per_user=_mean_over_places(lambda x: x.concept_weight),
    ),
    MetricSpec(
        "ConceptGap",
        "|mean w of list - mean w of history|, mean over users",
        f"w as in ConceptShare. {_HISTORY_NOTE}",
        0,
        1,
        smaller=True,
        needs=frozenset({CONCEPT, SEGMENTS, HISTORY}),
        per_user=_concept_gap,
    ),
)

BY_KEY: dict[str, MetricSpec] = {spec.key: spec for spec in SPECS}


def bounds_of(key: str) -> tuple[float, float]:
    """Smallest and largest possible value of ``name@k``, as far as they do not depend on the data."""
    name = key.partition("@")[0]
    spec = BY_KEY.get(name) or BY_KEY[name.partition("_")[0]]
    return spec.low, spec.high if isinstance(spec.high, (int, float)) else math.inf
