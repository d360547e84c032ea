"""What a frontier shows on the page: sentences, tables, and a plot of all fronts."""

from __future__ import annotations

from typing import Any

from recbole_fair.analysis.grid import setting_text
from recbole_fair.evaluator.directions import display_name
from recbole_fair.report.frontier import front_rows, ranked_methods
from recbole_fair.report.plots import Plot, axis, corner, layout, safe
from recbole_fair.report.style import BASE, MUTED, PALETTE, metric_label
from recbole_fair.report.summary import change
from recbole_fair.report.words import Values, direction, joined, short

_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")


def frontier_sentences(frontier: Values) -> list[str]:
    """Who wins within each budget, and whether that is certain."""
    y, base = frontier["y"], frontier["base"]["test"]
    sentences = [
        f"{len(frontier['settings'])} settings of {len(frontier['methods'])} methods were measured; winners are chosen "
        "on validation, values are those of test."
    ]
    for x in frontier["x"]:
        for loss in frontier["loss"]:
            rows = [row for row in frontier["winners"] if row["x"] == x and row["loss"] == loss]
            budget = f"for at most {100 * loss:g} % of {display_name(y)}"
            if not rows:
                sentences.append(f"No method betters {display_name(x)} {budget}: the base model is the answer.")
                continue
            first = rows[0]
            text = (
                f"{budget[0].upper()}{budget[1:]}, {first['method']} ({setting_text(first['setting'])}) gives the best "
                f"{display_name(x)}: {short(first['test'][x])} against the base's {short(base[x])}, with "
                f"{display_name(y)} {change(first['test'][y], base[y])}"
            )
            even = [row["method"] for row in rows[1:] if row.get("difference") and not row["difference"]["significant"]]
            text += f"; {joined(even)} cannot be told apart from it" if even else ""
            sentences.append(f"{text}.")
    return sentences


def frontier_tables(frontier: Values) -> list[tuple[Any, ...]]:
    """One table of winners a metric and budget, and one of hypervolumes: caption, header, rows and a note."""
    y, base, tables = frontier["y"], frontier["base"]["test"], []
    for x in frontier["x"]:
        for loss in frontier["loss"]:
            rows = []
            for row in frontier["winners"]:
                if row["x"] != x or row["loss"] != loss:
                    continue
                low, high = (row.get("intervals") or {}).get(x, (None, None))
                rows.append(
                    [
                        row["method"],
                        setting_text(row["setting"]),
                        short(row["test"][x]),
                        "–" if low is None else f"{short(low)} to {short(high)}",
                        short(row["test"][y]),
                        change(row["test"][y], base[y]),
                    ]
                )
            better = f"{display_name(x)} {direction(x)}"
            header = ["method", "setting", better, "95 % interval", display_name(y), "change"]
            caption = f"{display_name(x)} within {100 * loss:g} % of {display_name(y)}"
            note = f"Chosen on validation, values of test. Base: {short(base[x])} and {short(base[y])}."
            tables.append((caption, header, rows, note))
    rows = [
        [row["method"], short(row["settings"]), *(f"{row[f'hypervolume {x}']:.4f}" for x in frontier["x"])]
        for row in frontier["methods"]
    ]
    note = (
        f"Area that the front of a method dominates within {100 * max(frontier['loss']):g} % of {display_name(y)}, on "
        "test: 0 is no gain, 1 would be a perfect value at no loss."
    )
    header = ["method", "settings", *(display_name(x) for x in frontier["x"])]
    tables.append(("Hypervolume", header, rows, note))
    return tables


def frontier_plots(frontier: Values) -> list[Plot]:
    """All fronts on test, one plot a metric to better."""
    return [_plot(frontier, x) for x in frontier["x"]]


def _plot(frontier: Values, x: str) -> Plot:
    y, base, data = frontier["y"], frontier["base"]["test"], []
    ranked = ranked_methods(frontier, x)
    for place, method in enumerate(ranked):
        rows = front_rows(frontier, method, x)
        first = place < len(PALETTE)
        look = {"color": PALETTE[place] if first else MUTED}
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": safe(method),
                "x": [row[f"test {x}"] for row in rows],
                "y": [row[f"test {y}"] for row in rows],
                "text": [safe(f"{method}: {setting_text(row['setting'])}") for row in rows],
                "hovertemplate": f"%{{text}}<br>{display_name(x)} %{{x:.4g}}<br>{display_name(y)} %{{y:.4g}}"
                "<extra></extra>",
                "line": {**look, "width": 2 if first else 1},
                "marker": {**look, "size": 8 if first else 5, "symbol": _SYMBOLS[place % len(_SYMBOLS)]},
                "visible": True if first else "legendonly",
            }
        )
    data.append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": "base",
            "x": [base[x]],
            "y": [base[y]],
            "hovertemplate": "base<br>%{x:.4g}, %{y:.4g}<extra></extra>",
            "marker": {"color": BASE, "size": 15, "symbol": "star"},
        }
    )
    shapes = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": base[y] * (1 - loss),
            "y1": base[y] * (1 - loss),
            "line": {"color": BASE, "width": 1, "dash": "dash"},
        }
        for loss in frontier["loss"]
    ]
    best = ", ".join(ranked[:3]) or "none"
    return Plot(
        title=f"{display_name(y)} against {display_name(x)}, all methods",
        caption="Each line is the front of a method, chosen on validation and shown on test; dashed: the budgets. "
        "Methods in grey are switched on in the legend.",
        alt=f"Fronts of {len(ranked)} methods by {display_name(x)} and {display_name(y)}; largest areas: {best}.",
        data=data,
        layout=layout(
            axis(metric_label(x)),
            axis(metric_label(y)),
            shapes=shapes,
            annotations=[corner(x, y)],
            margin={"l": 52, "r": 14, "t": 50, "b": 44},
        ),
        height=520,
        table=(
            ["method", "setting", display_name(x), display_name(y)],
            [
                [row["method"], setting_text(row["setting"]), short(row[f"test {x}"]), short(row[f"test {y}"])]
                for method in ranked
                for row in front_rows(frontier, method, x)
            ],
        ),
        wide=True,
    )
