"""Trade-off curves from one cached pass: users are encoded once, each setting costs an edit, a product and a top-k."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd
from torch import Tensor

from recbole_fair.errors import FairError
from recbole_fair.evaluator.constraint import Constraint, selection_value
from recbole_fair.evaluator.specs import BY_KEY

Setting = dict[str, Any]


def parse_grid(texts: Sequence[str]) -> dict[str, list[float]]:
    """Read ``key=start:stop:step`` (both ends included) and ``key=a,b,c``.

    Args:
        texts: one text a key.

    Returns:
        Key to its values.

    Raises:
        FairError: for a text of another form, a step that leads nowhere, or a key given twice.
    """
    grid: dict[str, list[float]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not key or not equals or key in grid:
            raise FairError(f"grid={text!r} is not allowed: give each key once, as key=0:5:0.5 or key=0,0.5,1.")
        grid[key] = _values(text, values)
    if not grid:
        raise FairError("The grid is empty: give at least one --grid key=0:5:0.5.")
    return grid


def _values(text: str, values: str) -> list[float]:
    try:
        if ":" not in values:
            return [float(value) for value in values.split(",")]
        start, stop, step = (float(value) for value in values.split(":"))
    except ValueError:
        raise FairError(f"grid={text!r} is not allowed: give numbers, as key=0:5:0.5 or key=0,0.5,1.") from None
    if step <= 0 or stop < start:
        raise FairError(f"grid={text!r} is empty: the step must be above 0 and the end not below the start.")
    return [round(start + number * step, 12) for number in range(int((stop - start) / step + 1e-9) + 1)]


def settings_of(grid: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """All combinations of a grid's values, the last key changing fastest."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


@contextmanager
def encoded_once(model: Any) -> Iterator[None]:
    """Inside the block a post-hoc model's base encodes each batch of users one time and is then remembered.

    Args:
        model: a :class:`~recbole_fair.model.posthoc.PostHocModel`; its base must be in evaluation mode.
    """
    base = model.base
    encode, known = base.represent_users, {}

    def remembered(interaction: Any) -> Tensor:
        key = tuple(
            interaction[field].cpu().numpy().tobytes()
            for field in (base.USER_ID, getattr(base, "ITEM_SEQ", base.USER_ID))
        )
        if key not in known:
            known[key] = encode(interaction)
        return known[key]

    base.represent_users = remembered
    try:
        yield
    finally:
        del base.represent_users


def sweep(trainer: Any, eval_data: Any, settings: Sequence[Setting], show: Any = iter) -> list[dict[str, float]]:
    """Metrics of one split under each setting of the strengths.

    Args:
        trainer: a trainer with its splits bound and a fitted post-hoc model.
        eval_data: a validation or test loader.
        settings: strengths to apply, one evaluation each; the model's own come back afterwards.
        show: wraps the settings, for a progress bar.

    Returns:
        ``name@k`` to value, one mapping a setting.

    Raises:
        FairError: if the model has no strengths, or not those.
    """
    model = trainer.model
    if not getattr(model, "strength_keys", ()):
        raise FairError(f"{trainer.config['model']} has no strengths to sweep; use a steered model's checkpoint.")
    before = model.strengths
    results = []
    try:
        with encoded_once(model):
            for setting in show(settings):
                model.set_strengths(**setting)
                with model.use_variant(model.final_variant):
                    results.append(dict(trainer.evaluate(eval_data, load_best_model=False)))
    finally:
        model.set_strengths(**before)
    return results


def constraint_of(text: str, base: Mapping[str, float]) -> Constraint:
    """Read a bound such as ``NDCG@10 >= 0.9*base`` or ``GiniIndex@10 <= 0.67``.

    Args:
        text: the bound; ``base`` stands for the base model's value of the same metric.
        base: the base model's metrics on the split where the bound is to hold.

    Returns:
        The bound as a number.

    Raises:
        FairError: for another form or a metric that was not computed.
    """
    match = re.match(r"^\s*(\S+)\s*(<=|>=|<|>)\s*(?:([0-9.eE+-]+)\s*\*\s*)?base\s*$", text)
    if match is not None:
        name, sign, factor = match.groups()
        try:
            bound = float(factor or 1.0) * base.get(name.lower(), float("nan"))
        except ValueError:
            raise FairError(f"subject-to={text!r} is not allowed: {factor!r} is not a number.") from None
        constraint = Constraint(name.lower(), sign, bound)
    else:
        constraint = Constraint.parse(text)
    if constraint.metric not in base:
        raise FairError(f"subject-to={text!r} names a metric that is not computed; there is {', '.join(base)}.")
    return constraint


def smaller_is_better(metric: str) -> bool:
    """Whether less of a metric of ours (``name@k``) is better."""
    spec = BY_KEY.get(metric.partition("@")[0].partition("_min")[0].lower())
    return spec is not None and spec.smaller


def sweep_table(
    settings: Sequence[Setting], valid: Sequence[Mapping[str, float]], test: Sequence[Mapping[str, float]]
) -> pd.DataFrame:
    """One row a setting: its strengths, then ``valid NAME`` and ``test NAME`` of every metric."""
    rows = []
    for setting, on_valid, on_test in zip(settings, valid, test, strict=True):
        row = dict(setting)
        row |= {f"valid {name}": value for name, value in on_valid.items()}
        row |= {f"test {name}": value for name, value in on_test.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def choose(results: Sequence[Mapping[str, float]], x: str, constraints: Sequence[Constraint]) -> int | None:
    """Index of the setting with the best ``x`` among those that keep every bound, the first of equals.

    Args:
        results: metrics of each setting, from validation.
        x: ``name@k`` to choose by; metrics that are best at zero count by their distance from it.
        constraints: the bounds.

    Returns:
        The index, or None when no setting keeps the bounds.
    """
    sign = 1.0 if smaller_is_better(x) else -1.0
    kept = [i for i, values in enumerate(results) if not any(c.violation(values) for c in constraints)]
    return min(kept, key=lambda i: sign * selection_value(x, results[i][x]), default=None)


def pareto_front(x: Sequence[float], y: Sequence[float], x_smaller: bool, y_smaller: bool) -> list[int]:
    """Indices of the points that no other point betters in both directions, in order of ``x``.

    Args:
        x: first metric of each point.
        y: second metric of each point.
        x_smaller: whether smaller ``x`` is better.
        y_smaller: whether smaller ``y`` is better.

    Returns:
        Indices; of equal points the first alone.
    """
    a = [value if x_smaller else -value for value in x]
    b = [value if y_smaller else -value for value in y]
    front: list[int] = []
    best = float("inf")
    for index in sorted(range(len(a)), key=lambda i: (a[i], b[i], i)):
        if b[index] < best:
            front.append(index)
            best = b[index]
    return front
