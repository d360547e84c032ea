"""Choosing an epoch by a validation metric under bounds that other validation metrics must keep."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recbole_fair.config.keys import metric_parts
from recbole_fair.errors import FairError
from recbole_fair.evaluator.options import MetricOptions
from recbole_fair.evaluator.specs import BY_KEY

_FORM = re.compile(r"^\s*([A-Za-z]\w*(?:@\d+)?)\s*(<=|>=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*$")
_OPERATORS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}


def selection_value(key: str, value: float) -> float:
    """The number by which an epoch is judged: a metric that is best at zero is judged by its distance from zero.

    Args:
        key: ``name@k`` in any case.
        value: Its value.

    Returns:
        The value, or its magnitude for PopularityLift and LogPopularityDifference (for which smaller is better).
    """
    spec = BY_KEY.get(key.partition("@")[0].lower())
    return abs(value) if spec is not None and spec.to_zero else value


@dataclass(frozen=True)
class Constraint:
    """One bound on a validation metric, such as ``GiniIndex@10 <= 0.8``.

    Attributes:
        metric: ``name@k``, lower case as in results.
        sign: ``<=``, ``>=``, ``<`` or ``>``.
        bound: The bound.
    """

    metric: str
    sign: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read ``name@k <= number``.

        Args:
            text: The constraint.

        Returns:
            The constraint.

        Raises:
            FairError: If the text has another form.
        """
        match = _FORM.match(text) if isinstance(text, str) else None
        if match is None:
            raise FairError(
                f"valid_constraint={text!r} is not allowed: write it as 'GiniIndex@10 <= 0.8' (<=, >=, < or >)."
            )
        metric, sign, bound = match.groups()
        return cls(metric.lower(), sign, float(bound))

    def violation(self, values: Mapping[str, float]) -> float:
        """How far the bound is missed: 0 if it is kept, infinite if the metric has no value.

        Args:
            values: ``name@k`` to value.

        Returns:
            A number from 0 on.
        """
        value = values.get(self.metric, float("nan"))
        if _OPERATORS[self.sign](value, self.bound):
            return 0.0
        # A strict bound that is met exactly is missed by nothing measurable, but missed.
        return float("inf") if value != value else max(abs(value - self.bound), 1e-300)

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.bound:g}"


def parse_constraints(given: Any, options: MetricOptions) -> tuple[Constraint, ...]:
    """Read the configuration's ``valid_constraint``: one bound, several joined by ``and``, or a list.

    Args:
        given: Value of the key, or None.
        options: Options of the metrics: the constrained metrics must be among those that are computed.

    Returns:
        The constraints, none if the key is not set.

    Raises:
        FairError: For another form, or a metric or cutoff that is not computed.
    """
    if given is None or given == []:
        return ()
    texts = given if isinstance(given, (list, tuple)) else [given]
    parts = [part for text in texts for part in (re.split(r"\s+and\s+", text) if isinstance(text, str) else [text])]
    constraints = tuple(Constraint.parse(part) for part in parts)
    for constraint in constraints:
        name = constraint.metric.partition("@")[0]
        base, count, cutoff = metric_parts(constraint.metric)
        if base not in {metric.lower() for metric in options.metrics}:
            raise FairError(f"valid_constraint names {name!r}, which is not computed: add it to metrics.")
        if count is not None and count not in options.coverage_min_count:
            raise FairError(f"valid_constraint names {name!r}, which is not computed: add it to coverage_min_count.")
        if name in BY_KEY and (not cutoff or int(cutoff) not in options.topk):
            cutoffs = ", ".join(f"{name}@{k}" for k in options.topk)
            raise FairError(f"valid_constraint names {constraint.metric!r}, which is not computed: there is {cutoffs}.")
    return constraints
