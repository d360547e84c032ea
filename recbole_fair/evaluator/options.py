"""What the configuration says about metrics, read once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from recbole_fair.config.concepts import POPULARITY
from recbole_fair.config.contract import Settings

MAINSTREAM, DRIFT, TASTE = "mainstream", "drift", "popularity_taste"
DRIFT_THRESHOLDS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0)


@dataclass(frozen=True)
class Grouping:
    """One entry of ``group_metrics``: how users are grouped and which metrics are reported by group.

    Attributes:
        name: ``mainstream``, ``drift``, ``popularity_taste`` or a user column.
        metrics: Metric names as the user wrote them.
        bins: Number of equally large groups, or None where the grouping has its own rule.
        thresholds: Lower bounds (exclusive) of the groups of ``drift``.
    """

    name: str
    metrics: tuple[str, ...]
    bins: int | None = None
    thresholds: tuple[float, ...] = DRIFT_THRESHOLDS


@dataclass(frozen=True)
class MetricOptions:
    """Options of all metrics; the names are those of the configuration keys.

    Attributes:
        topk: Cutoffs, in the order of the configuration.
        metrics: Metric names as the user wrote them.
        coverage_min_count: An item is covered from this many lists on; one value of ItemCoverage for each.
        segment_head_share: Share of head items in segment metrics (TailPercentage, UPD, NDCGHead ...).
        segment_tail_share: Share of tail items there.
        segment_by: ``interactions`` or ``items``: what those are shares of.
        tail_ratio: RecBole's key: if set, TailPercentage takes this share of the catalogue (or, above 1, the items with
            at most this many interactions) as tail.
        upd_base: Base of UPD's logarithm.
        upd_over: ``users``: mean over users; ``groups``: mean over the three taste groups; ``fifths``: over five equal
            groups by the share of head items.
        upd_smoothing: Added to the shares that UPD compares.
        pce_levels: Quantile levels of PCE and of the calibration curve.
        group_field: Item column that holds the item groups, or None.
        ckl_smoothing: Steck's smoothing in CKL and in interest drift.
        group_metrics: Metrics by user group.
        bootstrap: Number of resamples, 0 for none.
        concept: what ConceptShare and ConceptGap count.
        metric_history: ``train`` or ``train_valid``: what counts as history when testing.
        seed: Seed of the bootstrap's own generator.
    """

    topk: tuple[int, ...] = (10,)
    metrics: tuple[str, ...] = ()
    coverage_min_count: tuple[int, ...] = (1,)
    segment_head_share: float = 0.2
    segment_tail_share: float = 0.2
    segment_by: str = "interactions"
    tail_ratio: float | None = None
    upd_base: float = 2.0
    upd_over: str = "users"
    upd_smoothing: float = 0.0
    pce_levels: tuple[float, ...] = field(default_factory=lambda: levels(11))
    group_field: str | None = None
    ckl_smoothing: float = 0.01
    group_metrics: tuple[Grouping, ...] = ()
    bootstrap: int = 0
    concept: str = POPULARITY
    metric_history: str = "train"
    seed: int = 0

    @property
    def kmax(self) -> int:
        """The longest cutoff."""
        return max(self.topk)

    @classmethod
    def from_config(cls, config: Settings) -> MetricOptions:
        """Read the options from a configuration; a key that is absent or null takes this class's default.

        Args:
            config: Anything with ``config[key]`` that gives None for absent keys, as RecBole's Config does.

        Returns:
            The options.
        """
        given: dict[str, Any] = {}
        for f in fields(cls):
            value = config[f.name] if not isinstance(config, Mapping) else config.get(f.name)
            if value is not None:
                given[f.name] = _READERS.get(f.name, lambda value: value)(value)
        return cls(**given)


def levels(n: int) -> tuple[float, ...]:
    """``n`` quantile levels from 0 to 1 in equal steps."""
    return tuple(j / (n - 1) for j in range(n))


def _topk(value: Any) -> tuple[int, ...]:
    return tuple(dict.fromkeys(int(k) for k in (value if isinstance(value, (list, tuple)) else [value])))


def _names(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(str(v) for v in value)


def _min_counts(value: Any) -> tuple[int, ...]:
    return tuple(dict.fromkeys(value if isinstance(value, (list, tuple)) else (value,)))


def _levels(value: Any) -> tuple[float, ...]:
    return levels(value) if isinstance(value, int) else tuple(map(float, value))


def _groupings(value: Any) -> tuple[Grouping, ...]:
    if not isinstance(value, Mapping):
        value = {name: {"metrics": ["NDCG"]} for name in ([value] if isinstance(value, str) else value)}
    return tuple(_grouping(str(name), spec) for name, spec in value.items())


def _grouping(name: str, spec: Mapping[str, Any]) -> Grouping:
    thresholds = spec.get("thresholds")
    bounds = DRIFT_THRESHOLDS if thresholds is None else tuple(map(float, thresholds))
    return Grouping(name, _names(spec["metrics"]), spec.get("bins"), bounds)


#: How values of the configuration, which the configuration has checked, become those of the options.
_READERS: dict[str, Callable[[Any], Any]] = {
    "topk": _topk,
    "metrics": _names,
    "coverage_min_count": _min_counts,
    "upd_base": lambda value: math.e if value == "e" else float(value),
    "pce_levels": _levels,
    "group_metrics": _groupings,
}
