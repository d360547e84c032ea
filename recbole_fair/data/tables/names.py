"""Which column holds users, items, ratings and times, by the names that they usually have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from recbole_fair.config.keys import did_you_mean
from recbole_fair.data.tables.sources import Table
from recbole_fair.errors import FairError

#: Usual names without capitals and marks (``user_id`` is ``userid``), the likeliest first.
USUAL: dict[str, tuple[str, ...]] = {
    "user": ("user", "userid", "uid", "users", "reviewerid", "customer", "customerid", "visitorid", "member",
             "memberid", "account", "accountid", "profileid", "person", "personid", "sessionid", "session"),
    "item": ("item", "itemid", "iid", "items", "movie", "movieid", "book", "bookid", "isbn", "parentasin", "asin",
             "product", "productid", "businessid", "business", "track", "trackid", "song", "songid", "artist",
             "artistid", "venue", "venueid", "poi", "poiid", "locationid", "news", "newsid", "article", "articleid",
             "game", "gameid", "appid", "recipeid", "hotelid", "jobid", "anime", "animeid", "sku", "contentid", "id"),
    "rating": ("rating", "ratings", "score", "stars", "overall", "rate", "value"),
    "time": ("timestamp", "time", "ts", "datetime", "date", "unixreviewtime", "unixtime", "eventtime", "createdat",
             "reviewtime", "ratedat", "checkintime", "utctime", "localtime", "dateadded", "t"),
    "rank": ("rank", "position", "place", "pos"),
}  # fmt: skip
#: In lists a score orders the items; a rating would be of somebody else.
SCORES = ("score", "scores", "prediction", "pred", "relevance", "rating")


def plain_name(column: str) -> str:
    """A column's name without the type that atomic files write behind it (``user_id:token``)."""
    name, colon, kind = column.partition(":")
    return name if colon and kind in ("token", "token_seq", "float", "float_seq") else column


def _bare(column: str) -> str:
    return re.sub(r"[\W_]", "", plain_name(column).lower())


def find_columns(
    table: Table, roles: Sequence[str], needed: Sequence[str], given: Mapping[str, str | None] | None = None
) -> dict[str, str]:
    """Find the columns of a table by what they hold.

    Args:
        table: the table.
        roles: keys of :data:`USUAL`, or ``score``.
        needed: roles that must be found.
        given: columns that the user named, by role.

    Returns:
        Column by role, for the roles that were found.

    Raises:
        FairError: for a needed role without a column, a named column that does not exist, or one of two roles.
    """
    named = {role: name for role, name in (given or {}).items() if name is not None and role in roles}
    found: dict[str, str] = {}
    for role, name in named.items():
        exact = next((column for column in table.columns if name in (column, plain_name(column))), None)
        if exact is None:
            hint = did_you_mean(name, table.columns)
            raise FairError(f"{role}={name!r} is not a column of {table.path} ({', '.join(table.columns)}){hint}")
        found[role] = exact
    for role in roles:
        if role in found:
            continue
        usual = SCORES if role == "score" else USUAL[role]
        by_name = {_bare(column): column for column in reversed(table.columns) if column not in found.values()}
        column = next((by_name[name] for name in usual if name in by_name), None)
        if column is not None:
            found[role] = column
        elif role in needed:
            raise FairError(
                f"{table.path}: which column holds the {role}s? None of {', '.join(table.columns)} has a usual name; "
                f"name it by --{role}=COLUMN" + _without_header(table)
            )
    twice = next((role for role, column in found.items() if list(found.values()).count(column) > 1), None)
    if twice is not None:
        raise FairError(f"{twice}={found[twice]!r} is named for two things.")
    return {role: found[role] for role in roles if role in found}


def _without_header(table: Table) -> str:
    if table.kind != "csv" or table.named:
        return "."
    return ", or give the names of a file without a header by --columns=user,item,rating,time."
