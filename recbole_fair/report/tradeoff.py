"""The figure of a sweep: what each setting costs and gives, where it was chosen and where it counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recbole_fair.analysis.grid import setting_text, value_text
from recbole_fair.evaluator.directions import display_name, smaller_is_better
from recbole_fair.report.style import BASE, MUTED, PALETTE, house_style, label_axes, new_figure

_LABELS = 6  # of points of the front, at most


@house_style()
def tradeoff_figure(result: Mapping[str, Any]) -> Figure:
    """Two panels, validation and test: all settings, the Pareto front of validation, the plain model and the choice.

    Args:
        result: what :func:`recbole_fair.runs.sweep.sweep_checkpoint` returns, or its JSON document.

    Returns:
        The figure; :func:`~recbole_fair.report.style.save_figure` writes it.
    """
    figure, panels = new_figure(1, 2, width=9.6, height=4.6)
    for axes, split, title in zip(
        panels, ("valid", "test"), ("Validation, where settings are chosen", "Test, what they give"), strict=True
    ):
        _draw(axes, result, split)
        axes.set_title(title)
    _draw_bounds(panels[0], result)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    with_reranker = f" with {result['reranker']}" if result.get("reranker") else ""
    figure.suptitle(f"{result['model']}{with_reranker} on {result['dataset']}", x=0.01, ha="left", fontsize=12)
    return figure


def _draw(axes: Axes, result: Mapping[str, Any], split: str) -> None:
    x, y = result["x"], result["y"]

    def places(rows: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
        pairs = [(row[f"{split} {x}"], row[f"{split} {y}"]) for row in rows]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        return [a for a, _ in known], [b for _, b in known]

    front = result["front"]
    others = [row for row in result["settings"] if not row["front"]]
    if others:
        axes.plot(*places(others), "o", color=MUTED, markersize=3.5, alpha=0.6, label="settings", zorder=2)
    line = "-" if split == "valid" else ":"
    numbers = f", numbers: {next(iter(result['grid']))}" if len(result["grid"]) == 1 else ""
    axes.plot(
        *places(front), marker="o", linestyle=line, color=PALETTE[0], zorder=3,
        label=f"Pareto front (validation{numbers})",
    )  # fmt: skip
    base = result["base"][split]
    axes.plot([base[x]], [base[y]], marker="*", linestyle="", color=BASE, markersize=12, label="plain model", zorder=4)
    chosen = result["chosen"]
    if chosen is not None:
        axes.plot(
            *places([chosen]), marker="D", linestyle="", markersize=9, markerfacecolor="none", markeredgewidth=2,
            color=PALETTE[1], zorder=5, label="chosen: " + setting_text({key: chosen[key] for key in result["grid"]}),
        )  # fmt: skip
    axes.margins(0.08)
    label_axes(axes, x, y)
    if len(result["grid"]) == 1:
        _label_strengths(axes, result, split)


def _label_strengths(axes: Axes, result: Mapping[str, Any], split: str) -> None:
    """Write the strength beside a few points of the front, where one strength says which point it is."""
    (key,) = result["grid"]
    front = result["front"]
    count = min(_LABELS, len(front))
    chosen = {round(place * (len(front) - 1) / max(count - 1, 1)) for place in range(count)}
    for index in sorted(chosen):
        row = front[index]
        at = (row[f"{split} {result['x']}"], row[f"{split} {result['y']}"])
        if None not in at:
            axes.annotate(value_text(row[key]), at, xytext=(5, -11), textcoords="offset points", fontsize=8)


def _draw_bounds(axes: Axes, result: Mapping[str, Any]) -> None:
    left = smaller_is_better(result["x"])  # where the front leaves room: no setting is best in both metrics
    for bound in result["subject_to"]:
        text = f"{display_name(bound['metric'])} {bound['sign']} {bound['bound']:.4g}"
        if bound["metric"] == result["y"]:
            axes.axhline(bound["bound"], color=BASE, linestyle="--", linewidth=1, zorder=1)
            axes.annotate(
                text, (0 if left else 1, bound["bound"]), xycoords=("axes fraction", "data"),
                xytext=(2 if left else -2, 3), textcoords="offset points", ha="left" if left else "right", fontsize=8,
            )  # fmt: skip
        elif bound["metric"] == result["x"]:
            axes.axvline(bound["bound"], color=BASE, linestyle="--", linewidth=1, zorder=1)
            axes.annotate(
                text, (bound["bound"], 1), xycoords=("data", "axes fraction"), xytext=(3, -3),
                textcoords="offset points", va="top", rotation=90, fontsize=8,
            )  # fmt: skip
