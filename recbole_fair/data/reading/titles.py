"""Readable names of items, where the data has them."""

from __future__ import annotations

from pathlib import Path

from recbole_fair.data.contract import DataSet
from recbole_fair.data.reading.table import form_of, read_header, read_table

_WORDS = ("title", "name")


def item_titles(dataset: DataSet) -> list[str] | None:
    """Titles by inner item id, from the first item column whose name contains ``title``, else ``name``.

    The text of the data set's ``.item`` file, whether or not the column is loaded (titles are no input of a
    recommender).

    Args:
        dataset: a RecBole data set.

    Returns:
        ``n_items`` texts, empty for the padding item and for items without a title; None without such a column.

    Raises:
        FairError: if the file cannot be read.
    """
    path, form = Path(dataset.dataset_path) / f"{dataset.dataset_name}.item", form_of(dataset.config)
    if not path.is_file():
        return None
    header = read_header(path, form)
    names = [name for name in header if name != dataset.iid_field]
    column = next((name for word in _WORDS for name in names if word in name.lower()), None)
    if column is None or dataset.iid_field not in header:
        return None
    table = read_table(path, form, [dataset.iid_field, column], as_text=True)
    ids, titles = table.texts[dataset.iid_field].values, table.texts[column].values
    by_id = dict(zip(ids[::-1].tolist(), titles[::-1].tolist(), strict=True))  # of several rows the first counts
    tokens = dataset.field2id_token[dataset.iid_field]
    return ["", *(by_id.get(str(token), "") for token in tokens[1:])]
