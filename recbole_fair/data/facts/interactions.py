"""The interactions of a split as they were before any sequence augmentation, the same for every model type."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recbole_fair.data.contract import DataSet


@dataclass(frozen=True)
class Interactions:
    """Interactions sorted by user and, where there is a clock, by time within a user (ties keep file order).

    Attributes:
        user: ``[n]`` inner user ids.
        item: ``[n]`` inner item ids.
        time: ``[n]`` timestamps, or ``None`` where the data has none.
        n_users: users including the padding user 0.
        n_items: items including the padding item 0.
    """

    user: npt.NDArray[np.int64]
    item: npt.NDArray[np.int64]
    time: npt.NDArray[np.float64] | None
    n_users: int
    n_items: int

    def __len__(self) -> int:
        return len(self.user)


def split_interactions(dataset: DataSet) -> Interactions:
    """Un-augmented interactions of one split (training, validation or test).

    RecBole's sequential data sets hold one row a *target*, so that each user's first item is not a row; here it is
    given back to the split that holds the user's first target. Counts therefore agree between, say, SASRec and BPR.

    Args:
        dataset: the split that RecBole hands to a model or a data loader (``train_data.dataset``).
    """
    if hasattr(dataset, "original_rows"):
        columns = dataset.original_rows()
    else:
        columns = _rows_of(dataset)
    user, item, time = columns
    if time is None:
        order = np.argsort(user, kind="stable")
    else:
        order = np.lexsort((time, user))
        time = time[order]
    return Interactions(user[order], item[order], time, int(dataset.user_num), int(dataset.item_num))


def training_interactions(dataset: DataSet) -> Interactions:
    """:func:`split_interactions` of the training split, under the name by which popularity is defined."""
    return split_interactions(dataset)


Columns = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], "npt.NDArray[np.float64] | None"]


def _rows_of(dataset: DataSet) -> Columns:
    feat = dataset.inter_feat
    user = np.asarray(feat[dataset.uid_field]).astype(np.int64)
    item = np.asarray(feat[dataset.iid_field]).astype(np.int64)
    has_time = dataset.time_field is not None and dataset.time_field in feat
    time = np.asarray(feat[dataset.time_field]).astype(np.float64) if has_time else None
    length_field = getattr(dataset, "item_list_length_field", None)
    if length_field is None or length_field not in feat:
        return user, item, time
    # RecBole's own sequential data set: the first item of a user stands only in the list of its first target.
    first = np.asarray(feat[length_field]) == 1
    list_suffix = dataset.config["LIST_SUFFIX"]
    first_item = np.asarray(feat[dataset.iid_field + list_suffix])[first, 0].astype(np.int64)
    if time is not None:
        listed = dataset.time_field + list_suffix
        first_time = np.asarray(feat[listed])[first, 0] if listed in feat else time[first] - 1
        time = np.concatenate([time, first_time.astype(np.float64)])
    return np.concatenate([user, user[first]]), np.concatenate([item, first_item]), time


def data_fingerprint(*datasets: Any) -> str:
    """Hexadecimal digest of the splits: who interacted with what, in which order, under which original ids."""
    digest = hashlib.blake2b(digest_size=16)
    for dataset in datasets:
        inter = split_interactions(dataset)
        digest.update(np.array([len(inter), inter.n_users, inter.n_items], dtype=np.int64).tobytes())
        digest.update(inter.user.tobytes())
        digest.update(inter.item.tobytes())
    first = datasets[0]
    for field in (first.uid_field, first.iid_field):
        digest.update("\x1f".join(map(str, first.field2id_token[field])).encode())
    return digest.hexdigest()
