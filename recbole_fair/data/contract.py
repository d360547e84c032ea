"""What the rooms above may ask of data sets and loaders, RecBole's and ours alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from recbole_fair.config.contract import Settings


class DataSet(Protocol):
    """A data set of RecBole, whole or one split of it.

    Attributes:
        config: the settings that it was read under.
        uid_field: name of the column of users.
        iid_field: name of the column of items.
        time_field: name of the column of times, whether it was read or not.
        inter_feat: the interactions, a table with a column by name.
        user_feat: columns of users, if there are any.
        item_feat: columns of items, if there are any.
        user_num: users with the padding user 0.
        item_num: items with the padding item 0.
        field2id_token: original id of each inner id, by column.
        field2token_id: the inner ids, likewise.
        field2type: RecBole's type of each column.
        field2seqlen: longest list of each column of lists.
        dataset_name: its name.
        dataset_path: the folder of its files.
    """

    config: Settings
    uid_field: str
    iid_field: str
    time_field: str | None
    inter_feat: Any
    user_feat: Any
    item_feat: Any
    user_num: int
    item_num: int
    field2id_token: Mapping[str, npt.NDArray[np.str_]]
    field2token_id: Mapping[str, Mapping[str, int]]
    field2type: Mapping[str, Any]
    field2seqlen: MutableMapping[str, int]
    dataset_name: str
    dataset_path: str

    def __len__(self) -> int:
        """Number of rows."""

    def get_item_feature(self) -> Any:
        """The table of items as tensors; of ids alone where no columns were read."""

    def get_user_feature(self) -> Any:
        """The table of users, likewise."""

    def id2token(self, field: str, ids: Any) -> Any:
        """Original ids of inner ones."""

    def num(self, field: str) -> int:
        """How many values a column of ids has, the padding's among them."""

    def build(self) -> Sequence[Any]:
        """The splits, for training, validation and test."""


class Loader(Protocol):
    """Batches of one split."""

    _dataset: DataSet

    def __len__(self) -> int:
        """Number of batches."""

    def __iter__(self) -> Iterator[Any]:
        """The batches."""


@runtime_checkable
class _HoldsDataSet(Protocol):
    _dataset: DataSet


def dataset_of(data: Loader | DataSet) -> DataSet:
    """The data set behind a loader, or the data set itself."""
    return data._dataset if isinstance(data, _HoldsDataSet) else data


class TrainingLoader(Loader, Protocol):
    """Batches to train on: RecBole's ``Interaction``."""


class EvaluationLoader(Loader, Protocol):
    """Batches to evaluate: the interaction, pairs to mask, and row and id of the held-out items."""


#: Loaders of training, validation and test; the last two are None where the split leaves them empty.
Splits = tuple[TrainingLoader, EvaluationLoader | None, EvaluationLoader | None]


@runtime_checkable
class CountsEpochs(Protocol):
    """A training loader whose draws depend on the epoch's number, so that a resumed run sees the same ones."""

    def set_epoch(self, epoch: int) -> None:
        """Number of the epoch that the next iteration draws."""


@runtime_checkable
class DrawsRandomly(Protocol):
    """A loader with a generator of its own."""

    generator: torch.Generator
