"""What a configuration key is: what it may hold, and what depends on it.

Which keys there are stands in :mod:`recbole_fair.config.general_keys`, beside each method
(``model/<method>/keys.py``) and in each re-ranker's class; :mod:`recbole_fair.config.catalogue` finds them all.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from recbole_fair.config.kinds import KINDS, TEXTS, is_number, is_whole, memory, shown

#: What depends on a key. ``file``: nothing but the file that it names, which is written. ``machine``: how fast, where
#: and how visibly a run works, but no number. ``start``: the weights that training starts from. ``protocol``: data,
#: split, masks and the choice of the epoch; part of training, and free when a checkpoint is evaluated. ``evaluation``:
#: what is measured, but not what is learnt. ``strength``: read when scores are made, never in training. ``training``:
#: the rest.
SCOPES = ("file", "machine", "start", "protocol", "evaluation", "strength", "training")

#: Bounds of numbers whose key names none: beyond them no machine, or no float, follows.
MOST_WHOLE, MOST_NUMBER = 10**9, 1e12


@dataclass(frozen=True)
class Need:
    """What a unit of a number needs, for the message on one that is too large.

    Attributes:
        n_bytes: of memory, at the least.
        of: what the memory is for.
    """

    n_bytes: float
    of: str

    def say(self, value: float) -> str:
        """In words, for this many units."""
        return f"{value:g} would need {memory(self.n_bytes * value)} {self.of}"


@dataclass(frozen=True)
class Key:
    """What one configuration key may hold.

    Attributes:
        kind: a name in :data:`~recbole_fair.config.kinds.KINDS`; several joined by ``|`` (``"float|str"``: a number or
            one of ``choices``).
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
        of: what each member of a list, or each value of a mapping, may hold.
        parts: what the values of a mapping may hold, by their names; no other names are allowed.
        check: says what is wrong with a value of the right kind, as the end of a sentence; None where nothing is.
        need: what a unit of a number needs.
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
    of: Key | None = None
    parts: Mapping[str, Key] | None = None
    check: Callable[[Any], str | None] | None = None
    need: Need | None = None

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise ValueError(f"{self.scope!r} is not a scope: {', '.join(SCOPES)}.")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the kinds."""
        return tuple(self.kind.split("|"))

    @property
    def is_text(self) -> bool:
        """Whether a value is always one text, so that ``2015`` or ``[5,10)`` on the command line stays text."""
        return self.text or (self.kind in TEXTS and not self.many)

    def allowed(self) -> str:
        """Say the allowed values in words, as error messages print them."""
        parts = []
        for kind in self.kinds:
            if kind == "str" and self.choices is not None:
                parts.append("one of " + ", ".join(self.choices))
            elif kind in ("int", "float"):
                parts.append(KINDS[kind].words + self._range())
            elif kind in ("list", "dict") and self.of is not None:
                parts.append(f"{KINDS[kind].words} {'of' if kind == 'list' else 'of names to'} ({self.of.allowed()})")
            else:
                parts.append(KINDS[kind].words)
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
            bounds.append(f"{low_sign}{self.low:.12g}")
        if self.high is not None:
            bounds.append(f"{high_sign}{self.high:.12g}")
        return (" " + " and ".join(bounds)) if bounds else ""

    def as_kind(self, value: Any) -> Any:
        """The value; a whole number as a float where the key holds any number, so that what lies between is meant."""
        return float(value) if "float" in self.kind.split("|") and is_whole(value) else value

    def accepts(self, value: Any) -> bool:
        """Whether a value may be used.

        Args:
            value: the value after YAML parsing.

        Returns:
            True when it is of the right kind and inside the range.
        """
        return self.complaint("", value) is None

    def complaint(self, name: str, value: Any) -> str | None:
        """What is wrong with a value, as a sentence that names key, value and what is allowed; None for nothing.

        Args:
            name: the key, or the way to a part of it (``eval_args: split``).
            value: the value after YAML parsing.
        """
        if value is None and self.optional:
            return None
        if isinstance(value, Mapping) and self.parts is not None:
            return self._complaint_of_parts(name, value)
        if isinstance(value, Mapping) and self.of is not None and "dict" in self.kinds:
            for part, inner in value.items():
                found = self.of.complaint(f"{name}: {part}", inner) if isinstance(part, str) else None
                if found is not None:
                    return found
        if not self._accepts(value):
            return f"{name}={shown(value)} is not allowed: it must be {self.allowed()}{self._why(value)}."
        said = self.check(value) if self.check is not None else None
        return None if said is None else f"{name}={shown(value)} is not allowed: {said}."

    def _complaint_of_parts(self, name: str, value: Mapping[Any, Any]) -> str | None:
        assert self.parts is not None
        for part, inner in value.items():
            if part not in self.parts:
                hint = did_you_mean(str(part), self.parts)
                return f"{name}: {shown(part)} is not one of {', '.join(self.parts)}{hint}"
            found = self.parts[part].complaint(f"{name}: {part}", inner)
            if found is not None:
                return found
        said = self.check(value) if self.check is not None else None
        return None if said is None else f"{name}={shown(value)} is not allowed: {said}."

    def _why(self, value: Any) -> str:
        """What stands against a number that is too large."""
        largest = max((one for one in (value if isinstance(value, list) else [value]) if is_number(one)), default=0)
        if self.need is not None and self.high is not None and largest > self.high:
            return f" ({self.need.say(largest)})"
        if self.high is None and abs(largest) > MOST_WHOLE and {"int", "float"} & set(self.kinds):
            return f", and not beyond {MOST_WHOLE if 'int' in self.kinds else MOST_NUMBER:.12g}"
        return ""

    def _in_range(self, value: float, most: float) -> bool:
        if self.low is not None and (value < self.low or (self.open_low and value == self.low)):
            return False
        if self.high is None:
            return value <= most and (self.low is not None or value >= -most)
        return not (value > self.high or (self.open_high and value == self.high))

    def _accepts(self, value: Any) -> bool:
        if self.many and isinstance(value, (list, tuple)):
            return len(value) > 0 and all(v is not None and self._accepts_one(v) for v in value)
        return self._accepts_one(value)

    def _accepts_one(self, value: Any) -> bool:
        for kind in self.kinds:
            if not KINDS[kind].accepts(value):
                continue
            if kind == "int" and not self._in_range(value, MOST_WHOLE):
                continue
            if kind == "float" and not self._in_range(value, MOST_NUMBER):
                continue
            if kind == "str" and self.choices is not None and value not in self.choices:
                continue
            if kind == "list" and self.of is not None and not all(self.of.accepts(one) for one in value):
                continue
            if kind == "dict" and self.of is not None and not self._accepts_mapping(value):
                continue
            return True
        return False

    def _accepts_mapping(self, value: Mapping[Any, Any]) -> bool:
        assert self.of is not None
        return all(isinstance(name, str) and self.of.accepts(one) for name, one in value.items())


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest in spelling to ``name``, upper and lower case alike, or None when nothing is close."""
    by_lower: dict[str, str] = {}
    for candidate in sorted(known):
        by_lower.setdefault(candidate.lower(), candidate)
    hits = difflib.get_close_matches(name[:100].lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[hits[0]] if hits else None


def metric_parts(metric: str) -> tuple[str, int | None, str]:
    """Name, count and list length in a metric's name: ``ItemCoverage``, 5 and ``10`` in ``ItemCoverage_min5@10``."""
    name, _, cutoff = metric.partition("@")
    base, mark, count = name.lower().rpartition("_min")
    counted = bool(mark) and count.isascii() and count.isdigit()
    if cutoff.isascii() and cutoff.isdigit():
        cutoff = cutoff.lstrip("0") or "0"  # NDCG@05 is NDCG@5
    return name[: len(base)] if counted else name, int(count) if counted else None, cutoff


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest known name, or a full stop when nothing is close: ends a sentence."""
    hit = nearest(name, known)
    return f"; did you mean '{hit}'?" if hit else "."
