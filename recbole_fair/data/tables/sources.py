"""Tables in csv, tsv, parquet and jsonl, read a batch of rows at a time; what stands in a cell is what comes out.

Ids are text: ``007`` and ``NA`` stay as they are, whole numbers have no decimals. Files may be packed (``.gz``,
``.bz2``, ``.xz``); a folder stands for all files of one kind in it, in the order of their names.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from recbole_fair.errors import FairError

if TYPE_CHECKING:
    import pyarrow

Floats = npt.NDArray[np.float64]
#: Text of each row, a tuple of texts where a cell holds a list, None where there is nothing.
Cells = npt.NDArray[np.object_]

_Columns = tuple[dict[str, Cells], dict[str, Floats]]

KINDS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".dat": "csv", ".inter": "csv", ".item": "csv", ".user": "csv",
         ".parquet": "parquet", ".pq": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}  # fmt: skip
_TABBED = (".tsv", ".inter", ".item", ".user")
_OPENERS: dict[str, Callable[..., IO[Any]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_SEPARATORS = (",", "\t", ";", "|")
_ROWS = 1 << 17  # rows a batch
_LOOK = 1000  # lines of a jsonl file that name its columns


@dataclass(frozen=True)
class Batch:
    """Some rows of a table.

    Attributes:
        first: number of the first row, from 1, without the header.
        cells: texts by column, each ``[n]``.
        times: columns that are instants by their type (parquet), in seconds since 1970 UTC, NaN for none, ``[n]``.
    """

    first: int
    cells: dict[str, Cells]
    times: dict[str, Floats]

    def __len__(self) -> int:
        columns: Sequence[Any] = [*self.cells.values(), *self.times.values()]
        return len(columns[0]) if columns else 0


@dataclass(frozen=True)
class Table:
    """A table on disk.

    Attributes:
        path: as the user named it.
        files: its parts.
        kind: ``csv``, ``parquet`` or ``jsonl``.
        columns: names, in the order of the file.
        separator: between cells of a csv file.
        encoding: of a csv or jsonl file.
        named: whether the user named the columns, the file having no header.
    """

    path: Path
    files: tuple[Path, ...]
    kind: str
    columns: tuple[str, ...]
    separator: str = ","
    encoding: str = "utf-8"
    named: bool = field(default=False, repr=False)

    def batches(self, columns: Sequence[str], rows: int = _ROWS) -> Iterator[Batch]:
        """Rows of some columns, a batch at a time.

        Args:
            columns: names among :attr:`columns`.
            rows: of a batch, at most.

        Yields:
            Batches in the order of the files.

        Raises:
            FairError: for a file that cannot be read, or a row that does not fit the header.
        """
        read = {"csv": self._csv, "parquet": self._parquet, "jsonl": self._jsonl}[self.kind]
        wanted, first = list(dict.fromkeys(columns)), 1
        for file in self.files:
            for cells, times in read(file, wanted, rows):
                batch = Batch(first, cells, times)
                first += len(batch)
                yield batch

    def _csv(self, file: Path, wanted: list[str], rows: int) -> Iterator[_Columns]:
        with _sentences(file, self.encoding):
            chunks = pd.read_csv(
                file,
                **_dialect(self.separator),
                header=None if self.named else 0,
                names=list(self.columns),
                index_col=False,
                dtype=object,
                keep_default_na=False,
                na_filter=False,
                chunksize=rows,
                encoding=self.encoding,
            )
            for chunk in chunks:  # all columns are read: with some left out, pandas passes over rows that are too wide
                cells = {name: _nothing_as_none(chunk[name].to_numpy(dtype=object)) for name in wanted}
                self._check_quotes(file, cells)
                yield cells, {}

    def _check_quotes(self, file: Path, cells: dict[str, Cells]) -> None:
        """A quote that is opened by mistake swallows the rows up to the next one."""
        most = len(self.columns) - 1
        for name, column in cells.items():
            for cell in column.tolist():
                if cell is None or "\n" not in cell:
                    continue
                if any(line.count(self.separator) >= most for line in cell.split("\n")[1:]):
                    raise FairError(
                        f"{file}: a cell of '{name}' holds whole rows ({cell[:40]!r}...): a quote is opened there and "
                        'not closed; close it, or write quotes inside of quotes twice ("").'
                    )

    def _jsonl(self, file: Path, wanted: list[str], rows: int) -> Iterator[_Columns]:
        with _sentences(file, self.encoding):
            found: list[dict[str, Any]] = []
            for row in _json_rows(file, self.encoding):
                found.append(row)
                if len(found) == rows:
                    yield _json_columns(found, wanted), {}
                    found = []
            if found:
                yield _json_columns(found, wanted), {}

    def _parquet(
        self, file: Path, wanted: list[str], rows: int
    ) -> Iterator[tuple[dict[str, Cells], dict[str, Floats]]]:
        with _sentences(file, self.encoding):
            for batch in _parquet_file(file).iter_batches(rows, columns=wanted):
                cells, times = dict[str, Cells](), dict[str, Floats]()
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    _put_arrow(name, column, cells, times)
                yield cells, times


def open_table(
    path: str | Path, separator: str | None = None, columns: Sequence[str] | None = None, encoding: str = "utf-8"
) -> Table:
    """Look at a table and find out its columns.

    Args:
        path: a csv, tsv, parquet or jsonl file, or a folder of such files of one kind.
        separator: between cells of a csv file; found in its first line when left out.
        columns: names of the columns of a csv file without a header.
        encoding: of a csv or jsonl file.

    Raises:
        FairError: for a file that is not there, is of another kind, or has no columns.
    """
    given = Path(path)
    files = _files(given)
    kind = KINDS[_suffix(files[0])]
    if kind != "csv":
        if columns is not None or separator is not None:
            what = "columns" if columns is not None else "separator"
            raise FairError(f"{what} is for csv files; {files[0].name} names its own columns.")
        found = _parquet_columns(files[0]) if kind == "parquet" else _jsonl_columns(files[0], encoding)
        return Table(given, files, kind, found, encoding=encoding)
    separator = separator or ("\t" if _suffix(files[0]) in _TABBED else _guessed_separator(files[0], encoding))
    if columns is not None:
        return Table(given, files, kind, tuple(columns), separator, encoding, True)
    header = _csv_header(files[0], separator, encoding)
    for other in files[1:]:
        if _csv_header(other, separator, encoding) != header:
            raise FairError(f"{other} has other columns than {files[0]}; convert them one by one.")
    return Table(given, files, kind, header, separator, encoding)


def _suffix(file: Path) -> str:
    name = file.with_suffix("") if file.suffix.lower() in _OPENERS else file
    return name.suffix.lower()


def _files(path: Path) -> tuple[Path, ...]:
    if path.is_dir():
        found = sorted(
            file for file in path.iterdir() if _suffix(file) in KINDS and not file.name.startswith((".", "_"))
        )
        if not found:
            raise FairError(f"{path} holds no file that ends in {', '.join(KINDS)}.")
        if len({KINDS[_suffix(file)] for file in found}) > 1:
            names = ", ".join(file.name for file in found[:5])
            raise FairError(f"{path} holds files of several kinds ({names}); name one file, or keep one kind there.")
        return tuple(found)
    if not path.is_file():
        raise FairError(f"There is no file {path}.")
    if _suffix(path) not in KINDS:
        raise FairError(
            f"{path}: the ending {_suffix(path) or '(none)'} is not known; use .csv, .tsv, .parquet or .jsonl."
        )
    return (path,)


class _sentences:  # noqa: N801  (reads as words where it is used)
    """Errors of pandas, pyarrow and Python while a file is read, as one sentence that names it."""

    def __init__(self, file: Path, encoding: str) -> None:
        self._file, self._encoding = file, encoding

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, (FairError, GeneratorExit)):
            return
        if isinstance(error, UnicodeDecodeError):
            raise FairError(
                f"{self._file} is not in {self._encoding}: name its encoding, such as --encoding=latin-1."
            ) from error
        if isinstance(error, LookupError) and "encoding" in str(error):
            raise FairError(f"encoding={self._encoding!r} is not one that Python knows, such as utf-8.") from error
        if isinstance(error, pd.errors.ParserError):
            at = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
            if at:
                width, line, cells = at.groups()
                raise FairError(
                    f"{self._file}, line {line}: {cells} cells where the header names {width} columns; put cells that "
                    "hold the separator in quotes, or name another separator."
                ) from error
        if isinstance(error, (OSError, ValueError, EOFError)):
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise FairError(f"{self._file} cannot be read: {reason}.") from error


def _nothing_as_none(cells: Cells) -> Cells:
    """Empty cells, and those that a short row lacks, as None."""
    empty = pd.isna(cells) | (cells == "")
    if empty.any():
        cells = cells.copy()
        cells[empty] = None
    return cells


# -- csv ---------------------------------------------------------------------------------------------------------------


def _dialect(separator: str) -> dict[str, Any]:
    """How pandas is told of a separator; with several characters quotes have no meaning."""
    if len(separator) == 1:
        return {"sep": separator, "engine": "c"}
    return {"sep": re.escape(separator), "engine": "python", "quoting": csv.QUOTE_NONE}


def _csv_header(file: Path, separator: str, encoding: str) -> tuple[str, ...]:
    with _sentences(file, encoding):
        try:
            frame = pd.read_csv(
                file, **_dialect(separator), header=None, nrows=2, dtype=object, na_filter=False, encoding=encoding
            )
        except pd.errors.EmptyDataError as error:
            raise FairError(f"{file} is empty; its first line must name the columns.") from error
    names = [str(name).strip().removeprefix("\ufeff") for name in frame.iloc[0]]
    # What pandas writes for an index has no name; a column that is never asked for needs none.
    names = [name or f"column {number}" for number, name in enumerate(names, start=1)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise FairError(f"{file}: two columns are named {twice!r}; rename one of them.")
    return tuple(names)


def _guessed_separator(file: Path, encoding: str) -> str:
    with _sentences(file, encoding), _opened(file, encoding) as lines:
        head = lines.readline()
    if "::" in head:
        return "::"
    return max(_SEPARATORS, key=head.count)


def _opened(file: Path, encoding: str) -> IO[str]:
    packed = _OPENERS.get(file.suffix.lower())
    if packed is not None:
        return packed(file, "rt", encoding=encoding, newline="\n")
    return file.open(encoding=encoding, newline="\n")


# -- jsonl -------------------------------------------------------------------------------------------------------------


def _json_rows(file: Path, encoding: str) -> Iterator[dict[str, Any]]:
    """Objects of a file, one a line, numbers as their text."""
    load = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_no_number).decode
    with _opened(file, encoding) as lines:
        for number, line in enumerate(lines, start=1):
            if line.isspace():
                continue
            try:
                row = load(line)
            except ValueError as error:
                raise FairError(f"{file}, line {number} is not JSON ({error}); each line holds one object.") from error
            if row.__class__ is not dict:
                raise FairError(f"{file}, line {number} is not an object of columns and values, such as {{...}}.")
            yield row


def _no_number(text: str) -> None:
    """NaN and Infinity, which JSON does not have."""


def _jsonl_columns(file: Path, encoding: str) -> tuple[str, ...]:
    names: dict[str, None] = {}
    with _sentences(file, encoding):
        for number, row in enumerate(_json_rows(file, encoding)):
            names.update(dict.fromkeys(row))
            if number == _LOOK:
                break
    if not names:
        raise FairError(f"{file} is empty; each line must hold one object of columns and values.")
    return tuple(names)


def _json_columns(rows: list[dict[str, Any]], wanted: Sequence[str]) -> dict[str, Cells]:
    found = {}
    for name in wanted:
        column = np.empty(len(rows), dtype=object)
        values = [row.get(name) for row in rows]
        column[:] = [value if value.__class__ is str and value else _cell(value) for value in values]
        found[name] = column
    return found


def _cell(value: Any) -> str | tuple[str, ...] | None:
    """A value of a jsonl or parquet file as a cell."""
    if value is None or value == "" or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        parts = [_cell(part) for part in value]
        return tuple(part if isinstance(part, str) else " ".join(part) for part in parts if part is not None)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


# -- parquet -----------------------------------------------------------------------------------------------------------


def _parquet_file(file: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise FairError(
            f'{file}: parquet needs the package pyarrow; pip install "recbole_fair[parquet]", or use csv.'
        ) from error
    return pyarrow.parquet.ParquetFile(file)


def _parquet_columns(file: Path) -> tuple[str, ...]:
    with _sentences(file, "utf-8"):
        return tuple(_parquet_file(file).schema_arrow.names)


def _put_arrow(name: str, column: pyarrow.Array, cells: dict[str, Cells], times: dict[str, Floats]) -> None:
    """Add a column of a parquet file to the texts or, by its type, to the instants."""
    import pyarrow as pa
    from pyarrow import compute

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        instants = column.cast(
            pa.timestamp("ms") if pa.types.is_date(kind) else pa.timestamp("us", kind.tz), safe=False
        )
        ticks = 1e3 if pa.types.is_date(kind) else 1e6
        missing = instants.is_null().to_numpy(zero_copy_only=False)
        whole = compute.fill_null(instants.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
        times[name] = np.where(missing, np.nan, whole / ticks)
        return
    if pa.types.is_nested(kind):
        values = np.empty(len(column), dtype=object)
        values[:] = [_cell(value) for value in column.to_pylist()]
        cells[name] = values
        return
    if pa.types.is_floating(kind):
        column = column.cast(pa.float64()) if pa.types.is_float16(kind) else column
        numbers = column.to_numpy(zero_copy_only=False)
        column = compute.if_else(compute.is_finite(column), column, None)
        known = numbers[np.isfinite(numbers)]
        # Ids with gaps among them become floats in pandas.
        if (known == np.floor(known)).all() and (np.abs(known) < 2**53).all():
            column = column.cast(pa.int64())
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        column = column.cast(pa.string())
    cells[name] = _nothing_as_none(column.to_numpy(zero_copy_only=False))
