"""Separated text with quotes, by the rules of Python's ``csv``, record by record."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class QuoteError(Exception):
    """A quoted cell that swallows lines.

    Attributes:
        line: line in which the record with the quote begins, from 1.
        last: line in which it ends, or None for a quote that is never closed.
    """

    def __init__(self, line: int, last: int | None) -> None:
        super().__init__(line, last)
        self.line = line
        self.last = last


@dataclass(frozen=True)
class Record:
    """One record.

    Attributes:
        line: line in which it begins, from 1.
        cells: its cells, without the quotes.
    """

    line: int
    cells: list[str]


def records(text: str, separator: str) -> Iterator[Record]:
    """Records of a text; empty lines are passed over, lines of blanks alone likewise.

    A quote that is opened at the beginning of a cell and closed in a later line may be a text of several lines, or a
    slip that makes one record of many. It is taken for a slip if its first and its last line each have as many
    separators as a record of their own would.

    Args:
        text: the whole text, header included.
        separator: one character, or several that are taken as they stand; with several, quotes have no meaning.

    Yields:
        The header and every row.

    Raises:
        QuoteError: for a quote that is not closed, or swallows rows.
    """
    width = 0
    if len(separator) > 1:
        for number, line in enumerate(io.StringIO(text, newline=None), start=1):
            cells = line.rstrip("\n").split(separator)
            if _is_there(cells, width):
                width = width or len(cells)
                yield Record(number, cells)
        return
    lines = _Lines(text)
    with _no_limit():
        reader = csv.reader(lines, delimiter=separator)
        while True:
            lines.taken.clear()
            begin = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            if lines.ended:
                raise QuoteError(begin, None)
            if not _is_there(cells, width):
                continue
            width = width or len(cells)
            first, last = lines.taken[0], lines.taken[-1]
            if len(lines.taken) > 1 and min(first.count(separator), last.count(separator)) >= width - 1:
                raise QuoteError(begin, reader.line_num)
            yield Record(begin, cells)


def _is_there(cells: list[str], width: int) -> bool:
    """Whether a line is more than empty: a blank may be an id where there is no other column."""
    return len(cells) > 1 or bool(cells and (cells[0].strip(" \t\v\f\r\n") or (cells[0] and width == 1)))


class _Lines:
    """Lines of a text one by one, which remembers those that were taken for a record and whether they ran out."""

    def __init__(self, text: str) -> None:
        self._lines = io.StringIO(text, newline="")
        self.taken: list[str] = []
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._lines.readline()
        if not line:
            self.ended = bool(self.taken)
            raise StopIteration
        self.taken.append(line)
        return line


@contextmanager
def _no_limit() -> Iterator[None]:
    # Python's csv refuses cells of more than 131,072 characters unless told otherwise.
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)
