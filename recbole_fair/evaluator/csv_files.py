"""Values by user and by item as CSV files, with the data set's own ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_fair.data.contract import DataSet
from recbole_fair.data.facts.popularity import SEGMENT_NAMES
from recbole_fair.data.reading.titles import item_titles
from recbole_fair.errors import FairError
from recbole_fair.evaluator.functional.exposure import item_counts, item_exposure
from recbole_fair.evaluator.result import EvaluationResult
from recbole_fair.io.atomic import atomic_file


def per_user_table(result: EvaluationResult, dataset: DataSet) -> pd.DataFrame:
    """One row a list: ``user_id`` and each per-user metric at each cutoff, empty where the metric leaves the user out.

    Where users have several lists (a sequential model under a split by ratio: one for each held-out item), ``list``
    numbers those of a user.

    Args:
        result: The evaluation.
        dataset: Any split of the RecBole data set, for the ids.

    Returns:
        The table, in the order of the evaluation.
    """
    if result.user_ids is None:
        raise FairError("There are no values by user: value metrics such as AUC are over all rows together.")
    columns: dict[str, Any] = {"user_id": dataset.id2token(dataset.uid_field, result.user_ids.numpy())}
    if result.list_numbers is not None:
        columns["list"] = result.list_numbers.numpy()
    for name, values in result.per_user.items():
        for column, k in enumerate(result.topk):
            columns[f"{name}@{k}"] = values[:, column].numpy()
    return pd.DataFrame(columns)


def per_item_table(result: EvaluationResult, dataset: DataSet) -> pd.DataFrame:
    """One row a catalogue item: id, title if known, popularity, segment, times recommended and exposure.

    Exposure is the sum of ``1 / log2(rank + 1)`` over the item's places.

    Args:
        result: The evaluation.
        dataset: Any split of the RecBole data set, for ids and titles.

    Returns:
        The table, by inner item id.
    """
    if result.lists is None:
        raise FairError("There are no values by item: value metrics such as AUC make no lists.")
    ids = np.arange(1, result.n_items)
    columns: dict[str, Any] = {"item_id": dataset.id2token(dataset.iid_field, ids)}
    titles = item_titles(dataset)
    if titles is not None:
        columns["title"] = titles[1:]
    if result.popularity is not None:
        columns["popularity"] = result.popularity.counts[1:].numpy()
        try:
            columns["segment"] = np.array(SEGMENT_NAMES)[result.popularity.segments[1:].numpy()]
        except FairError:  # too small a catalogue for segments
            columns["segment"] = ""
    for k in result.topk:
        columns[f"recommended@{k}"] = item_counts(result.lists[:, :k], result.n_items).numpy()
        columns[f"exposure@{k}"] = item_exposure(result.lists[:, :k], result.n_items).numpy()
    return pd.DataFrame(columns)


def write_table(table: pd.DataFrame, path: str | Path, keep: bool = False) -> None:
    """Write a table as CSV, whole or not at all.

    Args:
        table: The table.
        path: Where to; missing folders are made.
        keep: Whether another table that stands there is kept under another name.
    """
    with atomic_file(path, keep=keep, mode="w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        table.to_csv(file, index=False)


def write_per_user(path: str | Path, result: EvaluationResult, dataset: DataSet) -> None:
    """Write :func:`per_user_table`.

    Args:
        path: Where to.
        result: The evaluation.
        dataset: Any split of the RecBole data set.
    """
    write_table(per_user_table(result, dataset), path, keep=True)


def write_per_item(path: str | Path, result: EvaluationResult, dataset: DataSet) -> None:
    """Write :func:`per_item_table`.

    Args:
        path: Where to.
        result: The evaluation.
        dataset: Any split of the RecBole data set.
    """
    write_table(per_item_table(result, dataset), path, keep=True)
