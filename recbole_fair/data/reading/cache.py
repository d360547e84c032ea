"""Columns of large files as arrays beside the data, so that the text is cut up once.

A cached column is found by a digest of the file's whole content and of how it is read: it cannot be older than the
file. It holds plain arrays, never pickled, is checked when it is read, and may be deleted at any time. A damaged one is
as good as none.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recbole_fair.data.reading.table import Form, NumberColumn, Table, TextColumn, read_header, read_table

logger = logging.getLogger(__name__)

FOLDER = ".recbole_fair"
LEAST_BYTES = 4 << 20  # smaller files are cut up as quickly as a cache is looked up
_VERSION = 1  # of the reading: another one finds other columns
_CHUNK = 1 << 24
_DAMAGE = (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)

Arrays = dict[str, npt.NDArray[np.generic]]


def cached_table(path: Path, form: Form, fields: Sequence[str]) -> Table:
    """:func:`~recbole_fair.data.reading.table.read_table`, from cached columns where they are there.

    Columns that are not are read and cached.

    Args:
        path: the file.
        form: how it is written.
        fields: the columns.

    Raises:
        FairError: as ``read_table``.
    """
    header = read_header(path, form)
    if path.stat().st_size < LEAST_BYTES:
        return read_table(path, form, fields)
    store = _Store(path, _digest(path), form)
    wanted = [name for name in header if name in fields]
    found = {name: column for name in wanted if (column := store.load(name, header[name])) is not None}
    sizes = {_rows(column) for column in found.values()}
    if len(sizes) > 1:
        found = {}
    missing = [name for name in wanted if name not in found]
    if missing:
        read = read_table(path, form, missing)
        for name in missing:
            store.save(name, read.texts.get(name) or read.numbers[name])
        if sizes and sizes != {read.n_rows}:  # cannot be, unless somebody wrote these files himself
            return read_table(path, form, fields)
        found.update({**read.texts, **read.numbers})
        n_rows = read.n_rows
    else:
        logger.info("%s: %s taken from %s.", path, ", ".join(wanted), store.folder)
        n_rows = sizes.pop()
    return Table(
        path,
        header,
        n_rows,
        {name: column for name in wanted if isinstance(column := found[name], TextColumn)},
        {name: column for name in wanted if isinstance(column := found[name], NumberColumn)},
        lambda row: read_table(path, form, wanted[:1]).line_of(row),
    )


def _rows(column: TextColumn | NumberColumn) -> int:
    return len(column.codes if isinstance(column, TextColumn) else column.values)


def _digest(path: Path) -> str:
    """Digest of a file's content."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class _Store:
    """Cached columns of one file.

    Attributes:
        path: the file.
        content: digest of what it holds.
        form: how it is read.
    """

    path: Path
    content: str
    form: Form

    @property
    def folder(self) -> Path:
        """Beside the data, or in the user's cache folder where the data may not be written."""
        beside = self.path.parent
        # An administrator may write anywhere; a folder that nobody may write is left alone all the same.
        if beside.stat().st_mode & 0o222 and os.access(beside, os.W_OK):
            return beside / FOLDER
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return home / "recbole_fair" / hashlib.blake2b(str(beside.resolve()).encode(), digest_size=8).hexdigest()

    def _file(self, name: str) -> Path:
        how = "\0".join((str(_VERSION), self.form.separator, self.form.encoding, name))
        column = hashlib.blake2b(how.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        return self.folder / f"{self.path.name}.{self.content}.{column}.npz"

    def load(self, name: str, kind: str) -> TextColumn | NumberColumn | None:
        """A column; None if it is not there or damaged."""
        file = self._file(name)
        try:
            with np.load(file, allow_pickle=False) as stored:
                arrays: Arrays = {part: stored[part] for part in stored.files}
            return _number_column(arrays) if kind == "float" else _text_column(arrays, kind)
        except FileNotFoundError:
            return None
        except _DAMAGE as error:
            logger.info("%s is damaged (%s) and made anew.", file, error)
            return None

    def save(self, name: str, column: TextColumn | NumberColumn) -> None:
        """Keep a column, and drop those of what the file held before; what fails is only said."""
        if isinstance(column, NumberColumn):
            arrays: Arrays = {"values": column.values}
        else:
            cells = [text.encode() for text in column.texts]
            ends = np.cumsum([len(cell) for cell in cells], dtype=np.int64)
            smallest = np.min_scalar_type(max(len(cells) - 1, 0))
            text = np.frombuffer(b"".join(cells), dtype=np.uint8)
            arrays = {"codes": column.codes.astype(smallest), "ends": ends, "text": text}
        file = self._file(name)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            for old in file.parent.glob(f"{_escaped(self.path.name)}.*.npz"):
                if old.name.rsplit(".", 3)[1] != self.content:
                    old.unlink(missing_ok=True)
            # Not flushed to the disk: what a power cut leaves is noticed by its check sum.
            with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
                try:
                    np.savez(part, allow_pickle=False, **arrays)
                    part.close()
                    os.replace(part.name, file)
                finally:
                    Path(part.name).unlink(missing_ok=True)
        except OSError as error:
            logger.info("%s is not cached: %s.", self.path, error.strerror or error)


def _escaped(name: str) -> str:
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def _number_column(arrays: Arrays) -> NumberColumn:
    values = arrays["values"]
    if values.dtype != np.float64 or values.ndim != 1:
        raise ValueError("the values are no numbers")
    return NumberColumn(values.astype(np.float64, copy=False))


def _text_column(arrays: Arrays, kind: str) -> TextColumn:
    codes, ends, text = arrays["codes"], arrays["ends"], arrays["text"]
    right = codes.dtype.kind == "u" and codes.ndim == 1 and ends.dtype == np.int64 and text.dtype == np.uint8
    if not right or (len(codes) and int(codes.max()) >= len(ends)):
        raise ValueError("the numbers do not fit the texts")
    bounds = [0, *ends.tolist()]
    if any(low > high for low, high in itertools.pairwise(bounds)) or bounds[-1] != len(text):
        raise ValueError("the texts have no bounds")
    whole = text.tobytes()
    texts = np.empty(len(ends), dtype=object)
    texts[:] = [whole[low:high].decode() for low, high in itertools.pairwise(bounds)]
    return TextColumn(kind, codes.astype(np.int32), texts)
