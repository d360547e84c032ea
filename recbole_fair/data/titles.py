"""Readable names of items, where the data set has them."""

from __future__ import annotations

from typing import Any

import numpy as np

_WORDS = ("title", "name")


def item_titles(dataset: Any) -> list[str] | None:
    """Titles by inner item id, from the first item column whose name contains ``title``, else ``name``.

    Args:
        dataset: a RecBole data set.

    Returns:
        ``n_items`` texts (empty for the padding item and for items without a title), or None without such a column.
    """
    feat = dataset.item_feat
    if feat is None:
        return None
    columns = list(feat.columns)
    for word in _WORDS:
        for field in columns:
            if word in field.lower() and field in dataset.field2id_token and field != dataset.iid_field:
                return _texts(dataset, field)
    return None


def _texts(dataset: Any, field: str) -> list[str]:
    tokens = dataset.field2id_token[field]
    titles = [""] * int(dataset.item_num)
    ids = np.asarray(dataset.item_feat[dataset.iid_field])
    for item, value in zip(ids.tolist(), dataset.item_feat[field], strict=True):
        words = np.atleast_1d(np.asarray(value))
        titles[item] = " ".join(str(tokens[word]) for word in words.tolist() if word != 0)
    titles[0] = ""
    return titles
