"""Grids of settings as they are written on the command line."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from recbole_fair.config.layers import parse_value
from recbole_fair.errors import FairError

Setting = dict[str, Any]

MOST_SETTINGS = 100_000


def parse_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Read ``key=start:stop:step`` (both ends included) and ``key=a,b,c``.

    Args:
        texts: one text a key. Values are whole numbers, numbers, ``true`` and ``false``, or words; a range of whole
            numbers with a whole step holds whole numbers.

    Returns:
        Key to its values, each value once.

    Raises:
        FairError: for a text of another form, a step that leads nowhere, a key given twice, or an empty grid.
    """
    grid: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        key = key.strip().replace("-", "_")
        if not key or not equals or key in grid:
            raise FairError(f"grid={text!r} is not allowed: give each key once, as key=0:5:0.5 or key=0,0.5,1.")
        grid[key] = list(dict.fromkeys(_values(key, text, values)))
    if not grid:
        raise FairError("The grid is empty: give at least one --grid key=0:5:0.5.")
    if math.prod(map(len, grid.values())) > MOST_SETTINGS:
        raise FairError(f"The grid has more than {MOST_SETTINGS} settings: take larger steps or fewer values.")
    return grid


def _values(key: str, text: str, values: str) -> list[Any]:
    parts = [part.strip() for part in values.split(":" if ":" in values else ",")]
    numbers: list[Any] = [parse_value(key, part) if part else None for part in parts]
    if any(number is None or isinstance(number, (list, dict)) for number in numbers):
        raise FairError(f"grid={text!r} is not allowed: a value is missing; write key=0:5:0.5 or key=0,0.5,1.")
    if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
        raise FairError(f"grid={text!r} is not allowed: give finite numbers.")
    if ":" not in values:
        return numbers
    if len(numbers) != 3 or any(isinstance(n, bool) or not isinstance(n, (int, float)) for n in numbers):
        raise FairError(f"grid={text!r} is not allowed: give three numbers, as key=start:stop:step.")
    start, stop, step = numbers
    if step <= 0 or stop < start:
        raise FairError(f"grid={text!r} is empty: the step must be above 0 and the end not below the start.")
    steps = (stop - start) / step + 1e-9
    if steps >= MOST_SETTINGS:
        raise FairError(f"grid={text!r} has more than {MOST_SETTINGS} values: take a larger step.")
    made = [start + number * step for number in range(int(steps) + 1)]
    return made if all(isinstance(number, int) for number in numbers) else [round(value, 12) for value in made]


def settings_of(grid: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """All combinations of a grid's values, the last key changing fastest."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def setting_text(setting: Mapping[str, Any]) -> str:
    """A setting in words, such as ``alpha_pop=2, beta=0.5``."""
    return ", ".join(f"{key}={value_text(value)}" for key, value in setting.items())


def value_text(value: Any) -> str:
    """A value of a setting in words: numbers without needless digits."""
    return f"{value:g}" if isinstance(value, float) else str(value)
