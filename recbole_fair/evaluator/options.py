"""What the configuration says about metrics, read once and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from recbole_fair.config.contract import Settings
from recbole_fair.errors import FairError

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
        upd_over: ``users``: mean over users; ``groups``: mean over the three taste groups.
        upd_smoothing: Added to the shares that UPD compares.
        pce_levels: Quantile levels of PCE and of the calibration curve.
        group_field: Item column that holds the item groups, or None.
        ckl_smoothing: Steck's smoothing in CKL and in interest drift.
        group_metrics: Metrics by user group.
        bootstrap: Number of resamples, 0 for none.
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

        Raises:
            FairError: For a value that cannot be used.
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
    counts = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not counts or any(isinstance(c, bool) or not isinstance(c, int) or c < 1 for c in counts):
        raise FairError(f"coverage_min_count={value!r} is not allowed: give whole numbers from 1 on.")
    return tuple(dict.fromkeys(counts))


def _levels(value: Any) -> tuple[float, ...]:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 2:
        return levels(value)
    if isinstance(value, (list, tuple)) and value:
        try:
            given = tuple(float(v) for v in value)
        except (TypeError, ValueError):
            given = (math.nan,)
        if all(0 <= v <= 1 for v in given) and list(given) == sorted(set(given)):
            return given
    raise FairError(
        f"pce_levels={value!r} is not allowed: give a number of levels from 2 on, or a rising list of levels in [0, 1]."
    )


def _base(value: Any) -> float:
    if value == "e":
        return math.e
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 1:
        raise FairError(f"upd_base={value!r} is not allowed: give a number above 1, or e.")
    return float(value)


def _one_of(key: str, *choices: str) -> Any:
    def read(value: Any) -> str:
        if value not in choices:
            raise FairError(f"{key}={value!r} is not allowed: it must be one of {', '.join(choices)}.")
        return str(value)

    return read


def _groupings(value: Any) -> tuple[Grouping, ...]:
    if isinstance(value, str):
        value = [value]
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
        value = {name: {"metrics": ["NDCG"]} for name in value}
    if not isinstance(value, Mapping):
        raise FairError(
            f"group_metrics={value!r} is not allowed: name the groups, as in [mainstream, gender], or their metrics, "
            "as in {mainstream: {metrics: [NDCG]}}."
        )
    return tuple(_grouping(str(name), spec) for name, spec in value.items())


def _grouping(name: str, spec: Any) -> Grouping:
    where = f"group_metrics.{name}"
    if not isinstance(spec, Mapping) or not spec.get("metrics"):
        raise FairError(f"{where}={spec!r} is not allowed: it must name its metrics, as in {{metrics: [NDCG]}}.")
    unknown = set(spec) - {"metrics", "bins", "thresholds"}
    if unknown:
        raise FairError(f"{where} has the unknown key {min(unknown)!r}: allowed are metrics, bins, thresholds.")
    bins, thresholds = spec.get("bins"), spec.get("thresholds")
    if bins is not None and (isinstance(bins, bool) or not isinstance(bins, int) or bins < 2):
        raise FairError(f"{where}.bins={bins!r} is not allowed: it must be a whole number from 2 on.")
    if thresholds is not None:
        if name != DRIFT:
            raise FairError(f"{where}.thresholds is not allowed: thresholds belong to '{DRIFT}', use bins here.")
        if not isinstance(thresholds, (list, tuple)) or not all(isinstance(t, (int, float)) for t in thresholds):
            raise FairError(f"{where}.thresholds={thresholds!r} is not allowed: it must be a list of numbers.")
    if name == DRIFT and bins is not None and thresholds is not None:
        raise FairError(f"{where} takes bins or thresholds, not both.")
    return Grouping(
        name, _names(spec["metrics"]), bins, DRIFT_THRESHOLDS if thresholds is None else tuple(map(float, thresholds))
    )


_READERS: dict[str, Any] = {
    "topk": _topk,
    "metrics": _names,
    "coverage_min_count": _min_counts,
    "segment_by": _one_of("segment_by", "interactions", "items"),
    "upd_base": _base,
    "upd_over": _one_of("upd_over", "users", "groups"),
    "pce_levels": _levels,
    "group_metrics": _groupings,
    "metric_history": _one_of("metric_history", "train", "train_valid"),
}
