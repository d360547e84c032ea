"""The atomic files on disk, looked at before RecBole reads them: there, readable, with the columns that are needed.

RecBole meets a missing or broken file with a traceback from deep inside; here each case is one sentence.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from recbole.utils import FeatureType, ModelType

from recbole_fair.config.contract import given_by_user
from recbole_fair.config.keys import did_you_mean
from recbole_fair.config.layers import FairLoader
from recbole_fair.config.traits import Traits
from recbole_fair.errors import FairError

logger = logging.getLogger(__name__)

_DOWNLOAD_SECONDS = 20.0
_TYPES = tuple(kind.value for kind in FeatureType)


def ensure_atomic_files(config: Any) -> None:
    """Make sure that RecBole can read the data set that ``config`` names; to be called before it does.

    A data set that RecBole knows is downloaded when its files are missing. The interaction file's header and, where
    the order of time matters, its timestamps are checked. When the user named no columns (``load_col``) for a data
    set of his own, the timestamps are added to what is loaded.

    Args:
        config: the settings; ``load_col`` may be completed in place.

    Raises:
        FairError: no files and no way to get them; an empty or malformed file; missing columns or timestamps.
    """
    files = interaction_files(config)
    missing = [file for file in files if not file.is_file()]
    if missing:
        _fetch(config, missing[0])
    for file in files:
        header = read_header(file, config)
        for key in ("USER_ID_FIELD", "ITEM_ID_FIELD"):
            if config[key] not in header:
                raise FairError(f"{key}={config[key]!r} is not a column of {file}{did_you_mean(config[key], header)}")
            if header[config[key]] != "token":
                raise FairError(
                    f"{file}: the column '{config[key]}' ({key}) holds ids and must be {config[key]}:token, not "
                    f"{config[key]}:{header[config[key]]}."
                )
        _check_loaded_columns(config, file, header)
        for key in ("USER_ID_FIELD", "ITEM_ID_FIELD"):
            _load_column(config, file, config[key], key)
        _check_past_items(config, file, header)
        for field in config["threshold"] or {}:
            if field not in header:
                raise FairError(f"threshold: {field!r} is not a column of {file}{did_you_mean(field, header)}")
            _load_column(config, file, field, "threshold makes labels of it")
        if needs_time(config):
            _check_time_column(config, file, header)
        elif not _has_rows(file, config):
            raise FairError(f"{file} has a header but no interactions.")


def interaction_files(config: Any) -> list[Path]:
    """The interaction files that RecBole will read: one, or those of ``benchmark_filename``."""
    folder, name = Path(config["data_path"]), config["dataset"]
    parts = config["benchmark_filename"]
    return [folder / f"{name}.{part}.inter" for part in parts] if parts else [folder / f"{name}.inter"]


def needs_time(config: Any) -> bool:
    """Whether training, splitting, the model itself or a table by user group goes by time."""
    return bool(_why_time(config))


def read_header(file: Path, config: Any) -> dict[str, str]:
    """Columns of an atomic file.

    Args:
        file: a ``.inter``, ``.user`` or ``.item`` file.
        config: gives ``field_separator`` and ``encoding``.

    Returns:
        Field name to type (``token``, ``token_seq``, ``float``, ``float_seq``), in file order.

    Raises:
        FairError: for an empty file or a header that is not ``name:type`` joined by the separator.
    """
    try:
        with file.open(encoding=config["encoding"]) as lines:
            head = lines.readline().rstrip("\n")
    except UnicodeDecodeError as error:
        raise _wrong_encoding(file, config) from error
    except OSError as error:
        raise FairError(f"{file} cannot be read: {error}.") from error
    if head.startswith("\ufeff"):
        raise FairError(f"{file} begins with a byte order mark, which becomes part of the first name; save it without.")
    if not head.strip():
        raise FairError(f"{file} is empty; its first line must name the columns, such as user_id:token.")
    header: dict[str, str] = {}
    for column in head.split(config["field_separator"]):
        field, _, kind = column.partition(":")
        if kind not in _TYPES:
            raise FairError(
                f"{file}: the column {column!r} is not name:type with a type of {', '.join(_TYPES)} "
                f"(columns are separated by field_separator={config['field_separator']!r})."
            )
        header[field] = kind
    return header


def _load_column(config: Any, file: Path, field: str, why: str) -> None:
    """Add a column to ``load_col`` where RecBole's bare default, which knows no names but its own, leaves it out.

    Raises:
        FairError: if it is the user's own ``load_col`` that does.
    """
    columns = config["load_col"]
    loaded = columns.get("inter") if isinstance(columns, dict) else None
    if columns is None or loaded == "*" or (loaded is not None and field in loaded):
        return
    if "load_col" in given_by_user(config):
        raise FairError(f"load_col must name '{field}' under inter: {why}.")
    config["load_col"] = {**columns, "inter": [*(loaded or []), field]}
    logger.info("load_col: '%s' of %s is loaded as well.", field, file)


def _check_past_items(config: Any, file: Path, header: dict[str, str]) -> None:
    """From finished splits RecBole's sequential models read each row's past items in a column of their own."""
    if not config["benchmark_filename"] or config["MODEL_TYPE"] != ModelType.SEQUENTIAL:
        return
    field = config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]
    if field not in header:
        raise FairError(
            f"{file} has no column '{field}': with benchmark_filename a sequential model reads each row's past items "
            f"there; add it as {field}:token_seq, or split by eval_args."
        )
    if field not in (config["alias_of_item_id"] or ()):  # its ids are those of the items
        config["alias_of_item_id"] = [*(config["alias_of_item_id"] or ()), field]
    _load_column(config, file, field, "the model reads each row's past items there")


def _check_loaded_columns(config: Any, file: Path, header: dict[str, str]) -> None:
    """RecBole passes over columns of ``load_col`` that do not exist and breaks when users or items are not loaded."""
    columns = config["load_col"]
    if not isinstance(columns, dict) or "load_col" not in given_by_user(config):
        return
    named = columns.get("inter")
    if named is None:
        raise FairError("load_col must have an entry inter: with the columns of users and items.")
    if named == "*":
        return
    for field in named:
        if field not in header:
            raise FairError(f"load_col: {field!r} is not a column of {file}{did_you_mean(field, header)}")
    for key in ("USER_ID_FIELD", "ITEM_ID_FIELD"):
        if config[key] not in named:
            raise FairError(f"load_col must name {config[key]!r} ({key}) under inter.")


def _has_rows(file: Path, config: Any) -> bool:
    try:
        with file.open(encoding=config["encoding"]) as lines:
            next(lines, None)
            return any(line.strip() for line in lines)
    except UnicodeDecodeError as error:
        raise _wrong_encoding(file, config) from error


def _wrong_encoding(file: Path, config: Any) -> FairError:
    return FairError(f"{file} is not in {config['encoding'] or 'utf-8'}: set encoding, such as latin-1.")


def _check_time_column(config: Any, file: Path, header: dict[str, str]) -> None:
    field = config["TIME_FIELD"]
    why = _why_time(config)
    if field not in header:
        raise FairError(
            f"{file} has no column '{field}' and {why}: name the column of timestamps by TIME_FIELD "
            f"(columns: {', '.join(header)})."
        )
    if header[field] != "float":
        raise FairError(
            f"{file}: the column '{field}' must be {field}:float to be ordered, not {field}:{header[field]}."
        )
    _load_column(config, file, field, why)
    column = f"{field}:float"
    try:
        times = pd.read_csv(
            file,
            sep=config["field_separator"],
            usecols=[column],
            encoding=config["encoding"],
            dtype={column: "float64"},
        )[column].to_numpy()
    except UnicodeDecodeError as error:
        raise _wrong_encoding(file, config) from error
    except ValueError as error:  # pandas' ParserError among them
        raise FairError(f"{file}: the column '{field}' holds something that is not a number: {error}.") from error
    if len(times) == 0:
        raise FairError(f"{file} has a header but no interactions.")
    bad = np.flatnonzero(~np.isfinite(times))
    if len(bad):
        raise FairError(
            f"{file}: {len(bad)} of {len(times)} interactions have no timestamp in '{field}' "
            f"(the first in line {bad[0] + 2}), and {why}: remove these rows or fill them in."
        )


def _why_time(config: Any) -> str:
    """What the timestamps are needed for, as a clause; empty if for nothing."""
    if config["MODEL_TYPE"] == ModelType.SEQUENTIAL or Traits.of(config["model_class"]).reads_time(config):
        return f"{config['model']} reads histories in time"
    if config["eval_args"]["order"] == "TO":
        return "eval_args order=TO splits by time"
    if "drift" in (config["group_metrics"] or ()):
        return "the table by interest drift needs it (group_metrics=null turns it off)"
    return ""


def _fetch(config: Any, missing: Path) -> None:
    """Download a data set that RecBole knows; otherwise say what was looked for."""
    name = config["dataset"]
    urls = _known_urls()
    root = Path(config["data_path"]).parent
    hint = f"set --data_path to the folder that holds '{name}/{name}.inter'"
    if name not in urls or config["benchmark_filename"]:
        beside = [entry.name for entry in root.iterdir() if entry.is_dir()] if root.is_dir() else []
        guess = did_you_mean(name, {*beside, *urls, "ml-100k"})
        raise FairError(f"dataset={name!r}: there is no file {missing.resolve()}; {hint}{guess}")
    try:
        with _timeout(_DOWNLOAD_SECONDS):
            _download(urls[name], Path(config["data_path"]), name)
    except (OSError, EOFError, RuntimeError, KeyError) as error:
        reason = str(error) or type(error).__name__
        raise FairError(
            f"dataset={name!r}: there is no file {missing.resolve()} and the download from {urls[name]} failed "
            f"({reason}); {hint}."
        ) from error
    if not missing.is_file():
        raise FairError(f"dataset={name!r}: the download from {urls[name]} did not bring {missing.name}; {hint}.")


def _known_urls() -> dict[str, str]:
    import recbole

    file = Path(recbole.__file__).parent / "properties" / "dataset" / "url.yaml"
    urls: dict[str, str] = yaml.load(file.read_text(encoding="utf-8"), Loader=FairLoader)
    return urls


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    # RecBole's download waits for ever on a network that drops packets.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _download(url: str, folder: Path, name: str) -> None:
    """RecBole's own download, unpacked beside the folder first so that an interruption leaves nothing half done."""
    from recbole.utils.url import decide_download, download_url, extract_zip, rename_atomic_files

    if not decide_download(url):
        raise RuntimeError("it was declined")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as unpacked:
        archive = download_url(url, unpacked)
        extract_zip(archive, unpacked)
        os.unlink(archive)
        rename_atomic_files(unpacked, Path(archive).stem, name)
        folder.mkdir(exist_ok=True)
        for file in Path(unpacked).iterdir():
            os.replace(file, folder / file.name)
