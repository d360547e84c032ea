"""The outcome of one evaluation: values, and what they were made of."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from recbole_fair.data.facts.popularity import Popularity
from recbole_fair.evaluator.group_result import GroupResult


@dataclass
class EvaluationResult:
    """Metrics of one evaluation with their per-user values.

    Attributes:
        metrics: ``name@k`` to value, full precision; NaN where no user has a value.
        topk: The cutoffs, in the order of the columns of ``per_user``.
        lists: Recommended item ids ``[U, K]``, best first, 0 = no item.
        scores: Their scores ``[U, K]``, -inf where there is no item.
        user_ids: Inner user id of each row, long ``[U]``; one may stand in several rows.
        per_user: Metric name to values ``[U, len(topk)]``, NaN for rows that the metric leaves out.
        n_items: Number of item ids including the padding id 0.
        popularity: Item popularity, or None if it was not collected.
        curves: ``calibration``, ``lorenz`` and ``exposure`` curves as plain values.
        groups: Metrics by user group, by name of the grouping.
        intervals: ``name@k`` to the (low, high) bounds of its 95 % bootstrap interval.
        notes: Sentences for the log, such as how many users a metric leaves out.
    """

    metrics: OrderedDict[str, float]
    topk: tuple[int, ...] = ()
    lists: Tensor | None = None
    scores: Tensor | None = None
    user_ids: Tensor | None = None
    per_user: dict[str, Tensor] = field(default_factory=dict)
    n_items: int = 0
    popularity: Popularity | None = None
    curves: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, GroupResult] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def n_users(self) -> int:
        """Number of evaluated users; a user may have several lists, one for each held-out item."""
        return 0 if self.user_ids is None else len(torch.unique(self.user_ids))

    @property
    def list_numbers(self) -> Tensor | None:
        """Number of each list among those of its user, from 1, long ``[U]``; None where every user has one."""
        return None if self.user_ids is None else numbers_within(self.user_ids)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON document: no tensors, None in place of NaN, nothing by user."""
        return plain(
            {
                "metrics": self.metrics,
                "n_users": self.n_users,
                "intervals": self.intervals,
                "groups": self.groups,
                "curves": self.curves,
                "notes": self.notes,
            }
        )


def numbers_within(users: Tensor) -> Tensor | None:
    """Number of each row among those of its user.

    Args:
        users: user of each row, long ``[U]``.

    Returns:
        Long ``[U]``, from 1; None where every user has one row.

    >>> numbers_within(torch.tensor([4, 7, 4])).tolist()
    [1, 1, 2]
    """
    ordered, order = users.cpu().sort(stable=True)
    new = torch.ones(len(ordered), dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    if bool(new.all()):
        return None
    row = torch.arange(len(ordered))
    first = torch.where(new, row, 0).cummax(0).values
    numbers = torch.empty_like(row)
    numbers[order] = row - first + 1
    return numbers


def plain(value: Any) -> Any:
    """Turn tensors, tuples, metrics by group and NaN inside ``value`` into plain values, lists and None, for JSON."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, GroupResult):
        value = value.to_plain()
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
