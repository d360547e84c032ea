"""Rows of different lengths, one after another: histories of items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Ragged rows of item ids.

    Attributes:
        starts: int64 ``[U + 1]``; row ``r`` is ``items[starts[r]:starts[r + 1]]``.
        items: int64 ``[n]``, oldest first.
    """

    starts: IntArray
    items: IntArray

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Rows:
        """Rows from lists."""
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        items = np.fromiter((item for row in rows for item in row), dtype=np.int64, count=int(lengths.sum()))
        return cls(np.concatenate([[0], lengths.cumsum()]), items)

    @property
    def lengths(self) -> IntArray:
        """int64 ``[U]``."""
        return np.diff(self.starts)

    def row(self, number: int) -> IntArray:
        """One row."""
        return self.items[self.starts[number] : self.starts[number + 1]]

    def take(self, index: IntArray, last: int | None = None) -> Rows:
        """Some rows, each cut to its ``last`` items."""
        ends = self.starts[1:][index]
        lengths = self.lengths[index] if last is None else np.minimum(self.lengths[index], last)
        starts = np.concatenate([[0], lengths.cumsum()])
        # Each row's own end less what stands before it in the new rows.
        position = np.arange(starts[-1]) + np.repeat(ends - lengths - starts[:-1], lengths)
        return Rows(starts, self.items[position])

    def padded(self, width: int) -> Tensor:
        """Long ``[U, width]``, 0 at the right."""
        columns = np.arange(width)
        inside = columns < self.lengths[:, None]
        out = np.zeros(inside.shape, dtype=np.int64)
        out[inside] = self.items
        return torch.from_numpy(out)


def rows_by_split(interactions: Mapping[str, Mapping[str, Tensor]], n_users: int) -> dict[str, Rows]:
    """Items of each user by split."""
    found = {}
    for split, columns in interactions.items():
        user, item = (columns[name].numpy().astype(np.int64) for name in ("user", "item"))
        lengths = np.bincount(user, minlength=n_users)
        found[split] = Rows(np.concatenate([[0], lengths.cumsum()]), item[np.argsort(user, kind="stable")])
    return found
