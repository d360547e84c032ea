"""A search for settings: its lines on the terminal and its figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recbole_fair.analysis.grid import value_text
from recbole_fair.evaluator.directions import display_name
from recbole_fair.report.style import BASE, MUTED, PALETTE, house_style, label_axes, new_figure
from recbole_fair.report.summary import number, text_table

SHOWN = 10


def tuning_lines(result: Mapping[str, Any], decimals: int) -> list[str]:
    """Lines that show a search: its best trials on validation beside the base, what was chosen, importance.

    Args:
        result: what :func:`recbole_fair.runs.tune.tune` returns.
        decimals: digits after the point.
    """
    metrics = metrics_of(result)
    keys = list(result["space"])
    complete = [row for row in result["trials"] if row["state"] == "complete"]
    states = [f"{sum(row['state'] == state for row in result['trials'])} {state}" for state in _STATES]
    bounds = f" with {bounds_text(result)}" if result["subject_to"] else ""
    lines = ["", f"{len(result['trials'])} trials: {', '.join(states)}. The best on validation{bounds}:"]
    best = sorted(complete, key=lambda row: order_of(result, row))[:SHOWN]
    header = ["trial", *keys, *(f"valid {display_name(name)}" for name in metrics)]
    rows = [
        [str(row["trial"]), *(value_text(row[key]) for key in keys), *values_of(row, "valid", metrics, decimals)]
        for row in best
    ]
    lines += text_table(header, _base_row(result, metrics, decimals) + rows)
    lines += ["", *_chosen_lines(result, decimals)]
    if result["importance"]:
        shares = ", ".join(f"{key} {100 * share:.0f} %" for key, share in result["importance"].items())
        lines += ["", f"What {display_name(metrics[0])} depends on: {shares}."]
    return [*lines, *result["notes"]]


def _base_row(result: Mapping[str, Any], metrics: Sequence[str], decimals: int) -> list[list[str]]:
    """What the trials start from, where it is not one of them."""
    base = {f"valid {name}": value for name, value in result["base"].get("valid", {}).items()}
    if not base or any(base.items() <= row.items() for row in result["trials"]):
        return []
    return [["base", *([""] * len(result["space"])), *values_of(base, "valid", metrics, decimals)]]


def bounds_text(result: Mapping[str, Any]) -> str:
    """The bounds in words and numbers."""
    return " and ".join(f"{display_name(b['metric'])} {b['sign']} {b['bound']:.4g}" for b in result["subject_to"])


def _chosen_lines(result: Mapping[str, Any], decimals: int) -> list[str]:
    """The one trial that was chosen with all its metrics, or the Pareto front with those that made it."""
    metrics, keys = metrics_of(result), list(result["space"])
    if len(result["chosen"]) > 1:
        header = ["trial", *keys, *(f"{split} {display_name(name)}" for split in ("valid", "test") for name in metrics)]
        rows = [
            [
                str(row["trial"]),
                *(value_text(row[key]) for key in keys),
                *values_of(row, "valid", metrics, decimals),
                *values_of(row, "test", metrics, decimals),
            ]
            for row in result["chosen"]
        ]
        return ["The Pareto front of validation", *text_table(header, rows)]
    (row,) = result["chosen"]
    setting = ", ".join(f"{key}={value_text(row[key])}" for key in keys)
    with_base = bool(_base_row(result, metrics, decimals))
    header = ["", *(["base, validation"] if with_base else []), "chosen, validation", "chosen, test"]
    rows = []
    for name in (key.removeprefix("valid ") for key in row if key.startswith("valid ")):
        base = [number(result["base"]["valid"].get(name), decimals)] if with_base else []
        values = [values_of(row, split, [name], decimals)[0] for split in ("valid", "test")]
        rows.append([display_name(name), *base, *values])
    return [f"Chosen on validation, trial {row['trial']}: {setting}", *text_table(header, rows)]


_STATES = ("complete", "pruned", "failed")


def metrics_of(result: Mapping[str, Any]) -> list[str]:
    """Names of the objectives, then of what the bounds are about."""
    names = [objective["metric"] for objective in result["objectives"]]
    return list(dict.fromkeys([*names, *(bound["metric"] for bound in result["subject_to"])]))


def values_of(row: Mapping[str, Any], split: str, metrics: Sequence[str], decimals: int) -> list[str]:
    """Values of a trial on a split as text, a dash where there is none."""
    return [number(row.get(f"{split} {name}"), decimals) for name in metrics]


def order_of(result: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[bool, float]:
    """What trials are sorted by: those that keep the bounds first, then the first objective, the best first."""
    first = result["objectives"][0]
    value = row[f"valid {first['metric']}"]
    return not row["keeps bounds"], -value if first["bigger"] else value


@house_style()
def history_figure(result: Mapping[str, Any]) -> Figure:
    """The trials in their order and the best so far; for two objectives or a bound, the trade-off beside it.

    Args:
        result: what :func:`recbole_fair.runs.tune.tune` returns, or its JSON document.

    Returns:
        The figure; :func:`~recbole_fair.report.style.save_figure` writes it.
    """
    metrics = metrics_of(result)
    both = len(metrics) > 1
    figure, panels = new_figure(1, 2 if both else 1, width=9.6 if both else 6.0, height=4.2)
    axes = list(panels) if both else [panels]
    _draw_history(axes[0], result)
    if both:
        _draw_plane(axes[1], result, metrics[0], metrics[1])
    with_reranker = f" with {result['reranker']}" if result.get("reranker") else ""
    seed = "" if result.get("seed") is None else f", seed {result['seed']}"
    title = f"{result['model']}{with_reranker} on {result['dataset']}, validation{seed}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def _complete(result: Mapping[str, Any], *metrics: str) -> list[Mapping[str, Any]]:
    names = [f"valid {name}" for name in metrics]
    return [row for row in result["trials"] if all(row.get(name) is not None for name in names)]


def _draw_history(axes: Axes, result: Mapping[str, Any]) -> None:
    objective = result["objectives"][0]
    name, best_of = f"valid {objective['metric']}", max if objective["bigger"] else min
    rows = _complete(result, objective["metric"])
    kept = [row for row in rows if row["keeps bounds"]]
    missed = [row for row in rows if not row["keeps bounds"]]
    for some, colour, label in ((kept, PALETTE[0], "trials"), (missed, MUTED, "miss the bounds")):
        if some:
            places = [row["trial"] for row in some], [row[name] for row in some]
            axes.plot(*places, "o", color=colour, markersize=4, label=label)
    if kept:
        best = [best_of(row[name] for row in kept[: place + 1]) for place in range(len(kept))]
        axes.step([row["trial"] for row in kept], best, where="post", color=PALETTE[1], label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel(f"{display_name(objective['metric'])} ({'higher' if objective['bigger'] else 'lower'} is better)")
    _draw_bounds(axes, result, None, objective["metric"])
    axes.legend()


def _draw_plane(axes: Axes, result: Mapping[str, Any], x: str, y: str) -> None:
    rows = _complete(result, x, y)
    for keeps, colour in ((False, MUTED), (True, PALETTE[0])):
        some = [row for row in rows if row["keeps bounds"] is keeps]
        axes.plot([r[f"valid {x}"] for r in some], [r[f"valid {y}"] for r in some], "o", color=colour, markersize=4)
    base = result["base"].get("valid", {})
    if base.get(x) is not None and base.get(y) is not None:
        axes.plot([base[x]], [base[y]], marker="*", linestyle="", color=BASE, markersize=12, label="base")
    chosen = result["chosen"]
    label = "chosen" if len(chosen) == 1 else "Pareto front"
    axes.plot(
        [row[f"valid {x}"] for row in chosen], [row[f"valid {y}"] for row in chosen], marker="D", linestyle="",
        markersize=9, markerfacecolor="none", markeredgewidth=2, color=PALETTE[1], label=label,
    )  # fmt: skip
    label_axes(axes, x, y)
    _draw_bounds(axes, result, x, y)
    axes.legend()


def _draw_bounds(axes: Axes, result: Mapping[str, Any], x: str | None, y: str) -> None:
    """Dashed lines at the bounds on what the axes show."""
    for bound in result["subject_to"]:
        if bound["metric"] in (x, y):
            line = axes.axhline if bound["metric"] == y else axes.axvline
            text = f"{display_name(bound['metric'])} {bound['sign']} {bound['bound']:.4g}"
            line(bound["bound"], color=BASE, linestyle="--", linewidth=1, zorder=1, label=text)
