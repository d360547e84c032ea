"""Figures of the dossiers: what neurons respond to, where users lie, what strengths do (PopSteer Figures 3 to 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from recbole_fair.analysis.dossier import NeuronDossier, SiteDossier
from recbole_fair.analysis.neuron_effects import MAX_KURTOSIS, MAX_SKEW
from recbole_fair.report.style import (
    BASE,
    LINES,
    MARKERS,
    MUTED,
    PALETTE,
    SEQUENTIAL,
    house_style,
    metric_label,
    new_figure,
)

#: One colour, marker and line a group of users, the same in every figure.
LOOKS: dict[str, tuple[str, str, Any]] = {
    "popular": (PALETTE[0], MARKERS[0], LINES[0]),
    "unpopular": (PALETTE[1], MARKERS[1], LINES[1]),
    "real": (MUTED, MARKERS[2], LINES[2]),
    "steered": (PALETTE[2], MARKERS[3], LINES[3]),
}
WORDS = {
    "popular": "users of popular items",
    "unpopular": "users of unpopular items",
    "real": "real users",
    "steered": "real users, steered",
}
SIDES = {
    "popular": "neurons that lean to popular users (d > 0)",
    "unpopular": "neurons that lean to unpopular users (d < 0)",
}


def effect_sizes(dossier: NeuronDossier) -> Figure:
    """How many neurons have which effect size."""
    d = dossier.neurons.loc[dossier.neurons["alive"], "effect_size"].to_numpy()
    largest = float(np.abs(d).max()) if len(d) else 1.0
    edges = np.linspace(-largest, largest, 61)
    with house_style():
        figure, axes = new_figure()
        for side, part in (("popular", d[d > 0]), ("unpopular", d[d < 0])):
            axes.hist(part, edges, color=LOOKS[side][0], label=f"{SIDES[side]}: {len(part):,}")
        for bound in (-1, 1):
            axes.axvline(bound, color=BASE, linestyle=":", linewidth=1)
        axes.set_xlabel("Effect size, Cohen's d between users of popular and of unpopular items")
        axes.set_ylabel("Neurons that fire")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside upper left")
    return figure


def activation_boxes(dossier: NeuronDossier, most: int = 5) -> Figure:
    """Pre-activations of the strongest neurons of either side under each kind of users."""
    rows_of: dict[Any, Any] = {
        (row["neuron"], row["population"]): row for row in dossier.activations.to_dict("records")
    }
    rows = max(1, *(min(most, len(side)) for side in dossier.strongest.values()))
    with house_style():
        figure, panels = new_figure(1, 2, width=8.6, height=1.4 + 0.75 * rows)
        for axes, (side, neurons) in zip(panels, dossier.strongest.items(), strict=True):
            shown = neurons[:most]
            for place, neuron in enumerate(shown):
                for offset, name in zip((-0.27, 0.0, 0.27), ("popular", "unpopular", "real"), strict=True):
                    _box(axes, rows_of[neuron, name], place + offset, LOOKS[name][0])
            d = dossier.neurons.set_index("neuron")["effect_size"]
            axes.set_yticks(range(len(shown)), [f"{neuron}\nd = {d[neuron]:+.1f}" for neuron in shown])
            axes.invert_yaxis()
            axes.axvline(0, color=BASE, linewidth=0.8)
            axes.set_title(f"Lean to {side} users")
            axes.set_xlabel("Pre-activation")
            axes.grid(visible=False, axis="y")
        panels[0].set_ylabel("Neuron")
        handles = [Patch(facecolor=LOOKS[name][0], label=WORDS[name]) for name in ("popular", "unpopular", "real")]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _box(axes: Axes, row: Mapping[str, float], place: float, colour: str) -> None:
    axes.hlines(place, row["q05"], row["q95"], color=colour, linewidth=1.2)
    axes.barh(place, row["q75"] - row["q25"], 0.2, row["q25"], color=colour)
    axes.vlines(row["q50"], place - 0.1, place + 0.1, color="white", linewidth=1.6)


def head_shares(dossier: NeuronDossier) -> Figure:
    """Share of popular items in users' histories, and in those of each strongest neuron's top users (Figure 3)."""
    share = dossier.head_share[~np.isnan(dossier.head_share)]
    of_top = dossier.neurons.set_index("neuron")["head_share_of_top_users"]
    with house_style():
        figure, axes = new_figure(height=2.9)
        axes.boxplot(
            share, vert=False, widths=0.5, showfliers=False, positions=[0],
            medianprops={"color": BASE}, boxprops={"color": MUTED}, whiskerprops={"color": MUTED},
            capprops={"color": MUTED},
        )  # fmt: skip
        for place, (side, neurons) in zip((1, 2), dossier.strongest.items(), strict=True):
            colour, marker, _ = LOOKS[side]
            values = of_top.reindex(neurons)
            axes.scatter(values, [place] * len(values), s=28, color=colour, alpha=0.45, marker=marker, linewidths=0)
            if neurons:
                axes.scatter(values.iloc[:1], [place], s=90, color=colour, marker=marker, edgecolors="white", zorder=3)
                axes.annotate(
                    f"neuron {neurons[0]}", (values.iloc[0], place), xytext=(0, 9), textcoords="offset points",
                    ha="center", fontsize=8.5,
                )  # fmt: skip
        labels = [
            f"all {len(share)} users",
            *(f"top users of neurons\nleaning to {side}" for side in dossier.strongest),
        ]
        axes.set_yticks([0, 1, 2], labels)
        axes.set_ylim(-0.5, 2.6)
        axes.set_xlabel("Share of popular items in the training history")
        axes.grid(visible=False, axis="y")
    return figure


def normality(dossier: NeuronDossier) -> Figure:
    """How skewed and how heavy-tailed the neurons' pre-activations are (Table 1)."""
    shares: dict[Any, Any] = {
        row["population"]: row for row in dossier.normality.to_dict("records") if row["neurons"] == "alive"
    }
    alive = dossier.neurons[dossier.neurons["alive"]]
    with house_style():
        figure, panels = new_figure(1, 2, width=8.6, height=3.6)
        for axes, (key, word, bound) in zip(
            panels, (("skew", "Skewness", MAX_SKEW), ("kurtosis", "Excess kurtosis", MAX_KURTOSIS)), strict=True
        ):
            edges = np.linspace(-3 * bound, 5 * bound, 49)  # what lies beyond is counted at the ends
            axes.axvspan(-bound, bound, color="#F0F0F0", zorder=0)
            for name in ("popular", "unpopular", "real"):
                values = alive[f"{key}_{name}"].dropna().clip(edges[0], edges[-1])
                colour, _, line = LOOKS[name]
                share = float(shares[name][key])
                label = f"{WORDS[name]}: {100 * share:.0f} % inside"
                axes.hist(values, edges, histtype="step", color=colour, linestyle=line, linewidth=1.6, label=label)
            axes.set_xlabel(f"{word} (grey: nearly normal)")
            axes.set_ylabel("Neurons that fire")
            axes.set_ylim(top=axes.get_ylim()[1] * 1.3)
            axes.legend(fontsize=8)
    return figure


def reduction(dossier: NeuronDossier, metrics: Sequence[str]) -> Figure:
    """What lowering the K' strongest neurons of one side does (Figure 4)."""
    with house_style():
        figure, panels = new_figure(1, len(metrics), width=4.3 * len(metrics), height=3.6, squeeze=False)
        for axes, metric in zip(panels[0], metrics, strict=True):
            for side, part in dossier.reduction.groupby("side", sort=False):
                colour, marker, line = LOOKS[str(side)]
                axes.plot(
                    part["neurons"], part[metric], color=colour, marker=marker, linestyle=line,
                    label=f"leaning to {side} users",
                )  # fmt: skip
            axes.set_xscale("symlog", linthresh=1)
            axes.set_xlim(left=0)
            ticks = [0, 1, 4, 16, 64, 256, 1024]
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.set_xlim(0, max(2, dossier.reduction["neurons"].max() * 1.2))
            axes.minorticks_off()
            axes.set_xlabel("Neurons lowered by one deviation, strongest first")
            axes.set_ylabel(metric_label(metric))
        panels[0][0].legend()
    return figure


def user_map(dossier: NeuronDossier) -> Figure:
    """Where users of either side lie, and real ones before and after steering (Figure 5)."""
    assert dossier.map is not None
    word = {"umap": "UMAP", "pca": "Principal component"}[str(dossier.map_method)]
    with house_style():
        figure, panels = new_figure(1, 2, width=9.0, height=4.6, sharex=True, sharey=True)
        groups = {str(name): part for name, part in dossier.map.groupby("group", sort=False)}
        for axes, own in zip(panels, ("real", "steered"), strict=True):
            for group in ("popular", "unpopular", own):
                colour, marker, _ = LOOKS[group]
                part = groups[group]
                axes.scatter(part["x"], part["y"], s=12, color=colour, marker=marker, alpha=0.55, linewidths=0)
            axes.set_title(WORDS[own].capitalize())
            axes.set_xlabel(f"{word} 1")
            if dossier.map_method == "umap":
                axes.set_xticks([])  # distances on a UMAP have no unit
                axes.set_yticks([])
        panels[0].set_ylabel(f"{word} 2")
        handles = [
            Line2D([], [], linestyle="", color=LOOKS[name][0], marker=LOOKS[name][1], label=WORDS[name])
            for name in groups
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def surfaces(dossier: NeuronDossier, metrics: Sequence[str], strengths: Mapping[str, Any]) -> Figure:
    """Metrics over both strengths (Figure 6)."""
    with house_style():
        figure, panels = new_figure(1, len(metrics), width=4.6 * len(metrics), height=4.0, squeeze=False)
        for axes, metric in zip(panels[0], metrics, strict=True):
            table = dossier.surface.pivot_table(index="alpha_unpop", columns="alpha_pop", values=metric)
            values = table.to_numpy()
            image = axes.imshow(values, origin="lower", aspect="auto", cmap=SEQUENTIAL)
            middle = (np.nanmin(values) + np.nanmax(values)) / 2
            for row, column in np.ndindex(values.shape):
                colour = "black" if values[row, column] > middle else "white"
                text = f"{values[row, column]:.3f}".lstrip("0")
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8.5)
            axes.set_xticks(range(len(table.columns)), [f"{value:g}" for value in table.columns])
            axes.set_yticks(range(len(table.index)), [f"{value:g}" for value in table.index])
            axes.set_xlabel("alpha_pop: strength on popular neurons")
            axes.set_ylabel("alpha_unpop: strength on unpopular neurons")
            axes.set_title(metric_label(metric))
            axes.grid(visible=False)
            _frame_setting(axes, table, strengths)
            figure.colorbar(image, ax=axes, shrink=0.85)
    return figure


def _frame_setting(axes: Axes, table: pd.DataFrame, strengths: Mapping[str, Any]) -> None:
    """A frame around the setting in use, if it is on the grid."""
    columns, rows = list(table.columns), list(table.index)
    if strengths["alpha_pop"] in columns and strengths["alpha_unpop"] in rows:
        x, y = columns.index(strengths["alpha_pop"]), rows.index(strengths["alpha_unpop"])
        _frame(axes, x, y)


def _frame(axes: Axes, x: int, y: int) -> None:
    """A frame around a cell of a heat map."""
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=PALETTE[1], linewidth=2.5, clip_on=False))


# -- SPREE -------------------------------------------------------------------------------------------------------------


def probe_map(dossier: SiteDossier) -> Figure:
    """Accuracy of the probe at every site that was looked at, the chosen one framed (SPREE Figure 5)."""
    table = dossier.probe.pivot_table(index="block", columns="position", values="accuracy")
    values = table.to_numpy()
    low = min(0.5, float(np.nanmin(values)))
    with house_style():
        wide = min(11.0, 3.4 + 0.5 * len(table.columns))
        figure, axes = new_figure(width=max(5.2, wide), height=1.7 + 0.5 * len(table.index))
        image = axes.imshow(values, aspect="auto", cmap=SEQUENTIAL, vmin=low, vmax=1.0)
        if values.size <= 60:
            for row, column in np.ndindex(values.shape):
                colour = "black" if values[row, column] > (1 + low) / 2 else "white"
                text = f"{values[row, column]:.3f}"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
        step = max(1, len(table.columns) // 20)
        axes.set_xticks(range(0, len(table.columns), step), [str(p) for p in table.columns[::step]])
        axes.set_yticks(range(len(table.index)), [str(block) for block in table.index])
        chosen = dossier.probe[dossier.probe["chosen"]].iloc[0]
        x, y = list(table.columns).index(chosen["position"]), list(table.index).index(chosen["block"])
        _frame(axes, x, y)
        axes.set_xlabel("Position, counted from the end of the sequence")
        axes.set_ylabel("Block")
        axes.grid(visible=False)
        figure.colorbar(image, ax=axes, label="Accuracy of the probe")
    return figure


def calibration(dossier: SiteDossier) -> Figure:
    """Calibration curves of all variants: the diagonal is a list as popular as the user's history."""
    with house_style():
        figure, axes = new_figure(width=5.4, height=4.6)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, label="calibrated")
        for number, (name, part) in enumerate(dossier.calibration.groupby("variant", sort=False)):
            colour = BASE if number == 0 else PALETTE[number - 1]
            axes.plot(
                part["level"], part["tau_hat"], color=colour, marker=MARKERS[number], linestyle=LINES[number],
                label=str(name),
            )  # fmt: skip
        axes.set_xlabel(f"Popularity quantile of the list of {dossier.list_length}")
        axes.set_ylabel("Share of the history at most as popular, mean over users")
        axes.set_aspect("equal")
        axes.legend()
    return figure


def biases(dossier: SiteDossier) -> Figure:
    """How biased users' lists are under each variant, and how well the bias of the base's is estimated."""
    names = [column for column in dossier.bias.columns if column not in ("user_id", "estimate")]
    edges = np.linspace(-0.5, 0.5, 41)
    with house_style():
        figure, panels = new_figure(1, 2, width=8.6, height=3.8)
        for number, name in enumerate(names):
            colour = BASE if number == 0 else PALETTE[number - 1]
            label = f"{name}: mean {dossier.bias[name].mean():+.3f}"
            panels[0].hist(
                dossier.bias[name].dropna(), edges, histtype="step", color=colour, linestyle=LINES[number], label=label
            )
        panels[0].axvline(0, color=MUTED, linewidth=1)
        panels[0].set_xlabel("Bias of a user's list (above 0: more popular than the history)")
        panels[0].set_ylabel("Users")
        panels[0].set_ylim(top=panels[0].get_ylim()[1] * 1.25)
        panels[0].legend(fontsize=8)
        panels[1].plot([-0.5, 0.5], [-0.5, 0.5], color=MUTED, linewidth=1)
        panels[1].scatter(dossier.bias["base"], dossier.bias["estimate"], s=6, alpha=0.4, linewidths=0)
        panels[1].set_xlabel("Bias of the base's list")
        panels[1].set_ylabel("Estimate from the activations")
    return figure


def strength_curves(dossier: SiteDossier, metrics: Sequence[str]) -> Figure:
    """Metrics over SPREE's strength."""
    with house_style():
        figure, panels = new_figure(1, len(metrics), width=4.3 * len(metrics), height=3.4, squeeze=False)
        for axes, metric in zip(panels[0], metrics, strict=True):
            axes.plot(dossier.strengths["spree_strength"], dossier.strengths[metric], marker=MARKERS[0])
            axes.set_xlabel("spree_strength (0 is the base)")
            axes.set_ylabel(metric_label(metric))
    return figure


# -- all of them -------------------------------------------------------------------------------------------------------


def neuron_figures(
    dossier: NeuronDossier, metrics: Sequence[str], strengths: Mapping[str, Any]
) -> dict[str, Callable[[], Figure]]:
    """Every figure of a neuron dossier by file name, drawn when called.

    Args:
        dossier: the dossier.
        metrics: ``name@k`` of the metrics to draw.
        strengths: the strengths in use.
    """
    figures: dict[str, Callable[[], Figure]] = {
        "effect_sizes": lambda: effect_sizes(dossier),
        "activations": lambda: activation_boxes(dossier),
        "head_share": lambda: head_shares(dossier),
        "normality": lambda: normality(dossier),
        "reduction": lambda: reduction(dossier, metrics),
        "strengths": lambda: surfaces(dossier, metrics, strengths),
    }
    if dossier.map is not None:
        figures["map"] = lambda: user_map(dossier)
    return figures


def site_figures(dossier: SiteDossier, metrics: Sequence[str]) -> dict[str, Callable[[], Figure]]:
    """Every figure of a SPREE dossier by file name, drawn when called."""
    return {
        "probe": lambda: probe_map(dossier),
        "calibration": lambda: calibration(dossier),
        "bias": lambda: biases(dossier),
        "strengths": lambda: strength_curves(dossier, metrics),
    }
