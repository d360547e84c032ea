"""Item groups (genres) and user groups (columns, mainstreamness, interest drift, taste for popular items)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from recbole_fair.data.contract import DataSet
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.reading.table import Form, form_of, read_header, read_table
from recbole_fair.errors import FairError

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ItemGroups:
    """Which groups each item belongs to.

    Attributes:
        matrix: ``[n_items, G]``; an item's weights are equal over its groups and sum to 1, or are 0 without a group.
        names: The G group names.
        field: The item column.
    """

    matrix: sparse.csr_matrix
    names: tuple[str, ...]
    field: str


@dataclass(frozen=True)
class Column:
    """One column of the user or item file, by inner id.

    Attributes:
        name: The column.
        kind: RecBole's type: ``token``, ``token_seq``, ``float`` or ``float_seq``.
        values: Text of each inner id, ``[n]``, empty where the file has none.
    """

    name: str
    kind: str
    values: npt.NDArray[np.object_]


def _file(dataset: DataSet, side: str) -> tuple[Path, Form, dict[str, str]]:
    """The data set's user or item file, its form, and its columns with their types; none if there is no such file."""
    path, form = Path(dataset.dataset_path) / f"{dataset.dataset_name}.{side}", form_of(dataset.config)
    return path, form, read_header(path, form) if path.is_file() else {}


def read_column(dataset: DataSet, side: str, name: str, key: str) -> Column:
    """Read one column of the atomic user or item file, whether or not RecBole loads it.

    The column is read beside the data set, not through ``load_col``: loading it there would make it an input of
    context-aware models, and would add the items of the item file that nobody interacted with to the catalogue.

    Args:
        dataset: Any split of the RecBole data set.
        side: ``user`` or ``item``.
        name: The column.
        key: The configuration key that asks for it, for the error message.

    Returns:
        The column by inner id.

    Raises:
        FairError: If there is no such file or column.
    """
    path, form, columns = _file(dataset, side)
    if not columns:
        raise FairError(f"{key} needs the column '{name}' of the {side}s, but there is no file {path}.")
    id_field = dataset.uid_field if side == "user" else dataset.iid_field
    if name not in columns or name == id_field:
        others = ", ".join(column for column in columns if column != id_field) or "none"
        raise FairError(f"{key} needs the column '{name}', which {path} does not have; its columns: {others}.")
    if id_field not in columns:
        raise FairError(f"{key} needs the column '{name}', but {path} has no id column '{id_field}'.")
    table = read_table(path, form, [id_field, name], as_text=True)
    table.check_ids([id_field])
    numbers = dataset.field2token_id[id_field]
    values = np.full(dataset.num(id_field), "", dtype=object)
    ids, cells = table.texts[id_field], table.texts[name].values
    inner = np.array([numbers.get(text, -1) for text in ids.texts], dtype=np.int64)[ids.codes][::-1]
    values[inner[inner >= 0]] = cells[::-1][inner >= 0]  # of several rows the first counts, as in RecBole
    return Column(name, columns[name], values)


def load_item_groups(dataset: DataSet, name: str | None, key: str = "group_field") -> ItemGroups:
    """Item groups from a column of the item file; several values are separated by RecBole's ``seq_separator``.

    Args:
        dataset: Any split of the RecBole data set.
        name: The column, or None if the user named none.
        key: What asks for the groups, for the error message.

    Returns:
        The groups.

    Raises:
        FairError: If no column is named, or it is missing, numeric or empty.
    """
    if not name:
        path, _, _ = _file(dataset, "item")
        tokens = token_columns(dataset, "item")
        hint = f"the columns of {path} are {', '.join(tokens)}" if tokens else f"there is no usable column in {path}"
        raise FairError(f"{key} needs item groups: set group_field to an item column; {hint}.")
    column = read_column(dataset, "item", name, "group_field")
    if not column.kind.startswith("token"):
        raise FairError(
            f"group_field={name!r} is a column of numbers ({column.kind}); item groups need a token column."
        )
    matrix, names = column_weights(column, dataset.config["seq_separator"])
    if not names:
        raise FairError(f"group_field={name!r}: no item of the data set has a value in this column.")
    return ItemGroups(matrix, names, name)


def column_weights(column: Column, separator: str | None = None) -> tuple[sparse.csr_matrix, tuple[str, ...]]:
    """Values of a token column as weights: m different values of a row have 1/m each.

    Args:
        column: A column of tokens.
        separator: What separates the values of a ``token_seq``, a space by default.

    Returns:
        ``[n, G]``, rows sum to 1, or to 0 without a value; and the names of the G values, in order of appearance.
    """
    several = column.kind == "token_seq"
    rows, groups, index = [], [], dict[str, int]()
    for item, text in enumerate(column.values):
        parts = dict.fromkeys(part for part in (text.split(separator or " ") if several else [text]) if part)
        for part in parts:
            rows.append(item)
            groups.append(index.setdefault(part, len(index)))
    matrix = sparse.csr_matrix((np.ones(len(rows)), (rows, groups)), shape=(len(column.values), len(index)))
    sizes = np.asarray(matrix.sum(1)).ravel()
    return sparse.diags(1 / np.maximum(sizes, 1)) @ matrix, tuple(index)


def token_columns(dataset: DataSet, side: str) -> list[str]:
    """Columns of the user or item file that hold tokens, without the id; none if there is no such file."""
    _, _, columns = _file(dataset, side)
    id_field = dataset.uid_field if side == "user" else dataset.iid_field
    return [name for name, kind in columns.items() if kind.startswith("token") and name != id_field]


def group_distribution(items: Ids, rows: Ids, n_rows: int, groups: sparse.csr_matrix) -> Floats:
    """Distribution over item groups of some bags of items.

    Args:
        items: int64 ``[n]`` item ids.
        rows: int64 ``[n]`` the bag of each item.
        n_rows: Number of bags.
        groups: ``[n_items, G]``, each item's weight in each group: rows sum to 1, or 0 for an item of no group.

    Returns:
        float64 ``[n_rows, G]``; rows sum to 1, or are NaN where no item has a group. Items of no group are ignored.
    """
    bags = sparse.csr_matrix((np.ones(len(items)), (rows, items)), shape=(n_rows, groups.shape[0]))
    mass = np.asarray((bags @ groups).todense())
    with np.errstate(invalid="ignore"):
        return mass / mass.sum(1, keepdims=True)


def smoothed_kl(p: Floats, q: Floats, smoothing: float = 0.01) -> Floats:
    """``sum_g p ln(p / ((1 - a) q + a p))`` over the groups with p > 0, in nats. Source: Steck 2018.

    Args:
        p: Distributions ``[..., G]``.
        q: Distributions ``[..., G]``.
        smoothing: The weight a, in (0, 1]; the divergence is at most ``ln(1 / a)``.

    Returns:
        ``[...]``, NaN where p or q is.
    """
    mixed = (1 - smoothing) * q + smoothing * p
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log(p / mixed), np.where(np.isnan(p + q), np.nan, 0.0))
    return terms.sum(-1)


def mainstream_scores(histories: Histories, cells: int = 4_000_000) -> Floats:
    """Mean Jaccard similarity of each user's set of items to those of all other users.

    Source: TALL, section 4.1 (after Zhu and Caverlee, WSDM 2022). Worked off in blocks of users, so that the users by
    users matrix never exists as a whole.

    Args:
        histories: Training histories; repeats count once.
        cells: Largest number of user pairs in one block.

    Returns:
        float64 ``[n_users]`` in [0, 1], NaN for users without a history.
    """
    active = np.flatnonzero(histories.lengths)
    rows = histories.rows(active)
    n = len(active)
    sets = sparse.csr_matrix(
        (np.ones(len(rows.items), dtype=np.float32), (rows.users, rows.items)), shape=(n, histories.n_items)
    )
    sets.data[:] = 1  # building the matrix summed repeats
    sizes = np.diff(sets.indptr).astype(np.float32)
    columns = sets.T.tocsr()
    totals = np.zeros(n)
    step = max(1, cells // max(n, 1))
    for start in range(0, n, step):
        common = sets[start : start + step] @ columns
        per_row = np.diff(common.indptr)
        union = np.repeat(sizes[start : start + step], per_row)
        union += sizes[common.indices]
        union -= common.data
        common.data /= union
        totals[start : start + step] = np.asarray(common.sum(1, dtype=np.float64)).ravel()
    scores = np.full(histories.n_users, np.nan)
    scores[active] = (totals - 1) / (n - 1) if n > 1 else np.nan
    return scores


def interest_drift(histories: Histories, groups: ItemGroups, smoothing: float = 0.01, cells: int = 4_000_000) -> Floats:
    """Symmetric KL divergence between the item-group distributions of the two halves of each history.

    Source: DecRS, Eq. 10, with the smoothing of the authors' code. The first half has ``floor(n / 2)`` interactions.

    Args:
        histories: Training histories in order of time.
        groups: Item groups.
        smoothing: See :func:`smoothed_kl`.
        cells: Largest number of user-group pairs in one block.

    Returns:
        float64 ``[n_users]`` in [0, 2 ln(1 / smoothing)], NaN where a half has no item with a group.
    """
    lengths = histories.lengths
    position = np.arange(len(histories.items)) - np.repeat(histories.indptr[:-1], lengths)
    second = position >= np.repeat(lengths // 2, lengths)
    owner = histories.users
    scores = np.empty(histories.n_users)
    step = max(1, cells // max(1, len(groups.names)))
    for start in range(0, histories.n_users, step):
        stop = min(start + step, histories.n_users)
        part = slice(histories.indptr[start], histories.indptr[stop])
        halves = [
            group_distribution(
                histories.items[part][second[part] == half],
                owner[part][second[part] == half] - start,
                stop - start,
                groups.matrix,
            )
            for half in (False, True)
        ]
        scores[start:stop] = smoothed_kl(halves[0], halves[1], smoothing) + smoothed_kl(halves[1], halves[0], smoothing)
    return scores


def taste_groups(head_share: Tensor, bounds: tuple[float, ...] = (0.2, 0.8)) -> Tensor:
    """Users by their taste for popular items: 0 niche (lowest fifth), 1 diverse, 2 blockbuster (highest fifth).

    Source: Abdollahpouri et al., UMAP 2021. Ties by position.

    Args:
        head_share: Share of head items in each user's history ``[U]``, NaN without one.
        bounds: Where the ranked users are cut, rising shares of them.

    Returns:
        long ``[U]`` from 0 to the number of bounds, -1 for users without a history.
    """
    known = ~head_share.isnan()
    n = int(known.sum())
    groups = torch.full_like(head_share, -1, dtype=torch.long)
    rank = torch.empty(n, dtype=torch.long, device=head_share.device)
    rank[head_share[known].argsort(stable=True)] = torch.arange(n, device=head_share.device)
    cuts = torch.tensor([int(n * bound + 0.5) for bound in bounds], device=head_share.device)
    groups[known] = torch.searchsorted(cuts, rank, right=True)
    return groups


@dataclass
class UserFacts:
    """What is known about users from training alone; worked out when first asked for and kept.

    Attributes:
        histories: Training histories.
        item_groups: Item groups, or None.
        columns: User columns by name.
        smoothing: Smoothing of interest drift.
    """

    histories: Histories
    item_groups: ItemGroups | None = None
    columns: dict[str, Column] = field(default_factory=dict)
    smoothing: float = 0.01

    @cached_property
    def mainstream(self) -> Floats:
        """:func:`mainstream_scores` of all users."""
        return mainstream_scores(self.histories)

    def check_drift(self) -> None:
        """Check that interest drift can be worked out.

        Raises:
            FairError: Without item groups or times.
        """
        if self.item_groups is None:
            raise FairError("Interest drift needs item groups: set group_field to an item column.")
        if self.histories.times is None:
            raise FairError("Interest drift needs timestamps: the data set has none, or load_col leaves them out.")

    @cached_property
    def drift(self) -> Floats:
        """:func:`interest_drift` of all users.

        Raises:
            FairError: Without item groups or times.
        """
        self.check_drift()
        assert self.item_groups is not None
        return interest_drift(self.histories, self.item_groups, self.smoothing)
