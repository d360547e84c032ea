"""Interactive figures of the report: plain descriptions that plotly.js draws, each with words for who cannot see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from recbole_fair.analysis.grid import setting_text
from recbole_fair.evaluator.directions import display_name, smaller_is_better
from recbole_fair.report.style import BASE, MUTED, PALETTE, metric_label
from recbole_fair.report.words import Values, base_name, bound_text, final_name, lorenz_at, percent, short

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"
GRID = "#E6E8EB"
#: One colour and symbol a group of users; the same as in the printed figures.
GROUPS: dict[str, tuple[str, str, str]] = {
    "popular": (PALETTE[0], "circle", "users of popular items"),
    "unpopular": (PALETTE[1], "square", "users of unpopular items"),
    "real": ("#6B6B6B", "triangle-up", "real users"),
    "steered": (PALETTE[2], "diamond", "real users, steered"),
}
_DASHES = ("solid", "dash", "dashdot", "dot", "longdash", "longdashdot")
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "cross", "star")
_OTHERS = (PALETTE[2], PALETTE[3], PALETTE[4], PALETTE[5])


@dataclass(frozen=True)
class Plot:
    """One figure of the page.

    Attributes:
        title: what it shows.
        caption: how to read it.
        alt: what can be seen, in words and numbers.
        data: plotly's traces.
        layout: plotly's layout.
        height: pixels.
        table: header and rows with the numbers, if they are few.
        wide: whether it takes the whole width of the page.
    """

    title: str
    caption: str
    alt: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    height: int = 380
    table: tuple[list[str], list[list[str]]] | None = None
    wide: bool = False

    @property
    def spec(self) -> dict[str, Any]:
        """What plotly.js is given."""
        return {"data": self.data, "layout": self.layout}


def safe(text: Any) -> str:
    """Text as plotly shows it: its labels know some HTML, which titles and ids must not be taken for."""
    return escape(str(text), quote=False)


def axis(title: str, **options: Any) -> dict[str, Any]:
    """An axis in the page's style."""
    return {
        "title": {"text": safe(title), "standoff": 10},
        "automargin": True,
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": "#9AA0A6",
        "showline": True,
        "ticks": "outside",
        "tickcolor": "#9AA0A6",
        **options,
    }


def layout(x: Mapping[str, Any], y: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """A layout in the page's style."""
    return {
        "font": {"family": FONT, "size": 13, "color": "#1F2328"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "#FFFFFF",
        "margin": {"l": 52, "r": 20, "t": 10, "b": 44},
        "hoverlabel": {"font": {"family": FONT, "size": 13}, "align": "left"},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        "showlegend": True,
        "xaxis": dict(x),
        "yaxis": dict(y),
        **options,
    }


def inside(x: str, y: str) -> dict[str, Any]:
    """A legend in a corner of the figure where curves do not come."""
    return {
        "x": 0.02 if x == "left" else 0.99,
        "xanchor": x,
        "y": 0.98 if y == "top" else 0.02,
        "yanchor": y,
        "bgcolor": "rgba(255,255,255,0.75)",
        "font": {"size": 12},
    }


def line_of(number: int, name: str, base: str | None, final: str) -> dict[str, Any]:
    """Line and marker of a variant: the base black and dashed, the final one blue and solid, others in between."""
    if name == base:
        return {"line": {"color": BASE, "dash": "dash", "width": 2}, "marker": {"color": BASE, "symbol": "star"}}
    if name == final:
        return {"line": {"color": PALETTE[0], "width": 3}, "marker": {"color": PALETTE[0], "symbol": "circle"}}
    look = {"color": _OTHERS[number % len(_OTHERS)], "dash": _DASHES[1 + number % 5], "width": 2}
    return {"line": look, "marker": {"color": look["color"], "symbol": _SYMBOLS[1 + number % 5]}}


# -- a run -------------------------------------------------------------------------------------------------------------


def run_plots(run: Values) -> list[Plot]:
    """The curves of a run, each variant beside the base: Lorenz, exposure against popularity, calibration."""
    made = []
    for key, build in (("lorenz", lorenz), ("exposure", exposure), ("calibration", calibration)):
        curves = run.get(f"{key}_curves")
        if not curves:
            own = (run.get("curves") or {}).get(key)
            curves = {final_name(run): own} if own else {}
        if curves:
            made.append(build(curves, base_name(run), final_name(run)))
    return made


def _shortest(by_cutoff: Mapping[str, Any]) -> str:
    return min(by_cutoff, key=int)


def lorenz(curves: Mapping[str, Mapping[str, Any]], base: str | None, final: str) -> Plot:
    """Lorenz curves of exposure, one a variant."""
    k = _shortest(next(iter(curves.values())))
    data: list[dict[str, Any]] = [_diagonal("even share")]
    rows, parts = [], []
    for number, (name, by_cutoff) in enumerate(curves.items()):
        items, shown = by_cutoff[k]["items"], by_cutoff[k]["exposure"]
        data.append(
            {
                "type": "scatter", "mode": "lines", "x": _rounded(items), "y": _rounded(shown), "name": safe(name),
                "hovertemplate": "the least shown %{x:.0%} of the items<br>fill %{y:.1%} of the places",
                **line_of(number, name, base, final),
            }
        )  # fmt: skip
        tops = [1 - lorenz_at(items, shown, 1 - share) for share in (0.01, 0.1, 0.2)]
        rows.append([name, *map(percent, tops)])
        parts.append(f"{name}: the most shown tenth fills {percent(tops[1])}")
    return Plot(
        title="Who gets the places",
        caption=f"Lorenz curves of lists of {k}: the nearer to the diagonal, the more evenly items are shown.",
        alt=f"Lorenz curves of how places are shared among items. {'; '.join(parts)}.",
        data=data,
        layout=layout(
            axis("Share of items, least shown first", tickformat=".0%", range=[0, 1], dtick=0.25),
            axis("Share of places", tickformat=".0%", range=[0, 1.01], dtick=0.25),
            legend=inside("left", "top"),
        ),
        table=(["share of places held by the most shown", "1 % of items", "10 %", "20 %"], rows),
    )


def exposure(curves: Mapping[str, Mapping[str, Any]], base: str | None, final: str) -> Plot:
    """Exposure against popularity, one line a variant."""
    k = _shortest(next(iter(curves.values()))["exposure"])
    data, rows, parts = [], [], []
    first = next(iter(curves.values()))
    total = sum(size * value for size, value in zip(first["items"], first["popularity"], strict=True))
    mean = total / max(sum(first["items"]), 1)
    known = [value for value in first["popularity"] if value > 0]
    if known and mean > 0:
        ends = [min(known), max(known)]
        data.append(
            {"type": "scatter", "mode": "lines", "x": _rounded(ends), "y": _rounded([end / mean for end in ends]),
             "name": "in proportion", "hoverinfo": "skip",
             "line": {"color": MUTED, "width": 1, "dash": "dot"}}
        )  # fmt: skip
    for number, (name, curve) in enumerate(curves.items()):
        values = curve["exposure"][k]
        data.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": safe(name),
                "x": _rounded([value or None for value in curve["popularity"]]),
                "y": _rounded([value or None for value in values]),
                "customdata": curve["items"],
                "hovertemplate": "%{customdata} items with %{x:.3~g} interactions on average<br>"
                "%{y:.2~g} times the average exposure",
                **line_of(number, name, base, final),
            }
        )  # fmt: skip
        cells = [short(values[round(place * (len(values) - 1))], 3) for place in (0, 0.25, 0.5, 0.75, 1)]
        rows.append([name, *cells])
        parts.append(f"{name}: {cells[0]} times the average for the most popular items, {cells[2]} for middling ones")
    return Plot(
        title="Exposure against popularity",
        caption=f"Lists of {k}; items in {len(first['items'])} equally large groups by popularity. 1 is an even share; "
        "groups that are never shown are missing. Both axes are logarithmic.",
        alt=f"Exposure of items by their popularity. {'; '.join(parts)}.",
        data=data,
        layout=layout(
            axis("Training interactions of an item", type="log", tickformat="~s", dtick=1),
            axis("Exposure, average item = 1", type="log", tickformat="~g", dtick=1),
            legend=inside("left", "top"),
            shapes=[{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1,
                     "line": {"color": MUTED, "width": 1}}],
        ),
        table=(["exposure of items", "most popular", "upper quarter", "middle", "lower quarter", "least"], rows),
    )  # fmt: skip


def calibration(curves: Mapping[str, Mapping[str, Any]], base: str | None, final: str) -> Plot:
    """Calibration curves, one a variant."""
    k = _shortest(next(iter(curves.values()))["tau_hat"])
    data: list[dict[str, Any]] = [_diagonal("calibrated")]
    rows, parts = [], []
    for number, (name, curve) in enumerate(curves.items()):
        values = curve["tau_hat"][k]
        data.append(
            {"type": "scatter", "mode": "lines+markers", "x": _rounded(curve["levels"]), "y": _rounded(values),
             "name": safe(name),
             "hovertemplate": "quantile %{x:.0%} of the list<br>%{y:.1%} of the history is at most as popular",
             **line_of(number, name, base, final)}
        )  # fmt: skip
        middle = min(range(len(values)), key=lambda place: abs(curve["levels"][place] - 0.5))
        rows.append([name, *(short(value, 3) for value in values)])
        parts.append(f"{name}: {short(values[middle], 3)} at the median")
    levels = [f"{level:g}" for level in next(iter(curves.values()))["levels"]]
    return Plot(
        title="Calibration to users' taste",
        caption=f"Where the popularity of a list of {k} lies within its user's history, mean over users. Above the "
        "diagonal, lists are more popular than histories.",
        alt=f"Calibration curves; the diagonal is calibrated. {'; '.join(parts)}.",
        data=data,
        layout=layout(
            axis("Popularity quantile of the list", tickformat=".0%", range=[0, 1], dtick=0.25),
            axis("Place in the history", tickformat=".0%", range=[0, 1.01], dtick=0.25),
            legend=inside("right", "bottom"),
        ),
        table=(["quantile", *levels], rows),
    )


def runs_plot(runs: Sequence[Values], x: str, y: str) -> Plot | None:
    """All variants of several runs on one plane; None if fewer than two of them have both metrics."""
    points = []
    for run in runs:
        variants = run.get("variants") or {str(run.get("model")): run.get("test_result") or {}}
        for name, values in variants.items():
            if values.get(x) is not None and values.get(y) is not None:
                points.append((str(run.get("model")), str(run.get("dataset")), name, values[x], values[y]))
    if len({point[0] for point in points}) < 2 and len(runs) < 2:
        return None
    data = []
    for number, model in enumerate(dict.fromkeys(point[0] for point in points)):
        own = [point for point in points if point[0] == model]
        data.append(
            {"type": "scatter", "mode": "markers", "name": safe(model), "x": [point[3] for point in own],
             "y": [point[4] for point in own], "text": [safe(f"{point[2]}, {point[1]}") for point in own],
             "hovertemplate": f"%{{text}}<br>{display_name(x)} %{{x:.4g}}<br>{display_name(y)} %{{y:.4g}}",
             "marker": {"color": PALETTE[number % 6], "symbol": _SYMBOLS[number % 6], "size": 11}}
        )  # fmt: skip
    return Plot(
        title="All runs on one plane",
        caption="Each point is a variant of a run, on test.",
        alt=f"{len(points)} variants of {len(runs)} runs by {display_name(x)} and {display_name(y)}; see the tables.",
        data=data,
        layout=layout(axis(metric_label(x)), axis(metric_label(y))),
        table=(
            ["model", "variant", "data", display_name(x), display_name(y)],
            [[model, name, dataset, short(a), short(b)] for model, dataset, name, a, b in points],
        ),
        wide=True,
    )


# -- a sweep -----------------------------------------------------------------------------------------------------------


def tradeoff(sweep: Values) -> Plot:
    """All settings of a sweep with the Pareto front; buttons change between validation and test."""
    x, y, keys = sweep["x"], sweep["y"], _sweep_keys(sweep)
    on_front = [_setting(row, keys) for row in sweep["front"]]
    others = [row for row in sweep["settings"] if _setting(row, keys) not in on_front]
    chosen = [sweep["chosen"]] if sweep.get("chosen") else []
    front = {"color": PALETTE[0], "size": 9}
    diamond = {"color": PALETTE[1], "size": 16, "symbol": "diamond-open", "line": {"width": 3}}
    groups: list[tuple[str, Sequence[Values], dict[str, Any]]] = [
        ("other settings", others, {"mode": "markers", "marker": {"color": MUTED, "size": 7, "opacity": 0.65}}),
        ("Pareto front on validation", sweep["front"],
         {"mode": "lines+markers", "line": {"color": PALETTE[0], "width": 2}, "marker": front}),
        ("chosen", chosen, {"mode": "markers", "marker": diamond}),
    ]  # fmt: skip
    data: list[dict[str, Any]] = []
    places: dict[str, tuple[list[Any], list[Any]]] = {"valid": ([], []), "test": ([], [])}
    for name, rows, look in groups:
        if not rows:
            continue
        data.append(
            {"type": "scatter", "name": name, "text": [_hover(row, keys, x, y) for row in rows],
             "hovertemplate": "%{text}<extra></extra>", **look}
        )  # fmt: skip
        for split, (xs, ys) in places.items():
            xs.append([row[f"{split} {x}"] for row in rows])
            ys.append([row[f"{split} {y}"] for row in rows])
    base = {f"{split} {name}": values.get(name) for split, values in sweep["base"].items() for name in (x, y)}
    data.append(
        {"type": "scatter", "mode": "markers", "name": "plain model", "text": [_hover(base, [], x, y)],
         "hovertemplate": "plain model<br>%{text}<extra></extra>",
         "marker": {"color": BASE, "size": 15, "symbol": "star"}}
    )  # fmt: skip
    for split, (xs, ys) in places.items():
        xs.append([base[f"{split} {x}"]])
        ys.append([base[f"{split} {y}"]])
    for number, trace in enumerate(data):
        trace["x"], trace["y"] = places["valid"][0][number], places["valid"][1][number]
    words = [f"{len(sweep['settings'])} settings, {len(sweep['front'])} on the Pareto front"]
    words.append(f"plain model at {short(base[f'test {x}'])} and {short(base[f'test {y}'])} on test")
    if chosen:
        at = f"{short(chosen[0][f'test {x}'])} and {short(chosen[0][f'test {y}'])}"
        words.append(f"chosen setting {setting_text(_setting(chosen[0], keys))} at {at} on test")
    bounds = _bounds(sweep)
    return Plot(
        title=f"{display_name(y)} against {display_name(x)}",
        caption="Each point is a setting; point at one to read it. The front and the choice are those of validation.",
        alt=f"Trade-off of {display_name(y)} against {display_name(x)}: {'; '.join(words)}.",
        data=data,
        layout=layout(axis(metric_label(x)), axis(metric_label(y)), updatemenus=[_split_buttons(places, bounds)],
                      shapes=bounds, annotations=[corner(x, y)], margin={"l": 52, "r": 14, "t": 50, "b": 44}),
        height=480,
        table=_front_table(sweep, keys, base),
        wide=True,
    )  # fmt: skip


def _sweep_keys(sweep: Values) -> list[str]:
    if sweep.get("grid"):
        return list(sweep["grid"])
    rows = sweep["settings"] or [{}]
    return [key for key in rows[0] if not key.startswith(("valid ", "test ")) and key != "front"]


def _setting(row: Values, keys: Sequence[str]) -> dict[str, Any]:
    return {key: row[key] for key in keys}


def _hover(row: Values, keys: Sequence[str], x: str, y: str) -> str:
    lines = [f"<b>{safe(setting_text(_setting(row, keys)))}</b>"] if keys else []
    for split, word in (("valid", "validation"), ("test", "test")):
        values = ", ".join(f"{display_name(name)} {short(row[f'{split} {name}'])}" for name in (y, x))
        lines.append(f"{word}: {values}")
    return "<br>".join(lines)


def _split_buttons(places: Mapping[str, tuple[list[Any], list[Any]]], bounds: list[dict[str, Any]]) -> dict[str, Any]:
    words = {"valid": "validation", "test": "test"}
    return {
        "type": "buttons",
        "direction": "right",
        "x": 1,
        "xanchor": "right",
        "y": 1.02,
        "yanchor": "bottom",
        "showactive": True,
        "bgcolor": "#FFFFFF",
        "bordercolor": "#9AA0A6",
        "buttons": [
            {"label": words[split], "method": "update",
             "args": [{"x": xs, "y": ys}, {"shapes": bounds if split == "valid" else []}]}
            for split, (xs, ys) in places.items()
        ],
    }  # fmt: skip


def _bounds(sweep: Values) -> list[dict[str, Any]]:
    """Lines at the bounds that hold on validation."""
    lines = []
    for bound in sweep.get("subject_to") or []:
        if not isinstance(bound, Mapping) or bound["metric"] not in (sweep["x"], sweep["y"]):
            continue
        across, along = ("y", "x") if bound["metric"] == sweep["y"] else ("x", "y")
        lines.append(
            {"type": "line", f"{along}ref": "paper", f"{along}0": 0, f"{along}1": 1, f"{across}0": bound["bound"],
             f"{across}1": bound["bound"], "line": {"color": BASE, "width": 1, "dash": "dash"},
             "label": {"text": bound_text(bound),
                       "textposition": "start" if smaller_is_better(sweep["x"]) else "end", "font": {"size": 11}}}
        )  # fmt: skip
    return lines


def corner(x: str, y: str) -> dict[str, Any]:
    """Words in the corner where both metrics are better."""
    left, low = smaller_is_better(x), smaller_is_better(y)
    arrow = {(True, False): "↖", (False, False): "↗", (True, True): "↙", (False, True): "↘"}[left, low]
    return {
        "text": f"{arrow} better" if left else f"better {arrow}", "showarrow": False, "xref": "paper", "yref": "paper",
        "x": 0.01 if left else 0.99, "xanchor": "left" if left else "right", "y": 0.02 if low else 0.98,
        "yanchor": "bottom" if low else "top", "font": {"color": "#57606A", "size": 13},
    }  # fmt: skip


def _front_table(sweep: Values, keys: Sequence[str], base: Values) -> tuple[list[str], list[list[str]]]:
    columns = [(split, name) for split in ("valid", "test") for name in (sweep["y"], sweep["x"])]
    words = {"valid": "validation", "test": "test"}
    header = [*keys, *(f"{display_name(name)}, {words[split]}" for split, name in columns)]
    chosen = _setting(sweep["chosen"], keys) if sweep.get("chosen") else None
    rows = [["plain model", *[""] * (len(keys) - 1), *(short(base[f"{s} {n}"]) for s, n in columns)]]
    listed = list(sweep["front"])
    if chosen is not None and chosen not in [_setting(row, keys) for row in listed]:
        listed.append(sweep["chosen"])
    for row in listed:
        mark = " (chosen)" if _setting(row, keys) == chosen else ""
        cells = [short(row[key]) if not isinstance(row[key], str) else row[key] for key in keys]
        cells[0] += mark
        rows.append([*cells, *(short(row[f"{split} {name}"]) for split, name in columns)])
    return header, rows


def _diagonal(name: str) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines", "x": [0, 1], "y": [0, 1], "name": name, "hoverinfo": "skip",
        "line": {"color": MUTED, "width": 1, "dash": "dot"},
    }  # fmt: skip


def _rounded(values: Sequence[Any]) -> list[Any]:
    return [None if value is None else float(f"{value:.5g}") for value in values]
