"""Which columns are loaded: ``load_col`` and its kind, held against the headers of the files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from recbole.utils import ModelType

from recbole_fair.config.contract import MutableSettings, Settings, given_by_user
from recbole_fair.config.keys import did_you_mean
from recbole_fair.data.reading.table import Form, read_header
from recbole_fair.errors import FairError

logger = logging.getLogger(__name__)

_ALIASES = ("alias_of_user_id", "alias_of_item_id", "alias_of_entity_id", "alias_of_relation_id")


def load_column(config: MutableSettings, file: Path, field: str, why: str) -> None:
    """Add a column to ``load_col`` where RecBole's bare default, which knows no names but its own, leaves it out.

    Args:
        config: the settings; ``load_col`` may be completed in place.
        file: the interaction file, for the log.
        field: the column.
        why: what needs it, as a clause.

    Raises:
        FairError: if it is the user's own ``load_col`` that leaves it out, or ``unload_col``.
    """
    columns = config["load_col"]
    if columns is None:
        if field in _named(config, "unload_col", "inter"):
            raise FairError(f"unload_col must not name '{field}' under inter: {why}.")
        return
    loaded = columns.get("inter")
    if loaded == "*" or (loaded is not None and field in loaded):
        return
    if given_by_user(config).get("load_col") is not None:
        raise FairError(f"load_col must name '{field}' under inter: {why}.")
    config["load_col"] = {**columns, "inter": [*(loaded or []), field]}
    logger.info("load_col: '%s' of %s is loaded as well.", field, file)


def check_loaded_columns(config: Settings, form: Form) -> None:
    """Hold the columns that the user names against the files: RecBole passes over those that do not exist.

    Args:
        config: the settings.
        form: how the files are written.

    Raises:
        FairError: for a file or a column that is not there, with what was meant.
    """
    _check_parts(config)
    for key in ("load_col", "unload_col", "unused_col"):
        columns = given_by_user(config).get(key)
        if columns is None:
            continue
        if not isinstance(columns, Mapping):
            raise FairError(f"{key}={columns!r} must name columns by file, such as {{inter: [user_id, item_id]}}.")
        if key == "load_col" and columns.get("inter") is None:
            raise FairError("load_col must have an entry inter: with the columns of users and items.")
        for source in columns:
            _check_source(config, form, key, str(source), columns[source])
    _check_vectors(config, form)


def _check_parts(config: Settings) -> None:
    suffixes = config["additional_feat_suffix"]
    if suffixes is not None and not isinstance(suffixes, (list, tuple)):
        raise FairError(f"additional_feat_suffix={suffixes!r} must be a list of the files' endings, such as [itememb].")
    for key in _ALIASES:
        if config[key] is not None and not isinstance(config[key], (list, tuple)):
            raise FairError(f"{key}={config[key]!r} must be a list of columns, such as [item_id_list].")
    weights = config["preload_weight"]
    if weights is not None and not isinstance(weights, Mapping):
        raise FairError(f"preload_weight={weights!r} must map a column of ids to one of numbers: {{iid: emb}}.")


def _check_source(config: Settings, form: Form, key: str, source: str, named: object) -> None:
    """The columns that ``load_col``, ``unload_col`` or ``unused_col`` names of one kind of file."""
    suffixes = tuple(config["additional_feat_suffix"] or ())
    kinds = ("inter", "user", "item", "kg", "link", *suffixes)
    if source not in kinds:
        raise FairError(f"{key}: {source!r} is no kind of file ({', '.join(kinds)}){did_you_mean(source, kinds)}")
    if key == "unload_col" and source in (config["load_col"] or ()):
        raise FairError(f"unload_col and load_col both name columns of {source}; use one of them (load_col: null).")
    if named == "*" or named is None or (source in ("kg", "link") and config["MODEL_TYPE"] != ModelType.KNOWLEDGE):
        return
    if not isinstance(named, (list, tuple)) or not all(isinstance(field, str) for field in named):
        raise FairError(f"{key}: {source}: {named!r} must be a list of columns, or '*' for all.")
    for file in _files(config, source):
        if not file.is_file():
            raise FairError(f"{key} names columns of {source}, but there is no file {file}.")
        header = read_header(file, form)
        for field in named:
            if field not in header and (key != "unused_col" or field != config["LABEL_FIELD"]):
                raise FairError(f"{key}: {field!r} is not a column of {file}{did_you_mean(field, header)}")
            if key == "unused_col" and field in (config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]):
                raise FairError(f"unused_col must not name {field!r}: users and items are needed to the end.")


def _files(config: Settings, source: str) -> list[Path]:
    folder, name = Path(config["data_path"]), config["dataset"]
    parts = config["benchmark_filename"] if source == "inter" else None
    return [folder / f"{name}.{part}.{source}" for part in parts] if parts else [folder / f"{name}.{source}"]


def _named(config: Settings, key: str, source: str) -> list[str]:
    columns = config[key]
    named = columns.get(source) if isinstance(columns, Mapping) else None
    return list(named) if isinstance(named, (list, tuple)) else []


def _check_vectors(config: Settings, form: Form) -> None:
    """Ids of additional files are numbered with those of users, items and the like, or not at all."""
    shared = {field for key in _ALIASES for field in config[key] or ()}
    shared |= {config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]}
    for suffix in config["additional_feat_suffix"] or ():
        (file,) = _files(config, suffix)
        if not file.is_file():
            raise FairError(f"additional_feat_suffix={suffix!r}: there is no file {file}.")
        loaded, left_out = config["load_col"], _named(config, "unload_col", suffix)
        for field, kind in read_header(file, form).items():
            asked = loaded is None or loaded.get(suffix) == "*" or field in _named(config, "load_col", suffix)
            if kind.startswith("token") and asked and field not in shared and field not in left_out:
                raise FairError(
                    f"The column '{field}' of {file} holds ids, but whose is not said: name it in alias_of_item_id "
                    f"(or alias_of_user_id), as [{field}], or leave it out of load_col."
                )
