"""What a comparison of several systems shows, on the page."""

from __future__ import annotations

from typing import Any

from recbole_fair.analysis.pareto import front_of
from recbole_fair.evaluator.directions import display_name
from recbole_fair.report.plots import Plot, axis, corner, layout, safe
from recbole_fair.report.style import BASE, PALETTE, metric_label
from recbole_fair.report.words import HEADLINES, Values, direction, joined, short, signed

_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "pentagon", "hexagon", "x", "star")
LEVEL = 0.05
MOST = 60  # rows of the table of differences
SAID = 5  # systems that are compared in words


def comparison_sentences(comparison: Values) -> list[str]:
    """What a comparison found, for the metrics of the headline."""
    systems = list(dict.fromkeys(row["system"] for row in comparison["systems"]))
    seeds = len(comparison["seeds"])
    sentences = [
        f"{len(systems)} systems were measured on test under {seeds} seed{'s' if seeds > 1 else ''}: {joined(systems)}."
    ]
    metrics = headline_metrics(comparison)
    for metric in metrics[:3]:
        best = [row for row in comparison["systems"] if row["metric"] == metric and row["best"]]
        if best and len(systems) > 1:
            names = joined([row["system"] for row in best])
            spread = "" if best[0].get("std") is None else f" ± {_std(best[0])}"
            sentences.append(f"{display_name(metric)} is best in {names} ({short(best[0]['mean'])}{spread}).")
    reference = comparison["reference"]
    others = [system for system in systems if system != reference and reference != "all"]
    for system in others[:SAID]:
        rows = {row["metric"]: row for row in comparison["comparisons"] if row["system"] == system}
        parts = [
            f"{display_name(metric)} {signed(rows[metric]['difference'])}{_doubt(rows[metric])}"
            for metric in metrics[:3]
            if metric in rows
        ]
        if parts:
            sentences.append(f"{system} against {reference}: {joined(parts)}.")
    if len(others) > SAID:
        sentences.append(f"{len(others) - SAID} more systems stand in the table.")
    if comparison["failed"]:
        sentences.append(f"{len(comparison['failed'])} of the runs gave no result; the reasons stand with the tables.")
    return sentences


def headline_metrics(comparison: Values) -> list[str]:
    """The first metric of each row of the headline that was compared."""
    known = list(dict.fromkeys(row["metric"] for row in comparison["systems"]))
    found = []
    for choice in HEADLINES:
        keys = [key for name in choice for key in known if key.partition("@")[0] == name]
        found += keys[:1]
    return found


def clear(row: Values) -> bool:
    """Whether a difference is more than chance: the corrected test of values by user, or an interval without 0."""
    if row["kind"] == "users":
        p = row.get("holm_permutation")
        return p is not None and p < LEVEL
    low, high = row.get("low"), row.get("high")
    return low is not None and high is not None and (low > 0 or high < 0)


def _doubt(row: Values) -> str:
    return "" if clear(row) else " (not clearly)"


def comparison_tables(comparison: Values) -> list[tuple[str, list[str], list[list[Any]], str]]:
    """Caption, header, rows and note of each table: the systems, and the tests of the headline's metrics."""
    return [table for table in (_systems(comparison), _tests(comparison), _failures(comparison)) if table[2]]


def _systems(comparison: Values) -> tuple[str, list[str], list[list[Any]], str]:
    rows = {(row["system"], row["metric"]): row for row in comparison["systems"]}
    systems = list(dict.fromkeys(system for system, _ in rows))
    metrics = list(dict.fromkeys(metric for _, metric in rows))
    marked = {(row["system"], row["metric"]) for row in comparison["comparisons"] if clear(row)}
    table: list[list[Any]] = []
    for system in systems:
        cells: list[Any] = [system]
        for metric in metrics:
            row = rows.get((system, metric))
            if row is None:
                cells.append("–")
                continue
            text = short(row["mean"]) + ("" if row.get("std") is None else f" ± {_std(row)}")
            text += "*" if (system, metric) in marked and comparison["reference"] != "all" else ""
            cells.append(("best", text) if row["best"] else text)
        table.append(cells)
    spread = ", mean ± standard deviation over seeds" if len(comparison["seeds"]) > 1 else ""
    note = f"Bold: the best mean. *: differs from {comparison['reference']} by more than chance (see below)."
    header = ["system", *(f"{display_name(metric)} {direction(metric)}" for metric in metrics)]
    return f"Test{spread}", header, table, note


def _tests(comparison: Values) -> tuple[str, list[str], list[list[Any]], str]:
    wanted = headline_metrics(comparison)
    rows = [row for row in comparison["comparisons"] if row["metric"] in wanted]
    one = comparison["reference"] != "all"
    table: list[list[Any]] = [
        [
            row["system"] if one else f"{row['system']} against {row['reference']}",
            display_name(row["metric"]), signed(row["difference"]),
            f"{signed(row['low'])} to {signed(row['high'])}" if row.get("low") is not None else "–",
            *(_p(row.get(f"holm_{test}")) for test in ("t", "wilcoxon", "permutation")),
            f"{row['seeds_better']} of {row['seeds']}",
        ]
        for row in rows[:MOST]
    ]  # fmt: skip
    note = (
        "p-values are two-sided, of paired tests over users, corrected by Holm's procedure over all comparisons. "
        "Metrics of all lists together have no value by user: there the interval of resampled users counts."
    )
    if len(rows) > MOST:
        note += f" {len(rows) - MOST} more rows stand in tests.csv."
    header = ["system", "metric", "difference", "95 % interval", "p (t)", "p (Wilcoxon)", "p (permutation)",
              "seeds better"]  # fmt: skip
    return f"Differences from {comparison['reference']}" if one else "Differences", header, table, note


def _failures(comparison: Values) -> tuple[str, list[str], list[list[Any]], str]:
    rows: list[list[Any]] = [[row["system"], str(row["seed"]), row["error"]] for row in comparison["failed"]]
    return "Without a result", ["system", "seed", "reason"], rows, ""


def _std(row: Values) -> str:
    """A spread with as many places as the mean beside it."""
    return f"{row['std']:.4f}" if row["std"] < 1 else short(row["std"])


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def comparison_plots(comparison: Values) -> list[Plot]:
    """Systems on the plane of accuracy and evenness, with their spread and the Pareto front."""
    found = headline_metrics(comparison)
    if len(found) < 2:
        return []
    return [plane(comparison, x, found[0]) for x in found[1:3]]


def plane(comparison: Values, x: str, y: str) -> Plot:
    """Systems by two metrics."""
    rows = {(row["system"], row["metric"]): row for row in comparison["systems"] if row["mean"] is not None}
    systems = [s for s in dict.fromkeys(system for system, _ in rows) if {(s, x), (s, y)} <= set(rows)]
    models = list(dict.fromkeys(system.partition(" + ")[0] for system in systems))
    added = list(dict.fromkeys(system.partition(" + ")[2] for system in systems))
    data: list[dict[str, Any]] = []
    xs, ys = ([rows[system, metric]["mean"] for system in systems] for metric in (x, y))
    front = front_of([{x: a, y: b} for a, b in zip(xs, ys, strict=True)], x, y)
    data.append(
        {"type": "scatter", "mode": "lines", "name": "Pareto front of the means", "x": [xs[i] for i in front],
         "y": [ys[i] for i in front], "hoverinfo": "skip", "line": {"color": "#9AA0A6", "width": 1.5, "dash": "dot"}}
    )  # fmt: skip
    for system, a, b in zip(systems, xs, ys, strict=True):
        model, _, reranker = system.partition(" + ")
        colour = BASE if system == comparison["reference"] else PALETTE[models.index(model) % len(PALETTE)]
        data.append(
            {"type": "scatter", "mode": "markers", "name": safe(system), "x": [a], "y": [b],
             "error_x": _bars(rows[system, x], colour), "error_y": _bars(rows[system, y], colour),
             "marker": {"color": colour, "size": 11, "symbol": _SYMBOLS[added.index(reranker) % len(_SYMBOLS)]},
             "hovertemplate": f"<b>{safe(system)}</b><br>{display_name(x)} %{{x:.4f}}<br>{display_name(y)} %{{y:.4f}}"
             "<extra></extra>"}
        )  # fmt: skip
    best = joined([systems[i] for i in front])
    return Plot(
        title=f"{display_name(y)} against {display_name(x)}",
        caption="Means over seeds; bars are one standard deviation. Colours are models, symbols re-rankers.",
        alt=f"{len(systems)} systems by {display_name(x)} and {display_name(y)}; on the Pareto front: {best}.",
        data=data,
        layout=layout(axis(metric_label(x)), axis(metric_label(y)), annotations=[corner(x, y)]),
        height=460,
    )


def _bars(row: Values, colour: str) -> dict[str, Any]:
    std = row.get("std")
    return {"type": "data", "array": [std or 0], "visible": bool(std), "color": colour, "thickness": 1.2, "width": 3}
