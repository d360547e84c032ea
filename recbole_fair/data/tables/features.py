"""Columns other than ids, ratings and times: what type they have, and their cells as an atomic file holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recbole_fair.data.reading.blocks import MISSING_NUMBERS, is_number
from recbole_fair.data.tables.names import plain_name
from recbole_fair.data.tables.sources import Batch
from recbole_fair.data.tables.times import as_texts
from recbole_fair.errors import FairError

TYPES = ("token", "token_seq", "float", "float_seq")
_BAR = "|"
_FEW = 0.1  # share of cells with a bar from which on a column holds several values a cell
_MEAN_PARTS = 8  # longer "lists" are texts


class RetypeError(Exception):
    """A later row does not fit the type that the first ones gave a column.

    Attributes:
        column: its name.
    """

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


@dataclass(frozen=True)
class Feature:
    """A column that is kept.

    Attributes:
        column: its name in the table.
        name: its name in the atomic file.
        kind: one of :data:`TYPES`.
        separator: between the values of one cell, where they stand in a text.
        asked: whether the user named the type.
    """

    column: str
    name: str
    kind: str
    separator: str | None = None
    asked: bool = False

    def texts(self, batch: Batch) -> list[str]:
        """Cells of a batch as they are written.

        Raises:
            RetypeError: if one does not fit the type.
            FairError: the same, where the user named the type.
        """
        if self.column in batch.times:
            seconds = batch.times[self.column]
            texts, known = as_texts(np.nan_to_num(seconds)), ~np.isnan(seconds)
            return [text if there else "" for text, there in zip(texts, known.tolist(), strict=True)]
        cells = batch.cells[self.column].tolist()
        if self.kind == "token":
            return ["" if cell is None else cell if isinstance(cell, str) else " ".join(cell) for cell in cells]
        if self.kind == "float":
            return self._numbers(batch, cells)
        return [self._sequence(batch, place, cell) for place, cell in enumerate(cells)]

    def _numbers(self, batch: Batch, cells: Sequence[str | tuple[str, ...] | None]) -> list[str]:
        for place, cell in enumerate(cells):
            if cell is not None and not (isinstance(cell, str) and _is_numeric(cell)):
                self._fail(batch, place, cell)
        return ["" if cell is None else cell for cell in cells]  # type: ignore[misc]

    def _sequence(self, batch: Batch, place: int, cell: str | tuple[str, ...] | None) -> str:
        if cell is None:
            return ""
        parts: Sequence[str] = cell.split(self.separator) if isinstance(cell, str) else cell
        if self.kind == "float_seq" and not all(is_number(part.strip()) for part in parts):
            self._fail(batch, place, cell)
        # Values of a cell are separated by blanks.
        return " ".join("_".join(part.split()) for part in parts if part.strip())

    def _fail(self, batch: Batch, place: int, cell: object) -> None:
        if not self.asked:
            raise RetypeError(self.column)
        raise FairError(f"Row {batch.first + place}: '{self.column}' is to be {self.kind} and holds {cell!r}.")


def _is_numeric(cell: str) -> bool:
    bare = cell.strip()
    return is_number(bare) or bare in MISSING_NUMBERS


def features_of(
    batch: Batch, columns: Sequence[str], types: Mapping[str, str], as_text: frozenset[str], taken: Sequence[str]
) -> list[Feature]:
    """Types of columns, from the first rows.

    Numbers are ``float``; lists, and texts of which many hold several values with bars between them (``Drama|War``),
    ``token_seq``; all else, and numbers with leading zeros, ``token``.

    Args:
        batch: the first rows.
        columns: the columns.
        types: types that the user named, by column.
        as_text: columns that turned out to be neither.
        taken: names of the file that are given away.

    Raises:
        FairError: for a type that does not exist.
    """
    found: list[Feature] = []
    used = set(taken)
    for column in columns:
        asked = types.get(column, types.get(plain_name(column)))
        if asked is not None and asked not in TYPES:
            raise FairError(f"{column}:{asked} is not a type; use one of {', '.join(TYPES)}.")
        name = base = "".join("_" if mark in ':\t\r\n"' else mark for mark in plain_name(column)) or "column"
        number = 2
        while name in used:
            name, number = f"{base}_{number}", number + 1
        used.add(name)
        kind, separator = (asked, None) if asked else _guessed(batch, column)
        if asked in ("token_seq", "float_seq"):
            separator = _separator(batch, column)
        if column in as_text and not asked:
            kind, separator = "token", None
        found.append(Feature(column, name, kind, separator, asked is not None))
    return found


def _guessed(batch: Batch, column: str) -> tuple[str, str | None]:
    if column in batch.times:
        return "float", None
    known = [cell for cell in batch.cells[column].tolist() if cell is not None]
    if not known:
        return "token", None
    if any(isinstance(cell, tuple) for cell in known):
        parts = [part for cell in known if isinstance(cell, tuple) for part in cell]
        numbers = bool(parts) and all(is_number(part) for part in parts)
        return "float_seq" if numbers else "token_seq", None
    if all(_is_numeric(cell) for cell in known):
        zeros = any(len(cell) > 1 and cell[0] == "0" and cell.isdigit() for cell in known)
        return "token" if zeros else "float", None
    return ("token_seq", _BAR) if _separator(batch, column) else ("token", None)


def _separator(batch: Batch, column: str) -> str | None:
    if column in batch.times:
        return None
    known = [cell for cell in batch.cells[column].tolist() if isinstance(cell, str)]
    with_bars = [cell for cell in known if _BAR in cell]
    if not with_bars or len(with_bars) < _FEW * len(known):
        return None
    return _BAR if np.mean([cell.count(_BAR) + 1 for cell in with_bars]) <= _MEAN_PARTS else None
