"""Recommended lists that some system has written: rows of user, item and rank or score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recbole_fair.data.tables.names import find_columns
from recbole_fair.data.tables.sources import Batch, Cells, Table, open_table
from recbole_fair.errors import FairError

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
UNKNOWN = -1


@dataclass
class Lists:
    """Lists of the users of an evaluation.

    Attributes:
        items: item ids ``[U, K]``, best first; 0 where a place is empty.
        notes: sentences on what was found.
        counts: how much of what, by name: ``rows``, ``users``, ``users_without_list``, ``other_users``,
            ``unknown_items``, ``repeated_items``, ``lists_with_gaps``.
    """

    items: Ids
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Rows:
    """Rows of a file of lists in its order.

    Attributes:
        user: row of the evaluation that each belongs to, -1 for users that are not evaluated.
        item: item ids, -1 for items that are not in the catalogue.
        order: rank or score; None where the order of the rows counts.
        by_rank: whether ``order`` is a rank.
        users: different users of the file.
        others: different users that are not evaluated.
        unknown: different unknown items in lists of evaluated users, a few of them by name.
    """

    user: Ids
    item: Ids
    order: Floats | None
    by_rank: bool
    users: int
    others: int
    unknown: tuple[int, list[str]]


def users_of(path: str | Path, columns: Mapping[str, str | None]) -> list[str]:
    """The users of a file of lists, in the order in which they appear."""
    table, roles = _opened(path, columns)
    found: dict[str, None] = {}
    for batch in table.batches([roles["user"]]):
        found.update(dict.fromkeys(_ids(table, batch, roles["user"]).tolist()))
    return [user for user in found if user is not None]


def read_lists(
    path: str | Path,
    users: Mapping[str, int],
    items: Mapping[str, int],
    length: int,
    columns: Mapping[str, str | None] | None = None,
) -> Lists:
    """Read lists, each place as the system filled it.

    Ranks count from 1 (or from 0, throughout the file). Without ranks the higher score goes first, ties in the order of
    the file; without both the order of the file counts. Unknown items and further places of an item leave their place
    empty: what stands behind does not move up.

    Args:
        path: a csv, parquet or jsonl file with user, item and, if there are, rank or score; an item cell may hold a
            whole list.
        users: row of the evaluation by user.
        items: item id by the system's name of it.
        length: places that are looked at.
        columns: columns that the user named, by role.

    Returns:
        One list a row of the evaluation.

    Raises:
        FairError: if the file cannot be read, has none of these users or items, has two items on one rank, or ranks or
            scores that are none.
    """
    table, roles = _opened(path, columns or {})
    rows = _read(table, roles, users, items)
    if not len(rows.user):
        raise FairError(f"{table.path} has columns but no rows.")
    if rows.others == rows.users:
        raise FairError(
            f"{table.path}: none of its {rows.users} users is evaluated; are users named there as in the test part?"
        )
    if not (rows.item[rows.user >= 0] != UNKNOWN).any():
        raise FairError(
            f"{table.path}: none of its items is known, such as {rows.unknown[1][0]!r}; are items named there as in "
            "the training part?"
        )
    found = Lists(np.zeros((len(users), length), dtype=np.int64))
    kept = np.flatnonzero(rows.user >= 0)
    user, item = rows.user[kept], rows.item[kept]
    rank = _ranks(table, rows, kept, found)
    again = _repeated(user, item, rank)
    _check_ranks(table, user, rank, again, kept)
    unknown = item == UNKNOWN
    filled = ~again & ~unknown & (rank <= length)
    found.items[user[filled], rank[filled] - 1] = item[filled]
    _describe(found, rows, user, rank, again, unknown, length, len(users))
    return found


def _opened(path: str | Path, columns: Mapping[str, str | None]) -> tuple[Table, dict[str, str]]:
    table = open_table(path)
    return table, find_columns(table, ("user", "item", "rank", "score"), ("user", "item"), columns)


def _ids(table: Table, batch: Batch, column: str) -> Cells:
    if column in batch.times:
        raise FairError(f"{table.path}: '{column}' holds times where ids are to be.")
    return batch.cells[column]


def _read(table: Table, roles: Mapping[str, str], users: Mapping[str, int], items: Mapping[str, int]) -> _Rows:
    by = "rank" if "rank" in roles else "score" if "score" in roles else None
    parts: list[tuple[Ids, Ids, Floats]] = []
    names, strangers, unknown = set[str](), set[str](), dict[str, None]()
    columns = [roles["user"], roles["item"], *([roles[by]] if by else [])]
    for batch in table.batches(columns):
        user_cells = _ids(table, batch, roles["user"]).tolist()
        item_cells = _ids(table, batch, roles["item"]).tolist()
        order_cells = _ids(table, batch, roles[by]).tolist() if by else None
        if any(isinstance(cell, tuple) for cell in item_cells):
            user_cells, item_cells, order_cells = _one_by_one(table, batch.first, user_cells, item_cells, order_cells)
        for role, cells in (("user", user_cells), ("item", item_cells)):
            if None in cells:
                raise FairError(f"{table.path}: row {batch.first + cells.index(None)} has no {role}.")
        names.update(user_cells)
        user = np.fromiter((users.get(name, -1) for name in user_cells), np.int64, len(user_cells))
        item = np.fromiter((items.get(name, UNKNOWN) for name in item_cells), np.int64, len(item_cells))
        strangers.update(user_cells[place] for place in np.flatnonzero(user < 0))
        unknown.update(dict.fromkeys(item_cells[p] for p in np.flatnonzero((item == UNKNOWN) & (user >= 0))))
        order = np.zeros(0) if order_cells is None else _numbers(table, batch.first, str(by), order_cells)
        parts.append((user, item, order))
    if not parts:
        return _Rows(np.zeros(0, np.int64), np.zeros(0, np.int64), None, False, 0, 0, (0, []))
    user, item, order = (np.concatenate(column) for column in zip(*parts, strict=True))
    some = [name for name, _ in zip(unknown, range(3), strict=False)]
    return _Rows(
        user, item, order if by else None, by == "rank", len(names), len(strangers), (len(unknown), some)
    )  # fmt: skip


def _one_by_one(
    table: Table, first: int, users: list[str], items: list[str | tuple[str, ...]], order: list[object] | None
) -> tuple[list[str], list[str], list[object] | None]:
    """Rows of whole lists as rows of single items; their own order counts, or the scores beside them."""
    wide = order is not None and all(isinstance(cell, tuple) for cell in order)
    if order is not None and not wide:
        raise FairError(f"{table.path}: the items are lists and ranks or scores are not; leave their column out.")
    found: tuple[list[str], list[str], list[object]] = ([], [], [])
    for number, (user, listed) in enumerate(zip(users, items, strict=True)):
        one = listed if isinstance(listed, tuple) else () if listed is None else (listed,)
        beside = order[number] if order is not None else None
        if isinstance(beside, tuple) and len(beside) != len(one):
            raise FairError(
                f"{table.path}: row {first + number} has {len(one)} items and {len(beside)} ranks or scores."
            )
        found[0].extend([user] * len(one))
        found[1].extend(one)
        found[2].extend(beside if isinstance(beside, tuple) else ())
    return found[0], found[1], found[2] if order is not None else None


def _numbers(table: Table, first: int, role: str, cells: list[object]) -> Floats:
    numbers = np.empty(len(cells))
    for place, cell in enumerate(cells):
        try:
            numbers[place] = float(cell)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            numbers[place] = np.nan
        if numbers[place] != numbers[place]:
            raise FairError(f"{table.path}: row {first + place} has the {role} {cell!r}, which is no number.")
    return numbers


def _ranks(table: Table, rows: _Rows, kept: Ids, found: Lists) -> Ids:
    """Rank of each kept row, from 1."""
    user = rows.user[kept]
    if rows.by_rank:
        assert rows.order is not None
        stated = rows.order[kept]
        lowest = float(rows.order.min())
        if lowest < 0 or (stated != np.floor(stated)).any():
            bad = kept[np.flatnonzero((stated < 0) | (stated != np.floor(stated)))[:1]]
            where = f"row {int(bad[0]) + 1} has {rows.order[bad[0]]:g}" if len(bad) else f"there is {lowest:g}"
            raise FairError(f"{table.path}: ranks are whole numbers from 1, but {where}; name scores by --score.")
        if lowest == 0:
            found.notes.append("Ranks begin at 0; they are read as beginning at 1.")
        return np.asarray(stated + (lowest == 0), dtype=np.int64)
    if rows.order is None:
        found.notes.append("There are neither ranks nor scores: items stand in the order of the file.")
        order = np.argsort(user, kind="stable")
    else:
        score = rows.order[kept]
        order = np.lexsort((np.arange(len(user)), -score, user))
        tied = int(((np.diff(user[order]) == 0) & (np.diff(score[order]) == 0)).sum())
        if tied:
            found.notes.append(f"{tied} scores equal the one before in their list: such items stand as in the file.")
    ranks = np.empty(len(user), dtype=np.int64)
    starts = np.searchsorted(user[order], user[order])
    ranks[order] = np.arange(len(user)) - starts + 1
    return ranks


def _repeated(user: Ids, item: Ids, rank: Ids) -> npt.NDArray[np.bool_]:
    """Rows whose item stands further up in the same list; unknown items are not told apart."""
    order = np.lexsort((np.arange(len(user)), rank, item, user))
    same = (np.diff(user[order]) == 0) & (np.diff(item[order]) == 0) & (item[order][1:] != UNKNOWN)
    again = np.zeros(len(user), dtype=bool)
    again[order[1:]] = same
    return again


def _check_ranks(table: Table, user: Ids, rank: Ids, again: npt.NDArray[np.bool_], kept: Ids) -> None:
    """Two items cannot share a place; a row that is there twice is a repeated item."""
    rows = np.flatnonzero(~again)
    order = rows[np.lexsort((rank[rows], user[rows]))]
    twice = np.flatnonzero((np.diff(user[order]) == 0) & (np.diff(rank[order]) == 0))
    if len(twice):
        one, other = sorted(int(kept[order[twice[0] + step]]) + 1 for step in (0, 1))
        raise FairError(
            f"{table.path}: rows {one} and {other} are of one user and have the same rank, "
            f"{int(rank[order[twice[0]]])}; give each place once, or scores (--score) instead of ranks."
        )


def _describe(
    found: Lists,
    rows: _Rows,
    user: Ids,
    rank: Ids,
    again: npt.NDArray[np.bool_],
    unknown: npt.NDArray[np.bool_],
    length: int,
    n_users: int,
) -> None:
    near = rank <= length
    deepest = np.zeros(n_users, dtype=np.int64)
    np.maximum.at(deepest, user[near], rank[near])
    stated = np.zeros((n_users, length), dtype=bool)
    stated[user[near], rank[near] - 1] = True
    gaps = int((stated.sum(1) < deepest).sum())
    listed = np.zeros(n_users, dtype=bool)
    listed[user] = True
    counts = {
        "rows": len(rows.user),
        "users": rows.users,
        "users_without_list": int((~listed).sum()),
        "other_users": rows.others,
        "unknown_items": int((unknown & near).sum()),
        "repeated_items": int((again & near).sum()),
        "lists_with_gaps": gaps,
    }
    found.counts = counts
    say = found.notes.append
    if counts["users_without_list"]:
        say(f"{counts['users_without_list']} of {n_users} users have no list: they are counted as served with nothing.")
    if counts["other_users"]:
        say(f"{counts['other_users']} of {rows.users} users of the lists are not evaluated and left out.")
    if counts["unknown_items"]:
        some = ", ".join(rows.unknown[1]) + (", ..." if rows.unknown[0] > len(rows.unknown[1]) else "")
        say(
            f"{counts['unknown_items']} places are taken by {rows.unknown[0]} items that are not in the catalogue "
            f"({some}): they count as empty places."
        )
    if counts["repeated_items"]:
        say(f"{counts['repeated_items']} places repeat an item that stands further up: they count as empty places.")
    if gaps:
        say(f"{gaps} lists have gaps in their ranks: what stands behind does not move up.")
    short = int((deepest < length).sum()) - counts["users_without_list"]
    if short > 0:
        say(f"{short} of {n_users} lists are shorter than {length}.")
