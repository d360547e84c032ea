"""Which settings to look at, and which to take: Pareto fronts, bounds, and the choice under bounds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from recbole_fair.errors import FairError
from recbole_fair.evaluator.constraint import Constraint, selection_value
from recbole_fair.evaluator.directions import display_name, smaller_is_better

_TO_BASE = re.compile(r"^\s*(\S+)\s*(<=|>=|<|>)\s*(?:([^\s*]+)\s*\*\s*)?base\s*$")


def bound_metric(text: str) -> str:
    """Name of the metric, ``name@k`` in lower case, that a bound such as ``NDCG@10 >= 0.9*base`` is about.

    Raises:
        FairError: for a text that is no bound.
    """
    return constraint_of(text, None).metric


def constraint_of(text: str, base: Mapping[str, float] | None) -> Constraint:
    """Read a bound such as ``NDCG@10 >= 0.9*base`` or ``GiniIndex@10 <= 0.67``.

    Args:
        text: the bound; ``base`` stands for the base model's value of the same metric.
        base: the base model's metrics on the split where the bound is to hold; None to read the form alone.

    Returns:
        The bound as a number.

    Raises:
        FairError: for another form or a metric that was not computed.
    """
    match = _TO_BASE.match(text)
    if match is not None:
        name, sign, factor = match.groups()
        try:
            bound = float(factor or 1.0) * (base or {}).get(name.lower(), float("nan"))
        except ValueError:
            raise FairError(f"subject-to={text!r} is not allowed: {factor!r} is not a number.") from None
        constraint = Constraint(name.lower(), sign, bound)
    else:
        try:
            constraint = Constraint.parse(text)
        except FairError:
            raise FairError(
                f"subject-to={text!r} is not allowed: write it as 'NDCG@10 >= 0.9*base' or 'GiniIndex@10 <= 0.8' "
                "(<=, >=, < or >)."
            ) from None
    if base is not None and constraint.metric not in base:
        raise FairError(f"subject-to={text!r} names a metric that is not computed; there is {', '.join(base)}.")
    return constraint


def choose(results: Sequence[Mapping[str, float]], x: str, constraints: Sequence[Constraint]) -> int | None:
    """Index of the setting with the best ``x`` among those that keep every bound, the first of equals.

    Args:
        results: metrics of each setting, from validation.
        x: ``name@k`` to choose by; metrics that are best at zero count by their distance from it.
        constraints: the bounds.

    Returns:
        The index, or None when no setting keeps the bounds.
    """
    kept = [i for i, values in enumerate(results) if not any(c.violation(values) for c in constraints)]
    known = [i for i in kept if results[i][x] == results[i][x]]
    return min(known, key=lambda i: cost(x, results[i][x]), default=None)


def cost(metric: str, value: float) -> float:
    """A number that is the smaller the better the value of a metric is."""
    value = selection_value(metric, value)
    return value if smaller_is_better(metric) else -value


def pareto_front(x: Sequence[float], y: Sequence[float]) -> list[int]:
    """Indices of the points that no other point betters in one direction without loss in the other.

    Args:
        x: first cost of each point: less is better, NaN is never on the front.
        y: second cost of each point.

    Returns:
        Indices in order of ``x``; of equal points the first alone.
    """
    front: list[int] = []
    best = float("inf")
    for index in sorted((i for i in range(len(x)) if x[i] == x[i]), key=lambda i: (x[i], y[i], i)):
        if y[index] < best:
            front.append(index)
            best = y[index]
    return front


def front_of(results: Sequence[Mapping[str, float]], x: str, y: str) -> list[int]:
    """The Pareto front of settings in two metrics.

    Args:
        results: metrics of each setting.
        x: ``name@k`` of the first metric.
        y: ``name@k`` of the second one.

    Returns:
        Indices, those with the best ``x`` first.
    """
    return pareto_front(*([cost(name, values[name]) for values in results] for name in (x, y)))


def bound_text(constraint: Constraint) -> str:
    """A bound for people, such as ``NDCG@10 >= 0.1167``."""
    return f"{display_name(constraint.metric)} {constraint.sign} {constraint.bound:.4g}"
