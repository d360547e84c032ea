"""What a configuration key is: what it may hold, and what depends on it.

Which keys there are stands in :mod:`recbole_fair.config.general_keys`, beside each method
(``model/<method>/keys.py``) and in each re-ranker's class; :mod:`recbole_fair.config.catalogue` finds them all.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "list": (list, tuple),
    "dict": (dict,),
    "any": (object,),
}
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "dict": "a mapping",
    "any": "anything",
}


#: What depends on a key. ``file``: nothing but the file that it names, which is written. ``machine``: how fast, where
#: and how visibly a run works, but no number. ``start``: the weights that training starts from. ``protocol``: data,
#: split, masks and the choice of the epoch; part of training, and free when a checkpoint is evaluated. ``evaluation``:
#: what is measured, but not what is learnt. ``strength``: read when scores are made, never in training. ``training``:
#: the rest.
SCOPES = ("file", "machine", "start", "protocol", "evaluation", "strength", "training")


@dataclass(frozen=True)
class Key:
    """What one configuration key may hold.

    Attributes:
        kind: ``int``, ``float``, ``bool``, ``str``, ``list``, ``dict`` or ``any``; several joined by ``|``
            (``"float|str"``: a number or one of ``choices``).
        low: smallest allowed number, or None.
        high: largest allowed number, or None.
        choices: allowed texts, or None for any text.
        what: one line for humans: what the key does, with its unit.
        open_low: whether ``low`` itself is excluded.
        open_high: whether ``high`` itself is excluded.
        many: whether a list of such values is allowed as well.
        optional: whether null is allowed (null means "not set").
        scope: what depends on it, one of :data:`SCOPES`; every list of keys is derived from this.
        default: its value where no yaml file of the package names one: for methods of one's own.
        text: whether a value on the command line stays text although other kinds are allowed too.
        imports: whether it may name a class by its import path, ``module:Class``.
    """

    kind: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None
    what: str = ""
    open_low: bool = False
    open_high: bool = False
    many: bool = False
    optional: bool = False
    scope: str = "training"
    default: Any = None
    text: bool = False
    imports: bool = False

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise ValueError(f"{self.scope!r} is not a scope: {', '.join(SCOPES)}.")

    @property
    def is_text(self) -> bool:
        """Whether a value is always one text, so that ``2015`` or ``[5,10)`` on the command line stays text."""
        return self.text or (self.kind == "str" and not self.many)

    def allowed(self) -> str:
        """Say the allowed values in words, as error messages print them."""
        parts = []
        for kind in self.kind.split("|"):
            if kind == "str" and self.choices is not None:
                parts.append("one of " + ", ".join(self.choices))
            elif kind in ("int", "float"):
                parts.append(_WORDS[kind] + self._range())
            else:
                parts.append(_WORDS[kind])
        words = " or ".join(parts)
        if self.many:
            words += ", or a list of these"
        if self.optional:
            words += ", or null"
        return words

    def _range(self) -> str:
        low_sign, high_sign = ("above " if self.open_low else "at least "), ("below " if self.open_high else "at most ")
        bounds = []
        if self.low is not None:
            bounds.append(f"{low_sign}{self.low:g}")
        if self.high is not None:
            bounds.append(f"{high_sign}{self.high:g}")
        return (" " + " and ".join(bounds)) if bounds else ""

    def accepts(self, value: Any) -> bool:
        """Whether ``value`` is of the right kind and inside the range.

        Args:
            value: the value after YAML parsing.

        Returns:
            True when the value may be used.
        """
        if value is None:
            return self.optional
        if self.many and isinstance(value, (list, tuple)):
            return len(value) > 0 and all(v is not None and self._accepts_one(v) for v in value)
        return self._accepts_one(value)

    def _in_range(self, value: Any) -> bool:
        # bool is an int in Python, but `epochs: true` is a slip.
        if isinstance(value, bool) or not math.isfinite(value):
            return False
        if self.low is not None and (value < self.low or (self.open_low and value == self.low)):
            return False
        return self.high is None or not (value > self.high or (self.open_high and value == self.high))

    def _accepts_one(self, value: Any) -> bool:
        for kind in self.kind.split("|"):
            if not isinstance(value, _KINDS[kind]):
                continue
            if kind in ("int", "float") and not self._in_range(value):
                continue
            if kind == "str" and self.choices is not None and value not in self.choices:
                continue
            return True
        return False


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest in spelling to ``name``, upper and lower case alike, or None when nothing is close."""
    by_lower: dict[str, str] = {}
    for candidate in sorted(known):
        by_lower.setdefault(candidate.lower(), candidate)
    hits = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[hits[0]] if hits else None


def metric_parts(metric: str) -> tuple[str, int | None, str]:
    """Name, count and list length in a metric's name: ``ItemCoverage``, 5 and ``10`` in ``ItemCoverage_min5@10``."""
    name, _, cutoff = metric.partition("@")
    base, mark, count = name.lower().rpartition("_min")
    counted = bool(mark) and count.isdigit()
    return name[: len(base)] if counted else name, int(count) if counted else None, cutoff


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest known name, or a full stop when nothing is close: ends a sentence."""
    hit = nearest(name, known)
    return f"; did you mean '{hit}'?" if hit else "."
