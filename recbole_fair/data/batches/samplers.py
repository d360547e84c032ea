"""RecBole's samplers of items that a user does not have: the same draws, told by arrays instead of Python's sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from recbole.sampler import RepeatableSampler, Sampler
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.data.contract import DataSet

Ids = npt.NDArray[np.int64]

PHASES = ("train", "valid", "test")


class ItemSets:
    """Items of each user, as sorted cells of the matrix of users and items; looked up like RecBole's array of sets.

    Attributes:
        cells: ``user * n_items + item`` of each pair once, rising, int64 ``[n]``.
        n_users: users with the padding user 0.
        n_items: items with the padding item 0.
    """

    def __init__(self, cells: Ids, n_users: int, n_items: int) -> None:
        self.cells = cells
        self.n_users = n_users
        self.n_items = n_items

    @classmethod
    def of(cls, users: Ids, items: Ids, n_users: int, n_items: int) -> ItemSets:
        """The sets of some pairs, which may repeat."""
        return cls(np.unique(users * n_items + items), n_users, n_items)

    def union(self, other: ItemSets) -> ItemSets:
        """Items that a user has here or there."""
        both = np.concatenate([self.cells, other.cells])
        both.sort(kind="stable")  # two runs that rise already
        new = np.ones(len(both), dtype=bool)
        np.not_equal(both[1:], both[:-1], out=new[1:])
        return ItemSets(both[new], self.n_users, self.n_items)

    def without(self, other: ItemSets) -> ItemSets:
        """Items that a user has here and not there."""
        return ItemSets(self.cells[~other.holds(self.cells)], self.n_users, self.n_items)

    def holds(self, cells: Ids) -> npt.NDArray[np.bool_]:
        """Whether each cell ``[m]`` is among these."""
        if not len(self.cells):
            return np.zeros(len(cells), dtype=bool)
        at = np.searchsorted(self.cells, cells)
        return self.cells[np.minimum(at, len(self.cells) - 1)] == cells

    def sizes(self) -> Ids:
        """Number of items of each user, int64 ``[n_users]``."""
        return np.bincount(self.cells // self.n_items, minlength=self.n_users)

    def rows(self, users: Ids) -> tuple[Tensor, Tensor]:
        """Items of some users, one after another.

        Args:
            users: rising user ids ``[m]``, all of those who have items here among them.

        Returns:
            Bounds, long ``[m + 1]``, and items, long ``[n]``.
        """
        ends = np.searchsorted(self.cells, (users + 1) * self.n_items)
        return torch.from_numpy(np.concatenate([[0], ends])), torch.from_numpy(self.cells % self.n_items)

    def of_users(self, users: Ids) -> ItemSets:
        """The sets of some users alone."""
        wanted = np.zeros(self.n_users, dtype=bool)
        wanted[users] = True
        return ItemSets(self.cells[wanted[self.cells // self.n_items]], self.n_users, self.n_items)

    def __getitem__(self, user: int | Ids | None) -> set[int] | list[set[int]]:
        """The set of one user, or those of several; RecBole's loaders begin by asking for nobody's."""
        if user is None:
            return set()
        if isinstance(user, np.ndarray):
            return [self._one(one) for one in user.tolist()]
        return self._one(int(user))

    def _one(self, user: int) -> set[int]:
        low, high = np.searchsorted(self.cells, [user * self.n_items, (user + 1) * self.n_items])
        return set((self.cells[low:high] % self.n_items).tolist())


class ItemSampler(Sampler):
    """RecBole's sampler, which draws the same items from the same random numbers."""

    used_ids: Any  # ItemSets by phase, and after ``set_phase`` those of the phase

    def get_used_ids(self) -> dict[str, ItemSets]:
        """Items that a user has up to each phase.

        Raises:
            ValueError: if a user has them all, so that nothing can be drawn.
        """
        found: dict[str, ItemSets] = {}
        last = None
        for phase, dataset in zip(self.phases, self.datasets, strict=True):
            users, items = (dataset.inter_feat[field].numpy() for field in (self.uid_field, self.iid_field))
            sets = ItemSets.of(users, items, self.user_num, self.item_num)
            found[phase] = last = sets if last is None else last.union(sets)
        if last is not None and last.sizes().max(initial=0) + 1 == self.item_num:
            raise ValueError(
                "Some users have interacted with all items, which we can not sample negative items for them. "
                "Please set `user_inter_num_interval` to filter those users."
            )
        return found

    def sample_by_key_ids(self, key_ids: Sequence[int] | Ids, num: int) -> Tensor:
        """Draw items that users do not have, again where they do.

        Args:
            key_ids: user ids ``[n]``.
            num: items a user.

        Returns:
            Long ``[n * num]``: one for each user, then a second one for each, and so on.
        """
        offset = np.tile(np.asarray(key_ids, dtype=np.int64), num) * self.item_num
        items = np.zeros(len(offset), dtype=np.int64)
        check = np.arange(len(offset))
        while len(check):
            items[check] = self.sampling(len(check))
            check = check[self.used_ids.holds(offset[check] + items[check])]
        return torch.from_numpy(items)


class NothingUsedSampler(RepeatableSampler):
    """RecBole's sampler where items may be met again, with one empty set for all users instead of one for each."""

    def get_used_ids(self) -> npt.NDArray[np.object_]:
        """An empty set by user, ``[n_users]``."""
        found = np.empty(self.user_num, dtype=object)
        found.fill(set())
        return found


def create_samplers(config: Settings, dataset: DataSet, splits: Sequence[DataSet]) -> list[Any]:
    """Samplers for training, validation and test; None where nothing is drawn.

    Args:
        config: the settings.
        dataset: the whole data set.
        splits: its three parts.
    """
    base: Any = None
    samplers: list[Any] = []
    for phase in PHASES:
        args = config[f"{phase}_neg_sample_args"]
        if args["distribution"] == "none":
            samplers.append(None)
            continue
        if base is not None:
            base.set_distribution(args["distribution"])
        else:
            alpha = args["alpha"] if phase == "train" else 1.0
            of = dataset if config["repeatable"] else list(splits)
            base = (NothingUsedSampler if config["repeatable"] else ItemSampler)(
                list(PHASES), of, args["distribution"], alpha
            )
        samplers.append(base.set_phase(phase))
    return samplers
