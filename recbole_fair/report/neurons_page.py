"""What the page says of a dossier's neurons: the table of all of them, the controls, sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_fair.evaluator.directions import display_name
from recbole_fair.report.concept_words import said_of
from recbole_fair.report.dossiers import control_sentences, information_sentences, leading_neurons
from recbole_fair.report.words import Values, dossier_sentences, percent, short, signed

_EFFECTS = 3
_ROWS = 1000  # of the table of neurons: the page of an autoencoder of any size stays small
_MODES = {"base": "nothing", "erase": "neurons", "erase_dense": "least squares"}
_VERDICTS = {"yes": ("better", "yes"), "open": "open", "no": ("worse", "no")}


def neuron_sentences(dossier: Values) -> list[str]:
    """What a dossier of neurons found, with what its controls say."""
    concepts = dossier.get("concepts") or ()
    more = [*information_sentences(dossier), *control_sentences(dossier)]
    return [*said_of(dossier_sentences(dossier), concepts), *more]


def site_sentences(dossier: Values) -> list[str]:
    """What a dossier of probed sites found."""
    return said_of(dossier_sentences(dossier), dossier.get("concepts") or ())


def neurons_table(dossier: Values) -> tuple[str, list[str], list[list[Any]], str]:
    """The table of the neurons that fire, the strongest if they are many: caption, header, rows, note."""
    turned = _turned(dossier)
    header = ["neuron", "responds to", "fires for", "effect on concepts (d)", "promotes", *map(_heading, turned)]
    rows = []
    for row in sorted(dossier["every"], key=lambda row: -_strength(row))[:_ROWS]:
        effects = sorted(
            ((key[2:], value) for key, value in row.items() if key.startswith("d ")), key=lambda pair: -abs(pair[1])
        )
        text = ", ".join(f"{label} {value:+.2f}" for label, value in effects[:_EFFECTS])
        cells = [str(row["neuron"]), row.get("label") or "–", percent(row["frequency"]), text, row.get("items") or "–"]
        rows.append([*cells, *(signed(row.get(name)) for name in turned)])
    note = (
        "Attributes by tf-idf on the users and items that activate a neuron; the concepts on which its effect is "
        "largest; the items whose scores it raises most."
    )
    if turned:
        note += " The last columns, for the strongest neurons: what raising the neuron by two deviations changes."
    if len(dossier["every"]) <= _ROWS:
        return "All neurons that fire", header, rows, note
    note += f" All {len(dossier['every']):,} are in every.csv."
    return f"The {_ROWS:,} neurons of the largest effect sizes", header, rows, note


def leading_table(dossier: Values) -> tuple[str, list[str], list[list[Any]], str] | None:
    """The strongest neuron of every concept, strongest in either sense; None for a fit of one concept."""
    leading = leading_neurons(dossier)
    if not leading:
        return None
    header = ["concept", *(text for _ in range(2) for text in ("neuron", "d", "fires for", "responds to"))]
    header[1], header[5] = "largest effect size", "largest effect × firing rate"
    rows = []
    for found in leading:
        cells = [found["concept"]]
        for neuron in (found["by_effect"], found["by_both"]):
            d = f"{neuron['d ' + found['concept']]:+.2f}"
            cells += [str(neuron["neuron"]), d, percent(neuron["frequency"]), neuron.get("label") or "–"]
        rows.append(cells)
    note = (
        "The first neuron of a row tells the concept best where it fires, often for few users; the second one is what "
        "the rankings of this dossier put first, and is often broader than the concept."
    )
    return "The strongest neuron of every concept", header, rows, note


def _turned(dossier: Values) -> list[str]:
    """Names of what turning neurons changes."""
    first: Mapping[str, Any] = next((row for row in dossier["every"] if any("@" in key for key in row)), {})
    return [key for key in first if "@" in key]


def _heading(name: str) -> str:
    metric, of, group = name.partition(" of ")
    return f"{display_name(metric)}{of}{group}"


def _strength(row: Values) -> float:
    """The largest effect on any concept, for the order of the table."""
    return max((abs(value) for key, value in row.items() if key.startswith("d ")), default=0.0)


def information_table(dossier: Values) -> tuple[str, list[str], list[list[Any]], str] | None:
    """Probe and metrics before and after a concept of users is erased; None without one."""
    rows = dossier.get("information")
    if not rows:
        return None
    label = dossier["concepts"][0]["label"]
    metrics = [key for key in rows[0] if "@" in key]
    header = [
        "erased by",
        "share",
        "probe accuracy",
        "AUC",
        *map(display_name, metrics),
        f"NDCG of {label}",
        "of others",
    ]
    cells = []
    for row in rows:
        accuracy = f"{short(row['accuracy'], 3)} ({short(row['accuracy_low'], 3)} to {short(row['accuracy_high'], 3)})"
        groups = [
            f"{short(row[f'ndcg {side}'])} ({short(row[f'ndcg {side} low'])} to {short(row[f'ndcg {side} high'])})"
            for side in ("with", "without")
        ]
        values = [short(row[key]) for key in metrics]
        cells.append([_MODES[row["mode"]], percent(row["share"]), accuracy, short(row["auc"], 3), *values, *groups])
    note = (
        "Logistic regression on the users' representations, five folds; always naming the larger group has accuracy "
        f"{short(rows[0]['majority'], 3)}. 95 % intervals by drawing users with replacement."
    )
    return f"Do representations tell {label}?", header, cells, note


def control_tables(dossier: Values) -> list[tuple[str, list[str], list[list[Any]], str]]:
    """Tables of the controls and of the seeds; none without them."""
    found = dossier.get("controls")
    if not found:
        return []
    goal, metric = display_name(found["goal"]), display_name(found["metric"])
    base = ["the base", "0", short(found["base"]["metric"]), short(found["base"]["goal"]), "", "", ""]
    arms: list[list[Any]] = [base]
    for arm in found["arms"]:
        cells: list[Any] = [arm["name"], short(arm["strength"], 3), short(arm["metric"]), short(arm["goal"])]
        if "beaten" in arm:
            cells += [signed(arm["goal_difference"]), f"{signed(arm['low'])} to {signed(arm['high'])}"]
            cells.append(_VERDICTS[arm["beaten"]])
        arms.append([*cells, *[""] * (7 - len(cells))])
    seeds = [
        [one["name"], short(one["largest_effect"], 3), short(one["above_1"]),
         short(one["overlap_with_trained"], 3), short(one["overlap_of_strongest"], 3)]
        for one in found["reseeds"]
    ]  # fmt: skip
    return [
        (
            "The trained autoencoder and its controls",
            ["steered by", "strength", metric, goal, "trained - this", "95 % interval", "trained is better"],
            arms,
            f"Each control steers to the {metric} of the trained autoencoder, as near as halving its strength gets; "
            "intervals by drawing users with replacement.",
        ),
        (
            "Other seeds",
            ["autoencoder", "largest |d|", "neurons above 1", "nearest feature", "nearest strong feature"],
            seeds,
            "Mean cosine of the ten strongest neurons of either side with the nearest feature, and with the nearest of "
            "the twenty strongest, of each autoencoder. Other seeds are trained on the real users' vectors alone.",
        ),
    ]
