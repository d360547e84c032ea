"""One reading of atomic files: what stands in a cell is what comes out, and each slip is one sentence.

Cells are text as it stands in the file, by the rules of Python's ``csv`` for quotes. Nothing is taken for missing but
an empty cell, and in a column of numbers what pandas takes for none. Every row has as many cells as the header.
"""

from __future__ import annotations

import codecs
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from recbole.utils import FeatureType

from recbole_fair.config.contract import Settings
from recbole_fair.data.reading.blocks import Block, Codes, Distinct, Floats, NumberError, WidthError, joined, numbers_of
from recbole_fair.data.reading.quoted import QuoteError, records
from recbole_fair.errors import FairError
from recbole_fair.io.threads import in_threads, parts_for

logger = logging.getLogger(__name__)

TYPES = tuple(kind.value for kind in FeatureType)
_BLOCK = 1 << 25  # bytes a block
_MOST_BLOCKS = 4  # at a time
_ROWS = 1 << 16  # rows that are collected before they are numbered, where there are quotes
_UTF8 = ("utf-8", "ascii")
_Strings = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Form:
    """How an atomic file is written.

    Attributes:
        separator: what stands between cells.
        encoding: Python's name of the encoding.
    """

    separator: str = "\t"
    encoding: str = "utf-8"

    @property
    def in_bytes(self) -> bool:
        """Whether the separator is one byte in UTF-8, so that cells can be found without decoding."""
        return len(self.separator) == 1 and self.separator.isascii()


def form_of(config: Settings) -> Form:
    """The form that ``field_separator`` and ``encoding`` name.

    Raises:
        FairError: for a separator that cannot be one, or an encoding that Python does not know.
    """
    separator, encoding = config["field_separator"], config["encoding"]
    separator = "\t" if separator is None else separator
    if not isinstance(separator, str) or not separator or any(mark in separator for mark in '"\r\n\0'):
        raise FairError(
            f"field_separator={separator!r} cannot separate cells: give one character, such as '\\t' or ','."
        )
    encoding = "utf-8" if encoding is None else encoding
    try:
        name = codecs.lookup(encoding).name
        "".encode(name)
    except (LookupError, TypeError, ValueError) as error:
        raise FairError(f"encoding={encoding!r} is not one that Python knows, such as utf-8 or latin-1.") from error
    return Form(separator, "utf-8" if name == "utf-8-sig" else name)


@dataclass(frozen=True)
class TextColumn:
    """A column of texts.

    Attributes:
        kind: ``token``, ``token_seq`` or ``float_seq``.
        codes: number of each row's cell, int32 ``[n]``.
        texts: the distinct cells in order of appearance, ``[k]``.
    """

    kind: str
    codes: Codes
    texts: _Strings

    @property
    def values(self) -> _Strings:
        """The cell of each row, ``[n]``."""
        return self.texts[self.codes]


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers.

    Attributes:
        values: float64 ``[n]``, NaN where there is none.
    """

    values: Floats


@dataclass(frozen=True)
class Table:
    """Columns of an atomic file.

    Attributes:
        path: the file.
        header: type of every column of the file, read or not, in the order of the file.
        n_rows: rows without the header.
        texts: the text columns that were asked for.
        numbers: the number columns that were asked for.
        line_of: line of a row, from 1; rows count from 0.
    """

    path: Path
    header: dict[str, str]
    n_rows: int
    texts: dict[str, TextColumn]
    numbers: dict[str, NumberColumn]
    line_of: Callable[[int], int] = field(repr=False)

    def check_ids(self, fields: Sequence[str]) -> None:
        """Check that columns hold an id in every row.

        Args:
            fields: columns of tokens among those that were read; others are passed over.

        Raises:
            FairError: naming file, line and column.
        """
        for name in fields:
            column = self.texts.get(name)
            if column is None or column.kind != "token":
                continue
            empty = np.flatnonzero(column.texts == "")
            if len(empty):
                rows = np.flatnonzero(column.codes == empty[0])
                more = f" ({len(rows)} rows in all)" if len(rows) > 1 else ""
                raise FairError(
                    f"{self.path}, line {self.line_of(int(rows[0]))}: the cell of '{name}' is empty{more}; "
                    "give it an id or remove the row."
                )


def read_header(path: Path, form: Form) -> dict[str, str]:
    """Columns of an atomic file.

    Args:
        path: the file.
        form: how it is written.

    Returns:
        Field name to type (``token``, ``token_seq``, ``float``, ``float_seq``), in file order.

    Raises:
        FairError: for an empty file or a header that is not ``name:type`` joined by the separator.
    """
    with _opened(path) as file:
        if form.encoding in _UTF8:
            head = file.readline()
            # A carriage return alone ends lines as well.
            text = _decoded(head.partition(b"\r")[0], path, form, 1)
        else:
            try:
                with path.open(encoding=form.encoding) as lines:
                    text = lines.readline()
            except (UnicodeError, ValueError) as error:
                raise wrong_encoding(path, form, 1) from error
    return _header_of(text.removeprefix("\ufeff"), path, form)


def _header_of(line: str, path: Path, form: Form) -> dict[str, str]:
    if not line.strip():
        raise FairError(f"{path} is empty; its first line must name the columns, such as user_id:token.")
    try:
        names = next(iter(records(line, form.separator))).cells
    except QuoteError as error:
        raise FairError(f"{path}, line 1: a quote in the header is not closed.") from error
    header: dict[str, str] = {}
    for column in names:
        name, _, kind = column.partition(":")
        if kind not in TYPES or not name:
            raise FairError(
                f"{path}: the column {column!r} is not name:type with a type of {', '.join(TYPES)} "
                f"(columns are separated by field_separator={form.separator!r})."
            )
        if name in header:
            raise FairError(f"{path}: two columns are named {name!r}; rename one of them.")
        header[name] = kind
    return header


def read_table(path: Path, form: Form, fields: Sequence[str] | None = None, as_text: bool = False) -> Table:
    """Read columns of an atomic file.

    Args:
        path: the file.
        form: how it is written.
        fields: the columns; all when left out.
        as_text: whether columns of numbers are read as texts as well.

    Returns:
        The columns, in the order of the file.

    Raises:
        FairError: for a file that cannot be read, a row of another width, a quote that is not closed, a cell that is
            not a number in a column of numbers; each with the line.
    """
    header = read_header(path, form)
    wanted = [name for name in header if fields is None or name in fields]
    columns = {name: _Numbers() if header[name] == "float" and not as_text else _Cells() for name in wanted}
    places = {name: place for place, name in enumerate(header)}
    spans = _Spans()
    if not (form.in_bytes and _read_blocks(path, form, len(header), columns, places, spans)):
        _read_records(path, form, len(header), columns, places, spans)
    texts = {name: column.column(header[name]) for name, column in columns.items() if isinstance(column, _Cells)}
    numbers = {name: NumberColumn(column.values()) for name, column in columns.items() if isinstance(column, _Numbers)}
    return Table(path, header, spans.n_rows, texts, numbers, spans.line_of)


class _Cells:
    """Texts of a column, stretch by stretch, each numbered for itself until all are there."""

    def __init__(self) -> None:
        self._parts: list[tuple[Codes, Distinct]] = []

    def add(self, codes: Codes, cells: Distinct) -> None:
        """Append rows."""
        self._parts.append((codes, cells))

    def column(self, kind: str) -> TextColumn:
        codes, cells = joined(self._parts)
        texts = np.empty(len(cells), dtype=object)
        texts[:] = [cell.decode() for cell in cells]
        return TextColumn(kind, codes, texts)


class _Numbers:
    """Numbers of a column."""

    def __init__(self) -> None:
        self._values: list[Floats] = []

    def add(self, values: Floats) -> None:
        self._values.append(values)

    def values(self) -> Floats:
        return np.concatenate(self._values) if self._values else np.empty(0)


_Columns = dict[str, _Cells | _Numbers]


class _Spans:
    """Which line each row stands in, a stretch of rows at a time."""

    def __init__(self) -> None:
        self.n_rows = 0
        self._spans: list[tuple[int, Callable[[int], int]]] = []

    def add(self, rows: int, line_of: Callable[[int], int]) -> None:
        self._spans.append((self.n_rows, line_of))
        self.n_rows += rows

    def line_of(self, row: int) -> int:
        first, line_of = next(span for span in reversed(self._spans) if span[0] <= row)
        return line_of(row - first)


def _read_blocks(path: Path, form: Form, width: int, columns: _Columns, places: dict[str, int], spans: _Spans) -> bool:
    """Read a file without quotes around cells; False, with nothing of use read, if there are some."""
    stretches = _stretches(path, form)
    most = parts_for(_MOST_BLOCKS)
    while turn := list(islice(stretches, most)):
        for found in in_threads([partial(_parsed, path, form, width, columns, places, *part) for part in turn]):
            if isinstance(found, FairError):
                raise found
            if found is None:
                for column in columns.values():
                    column.__init__()  # type: ignore[misc]
                spans.__init__()  # type: ignore[misc]
                return False
            rows, line_of, parts = found
            for column, part in zip(columns.values(), parts, strict=True):
                if isinstance(column, _Cells):
                    column.add(*part)
                else:
                    column.add(part)
            spans.add(rows, line_of)
    return True


_Parsed = tuple[int, Callable[[int], int], list[Any]]


def _parsed(
    path: Path, form: Form, width: int, columns: _Columns, places: dict[str, int], line: int, data: bytes
) -> _Parsed | FairError | None:
    """Number of rows of a stretch, their lines, and what stands in each column; None if there are quotes.

    An error is given back: what counts is the first in the order of the file.
    """
    separator = form.separator.encode()
    if data.startswith(b'"') or b'\n"' in data or separator + b'"' in data:
        return None
    try:
        block = Block(data, separator[0], width)
    except WidthError as error:
        return _wrong_width(path, form, line + error.line, error.cells, width)

    def found(name: str) -> Any:
        try:
            return (block.texts if isinstance(columns[name], _Cells) else block.numbers)(places[name])
        except NumberError as error:
            raise _no_number(path, name, line + block.line_of(error.row), error.text) from error

    try:
        parts = in_threads([partial(found, name) for name in columns])
    except FairError as error:
        return error
    return len(block), _lines(line, block.lines), parts


def _lines(first: int, lines: npt.NDArray[np.intp] | None) -> Callable[[int], int]:
    return lambda row: first + (row if lines is None else int(lines[row]))


def _stretches(path: Path, form: Form) -> Iterator[tuple[int, bytes]]:
    """The lines after the header in UTF-8, each ended by a newline, a block at a time; before it its first line."""
    line, rest, header = 1, b"", True
    with _opened(path) as file:
        for data in _chunks(file, path, form):
            data = rest + data
            cut = data.rfind(b"\n") + 1
            data, rest = data[:cut], data[cut:]
            if not data:
                continue
            data = _checked(data, path, form, line)
            first, line = line, line + data.count(b"\n")
            if header:
                data, header, first = data.partition(b"\n")[2], False, first + 1
            yield first, data
    if rest:
        data = _checked(rest, path, form, line)
        data += b"" if data.endswith(b"\n") else b"\n"
        yield (line + 1, data.partition(b"\n")[2]) if header else (line, data)


def _chunks(file: IO[bytes], path: Path, form: Form) -> Iterator[bytes]:
    if form.encoding in _UTF8:
        yield from iter(lambda: file.read(_BLOCK), b"")
    else:
        yield _decoded(file.read(), path, form, 1).encode()


def _checked(data: bytes, path: Path, form: Form, line: int) -> bytes:
    """Lines with newlines alone at their ends, in the right encoding."""
    if b"\0" in data:
        at = line + data[: data.find(b"\0")].count(b"\n")
        raise FairError(
            f"{path}, line {at}: there is a NUL byte, which no text has; is the file damaged, or in another encoding "
            f"than {form.encoding}?"
        )
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if form.encoding in _UTF8 and not data.isascii():
        _decoded(data, path, form, line)
    return data


def _decoded(data: bytes, path: Path, form: Form, line: int) -> str:
    try:
        return data.decode(form.encoding).removeprefix("\ufeff" if line == 1 else "")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        raise wrong_encoding(path, form, line + before.count(b"\n")) from error
    except UnicodeError as error:
        raise wrong_encoding(path, form, line) from error


def _read_records(path: Path, form: Form, width: int, columns: _Columns, places: dict[str, int], spans: _Spans) -> None:
    """Read a file record by record."""
    logger.info("%s has quoted cells or a rare separator, and is read the slow way.", path)
    with _opened(path) as file:
        text = _decoded(file.read(), path, form, 1)
    if "\0" in text:
        _checked(text.encode(), path, Form(form.separator), 1)
    rows, lines = [], []
    try:
        found = records(text, form.separator)
        next(found, None)  # the header
        for record in found:
            if len(record.cells) != width:
                raise _wrong_width(path, form, record.line, len(record.cells), width)
            rows.append(record.cells)
            lines.append(record.line)
            if len(rows) == _ROWS:
                _add_rows(path, rows, lines, columns, places, spans)
                rows, lines = [], []
    except QuoteError as error:
        raise FairError(
            f"{path}, line {error.line}: a quote that is opened there is "
            + ("never closed" if error.last is None else f"closed in line {error.last} only, across whole rows")
            + '; close it, or write the cell in quotes with each quote of its own twice ("").'
        ) from error
    if rows:
        _add_rows(path, rows, lines, columns, places, spans)


def _add_rows(
    path: Path,
    rows: list[list[str]],
    lines: list[int],
    columns: _Columns,
    places: dict[str, int],
    spans: _Spans,
) -> None:
    for name, column in columns.items():
        cells = np.empty(len(rows), dtype=object)
        cells[:] = [row[places[name]] for row in rows]
        codes, texts = pd.factorize(cells)
        if isinstance(column, _Cells):
            column.add(codes.astype(np.int32), [text.encode() for text in texts])
            continue
        try:
            column.add(numbers_of(texts.tolist(), codes.astype(np.int32)))
        except NumberError as error:
            raise _no_number(path, name, lines[error.row], error.text) from error
    spans.add(len(rows), lines.__getitem__)


def _opened(path: Path) -> IO[bytes]:
    try:
        if path.exists() and not path.is_file():
            raise FairError(f"{path} is not a file.")
        return path.open("rb")
    except OSError as error:
        raise FairError(f"{path} cannot be read: {error.strerror or error}.") from error


def wrong_encoding(path: Path, form: Form, line: int) -> FairError:
    """The sentence for bytes that the encoding does not have."""
    return FairError(f"{path}, line {line}, is not in {form.encoding}: set encoding, such as latin-1 or utf-16.")


def _wrong_width(path: Path, form: Form, line: int, cells: int, width: int) -> FairError:
    return FairError(
        f"{path}, line {line}: {cells} cells where the header names {width} columns "
        f"(field_separator={form.separator!r}); an empty cell after a last separator counts: remove it, or name it in "
        "the header."
    )


def _no_number(path: Path, name: str, line: int, text: str) -> FairError:
    shown = text if len(text) <= 40 else text[:37] + "..."
    return FairError(f"{path}, line {line}: the column '{name}' holds {shown!r}, something that is not a number.")
