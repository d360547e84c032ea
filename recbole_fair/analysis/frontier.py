"""Which of many interventions to take: winners within a budget of accuracy, fronts and their hypervolumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recbole_fair.analysis.pareto import cost, pareto_front

Values = Mapping[str, float]


@dataclass(frozen=True)
class Point:
    """One method under one setting.

    Attributes:
        method: its name.
        setting: its keys and values.
        valid: metrics on validation, by which points are chosen.
        test: metrics on test, which are reported.
    """

    method: str
    setting: Mapping[str, Any]
    valid: Values
    test: Values


def within(value: float, base: float, metric: str, loss: float) -> bool:
    """Whether a value of ``metric`` is at most the share ``loss`` of the base's worse than the base's."""
    return cost(metric, value) <= cost(metric, base) + loss * abs(base) + 1e-12


def best_by_method(points: Sequence[Point], base: Values, x: str, y: str, loss: float) -> list[int]:
    """The best setting of each method within a budget, all on validation.

    Args:
        points: all methods under all settings.
        base: the base's metrics on validation.
        x: metric to choose by.
        y: metric that may lose up to ``loss``.
        loss: share of the base's ``y``.

    Returns:
        Indices of points with a better ``x`` than the base, one a method at most, the best first. Equal values keep the
        order of the points.
    """
    best: dict[str, int] = {}
    for index, point in enumerate(points):
        values = point.valid
        if not within(values[y], base[y], y, loss) or not cost(x, values[x]) < cost(x, base[x]):
            continue
        known = best.get(point.method)
        if known is None or cost(x, values[x]) < cost(x, points[known].valid[x]):
            best[point.method] = index
    return sorted(best.values(), key=lambda i: (cost(x, points[i].valid[x]), i))


def front_by_method(points: Sequence[Point], x: str, y: str) -> dict[str, list[int]]:
    """Indices of the points on each method's own Pareto front on validation, the best ``x`` first."""
    fronts: dict[str, list[int]] = {}
    for method in dict.fromkeys(point.method for point in points):
        own = [i for i, point in enumerate(points) if point.method == method]
        costs = [[cost(name, points[i].valid[name]) for i in own] for name in (x, y)]
        fronts[method] = [own[i] for i in pareto_front(*costs)]
    return fronts


def hypervolume(values: Sequence[Values], base: Values, x: str, y: str, loss: float) -> float:
    """How much better ``x`` gets, summed over what ``y`` may lose: the area that a front dominates.

    Each point spans a rectangle from the corner (the base's x, the base's y less ``loss``): to the one side the share
    by which it betters x, to the other what it leaves of the budget of y. A ``y`` better than the base's counts too.

    Args:
        values: metrics of the points of a front.
        base: those of the base.
        x: first metric.
        y: second metric.
        loss: the budget, a share of the base's ``y``, above 0.

    Returns:
        The area of the rectangles' union, divided by ``loss``: 0 where no point betters x within the budget, 1 where x
        reaches 0 without any loss of y.
    """
    x_scale, y_scale = abs(base[x]) or 1.0, abs(base[y]) or 1.0
    corners = []
    for point in values:
        gain = (cost(x, base[x]) - cost(x, point[x])) / x_scale
        left = loss - (cost(y, point[y]) - cost(y, base[y])) / y_scale
        if gain > 0 and left > 0:
            corners.append((gain, left))
    area, reached = 0.0, 0.0
    for gain, left in sorted(corners, reverse=True):  # from the largest gain on
        if left > reached:
            area += gain * (left - reached)
            reached = left
    return area / loss
