"""Settings between those of a grid: where a method's best within a budget may lie, its neighbours measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recbole_fair.analysis.frontier import Point, Values, best_by_method
from recbole_fair.analysis.pareto import cost

_WIDE = 2.0  # of neighbours whose ratio is larger the geometric mean is taken


def between(
    points: Sequence[Point], base: Values, x: Sequence[str], y: str, losses: Sequence[float]
) -> list[tuple[str, dict[str, Any]]]:
    """What to try next: for each method, metric and budget one setting near the best so far, on validation alone.

    Of the settings that differ from the best in one number, the next one on the side where ``x`` gets better is out of
    the budget; the new setting lies half-way there. Where the best stands at the end of its row, the new one lies one
    step beyond; where a method has nothing within the budget, it lies half-way from its mildest setting to none.

    Args:
        points: what was measured.
        base: the base's metrics on validation.
        x: metrics to better.
        y: metric that may lose up to one of ``losses``.
        losses: budgets, shares of the base's ``y``.

    Returns:
        Methods with settings, none of them measured yet, each once. Values that a method does not allow may be among
        them.
    """
    tried = {_name(point.method, point.setting) for point in points}
    found: list[tuple[str, dict[str, Any]]] = []
    for method in dict.fromkeys(point.method for point in points):
        own = [point for point in points if point.method == method]
        for name in x:
            for loss in losses:
                best = best_by_method(own, base, name, y, loss)
                settings = _around(own, own[best[0]], name) if best else _before(own, y)
                for setting in settings:
                    if _name(method, setting) not in tried:
                        tried.add(_name(method, setting))
                        found.append((method, setting))
                        break
    return found


def _around(own: Sequence[Point], best: Point, x: str) -> Iterator[dict[str, Any]]:
    """Settings half-way to neighbours with a better ``x``, the best one's first; then those beyond an end."""
    inside, beyond = [], []
    for key, row in _rows(own, best):
        at = next(i for i, point in enumerate(row) if point is best)
        for step in (-1, 1):
            far, back = at + step, at - step
            if 0 <= far < len(row):
                if cost(x, row[far].valid[x]) < cost(x, best.valid[x]):
                    value = _middle(best.setting[key], row[far].setting[key])
                    inside.append((cost(x, row[far].valid[x]), key, value))
            elif 0 <= back < len(row) and cost(x, best.valid[x]) < cost(x, row[back].valid[x]):
                beyond.append((key, _next(row[back].setting[key], best.setting[key])))
    for _, key, value in sorted(inside, key=lambda one: one[0]):
        yield {**best.setting, key: value}
    for key, value in beyond:
        yield {**best.setting, key: value}


def _before(own: Sequence[Point], y: str) -> Iterator[dict[str, Any]]:
    """Settings milder than the mildest: half of a number that is the smallest of its row, a step above the largest."""
    mildest = min(own, key=lambda point: cost(y, point.valid[y]))
    for key, row in _rows(own, mildest):
        value = mildest.setting[key]
        if row[0] is mildest:
            yield {**mildest.setting, key: _rounded(value / 2, value)}
        elif row[-1] is mildest:
            yield {**mildest.setting, key: _next(row[-2].setting[key], value)}


def _rows(own: Sequence[Point], point: Point) -> Iterator[tuple[str, list[Point]]]:
    """For each number of a setting the points that differ in nothing else, by that number; two at least."""
    for key, value in point.setting.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        others = {name: other for name, other in point.setting.items() if name != key}
        row = [
            one for one in own
            if key in one.setting and {name: other for name, other in one.setting.items() if name != key} == others
        ]  # fmt: skip
        if len(row) > 1:
            yield key, sorted(row, key=lambda one: one.setting[key])


def _middle(one: float, other: float) -> float:
    low, high = sorted((one, other))
    wide = low > 0 and high / low > _WIDE
    return _rounded((low * high) ** 0.5 if wide else (low + high) / 2, one, other)


def _next(before: float, last: float) -> float:
    """One step beyond the last of a row: away from 0 by a quarter of it to its double, towards 0 half of the way."""
    if (last > 0) == (last > before):
        grown = min(max(abs(last - before), abs(last) / 4), abs(last))
        return _rounded(last + (grown if last > before else -grown), before, last)
    return _rounded(last / 2, before, last)


def _rounded(value: float, *like: float) -> float:
    """Three digits; a whole number among whole numbers."""
    return round(value) if all(isinstance(one, int) for one in like) else float(f"{value:.3g}")


def _name(method: str, setting: Mapping[str, Any]) -> str:
    return repr((method, sorted(setting.items())))
