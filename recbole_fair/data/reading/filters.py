"""RecBole's filter by number of interactions, on numbered ids instead of one Python step an interaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Bools = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]


@dataclass
class Side:
    """Users or items, as interactions name them.

    Attributes:
        codes: number of each interaction's id, ``[n]``.
        size: number of ids.
        feature: number of each row's id of the user or item file, -1 where no interaction names it; None without a
            file.
        within: whether numbers of interactions may be kept; None without a filter.
        least: number of interactions below which rows of the file go.
    """

    codes: npt.NDArray[np.integer[Any]]
    size: int
    feature: npt.NDArray[np.integer[Any]] | None
    within: Callable[[Counts], Bools] | None
    least: float
    kept: Bools = field(init=False)

    def __post_init__(self) -> None:
        self.kept = np.ones(0 if self.feature is None else len(self.feature), dtype=bool)

    def banned(self, rows: Bools) -> tuple[Bools, Bools]:
        """Ids, and rows of the file, that have to go while ``rows`` of the interactions are left."""
        if self.within is None:
            # RecBole compares no counts then; its files keep every row.
            return np.zeros(self.size, dtype=bool), np.zeros(len(self.kept), dtype=bool)
        counts = np.bincount(self.codes[rows], minlength=self.size)
        ids = (counts > 0) & ~self.within(counts)
        if self.feature is None:
            return ids, np.zeros(0, dtype=bool)
        known = self.feature >= 0
        of_row = np.where(known, counts[self.feature] if self.size else 0, 0)
        few = self.kept & (of_row < self.least)
        ids[self.feature[few & known]] = True
        gone = few | (self.kept & known & ids[self.feature] if self.size else few)
        return ids, gone


def kept_rows(users: Side, items: Side) -> Bools:
    """Interactions that are left when users and items with other numbers of interactions have gone, over and over.

    Args:
        users: the users; ``kept`` says afterwards which rows of the user file are left.
        items: the items, likewise.

    Returns:
        Whether each interaction is kept, ``[n]``.
    """
    rows = np.ones(len(users.codes), dtype=bool)
    while True:
        found = [side.banned(rows) for side in (users, items)]
        if not any(ids.any() or gone.any() for ids, gone in found):
            return rows
        for side, (ids, gone) in zip((users, items), found, strict=True):
            side.kept &= ~gone
            rows &= ~ids[side.codes]


def numbered(
    column: pd.Series, feature: pd.Series | None
) -> tuple[npt.NDArray[np.integer[Any]], int, npt.NDArray[np.integer[Any]] | None]:
    """Ids of interactions, and those of the user or item file, over one numbering.

    Returns:
        Numbers of the interactions' ids, how many there are, and numbers of the file's ids, -1 for those without
        interactions; None without a file.
    """
    categories = column.astype("category").cat
    ids = None if feature is None else categories.categories.get_indexer(pd.Index(np.asarray(feature, dtype=object)))
    return categories.codes.to_numpy(), len(categories.categories), ids
