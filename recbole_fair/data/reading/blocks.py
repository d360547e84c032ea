"""Cells of separated text without quotes, found and told apart by array operations instead of one step a cell.

A block is a stretch of whole lines as bytes. Eight bytes of a cell are looked at as one number: cells are told apart by
hashing these numbers, and whole numbers are worked out from them with three multiplications for eight digits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

Ints = npt.NDArray[np.intp]
Codes = npt.NDArray[np.int32]
Words = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

NEWLINE = 10
WORD = 8
_BEFORE = 16  # bytes of padding: the digits of a cell are read backwards from its end
_MOST_WORDS = 8  # longer cells are told apart one by one
_LOW = np.array([(1 << (8 * size)) - 1 for size in range(WORD + 1)], dtype=np.uint64)
_HIGH = ~_LOW[::-1]
_ZEROS = np.uint64(0x3030303030303030)
_MOST_DIGITS = 15  # exact in double precision
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)", re.IGNORECASE | re.ASCII)
#: What pandas, and so RecBole, takes for a missing number.
MISSING_NUMBERS = frozenset({"", "#N/A", "#N/A N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "null", "None", "n/a"}) | {
    *("NaN", "nan", "-NaN", "-nan", "-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN")
}


class WidthError(Exception):
    """A line has more or fewer cells than the header.

    Attributes:
        line: index of the line within the block.
        cells: how many it has.
    """

    def __init__(self, line: int, cells: int) -> None:
        super().__init__(line, cells)
        self.line = line
        self.cells = cells


class NumberError(Exception):
    """A cell of a column of numbers holds something else.

    Attributes:
        row: index of the row within the block.
        text: what it holds.
    """

    def __init__(self, row: int, text: str) -> None:
        super().__init__(row, text)
        self.row = row
        self.text = text


class Block:
    """Cells of some whole lines, each ended by a newline; empty lines are passed over.

    Args:
        data: the lines.
        separator: the byte between cells.
        width: cells a line must have.

    Attributes:
        lines: index of each row's line within the block, or None where row and line are the same.
        n_lines: lines, empty ones counted.

    Raises:
        WidthError: for the first line of another width.
    """

    def __init__(self, data: bytes, separator: int, width: int) -> None:
        self.data = data
        raw = np.zeros(_BEFORE + len(data) + WORD, dtype=np.uint8)
        raw[_BEFORE : _BEFORE + len(data)] = np.frombuffer(data, dtype=np.uint8)
        self._words: Words = np.ndarray((_BEFORE + len(data) + 1,), dtype="<u8", buffer=raw, strides=(1,))
        text = raw[_BEFORE : _BEFORE + len(data)]
        newline = text == NEWLINE
        line_ends = np.flatnonzero(newline)
        ends = np.flatnonzero(newline | (text == separator))
        starts = np.empty_like(ends)
        starts[:1] = 0
        starts[1:] = ends[:-1] + 1
        self.n_lines = len(line_ends)
        self.lines: Ints | None = None
        regular = len(ends) == width * len(line_ends) and bool((ends[width - 1 :: width] == line_ends).all())
        if not regular or width == 1:
            kept = self._without_empty_lines(ends, line_ends, width)
            starts, ends = starts[kept], ends[kept]
        self._starts = starts.reshape(-1, width)
        self._ends = ends.reshape(-1, width)

    def _without_empty_lines(self, ends: Ints, line_ends: Ints, width: int) -> npt.NDArray[np.bool_]:
        """Which cells are of lines that are not empty."""
        last = np.searchsorted(ends, line_ends)
        cells = np.diff(last, prepend=-1)
        begins = np.concatenate([[0], line_ends[:-1] + 1])
        empty = np.zeros(len(line_ends), dtype=bool)
        for line in np.flatnonzero((cells != width) | (line_ends == begins)).tolist():
            content = self.data[begins[line] : line_ends[line]]
            if content and (cells[line] > 1 or (width > 1 and content.strip())):
                raise WidthError(line, int(cells[line]))
            empty[line] = True
        if empty.any():
            self.lines = np.flatnonzero(~empty)
        kept = np.ones(len(ends), dtype=bool)
        kept[last[empty]] = False
        return kept

    def __len__(self) -> int:
        return len(self._ends)

    def line_of(self, row: int) -> int:
        """Index of a row's line within the block."""
        return row if self.lines is None else int(self.lines[row])

    def texts(self, column: int) -> tuple[Codes, Distinct]:
        """Cells of a column, numbered.

        Returns:
            Number of each row's cell ``[n]``, and the distinct cells in order of appearance.
        """
        starts, ends = self._starts[:, column], self._ends[:, column]
        lengths = ends - starts
        words = max(1, -(-int(lengths.max(initial=0)) // WORD))
        if words > _MOST_WORDS:
            return self._texts_one_by_one(starts, ends)
        cells = np.empty((len(lengths), words), dtype=np.uint64)
        for number in range(words):
            cells[:, number] = self._word(starts, lengths, number)
        found = _distinct(cells)
        return self._texts_one_by_one(starts, ends) if found is None else found

    def _word(self, starts: Ints, lengths: Ints, number: int) -> Words:
        """Bytes ``8 number`` to ``8 number + 7`` of each cell, 0 behind its end."""
        left = np.clip(lengths - WORD * number, 0, WORD)
        at = np.minimum(starts + (_BEFORE + WORD * number), len(self._words) - 1)
        return self._words[at] & _LOW[left]

    def _texts_one_by_one(self, starts: Ints, ends: Ints) -> tuple[Codes, list[bytes]]:
        index: dict[bytes, int] = {}
        data = self.data
        cells = (data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True))
        codes = np.fromiter((index.setdefault(cell, len(index)) for cell in cells), np.int32, len(starts))
        return codes, list(index)

    def numbers(self, column: int) -> Floats:
        """Cells of a column as numbers ``[n]``, NaN where there is none.

        Raises:
            NumberError: for the first cell that holds something else.
        """
        starts, ends = self._starts[:, column], self._ends[:, column]
        values = self._whole_numbers(ends, ends - starts)
        if values is not None:
            return values
        codes, cells = self.texts(column)
        return numbers_of([cell.decode() for cell in as_bytes(cells)], codes)

    def _whole_numbers(self, ends: Ints, lengths: Ints) -> Floats | None:
        """Cells of digits alone; None if there are others."""
        if not len(lengths):
            return np.empty(0)
        longest = int(lengths.max())
        if longest > _MOST_DIGITS or not lengths.min():
            return None
        low = self._digits(ends, np.minimum(lengths, WORD))
        if low is None:
            return None
        if longest <= WORD:
            return low.astype(np.float64)
        high = self._digits(ends - WORD, np.clip(lengths - WORD, 0, WORD))
        if high is None:
            return None
        return (high * np.uint64(10**WORD) + low).astype(np.float64)

    def _digits(self, ends: Ints, lengths: Ints) -> Words | None:
        """The number that the ``lengths`` digits before ``ends`` stand for; None if some are no digits."""
        kept = _HIGH[lengths]
        word = (self._words[ends + (_BEFORE - WORD)] & kept) | (_ZEROS & ~kept)
        high = np.uint64(0xF0F0F0F0F0F0F0F0)
        above = word + np.uint64(0x0606060606060606)
        if ((word & high) != _ZEROS).any() or ((above & high) != _ZEROS).any():
            return None
        word = (word & ~high) * np.uint64(10 * 2**8 + 1) >> np.uint64(8)
        word = (word & np.uint64(0x00FF00FF00FF00FF)) * np.uint64(100 * 2**16 + 1) >> np.uint64(16)
        return (word & np.uint64(0x0000FFFF0000FFFF)) * np.uint64(10000 * 2**32 + 1) >> np.uint64(32)


def is_number(text: str) -> bool:
    """Whether a cell without blanks around it is a number, infinite ones included."""
    return _NUMBER.fullmatch(text) is not None


def numbers_of(texts: Sequence[str], codes: Codes) -> Floats:
    """Numbers of the rows of a column.

    Args:
        texts: distinct cells.
        codes: number of each row's cell ``[n]``.

    Returns:
        ``[n]``, NaN where pandas takes the cell for missing.

    Raises:
        NumberError: for the first row whose cell is no number.
    """
    values = np.empty(len(texts))
    for number, text in enumerate(texts):
        bare = text.strip()
        if is_number(bare):
            values[number] = float(bare)
        elif bare in MISSING_NUMBERS:
            values[number] = math.nan
        else:
            raise NumberError(int(np.argmax(codes == number)), text)
    return values[codes]


#: Distinct cells: eight bytes a word, ``[k, words]``, or one by one where some are long.
Distinct = Words | list[bytes]


def as_bytes(cells: Distinct) -> list[bytes]:
    """Distinct cells as bytes."""
    if isinstance(cells, list):
        return cells
    width = WORD * cells.shape[1]
    return np.frombuffer(np.ascontiguousarray(cells, dtype="<u8").tobytes(), dtype=f"S{width}").tolist()


def joined(parts: Sequence[tuple[Codes, Distinct]]) -> tuple[Codes, list[bytes]]:
    """Cells of one stretch after another over one numbering.

    Args:
        parts: numbers and distinct cells of each stretch.

    Returns:
        Number of each row's cell, and the distinct cells in order of appearance.
    """
    if not parts:
        return np.empty(0, dtype=np.int32), []
    words = [cells for _, cells in parts if not isinstance(cells, list)]
    found = None
    if len(words) == len(parts):
        width = max(cells.shape[1] for cells in words)
        found = _distinct(np.concatenate([np.pad(cells, ((0, 0), (0, width - cells.shape[1]))) for cells in words]))
    if found is not None:
        numbers, distinct = found[0], as_bytes(found[1])
    else:
        index: dict[bytes, int] = {}
        every = (cell for _, cells in parts for cell in as_bytes(cells))
        numbers = np.fromiter((index.setdefault(cell, len(index)) for cell in every), np.int32)
        distinct = list(index)
    ends = np.cumsum([len(cells) for _, cells in parts])[:-1]
    own = np.split(numbers, ends)
    return np.concatenate([number[codes] for number, (codes, _) in zip(own, parts, strict=True)]), distinct


def _distinct(cells: Words) -> tuple[Codes, Words] | None:
    """Number rows ``[n, words]`` in order of appearance; None if two different ones have one hash."""
    if cells.shape[1] == 1:
        codes, found = pd.factorize(cells[:, 0])
        return codes.astype(np.int32), found[:, None]
    codes, hashes = pd.factorize(_mixed(cells))
    first = np.empty(len(hashes), dtype=np.intp)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    distinct = cells[first]
    for number in range(cells.shape[1]):
        if (cells[:, number] != distinct[:, number][codes]).any():
            return None
    return codes.astype(np.int32), distinct


def _mixed(cells: Words) -> Words:
    """A hash of each row ``[n, words]``."""
    mixed = np.zeros(len(cells), dtype=np.uint64)
    for number in range(cells.shape[1]):
        mixed = (mixed ^ cells[:, number]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed
