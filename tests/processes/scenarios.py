"""What one group of processes is asked to do, many things in one start: ``scenarios.py DATA OUT``.

Each scenario returns plain values; the first process writes them as JSON. Run without the environment of several
processes, it is the run that they are compared with.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.errors import FairError
from recbole_fair.io.processes import apart, current
from recbole_fair.model.tall import tall
from recbole_fair.quick_start import (
    compare,
    evaluate_checkpoint,
    frontier_checkpoint,
    run_recbole_fair,
    sweep_checkpoint,
    tune,
)
from recbole_fair.runs.alone import together
from recbole_fair.runs.compare import _Run
from recbole_fair.runs.loading import new_trainer
from recbole_fair.runs.spaces import Choice
from recbole_fair.runs.sweeper import Sweeper
from recbole_fair.trainer.trainer import FairTrainerMixin

DATA = sys.argv[1]
ALL_METRICS = [
    "NDCG",
    "Recall",
    "MRR",
    "Hit",
    "MAP",
    "Precision",
    "GAUC",
    "GiniIndex",
    "ItemCoverage",
    "ShannonEntropy",
]
ALL_METRICS += ["AveragePopularity", "TailPercentage", "UPD", "PCE", "PopularityLift", "NDCGHead", "NDCGTail"]
COMMON: dict[str, Any] = {
    "data_path": DATA,
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "topk": [3, 10],
    "valid_metric": "NDCG@10",
    "metrics": ["NDCG", "GiniIndex"],
    "show_progress": False,
    "state": "error",
    "learning_rate": 0.01,
    "eval_batch_size": 400,
    "train_batch_size": 256,
}
SASREC = {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 2, "MAX_ITEM_LIST_LENGTH": 8}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
SMALL = {"embedding_size": 8}
EXPERTS = {"n_experts": 3, "latent_dimension": 4, "dropout_prob": 0.0, "gap": 1, "loss_window": 2}

#: Trainings and settings; ``exact``: every process does all of it.
TRAININGS: dict[str, tuple[str, dict[str, Any]]] = {
    "SASRec": ("SASRec", {**SASREC, **NO_DROPOUT, "clip_grad_norm": {"max_norm": 0.5}, "eval_batch_size": 7}),
    "SASRec, prefixes": ("SASRec", {**SASREC, **NO_DROPOUT, "train_positions": "last", "eval_batch_size": 7}),
    "GRU4Rec": ("GRU4Rec", {"embedding_size": 8, "hidden_size": 8, "dropout_prob": 0.0, "eval_batch_size": 7}),
    "BPR": ("BPR", SMALL),
    "BPR, three negatives": ("BPR", {**SMALL, "train_neg_sample_args": {"sample_num": 3}}),
    "LightGCN": ("LightGCN", {**SMALL, "reg_weight": 0.1}),
    "NeuMF": ("NeuMF", {"mf_embedding_size": 4, "mlp_embedding_size": 4, "mlp_hidden_size": [8], "dropout_prob": 0.0}),
    "ILEBPR": ("ILEBPR", {**SMALL, "ile_weight": 2.0}),
    "ILELightGCN": ("ILELightGCN", {**SMALL, "ile_weight": 2.0, "ile_distance": "mad"}),
    "IPSBPR": ("IPSBPR", SMALL),
    "MultVAE": ("MultVAE", {"latent_dimension": 4, "dropout_prob": 0.0, "train_batch_size": 16}),
    "WL": ("WL", {"latent_dimension": 4, "dropout_prob": 0.0, "train_batch_size": 16, "wl_exponent": 1.0}),
    "TALL": ("TALL", {**EXPERTS, "train_batch_size": 16, "gate_grad": True, "kl_reduction": "sum"}),
    "DecFM": ("DecFM", {"embedding_size": 4, "dropout_prob": [0.0, 0.0], "load_col": None}),
    "SimpleX": ("SimpleX", {**SMALL, "train_neg_sample_args": {"sample_num": 4}, "dropout_prob": 0.0}),
    "SGL": ("SGL", SMALL),
    "MultiVAE": ("MultiVAE", {"latent_dimension": 8, "mlp_hidden_size": [8], "train_batch_size": 16}),
    "RecVAE": ("RecVAE", {"latent_dimension": 4, "hidden_dimension": 8, "train_batch_size": 16}),
}


def digest(*arrays: Any) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def config_of(model: str, **settings: Any) -> FairConfig:
    config = FairConfig(model, "small", config_dict={**COMMON, **settings})
    together(config)
    return config


def lists_of(trainer: Any, data: Any) -> dict[str, Any]:
    """Metrics and digests of everything that an evaluation finds."""
    struct = trainer.collect(data, candidates=15)
    found = {
        key: digest(*(part.numpy() for part in (value if isinstance(value, tuple) else (value,))))
        for key in ("rec.items", "rec.topk", "rec.users", "rec.values", "rec.positives", "rec.candidates")
        for value in (struct[key],)
    }
    result = trainer.evaluator.result(trainer.collect(data))
    by_user = {name: digest(values.numpy()) for name, values in result.per_user.items()}
    groups = {name: repr(group) for name, group in result.groups.items()}
    return {
        "struct": found,
        "metrics": result.metrics,
        "by_user": by_user,
        "intervals": {name: list(pair) for name, pair in result.intervals.items()},
        "groups": groups,
        "curves": digest(np.frombuffer(json.dumps(result.curves).encode(), dtype=np.uint8)),
    }


def training(model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Loss of each epoch, the last of many steps, and the weights after it."""
    config = config_of(model, epochs=5, stopping_step=10, eval_step=5, **settings)
    trainer, (train, valid, _) = new_trainer(config)
    losses: list[float] = []
    epoch = FairTrainerMixin._train_epoch

    def kept(self: Any, *args: Any, **options: Any) -> Any:
        losses.append(epoch(self, *args, **options))
        return losses[-1]

    FairTrainerMixin._train_epoch = kept  # a model may be trained by several trainers
    try:
        score, _ = trainer.fit(train, valid, saved=False)
    finally:
        FairTrainerMixin._train_epoch = epoch
    weights = torch.cat([value.double().flatten() for value in trainer.model.state_dict().values()]).nan_to_num()
    alike = current().gather(weights.unsqueeze(0))
    return {
        "steps": len(train) * 5,
        "losses": [sum(loss) if isinstance(loss, (tuple, list)) else loss for loss in losses],
        "score": score,
        "in_parts": trainer._steps._in_parts,
        "weights_alike": all(bool(torch.equal(part, alike[0])) for part in alike),
        "norm": float(weights.norm()),
    }


def trainings() -> dict[str, Any]:
    sample = tall.sample
    tall.sample = lambda mean, logvar: (mean, sample(mean, logvar)[1])
    wanted = os.environ.get("TRAININGS", ";".join(TRAININGS)).split(";")
    try:
        return {name: training(*TRAININGS[name]) for name in wanted}
    finally:
        tall.sample = sample


def evaluations() -> dict[str, Any]:
    """Untrained models over users and batches that no number of processes divides."""
    sequential = {**SASREC, "eval_batch_size": 7, "metrics": ALL_METRICS, "bootstrap": 20}
    general = {**SMALL, "metrics": ALL_METRICS, "eval_batch_size": 200, "load_col": None, "group_field": "genre"}
    groups = {"group_metrics": {"mainstream": {"bins": 3, "metrics": ["NDCG"]}}}
    cases = {
        "sequential": ("SASRec", sequential),
        "general": ("BPR", general | groups),
        "one batch": ("BPR", {**general, "eval_batch_size": 10**6}),
        "sampled": ("BPR", {**general, "eval_args": {"mode": "uni5", "split": {"RS": [0.8, 0.1, 0.1]}}}),
        "by chance": ("Random", {**general, "metrics": ["NDCG", "GAUC"]}),
    }
    found = {}
    for name, (model, settings) in cases.items():
        trainer, (_, valid, test) = new_trainer(config_of(model, **settings))
        found[name] = {"valid": lists_of(trainer, valid), "test": lists_of(trainer, test)}
    labels = {"metrics": ["AUC", "LogLoss"], "valid_metric": "AUC", "threshold": {"rating": 3}, "load_col": None}
    args = {"mode": "labeled", "split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": None}
    trainer, (_, _, test) = new_trainer(config_of("FM", **SMALL, **labels, eval_args=args))
    found["labelled"] = {"metrics": trainer.evaluate(test, load_best_model=False)}
    return found


def whole_runs() -> dict[str, Any]:
    """Runs with their files: a re-ranker, post-hoc models, and a checkpoint evaluated again."""
    found: dict[str, Any] = {}
    files = {key: f"{key}.csv" for key in ("recommendations_file", "per_user_file", "per_item_file")}
    ranked = {"reranker": "IPR", "eval_batch_size": 7, "epochs": 2, **SASREC, **NO_DROPOUT}
    result = run_recbole_fair("SASRec", "small", config_dict={**COMMON, **ranked, **files, "result_file": "out.json"})
    current().wait()
    found["re-ranked"] = {"checkpoint": result["checkpoint"], "variants": result["variants"]}
    found["files"] = {name: digest(np.frombuffer(Path(name).read_bytes(), dtype=np.uint8)) for name in files.values()}
    synthetic = {"synthetic_users": 300, "synthetic_length": 5}
    sae = {"sae_scale": 2, "sae_k": 4, "sae_epochs": 3, "sae_batch_size": 64, **synthetic}
    posthoc = {**COMMON, **SASREC, **NO_DROPOUT, "eval_batch_size": 7, "epochs": 2}
    for model, settings in (("PopSteerSASRec", sae), ("SPREESASRec", synthetic)):
        result = run_recbole_fair(model, "small", config_dict={**posthoc, **settings})
        found[model] = {"variants": result["variants"], "base": result["base"]["source"]}
    return found


LATER = {**COMMON, **SASREC, **NO_DROPOUT, "eval_batch_size": 7, "stopping_step": 10, "train_batch_size": 64}


def begun() -> dict[str, Any]:
    """A training of two epochs, and one of four, to be taken up and evaluated by other processes."""
    first = run_recbole_fair("SASRec", "small", config_dict={**LATER, "epochs": 2, "checkpoint_dir": "begun"})
    whole = run_recbole_fair("SASRec", "small", config_dict={**LATER, "epochs": 4, "checkpoint_dir": "whole"})
    paths = {"begun": first["checkpoint"], "whole": whole["checkpoint"]}
    return {
        **{name: str(Path(path).resolve()) for name, path in paths.items()},
        "result": whole["test_result"],
        "valid": [first["best_valid_score"], whole["best_valid_score"]],
        "evaluated": evaluated(whole["checkpoint"]),
    }


def evaluated(checkpoint: str) -> dict[str, Any]:
    changes = {"metrics": ALL_METRICS, "reranker": "FAstarIR", "eval_batch_size": 9, "bootstrap": 10}
    found = evaluate_checkpoint(checkpoint, changes)
    return {"variants": found["variants"], "intervals": found["intervals"]}


def taken_up() -> dict[str, Any]:
    """What other processes have begun (``BEGUN``), gone on with and evaluated."""
    there = json.loads(Path(os.environ["BEGUN"]).read_text())["begun"]
    copied = Path("taken.pth").resolve()
    if int(os.environ.get("RANK", "0")) == 0:
        copied.write_bytes(Path(there["begun"]).read_bytes())
    config_of("SASRec")  # joins the processes
    current().wait()
    result = run_recbole_fair("SASRec", "small", config_dict={**LATER, "epochs": 4, "resume": str(copied)})
    return {
        "result": result["test_result"],
        "valid": result["best_valid_score"],
        "evaluated": evaluated(there["whole"]),
    }


# -- studies -------------------------------------------------------------------------------------------------------

OF_STUDIES = {
    **{key: value for key, value in LATER.items() if key != "train_batch_size"},
    "epochs": 1,
    "topk": [5],
    "valid_metric": "NDCG@5",
    "segment_by": "items",
}
ALPHAS = "reranker_alpha=0,0.2,0.4,0.6,0.8,1"
OF_SWEEP = {"data_path": DATA, "reranker": "IPR", "show_progress": False, "state": "error"}
NAMES = ("GiniIndex@5", "NDCG@5")


def trained_by_first(folder: str) -> str:
    """A model that one process has trained, so that its weights are the same however many there are."""

    def train() -> str:
        with apart():
            changes = {**OF_STUDIES, "checkpoint_dir": folder}
            return str(Path(run_recbole_fair("SASRec", "small", config_dict=changes)["checkpoint"]).resolve())

    return current().made_by_first(train)


def plain(document: Any, *keys: str) -> dict[str, str]:
    """Parts of a result, spelled out: nan is nan."""
    return {key: json.dumps(document[key], default=str) for key in keys}


def of_sweep(document: Any) -> dict[str, str]:
    return plain(document, "base", "settings", "front", "chosen", "grid", "subject_to")


def studies() -> dict[str, Any]:
    """A sweep, a frontier, a comparison and searches, shared out."""
    config_of("SASRec")  # joins the processes
    file = trained_by_first("base")
    bounds = ["NDCG@5 >= 0.5*base"]
    swept = sweep_checkpoint(file, [ALPHAS], *NAMES, bounds, "out/sweep", OF_SWEEP, "out/chosen.pth")
    settings = {"data_path": DATA, "bootstrap": 20, "state": "error"}
    frontier = frontier_checkpoint(
        file, ["GiniIndex@5"], "NDCG@5", [0.5], ["IPR", "Tilt"], output="out/front", config_dict=settings
    )
    trained = _Run._trained

    def fails_once(self: _Run, model: str, seed: int) -> Any:
        if (model, seed) == ("BPR", 2021):
            raise FairError("BPR does not like 2021.")
        return trained(self, model, seed)

    _Run._trained = fails_once  # type: ignore[method-assign]
    try:
        several = {"permutations": 100, "output": "out/compare", "config_dict": {**OF_STUDIES, "bootstrap": 50}}
        compared = compare(["SASRec", "BPR", "Pop"], ["IPR"], "small", 2, **several)  # type: ignore[arg-type]
        again = compare(["SASRec", "BPR", "Pop"], ["IPR"], "small", 2, **several)  # type: ignore[arg-type]
    finally:
        _Run._trained = trained  # type: ignore[method-assign]
    cells = [{key: cell[key] for key in ("system", "seed", "metrics", "held_out")} for cell in compared["cells"]]
    found = {
        "sweep": of_sweep(swept),
        "frontier": plain(frontier, "base", "settings", "methods", "winners", "skipped"),
        "compare": plain(compared, "systems", "comparisons", "failed", "reused") | {"cells": json.dumps(cells)},
        "compare again": plain(again, "systems", "failed", "reused"),
    }
    for name, space in {
        "trained": {"train_batch_size": [32, 64, 128]},
        "scored": {"reranker_alpha": [0, 0.5, 1]},
    }.items():
        changes = {**OF_STUDIES, "reranker": "IPR" if name == "scored" else None}
        tuned = tune(
            "SASRec", "small", {key: Choice(tuple(values)) for key, values in space.items()}, 5, ["GiniIndex@5"],
            subject_to=bounds, sampler="random", output=f"out/{name}", config_dict=changes,
        )  # fmt: skip
        found[f"tune, {name}"] = plain(tuned, "trials", "chosen", "base", "subject_to")
    files = [str(path).partition(".tfevents")[0] for path in Path("out").rglob("*") if path.suffix != ".pth"]
    return {**found, "files": sorted(files)}


def interrupted_sweep() -> dict[str, Any]:
    """A sweep that is ended after each process has measured a setting, to be taken up by other processes."""
    config_of("SASRec")
    file = trained_by_first("for_sweep")
    measure, left = Sweeper.measure, [1]

    def once(self: Sweeper, setting: Any) -> Any:
        if not left.pop():
            raise KeyboardInterrupt
        left.append(0)
        return measure(self, setting)

    Sweeper.measure = once  # type: ignore[method-assign]
    try:
        sweep_checkpoint(file, [ALPHAS], *NAMES, output="begun_sweep/s", config_dict=OF_SWEEP)
    except KeyboardInterrupt:
        current().wait()
    finally:
        Sweeper.measure = measure  # type: ignore[method-assign]
    return {"file": file, "folder": str(Path("begun_sweep").resolve())}


def resumed_sweep() -> dict[str, Any]:
    """What other processes have begun (``BEGUN``), gone on with."""
    there = json.loads(Path(os.environ["BEGUN"]).read_text())["interrupted_sweep"]
    config_of("SASRec")
    current().made_by_first(lambda: str(shutil.copytree(there["folder"], "resumed_sweep")))
    found = sweep_checkpoint(there["file"], [ALPHAS], *NAMES, output="resumed_sweep/s", config_dict=OF_SWEEP)
    whole = sweep_checkpoint(there["file"], [ALPHAS], *NAMES, config_dict=OF_SWEEP)
    left = sorted(path.name for path in Path("resumed_sweep").iterdir())
    return {
        "resumed": found["resumed"],
        "found": of_sweep(found),
        "whole": of_sweep(whole),
        "left": left,
        "file": there["file"],
        "data": DATA,
    }


SCENARIOS: dict[str, Callable[[], dict[str, Any]]] = {
    scenario.__name__: scenario
    for scenario in (evaluations, trainings, whole_runs, begun, taken_up, studies, interrupted_sweep, resumed_sweep)
}


if __name__ == "__main__":
    wanted = sys.argv[3:]
    found = {}
    for name in wanted:
        print(name, file=sys.stderr, flush=True)
        found[name] = SCENARIOS[name]()
        if current().writes:
            Path(sys.argv[2]).write_text(json.dumps(found, indent=1))
