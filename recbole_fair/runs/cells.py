"""The finished cells of a comparison on disk, one file each, without pickle."""

from __future__ import annotations

import itertools
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from recbole_fair.analysis.systems import Cell
from recbole_fair.data.contract import DataSet
from recbole_fair.evaluator.result import EvaluationResult
from recbole_fair.io.atomic import atomic_file, fresh_file, numbered

_PER_USER = "per_user/"
# What reading a file that is no cell, or a damaged one, may raise.
_DAMAGED = (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def cell_of(
    model: str, reranker: str | None, seed: int, result: EvaluationResult, dataset: DataSet, facts: dict[str, Any]
) -> Cell:
    """A cell out of an evaluation of full or sampled rankings.

    Args:
        model: the model's name.
        reranker: the re-ranker's name, or None.
        seed: the seed of the run.
        result: the evaluation.
        dataset: the evaluated split, for the original ids.
        facts: plain values that go with it.
    """
    assert result.lists is not None
    assert result.user_ids is not None
    tokens = np.asarray(dataset.field2id_token[dataset.uid_field])[result.user_ids.numpy()]
    per_user = {
        f"{name}@{k}": values[:, column].double().numpy()
        for name, values in result.per_user.items()
        for column, k in enumerate(result.topk)
    }
    lists = result.lists.numpy().astype(np.int64)
    metrics = dict(result.metrics)
    return Cell(model, reranker, seed, metrics, tokens.astype(str), per_user, lists, result.n_items, facts)


def save_cell(path: str | Path, cell: Cell, key: str) -> None:
    """Write a cell as a whole or not at all, beside cells of other settings under the same name.

    Args:
        path: the file to begin with; then ``-2``, ``-3``, ... before its ending.
        cell: what to write.
        key: digest of what its numbers depend on.

    Raises:
        FairError: if it cannot be written.
    """
    about = {
        "key": key,
        "model": cell.model,
        "reranker": cell.reranker,
        "seed": cell.seed,
        "metrics": cell.metrics,
        "n_items": cell.n_items,
        "facts": cell.facts,
    }
    arrays: dict[str, Any] = {_PER_USER + name: values for name, values in cell.per_user.items()}
    arrays |= {"about": np.array(json.dumps(about)), "users": cell.users, "lists": cell.lists.astype(np.int32)}
    earlier = next((name for name, stored in _cells(path) if stored["key"] == key), None)
    if earlier is not None:
        with atomic_file(earlier, "the finished cell ") as file:
            np.savez_compressed(file, **arrays)
        return
    with fresh_file(path, "the finished cell ") as fresh:
        np.savez_compressed(fresh.file, **arrays)


def load_cell(path: str | Path, key: str) -> Cell | None:
    """Read a cell, if it is there and was made from the same settings.

    Args:
        path: the file.
        key: digest of what its numbers are to depend on.

    Returns:
        The cell; None when there is no such file, when it is damaged, or when it is of other settings or data.
    """
    for name, about in _cells(path):
        if about["key"] != key:
            continue
        try:
            with np.load(name, allow_pickle=False) as stored:
                per_user = {entry[len(_PER_USER) :]: stored[entry] for entry in stored if entry.startswith(_PER_USER)}
                users, lists = stored["users"], stored["lists"].astype(np.int64)
            model, reranker, seed, metrics = (about[entry] for entry in ("model", "reranker", "seed", "metrics"))
            return Cell(model, reranker, seed, metrics, users, per_user, lists, about["n_items"], about["facts"])
        except _DAMAGED:
            continue
    return None


def _cells(path: str | Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The readable cells under a name and the numbered ones after it, each with what it says about itself."""
    for name in itertools.takewhile(Path.exists, numbered(path)):
        try:
            with np.load(name, allow_pickle=False) as stored:
                about = json.loads(str(stored["about"]))
        except _DAMAGED:
            continue
        if isinstance(about, dict) and "key" in about:
            yield name, about
