"""Tables (parquet, csv, jsonl) in the place of a data set: where their atomic files are kept.

``data_path`` may name a table, or a folder of parquet files, instead of the folder above a data set. Its atomic files
are made when the data are read, and found again by names, sizes and times of the tables.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

#: Endings of what may stand in the place of a data set; only parquet files are looked for in folders.
TABLES = (".parquet", ".pq", ".csv", ".tsv", ".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")
CACHE = ".recbole_fair"


@dataclass(frozen=True)
class DataTables:
    """Tables that stand for a data set.

    Attributes:
        interactions: a file, or a folder of parquet files.
        items: table of items beside them (``items.parquet``), or None.
        users: table of users (``users.parquet``), or None.
        folder: where the atomic files are kept; its last part is the data set's name.
    """

    interactions: Path
    items: Path | None
    users: Path | None
    folder: Path


def data_tables(data_path: str | Path, dataset: str) -> DataTables | None:
    """The tables that ``data_path`` names, if there are no atomic files.

    Args:
        data_path: a table; a folder of parquet files; or a folder in which ``dataset`` is such a folder or table.
        dataset: the data set's name.

    Returns:
        The tables; None where ``data_path`` is what RecBole expects, or nothing at all.
    """
    root = Path(data_path)
    if root.is_file():
        return _tables(root, dataset) if root.suffix.lower() in TABLES else None
    if (root / dataset / f"{dataset}.inter").exists():
        return None
    named = next((file for ending in PARQUET if (file := root / f"{dataset}{ending}").is_file()), None)
    # A folder of data sets is no table, whatever else lies there.
    alone = root.is_dir() and not any(entry.is_dir() and entry.name[0] != "." for entry in root.iterdir())
    places = [*([named] if named else []), root / dataset, *([root] if alone else [])]
    return next((found for place in places if (found := _tables(place, dataset)) is not None), None)


def _tables(place: Path, dataset: str) -> DataTables | None:
    if place.is_file():
        return DataTables(place, None, None, _kept(place.parent, [place], dataset))
    if not place.is_dir():
        return None
    files = [file for file in sorted(place.iterdir()) if file.suffix.lower() in PARQUET and file.name[0] not in "._"]
    sides = {side: next((file for file in files if file.stem == side), None) for side in ("items", "users")}
    parts = [file for file in files if file not in sides.values()]
    if not parts or (len(parts) > 1 and any(sides.values())):
        return None
    interactions = parts[0] if len(parts) == 1 else place
    return DataTables(interactions, sides["items"], sides["users"], _kept(place, files, dataset))


def _kept(beside: Path, files: list[Path], dataset: str) -> Path:
    """Folder of the atomic files: beside the tables, or in the user's cache where those may not be written."""
    stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    digest = hashlib.blake2b(repr(stamps).encode(), digest_size=8).hexdigest()
    if beside.stat().st_mode & 0o222 and os.access(beside, os.W_OK):
        return beside / CACHE / digest / dataset
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = hashlib.blake2b(str(beside.resolve()).encode(), digest_size=8).hexdigest()
    return home / "recbole_fair" / place / digest / dataset
