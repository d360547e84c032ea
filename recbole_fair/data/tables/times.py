"""Times in the forms in which tables have them, as seconds since 1970 in UTC."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from recbole_fair.data.tables.sources import Cells, Floats
from recbole_fair.errors import FairError

UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_UNIT_WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_ISO = re.compile(
    r"\d{4}-\d\d(-\d\d)?([T ]\d\d(:?\d\d(:?\d\d([.,]\d+)?)?)?)?\s*(Z|UTC|[+-]\d\d(:?\d\d)?)?", re.IGNORECASE
)
_SAMPLE = 5000
_MOST_UNREAD = 0.5  # share of a sample beyond which a form is not the column's
#: Forms that are tried one after the other where a column is neither numbers nor ISO; alternatives by day and month.
_PATTERNS = (
    ("%Y/%m/%d",), ("%Y/%m/%d %H:%M:%S",), ("%Y/%m/%d %H:%M",),
    ("%d.%m.%Y",), ("%d.%m.%Y %H:%M:%S",), ("%d.%m.%Y %H:%M",),
    ("%a %b %d %H:%M:%S %z %Y",), ("%a, %d %b %Y %H:%M:%S %z",), ("%a, %d %b %Y %H:%M:%S GMT",),
    ("%d %b %Y",), ("%d %b %Y, %H:%M",), ("%b %d, %Y",), ("%B %d, %Y",), ("%d %B %Y",),
    ("%m %d, %Y",), ("%d-%b-%Y",), ("%d-%b-%y",), ("%a %b %d %Y",), ("%d/%b/%Y:%H:%M:%S %z",),
    ("%m/%d/%Y", "%d/%m/%Y"), ("%m/%d/%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S"), ("%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M"),
    ("%m/%d/%y", "%d/%m/%y"), ("%m/%d/%y %H:%M", "%d/%m/%y %H:%M"),
    ("%m/%d/%Y %I:%M:%S %p", "%d/%m/%Y %I:%M:%S %p"), ("%m-%d-%Y", "%d-%m-%Y"),
    ("%m-%d-%Y %H:%M:%S", "%d-%m-%Y %H:%M:%S"),
)  # fmt: skip


@dataclass(frozen=True)
class TimeForm:
    """How a column writes its times.

    Attributes:
        words: the form, for people.
        read: cells ``[n]`` to seconds ``[n]``, NaN where there is no time of this form.
    """

    words: str
    read: Callable[[Cells], Floats]


def form_of_times(
    cells: Cells, column: str, unit: str | None = None, pattern: str | None = None, source: object = ""
) -> TimeForm:
    """Find the form of a column from some of its cells.

    Args:
        cells: the first rows ``[n]``.
        column: its name, for messages.
        unit: of numbers, a key of :data:`UNITS`; by their size when left out.
        pattern: as for :func:`datetime.datetime.strptime`; found when left out.
        source: the file, for messages.

    Raises:
        FairError: if no form fits more than half of the cells, or day and month cannot be told apart.
    """
    known = np.array([cell for cell in cells.tolist() if isinstance(cell, str)][:_SAMPLE], dtype=object)
    if pattern is not None:
        _check_pattern(pattern)
        form = TimeForm(f"dates as {pattern}", lambda texts: _by_pattern(texts, pattern))
        if len(known) and _unread(form, known) > _MOST_UNREAD:
            raise FairError(f"{source}: --time-format={pattern!r} does not read '{column}', such as {known[0]!r}.")
        return form
    if unit is not None:
        return _numbers(unit)
    if not len(known):
        return _numbers("s")
    numbers = _as_numbers(known)
    if np.isnan(numbers).mean() <= _MOST_UNREAD:
        return _form_of_numbers(known, numbers[~np.isnan(numbers)])
    if np.mean([_ISO.fullmatch(text.strip()) is not None for text in known]) >= 1 - _MOST_UNREAD:
        named = any(text.strip().upper().endswith("UTC") for text in known)
        return TimeForm("ISO dates", _iso_with_zone_names if named else _iso)
    return _form_of_dates(known, column, source)


def _unread(form: TimeForm, cells: Cells) -> float:
    return float(np.isnan(form.read(cells)).mean())


def _numbers(unit: str) -> TimeForm:
    if unit not in UNITS:
        raise FairError(f"time-unit={unit!r} is not one of {', '.join(UNITS)}.")
    return TimeForm(f"{_UNIT_WORDS[unit]} since 1970", lambda texts: _as_numbers(texts) / UNITS[unit])


def _as_numbers(texts: Cells) -> Floats:
    numbers = pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce").to_numpy(dtype=np.float64, copy=True)
    numbers[np.isinf(numbers)] = np.nan
    return numbers


def _form_of_numbers(texts: Cells, numbers: Floats) -> TimeForm:
    """Units by size: today is 1.7e9 seconds, 1.7e12 milliseconds and so on; numbers that are no epoch stay."""
    for pattern, low, high, words in (
        ("%Y%m%d", 19000101, 21001231, "days as 20150131"),
        ("%Y%m%d%H%M%S", 19000101000000, 21001231235959, "dates as 20150131235959"),
    ):
        if numbers.min() >= low and numbers.max() <= high and not np.isnan(_by_pattern(texts, pattern)).any():
            return TimeForm(words, lambda cells, pattern=pattern: _by_pattern(cells, pattern))  # type: ignore[misc]
    size = float(np.median(np.abs(numbers)))
    for unit, least in (("ns", 1e17), ("us", 1e14), ("ms", 1e11)):
        if size >= least:
            return _numbers(unit)
    return _numbers("s") if size >= 1e8 else TimeForm("numbers as they stand", _as_numbers)


def _seconds(parsed: Any) -> Floats:
    """Seconds of pandas' instants."""
    instants = np.asarray(parsed.tz_localize(None).values, dtype="datetime64[us]")
    seconds: Floats = instants.view(np.int64) / 1e6
    seconds[np.isnat(instants)] = np.nan
    return seconds


def _iso(texts: Cells) -> Floats:
    if int(pd.__version__.partition(".")[0]) < 2:
        return _seconds(pd.DatetimeIndex(pd.to_datetime(pd.Index(texts), utc=True, errors="coerce")))
    return _by_pattern(texts, "ISO8601")


def _iso_with_zone_names(texts: Cells) -> Floats:
    return _iso(np.array([_without_zone_name(text) for text in texts.tolist()], dtype=object))


def _without_zone_name(text: Any) -> Any:
    return text[:-3].rstrip() + "Z" if isinstance(text, str) and text[-3:] in ("UTC", "utc") else text


def _by_pattern(texts: Cells, pattern: str) -> Floats:
    return _seconds(pd.DatetimeIndex(pd.to_datetime(pd.Index(texts), format=pattern, utc=True, errors="coerce")))


def _check_pattern(pattern: str) -> None:
    try:
        pd.to_datetime(pd.Index(["1"]), format=pattern, errors="coerce")
    except (ValueError, re.error) as error:
        raise FairError(f"--time-format={pattern!r} cannot be used: {error}.") from error


def _form_of_dates(known: Cells, column: str, source: object) -> TimeForm:
    best: tuple[float, tuple[str, ...]] | None = None
    for alternatives in _PATTERNS:
        read = [1 - float(np.isnan(_by_pattern(known, pattern)).mean()) for pattern in alternatives]
        if max(read) < 1 - _MOST_UNREAD or (best is not None and max(read) <= best[0]):
            continue
        if len(read) == 2 and read[0] == read[1]:
            best = max(read), alternatives
        else:
            best = max(read), (alternatives[int(np.argmax(read))],)
    if best is None:
        raise FairError(
            f"{source}: '{column}' holds times such as {known[0]!r}, whose form is not known: name it by "
            "--time-format, such as --time-format='%d.%m.%Y %H:%M'."
        )
    if len(best[1]) == 2:
        raise FairError(
            f"{source}: '{column}' holds dates such as {known[0]!r}, in which day and month cannot be told apart: give "
            f"--time-format='{best[1][0]}' or --time-format='{best[1][1]}'."
        )
    pattern = best[1][0]
    return TimeForm(f"dates as {pattern}", lambda cells: _by_pattern(cells, pattern))


def as_texts(seconds: Floats) -> list[str]:
    """Seconds as an atomic file holds them: whole ones without a point, others with six digits at most."""
    whole = seconds == np.floor(seconds)
    if whole.all():
        return list(map(str, seconds.astype(np.int64).tolist()))
    return [f"{value:.6f}".rstrip("0").rstrip(".") for value in seconds.tolist()]


def day(seconds: float) -> str:
    """The day of an instant, for people; a number where it is none."""
    try:
        return str(np.datetime64(int(seconds), "s").astype("datetime64[D]"))
    except (ValueError, OverflowError):
        return f"{seconds:g}"


def span(low: float, high: float, form: str) -> str:
    """From when to when, for people."""
    if form == "numbers as they stand":
        return f"{low:g} to {high:g}"
    return f"{day(low)} to {day(high)}"
