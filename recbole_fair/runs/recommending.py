"""The command ``recommend``: from options to lists on the screen or in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recbole_fair.config.catalogue import RERANKER_PREFIX
from recbole_fair.errors import FairError
from recbole_fair.runs.histories import read_histories
from recbole_fair.runs.recommender import Recommendations, Recommender

_SHOWN_USERS = 20
_OF_LOADING = ("reranker", "checkpoint_dir", "use_gpu", "gpu_id")


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line; ids are separated by blanks or commas."""

    history: tuple[str, ...] = ()
    histories: str | None = None
    users: str | None = None
    k: int = 10
    include_seen: bool = False
    exclude: str | None = None
    allowed: str | None = None
    output: str | None = None


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def recommend_from(path: str, request: Request, strengths: Mapping[str, Any]) -> list[str]:
    """Lists of a checkpoint, written or shown.

    Args:
        path: the checkpoint.
        request: what was asked for.
        strengths: of a steered model; a score adjuster (``reranker=Tilt``) with its keys.

    Returns:
        Lines for the screen.

    Raises:
        FairError: if nobody, or more than one kind of somebody, is to be recommended to; and as
            :meth:`Recommender.recommend`.
    """
    asked = [name for name in ("history", "histories", "users") if getattr(request, name)]
    if len(asked) != 1:
        named = " and ".join(f"--{name}" for name in asked) or "none of them"
        raise FairError(f"Give one of --history, --histories and --users, not {named}.")
    settings = {key: strengths[key] for key in strengths if key in _OF_LOADING or key.startswith(RERANKER_PREFIX)}
    recommender = Recommender.load(path, settings)
    histories: Any = [_words(text) for text in request.history] or None
    if request.histories:
        histories = read_histories(request.histories)
    found = recommender.recommend(
        histories,
        request.k,
        users=_words(request.users) if request.users else None,
        strengths={key: value for key, value in strengths.items() if key not in settings},
        exclude_seen=not request.include_seen,
        exclude=_words(request.exclude or ""),
        allowed=None if request.allowed is None else _words(request.allowed),
    )
    if request.output:
        found.write(request.output)
        return [f"Written: {request.output}, lists of {len(found)} users.", *found.notes]
    return [*_shown(found), *found.notes]


def _shown(found: Recommendations) -> list[str]:
    """A line an item, with a heading a user where there are several."""
    lines = []
    for row, (user, items) in enumerate(zip(found.users[:_SHOWN_USERS], found.items, strict=False)):
        if len(found) > 1:
            lines.append(f"{user}:")
        width = max((len(item) for item in items), default=0)
        for rank, item in enumerate(items):
            number = int(found.ids[row, rank])
            title = f"  {found.titles[number]}" if found.titles is not None else ""
            lines.append(f"{rank + 1:>4}  {item:<{width}}  {float(found.scores[row, rank]):>10.4f}{title}")
    if len(found) > _SHOWN_USERS:
        lines.append(f"... and {len(found) - _SHOWN_USERS} users more; --output=FILE writes all lists.")
    return lines
