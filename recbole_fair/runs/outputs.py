"""The files of a run: the result document and the recommended lists."""

from __future__ import annotations

import csv
import logging
import os
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO

import torch

from recbole_fair import __version__
from recbole_fair.config.contract import Settings
from recbole_fair.data.contract import DataSet
from recbole_fair.errors import FairError
from recbole_fair.evaluator.result import EvaluationResult
from recbole_fair.io.atomic import atomic_file

logger = logging.getLogger(__name__)


def write_atomically(path: str | Path, write: Callable[[IO[str]], None]) -> None:
    """Write a text file as a whole or not at all.

    Raises:
        FairError: if it cannot be written.
    """
    with atomic_file(path, mode="w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        write(file)


def check_writable(config: Settings, keys: tuple[str, ...]) -> None:
    """Make sure, before hours of training, that the files asked for can be written.

    Raises:
        FairError: naming the key and the path.
    """
    for key in keys:
        path = config[key]
        if path is None:
            continue
        target = Path(path)
        if target.is_dir():
            raise FairError(f"{key}={path} is a directory; give the name of a file.")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FairError(f"{key}={path} cannot be written: {error.strerror or error}.") from error
        if not os.access(target.parent, os.W_OK):
            raise FairError(f"{key}={path} cannot be written: no permission in {target.parent}.")


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"recbole_fair": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    for name in ("recbole", "numpy", "pandas", "scipy", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_each(files: Mapping[str, Callable[[], None]]) -> dict[str, str]:
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


def write_recommendations(path: str | Path, result: EvaluationResult, dataset: DataSet) -> None:
    """Write the lists as ``user_id,item_id,rank,score`` with the data set's own ids, rank 1 being the best.

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

    def write(file: IO[str]) -> None:
        rows = csv.writer(file)
        rows.writerow(["user_id", "item_id", "rank", "score"])
        for row, (user, listed) in enumerate(zip(users, result.lists.tolist(), strict=True)):  # type: ignore[union-attr]
            for rank, item in enumerate(listed, start=1):
                if item:
                    rows.writerow([user, items[item], rank, scores[row][rank - 1] if scores else ""])

    write_atomically(path, write)
