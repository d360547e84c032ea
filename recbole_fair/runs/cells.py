"""The finished cells of a comparison on disk, one file each, without pickle."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from recbole_fair.analysis.systems import Cell
from recbole_fair.data.contract import DataSet
from recbole_fair.evaluator.result import EvaluationResult
from recbole_fair.io.atomic import atomic_file

_PER_USER = "per_user/"


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
    """Write a cell as a whole or not at all.

    Args:
        path: the file.
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
    arrays = {_PER_USER + name: values for name, values in cell.per_user.items()}
    with atomic_file(path, "the finished cell ") as file:
        np.savez_compressed(
            file, about=np.array(json.dumps(about)), users=cell.users, lists=cell.lists.astype(np.int32), **arrays
        )


def load_cell(path: str | Path, key: str) -> Cell | None:
    """Read a cell, if it is there and was made from the same settings.

    Args:
        path: the file.
        key: digest of what its numbers are to depend on.

    Returns:
        The cell; None when there is no such file, when it is damaged, or when it is of other settings or data.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            if about["key"] != key:
                return None
            per_user = {name[len(_PER_USER) :]: stored[name] for name in stored.files if name.startswith(_PER_USER)}
            users, lists = stored["users"], stored["lists"].astype(np.int64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    model, reranker, seed, metrics = (about[name] for name in ("model", "reranker", "seed", "metrics"))
    return Cell(model, reranker, seed, metrics, users, per_user, lists, about["n_items"], about["facts"])
