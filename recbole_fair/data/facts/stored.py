"""What a checkpoint carries of its data, so that it can recommend where the data are not.

Ids and titles of the items, ids of the users, popularity; for models that score users by who they are also the
training interactions, of which RecBole's models build graphs and rows, and the validation interactions, which are seen
as well; and the columns of users and items that were loaded, for models that read them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType, ModelType
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.data.facts.interactions import Columns, Interactions, split_interactions
from recbole_fair.data.facts.popularity import count_items
from recbole_fair.data.reading.titles import item_titles
from recbole_fair.errors import FairError

DATA = "data"


def stored_data(config: Settings, train: Dataset, valid: Dataset | None = None) -> dict[str, Any]:
    """What goes into a checkpoint under ``data``: plain values and tensors.

    Args:
        config: the settings.
        train: the training split.
        valid: the validation split, if there is one.

    Returns:
        ``items`` and ``users`` (texts by inner id, the padding's first), ``titles`` (or None), ``counts`` (training
        interactions of each item), ``interactions`` (by split: ``user``, ``item``, ``time``, ``rating``; none for
        sequential models) and ``features`` (by ``users`` and ``items``: columns, types and sizes).
    """
    inter = split_interactions(train)
    sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
    interactions = {}
    if not sequential:
        # Rows stand in the order of user and time; only models of ours, or of a user, also look at the times.
        timed = not config["model_class"].__module__.startswith("recbole.")
        interactions["train"] = _columns(inter, timed) | _ratings(config, train, inter)
        if valid is not None:
            interactions["valid"] = _columns(split_interactions(valid), timed)
    return {
        "items": _tokens(train, train.iid_field),
        "users": _tokens(train, train.uid_field),
        "titles": item_titles(train),
        "counts": count_items(inter.item, inter.n_items),
        "interactions": interactions,
        "features": {"users": _features(train, train.user_feat), "items": _features(train, train.item_feat)},
    }


def _tokens(dataset: Dataset, field: str) -> list[str]:
    return [str(token) for token in dataset.field2id_token[field]]


def _columns(inter: Interactions, timed: bool) -> dict[str, Tensor]:
    found = {
        "user": torch.from_numpy(inter.user.astype(np.int32)),
        "item": torch.from_numpy(inter.item.astype(np.int32)),
    }
    if timed and inter.time is not None:
        found["time"] = torch.from_numpy(inter.time)
    return found


def _ratings(config: Settings, dataset: Dataset, inter: Interactions) -> dict[str, Any]:
    """Ratings in the order of ``inter``, where they were loaded; some models fill their matrices with them."""
    field, feat = config["RATING_FIELD"], dataset.inter_feat
    if field is None or field not in feat:
        return {}
    user, item = (np.asarray(feat[name]) for name in (dataset.uid_field, dataset.iid_field))
    time = np.asarray(feat[dataset.time_field]) if inter.time is not None else None
    order = np.argsort(user, kind="stable") if time is None else np.lexsort((time, user))
    if len(order) != len(inter) or not np.array_equal(item[order], inter.item):
        return {}
    return {"rating": torch.as_tensor(np.asarray(feat[field])[order].astype(np.float32))}


def _features(dataset: Dataset, feat: Any) -> dict[str, Any]:
    """Columns of a feature table with their types and sizes; texts of their values are not needed to score."""
    if feat is None:
        return {}
    found = {}
    for field in feat.columns:
        if field in (dataset.uid_field, dataset.iid_field) or not isinstance(feat[field], Tensor):
            continue
        kind = dataset.field2type[field]
        known = kind in (FeatureType.TOKEN, FeatureType.TOKEN_SEQ)
        found[field] = {
            "values": feat[field],
            "type": kind.name,
            "length": int(dataset.field2seqlen.get(field, 1)),
            "size": len(dataset.field2id_token[field]) if known else None,
            "buckets": dataset.field2bucketnum.get(field),
        }
    return found


class StoredDataset(Dataset):
    """The data set of a checkpoint, as far as a model looks at it: a RecBole data set that was never read from files.

    Args:
        config: the settings.
        stored: what :func:`stored_data` returned.

    Raises:
        FairError: for models that read a knowledge graph, which checkpoints do not carry.
    """

    inter_feat: Any

    def __init__(self, config: Settings, stored: Mapping[str, Any]) -> None:
        if config["MODEL_TYPE"] == ModelType.KNOWLEDGE:
            raise FairError(f"{config['model']} is built from a knowledge graph, which its checkpoint does not carry.")
        torch.utils.data.Dataset.__init__(self)
        self.config = config
        self.dataset_name = config["dataset"]
        self.logger = logging.getLogger()
        self._get_preset()
        self._get_field_from_config()
        self.is_train = True
        self.item_feat = self.user_feat = None
        self.stored = stored
        for field, ids, source in (
            (self.uid_field, stored["users"], FeatureSource.USER_ID),
            (self.iid_field, stored["items"], FeatureSource.ITEM_ID),
        ):
            self._add_field(field, FeatureType.TOKEN, source, 1)
            self.field2id_token[field] = np.asarray(ids, dtype=object)
            self.field2token_id[field] = {token: number for number, token in enumerate(ids)}
        columns = stored["interactions"].get("train", {"user": torch.zeros(0), "item": torch.zeros(0)})
        names = {"user": self.uid_field, "item": self.iid_field, "time": self.time_field}
        names["rating"] = config["RATING_FIELD"]
        held = {}
        for name, values in columns.items():
            held[names[name]] = values.float() if name in ("time", "rating") else values.long()
            if names[name] not in self.field2type:
                self._add_field(names[name], FeatureType.FLOAT, FeatureSource.INTERACTION, 1)
        self.inter_feat = Interaction(held)
        self.user_feat = self._feature_table(self.uid_field, stored["features"]["users"], FeatureSource.USER)
        self.item_feat = self._feature_table(self.iid_field, stored["features"]["items"], FeatureSource.ITEM)

    def _add_field(self, field: str, kind: FeatureType, source: FeatureSource, length: int) -> None:
        self.field2type[field] = kind
        self.field2source[field] = source
        self.field2seqlen[field] = length

    def _feature_table(self, key: str, columns: Mapping[str, Any], source: FeatureSource) -> Interaction | None:
        if not columns:
            return None
        held: dict[str, Tensor] = {key: torch.arange(len(self.field2id_token[key]))}
        for field, column in columns.items():
            self._add_field(field, FeatureType[column["type"]], source, column["length"])
            if column["size"] is not None:
                self.field2id_token[field] = _Numbered(column["size"])
            if column["buckets"] is not None:
                self.field2bucketnum[field] = column["buckets"]
            held[field] = column["values"]
        return Interaction(held)

    def original_rows(self) -> Columns:
        """Users, items and times of the training interactions; none of a sequential model's checkpoint."""
        columns = self.stored["interactions"].get("train")
        if columns is None:
            nothing = np.zeros(0, dtype=np.int64)
            return nothing, nothing, None
        time = columns["time"].numpy() if "time" in columns else None
        return columns["user"].numpy().astype(np.int64), columns["item"].numpy().astype(np.int64), time


class _Numbered(Sequence[str]):
    """Values of a column by number, where nobody needs their texts."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        return str(index)
