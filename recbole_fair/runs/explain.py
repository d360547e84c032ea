"""The dossier of a steered model: what its neurons or probes say, as tables, figures and one document."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recbole.utils import init_logger

from recbole_fair.analysis.dossier import NeuronDossier, Options, SiteDossier, neuron_dossier, site_dossier
from recbole_fair.analysis.populations import Floats
from recbole_fair.config.contract import MutableSettings
from recbole_fair.config.mask import Mask
from recbole_fair.errors import FairError
from recbole_fair.evaluator.csv_files import write_table
from recbole_fair.io.checkpoint import load_checkpoint
from recbole_fair.model.popsteer.popsteer import PopSteer
from recbole_fair.model.spree.spree import SPREE
from recbole_fair.report.documents import DossierDocument, NeuronsDocument, SitesDocument, rows_of, write_document
from recbole_fair.report.neuron_figures import neuron_figures, save_figures, site_figures
from recbole_fair.report.summary import number, text_table
from recbole_fair.runs.loading import FILE_KEYS, check_changes, config_of, load_trainer, refuse
from recbole_fair.runs.outputs import versions
from recbole_fair.trainer.scorer import progress

logger = logging.getLogger(__name__)

#: Metrics that a dossier is about, besides those of the configuration: accuracy first.
_POPSTEER_METRICS = ("NDCG", "GiniIndex")
_SPREE_METRICS = ("NDCG", "PCE")


def explain_checkpoint(
    model_file: str | Path,
    output_dir: str | Path | None = None,
    split: str = "valid",
    options: Options | None = None,
    config_dict: Mapping[str, Any] | None = None,
) -> DossierDocument:
    """Write the dossier of a steered model into a folder.

    Args:
        model_file: checkpoint of a PopSteer or SPREE model.
        output_dir: the folder; ``results/explain-NAME`` of the checkpoint's name when left out.
        split: ``valid`` or ``test``: whose users and metrics are looked at. Figures that may lead to a choice of
            strengths belong to validation.
        options: how much is looked at.
        config_dict: settings to change, such as strengths or ``data_path``.

    Returns:
        The document, which is also written as ``explain.json``.

    Raises:
        FairError: for a checkpoint of another model, a split that is not there, or settings that do not fit.
    """
    if split not in ("valid", "test"):
        raise FairError(f"split={split!r} is not allowed: it must be valid or test.")
    options = options or Options()
    content = load_checkpoint(model_file)
    changes = dict(config_dict or {})
    refuse(changes, FILE_KEYS, "is for run and evaluate; a dossier writes files of its own")
    config = config_of(content, changes)
    if not issubclass(config.model_class, PopSteer | SPREE):
        raise FairError(
            f"{model_file} is a {config['model']}, which has no neurons or probes to explain; use the checkpoint of "
            "a PopSteer or SPREE model."
        )
    check_changes(content, config, changes)
    mode = config["steer_mode"]
    if mode in ("dense", "noise"):
        raise FairError(
            f"steer_mode={mode} moves no neuron by an amount of its own: there is no steering of neurons to explain; "
            "add --steer_mode=popsteer (or random_select)."
        )
    folder = Path(output_dir) if output_dir is not None else Path("results", f"explain-{Path(model_file).stem}")
    _make(folder)
    wanted = _POPSTEER_METRICS if issubclass(config.model_class, PopSteer) else _SPREE_METRICS
    _add_metrics(config, wanted)
    init_logger(config)
    start = time.perf_counter()
    trainer, loaders = load_trainer(config, content, model_file)
    loaded = time.perf_counter() - start
    eval_data = loaders[1] if split == "valid" else loaders[2]
    if eval_data is None:
        raise FairError(f"There is no {split} split to explain; use eval_args with one, or the other --split.")
    if not trainer.model.fitted:
        raise FairError(f"{model_file} holds no fitted {config['model']}; train it to its end first.")

    def show(items: Sequence[Any], title: str) -> Any:
        return progress(items, len(items), title, bool(config["show_progress"]))

    metrics = [f"{name.lower()}@{max(config['topk'])}" for name in wanted]
    about: dict[str, Any] = {
        "model": config["model"],
        "dataset": config["dataset"],
        "seed": config["seed"],
        "checkpoint": str(model_file),
        "split": split,
        "metrics": metrics,
        "strengths": trainer.model.strengths,
        "mask_seen": Mask.of(config).recorded,
        "config": config.differences(),
        "versions": versions(),
    }
    document: DossierDocument
    if isinstance(trainer.model, PopSteer):
        neurons = neuron_dossier(trainer, loaders[0], eval_data, options, show)
        document = NeuronsDocument(method="PopSteer", **about, **neuron_document(neurons))
        tables, seconds, lines = _neuron_tables(neurons), neurons.seconds, _neuron_lines(document)
        figures = neuron_figures(neurons, metrics, trainer.model.strengths)
    else:
        sites = site_dossier(trainer, loaders[0], eval_data, options, show)
        document = SitesDocument(method="SPREE", **about, **site_document(sites))
        tables, seconds, lines = _site_tables(sites), sites.seconds, _site_lines(document)
        figures = site_figures(sites, metrics)
    for name, table in tables.items():
        write_table(table, folder / f"{name}.csv")
    start = time.perf_counter()
    drawn = save_figures(figures, folder)
    document = replace(
        document,
        tables=[f"{name}.csv" for name in tables],
        figures=drawn,
        timings={"loading": loaded, **seconds, "figures": time.perf_counter() - start},
    )
    write_document(folder / "explain.json", document)
    for line in [*lines, *document["notes"], f"Written: {len(tables)} tables, {len(drawn)} figures, {folder}"]:
        logger.info(line)
    return document


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FairError(f"output-dir={folder} cannot be made: {error.strerror or error}.") from error


def _add_metrics(config: MutableSettings, wanted: Sequence[str]) -> None:
    present = {str(metric).lower() for metric in config["metrics"]}
    config["metrics"] = [*config["metrics"], *(name for name in wanted if name.lower() not in present)]


# -- what goes into the document ---------------------------------------------------------------------------------------


def neuron_document(dossier: NeuronDossier) -> dict[str, Any]:
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
        "variants": rows_of(dossier.variants),
        "reduction": rows_of(dossier.reduction),
        "surface": rows_of(dossier.surface),
        "map": None if dossier.map is None else _map_document(dossier.map, str(dossier.map_method)),
        "distances": rows_of(dossier.distances),
        "notes": dossier.notes,
    }


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


def site_document(dossier: SiteDossier) -> dict[str, Any]:
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
        "variants": rows_of(dossier.variants),
        "strength_curve": rows_of(dossier.strengths),
        "notes": dossier.notes,
    }


def _neuron_tables(dossier: NeuronDossier) -> dict[str, pd.DataFrame]:
    tables = {
        "neurons": dossier.neurons,
        "activations": dossier.activations,
        "users": dossier.users,
        "items": dossier.items,
        "normality": dossier.normality,
        "variants": dossier.variants,
        "reduction": dossier.reduction,
        "strengths": dossier.surface,
        "distances": dossier.distances,
    }
    return tables if dossier.map is None else {**tables, "map": dossier.map}


def _site_tables(dossier: SiteDossier) -> dict[str, pd.DataFrame]:
    return {
        "probe": dossier.probe,
        "calibration": dossier.calibration,
        "bias": dossier.bias,
        "variants": dossier.variants,
        "strengths": dossier.strengths,
    }


# -- what is printed ---------------------------------------------------------------------------------------------------


def _neuron_lines(document: Mapping[str, Any]) -> list[str]:
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
    return [*lines, *text_table(["", "real", "steered", "change", "p"], rows), ""]


def _site_lines(document: Mapping[str, Any]) -> list[str]:
    rows = [
        [f"block {row['block']}, position {row['position']}" + (" (chosen)" if row["chosen"] else ""),
         number(row["accuracy"], 4)]
        for row in document["probe"][-12:]
    ]  # fmt: skip
    bias = [[name, f"{entry['mean']:+.4f}"] for name, entry in document["bias"].items()]
    return ["", *text_table(["site", "probe accuracy"], rows), "", *text_table(["lists of", "mean bias"], bias), ""]
