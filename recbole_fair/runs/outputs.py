"""The files of a run: the result document and the recommended lists."""

from __future__ import annotations

import csv
import itertools
import json
import logging
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from recbole_fair import __version__
from recbole_fair.config.contract import Settings
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.mask import Mask
from recbole_fair.data.contract import DataSet
from recbole_fair.data.facts.histories import Histories
from recbole_fair.errors import FairError
from recbole_fair.evaluator.result import EvaluationResult
from recbole_fair.io.atomic import atomic_file, fresh_file
from recbole_fair.report.documents import key_of

logger = logging.getLogger(__name__)


def write_atomically(path: str | Path, write: Callable[[IO[str]], object], keep: bool = False) -> None:
    """Write a text file as a whole or not at all.

    Args:
        path: the file.
        write: writes it.
        keep: whether a file of other content that stands there is kept under another name.

    Raises:
        FairError: if it cannot be written.
    """
    with atomic_file(path, keep=keep, mode="w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        write(file)


def data_files(config: Settings) -> list[Path]:
    """The files of the data set, by name."""
    try:
        files = sorted(Path(config["data_path"]).iterdir())
    except OSError:
        return []
    return [file for file in files if file.name.startswith(f"{config['dataset']}.")]


def data_stamps(config: Settings) -> list[tuple[str, int, int]]:
    """Name, size and time of each file of the data set: what changes when the data do."""
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in data_files(config)]


def files_read(config: Settings, *others: str | Path | None) -> list[Path]:
    """Files that a run reads: those of the data set, the checkpoints that settings name, and ``others``."""
    named = [config[key] for key in ("resume", "base_model_file", "pre_model_path")]
    compared = config["reranker_models"] or []
    named += [compared] if isinstance(compared, (str, Path)) else list(compared)
    return [*data_files(config), *(Path(file) for file in (*named, *others) if file)]


def claim(names: Callable[[int], Sequence[Path]], key: str) -> int:
    """Choose where a study's files go, so that no other study's are written over, and keep the place.

    Args:
        names: all files of a choice 1, 2, 3, ...; the first is the document, which holds the study's key.
        key: of the study.

    Returns:
        The first choice that is this study's already, or of whose files there is none yet.

    Raises:
        FairError: if nothing can be written there.
    """
    for number in itertools.count(1):
        document, *others = names(number)
        if key_of(document) == key:
            return number
        if any(os.path.lexists(name) for name in (document, *others)):
            continue
        with fresh_file(document, mode="w", encoding="utf-8") as fresh:
            json.dump({"kind": "claim", "key": key}, fresh.file)
        if fresh.path == document:
            return number
        fresh.path.unlink()  # somebody else was faster
    raise AssertionError("there is always a next number")


def study_files(output: str | Path, number: int) -> list[Path]:
    """The files of a study that has a document, a table and a figure; the document first."""
    return [Path(f"{beside(output, number)}.{ending}") for ending in ("json", "csv", "png", "svg")]


def beside(path: str | Path, number: int) -> Path:
    """The path itself for 1, else with ``-number`` at its end."""
    return Path(path) if number == 1 else Path(f"{path}-{number}")


def numbered(folder: Path, names: Sequence[str]) -> Callable[[int], list[Path]]:
    """The files of a study by number, as :func:`claim` asks for them: ``name.ending``, then ``name-2.ending``, ..."""
    return lambda number: [folder / (name if number == 1 else name.replace(".", f"-{number}.")) for name in names]


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write lines of text atomically."""
    write_atomically(path, lambda file: file.write("\n".join(lines) + "\n"))


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"recbole_fair": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    for name in ("recbole", "numpy", "pandas", "scipy", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def named(config: FairConfig) -> dict[str, Any]:
    """What names a run in every document: model, data set, seed, mask, the settings that differ, versions."""
    return {
        "model": config["model"],
        "dataset": config["dataset"],
        "seed": config["seed"],
        "mask_seen": Mask.of(config).recorded,
        "config": config.differences(),
        "versions": versions(),
    }


def write_each(files: Mapping[str, Callable[[], object]]) -> dict[str, str]:
    """Write files one after the other; what fails is warned of, and the others are written all the same.

    Args:
        files: what to call, by a name for the message, such as ``per_user_file=users.csv``.

    Returns:
        The reason of each failure, by name.
    """
    failed = {}
    for name, write in files.items():
        try:
            write()
        except Exception as error:  # whatever it is, a finished result must not be lost over it
            failed[name] = str(error) if isinstance(error, FairError) else f"{type(error).__name__}: {error}"
            logger.warning("%s was not written: %s", name, failed[name])
            logger.debug("The reason in full:", exc_info=True)
    return failed


def share_seen(lists: Tensor, users: Tensor, histories: Histories) -> float:
    """Share of listed items that are in their own user's history.

    Args:
        lists: long ``[U, K]`` item ids, 0 = no item.
        users: long ``[U]`` user ids.
        histories: of training.
    """
    rows = histories.rows(users.numpy())
    seen = np.unique(rows.users * histories.n_items + rows.items)
    listed = np.arange(len(users))[:, None] * histories.n_items + lists.numpy()
    there = lists.numpy() > 0
    return float(np.isin(listed[there], seen).mean()) if there.any() else 0.0


def write_recommendations(path: str | Path, result: EvaluationResult, dataset: DataSet) -> None:
    """Write the lists as ``user_id,item_id,rank,score`` with the data set's own ids, rank 1 being the best.

    Where users have several lists (a sequential model under a split by ratio: one for each held-out item), ``list``
    behind ``user_id`` numbers those of a user.

    Args:
        path: the CSV file.
        result: an evaluation with lists and scores.
        dataset: gives the original ids.
    """
    assert result.lists is not None
    assert result.user_ids is not None
    users = dataset.field2id_token[dataset.uid_field][result.user_ids.numpy()]
    items = dataset.field2id_token[dataset.iid_field]
    scores = result.scores.tolist() if result.scores is not None else None
    numbers = result.list_numbers
    of_list = [[user] for user in users] if numbers is None else list(zip(users, numbers.tolist(), strict=True))

    def write(file: IO[str]) -> None:
        rows = csv.writer(file)
        rows.writerow(["user_id", *([] if numbers is None else ["list"]), "item_id", "rank", "score"])
        for row, (own, listed) in enumerate(zip(of_list, result.lists.tolist(), strict=True)):  # type: ignore[union-attr]
            for rank, item in enumerate(listed, start=1):
                if item:
                    rows.writerow([*own, items[item], rank, scores[row][rank - 1] if scores else ""])

    write_atomically(path, write, keep=True)
