"""From a table of interactions, and tables of items and users, to the atomic files of a data set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import pandas as pd

from recbole_fair.data.reading.blocks import MISSING_NUMBERS, is_number
from recbole_fair.data.tables.features import Feature, RetypeError, features_of
from recbole_fair.data.tables.names import find_columns, plain_name
from recbole_fair.data.tables.sources import Batch, Cells, Floats, Table, open_table
from recbole_fair.data.tables.times import TimeForm, as_texts, form_of_times, span
from recbole_fair.data.tables.writing import text_of
from recbole_fair.errors import FairError
from recbole_fair.io.atomic import atomic_file

logger = logging.getLogger(__name__)

Bools = npt.NDArray[np.bool_]
USER, ITEM, RATING, TIME = "user_id", "item_id", "rating", "timestamp"
_NONE = "none"
_WORTH_SAYING = 0.5  # share of rows beyond which a reason to drop them is a mistake about the whole column


@dataclass(frozen=True)
class Request:
    """What is to be converted; columns and forms that are None are found.

    Attributes:
        source: csv, tsv, parquet or jsonl file of interactions, or a folder of such files.
        output: folder of the data set; its last part is the name.
        items: table of items, or None.
        users: table of users, or None.
        user: column of users.
        item: column of items.
        rating: column of ratings; ``none`` to leave them out.
        time: column of times, likewise.
        time_unit: of numbers: s, ms, us or ns.
        time_format: of dates, as for ``strptime``.
        keep: further columns of the interactions, ``all`` or names, each with ``:type`` if wanted.
        types: types of columns of items and users, ``name:type``.
        columns: names of the columns of a file of interactions without a header.
        separator: between the cells of a csv file of interactions.
        encoding: of csv and jsonl files.
        overwrite: whether files that are there are replaced.
    """

    source: str | Path
    output: str | Path
    items: str | Path | None = None
    users: str | Path | None = None
    user: str | None = None
    item: str | None = None
    rating: str | None = None
    time: str | None = None
    time_unit: str | None = None
    time_format: str | None = None
    keep: Sequence[str] = ()
    types: Sequence[str] = ()
    columns: Sequence[str] | None = None
    separator: str | None = None
    encoding: str = "utf-8"
    overwrite: bool = False

    @property
    def folder(self) -> Path:
        """Folder of the data set."""
        return Path(self.output)

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.folder.name


@dataclass
class Report:
    """What became of a table.

    Attributes:
        file: the atomic file.
        source: the table.
        read: its rows.
        written: rows of the file.
        dropped: how many rows were left out and the first of them, by reason.
        header: ``name:type`` of each column.
        notes: sentences about it.
        users: different users, in interactions.
        items: different items, in interactions.
    """

    file: Path
    source: Path
    read: int = 0
    written: int = 0
    dropped: dict[str, tuple[int, int]] = field(default_factory=dict)
    header: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    users: int = 0
    items: int = 0

    def drop(self, reason: str, rows: Bools, first: int) -> None:
        """Count rows of a batch that are left out for one reason."""
        number = int(rows.sum())
        if number:
            before, where = self.dropped.get(reason, (0, first + int(rows.argmax())))
            self.dropped[reason] = before + number, where

    def lines(self) -> list[str]:
        """The report for people."""
        ids = f", {self.users:,} users, {self.items:,} items" if self.users else ""
        found = [f"{self.file}: {self.written:,} of {self.read:,} rows of {self.source}{ids}"]
        found.append(f"  columns: {', '.join(self.header)}")
        for reason, (number, where) in self.dropped.items():
            found.append(f"  left out: {number:,} rows {reason} (the first is row {where:,})")
        return [*found, *(f"  {note}" for note in self.notes)]


def convert(request: Request) -> list[Report]:
    """Write the atomic files of a data set, each whole or not at all.

    Rows without a user, an item or a readable time are left out and counted, and so are ratings that are no numbers.
    Memory is bounded by a batch of rows and the ids: files may be larger than memory.

    Args:
        request: what is to be converted.

    Returns:
        A report a file: interactions, items, users.

    Raises:
        FairError: for anything that the user can mend.
    """
    folder, name = request.folder, request.name
    if name in ("", ".."):
        raise FairError(f"output={str(request.output)!r} names no data set: give data/NAME.")
    wanted = [".inter", *([".item"] if request.items else []), *([".user"] if request.users else [])]
    for suffix in wanted:
        file = folder / f"{name}{suffix}"
        if file.exists() and not request.overwrite:
            raise FairError(f"{file} is there already: give another --output, or --overwrite to replace it.")
    _types(request.types)  # before anything is written
    table = open_table(request.source, request.separator, request.columns, request.encoding)
    reports = [_retyping(lambda as_text: _Interactions(request, table, folder / f"{name}.inter", as_text).write())]
    for side, path in (("item", request.items), ("user", request.users)):
        if path is not None:
            column, target = getattr(request, side), folder / f"{name}.{side}"
            reports.append(write_features(path, side, target, request.types, column, request.encoding))
    return reports


def write_features(
    source: str | Path,
    side: str,
    target: Path,
    types: Iterable[str] = (),
    column: str | None = None,
    encoding: str = "utf-8",
) -> Report:
    """Write the atomic file of a table of items or users; of several rows with one id the first counts.

    Args:
        source: the table.
        side: ``item`` or ``user``.
        target: the atomic file.
        types: types of columns, ``name:type``.
        column: column of ids, if it has that name here; found otherwise.
        encoding: of csv and jsonl files.

    Raises:
        FairError: for a table that cannot be read, or has nothing but ids.
    """
    features = _Side(open_table(source, None, None, encoding), side, _types(types), column)
    return _retyping(lambda as_text: features.write(target, as_text))


def _types(words: Iterable[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, colon, kind = word.rpartition(":")
        if not colon:
            raise FairError(f"types={word!r} is not name:type, such as genres:token_seq.")
        found[name] = kind
    return found


def _retyping(write: Callable[[frozenset[str]], Report]) -> Report:
    """Write a file; begin anew with a column as text if a later row does not fit what the first ones were."""
    as_text: frozenset[str] = frozenset()
    while True:
        try:
            return write(as_text)
        except RetypeError as error:
            logger.info("'%s' is text after all; starting again.", error.column)
            as_text |= {error.column}


class _Interactions:
    """The interactions on their way from a table to an atomic file."""

    def __init__(self, request: Request, table: Table, target: Path, as_text: frozenset[str]) -> None:
        given = {role: getattr(request, role) for role in ("user", "item", "rating", "time")}
        unwanted = [role for role in ("rating", "time") if given[role] == _NONE and _NONE not in table.columns]
        given = {role: name for role, name in given.items() if role not in unwanted}
        self.roles = find_columns(table, tuple(given), ("user", "item"), given)
        self.request, self.table, self.target, self.as_text = request, table, target, as_text
        self.report = Report(target, table.path)
        self.form: TimeForm | None = None
        self.features: list[Feature] = []
        self.types: dict[str, str] = {}
        self._users: set[str] = set()
        self._items: set[str] = set()
        self._span = (np.inf, -np.inf)
        self._unrated = 0

    def write(self) -> Report:
        """Write the file."""
        kept = self._kept()
        with atomic_file(self.target, "the interactions ") as file:
            for batch in self.table.batches([*self.roles.values(), *kept]):
                if not self.report.read:
                    self._begin(batch, kept, file)
                self.report.read += len(batch)
                file.write(self._lines(batch))
            if not self.report.read:
                raise FairError(f"{self.table.path} has columns but no rows.")
            if not self.report.written:
                raise FairError(f"{self.table.path}: no row is left; " + self._reasons())
        self._describe(kept)
        return self.report

    def _kept(self) -> list[str]:
        """Further columns that the user wants."""
        others = [column for column in self.table.columns if column not in self.roles.values()]
        if list(self.request.keep) == ["all"]:
            return others
        by_name = {name: column for column in others for name in (plain_name(column), column)}
        kept = []
        for word in self.request.keep:
            name, colon, kind = word.rpartition(":")
            name = word if word in by_name or not colon else name
            if name not in by_name:
                raise FairError(f"keep={name!r} is not a further column of {self.table.path} ({', '.join(others)}).")
            kept.append(by_name[name])
            if name != word:
                self.types[by_name[name]] = kind
        return kept

    def _begin(self, batch: Batch, kept: Sequence[str], file: IO[bytes]) -> None:
        """Decide on forms by the first rows, and write the header."""
        names = [USER, ITEM]
        header = [f"{USER}:token", f"{ITEM}:token"]
        if "rating" in self.roles:
            self._check_ratings(batch)
        if "rating" in self.roles:
            names.append(RATING)
            header.append(f"{RATING}:float")
        if "time" in self.roles:
            column = self.roles["time"]
            if column not in batch.times:
                unit, pattern = self.request.time_unit, self.request.time_format
                self.form = form_of_times(batch.cells[column], column, unit, pattern, self.table.path)
            names.append(TIME)
            header.append(f"{TIME}:float")
        self.features = features_of(batch, kept, self.types, self.as_text, names)
        header += [f"{one.name}:{one.kind}" for one in self.features]
        self.report.header = header
        file.write(text_of([[name] for name in header], 1))

    def _check_ratings(self, batch: Batch) -> None:
        column = self.roles["rating"]
        cells = [cell for cell in self._ratings(batch).tolist() if cell is not None]
        bad = [cell for cell in cells if not (is_number(cell.strip()) or cell.strip() in MISSING_NUMBERS)]
        if len(bad) > _WORTH_SAYING * len(cells):
            if self.request.rating is None:  # it only has a usual name
                del self.roles["rating"]
                self.report.notes.append(f"'{column}' holds texts such as {bad[0]!r} and is not taken for ratings.")
                return
            raise FairError(f"{self.table.path}: '{column}' holds no ratings but texts such as {bad[0]!r}.")

    def _ratings(self, batch: Batch) -> Cells:
        column = self.roles["rating"]
        if column in batch.times:
            raise FairError(f"{self.table.path}: '{column}' holds times, not ratings.")
        return batch.cells[column]

    def _lines(self, batch: Batch) -> bytes:
        """The rows of a batch that are kept, as text."""
        report, first = self.report, batch.first
        users, items = (self._ids(batch, role) for role in ("user", "item"))
        missing = _is_none(users)
        report.drop("without a user", missing, first)
        kept = ~missing
        missing = kept & _is_none(items)
        report.drop("without an item", missing, first)
        kept &= ~missing
        seconds = self._times(batch)
        if seconds is not None:
            missing = kept & np.isnan(seconds)
            report.drop("without a time that can be read", missing, first)
            kept &= ~missing
        ratings = self._ratings(batch) if "rating" in self.roles else None
        if ratings is not None:
            ratings, bad = _numbers_or_nothing(ratings)
            report.drop("with a rating that is no number", kept & bad, first)
            kept &= ~bad
        everything = bool(kept.all())
        columns = [column if everything else column[kept] for column in (users, items)]
        self._users.update(columns[0].tolist())
        self._items.update(columns[1].tolist())
        texts = [column.tolist() for column in columns]
        if ratings is not None:
            texts.append((ratings if everything else ratings[kept]).tolist())
            self._unrated += texts[-1].count("")
        if seconds is not None:
            seconds = seconds if everything else seconds[kept]
            if len(seconds):
                self._span = min(self._span[0], float(seconds.min())), max(self._span[1], float(seconds.max()))
            texts.append(as_texts(seconds))
        for feature in self.features:
            cells = feature.texts(batch)
            texts.append(cells if everything else [cell for cell, keep in zip(cells, kept, strict=True) if keep])
        report.written += len(texts[0])
        return text_of(texts, first) if texts[0] else b""

    def _ids(self, batch: Batch, role: str) -> Cells:
        column = self.roles[role]
        if column in batch.times:
            raise FairError(f"{self.table.path}: '{column}' holds times, not {role}s; name the right one by --{role}.")
        return batch.cells[column]

    def _times(self, batch: Batch) -> Floats | None:
        if "time" not in self.roles:
            return None
        column = self.roles["time"]
        if self.form is None:
            return batch.times[column]
        return self.form.read(batch.cells[column])

    def _describe(self, kept: Sequence[str]) -> None:
        report, roles = self.report, self.roles
        report.users, report.items = len(self._users), len(self._items)
        report.notes.insert(0, "read as: " + ", ".join(f"{role} from '{column}'" for role, column in roles.items()))
        if "time" in roles:
            words = self.form.words if self.form is not None else "instants by their type"
            report.notes.append(f"times: {words}, {span(*self._span, words)}")
        else:
            report.notes.append("no column of times was found (--time=COLUMN names one): sequential models need one.")
        if self._unrated:
            report.notes.append(f"{self._unrated:,} ratings are missing and stay empty.")
        report.notes += _blanks(self.features)
        others = [column for column in self.table.columns if column not in (*roles.values(), *kept)]
        if others:
            report.notes.append(f"columns left out: {', '.join(others)} (--keep names those to keep, or all)")

    def _reasons(self) -> str:
        return "; ".join(f"{number:,} rows {reason}" for reason, (number, _) in self.report.dropped.items()) + "."


class _Side:
    """A table of items or users."""

    def __init__(self, table: Table, side: str, types: Mapping[str, str], given: str | None) -> None:
        known = any(given in (column, plain_name(column)) for column in table.columns)
        self.id_column = find_columns(table, (side,), (side,), {side: given if known else None})[side]
        self.table, self.side, self.types = table, side, types
        self.key = ITEM if side == "item" else USER

    def write(self, target: Path, as_text: frozenset[str]) -> Report:
        """Write the file; of several rows with one id the first counts."""
        report = Report(target, self.table.path)
        others = [column for column in self.table.columns if column != self.id_column]
        if not others:
            raise FairError(f"{self.table.path} holds nothing but the ids of {self.side}s; leave it out.")
        known: set[str] = set()
        features: list[Feature] = []
        with atomic_file(target, f"the {self.side}s ") as file:
            for batch in self.table.batches(self.table.columns):
                if not report.read:
                    features = features_of(batch, others, self.types, as_text, [self.key])
                    report.header = [f"{self.key}:token", *(f"{one.name}:{one.kind}" for one in features)]
                    file.write(text_of([[name] for name in report.header], 1))
                report.read += len(batch)
                if self.id_column in batch.times:
                    raise FairError(f"{self.table.path}: '{self.id_column}' holds times, not ids of {self.side}s.")
                ids = batch.cells[self.id_column]
                missing = _is_none(ids)
                report.drop("without an id", missing, batch.first)
                new = np.zeros(len(ids), dtype=bool)
                for place, one in enumerate(ids.tolist()):
                    if one is not None and one not in known:
                        known.add(one)
                        new[place] = True
                report.drop("with an id of an earlier row", ~new & ~missing, batch.first)
                texts = [ids.tolist(), *(feature.texts(batch) for feature in features)]
                texts = [[cell for cell, keep in zip(cells, new, strict=True) if keep] for cells in texts]
                report.written += len(texts[0])
                if texts[0]:
                    file.write(text_of(texts, batch.first))
            if not report.written:
                raise FairError(f"{self.table.path} has no row with an id in '{self.id_column}'.")
        report.notes += [f"read as: {self.side} from '{self.id_column}'", *_blanks(features)]
        return report


def _blanks(features: Sequence[Feature]) -> list[str]:
    several = [one.name for one in features if one.kind == "token_seq"]
    if not several:
        return []
    return [f"{', '.join(several)}: several values a cell, with blanks between them; a blank inside a value became _."]


def _is_none(cells: Cells) -> Bools:
    missing: Bools = pd.isna(cells)
    return missing


def _numbers_or_nothing(cells: Cells) -> tuple[Cells, Bools]:
    """Numbers as they stand, nothing where one is missing; and which cells hold something else."""
    known: dict[str | None, str | None] = {None: ""}
    for cell in set(cells.tolist()) - {None}:
        bare = cell.strip() if isinstance(cell, str) else "no number"
        known[cell] = bare if is_number(bare) else "" if bare in MISSING_NUMBERS else None
    texts = np.empty(len(cells), dtype=object)
    texts[:] = [known[cell] for cell in cells.tolist()]
    return texts, _is_none(texts)
