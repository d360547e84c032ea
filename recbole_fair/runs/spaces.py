"""Search spaces: which keys a search varies and between what, from yaml or from RecBole's ``.hyper`` files.

Text is parsed, never evaluated.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_fair.config.catalogue import key_named
from recbole_fair.config.keys import Key, did_you_mean
from recbole_fair.config.layers import parse_value, properties_dir, read_yaml
from recbole_fair.errors import FairError

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)

_PARTS = ("low", "high", "log", "step")


@dataclass(frozen=True)
class Choice:
    """One of some values.

    Attributes:
        values: at least one; plain values of any kind.
    """

    values: tuple[Any, ...]

    def suggest(self, trial: optuna.Trial, key: str) -> Any:
        """Let a trial draw a value."""
        # Optuna stores texts and numbers; lists are known by their JSON text.
        labels = {json.dumps(value): value for value in self.values}
        return labels[trial.suggest_categorical(key, list(labels))]

    def stored(self, value: Any) -> Any:
        """A value as Optuna knows it."""
        return json.dumps(value)

    def holds(self, value: Any) -> bool:
        """Whether a value lies in the space."""
        return value in self.values

    def ends(self) -> tuple[Any, ...]:
        """Values that have to be allowed for the whole space to be."""
        return self.values


@dataclass(frozen=True)
class Numbers:
    """Numbers between two ends, both included.

    Attributes:
        low: smallest.
        high: largest.
        log: whether equal ratios are equally likely, not equal differences.
        step: distance of neighbours, counted from ``low``; None for all numbers.
        whole: whether they are whole numbers.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    def suggest(self, trial: optuna.Trial, key: str) -> Any:
        """Let a trial draw a value."""
        if self.whole:
            return trial.suggest_int(key, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(key, self.low, self.high, step=self.step, log=self.log)

    def stored(self, value: Any) -> Any:
        """A value as Optuna knows it."""
        return value

    def holds(self, value: Any) -> bool:
        """Whether a value lies in the space."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return False
        if self.whole and value != int(value):
            return False
        if self.step is None:
            return True
        steps = (value - self.low) / self.step
        return math.isclose(steps, round(steps), abs_tol=1e-9)

    def ends(self) -> tuple[Any, ...]:
        """Values that have to be allowed for the whole space to be."""
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)


Dimension = Choice | Numbers
Space = dict[str, Dimension]


def read_space(path: str | Path) -> Space:
    """Read a search space: RecBole's form from a file whose name ends in ``.hyper`` or ``.test``, else yaml.

    In yaml a key has a list of choices, or ``{low: 0, high: 5}`` with, if wanted, ``log: true`` or ``step: 0.5``; whole
    numbers where both ends (and the step) are whole. A line of RecBole's form is a key, ``choice``, ``uniform``,
    ``loguniform`` or ``quniform``, and a list or numbers; the numbers of ``loguniform`` are natural exponents there:
    ``-8,0`` is .000335 to 1. A line without all three parts is passed over there, and here with a warning.

    Args:
        path: the file.

    Returns:
        Key to its values.

    Raises:
        FairError: for a file that cannot be read or holds no space.
    """
    file = Path(path)
    if file.suffix in (".hyper", ".test"):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise FairError(f"params_file={path} cannot be read: {error}.") from error
        space = {}
        for number, line in enumerate(lines, start=1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) < 3:  # RecBole passes over such lines without a word, and one of its own files has one
                logger.warning(
                    "%s, line %d: %s is not varied, as under RecBole: the line needs a key, choice or uniform or the "
                    "like, and the values.",
                    path,
                    number,
                    words[0],
                )
                continue
            if words[0] in space:
                raise FairError(f"{path}, line {number}: {words[0]} is given twice.")
            space[words[0]] = _recbole_dimension(words[0], words[1], "".join(words[2:]), f"{path}, line {number}")
    else:
        space = {key: dimension_of(key, value, str(path)) for key, value in read_yaml(file).items()}
    if not space:
        raise FairError(f"{path} holds no search space: name at least one key.")
    return space


def _recbole_dimension(key: str, kind: str, text: str, where: str) -> Dimension:
    if kind == "choice":
        values = parse_value("space", text)
        if not isinstance(values, list) or not values:
            raise FairError(f"{where}: {key} choice {text} is not a list; write choice [1,2,3].")
        # RecBole writes lists of lists as texts, which its configuration evaluates; here they are parsed.
        return Choice(tuple(_plain(parse_value(key, v)) if isinstance(v, str) else _plain(v) for v in values))
    counts = {"uniform": 2, "loguniform": 2, "quniform": 3}
    if kind not in counts:
        raise FairError(f"{where}: {kind} is not a kind of values{did_you_mean(kind, ('choice', *counts))}")
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != counts[kind] or not all(map(math.isfinite, numbers)):
        raise FairError(f"{where}: {key} {kind} {text} needs {counts[kind]} numbers, joined by a comma.")
    if kind == "loguniform":
        if max(map(abs, numbers)) > 300:
            raise FairError(
                f"{where}: {key} loguniform {text}: the numbers are exponents of e, so -8,0 is .000335 to 1."
            )
        return _numbers(key, math.exp(numbers[0]), math.exp(numbers[1]), log=True, step=None, where=where)
    step = numbers[2] if kind == "quniform" else None
    return _numbers(key, numbers[0], numbers[1], log=False, step=step, where=where)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def dimension_of(key: str, value: Any, where: str) -> Dimension:
    """One key's part of a space, out of yaml.

    Args:
        key: the key.
        value: a list of choices, or a mapping with ``low`` and ``high``.
        where: the file, for messages.

    Raises:
        FairError: for anything else, or impossible ends.
    """
    if isinstance(value, list) and value:
        return Choice(tuple(value))
    if not isinstance(value, Mapping) or not {"low", "high"} <= set(value):
        raise FairError(f"{where}: {key} needs a list of choices, or {{low: 0, high: 5}}.")
    for part in value:
        if part not in _PARTS:
            raise FairError(f"{where}: {key} has a part {part!r}{did_you_mean(str(part), _PARTS)}")
    low, high, step, log = value["low"], value["high"], value.get("step"), value.get("log", False)
    given = [low, high] if step is None else [low, high, step]
    if any(isinstance(n, bool) or not isinstance(n, (int, float)) or not math.isfinite(n) for n in given):
        raise FairError(f"{where}: {key} needs finite numbers as low, high and step.")
    return _numbers(key, low, high, log=log is True, step=step, where=where)


def _numbers(key: str, low: float, high: float, *, log: bool, step: float | None, where: str) -> Numbers:
    if low >= high:
        raise FairError(f"{where}: {key} runs from {low:g} to {high:g}: low must be below high.")
    if log and (low <= 0 or step is not None):
        raise FairError(f"{where}: {key} with log: true needs a low above 0 and no step.")
    if step is not None and step <= 0:
        raise FairError(f"{where}: {key} needs a step above 0, not {step:g}.")
    whole = all(isinstance(n, int) for n in (low, high) if n is not None) and (step is None or isinstance(step, int))
    return Numbers(low, high, log, step, whole)


def check_space(space: Space, model_class: type[Any], known: Sequence[str], reranker_keys: Mapping[str, Key]) -> None:
    """See that every value of a space is allowed for its key.

    Args:
        space: the space.
        model_class: the model that is tuned.
        known: names of all keys that the model reads.
        reranker_keys: the chosen re-ranker's keys and what they may hold.

    Raises:
        FairError: for a key that is not known, or an end that it must not have.
    """
    for key, dimension in space.items():
        if key not in known and key not in reranker_keys:
            raise FairError(f"space: {key} is not a known key{did_you_mean(key, (*known, *reranker_keys))}")
        allowed = reranker_keys.get(key) or key_named(key, model_class)
        for value in dimension.ends():
            if allowed is not None and not allowed.accepts(value):
                raise FairError(f"space: {key}={value!r} is not allowed: it must be {allowed.allowed()}.")


def shipped_space(names: Sequence[str]) -> Path | None:
    """The space that comes with a model: ``properties/tune/<Name>.yaml`` of the first of these names that has one."""
    for name in names:
        file = properties_dir() / "tune" / f"{name}.yaml"
        if file.is_file():
            return file
    return None
