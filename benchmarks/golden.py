"""Numbers before and after a change of the code: every model and every re-ranker on ml-100k, to the last bit.

    python benchmarks/golden.py record before.json           # minutes, on one thread
    python benchmarks/golden.py record after.json --only BPR 'rerank/SASRec/*'
    python benchmarks/golden.py compare before.json after.json
    python benchmarks/golden.py list                          # names of all entries

An entry is a run of a model for one or two epochs with small settings, or an evaluation of a checkpoint. It holds all
metrics of validation and test, those of the variants and of user groups, as Python writes floats in full, and a
digest of the recommended lists. Names after ``--only`` are whole names, last parts of names (``PopSteerBPR``, ``IPR``)
or patterns.

``compare`` prints "identical" and ends with 0, or lists what differs and ends with 1. An entry that was recorded before
and is missing after is a difference, unless the second recording was made with ``--only`` without it; an entry that
only the second recording has is new and is named. The numbers say nothing about the methods: nothing is trained to the
end. Compare recordings of one machine and one set of library versions; other processors add in other orders.
"""

from __future__ import annotations

import os

# Before numpy and torch are imported: they read these once.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import argparse
import csv
import hashlib
import json
import logging
import platform
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_fair.config.registry import MODELS, SHORT_FORMS, rerankers
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair

DATASET = "ml-100k"

# Written out, so that a metric that is added later changes no recording.
METRICS = [
    "Recall",
    "MRR",
    "NDCG",
    "Hit",
    "Precision",
    "MAP",
    "NDCGHead",
    "NDCGMid",
    "NDCGTail",
    "ItemCoverage",
    "AggregateDiversity",
    "GiniIndex",
    "ExposureGini",
    "ShannonEntropy",
    "HerfindahlIndex",
    "AveragePopularity",
    "AverageLogPopularity",
    "TailPercentage",
    "PopularityLift",
    "LogPopularityDifference",
    "UPD",
    "PCE",
    "PCESum",
    "CKL",
    "GAUC",
]
OF_GROUPS = ["NDCG", "Recall", "UPD", "PCE", "CKL"]

COMMON: dict[str, Any] = {
    "seed": 2020,
    "epochs": 2,
    "user_inter_num_interval": "[0,60]",  # a third of the users, a tenth of the interactions
    "metrics": METRICS,
    "topk": [10, 20],
    "valid_metric": "NDCG@10",
    "coverage_min_count": [1, 5],
    "group_field": "class",
    "group_metrics": {name: {"metrics": OF_GROUPS} for name in ("mainstream", "drift", "popularity_taste", "gender")},
    "show_progress": False,
    "state": "ERROR",
}

RECBOLES = ["BPR", "LightGCN", "GRU4Rec", "BERT4Rec", "MultiVAE", "FM", "ItemKNN"]

# For models of sequences that take long.
SHORT: dict[str, Any] = {"epochs": 1, "MAX_ITEM_LIST_LENGTH": 10, "hidden_size": 16}

# What makes a model quick; a model without a line here takes its defaults.
QUICK: dict[str, dict[str, Any]] = {
    "PopSteerSASRec": {"epochs": 1, "sae_epochs": 2, "sae_scale": 4, "synthetic_users": 1000},
    "PopSteerBPR": {"sae_epochs": 20},
    "PopSteerLightGCN": {"sae_epochs": 20},
    "SPREESASRec": {"synthetic_users": 500},
    "SPREEBERT4Rec": {**SHORT, "synthetic_users": 500},
    "TALL": {"n_experts": 5, "epochs": 4, "gap": 1, "loss_window": 2},
    "LOCA": {"n_experts": 5},
    "LFT": {"lft_epochs": 1, "lft_max_neighbors": 50},
    "EnLFT": {"n_experts": 5, "lft_epochs": 2},
    "BERT4Rec": SHORT,
    "GRU4Rec": SHORT,
    "FM": {"epochs": 1},
}

# Other settings of a model, where they take another way through the code.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "BPR-all": ("BPR", {"user_inter_num_interval": "[0,inf)"}),
    "SASRec-last": ("SASRec", {**SHORT, "train_positions": "last"}),
    "SASRec-linear": ("SASRec", {**SHORT, "epochs": 2, "learning_rate_schedule": "linear", "mask_seen": "all"}),
    "ILEBPR-ent": ("ILEBPR", {"ile_distance": "ent"}),
    "ILELightGCN-mad": ("ILELightGCN", {"ile_distance": "mad", "ile_warmup": 2}),
    "DecFM-control": ("DecFM", {"fusion_control": True, "mediator": "product"}),
    "TALL-mlp": ("TALL", {"gate": "mlp", "gate_hidden_size": 50, "weight_signal": "none", "gap": 0}),
    "TALL-softmax": ("TALL", {"epochs": 4, "gate": "softmax", "gate_grad": True, "weight_solver": "simplex"}),
    "PopSteerSASRec-matched": (
        "PopSteerSASRec",
        {**SHORT, "synthetic_length": "matched", "keep_reconstruction_error": True},
    ),
    "SPREESASRec-grid": ("SPREESASRec", {**SHORT, "spree_sites": "grid", "bias_regularization": 0.002}),
}

# Checkpoints of which re-rankers and options of metrics are recorded.
BASES = ("BPR", "SASRec")
OTHER_SEED = 2021

RERANKER_SETTINGS: dict[tuple[str, str], dict[str, Any]] = {("BPR", "PP"): {"mask_seen": "none"}}

OPTIONS: dict[str, dict[str, Any]] = {
    "items": {"segment_by": "items", "upd_over": "groups", "upd_base": "e", "upd_smoothing": 0.01},
    "levels": {"pce_levels": 5, "tail_ratio": 0.3, "ckl_smoothing": 0.1, "metric_history": "train_valid"},
    "unmasked": {"mask_seen": "none", "bootstrap": 20, "topk": [5]},
}


@dataclass
class Folders:
    """Where an entry writes, and the checkpoints that several entries read.

    Attributes:
        root: a folder for this recording alone.
        trained: checkpoint by model and seed.
    """

    root: Path
    trained: dict[tuple[str, int], str] = field(default_factory=dict)

    def new(self) -> Path:
        """An empty folder, so that no entry finds what another one left."""
        return Path(tempfile.mkdtemp(dir=self.root))

    def base(self, model: str, seed: int = COMMON["seed"]) -> str:
        """The checkpoint of a model, trained when first asked for."""
        if (model, seed) not in self.trained:
            settings = {**COMMON, "seed": seed, "checkpoint_dir": str(self.new())}
            self.trained[model, seed] = str(run_recbole_fair(model, DATASET, config_dict=settings)["checkpoint"])
        return self.trained[model, seed]


Run = Callable[[Folders], dict[str, Any]]


def run_of(model: str, settings: Mapping[str, Any]) -> Run:
    """A training run and what it found."""

    def run(folders: Folders) -> dict[str, Any]:
        folder = folders.new()
        lists = folder / "lists.csv"
        found = run_recbole_fair(
            model,
            DATASET,
            config_dict={
                **COMMON,
                **settings,
                "checkpoint_dir": str(folder / "saved"),
                "recommendations_file": str(lists),
            },
        )
        return numbers(found, lists)

    return run


def evaluation_of(base: str, settings: Mapping[str, Any], pufr: bool = False) -> Run:
    """An evaluation of a base's checkpoint with other settings, for PUFR beside a model of another seed."""

    def run(folders: Folders) -> dict[str, Any]:
        lists = folders.new() / "lists.csv"
        models = {"reranker_models": [folders.base(base, OTHER_SEED)]} if pufr else {}
        file = folders.base(base)
        settle()  # the same random state whether the base was trained just now or before
        return numbers(evaluate_checkpoint(file, {**settings, **models, "recommendations_file": str(lists)}), lists)

    return run


def entries() -> dict[str, Run]:
    """All entries by name, in the order in which they are recorded."""
    found: dict[str, Run] = {}
    for model in dict.fromkeys((*MODELS, *SHORT_FORMS, *RECBOLES)):
        found[f"model/{model}"] = run_of(model, QUICK.get(model, {}))
    for name, (model, settings) in SETTINGS.items():
        found[f"setting/{name}"] = run_of(model, {**QUICK.get(model, {}), **settings})
    for base in BASES:
        for name in rerankers():
            settings = {"reranker": name, **RERANKER_SETTINGS.get((base, name), {})}
            found[f"rerank/{base}/{name}"] = evaluation_of(base, settings, name == "PUFR")
        for name, settings in OPTIONS.items():
            found[f"options/{base}/{name}"] = evaluation_of(base, settings)
    return found


def numbers(result: Mapping[str, Any], lists: Path) -> dict[str, Any]:
    """The numbers of a result document; the one place that knows how such a document looks.

    Returns:
        ``numbers``, text of a float by ``part/metric``, where a part is ``valid``, ``test``, ``test/<variant>`` or
        ``group/<grouping>/<group>``; ``lists``, the digest of the final lists.
    """
    found: dict[str, str] = {}
    parts = {"valid": result.get("best_valid_result"), "test": result["test_result"]}
    variants = result.get("variants") or {}
    if len(variants) > 1:
        parts |= {f"test/{name}": values for name, values in variants.items()}
    for grouping, table in (result.get("groups") or {}).items():
        parts |= {f"group/{grouping}/{row['group']}": row["values"] for row in table["groups"]}
    for part, values in parts.items():
        found |= {f"{part}/{name}": repr(float(value)) for name, value in (values or {}).items() if value is not None}
    for metric, interval in (result.get("intervals") or {}).items():
        found[f"interval/{metric}"] = repr(interval)
    if "best_valid_score" in result:
        found["valid/best_score"] = repr(float(result["best_valid_score"]))
    return {"numbers": found, "lists": digest(lists)}


def digest(file: Path) -> str:
    """SHA-256 of users and items of a file of lists, users in the order of their names, items by rank."""
    with file.open(newline="", encoding="utf-8") as opened:
        rows = [(row["user_id"], int(row["rank"]), row["item_id"]) for row in csv.DictReader(opened)]
    rows.sort(key=lambda row: row[:2])
    return hashlib.sha256("\n".join(f"{user} {item}" for user, _, item in rows).encode()).hexdigest()


def settle() -> None:
    """Start from the same random state."""
    random.seed(COMMON["seed"])
    np.random.seed(COMMON["seed"])
    torch.manual_seed(COMMON["seed"])


def chosen(names: Sequence[str], only: Sequence[str] | None) -> list[str]:
    """The names that ``--only`` asks for, all without it."""
    if not only:
        return list(names)
    return [n for n in names if any(fnmatchcase(n, o) or fnmatchcase(n.rsplit("/", 1)[1], o) for o in only)]


def made_with() -> dict[str, str]:
    """What the numbers hang on beside the code: versions and processor; and the commit of the code."""
    libraries = ("recbole", "torch", "numpy", "pandas", "scipy", "scikit-learn")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "commit": commit(),
    }


def commit() -> str:
    """The commit that is checked out, with a plus sign when files of the package differ from it."""
    here = Path(__file__).resolve().parent.parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        changed = subprocess.run(
            ["git", "status", "--porcelain", "recbole_fair", "properties"], cwd=here, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def record(path: Path, only: Sequence[str] | None) -> int:
    """Record the entries into a file, which is written anew after each; an entry that fails is recorded as failed."""
    every = entries()
    unknown = [o for o in only or () if not chosen(list(every), [o])]
    if unknown:
        print(f"There is no entry {', '.join(unknown)}; see: golden.py list", file=sys.stderr)
        return 2
    names = chosen(list(every), only)
    document: dict[str, Any] = {"made_with": made_with(), "only": list(only or ()), "seconds": 0.0, "entries": {}}
    start = time.perf_counter()
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as root:
        os.chdir(root)  # logs go below the working directory
        folders = Folders(Path(root))
        for name in names:
            began = time.process_time()
            settle()
            try:
                found = every[name](folders)
            except (Exception, SystemExit) as error:
                found = {"error": f"{type(error).__name__}: {error}"}
            found["seconds"] = round(time.process_time() - began, 1)
            document["entries"][name] = found
            document["seconds"] = round(time.perf_counter() - start, 1)
            path.write_text(json.dumps(document, indent=1) + "\n")
            shown = found.get("error") or f"{len(found['numbers'])} numbers"
            print(f"{name:34}{found['seconds']:7.1f} s  {shown}", flush=True)
        os.chdir(home)
    failed = [name for name, found in document["entries"].items() if "error" in found]
    used = sum(found["seconds"] for found in document["entries"].values())
    print(
        f"{len(names)} entries, {used:.0f} s of the processor, {document['seconds']:.0f} s passed"
        + (f", failed: {', '.join(failed)}" if failed else "")
    )
    return 0


def differences(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two recordings of an entry, a line each."""
    if "error" in before or "error" in after:
        old, new = before.get("error", "no error"), after.get("error", "no error")
        if old != new:
            yield f"{name}: {old} -> {new}"
        return
    if before["lists"] != after["lists"]:
        yield f"{name}: lists {before['lists'][:12]} -> {after['lists'][:12]}"
    old, new = before["numbers"], after["numbers"]
    for metric in dict.fromkeys((*old, *new)):
        if old.get(metric) != new.get(metric):
            yield f"{name}: {metric} {old.get(metric, 'missing')} -> {new.get(metric, 'missing')}"


def compare(first: Path, second: Path) -> int:
    """Print what differs between two recordings; 1 if anything does."""
    before, after = (json.loads(path.read_text()) for path in (first, second))
    for key in dict.fromkeys((*before["made_with"], *after["made_with"])):
        old, new = before["made_with"].get(key), after["made_with"].get(key)
        if old != new and key != "commit":
            print(f"note: made with {key} {old} and {new}")
    wanted = chosen(list(before["entries"]), after["only"])
    lines = [f"{name}: missing in {second}" for name in wanted if name not in after["entries"]]
    both = [name for name in wanted if name in after["entries"]]
    for name in both:
        lines += differences(name, before["entries"][name], after["entries"][name])
        error = before["entries"][name].get("error")
        if error and error == after["entries"][name].get("error"):
            print(f"note: {name} failed both times: {error}")
    for name in after["entries"]:
        if name not in before["entries"]:
            print(f"new in {second}: {name}")
    print("\n".join(lines) if lines else f"identical ({len(both)} of {len(before['entries'])} entries)")
    return 1 if lines else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="run the entries and write their numbers")
    recording.add_argument("file", type=Path)
    recording.add_argument("--only", nargs="+", metavar="NAME", help="whole names, last parts of names, patterns")
    comparison = commands.add_parser("compare", help="list what differs between two recordings")
    comparison.add_argument("before", type=Path)
    comparison.add_argument("after", type=Path)
    commands.add_parser("list", help="print the names of all entries")
    args = parser.parse_args()
    if args.command == "list":
        print("\n".join(entries()))
        return 0
    if args.command == "compare":
        return compare(args.before, args.after)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    return record(args.file.absolute(), args.only)


if __name__ == "__main__":
    raise SystemExit(main())
