"""Features of users and items as tables of indices and values, read from the columns of the atomic files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recbole_fair.data.contract import DataSet
from recbole_fair.data.facts.groups import ItemGroups, column_weights, read_column, token_columns
from recbole_fair.errors import FairError

FEW = 64  # different values of a column that stands in the dense matrix


@dataclass(frozen=True)
class FeatureTable:
    """Features of all users, or of all items: a row an inner id, the padding id 0 having none.

    A feature's value is 1 for the id and for columns with one value, 1/m for each of m values of a column. Columns with
    few different values stand in a dense matrix, the others as indices: a product with a small matrix is quicker than
    looking up and adding as many rows.

    Attributes:
        index: Long ``[n, F]``, position of each feature in the table of embeddings, 0 = no feature.
        value: Float ``[n, F]``, 0 where there is no feature.
        dense: Float ``[n, G]``, values of the features ``start`` to ``start + G - 1``.
        start: Position of the first of these.
        size: Position after the last feature.
        fields: Columns in use, the id first.
    """

    index: Tensor
    value: Tensor
    dense: Tensor
    start: int
    size: int
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Features:
    """Features of users and items over one numbering.

    Attributes:
        users: Table ``[n_users, F_u]``.
        items: Table ``[n_items, F_i]``.
        size: Number of features including the empty feature 0: no two columns share a feature.
    """

    users: FeatureTable
    items: FeatureTable
    size: int


def load_features(
    dataset: DataSet, user_columns: str | Sequence[str], item_columns: str | Sequence[str], groups: ItemGroups | None
) -> Features:
    """Features of the users and items of a data set.

    The columns are read beside the data set (see :func:`~recbole_fair.data.facts.groups.read_column`), whether or not
    RecBole loads them.

    Args:
        dataset: Any split of the RecBole data set.
        user_columns: Columns of the user file beside the id; ``all`` for every one that holds tokens.
        item_columns: The same of the item file; the column of ``groups`` is left out.
        groups: Item groups, features of the item side with their weights; or None.

    Returns:
        The tables.

    Raises:
        FairError: For a column that does not exist or holds numbers.
    """
    sides = {"user": (user_columns, None), "item": (item_columns, groups)}
    tables, start = [], 1
    for side, (columns, extra) in sides.items():
        id_field = dataset.uid_field if side == "user" else dataset.iid_field
        n = int(dataset.num(id_field))
        ids = sparse.diags(np.arange(n) > 0, dtype=np.float64).tocsr()[:, 1:]
        parts, fields = [ids], [id_field]
        for name in _chosen(dataset, side, columns):
            if extra is not None and name == extra.field:
                continue
            column = read_column(dataset, side, name, f"{side}_features")
            if not column.kind.startswith("token"):
                raise FairError(
                    f"{side}_features: {name!r} is a column of numbers ({column.kind}); features are token columns."
                )
            parts.append(column_weights(column, dataset.config["seq_separator"])[0])
            fields.append(name)
        if extra is not None:
            parts.append(extra.matrix)
            fields.append(extra.field)
        # In the order: ids, columns with few values, the others.
        small = [part for part in parts[1:] if part.shape[1] <= FEW]
        dense = np.hstack([np.zeros((n, 0)), *(part.toarray() for part in small)])
        gap = sparse.csr_matrix(dense.shape)
        large = [part for part in parts[1:] if part.shape[1] > FEW]
        index, value = _padded(sparse.hstack([ids, gap, *large], format="csr"), start)
        matrix = torch.from_numpy(dense).float()
        size = sum(part.shape[1] for part in parts)
        tables.append(FeatureTable(index, value, matrix, start + ids.shape[1], start + size, tuple(fields)))
        start = tables[-1].size
    return Features(tables[0], tables[1], start)


def _chosen(dataset: DataSet, side: str, columns: str | Sequence[str]) -> list[str]:
    if columns == "all":
        return token_columns(dataset, side)
    return [columns] if isinstance(columns, str) else list(columns)


def _padded(weights: sparse.csr_matrix, start: int) -> tuple[Tensor, Tensor]:
    """Rows of a sparse matrix, padded at their ends to the longest one; column c is feature ``start + c``."""
    lengths = np.diff(weights.indptr)
    row = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(weights.nnz) - np.repeat(weights.indptr[:-1], lengths)
    shape = (len(lengths), int(lengths.max(initial=1)))
    index, value = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
    index[row, place] = weights.indices + start
    value[row, place] = weights.data
    return torch.from_numpy(index), torch.from_numpy(value)
