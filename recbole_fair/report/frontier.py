"""A frontier in lines and as a figure: every method's front, the budgets, and who wins within them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recbole_fair.analysis.grid import setting_text
from recbole_fair.evaluator.directions import display_name
from recbole_fair.report.style import BASE, LINES, MARKERS, MUTED, PALETTE, house_style, label_axes, new_figure
from recbole_fair.report.summary import change, number, text_table

Row = Mapping[str, Any]
_COLOURED = len(PALETTE)


def ranked_methods(result: Mapping[str, Any], x: str) -> list[str]:
    """Methods by their hypervolume for a metric, the largest first; those without any stay out."""
    rows = [row for row in result["methods"] if row[f"hypervolume {x}"] > 0]
    return [row["method"] for row in sorted(rows, key=lambda row: -row[f"hypervolume {x}"])]


def shown_methods(result: Mapping[str, Any]) -> list[str]:
    """The methods that get a colour: the first of each metric, then the second of each, and so on."""
    ranked = [ranked_methods(result, x) for x in result["x"]]
    order = [methods[place] for place in range(len(result["methods"])) for methods in ranked if place < len(methods)]
    return list(dict.fromkeys(order))[:_COLOURED]


def front_rows(result: Mapping[str, Any], method: str, x: str) -> list[Row]:
    """The settings on a method's validation front, by their value of x on test."""
    rows = [row for row in result["settings"] if row["method"] == method and x in row["front"]]
    return sorted(rows, key=lambda row: row[f"test {x}"])


@house_style()
def frontier_figure(result: Mapping[str, Any]) -> Figure:
    """One panel a metric to better: on test, the settings of each method's validation front, with the budgets.

    Args:
        result: what :func:`recbole_fair.runs.frontier.frontier_checkpoint` returns, or its JSON document.

    Returns:
        The figure; :func:`~recbole_fair.report.style.save_figure` writes it.
    """
    metrics = list(result["x"])
    figure, panels = new_figure(1, len(metrics), width=max(6.6, 5.4 * len(metrics)), height=5.6, squeeze=False)
    coloured = shown_methods(result)
    for axes, x in zip(panels[0], metrics, strict=True):
        _draw(axes, result, x, coloured)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    title = f"{result['model']} on {result['dataset']}: what each method buys (test; chosen on validation)"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def _draw(axes: Axes, result: Mapping[str, Any], x: str, coloured: Sequence[str]) -> None:
    y, base = result["y"], result["base"]["test"]
    others = [method for method in ranked_methods(result, x) if method not in coloured]
    for place, method in enumerate(others):
        rows = front_rows(result, method, x)
        axes.plot(
            [row[f"test {x}"] for row in rows], [row[f"test {y}"] for row in rows], ".-", color=MUTED, linewidth=0.8,
            alpha=0.7, zorder=1, label=f"{len(others)} other methods" if place == 0 else None,
        )  # fmt: skip
    for place, method in enumerate(coloured):
        rows = front_rows(result, method, x)
        axes.plot(
            [row[f"test {x}"] for row in rows], [row[f"test {y}"] for row in rows], marker=MARKERS[place],
            linestyle=LINES[place], color=PALETTE[place], label=method, zorder=3,
        )  # fmt: skip
    axes.plot([base[x]], [base[y]], marker="*", linestyle="", color=BASE, markersize=13, label="base", zorder=5)
    for loss in result["loss"]:
        at = base[y] * (1 - loss)
        axes.axhline(at, color=BASE, linestyle="--", linewidth=0.8, zorder=0)
        note = axes.annotate(
            f"-{100 * loss:g} %", (1, at), xycoords=("axes fraction", "data"), xytext=(-2, 2),
            textcoords="offset points", ha="right", fontsize=8, annotation_clip=True,
        )  # fmt: skip
        note.set_in_layout(False)  # a budget below what is shown must not take the room of the axes
    shown = [row for method in (*others, *coloured) for row in front_rows(result, method, x)]
    lowest = base[y] * (1 - 1.6 * max(result["loss"]))
    near = [row for row in shown if row[f"test {y}"] >= lowest] or shown
    if near:
        values = [row[f"test {y}"] for row in near] + [base[y]]
        room = 0.05 * (max(values) - min(values) or 1)
        axes.set_ylim(max(min(values), lowest) - room, max(values) + room)
        across = [row[f"test {x}"] for row in near] + [base[x]]
        room = 0.05 * (max(across) - min(across) or 1)
        axes.set_xlim(min(across) - room, max(across) + room)
    label_axes(axes, x, y)


def frontier_lines(result: Mapping[str, Any], decimals: int) -> list[str]:
    """Lines that say who wins within each budget, and the hypervolumes.

    Args:
        result: the document.
        decimals: digits after the point.
    """
    y, test = result["y"], result["base"]["test"]
    lines = ["", f"{len(result['settings'])} settings of {len(result['methods'])} methods on {result['dataset']}"]
    for x in result["x"]:
        for loss in result["loss"]:
            rows = [row for row in result["winners"] if row["x"] == x and row["loss"] == loss]
            lines += ["", _heading(x, y, loss, result)]
            if not rows:
                lines.append("No method betters it within the budget: the base model is the answer.")
                continue
            table = [["base", "", number(test[x], decimals), "", number(test[y], decimals), "", ""]]
            for row in rows[:6]:
                low, high = (row.get("intervals") or {}).get(x, (None, None))
                table.append(
                    [
                        row["method"],
                        setting_text(row["setting"]),
                        number(row["test"][x], decimals),
                        "" if low is None else f"[{number(low, decimals)}, {number(high, decimals)}]",
                        number(row["test"][y], decimals),
                        change(row["test"][y], test[y]),
                        _verdict(row),
                    ]
                )
            header = ["method", "setting", f"test {display_name(x)}", "95 % interval", f"test {display_name(y)}"]
            lines += text_table([*header, "", ""], table)
    columns = [f"hypervolume {x}" for x in result["x"]]
    volumes = [
        [row["method"], str(row["settings"]), *(f"{row[name]:.4f}" for name in columns)] for row in result["methods"]
    ]
    lines += ["", f"Hypervolume on test within {100 * max(result['loss']):g} % of {display_name(y)}"]
    lines += text_table(["method", "settings", *(display_name(x) for x in result["x"])], volumes)
    for one in result["skipped"]:
        lines.append(f"Not tried: {one['method']}. {one['reason']}")
    return lines


def _heading(x: str, y: str, loss: float, result: Mapping[str, Any]) -> str:
    bound = result["base"]["valid"][y] * (1 - loss)
    return (
        f"Best {display_name(x)} on validation for at most {100 * loss:g} % of {display_name(y)} "
        f"(at least {bound:.4g} there), with test values"
    )


def _verdict(row: Row) -> str:
    difference = row.get("difference")
    if difference is None:
        return "winner" if row["place"] == 1 else ""
    return "differs from the winner" if difference["significant"] else "not told apart from the winner"
