"""What the documents of dossiers hold, and what is printed of them: plain values, small enough for a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from recbole_fair.analysis.dossier import NeuronDossier, SiteDossier
from recbole_fair.analysis.populations import Floats
from recbole_fair.evaluator.directions import display_name
from recbole_fair.report.concept_words import said_of
from recbole_fair.report.documents import rows_of
from recbole_fair.report.summary import number, text_table


def neuron_entries(dossier: NeuronDossier) -> dict[str, Any]:
    """A neuron dossier as plain values, small enough to be shown on a page: counts, not one entry a user or neuron."""
    table = dossier.neurons
    alive = table[table["alive"]]
    d = alive["effect_size"].to_numpy()
    largest = float(np.abs(d).max()) if len(d) else 1.0
    share = dossier.head_share[~np.isnan(dossier.head_share)]
    return {
        "neurons": {
            "count": len(table),
            "alive": len(alive),
            "popular": int((d > 0).sum()),
            "unpopular": int((d < 0).sum()),
            "above_1": int((d > 1).sum()),
            "below_1": int((d < -1).sum()),
        },
        "effect_sizes": _histogram(d, (-largest, largest), 60),
        "strongest": {side: [_one_neuron(dossier, j) for j in chosen] for side, chosen in dossier.strongest.items()},
        "head_share": {
            "users": len(share),
            "histogram": _histogram(share, (0.0, 1.0), 50),
            "quantiles": [float(q) for q in np.quantile(share, (0.05, 0.25, 0.5, 0.75, 0.95))] if len(share) else [],
        },
        "normality": rows_of(dossier.normality),
        "reduction": rows_of(dossier.reduction),
        "surface": rows_of(dossier.surface),
        "map": None if dossier.map is None else _map_document(dossier.map, str(dossier.map_method)),
        "distances": rows_of(dossier.distances),
        "every": _every(dossier),
        "concepts": dossier.concepts,
        "controls": dossier.controls,
        "information": [] if dossier.information is None else rows_of(dossier.information),
    }


def _every(dossier: NeuronDossier) -> list[dict[str, Any]]:
    """Every neuron that fires, in as many digits as are read; empty cells are left out."""
    fires = dossier.every["frequency"] > 0
    return [
        {key: _rounded(value) for key, value in row.items() if value == value} for row in rows_of(dossier.every[fires])
    ]


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _histogram(values: Floats, limits: tuple[float, float], bins: int) -> dict[str, list[float]]:
    counts, edges = np.histogram(values, bins=bins, range=limits)
    return {"edges": [float(f"{edge:.6g}") for edge in edges], "counts": counts.tolist()}


def _one_neuron(dossier: NeuronDossier, neuron: int, most: int = 5) -> dict[str, Any]:
    row = dossier.neurons[dossier.neurons["neuron"] == neuron].to_dict("records")[0]
    responses = dossier.activations[dossier.activations["neuron"] == neuron]
    users = dossier.users[dossier.users["neuron"] == neuron].head(most)
    items = dossier.items[dossier.items["neuron"] == neuron]
    keys = ("effect_size", "frequency", "weight", "shift", "head_share_of_top_users")
    return {
        "neuron": neuron,
        **{key: float(row[key]) for key in keys},
        "activations": {
            response["population"]: {key: response[key] for key in response if key not in ("neuron", "population")}
            for response in responses.to_dict("records")
        },
        "users": users["user_id"].tolist(),
        **{
            kind: [
                {"item": item["item_id"], "title": item.get("title") or None}
                for item in items[items["kind"] == kind].head(most).to_dict("records")
            ]
            for kind in ("history", "promoted")
        },
    }


def _map_document(places: pd.DataFrame, method: str, most: int = 300) -> dict[str, Any]:
    """The map with at most so many points a group: the first ones, so that real and steered users stay paired."""
    groups = {
        str(name): {axis: [float(f"{value:.4g}") for value in part[axis].head(most)] for axis in ("x", "y")}
        for name, part in places.groupby("group", sort=False)
    }
    return {"method": method, "groups": groups}


def site_entries(dossier: SiteDossier) -> dict[str, Any]:
    """A SPREE dossier as plain values."""
    bias = {}
    for name in dossier.bias.columns.difference(["user_id", "estimate"], sort=False):
        values = dossier.bias[name].dropna().to_numpy()
        bias[str(name)] = {"mean": float(values.mean()), **_histogram(values, (-0.5, 0.5), 40)}
    return {
        "probe": rows_of(dossier.probe),
        "list_length": dossier.list_length,
        "calibration": rows_of(dossier.calibration),
        "bias": bias,
        "strength_curve": rows_of(dossier.strengths),
    }


def neuron_lines(document: Mapping[str, Any]) -> list[str]:
    """Lines for the terminal: counts, the strongest neurons, distances."""
    counts = document["neurons"]
    lines = [
        "",
        f"{counts['alive']} of {counts['count']} neurons fire; {counts['above_1']} have an effect size above 1 (they "
        f"answer to users of popular items), {counts['below_1']} below -1.",
    ]
    for side, entries in document["strongest"].items():
        rows = [[str(entry["neuron"]), f"{entry['effect_size']:+.2f}", number(entry["head_share_of_top_users"], 2)]
                for entry in entries[:5]]  # fmt: skip
        named = [f"  {'; '.join(item['title'] or item['item'] for item in entry['promoted'][:4])}" for entry in entries]
        table = text_table(["neuron", "d", "head share of top users"], rows)
        header = f"{table[0]}  items that it promotes most"
        lines += ["", f"Neurons that lean to {side} users", header, table[1]]
        lines += [line + name for line, name in zip(table[2:], named, strict=False)]
    lines += ["", "Distance (Wasserstein) of users' representations"]
    rows = [
        [f"to users of {row['to']} items", number(row["real"], 3), number(row["steered"], 3), f"{row['change']:+.3f}",
         number(row["p_value"], 3)]
        for row in document["distances"]
    ]  # fmt: skip
    lines += [*text_table(["", "real", "steered", "change", "p"], rows), ""]
    leading = leading_neurons(document)
    if leading:
        lines.append("The neuron with the largest effect size on each concept")
        strongest = [(row["concept"], row["by_effect"]) for row in leading]
        cells = [
            [label, str(neuron["neuron"]), f"{neuron[f'd {label}']:+.2f}", f"{100 * neuron['frequency']:.1f} %",
             neuron.get("label") or "–"]
            for label, neuron in strongest
        ]  # fmt: skip
        lines += [*text_table(["", "neuron", "d", "fires for", "responds to"], cells), ""]
    more = [*information_sentences(document), *control_sentences(document)]
    return [*said_of(lines, document.get("concepts") or ()), *more]


def leading_neurons(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The neurons that lean most to each concept of a fit, a row a concept; none for a fit of one concept.

    Strongest in two ways, which often differ: ``by_effect`` has the largest effect size, ``by_both`` the largest
    product of effect size and firing rate, so that broad neurons win. Each is a row of the table of all neurons.
    """
    rows, concepts = document.get("every") or [], document.get("concepts") or []
    found = []
    for label in [str(one["label"]) for one in concepts] if rows and len(concepts) > 1 else []:
        by_effect = max(rows, key=lambda row: row[f"d {label}"])
        by_both = max(rows, key=lambda row: row[f"d {label}"] * row["frequency"])
        found.append({"concept": label, "by_effect": by_effect, "by_both": by_both})
    return found


def control_sentences(document: Mapping[str, Any]) -> list[str]:
    """Which controls the trained autoencoder beats at equal accuracy, with intervals; none without controls."""
    found = document.get("controls")
    if not found:
        return []
    trained, *others = found["arms"]
    goal, metric = display_name(found["goal"]), display_name(found["metric"])
    sentences = [
        f"With strengths that leave {metric} at {number(trained['metric'], 4)} (base "
        f"{number(found['base']['metric'], 4)}), the trained autoencoder has {goal} {number(trained['goal'], 4)} (base "
        f"{number(found['base']['goal'], 4)}). Controls at the same {metric}, with difference and 95 % interval:"
    ]
    for verdict, words in (("yes", "It beats"), ("open", "It is not told apart from"), ("no", "It is beaten by")):
        named = [
            f"{arm['name']}, {number(arm['goal'], 4)} ({arm['goal_difference']:+.4f}, {arm['low']:+.4f} to "
            f"{arm['high']:+.4f})"
            for arm in others
            if arm["beaten"] == verdict
        ]
        if named:
            sentences.append(f"{words} {'; '.join(named)}.")
    return sentences


def information_sentences(document: Mapping[str, Any]) -> list[str]:
    """What erasing a concept of users does to a probe and to either group's accuracy; none without one."""
    rows = document.get("information") or []
    if not rows:
        return []
    base, label = rows[0], document["concepts"][0]["label"]
    parts = []
    for row in rows[1:]:
        if row["share"] < 1:
            continue
        how = "neurons" if row["mode"] == "erase" else "least squares"
        changes = " and ".join(
            f"{row[f'ndcg {side} change']:+.4f} for {who} users (95 % {row[f'ndcg {side} change low']:+.4f} to "
            f"{row[f'ndcg {side} change high']:+.4f})"
            for side, who in (("with", label), ("without", "other"))
        )
        parts.append(
            f"erased by {how}, {number(row['accuracy'], 3)} (AUC {number(row['auc'], 3)}), and NDCG changes by "
            f"{changes}"
        )
    return [
        f"A probe tells {label} users from the others with an accuracy of {number(base['accuracy'], 3)} "
        f"(AUC {number(base['auc'], 3)}; always naming the larger group: {number(base['majority'], 3)}); "
        f"{'; '.join(parts)}."
    ]


def site_lines(document: Mapping[str, Any]) -> list[str]:
    """Lines for the terminal: probes and biases."""
    rows = [
        [f"block {row['block']}, position {row['position']}" + (" (chosen)" if row["chosen"] else ""),
         number(row["accuracy"], 4)]
        for row in document["probe"][-12:]
    ]  # fmt: skip
    bias = [[name, f"{entry['mean']:+.4f}"] for name, entry in document["bias"].items()]
    return ["", *text_table(["site", "probe accuracy"], rows), "", *text_table(["lists of", "mean bias"], bias), ""]
