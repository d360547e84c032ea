"""Users' item sets as compressed rows of tensors: what models that read a user's whole row take as input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recbole_fair.data.ragged import gather, owners

if TYPE_CHECKING:
    from recbole_fair.data.facts.interactions import Interactions


@dataclass(frozen=True)
class ItemRows:
    """Rows of distinct items. Column ``c`` is the item with id ``c + 1``: the padding item has no column.

    Attributes:
        indptr: long ``[n_rows + 1]``; row ``r`` is ``columns[indptr[r]:indptr[r + 1]]``.
        columns: long ``[n]``, rising within a row.
        n_columns: number of items without the padding.
    """

    indptr: Tensor
    columns: Tensor
    n_columns: int

    @classmethod
    def from_interactions(cls, inter: Interactions) -> ItemRows:
        """One row a user id, the padding user's (row 0) empty; repeats count once."""
        return cls.from_pairs(inter.user, inter.item, inter.n_users, inter.n_items)

    @classmethod
    def from_pairs(cls, user: Any, item: Any, n_users: int, n_items: int) -> ItemRows:
        """Rows of the distinct pairs.

        Args:
            user: int64 ``[n]`` user ids; 0 is ignored.
            item: int64 ``[n]`` item ids; 0 is ignored.
            n_users: number of user ids including the padding.
            n_items: number of item ids including the padding.
        """
        real = (user > 0) & (item > 0)
        cell = np.unique(user[real] * n_items + item[real])
        indptr = np.searchsorted(cell, np.arange(n_users + 1) * n_items)
        return cls(torch.from_numpy(indptr), torch.from_numpy(cell % n_items - 1), n_items - 1)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def lengths(self) -> Tensor:
        """Items of each row, long ``[n_rows]``."""
        return self.indptr.diff()

    @property
    def rows(self) -> Tensor:
        """Row of each entry of ``columns``, long ``[n]``."""
        return owners(self.indptr)

    @property
    def cells(self) -> Tensor:
        """Position of each entry in the flattened matrix ``[n_rows * n_columns]``, long ``[n]``."""
        return self.rows * self.n_columns + self.columns

    def to(self, device: torch.device | str) -> ItemRows:
        """The same rows on a device."""
        return ItemRows(self.indptr.to(device), self.columns.to(device), self.n_columns)

    def of(self, index: Tensor) -> ItemRows:
        """Some rows, in the order of ``index`` (long ``[B]``, repeats allowed)."""
        indptr, position = gather(self.indptr, index)
        return ItemRows(indptr, self.columns[position], self.n_columns)

    def dense(self) -> Tensor:
        """The rows as a matrix of zeros and ones, float ``[n_rows, n_columns]``."""
        matrix = torch.zeros(len(self) * self.n_columns, device=self.columns.device)
        return matrix.index_fill_(0, self.cells, 1.0).view(len(self), self.n_columns)

    def without(self, other: ItemRows) -> ItemRows:
        """These rows without the entries that ``other`` has in the same row."""
        return self.keep(~torch.isin(self.cells, other.cells))

    def keep(self, kept: Tensor) -> ItemRows:
        """The entries for which ``kept`` (bool ``[n]``) is true."""
        ends = torch.cat([self.indptr.new_zeros(1), kept.long().cumsum(0)])
        return ItemRows(ends[self.indptr], self.columns[kept], self.n_columns)

    def sample(self, share: float, seed: int) -> ItemRows:
        """Draw a share of each row's items, at least one, and never the last one that is left.

        Args:
            share: share of a row, in (0, 1); the number is rounded to the nearest, at least 1.
            seed: of a generator of its own, so that nothing else is disturbed.

        Returns:
            The drawn entries; rows with fewer than two items give none.
        """
        lengths = self.lengths.cpu().numpy()
        order = np.lexsort((np.random.default_rng(seed).random(lengths.sum()), self.rows.cpu().numpy()))
        wanted = np.minimum(np.maximum((lengths * share + 0.5).astype(np.int64), 1), lengths - 1).clip(min=0)
        rank = np.arange(len(order)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        drawn = np.sort(order[rank < np.repeat(wanted, lengths)])
        indptr = torch.from_numpy(np.concatenate([[0], np.cumsum(wanted)]))
        chosen = torch.from_numpy(drawn).to(self.columns.device)
        return ItemRows(indptr.to(self.columns.device), self.columns[chosen], self.n_columns)

    def arrays(self) -> dict[str, Any]:
        """Plain arrays, for a checkpoint."""
        return {"indptr": self.indptr.cpu().numpy(), "columns": self.columns.cpu().numpy(), "n_columns": self.n_columns}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], device: torch.device | str = "cpu") -> ItemRows:
        """What :meth:`arrays` gave."""
        parts = [torch.from_numpy(np.asarray(arrays[name])).to(device) for name in ("indptr", "columns")]
        return cls(parts[0], parts[1], int(arrays["n_columns"]))
