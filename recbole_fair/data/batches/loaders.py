"""Batches of users: for full ranking from flat arrays instead of one Python step a user, and for training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import FullSortEvalDataLoader, NegSampleEvalDataLoader, UserDataLoader
from recbole.data.interaction import Interaction
from recbole.utils import ModelType
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.data.batches.samplers import ItemSets
from recbole_fair.data.contract import DataSet
from recbole_fair.data.ragged import gather, owners


def same_batches(loader: NegSampleEvalDataLoader, seed: int) -> Iterator[Any]:
    """Batches of an evaluation loader that draws candidates: the same ones at every pass, for every model.

    RecBole draws them anew from the global generator each time, so that two evaluations of one model differ and models
    are compared on different items. The global generator is left as it was.

    Args:
        loader: RecBole's ``NegSampleEvalDataLoader``.
        seed: of the draw.
    """
    inside, batches = np.random.RandomState(seed).get_state(), None
    loader.num_workers = 0  # workers would draw from generators of their own
    while True:
        outside = np.random.get_state()
        np.random.set_state(inside)
        try:
            batches = iter(loader) if batches is None else batches
            batch = next(batches, None)
            inside = np.random.get_state()
        finally:
            np.random.set_state(outside)
        if batch is None:
            return
        yield batch


class FullRankingLoader(FullSortEvalDataLoader):
    """RecBole's loader with the same batches; sequential data sets, which have no such step, are left to it."""

    uid_list: Tensor

    def __init__(self, config: Settings, dataset: Any, sampler: Any, shuffle: bool = False) -> None:
        if config["MODEL_TYPE"] == ModelType.SEQUENTIAL or not isinstance(sampler.used_ids, ItemSets):
            super().__init__(config, dataset, sampler, shuffle=shuffle)
            if config["MODEL_TYPE"] != ModelType.SEQUENTIAL:
                users = self.uid_list.numpy()
                self._history, self._positives = (
                    _rows_of(list(rows[users])) for rows in (self.uid2history_item, self.uid2positive_item)
                )
            return
        self.uid_field, self.iid_field, self.is_sequential = dataset.uid_field, dataset.iid_field, False
        dataset.sort(by=self.uid_field, ascending=True)
        users, items = (dataset.inter_feat[field].numpy() for field in (self.uid_field, self.iid_field))
        positives = ItemSets.of(users, items, dataset.user_num, dataset.item_num)
        self.uid2items_num = positives.sizes()
        found = np.flatnonzero(self.uid2items_num)
        self.uid_list = torch.from_numpy(found)
        self.user_df = dataset.join(Interaction({self.uid_field: self.uid_list}))
        self.sample_size = len(found)
        self._positives = positives.rows(found)
        self._history = sampler.used_ids.of_users(found).without(positives).rows(found)
        super(FullSortEvalDataLoader, self).__init__(config, dataset, sampler, shuffle=False)

    def collate_fn(self, index: Any) -> Any:
        """One batch: users, masked pairs, and the pairs of row and held-out item."""
        if self.is_sequential:
            return super().collate_fn(index)
        rows = torch.from_numpy(np.asarray(index))
        return self.user_df[rows], _pairs(self._history, rows), *_pairs(self._positives, rows)


_Rows = tuple[Tensor, Tensor]  # bounds ``[n + 1]`` and items


def _pairs(rows: _Rows, index: Tensor) -> tuple[Tensor, Tensor]:
    """Row within the batch and item id of every entry of the users at ``index``."""
    bounds, position = gather(rows[0], index)
    return owners(bounds), rows[1][position]


def _rows_of(items: list[Tensor]) -> _Rows:
    """Item ids of many users, one after another."""
    lengths = torch.tensor([0, *(len(entry) for entry in items)], dtype=torch.long)
    return lengths.cumsum(0), torch.cat(items) if items else torch.zeros(0, dtype=torch.long)


class UserLoader(UserDataLoader):
    """RecBole's training batches of users without the padding user and without users who have no training item."""

    def __init__(self, config: Settings, dataset: DataSet, sampler: Any = None, shuffle: bool = True) -> None:
        users = np.unique(np.asarray(dataset.inter_feat[dataset.uid_field]))
        self._active = torch.from_numpy(users[users > 0])
        super().__init__(config, dataset, sampler, shuffle=True)

    def _init_batch_size_and_step(self) -> None:
        # RecBole calls this after it has listed the users and before it hands their number to torch.
        self.user_list = Interaction({self.uid_field: self._active})
        self.sample_size = len(self._active)
        super()._init_batch_size_and_step()
