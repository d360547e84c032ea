"""The atomic files on disk, looked at before they are read: there, with the columns that are needed.

RecBole meets a missing or broken file with a traceback from deep inside; here each case is one sentence.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml
from recbole.utils import ModelType

from recbole_fair.config.contract import MutableSettings, Settings
from recbole_fair.config.keys import did_you_mean
from recbole_fair.config.layers import FairLoader
from recbole_fair.data.reading.columns import check_loaded_columns, load_column
from recbole_fair.data.reading.table import form_of, read_header
from recbole_fair.data.reading.times import why_time
from recbole_fair.data.tables.direct import convert_tables
from recbole_fair.errors import FairError

logger = logging.getLogger(__name__)

_DOWNLOAD_SECONDS = 20.0


def ensure_atomic_files(config: MutableSettings) -> None:
    """Make sure that the data set which ``config`` names can be read; to be called before it is.

    A data set that RecBole knows is downloaded when its files are missing. Headers are held against the settings. When
    the user named no columns (``load_col``) for a data set of his own, the timestamps are added to what is loaded.

    Args:
        config: the settings; ``load_col`` may be completed in place.

    Raises:
        FairError: no files and no way to get them; an empty or malformed header; missing columns.
    """
    convert_tables(config)
    form = form_of(config)
    _settle_parts(config)
    files = interaction_files(config)
    missing = [file for file in files if not file.is_file()]
    if missing:
        _fetch(config, missing[0])
    check_loaded_columns(config, form)
    for file in files:
        header = read_header(file, form)
        for key in ("USER_ID_FIELD", "ITEM_ID_FIELD"):
            if config[key] not in header:
                raise FairError(f"{key}={config[key]!r} is not a column of {file}{did_you_mean(config[key], header)}")
            if header[config[key]] != "token":
                raise FairError(
                    f"{file}: the column '{config[key]}' ({key}) holds ids and must be {config[key]}:token, not "
                    f"{config[key]}:{header[config[key]]}."
                )
            load_column(config, file, config[key], key)
        _check_past_items(config, file, header)
        for field in config["threshold"] or {}:
            if field not in header:
                raise FairError(f"threshold: {field!r} is not a column of {file}{did_you_mean(field, header)}")
            load_column(config, file, field, "threshold makes labels of it")
        for field in config["val_interval"] or {}:
            if field in header:
                load_column(config, file, field, "val_interval chooses rows by it")
        if needs_time(config):
            _check_time_column(config, file, header)


def interaction_files(config: Settings) -> list[Path]:
    """The interaction files that will be read: one, or those of ``benchmark_filename``."""
    folder, name = Path(config["data_path"]), config["dataset"]
    parts = config["benchmark_filename"]
    return [folder / f"{name}.{part}.inter" for part in parts] if parts else [folder / f"{name}.inter"]


def _settle_parts(config: MutableSettings) -> None:
    """Finished splits by name, as a list in the order in which they are read: RecBole would take a mapping's keys."""
    parts, name = config["benchmark_filename"], config["dataset"]
    if isinstance(parts, Mapping):
        files = [str(parts[phase]) for phase in ("train", "valid", "test")]
        config["benchmark_filename"] = [file.removeprefix(f"{name}.").removesuffix(".inter") for file in files]


def needs_time(config: Settings) -> bool:
    """Whether training, splitting, the model itself or a table by user group goes by time."""
    return bool(why_time(config))


def _check_past_items(config: MutableSettings, file: Path, header: dict[str, str]) -> None:
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
    load_column(config, file, field, "the model reads each row's past items there")


def _check_time_column(config: MutableSettings, file: Path, header: dict[str, str]) -> None:
    field = config["TIME_FIELD"]
    why = why_time(config)
    if field not in header:
        raise FairError(
            f"{file} has no column '{field}' and {why}: name the column of timestamps by TIME_FIELD "
            f"(columns: {', '.join(header)})."
        )
    if header[field] != "float":
        raise FairError(
            f"{file}: the column '{field}' must be {field}:float to be ordered, not {field}:{header[field]}."
        )
    load_column(config, file, field, why)


def _fetch(config: Settings, missing: Path) -> None:
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
