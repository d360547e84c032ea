"""Training, validation and test parts that stand in tables, as a data set over one numbering of users and items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from recbole_fair.config.contract import Settings
from recbole_fair.data.tables.names import find_columns
from recbole_fair.data.tables.sources import open_table
from recbole_fair.data.tables.times import TimeForm, form_of_times
from recbole_fair.errors import FairError

Ids = npt.NDArray[np.int64]
_PADDING = "[PAD]"


@dataclass
class TableSplit:
    """One part of the interactions in RecBole's form: what metrics and groups ask of a data set.

    Attributes:
        config: the settings.
        uid_field: name of the column of users.
        iid_field: name of the column of items.
        time_field: name of the column of times, whether it is there or not.
        user_num: users with the padding user 0.
        item_num: items with the padding item 0.
        inter_feat: the interactions in inner ids, with times where the table has them.
        field2id_token: original id of each inner id, by column.
        field2token_id: the inner ids, likewise.
        dataset_name: its name.
        dataset_path: folder of the files of users and items.
    """

    config: Settings
    inter_feat: Any
    field2id_token: Mapping[str, npt.NDArray[np.str_]]
    field2token_id: Mapping[str, Mapping[str, int]]
    dataset_name: str
    dataset_path: str
    user_feat: Any = None
    item_feat: Any = None
    field2type: Mapping[str, Any] = field(default_factory=dict)
    field2seqlen: MutableMapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = self.config
        self.uid_field = str(config["USER_ID_FIELD"])
        self.iid_field = str(config["ITEM_ID_FIELD"])
        self.time_field: str | None = str(config["TIME_FIELD"])
        self.user_num, self.item_num = self.num(self.uid_field), self.num(self.iid_field)

    def __len__(self) -> int:
        return len(self.inter_feat)

    def num(self, field: str) -> int:
        """How many values a column of ids has, the padding's among them."""
        return len(self.field2id_token[field])

    def id2token(self, field: str, ids: Any) -> Any:
        """Original ids of inner ones."""
        return self.field2id_token[field][ids]

    def get_item_feature(self) -> Any:
        """Nothing is read but by name, from the files beside it."""
        raise NotImplementedError

    def get_user_feature(self) -> Any:
        """Nothing is read but by name, from the files beside it."""
        raise NotImplementedError

    def build(self) -> Sequence[Any]:
        """It is one part already."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Part:
    users: npt.NDArray[np.object_]
    items: npt.NDArray[np.object_]
    times: npt.NDArray[np.float64] | None
    notes: list[str]


def read_parts(
    paths: Mapping[str, str | Path | None],
    config: Settings,
    name: str,
    folder: str | Path,
    more_users: Iterable[str] = (),
    more_items: Iterable[str] = (),
    columns: Mapping[str, str | None] | None = None,
) -> tuple[dict[str, TableSplit], list[str]]:
    """Read the parts, users and items numbered in order of appearance.

    Args:
        paths: tables of interactions by the name of the part; parts that are None are left out.
        config: the settings, for the names of columns.
        name: of the data set.
        folder: where its files of users and items stand.
        more_users: users beside those of the parts.
        more_items: items beside those of the parts.
        columns: columns that the user named, by role.

    Returns:
        The parts by name, and sentences on what was left out.

    Raises:
        FairError: for a table that cannot be read or has no rows.
    """
    read = {part: _read(path, columns or {}) for part, path in paths.items() if path is not None}
    fields = {role: str(config[key]) for role, key in (("users", "USER_ID_FIELD"), ("items", "ITEM_ID_FIELD"))}
    token_id, id_token = dict[str, dict[str, int]](), dict[str, npt.NDArray[np.str_]]()
    for role, more in (("users", more_users), ("items", more_items)):
        numbers = {_PADDING: 0}
        for part in read.values():
            for token in pd.unique(getattr(part, role)):
                numbers.setdefault(token, len(numbers))
        for token in more:
            numbers.setdefault(token, len(numbers))
        token_id[fields[role]] = numbers
        id_token[fields[role]] = np.array(list(numbers))
    splits = {}
    for key, part in read.items():
        frame = pd.DataFrame({
            column: np.fromiter(map(token_id[column].__getitem__, getattr(part, role)), np.int64, len(part.users))
            for role, column in fields.items()
        })  # fmt: skip
        if part.times is not None:
            frame[str(config["TIME_FIELD"])] = part.times
        splits[key] = TableSplit(config, frame, id_token, token_id, name, str(folder))
    return splits, [note for part in read.values() for note in part.notes]


def _read(path: str | Path, columns: Mapping[str, str | None]) -> _Part:
    table = open_table(path)
    roles = find_columns(table, ("user", "item", "time"), ("user", "item"), columns)
    form: TimeForm | None = None
    users, items, times = [], [], []
    for batch in table.batches(list(roles.values())):
        for role in ("user", "item"):
            if roles[role] in batch.times:
                raise FairError(f"{table.path}: '{roles[role]}' holds times, not {role}s.")
        users.append(batch.cells[roles["user"]])
        items.append(batch.cells[roles["item"]])
        if "time" not in roles:
            continue
        if roles["time"] in batch.times:
            times.append(batch.times[roles["time"]])
            continue
        cells = batch.cells[roles["time"]]
        form = form or form_of_times(cells, roles["time"], source=table.path)
        times.append(form.read(cells))
    if not users:
        raise FairError(f"{table.path} has columns but no rows.")
    user, item = np.concatenate(users), np.concatenate(items)
    kept = ~(pd.isna(user) | pd.isna(item))
    notes = []
    if not kept.all():
        notes.append(f"{table.path}: {int((~kept).sum())} rows without user or item are left out.")
    time = np.concatenate(times) if times else None
    if time is not None and np.isnan(time[kept]).any():
        notes.append(f"{table.path}: some rows have no time that can be read, so that its times are not used.")
        time = None
    return _Part(user[kept], item[kept], None if time is None else time[kept], notes)
