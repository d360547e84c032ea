"""How concepts are written in settings: what a model may be steered towards or away from, popularity being one.

A concept is written ``popularity``, ``genre:Documentary`` (a value of an item column), ``user:gender=F`` (a value of a
user column) or ``file:items.txt`` (item ids, one a line). Columns of numbers take ranges, ``price:10..20`` or
``user:age=..25``, both ends included.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from recbole_fair.errors import FairError

POPULARITY = "popularity"
_FORMS = "popularity, COLUMN:VALUE (items), user:COLUMN=VALUE or file:PATH"
_STEPS = "write CONCEPT=STEP, such as 'Documentary=+2, popular=-1', or a number"
_STEP = re.compile(r"\s*(.+?)\s*=\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(?:[,;]|$)")


class ConceptName(NamedTuple):
    """A concept as it is written.

    Attributes:
        side: ``popularity``, ``item``, ``user`` or ``file``.
        column: of the item or user file; the path of a ``file``.
        value: in that column; empty where every value is meant.
    """

    side: str
    column: str
    value: str


def parse_concept(text: str) -> ConceptName:
    """What a concept's text names.

    Args:
        text: as in the settings; ``genre`` and ``user:gender`` alone mean every value of the column.

    Raises:
        FairError: for a text of another form.
    """
    head, colon, rest = text.strip().partition(":")
    head, rest = head.strip(), rest.strip()
    if head == POPULARITY and not colon:
        return ConceptName(POPULARITY, "", "")
    if head == "user" and rest:
        column, equals, value = rest.partition("=")
        if column.strip() and (value.strip() or not equals):
            return ConceptName("user", column.strip(), value.strip())
    elif head == "file" and rest:
        return ConceptName("file", rest, "")
    elif head and head not in ("user", "file") and (rest or not colon):
        return ConceptName("item", head, rest)
    raise FairError(f"concept={text!r} is not allowed: it must be {_FORMS}.")


def complaint_about(text: object) -> str | None:
    """What is wrong with the text of a concept, None for nothing."""
    try:
        name = parse_concept(str(text))
    except FairError:
        return f"it must be {_FORMS}"
    if name.side in ("item", "user") and not name.value:
        return f"it names no value; it must be {_FORMS}"
    return None


def complaint_about_many(value: object) -> str | None:
    """What is wrong with the further concepts of a fit, None for nothing."""
    for text in value if isinstance(value, list | tuple) else [value]:
        try:
            parse_concept(str(text))
        except FairError:
            return f"{text!r} is none of {_FORMS}; a COLUMN or user:COLUMN alone means every value"
    return None


def parse_steps(value: object) -> dict[str, float]:
    """How far to steer by concept, from ``"Documentary=+2, popular=-1"``, a mapping or a number.

    Args:
        value: the text or mapping; a number is a step along the concept that a model was fitted for, named ``""``.

    Returns:
        Steps by the name of a concept; none for None and the empty text.

    Raises:
        FairError: for a text of another form.
    """
    if value is None or value == "":
        return {}
    if isinstance(value, int | float):
        return {"": float(value)}
    if isinstance(value, dict):
        return {str(name): float(step) for name, step in value.items()}
    steps, text, place = dict[str, float](), str(value), 0
    if re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)\s*", text):
        return {"": float(text)}
    while place < len(text):
        match = _STEP.match(text, place)
        if match is None:
            raise FairError(f"steer={value!r} is not allowed: {_STEPS}.")
        steps[match.group(1)] = float(match.group(2))
        place = match.end()
    return steps


def complaint_about_steps(value: object) -> str | None:
    """What is wrong with the steps of ``steer``, None for nothing."""
    try:
        steps = parse_steps(value)
    except (FairError, TypeError, ValueError):
        return _STEPS
    return None if all(abs(step) <= 1e6 for step in steps.values()) else "a step is a number of at most a million"
