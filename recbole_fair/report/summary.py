"""The table that a run prints at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a plain table: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        others = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "  ".join([cells[0].ljust(widths[0]), *others]).rstrip()

    return [line(header), line(["-" * width for width in widths]), *(line(row) for row in rows)]


def number(value: Any, decimals: int) -> str:
    """A metric value for people: rounded, and a dash where there is none."""
    return "-" if value is None or value != value else f"{value:.{decimals}f}"


def metrics_table(result: Mapping[str, Any], decimals: int) -> list[str]:
    """Lines that show the test metrics, one column a variant, with the intervals where there are any.

    Args:
        result: the result document of a run.
        decimals: digits after the point.
    """
    test = result.get("test_result")
    if not test:
        return ["There is no test data, so there are no test results."]
    columns: Mapping[str, Mapping[str, float]] = result.get("variants") or {result["model"]: test}
    intervals = result.get("intervals") or {}
    rows = []
    for name in test:
        cells = [name, *(number(values.get(name), decimals) for values in columns.values())]
        if intervals:
            low, high = intervals.get(name, (None, None))
            cells.append(f"[{number(low, decimals)}, {number(high, decimals)}]")
        rows.append(cells)
    header = ["test", *columns, *(["95 % interval"] if intervals else [])]
    return ["", *text_table(header, rows), "", *result.get("notes", [])]


def sweep_lines(result: Mapping[str, Any], keys: Sequence[str], decimals: int) -> list[str]:
    """Lines that show a sweep: the base, the Pareto front on validation, and the chosen setting with its test values.

    Args:
        result: what :func:`recbole_fair.quick_start.sweep_checkpoint` returns.
        keys: the strengths of the grid.
        decimals: digits after the point.
    """
    names = (result["x"], result["y"])
    columns = [f"{split} {name}" for split in ("valid", "test") for name in names]

    def row(title: Sequence[str], values: Mapping[str, float]) -> list[str]:
        return [*title, *(number(values[column], decimals) for column in columns)]

    base = {f"{split} {name}": values[name] for split, values in result["base"].items() for name in names}
    rows = [row(["base", *([""] * (len(keys) - 1))], base)]
    rows += [row([f"{point[key]:g}" for key in keys], point) for point in result["front"]]
    lines = ["", *text_table([*keys, *columns], rows), ""]
    bounds = " and ".join(result["subject_to"]) or "no bound"
    chosen = result["chosen"]
    if chosen is None:
        return [*lines, f"No setting keeps the bounds on validation ({bounds})."]
    strengths = ", ".join(f"{key}={chosen[key]:g}" for key in keys)
    test = ", ".join(
        f"{name} {number(chosen[f'test {name}'], decimals)} (base {number(value, decimals)})"
        for name, value in result["base"]["test"].items()
    )
    return [*lines, f"Chosen on validation, best {result['x']} with {bounds}: {strengths}. On test: {test}."]
