"""Batches of labelled pairs for models that normalise them: sampled, from flat arrays, or RecBole's own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from recbole.data.dataloader import TrainDataLoader
from recbole.data.interaction import Interaction, cat_interactions

from recbole_fair.config.contract import Settings
from recbole_fair.data.contract import DataSet
from recbole_fair.data.facts.interactions import training_interactions
from recbole_fair.errors import FairError

Ids = npt.NDArray[np.int64]


class PairLoader:
    """Batches of user, item and label: each training interaction and ``sample_num`` sampled items, newly each epoch.

    Stands where RecBole's ``TrainDataLoader`` stands, which draws the same kind of negatives (uniform over the
    catalogue, none that the user has in training) but keeps those of a batch together with its positives. What an
    epoch draws depends on the seed, the stream and the epoch's number alone, so that a resumed run sees the same.

    Args:
        config: reads ``seed``, ``train_batch_size`` (rows a batch, positives and negatives), ``train_neg_sample_args``.
        dataset: the training split.
        shuffle: whether rows are shuffled within an epoch; otherwise each positive's negatives come right behind it.

    Attributes:
        stream: number of the stream of random numbers; models trained one after another take different ones.
    """

    def __init__(self, config: Settings, dataset: DataSet, shuffle: bool = True) -> None:
        self.config = config
        self._dataset = dataset
        self.shuffle = shuffle
        self.epoch = 0
        self.stream = 0
        self.batch_size = _batch_size(config)
        self.n_negatives = int(config["train_neg_sample_args"].get("sample_num", 1))
        inter = training_interactions(dataset)
        self.users, self.items, self.n_items = inter.user, inter.item, inter.n_items
        self._met = np.unique(self.users * self.n_items + self.items)
        met_by = np.bincount(self._met // self.n_items, minlength=inter.n_users)
        if len(self._met) and met_by.max() >= self.n_items - 1:
            raise FairError("A user has interacted with every item, so no negative can be sampled; use more items.")

    @property
    def dataset(self) -> Any:
        """The training split."""
        return self._dataset

    def set_epoch(self, epoch: int) -> None:
        """Number of the epoch that the next iteration draws."""
        self.epoch = epoch

    @property
    def n_rows(self) -> int:
        """Rows of an epoch."""
        return len(self.users) * (1 + self.n_negatives)

    def _bounds(self) -> list[int]:
        """First row of each batch, and the end; a single row left over joins the batch before it (BatchNorm)."""
        starts = list(range(0, self.n_rows, self.batch_size))
        if len(starts) > 1 and self.n_rows - starts[-1] == 1:
            starts.pop()
        return [*starts, self.n_rows]

    def __len__(self) -> int:
        return len(self._bounds()) - 1

    def sample_negatives(self, users: Ids, rng: np.random.Generator) -> Ids:
        """Draw an item for each entry of ``users`` ``[n]``, uniformly from those that the user does not have."""
        items = rng.integers(1, self.n_items, size=len(users))
        again = np.arange(len(users))
        while len(again):
            keys = users[again] * self.n_items + items[again]
            at = np.searchsorted(self._met, keys)
            again = again[self._met[np.minimum(at, len(self._met) - 1)] == keys]
            items[again] = rng.integers(1, self.n_items, size=len(again))
        return items

    def __iter__(self) -> Iterator[Interaction]:
        rng = np.random.default_rng([int(self.config["seed"]), self.stream, self.epoch])
        n = len(self.users)
        users = np.tile(self.users, 1 + self.n_negatives)
        items = np.concatenate([self.items, self.sample_negatives(users[n:], rng)])
        if self.shuffle:
            order = rng.permutation(len(users))
        else:  # all positives first would be batches of one label
            order = np.arange(len(users)).reshape(1 + self.n_negatives, n).T.ravel()
        user, item = torch.from_numpy(users[order]), torch.from_numpy(items[order])
        label = torch.from_numpy((order < n).astype(np.float32))
        names = [self.config[key] for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "LABEL_FIELD")]
        for start, stop in itertools.pairwise(self._bounds()):
            part = slice(start, stop)
            yield Interaction(dict(zip(names, (user[part], item[part], label[part]), strict=True)))
        self.epoch += 1


class JoinedBatches:
    """RecBole's training loader without sampling, a single row left over joining the batch before it (BatchNorm).

    Args:
        config: reads ``train_batch_size``.
        loader: a RecBole ``TrainDataLoader``; everything but the batches is taken from it.
    """

    def __init__(self, config: Settings, loader: TrainDataLoader) -> None:
        _batch_size(config)
        self._loader, self._dataset = loader, loader._dataset
        self._joins = len(loader) > 1 and loader.sample_size % loader.step == 1

    @property
    def generator(self) -> torch.Generator:
        """The generator of RecBole's loader."""
        return self._loader.generator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader) - self._joins

    def __iter__(self) -> Iterator[Interaction]:
        batches = iter(self._loader)
        yield from itertools.islice(batches, len(self) - self._joins)
        if self._joins:
            yield cat_interactions(list(batches))


def _batch_size(config: Settings) -> int:
    """``train_batch_size``, which has to be more than one row."""
    size = int(config["train_batch_size"])
    if size < 2:
        raise FairError(
            f"train_batch_size={size} is too small: {config['model']} normalises batches; use 2 or more rows."
        )
    return size
