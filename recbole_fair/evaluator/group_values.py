"""Any per-user metric by group of users."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from recbole_fair.data.facts.groups import Column, UserFacts, taste_groups
from recbole_fair.errors import FairError
from recbole_fair.evaluator.bootstrap import interval, per_user_resamples
from recbole_fair.evaluator.group_result import GroupResult
from recbole_fair.evaluator.inputs import EvalInputs
from recbole_fair.evaluator.options import DRIFT, MAINSTREAM, TASTE, Grouping, MetricOptions
from recbole_fair.evaluator.specs import BY_KEY, GROUPS, SEGMENTS, MetricSpec, PerUser, bounds_of

Floats = npt.NDArray[np.float64]

MAX_GROUPS = 100
_FIVE_LEVELS = ("low", "med-low", "medium", "med-high", "high")
_TASTES = ("niche", "diverse", "blockbuster")


@dataclass(frozen=True)
class UserGroups:
    """Rows of an evaluation by group.

    Attributes:
        definition: How the groups were made, in one sentence.
        labels: Names of the G groups.
        members: bool ``[G, U]``; rows may be in several groups (thresholds) or in none (unknown).
    """

    definition: str
    labels: tuple[str, ...]
    members: Tensor


def metric_of(name: str, where: str) -> MetricSpec:
    """The per-user metric of that name.

    Args:
        name: Name in any case.
        where: The configuration key, for the error message.

    Returns:
        The metric.

    Raises:
        FairError: If there is no such metric, or it has no values by user.
    """
    spec = BY_KEY.get(name.lower())
    if spec is None:
        near = difflib.get_close_matches(name.lower(), BY_KEY, 1)
        hint = f"; did you mean {BY_KEY[near[0]].name}?" if near else "."
        raise FairError(f"{where} names the metric {name!r}, which has no values by user{hint}")
    if spec.per_user is None:
        raise FairError(f"{where} names {spec.name}, which describes all lists together and has no values by user.")
    return spec


def needs_of(options: MetricOptions) -> dict[str, str]:
    """What the configured metrics and groupings need, each with the name of something that needs it.

    Raises:
        FairError: For a metric in ``group_metrics`` that does not exist or has no values by user.
    """
    needs: dict[str, str] = {}
    for name in options.metrics:
        spec = BY_KEY.get(name.lower())
        # RecBole's tail_ratio replaces the segments.
        own_tail = spec is not None and spec.name == "TailPercentage" and options.tail_ratio is not None
        for need in spec.needs if spec is not None and not own_tail else ():
            needs.setdefault(need, spec.name if spec else name)
    for grouping in options.group_metrics:
        where = f"group_metrics.{grouping.name}"
        for name in grouping.metrics:
            for need in metric_of(name, where).needs:
                needs.setdefault(need, where)
        if grouping.name == DRIFT:
            needs.setdefault(GROUPS, where)
        if grouping.name == TASTE:
            needs.setdefault(SEGMENTS, where)
    return needs


def _numbers(column: Column) -> Floats | None:
    """The column as numbers, NaN where empty; None if some entry is no number."""
    try:
        return np.array([float(text) if text else np.nan for text in column.values])
    except ValueError:
        return None


def check_column(column: Column, grouping: Grouping) -> None:
    """Check that users can be grouped by a column.

    Raises:
        FairError: If bins are wanted of a column that is not numeric, or there are too many different values.
    """
    where = f"group_metrics.{grouping.name}"
    if grouping.bins is not None:
        if _numbers(column) is None:
            raise FairError(f"{where}.bins={grouping.bins} needs a column of numbers, but '{column.name}' holds text.")
        return
    n = len(set(column.values) - {""})
    if n == 0:
        raise FairError(f"{where}: no user of the data set has a value in the column '{column.name}'.")
    if n > MAX_GROUPS:
        raise FairError(f"{where}: '{column.name}' has {n} different values; set bins, or use a coarser column.")


def _equal_groups(scores: Tensor, bins: int) -> Tensor:
    """Rank known scores, ties by position, and cut the ranks into groups whose sizes differ by one at most."""
    members = torch.zeros(bins, len(scores), dtype=torch.bool)
    known = torch.nonzero(~scores.isnan()).squeeze(1)
    ranked = known[scores[known].argsort(stable=True)]
    for group, part in enumerate(torch.tensor_split(ranked, bins)):
        members[group, part] = True
    return members


def _members(users: Tensor, scores: Tensor, group: Callable[[Tensor], Tensor]) -> Tensor:
    """Groups of users by a score, ``[G, U]`` over rows: the rows of a user, which share the score, stay together."""
    _, first, of_row = np.unique(users.cpu().numpy(), return_index=True, return_inverse=True)
    order = np.argsort(first)  # users as they appear
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return group(scores[torch.from_numpy(first[order])])[:, torch.from_numpy(place[of_row])]


def _n_users(members: Tensor, users: Tensor) -> int:
    return len(torch.unique(users.cpu()[members.cpu()]))


def _bin_labels(bins: int) -> tuple[str, ...]:
    return _FIVE_LEVELS if bins == 5 else tuple(f"{b} of {bins}" for b in range(1, bins + 1))


def _tastes(share: Tensor) -> Tensor:
    group = taste_groups(share)
    return torch.stack([group == number for number in range(3)])


def _of_rows(scores: Floats, inputs: EvalInputs) -> Tensor:
    return torch.from_numpy(scores)[inputs.users.cpu()]


def user_groups(grouping: Grouping, inputs: EvalInputs, facts: UserFacts) -> UserGroups:
    """Group the evaluated users.

    Args:
        grouping: How.
        inputs: The evaluation.
        facts: What is known about users.

    Returns:
        The groups, from the lowest score on, or by value of the column.
    """
    bins = grouping.bins
    if grouping.name == MAINSTREAM:
        bins = bins or 5
        members = _members(inputs.users, _of_rows(facts.mainstream, inputs), partial(_equal_groups, bins=bins))
        text = f"mean Jaccard similarity of training items to all other users, {bins} equally large groups"
        return UserGroups(text, _bin_labels(bins), members)
    if grouping.name == DRIFT:
        text = f"symmetric KL divergence of '{inputs.groups.field if inputs.groups else ''}' between history halves"
        drift = _of_rows(facts.drift, inputs)
        if bins is not None:
            members = _members(inputs.users, drift, partial(_equal_groups, bins=bins))
            return UserGroups(f"{text}, {bins} equally large groups", _bin_labels(bins), members)
        labels = tuple(f"> {t:g}" for t in grouping.thresholds)
        members = torch.stack([drift > t for t in grouping.thresholds])
        return UserGroups(f"{text} above each threshold (groups overlap)", labels, members)
    if grouping.name == TASTE:
        text = "share of head items in the history"
        share = inputs.head_share.cpu()
        if bins is not None:
            members = _members(inputs.users, share, partial(_equal_groups, bins=bins))
            return UserGroups(f"{text}, {bins} equally large groups", _bin_labels(bins), members)
        members = _members(inputs.users, share, _tastes)
        return UserGroups(f"{text}: lowest 20 %, middle 60 %, highest 20 % of users", _TASTES, members)
    return _column_groups(grouping, inputs, facts.columns[grouping.name])


def _column_groups(grouping: Grouping, inputs: EvalInputs, column: Column) -> UserGroups:
    numbers = _numbers(column)
    if grouping.bins is not None:
        assert numbers is not None  # check_column has seen to it
        bins = grouping.bins
        members = _members(inputs.users, _of_rows(numbers, inputs), partial(_equal_groups, bins=bins))
        return UserGroups(f"column '{column.name}', {bins} equally large groups", _bin_labels(bins), members)
    values = column.values[inputs.users.cpu().numpy()]
    present = set(values) - {""}
    labels = tuple(sorted(present, key=float if numbers is not None else str))
    members = (
        torch.stack([torch.from_numpy(values == label) for label in labels]) if labels else torch.zeros(0, len(values))
    )
    return UserGroups(f"column '{column.name}'", labels, members.bool())


def grouped_values(groups: UserGroups, values: dict[str, PerUser], inputs: EvalInputs) -> GroupResult:
    """Values of metrics by group.

    Args:
        groups: The groups.
        values: Per-user values by metric name.
        inputs: The evaluation; gives cutoffs and the user of each row: sizes of groups are in users.

    Returns:
        The values of each group and metric ``name@k``, without intervals.
    """
    columns: dict[str, list[float]] = {}
    for name, per_user in values.items():
        # Membership as weights: a group is the sample in which only its members are drawn.
        means = PerUser(per_user.values, per_user.weights).mean(groups.members.to(per_user.values.device))
        columns |= {f"{name}@{k}": means[:, column].tolist() for column, k in enumerate(inputs.topk)}
    labels = list(groups.labels)
    outside = ~groups.members.any(0) if labels else torch.ones(inputs.n_rows, dtype=torch.bool)
    left_out = _n_users(outside, inputs.users)
    sizes = {label: _n_users(member, inputs.users) for label, member in zip(labels, groups.members, strict=True)}
    return GroupResult(groups.definition, left_out, sizes, pd.DataFrame(columns, index=labels, dtype="float64"))


def group_intervals(
    groups: UserGroups, values: dict[str, PerUser], result: GroupResult, inputs: EvalInputs
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """95 % intervals of the values of each group, by resampling all users.

    Args:
        groups: The groups.
        values: Per-user values by metric name.
        result: Their values by group.
        inputs: The evaluation; gives the number of resamples and their seed.

    Returns:
        Lower and upper bounds, shaped as ``result.by_group``.
    """
    by_group = result.by_group.to_numpy()
    low, high = np.empty_like(by_group), np.empty_like(by_group)
    for place, member in enumerate(groups.members):
        inside = {
            name: PerUser(p.values, (p.weights if p.weights is not None else 1.0) * member.double()[:, None])
            for name, p in values.items()
        }
        drawn = per_user_resamples(inputs, inside, inputs.options.bootstrap, inputs.options.seed)
        for name, resampled in drawn.items():
            for column, k in enumerate(inputs.topk):
                at = place, result.metrics.index(f"{name}@{k}")
                low[at], high[at] = interval(by_group[at], resampled[:, column], *bounds_of(f"{name}@{k}"))
    labels, metrics = result.labels, result.metrics
    return pd.DataFrame(low, labels, metrics), pd.DataFrame(high, labels, metrics)
