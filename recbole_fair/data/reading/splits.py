"""RecBole's splits by user, on arrays instead of one Python step an interaction: the same rows in the same order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from recbole_fair.data.reading.order import stable_order

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Groups:
    """Rows by group, groups in the order in which they appear and rows in theirs.

    Attributes:
        order: index of each row, group after group, ``[n]``.
        group: group of each entry of ``order``.
        position: place of each entry of ``order`` within its group, from 0.
        lengths: rows of each group.
    """

    order: Ints
    group: Codes
    position: Codes
    lengths: Ints

    @classmethod
    def of(cls, keys: npt.NDArray[np.integer[Any]]) -> Groups:
        """The groups of a column ``[n]``."""
        first = np.ones(len(keys), dtype=bool)
        np.not_equal(keys[1:], keys[:-1], out=first[1:])
        if bool((keys[1:] >= keys[:-1]).all()):  # each group stands together already
            codes = np.cumsum(first, dtype=np.int32)
            codes -= 1
        else:
            codes = pd.factorize(keys)[0].astype(np.int32)
        lengths = np.bincount(codes)
        order = stable_order(codes)
        order = np.arange(len(codes)) if order is None else order
        group = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        position = np.arange(len(codes), dtype=np.int32)
        position -= np.repeat((np.cumsum(lengths) - lengths).astype(np.int32), lengths)
        return cls(order, group, position, lengths)

    @classmethod
    def of_sorted(cls, keys: npt.NDArray[np.integer[Any]], times: npt.NDArray[Any]) -> Groups | None:
        """What :meth:`of` makes of rows once they are in order of time, ``order`` naming the rows as they stand.

        Nothing has to be sorted but the groups, by their first times.

        Args:
            keys: the column ``[n]``.
            times: of the rows ``[n]``.

        Returns:
            None unless keys rise, and times where keys are equal.
        """
        same = keys[1:] == keys[:-1]
        if not len(keys) or not (keys[1:] >= keys[:-1]).all() or not ((times[1:] >= times[:-1]) | ~same).all():
            return None
        starts = np.flatnonzero(np.concatenate([[True], ~same]))
        if not (times[starts] == times[starts]).all():  # a group of one row without a time
            return None
        first = np.argsort(times[starts], kind="stable")
        lengths = np.diff(np.append(starts, len(keys)))[first]
        position = np.arange(len(keys), dtype=np.int32)
        position -= np.repeat((np.cumsum(lengths) - lengths).astype(np.int32), lengths)
        order = np.repeat(starts[first], lengths) + position
        return cls(order, np.repeat(np.arange(len(lengths), dtype=np.int32), lengths), position, lengths)

    def parts(self, part: npt.NDArray[np.int8], n_parts: int) -> list[Ints]:
        """Rows of each part, given the part of each entry of ``order``."""
        return [self.order[part == number] for number in range(n_parts)]


def by_ratio(groups: Groups, n_parts: int, ends_of: Callable[[int], Sequence[int]]) -> list[Ints]:
    """Split each group by ratios.

    Args:
        groups: the groups.
        n_parts: number of parts.
        ends_of: for a group of so many rows, where its parts end, the last one left out.

    Returns:
        Rows of each part.
    """
    sizes, which = np.unique(groups.lengths, return_inverse=True)
    ends = np.array([list(ends_of(int(size))) for size in sizes], dtype=np.int64).reshape(len(sizes), n_parts - 1)
    part = np.zeros(len(groups.order), dtype=np.int8)
    of_row = which[groups.group]
    for column in range(n_parts - 1):
        part += groups.position >= ends[of_row, column]
    return groups.parts(part, n_parts)


def leave_out(groups: Groups, left_out: int) -> list[Ints]:
    """Leave out the last rows of each group, one a part; a group keeps its first row, and gives the last part first.

    Args:
        groups: the groups.
        left_out: number of parts beside the first.

    Returns:
        Rows of each part.
    """
    lengths = groups.lengths.astype(np.int32)[groups.group]
    from_end = lengths - groups.position  # 1 for the last
    out = from_end <= np.minimum(left_out, lengths - 1)
    return groups.parts(np.where(out, left_out + 1 - from_end, 0).astype(np.int8), left_out + 1)


def by_time(groups: Groups, early: npt.NDArray[np.bool_], share: float) -> list[Ints]:
    """Split each group into what is early, by a share into training and validation, and what is late.

    Args:
        groups: the groups, rows in order of time.
        early: whether a row is not for the test, ``[n]``.
        share: share of a group's early rows that is for training, rounded down.

    Returns:
        Rows for training, validation and test.
    """
    counts = np.bincount(groups.group, weights=early[groups.order], minlength=len(groups.lengths)).astype(np.int64)
    ends = (counts * share).astype(np.int64)
    part = (groups.position >= ends[groups.group]).astype(np.int8) + (groups.position >= counts[groups.group])
    return groups.parts(part, 3)
