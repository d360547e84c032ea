"""Tables of the catalogue of results as Markdown: our means and deviations, and the paper's numbers beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from recbole_fair.config.results import Row, Table
from recbole_fair.errors import FairError

#: Where a page wants a table: ``<!-- results NAME -->`` and ``<!-- end of NAME -->``, what is between them is replaced.
_PLACE = re.compile(r"<!-- results (\S+) -->\n.*?<!-- end of \1 -->", re.DOTALL)
_OPENED = re.compile(r"<!-- (?:results|end of) (\S+) -->")


def cell(value: float | None, deviation: float | None = None, whole: bool = False) -> str:
    """A number as the tables print it: four digits after the point, fewer of large ones.

    Args:
        value: the number; None gives an empty cell.
        deviation: its standard deviation.
        whole: whether it counts something.
    """
    if value is None:
        return ""
    digits = 0 if whole else 1 if abs(value) >= 10 else 4
    text = f"{value:.{digits}f}"
    return text if deviation is None else f"{text} ± {deviation:.{digits}f}"


def change(value: float, base: float) -> str:
    """``(-3.8 %)``: a value as a change of another one."""
    return f"({100 * (value / base - 1):+.1f} %)"


def markdown(table: Table) -> str:
    """The table: a column a metric, and the paper's numbers in columns of their own where it prints any."""
    theirs = [metric for metric in table.metrics if any(metric in row.paper for row in table.rows)]
    heads = dict(zip(table.metrics, table.heads, strict=True))
    seeds = len({len(row.seeds) for row in table.rows if row.repeatable}) > 1
    top = ["", *(["seeds"] if seeds else []), *table.heads, *(f"paper: {heads[m]}" for m in theirs), *table.also]
    base = next((row for row in table.rows if row.name == table.change), None)
    lines = ["| " + " | ".join(top) + " |", "|" + "---|" * len(top)]
    for row in table.rows:
        cells = [row.label, *([str(len(row.seeds)) if row.ours else ""] if seeds else [])]
        cells += _measured(row, table, base)
        cells += [cell(row.paper.get(metric)) for metric in theirs]
        cells += row.also or ("",) * len(table.also)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _measured(row: Row, table: Table, base: Row | None) -> list[str]:
    cells = [
        cell(row.ours.get(metric), row.sd.get(metric), metric.startswith("aggregatediversity"))
        for metric in table.metrics
    ]
    first = table.metrics[0]
    if base is not None and row is not base and first in row.ours:
        cells[0] += " " + change(row.ours[first], base.ours[first])
    return cells


def filled(page: str, tables: Mapping[str, Table]) -> str:
    """A page with its tables as the catalogue has them.

    Args:
        page: Markdown with places for tables.
        tables: of the catalogue, by name.

    Raises:
        FairError: for a place of a table that the catalogue does not hold, or one that does not end.
    """

    def table(place: re.Match[str]) -> str:
        name = place[1]
        if name not in tables:
            raise FairError(f"The catalogue of results holds no table {name!r}.")
        return f"<!-- results {name} -->\n\n{markdown(tables[name])}\n\n<!-- end of {name} -->"

    opened, places = _OPENED.findall(page), [place[1] for place in _PLACE.finditer(page)]
    if sorted(opened) != sorted(places * 2):
        odd = next(name for name in opened if name not in places)
        raise FairError(f"The place of the table {odd} does not begin and end.")
    return _PLACE.sub(table, page)
