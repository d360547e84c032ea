"""Readable names of items, where the data has them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

_WORDS = ("title", "name")


def item_titles(dataset: Any) -> list[str] | None:
    """Titles by inner item id, from the first item column whose name contains ``title``, else ``name``.

    A column that was not loaded (titles are no input of a recommender) is read from the data set's ``.item`` file.

    Args:
        dataset: a RecBole data set.

    Returns:
        ``n_items`` texts, empty for the padding item and for items without a title; None without such a column.
    """
    columns = [] if dataset.item_feat is None else list(dataset.item_feat.columns)
    field = _title_column([name for name in columns if name in dataset.field2id_token and name != dataset.iid_field])
    titles = _from_feature(dataset, field) if field is not None else _from_file(dataset)
    if titles is not None:
        titles[0] = ""
    return titles


def _title_column(names: list[str]) -> str | None:
    return next((name for word in _WORDS for name in names if word in name.lower()), None)


def _from_feature(dataset: Any, field: str) -> list[str]:
    tokens = dataset.field2id_token[field]
    titles = [""] * int(dataset.item_num)
    ids = np.asarray(dataset.item_feat[dataset.iid_field])
    for item, value in zip(ids.tolist(), dataset.item_feat[field], strict=True):
        words = np.atleast_1d(np.asarray(value))
        titles[item] = " ".join(str(tokens[word]) for word in words.tolist() if word != 0)
    return titles


def _from_file(dataset: Any) -> list[str] | None:
    path = Path(dataset.dataset_path) / f"{dataset.dataset_name}.item"
    if not path.is_file():
        return None
    with path.open(encoding=dataset.config["encoding"] or "utf-8", errors="replace", newline="") as file:
        rows = csv.reader(file, delimiter=dataset.config["field_separator"] or "\t", quoting=csv.QUOTE_NONE)
        names = [column.split(":")[0] for column in next(rows, [])]
        field = _title_column([name for name in names if name != dataset.iid_field])
        if field is None or dataset.iid_field not in names:
            return None
        key, value = names.index(dataset.iid_field), names.index(field)
        by_token = {row[key]: row[value] for row in rows if len(row) > max(key, value)}
    return [by_token.get(str(token), "") for token in dataset.field2id_token[dataset.iid_field]]
