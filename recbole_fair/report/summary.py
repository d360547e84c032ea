"""The table that a run prints at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recbole_fair.analysis.grid import value_text
from recbole_fair.evaluator.directions import display_name
from recbole_fair.io.text import visible


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a plain table: the first column to the left, the others to the right."""
    header, *rows = ([visible(cell) for cell in row] for row in (header, *rows))
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


def sweep_lines(result: Mapping[str, Any], decimals: int, most: int = 25) -> list[str]:
    """Lines that show a sweep: the base, the Pareto front on validation, and the chosen setting with its test values.

    Args:
        result: what :func:`recbole_fair.runs.sweep.sweep_checkpoint` returns.
        decimals: digits after the point.
        most: rows of the front at most; the files have all.
    """
    keys, names = list(result["grid"]), (result["x"], result["y"])
    columns = [(split, name) for split in ("valid", "test") for name in names]

    def row(title: Sequence[str], values: Mapping[str, float]) -> list[str]:
        return [*title, *(number(values[f"{split} {name}"], decimals) for split, name in columns)]

    base = {f"{split} {name}": values[name] for split, values in result["base"].items() for name in names}
    front = result["front"]
    step = max(1.0, (len(front) - 1) / (most - 1))
    shown = front if len(front) <= most else [front[round(step * place)] for place in range(most)]
    rows = [row(["base", *([""] * (len(keys) - 1))], base)]
    rows += [row([value_text(point[key]) for key in keys], point) for point in shown]
    header = [*keys, *(f"{split} {display_name(name)}" for split, name in columns)]
    lines = ["", f"Pareto front on validation, {len(front)} of {len(result['settings'])} settings"]
    if len(shown) < len(front):
        lines[-1] += f", {len(shown)} of them shown"
    lines += [*text_table(header, rows), ""]
    bounds = " and ".join(f"{display_name(b['metric'])} {b['sign']} {b['bound']:.4g}" for b in result["subject_to"])
    chosen = result["chosen"]
    if chosen is None:
        return [*lines, f"No setting keeps the bounds on validation ({bounds})."]
    strengths = ", ".join(f"{key}={value_text(chosen[key])}" for key in keys)
    rows = [
        [
            display_name(name),
            *(number(value, decimals) for value in (result["base"]["test"][name], chosen[f"test {name}"])),
            change(chosen[f"test {name}"], result["base"]["test"][name]),
        ]
        for name in result["base"]["test"]
    ]
    reason = f"the best {display_name(result['x'])} with {bounds or 'no bound'}"
    return [*lines, f"Chosen on validation, {reason}: {strengths}", *text_table(["test", "base", "chosen", ""], rows)]


def change(value: float, base: float) -> str:
    """By how much a value differs from a base, in percent; a dash where that says nothing."""
    says_something = base and value == value and base == base and value * base >= 0
    return f"{100 * (value / base - 1):+.1f} %" if says_something else "-"
