"""Interactive figures of the dossiers (PopSteer Figures 3 to 6, SPREE's probes and calibration)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from recbole_fair.evaluator.directions import display_name
from recbole_fair.report.plots import GROUPS, Plot, axis, calibration, layout, safe
from recbole_fair.report.style import BASE, MUTED, PALETTE, metric_label
from recbole_fair.report.words import Values, percent, short

_SCALE = "Cividis"


def dossier_plots(dossier: Values) -> list[Plot]:
    """Every figure of a dossier."""
    if dossier.get("method") == "SPREE":
        return [probe(dossier), _site_calibration(dossier), *strength_curves(dossier), bias(dossier)]
    made = [effect_sizes(dossier), head_share(dossier), activations(dossier), *reduction(dossier)]
    if dossier.get("map"):
        made += user_maps(dossier)
    return [*made, *surfaces(dossier)]


def effect_sizes(dossier: Values) -> Plot:
    """Histogram of the neurons' effect sizes."""
    edges, counts = dossier["effect_sizes"]["edges"], dossier["effect_sizes"]["counts"]
    middles = _middles(edges)
    data: list[dict[str, Any]] = []
    for side, sign in (("unpopular", -1), ("popular", 1)):
        own = [place for place, middle in enumerate(middles) if middle * sign > 0]
        data.append(
            {
                "type": "bar", "name": f"leaning to {side} users", "x": [_round(middles[place]) for place in own],
                "y": [counts[place] for place in own], "width": edges[1] - edges[0],
                "marker": {"color": GROUPS[side][0], "line": {"width": 0}},
                "hovertemplate": "effect size about %{x:.2f}<br>%{y} neurons<extra></extra>",
            }
        )  # fmt: skip
    numbers = dossier["neurons"]
    return Plot(
        title="How strongly neurons answer to popularity",
        caption="Cohen's d of each neuron between users of popular and of unpopular items; beyond the dotted "
        "lines the effect is larger than one standard deviation.",
        alt=f"Histogram of effect sizes of {numbers['alive']} neurons: {numbers['popular']} lean to popular users, "
        f"{numbers['unpopular']} to unpopular ones; {numbers['above_1']} lie above 1, {numbers['below_1']} below -1.",
        data=data,
        layout=layout(
            axis("Effect size (Cohen's d)"),
            axis("Neurons that fire"),
            bargap=0,
            shapes=[{"type": "line", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1,
                     "line": {"color": BASE, "width": 1, "dash": "dot"}} for x in (-1, 1)],
        ),
    )  # fmt: skip


def _pale(color: str) -> str:
    """A hex color, a third as opaque; Plotly before 6 knows no hex colors with opacity."""
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.333)"


def activations(dossier: Values, most: int = 4) -> Plot:
    """Activations of the strongest neurons under each kind of users."""
    shown = [entry for side in dossier["strongest"].values() for entry in side[:most]]
    names = [f"{entry['neuron']} (d {entry['effect_size']:+.1f})" for entry in shown]
    data: list[dict[str, Any]] = []
    for group in ("real", "unpopular", "popular"):  # plotly draws from below
        rows = [entry["activations"][group] for entry in shown]
        data.append(
            {
                "type": "box", "orientation": "h", "name": GROUPS[group][2], "y": names,
                "q1": [_round(row["q25"]) for row in rows], "median": [_round(row["q50"]) for row in rows],
                "q3": [_round(row["q75"]) for row in rows], "lowerfence": [_round(row["q05"]) for row in rows],
                "upperfence": [_round(row["q95"]) for row in rows], "line": {"color": GROUPS[group][0], "width": 1.5},
                "fillcolor": _pale(GROUPS[group][0]), "boxpoints": False,
            }
        )  # fmt: skip
    rows = [
        [name, *(short(entry["activations"][group]["q50"], 3) for group in ("popular", "unpopular", "real"))]
        for name, entry in zip(names, shown, strict=True)
    ]
    return Plot(
        title="What the strongest neurons see",
        caption="Pre-activations under each kind of users: quartiles, whiskers from 5 % to 95 %.",
        alt=f"Boxes of the activations of {len(shown)} neurons under users of popular items, users of unpopular items "
        "and real users; medians are in the table.",
        data=data,
        layout=layout(
            axis("Pre-activation", zeroline=True, zerolinecolor="#9AA0A6"),
            axis("Neuron", autorange="reversed", type="category"),
            boxmode="group",
            legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "reversed"},
        ),
        height=140 + 50 * len(shown),
        wide=True,
        table=(["neuron, medians of", "popular users", "unpopular users", "real users"], rows),
    )


def head_share(dossier: Values) -> Plot:
    """Share of popular items in histories: of all users, and of the strongest neurons' top users."""
    histogram = dossier["head_share"]["histogram"]
    edges, counts = histogram["edges"], histogram["counts"]
    middles = _middles(edges)
    data: list[dict[str, Any]] = [
        {"type": "bar", "name": "all users", "x": middles, "y": counts, "width": edges[1] - edges[0],
         "marker": {"color": "#C9CDD2", "line": {"width": 0}},
         "hovertemplate": "%{y} users with about %{x:.0%}<extra></extra>"}
    ]  # fmt: skip
    top, parts = max([*counts, 1]), []
    for number, (side, entries) in enumerate(dossier["strongest"].items()):
        colour, symbol, _ = GROUPS[side]
        data.append(
            {
                "type": "scatter", "mode": "markers", "name": f"top users of neurons leaning to {side}",
                "x": [_round(entry["head_share_of_top_users"]) for entry in entries],
                "y": [top * (1.06 + 0.09 * number)] * len(entries),
                "text": [f"neuron {entry['neuron']}, d {entry['effect_size']:+.2f}" for entry in entries],
                "marker": {"color": colour, "symbol": symbol, "opacity": 0.75,
                           "size": [14, *[9] * (len(entries) - 1)] if entries else 9},
                "hovertemplate": "%{text}<br>its 10 top users have %{x:.0%} popular items<extra></extra>",
            }
        )  # fmt: skip
        if entries:
            share = entries[0]["head_share_of_top_users"]
            parts.append(f"{percent(share)} for the strongest neuron leaning to {side} users")
    middle = dossier["head_share"]["quantiles"][2] if dossier["head_share"]["quantiles"] else None
    return Plot(
        title="Do real users bear it out?",
        caption="Share of popular items in training histories: of all users, and on average of the ten users who "
        "activate each of the strongest neurons most (large: the strongest).",
        alt=f"Histogram of the share of popular items in histories, median {short(middle, 3)}; the means of top users: "
        f"{', '.join(parts)}.",
        data=data,
        layout=layout(axis("Share of popular items in the history", tickformat=".0%"), axis("Users"), bargap=0),
    )


def reduction(dossier: Values) -> list[Plot]:
    """What lowering the strongest neurons of one side does, a figure a metric."""
    made = []
    for metric in dossier["metrics"]:
        data, parts = [], []
        for side in ("popular", "unpopular"):
            rows = [row for row in dossier["reduction"] if row["side"] == side]
            colour, symbol, _ = GROUPS[side]
            data.append(
                {"type": "scatter", "mode": "lines+markers", "name": f"leaning to {side} users",
                 "x": [str(row["neurons"]) for row in rows], "y": [_round(row[metric]) for row in rows],
                 "line": {"color": colour, "dash": "solid" if side == "popular" else "dash", "width": 2},
                 "marker": {"symbol": symbol, "size": 8},
                 "hovertemplate": "%{x} neurons lowered<br>%{y:.4f}"}
            )  # fmt: skip
            if rows:
                parts.append(
                    f"lowering {rows[-1]['neurons']} neurons that lean to {side} users moves it from "
                    f"{short(rows[0][metric])} to {short(rows[-1][metric])}"
                )
        counts = sorted({row["neurons"] for row in dossier["reduction"]})
        made.append(
            Plot(
                title=f"{display_name(metric)} when neurons are lowered",
                caption="The strongest neurons of one side, each lowered by one standard deviation.",
                alt=f"{metric_label(metric)}: {'; '.join(parts)}.",
                data=data,
                layout=layout(
                    axis("Neurons lowered", type="category", categoryorder="array",
                         categoryarray=[str(count) for count in counts]),
                    axis(metric_label(metric)),
                ),
            )
        )  # fmt: skip
    return made


def user_maps(dossier: Values) -> list[Plot]:
    """Where users lie: real ones, and the same after steering, among those of either side."""
    places = dossier["map"]["groups"]
    umap = dossier["map"]["method"] == "umap"
    word = "UMAP" if umap else "principal component"
    free = {"showticklabels": False, "ticks": ""} if umap else {}
    ranges = []
    for name in ("x", "y"):
        values = [value for group in places.values() for value in group[name]]
        margin = 0.05 * (max(values) - min(values)) or 1.0
        ranges.append([_round(min(values) - margin), _round(max(values) + margin)])
    made = []
    for own, title in (("real", "Where real users lie"), ("steered", "... and after steering")):
        data = []
        for name in ("popular", "unpopular", own):
            colour, symbol, label = GROUPS[name]
            data.append(
                {"type": "scatter", "mode": "markers", "name": label, "x": places[name]["x"], "y": places[name]["y"],
                 "marker": {"color": colour, "symbol": symbol, "size": 6, "opacity": 0.6}, "hoverinfo": "name"}
            )  # fmt: skip
        distances = [f"{short(row[own])} from users of {row['to']} items" for row in dossier["distances"]]
        rows = [[f"users of {row['to']} items", short(row[own])] for row in dossier["distances"]]
        note = "On a UMAP neighbours stay neighbours; far distances mean little." if umap else ""
        made.append(
            Plot(
                title=title,
                caption=f"Representations as they leave the autoencoder. {note}",
                alt=f"Map of {GROUPS[own][2]} among users of either side; Wasserstein distance {', '.join(distances)}.",
                data=data,
                layout=layout(axis(f"{word} 1", range=ranges[0], **free), axis(f"{word} 2", range=ranges[1], **free)),
                height=420,
                table=([f"Wasserstein distance of {GROUPS[own][2]} to", "distance"], rows),
            )
        )
    return made


def surfaces(dossier: Values) -> list[Plot]:
    """Metrics over both strengths."""
    made = []
    xs = sorted({row["alpha_pop"] for row in dossier["surface"]})
    ys = sorted({row["alpha_unpop"] for row in dossier["surface"]})
    for metric in dossier["metrics"]:
        values = {(row["alpha_pop"], row["alpha_unpop"]): row[metric] for row in dossier["surface"]}
        grid = [[_round(values.get((x, y))) for x in xs] for y in ys]
        text = [["" if value is None else f"{value:.3f}".replace("0.", ".", 1) for value in row] for row in grid]
        known = [value for row in grid for value in row if value is not None]
        made.append(
            Plot(
                title=f"{display_name(metric)} over both strengths",
                caption=f"{metric_label(metric)}, on {_split(dossier)}.",
                alt=f"{metric_label(metric)} over alpha_pop and alpha_unpop: between {short(min(known, default=None))} "
                f"and {short(max(known, default=None))}; without steering {short(values.get((0.0, 0.0)))}.",
                data=[
                    {"type": "heatmap", "x": [f"{x:g}" for x in xs], "y": [f"{y:g}" for y in ys], "z": grid,
                     "text": text, "texttemplate": "%{text}", "colorscale": _SCALE, "xgap": 1, "ygap": 1,
                     "colorbar": {"thickness": 12, "outlinewidth": 0},
                     "hovertemplate": "alpha_pop %{x}, alpha_unpop %{y}<br>%{z:.4f}<extra></extra>"}
                ],
                layout=layout(
                    axis("alpha_pop, on popular neurons", type="category", showgrid=False),
                    axis("alpha_unpop, on unpopular neurons", type="category", showgrid=False),
                    showlegend=False,
                ),
                table=(
                    ["alpha_unpop \\ alpha_pop", *(f"{x:g}" for x in xs)],
                    [[f"{y:g}", *(short(value) for value in row)] for y, row in zip(ys, grid, strict=True)],
                ),
            )
        )  # fmt: skip
    return made


# -- SPREE -------------------------------------------------------------------------------------------------------------


def probe(dossier: Values) -> Plot:
    """Accuracy of the probe at every site."""
    blocks = sorted({row["block"] for row in dossier["probe"]})
    positions = sorted({row["position"] for row in dossier["probe"]})
    values = {(row["block"], row["position"]): row["accuracy"] for row in dossier["probe"]}
    grid = [[_round(values.get((block, position))) for position in positions] for block in blocks]
    chosen = next(row for row in dossier["probe"] if row["chosen"])
    few = len(positions) <= 8
    x, y = positions.index(chosen["position"]), blocks.index(chosen["block"])  # places on axes of categories
    return Plot(
        title="Where popularity can be read off",
        caption="Accuracy of a linear probe on activations after each block; the framed site is steered.",
        alt=f"Probe accuracy at {len(dossier['probe'])} sites, {short(min(values.values()))} to "
        f"{short(max(values.values()))}; chosen: block {chosen['block']}, position {chosen['position']}.",
        data=[
            {"type": "heatmap", "x": [str(p) for p in positions], "y": [str(b) for b in blocks], "z": grid, "zmin": 0.5,
             "zmax": 1, "colorscale": _SCALE, "xgap": 1, "ygap": 1, "colorbar": {"thickness": 12, "outlinewidth": 0},
             "texttemplate": "%{z:.3f}" if few else "",
             "hovertemplate": "block %{y}, position %{x}<br>%{z:.4f}<extra></extra>"},
        ],
        layout=layout(
            axis("Position from the end", type="category", showgrid=False),
            axis("Block", type="category", showgrid=False),
            showlegend=False,
            shapes=[{"type": "rect", "x0": x - 0.5, "x1": x + 0.5, "y0": y - 0.5, "y1": y + 0.5,
                     "line": {"color": PALETTE[1], "width": 4}}],
        ),
        height=240 + 30 * len(blocks),
    )  # fmt: skip


def _site_calibration(dossier: Values) -> Plot:
    curves: dict[str, Any] = {}
    for row in dossier["calibration"]:
        curve = curves.setdefault(row["variant"], {"levels": [], "tau_hat": {str(dossier["list_length"]): []}})
        curve["levels"].append(row["level"])
        curve["tau_hat"][str(dossier["list_length"])].append(row["tau_hat"])
    names = list(curves)
    final = "adaptive" if dossier["strengths"].get("spree_adaptive", True) else "vanilla"
    return calibration(curves, names[0], final)


def bias(dossier: Values) -> Plot:
    """How biased the lists of users are under each variant."""
    data, parts = [], []
    for number, (name, entry) in enumerate(dossier["bias"].items()):
        edges = entry["edges"]
        middles = _middles(edges)
        colour = BASE if number == 0 else PALETTE[number - 1]
        data.append(
            {"type": "scatter", "mode": "lines", "line": {"shape": "hvh", "color": colour, "width": 2,
             "dash": ("solid", "dash", "dot")[number % 3]}, "name": safe(name), "x": middles, "y": entry["counts"],
             "hovertemplate": "bias about %{x:.2f}<br>%{y} users"}
        )  # fmt: skip
        parts.append(f"{name} {entry['mean']:+.3f}")
    return Plot(
        title="How far lists are from users' taste",
        caption="Bias of each user's list: above 0 the list is more popular than the user's history at the median.",
        alt=f"Histograms of the bias of users' lists; means: {', '.join(parts)}.",
        data=data,
        layout=layout(
            axis("Bias of a user's list"),
            axis("Users"),
            shapes=[{"type": "line", "yref": "paper", "x0": 0, "x1": 0, "y0": 0, "y1": 1,
                     "line": {"color": MUTED, "width": 1}}],
        ),
        wide=True,
        table=(["lists of", "mean bias"], [[name, f"{entry['mean']:+.4f}"] for name, entry in dossier["bias"].items()]),
    )  # fmt: skip


def strength_curves(dossier: Values) -> list[Plot]:
    """Metrics over SPREE's strength, a figure a metric."""
    rows = dossier["strength_curve"]
    return [
        Plot(
            title=f"{display_name(metric)} over the strength",
            caption=f"{metric_label(metric)}, on {_split(dossier)}; strength 0 is the base.",
            alt=f"{metric_label(metric)} from {short(rows[0][metric])} at strength {rows[0]['spree_strength']:g} to "
            f"{short(rows[-1][metric])} at {rows[-1]['spree_strength']:g}.",
            data=[
                {"type": "scatter", "mode": "lines+markers", "x": [row["spree_strength"] for row in rows],
                 "y": [_round(row[metric]) for row in rows], "line": {"color": PALETTE[0], "width": 2},
                 "hovertemplate": "strength %{x:g}<br>%{y:.4f}<extra></extra>"}
            ],
            layout=layout(axis("spree_strength"), axis(metric_label(metric)), showlegend=False),
        )
        for metric in dossier["metrics"]
    ]  # fmt: skip


def _split(dossier: Values) -> str:
    return "validation" if dossier.get("split") == "valid" else "test"


def _middles(edges: Sequence[float]) -> list[float]:
    return [_round((a + b) / 2) for a, b in itertools.pairwise(edges)]


def _round(value: Any) -> Any:
    return None if value is None else float(f"{value:.5g}")
