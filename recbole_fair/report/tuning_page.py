"""What a search for settings shows on the page: sentences, tables, and a plot of its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recbole_fair.analysis.grid import setting_text, value_text
from recbole_fair.evaluator.directions import display_name
from recbole_fair.report.plots import Plot, axis, corner, layout, safe
from recbole_fair.report.style import BASE, MUTED, PALETTE, metric_label
from recbole_fair.report.tuning import SHOWN, bounds_text, metrics_of, order_of, values_of
from recbole_fair.report.words import short

_LABEL = {"hovertemplate": "%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>"}


def tuning_sentences(result: Mapping[str, Any]) -> list[str]:
    """What a search found."""
    trials, chosen = result["trials"], result["chosen"]
    failed = sum(row["state"] == "failed" for row in trials)
    cut = sum(row["state"] == "pruned" for row in trials)
    first = f"{len(trials)} settings of {', '.join(result['space'])} were tried on validation"
    first += f"; {cut} trainings were ended early" if cut else ""
    first += f"; {failed} failed" if failed else ""
    if len(chosen) > 1:
        return [
            f"{first}.",
            f"{len(chosen)} of them are not beaten in all objectives at once; test was looked at for these.",
        ]
    (row,) = chosen
    setting = ", ".join(f"{key}={value_text(row[key])}" for key in result["space"])
    parts = []
    for name in metrics_of(result):
        splits = [("valid", "validation"), ("test", "test")]
        said = [
            f"{values_of(row, split, [name], 4)[0]} on {word}" for split, word in splits if f"{split} {name}" in row
        ]
        parts.append(f"{display_name(name)} {', '.join(said)}")
    sentences = [f"{first}.", f"{setting} is chosen: {'; '.join(parts)}."]
    if not row["keeps bounds"]:
        sentences.append("No trial keeps the bounds; this one misses them least.")
    return sentences


def tuning_tables(result: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, header and rows: the best trials, what was chosen and tested, what the objective depends on."""
    metrics, keys = metrics_of(result), list(result["space"])
    complete = [row for row in result["trials"] if row["state"] == "complete"]
    best = sorted(complete, key=lambda row: order_of(result, row))[: 2 * SHOWN]
    shown = ["trial", *keys, *(f"{display_name(name)}, validation" for name in metrics)]
    rows = [[str(r["trial"]), *(value_text(r[k]) for k in keys), *values_of(r, "valid", metrics, 4)] for r in best]
    title = f"The best trials with {bounds_text(result)}" if result["subject_to"] else "The best trials"
    tables = [(title, shown, rows)]
    tested = [row for row in result["chosen"] if any(key.startswith("test ") for key in row)]
    if tested:
        header = ["trial", *keys, *(f"{display_name(name)}, test" for name in metrics)]
        rows = [[str(r["trial"]), *(value_text(r[k]) for k in keys), *values_of(r, "test", metrics, 4)] for r in tested]
        tables.append(("Chosen on validation, and what it gives on test", header, rows))
    if result["importance"]:
        shares = [[key, f"{100 * share:.0f} %"] for key, share in result["importance"].items()]
        tables.append((f"What {display_name(metrics[0])} depends on", ["key", "share"], shares))
    return tables


def tuning_plots(result: Mapping[str, Any]) -> list[Plot]:
    """The trials on the plane of two objectives, or of the objective and the first bound; else in their order."""
    metrics = metrics_of(result)
    x = metrics[0] if len(metrics) > 1 else None
    y = metrics[1] if x is not None else metrics[0]
    rows = [row for row in result["trials"] if all(row.get(f"valid {name}") is not None for name in metrics[:2])]
    if len(rows) < 2:
        return []
    keys = list(result["space"])

    def places(some: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "type": "scatter",
            "mode": "markers",
            "x": [row["trial"] if x is None else row[f"valid {x}"] for row in some],
            "y": [row[f"valid {y}"] for row in some],
            "text": [safe(f"trial {row['trial']}: {setting_text({key: row[key] for key in keys})}") for row in some],
            **_LABEL,
        }

    data = []
    for keeps, name, colour in ((False, "miss the bounds", MUTED), (True, "trials", PALETTE[0])):
        some = [row for row in rows if row["keeps bounds"] is keeps]
        if some:
            data.append({**places(some), "name": name, "marker": {"color": colour, "size": 7}})
    base = result["base"].get("valid", {})
    if x is not None and base.get(x) is not None and base.get(y) is not None:
        star = {"color": BASE, "size": 15, "symbol": "star"}
        point = {"x": [base[x]], "y": [base[y]], "text": ["base"], "marker": star, "name": "base"}
        data.append({"type": "scatter", "mode": "markers", **point, **_LABEL})
    ring = {"color": PALETTE[1], "size": 13, "symbol": "diamond-open", "line": {"width": 2}}
    name = "chosen" if len(result["chosen"]) == 1 else "Pareto front"
    data.append({**places(result["chosen"]), "name": name, "marker": ring})
    against = "trial by trial" if x is None else f"against {display_name(x)}"
    return [
        Plot(
            title=f"{display_name(y)} {against}, validation",
            caption="Each point is a trial, on validation; hover to see its setting. Dashed: the bounds.",
            alt=f"{len(rows)} trials by {display_name(y)} {against}; {len(result['chosen'])} chosen.",
            data=data,
            layout=layout(
                axis("trial" if x is None else metric_label(x)),
                axis(metric_label(y)),
                shapes=[_line(bound, along=bound["metric"] == x) for bound in result["subject_to"]
                        if bound["metric"] in (x, y)],
                annotations=[] if x is None else [corner(x, y)],
                margin={"l": 52, "r": 14, "t": 50, "b": 44},
            ),
            height=460,
            table=(
                ["trial", *([display_name(x)] if x is not None else []), display_name(y)],
                [[str(r["trial"]), *([short(r[f"valid {x}"])] if x is not None else []), short(r[f"valid {y}"])]
                 for r in rows],
            ),
            wide=True,
        )
    ]  # fmt: skip


def _line(bound: Mapping[str, Any], along: bool) -> dict[str, Any]:
    """A dashed line at a bound, upright where its metric runs along the lower axis."""
    across, through = ("y", "x") if along else ("x", "y")
    at = {f"{through}0": bound["bound"], f"{through}1": bound["bound"]}
    ends = {f"{across}ref": "paper", f"{across}0": 0, f"{across}1": 1}
    return {"type": "line", **ends, **at, "line": {"color": BASE, "width": 1, "dash": "dash"}}
