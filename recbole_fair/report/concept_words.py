"""Sentences and figures on popularity, said of another concept."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

AnyValue = TypeVar("AnyValue")

_WORDS = re.compile(r"\b(users of (un)?popular items|(un)?popular items|(un)?popular(?: users)?)\b", re.IGNORECASE)


def said_of(value: AnyValue, concepts: Sequence[Mapping[str, Any]]) -> AnyValue:
    """The same text, list or mapping of texts with the first concept in place of popularity.

    Args:
        value: texts in which users and items are popular or unpopular; other values stay what they are.
        concepts: the concepts of a document, the one that is steered first; none, or popularity: nothing changes.
    """
    if not concepts or concepts[0]["label"] == "popular":
        return value
    return _renamed(value, str(concepts[0]["label"]), concepts[0]["of"] == "users")


def _renamed(value: Any, label: str, of_users: bool) -> Any:
    if isinstance(value, str):
        return _WORDS.sub(lambda match: _words(match, label, of_users), value)
    if isinstance(value, Mapping):
        return {key: _renamed(one, label, of_users) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_renamed(one, label, of_users) for one in value)
    return value


def _words(match: re.Match[str], label: str, of_users: bool) -> str:
    text = match.group(0).lower()
    own = "other" if "unpopular" in text else label
    if text.endswith("items"):
        if text.startswith("users of"):
            return f"{own} users" if of_users else f"users of {own} items"
        return f"items of {own} users" if of_users else f"{own} items"
    return f"{own} users" if text.endswith("users") else own
