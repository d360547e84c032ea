"""Sequential data sets without padded copies: flat columns and offsets, lists gathered when a batch asks for them.

RecBole writes every prefix of every user as a padded row of every column before training starts (on ml-1m a minute and
900 MB). Here a row keeps the position of its target in the flat, un-augmented columns, and lists are gathered a batch
at a time. What a model reads from a batch is the same, value for value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.config.traits import Traits
from recbole_fair.data.batches.tensor_columns import rows_of
from recbole_fair.data.batches.windows import (
    WINDOW_ITEMS,
    WINDOW_TARGETS,
    FlatSequences,
    IntArray,
    Windows,
    draw_windows,
    gather_windows,
)
from recbole_fair.data.facts.interactions import Columns
from recbole_fair.errors import FairError

_POSITION = "flat_position"


class FairSequentialDataset(SequentialDataset):
    """RecBole's sequential data set with the same rows, split and batches, built in seconds.

    Attributes:
        flat: the un-augmented columns, sorted by user and time, shared by the three splits.
        is_train: set on the training split, to which users with a single interaction belong.
        splits_alone: the interactions of all splits together are given up once they are split.
    """

    flat: dict[str, Tensor]
    inter_feat: Any
    is_train: bool = False
    splits_alone: bool

    def data_augmentation(self) -> None:
        """Replace the interactions by one row a target, with the target's position in the flat columns."""
        self._aug_presets()
        self.splits_alone = True
        self._check_field("uid_field", "time_field")
        self.sort(by=[self.uid_field, self.time_field], ascending=True)
        users = self.inter_feat[self.uid_field].numpy()
        first = _first_of_each(users)
        starts = np.flatnonzero(first)
        # Half the bytes of ordinary integers: on large data these columns are a good part of the peak.
        position = np.arange(len(users), dtype=np.int32)
        position -= np.repeat(starts.astype(np.int32), np.diff(np.append(starts, len(users))))
        self.flat = dict(self.inter_feat.interaction)
        target = np.flatnonzero(~first)
        length = np.minimum(position[target], self.max_item_list_len).astype(np.int64)
        del first, position
        index = torch.from_numpy(target)
        rows = Interaction({name: rows_of(column, index) for name, column in self.flat.items()})
        rows.update(
            Interaction({self.item_list_length_field: torch.from_numpy(length), _POSITION: torch.from_numpy(target)})
        )
        self.inter_feat = rows

    def __getitem__(self, index: Any, join: bool = True) -> Interaction:
        """Rows with their item lists (and the lists of the other columns that the model reads)."""
        rows = self.inter_feat[index]
        if _POSITION in rows:
            rows.update(Interaction(self._lists(rows[_POSITION], rows[self.item_list_length_field])))
            del rows.interaction[_POSITION]
        return self.join(rows) if join else rows

    def _lists(self, target: Tensor, length: Tensor) -> dict[str, Tensor]:
        column = torch.arange(self.max_item_list_len)
        source = (target - length).unsqueeze(1) + column
        inside = column < length.unsqueeze(1)
        source = torch.where(inside, source, torch.zeros_like(source))
        wanted = Traits.of(self.config["model_class"]).sequence_fields
        lists = {}
        for field, values in self.flat.items():
            if field == self.uid_field or (wanted is not None and field != self.iid_field and field not in wanted):
                continue
            listed = values[source]
            keep = inside.view(inside.shape + (1,) * (listed.dim() - 2))
            lists[getattr(self, f"{field}_list_field")] = listed * keep
        return lists

    def build(self) -> list[Any]:
        """RecBole's split; the first part is marked as the training split."""
        splits: list[Any] = super().build()
        splits[0].is_train = True
        return splits

    # -- un-augmented views --------------------------------------------------------------------------------------

    def _original_index(self) -> IntArray:
        """Flat positions of this split's interactions, each user's first item with its first target."""
        chosen = np.zeros(len(self.flat[self.uid_field]), dtype=bool)
        chosen[self.inter_feat[_POSITION].numpy()] = True
        opens = _first_of_each(self.flat[self.uid_field].numpy())
        follows = chosen[1:].copy()  # what follows a first item is the user's first target, or another user's first
        if self.is_train:
            follows |= opens[1:]
            chosen[-1:] |= opens[-1:]
        chosen[:-1] |= opens[:-1] & follows
        return np.flatnonzero(chosen)

    def original_rows(self) -> Columns:
        """Users, items and times of this split's interactions before augmentation."""
        index = self._original_index()
        user, item, time = (
            self.flat[field].numpy()[index] for field in (self.uid_field, self.iid_field, self.time_field)
        )
        return user.astype(np.int64), item.astype(np.int64), time.astype(np.float64)

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> Any:
        """Sparse users x items matrix of this split's interactions before augmentation."""
        index = torch.from_numpy(self._original_index())
        rows = Interaction({field: values[index] for field, values in self.flat.items()})
        return self._create_sparse_matrix(rows, self.uid_field, self.iid_field, form, value_field)

    def training_sequences(self) -> FlatSequences:
        """This split's users as flat sequences, for :class:`WindowLoader` and for collecting representations.

        Raises:
            FairError: if the split leaves gaps inside a user's history, so that windows would run over them.
        """
        index = self._original_index()
        if len(index) == 0:
            raise FairError(
                "The training split holds no interaction; check eval_args and the *_inter_num_interval keys."
            )
        opens = _first_of_each(self.flat[self.uid_field].numpy()[index])
        if np.any(index[1:] != index[:-1] + 1, where=~opens[1:]):
            raise FairError(
                f"eval_args={self.config['eval_args']} leaves gaps inside users' training histories; "
                "use order TO, or train_positions=last."
            )
        starts = np.flatnonzero(opens)
        lengths = np.diff(starts, append=len(index))
        items = self.flat[self.iid_field].numpy()[index].astype(np.int32)
        return FlatSequences(items=items, starts=starts, lengths=lengths)


def _first_of_each(users: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.bool_]:
    """Whether a row is its user's first, ``[n]``; rows of one user stand together."""
    first = np.empty(len(users), dtype=bool)
    first[:1] = True
    np.not_equal(users[1:], users[:-1], out=first[1:])
    return first


class WindowLoader:
    """Batches of windows over the training sequences, newly drawn each epoch.

    Stands where RecBole's ``TrainDataLoader`` stands. What an epoch draws depends on the seed and on the epoch's number
    alone, so that a resumed run sees the same windows.

    Args:
        config: reads ``seed``, ``train_batch_size`` (targets a batch), ``MAX_ITEM_LIST_LENGTH``, ``window_stride``.
        dataset: the training split, a :class:`FairSequentialDataset`.
        shuffle: whether windows are shuffled within an epoch.
    """

    def __init__(self, config: Settings, dataset: FairSequentialDataset, shuffle: bool = True) -> None:
        self.config = config
        self._dataset = dataset
        self.shuffle = shuffle
        self.sequences = dataset.training_sequences()
        self.length = int(config["MAX_ITEM_LIST_LENGTH"])
        self.stride = min(int(config["window_stride"] or self.length), self.length)
        self.epoch = 0
        if self.sequences.n_targets == 0:
            raise FairError("No user has two training interactions, so there is nothing to predict; use more data.")

    @property
    def dataset(self) -> Any:
        """The training split."""
        return self._dataset

    def set_epoch(self, epoch: int) -> None:
        """Number of the epoch that the next iteration draws."""
        self.epoch = epoch

    def _draw(self) -> tuple[Windows, IntArray]:
        rng = np.random.default_rng([int(self.config["seed"]), self.epoch])
        windows = draw_windows(self.sequences, self.length, self.stride, rng)
        order = rng.permutation(len(windows)) if self.shuffle else np.arange(len(windows))
        return windows, order

    def _windows_per_batch(self, windows: Windows) -> int:
        share = int(self.config["train_batch_size"]) / self.sequences.n_targets
        return max(1, round(share * len(windows)))

    def __len__(self) -> int:
        windows, order = self._draw()
        return -(-len(order) // self._windows_per_batch(windows))

    def __iter__(self) -> Any:
        windows, order = self._draw()
        size = self._windows_per_batch(windows)
        for begin in range(0, len(order), size):
            items, targets = gather_windows(
                self.sequences, windows, order[begin : begin + size], self.length, self.stride
            )
            yield Interaction({WINDOW_ITEMS: torch.from_numpy(items), WINDOW_TARGETS: torch.from_numpy(targets)})
        self.epoch += 1
