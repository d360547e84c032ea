"""Histories from files, and lists into files: csv, parquet and jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pandas as pd

from recbole_fair.errors import FairError
from recbole_fair.io.atomic import atomic_file

if TYPE_CHECKING:
    from recbole_fair.runs.recommender import Recommendations

KINDS = (".csv", ".parquet", ".jsonl")
_NAMES = {
    "user": ("user", "user_id", "userid", "uid"),
    "item": ("item", "item_id", "itemid", "iid", "items"),
    "time": ("time", "timestamp", "ts", "date"),
}


def read_histories(path: str | Path) -> dict[str, list[str]]:
    """Histories by user, in the order of the times, or of the rows where there are none.

    Args:
        path: a csv, parquet or jsonl file with the columns user and item, and time if wanted; the names that RecBole
            uses (``user_id``, ``item_id``, ``timestamp``) will do. In jsonl ``items`` may hold a whole list.

    Returns:
        Items of each user, users in the order in which they first appear.

    Raises:
        FairError: if the file cannot be read or lacks a column.
    """
    source = Path(path)
    frame = _read(source)
    user, item, time = (_column(frame, names) for names in _NAMES.values())
    if user is None or item is None:
        what, found = ("user" if user is None else "item"), ", ".join(map(str, frame.columns))
        raise FairError(f"{source} has no column of {what}s, only {found}: name one '{what}'.")
    frame = frame[[name for name in (user, item, time) if name is not None]].dropna(subset=[user])
    if frame[item].map(lambda value: isinstance(value, list | tuple)).any():
        frame = frame.explode(item)
    if time is not None:
        frame = frame.sort_values(time, kind="stable", key=_as_times)
    histories: dict[str, list[str]] = {str(name): [] for name in _in_file_order(frame, user)}
    for name, value in zip(frame[user], frame[item], strict=True):
        if not pd.isna(value):
            histories[str(name)].append(str(value))
    return histories


def _in_file_order(frame: pd.DataFrame, user: str) -> Iterator[object]:
    return iter(frame.sort_index(kind="stable")[user].unique())


def _as_times(column: pd.Series) -> pd.Series:
    """Numbers where all are numbers, else dates."""
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if not bool(numbers.isna().any()) else pd.to_datetime(column, errors="coerce")


def _column(frame: pd.DataFrame, names: Sequence[str]) -> str | None:
    """The first of some names among the columns, capitals and RecBole's types (``user_id:token``) aside."""
    known = {str(column).partition(":")[0].strip().lower(): str(column) for column in frame.columns}
    return next((known[name] for name in names if name in known), None)


def _read(source: Path) -> pd.DataFrame:
    kind = source.suffix.lower()
    if not source.is_file():
        raise FairError(f"There is no file {source}.")
    try:
        if kind == ".csv":
            return pd.read_csv(source, dtype=str, keep_default_na=False, na_values=[""])
        if kind == ".parquet":
            return pd.read_parquet(source)
        if kind == ".jsonl":
            with source.open(encoding="utf-8") as file:
                return pd.DataFrame([json.loads(line) for line in file if line.strip()])
    except ImportError as error:
        raise FairError(f"{source}: parquet needs the package pyarrow; pip install pyarrow, or use csv.") from error
    except (ValueError, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise FairError(f"{source} cannot be read as {kind.removeprefix('.')}: {reason}.") from error
    raise FairError(f"{source}: the ending {kind or '(none)'} is not known; use {', '.join(KINDS)}.")


def write_lists(path: str | Path, found: Recommendations) -> None:
    """Write lists as rows of user, item, rank (from 1), score and, where there are titles, title.

    Args:
        path: ends in .csv, .parquet or .jsonl.
        found: the lists.

    Raises:
        FairError: for another ending, or if the file cannot be written.
    """
    target = Path(path)
    kind = target.suffix.lower()
    if kind not in KINDS:
        raise FairError(f"{target}: the ending {kind or '(none)'} is not known; use {', '.join(KINDS)}.")
    frame = found.to_frame()
    if kind == ".parquet":
        try:
            with atomic_file(target) as file:
                frame.to_parquet(file, index=False)
        except ImportError as error:
            raise FairError(f"{target}: parquet needs the package pyarrow; pip install pyarrow, or use csv.") from error
        return

    def write(file: IO[str]) -> None:
        if kind == ".csv":
            frame.to_csv(file, index=False)
        else:
            frame.to_json(file, orient="records", lines=True, force_ascii=False)

    with atomic_file(target, mode="w", encoding="utf-8", newline="") as file:
        write(file)
