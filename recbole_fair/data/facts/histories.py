"""What each user did in training: item histories in compressed rows, with repeats, never truncated to a window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from recbole_fair.data.ragged import gather

if TYPE_CHECKING:
    from recbole_fair.data.facts.interactions import Interactions

Ids = npt.NDArray[np.int64]
Times = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Histories:
    """Training histories of all users.

    Attributes:
        indptr: int64 ``[n_users + 1]``; the history of user ``u`` is ``items[indptr[u]:indptr[u + 1]]``.
        items: int64 ``[n]`` item ids, in time order within a user when times are known, else in file order.
        times: float64 ``[n]`` or None when the data have no timestamps.
        n_items: Number of item ids including the padding id 0.
    """

    indptr: Ids
    items: Ids
    times: Times | None
    n_items: int

    @classmethod
    def from_interactions(cls, inter: Interactions) -> Histories:
        """Group interactions by user, keeping their order within a user.

        Args:
            inter: Interactions of one split.

        Returns:
            One history a user id, empty for the padding id 0 and for users without interactions.
        """
        return cls._build(inter.user, inter.item, inter.time, inter.n_users, inter.n_items)

    @classmethod
    def _build(cls, user: Ids, item: Ids, time: Times | None, n_users: int, n_items: int) -> Histories:
        # lexsort is stable: equal times keep the order of the file.
        order = np.argsort(user, kind="stable") if time is None else np.lexsort((time, user))
        lengths = np.bincount(user, minlength=n_users)
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return cls(indptr, item[order], None if time is None else time[order], n_items)

    @property
    def n_users(self) -> int:
        """Number of user ids including the padding id 0."""
        return len(self.indptr) - 1

    @property
    def lengths(self) -> Ids:
        """History length of each user id, int64 ``[n_users]``, repeats counted."""
        return np.diff(self.indptr)

    @property
    def users(self) -> Ids:
        """User id of each entry of ``items``, int64 ``[n]``."""
        return np.repeat(np.arange(self.n_users), self.lengths)

    def of(self, user: int) -> Ids:
        """Item ids in the history of one user."""
        return self.items[self.indptr[user] : self.indptr[user + 1]]

    def rows(self, users: Ids) -> Histories:
        """Histories of some users, one row for each entry of ``users`` (a user may be named twice).

        Args:
            users: int64 ``[U]`` user ids.

        Returns:
            Histories whose row ``r`` is the history of ``users[r]``.
        """
        bounds, where = gather(torch.from_numpy(self.indptr), torch.as_tensor(users))
        position = where.numpy()
        times = None if self.times is None else self.times[position]
        return Histories(bounds.numpy(), self.items[position], times, self.n_items)

    def extended(self, inter: Interactions) -> Histories:
        """These histories with more interactions (the validation items, at test time) appended to each user.

        Args:
            inter: Further interactions over the same ids; if either side has no times, the new ones come last.

        Returns:
            New histories; this object is unchanged.
        """
        user = np.concatenate([self.users, inter.user])
        item = np.concatenate([self.items, inter.item])
        times = None if self.times is None or inter.time is None else np.concatenate([self.times, inter.time])
        return self._build(user, item, times, self.n_users, self.n_items)
