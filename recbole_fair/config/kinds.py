"""What a value may be: the kinds that a :class:`~recbole_fair.config.keys.Key` names, each with its words."""

from __future__ import annotations

import codecs
import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MOST_CHARACTERS = 300  # of a value in a message
_NUMBER = r"[-+]?(?:inf|(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)"
_INTERVAL = re.compile(rf"([\[(])\s*({_NUMBER})\s*,\s*({_NUMBER})\s*([\])])", re.IGNORECASE)


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Attributes:
        accepts: whether a value is of the kind.
        words: how messages call it.
    """

    accepts: Callable[[Any], bool]
    words: str


def is_whole(value: object) -> bool:
    """Whether a value is a whole number; ``true`` is none, though Python counts it as 1."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is a finite number that a float can hold."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond 1.8e308
        return False


def is_text(value: object) -> bool:
    """Whether a value is text that can be written to a file."""
    return isinstance(value, str) and "\0" not in value and not re.search("[\ud800-\udfff]", value)


def is_encoding(value: object) -> bool:
    """Whether text is the name of an encoding of text that Python knows."""
    if not isinstance(value, str) or not value.isascii() or not value:
        return False
    try:
        "".encode(value)
    except (LookupError, ValueError, UnicodeError):
        return False
    return bool(codecs.lookup(value).name)


def is_column(value: object) -> bool:
    """Whether text can be the name of a column: something, with no colon, tab or line break in it."""
    return is_text(value) and bool(str(value).strip()) and not re.search(r"[:\t\r\n]", str(value))


def is_path(value: object) -> bool:
    """Whether text can be a path."""
    return is_text(value) and bool(str(value).strip()) and len(str(value)) < 4096


def is_separator(value: object) -> bool:
    """Whether text can stand between the columns of a line, or between the words of a cell."""
    return is_text(value) and 0 < len(str(value)) <= 10 and not re.search(r"[\r\n\"]", str(value))


def is_interval(value: object) -> bool:
    """Whether text is one interval or several joined by semicolons, the smaller end first: ``[5,inf)``."""
    if not isinstance(value, str):
        return False
    for part in value.split(";"):
        match = _INTERVAL.fullmatch(part.strip())
        if match is None:
            return False
        opens, low, high, closes = match.group(1), float(match.group(2)), float(match.group(3)), match.group(4)
        if low > high or (low == high and (opens == "(" or closes == ")")):
            return False
    return True


def is_rising(value: object) -> bool:
    """Whether a value is a list of rising numbers in [0, 1]."""
    if not isinstance(value, (list, tuple)) or not value or not all(is_number(one) for one in value):
        return False
    return value[0] >= 0 and value[-1] <= 1 and all(a < b for a, b in itertools.pairwise(value))


def is_gpus(value: object) -> bool:
    """Whether text names GPUs by their numbers, joined by commas; empty text means none."""
    return isinstance(value, str) and re.fullmatch(r"\s*|\s*\d{1,4}\s*(,\s*\d{1,4}\s*)*", value, re.ASCII) is not None


#: The kinds by name.
KINDS: dict[str, Kind] = {
    "int": Kind(is_whole, "a whole number"),
    "float": Kind(is_number, "a number"),
    "bool": Kind(lambda value: isinstance(value, bool), "true or false"),
    "str": Kind(is_text, "text"),
    "list": Kind(lambda value: isinstance(value, (list, tuple)), "a list"),
    "dict": Kind(lambda value: isinstance(value, dict), "a mapping"),
    "any": Kind(lambda value: True, "anything"),
    "path": Kind(is_path, "a path"),
    "encoding": Kind(is_encoding, "the name of an encoding, such as utf-8 or latin-1"),
    "separator": Kind(is_separator, "one to ten characters without quotes and line breaks"),
    "column": Kind(is_column, "the name of a column"),
    "interval": Kind(
        is_interval,
        "an interval: write [5,inf), with ( or ) where the end itself is excluded, several joined by semicolons",
    ),
    "rising": Kind(is_rising, "a rising list of numbers from 0 to 1"),
    "gpus": Kind(is_gpus, "the number of a GPU, several joined by commas, or empty for the CPU"),
}
#: Kinds whose values are text.
TEXTS = frozenset(("str", "path", "encoding", "separator", "column", "interval", "gpus"))


def shown(value: object) -> str:
    """A value as messages print it, in one line of bounded length."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or a value that holds itself
        text = f"a number of {value.bit_length()} bits" if isinstance(value, int) else f"<{type(value).__name__}>"
    text = " ".join(text.split())
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 3] + "..."


def memory(n_bytes: float) -> str:
    """A number of bytes in words: ``3.6 TiB``."""
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        n_bytes /= 1024
        if n_bytes < 1024:
            return f"{n_bytes:.1f} {unit}"
    return f"{n_bytes / 1024:.1f} PiB" if n_bytes < 1e9 else "more memory than there is"
