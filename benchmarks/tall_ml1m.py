"""TALL against MultVAE, WL and its own ablations: NDCG@20 overall and by the five mainstream groups.

    python benchmarks/tall_ml1m.py --data_path=DIRECTORY --out=tall-ml-1m.json
    python benchmarks/tall_ml1m.py --data_path=DIRECTORY --out=tall-ml-1m.json --minutes=300   # part, again later
    python benchmarks/tall_ml1m.py --out=tall-ml-1m.json --table                               # what is there so far
    python benchmarks/tall_ml1m.py --data_path=DIRECTORY --out=tall-baselines.json --baselines   # choose on validation
    python benchmarks/tall_ml1m.py --dataset=amazon-cds --data_path=DIRECTORY --n_experts=4 --out=tall-cds.json
    python benchmarks/tall_ml1m.py --dataset=ml-100k --n_experts=20 --models MultVAE TALL LOCA --out=tall-ml-100k.json

A run is a method with a seed. Its metrics on validation and test go into the JSON file when it is done, and runs that
stand there are skipped, so the script may be stopped and started at will.

Data: all items and users of the files (amazon-cds: at least ten interactions each, and the authors' settings for CDs),
per-user random 70/10/20, one split for all seeds. The seed decides initial
weights, order, noise and the inner fold. Items of training and validation are left out of the test lists (RecBole's
rule); ``test_train_masked`` in the file has only the training items left out, as in TALL's code. The groups are
fifths of the users by their mean Jaccard similarity to the others.

With ``--share_gap`` TALL is trained before LMoE, which goes on from TALL's state at the end of the gap instead of
training the same epochs once more: weights are 1 up to there, and resumption is exact.

Runs with a gate by loss are scored a second time with equal weights on the same experts (``test_uniform_gate``): what
the gate itself gives, without the noise of a second training.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runs import Runs, parser_of, settle, spread

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.runs.loading import new_trainer

METRIC = "ndcg@20"
GROUPS = ("low", "med-low", "medium", "med-high", "high")
_PAPER = {"gate_source": "valid", "gate_grad": True, "kl_reduction": "sum"}

# Method: the model and the keys that it changes; "E" stands for the number of experts.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "MultVAE": ("MultVAE", {}),
    "WL": ("WL", {}),
    "MoE": ("TALL", {"gate": "mlp", "weight_signal": "none"}),
    "LMoE": ("TALL", {"weight_signal": "none"}),
    "TALL": ("TALL", {}),
    # Where a gain comes from
    "uniform": ("TALL", {"gate": "uniform", "weight_signal": "none"}),
    "uniform+weights": ("TALL", {"gate": "uniform"}),
    "softmax": ("TALL", {"gate": "softmax", "weight_signal": "none"}),
    "LMoE valid": ("TALL", {"weight_signal": "none", "gate_source": "valid"}),
    "TALL valid": ("TALL", {"gate_source": "valid"}),
    "TALL paper": ("TALL", _PAPER),
    "softmax valid": ("TALL", {"gate": "softmax", "weight_signal": "none", "gate_source": "valid"}),
    "softmax valid grad": (
        "TALL",
        {"gate": "softmax", "weight_signal": "none", "gate_source": "valid", "gate_grad": True},
    ),
    "wide MultVAE": ("MultVAE", {"latent_dimension": "E", "weight_decay": "E"}),
    # With the divergence summed over the users of a batch, as in the authors' code
    "MultVAE KL sum": ("MultVAE", {"kl_reduction": "sum"}),
    "wide MultVAE KL sum": ("MultVAE", {"latent_dimension": "E", "weight_decay": "E", "kl_reduction": "sum"}),
    "uniform KL sum": ("TALL", {"gate": "uniform", "weight_signal": "none", "kl_reduction": "sum"}),
    # The paper's ablations of the weights
    "LMoE+LC": ("TALL", {"gap": 0}),
    "LMoE+gap+L": ("TALL", {"weight_signal": "loss"}),
    # The loss of one item, with weights of about 1 give or take a third
    "LMoE+gap+mean L": ("TALL", {"weight_signal": "loss", "weight_norm": "mean", "weight_alpha": 1.0}),
    "TALL simplex": ("TALL", {"weight_solver": "simplex"}),
    # Local learning by heuristics
    "LOCA": ("LOCA", {}),
    "EnLFT": ("EnLFT", {}),
    "LFT": ("LFT", {}),
}
# Of a data set: what its users, items and trainings have in the authors' code, for all models and for TALL.
DATA: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "amazon-cds": (
        {
            "user_inter_num_interval": "[10,inf)",
            "item_inter_num_interval": "[10,inf)",
            "train_batch_size": 256,
            "weight_decay": 1e-4,
        },
        {"gap": 25, "weight_alpha": 0.3},
    )
}
# The baseline's regularisation, to be chosen on validation: what a gain is measured against.
DROPOUTS = (0.0, 0.2, 0.5)
DECAYS = (1e-4, 1e-3, 3e-3, 1e-2)
BASELINES = {
    f"MultVAE, dropout {dropout}, decay {decay}": ("MultVAE", {"dropout_prob": dropout, "weight_decay": decay})
    for dropout, decay in itertools.product(DROPOUTS, DECAYS)
}
METHODS |= BASELINES


def keys_of(method: str, args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Model of a method and the keys that it changes, for a number of experts."""
    model, changes = METHODS[method]
    general, of_tall = DATA.get(args.dataset, ({}, {}))
    keys = {**general, **(of_tall if model == "TALL" else {}), **changes}
    if "latent_dimension" in keys:  # one autoencoder of the experts' total width, with their weight decay
        decay = general.get("weight_decay", 0.001) / args.n_experts
        keys |= {"latent_dimension": 100 * args.n_experts, "weight_decay": decay}
    if model in ("TALL", "LOCA", "EnLFT"):
        keys["n_experts"] = args.n_experts
    return model, keys


def one_run(method: str, seed: int, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Metrics of one run on validation and test, with its course and seconds of training."""
    gap_end = folder / f"gap-{seed}.pth"
    model, keys = keys_of(method, args)
    settings: dict[str, Any] = {
        "seed": seed,
        "epochs": args.epochs,
        "stopping_step": args.stopping_step,
        "eval_step": args.eval_step,
        "enable_amp": args.amp,
        "eval_args": {"split": {"RS": [0.7, 0.1, 0.2]}, "order": "RO", "group_by": "user", "mode": "full"},
        "user_inter_num_interval": "[0,inf)",
        "item_inter_num_interval": "[0,inf)",
        "metrics": ["NDCG", "Recall"],
        "topk": [20],
        "valid_metric": "NDCG@20",
        "checkpoint_dir": str(folder),
        "show_progress": False,
        "state": "error",
        "epoch_groups": args.groups,
        **keys,
    }
    if args.data_path:
        settings["data_path"] = args.data_path
    config = FairConfig(model, args.dataset, config_dict=settings)
    # The order of training comes from the loader's own generator, which takes the seed of the configuration.
    trainer, (train, valid, test) = new_trainer(config, args.split_seed)
    net = trainer.model
    if args.share_gap and method == "TALL" and net.gap % args.eval_step:
        raise SystemExit(f"--share_gap needs a validation at the end of the gap: --eval_step must divide {net.gap}.")
    course: list[dict[str, Any]] = []
    start, earlier = time.perf_counter(), 0.0
    if args.share_gap and method == "LMoE" and gap_end.is_file():
        trainer.resume_checkpoint(gap_end)
        before = json.loads(gap_end.with_suffix(".json").read_text())
        course, earlier = before["course"], before["seconds"]
        start -= earlier

    def after_epoch(epoch: int, score: float) -> None:
        report = getattr(net, "epoch_report", dict)()
        groups = trainer.validated_groups.get("mainstream")
        by_group = {"groups": groups.by_group[METRIC].to_dict()} if groups else {}
        course.append({"epoch": epoch, METRIC: score, **report, **by_group})
        if args.verbose:
            numbers = {METRIC: score, **report}
            shown = "  ".join(f"{name} {value:.4f}" for name, value in numbers.items())
            print(f"  {time.perf_counter() - start:.0f} s  epoch {epoch}  {shown}", flush=True)
        if args.share_gap and method == "TALL" and epoch + 1 == net.gap:
            seconds = time.perf_counter() - start
            gap_end.with_suffix(".json").write_text(json.dumps({"course": course, "seconds": seconds}))
            trainer._write_checkpoint(epoch, str(gap_end))

    trainer.fit(train, valid, saved=False, callback_fn=after_epoch)
    trainer.load_best()
    seconds = time.perf_counter() - start
    found: dict[str, Any] = {"method": method, "seed": seed, "keys": keys, "course": course}
    if course and not hasattr(net, "fit_intervention"):  # else it is the course of the base
        found["epochs"] = course[-1]["epoch"] + 1
        found["best_epoch"] = max(course, key=lambda entry: (entry[METRIC], entry["epoch"]))["epoch"]
    for name, data in (("valid", valid), ("test", test)):
        found[name] = values_of(trainer.evaluate_lists(data))
    if getattr(net, "gate_by_loss", False):
        with net.use_variant("uniform"):
            found["test_uniform_gate"] = values_of(trainer.evaluate_lists(test))
    with trainer.scorer.masked("train"):
        found["test_train_masked"] = values_of(trainer.evaluate_lists(test))
    return found | {"training_seconds": round(seconds, 1), "earlier_seconds": earlier}


def values_of(result: Any) -> dict[str, Any]:
    """Metrics of an evaluation, overall and by mainstream group."""
    groups = result.groups["mainstream"].to_plain()["groups"]
    return {**result.metrics, "groups": {group["group"]: group["values"][METRIC] for group in groups}}


def table(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: methods by NDCG@20 on test, overall and by group, with spread over seeds and change to MultVAE."""
    columns = ["all", *GROUPS]

    def values(found: list[Mapping[str, Any]], split: str) -> dict[str, list[float]]:
        rows = [run[split] for run in found if split in run]
        return {c: [row[METRIC] if c == "all" else row["groups"][c] for row in rows] for c in columns}

    def cells(by_column: Mapping[str, list[float]]) -> list[str]:
        shown = []
        for column in columns:
            numbers = by_column[column]
            shown.append(spread(numbers) if numbers else "")
        return shown

    methods = [m for m in METHODS if any(run["method"] == m for run in runs.values())]
    found = {m: [run for run in runs.values() if run["method"] == m] for m in methods}
    head = ["method", "seeds", *columns, "change all", "change low", "best epoch", "minutes"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    base = values(found["MultVAE"], "test") if "MultVAE" in found else None
    for method in methods:
        own = values(found[method], "test")
        changes = ["", ""]
        if base is not None:
            changes = [
                f"{100 * (statistics.fmean(own[c]) / statistics.fmean(base[c]) - 1):+.1f} %" for c in ("all", "low")
            ]
        best = ", ".join(str(run.get("best_epoch", "")) for run in found[method])
        minutes = f"{statistics.fmean(run['seconds'] for run in found[method]) / 60:.1f}"
        row = [method, str(len(found[method])), *cells(own), *changes, best, minutes]
        lines.append("| " + " | ".join(row) + " |")
    for split, title in (
        ("test_uniform_gate", "The same experts with equal weights"),
        ("valid", "Validation"),
        ("test_train_masked", "Test with training items alone left out, as in TALL's code"),
    ):
        lines += ["", f"{title}:", "", "| " + " | ".join(["method", *columns]) + " |", "|" + "---|" * 7]
        for method in methods:
            if any(split in run for run in found[method]):
                lines.append("| " + " | ".join([method, *cells(values(found[method], split))]) + " |")
    lines += ["", "| method | gate entropy | largest gate weight times E |", "|---|---|---|"]
    for method in methods:
        last = [run["course"][-1] for run in found[method] if run["course"]]
        if last and "TALL/gate_entropy" in last[0]:
            entropy = statistics.fmean(entry["TALL/gate_entropy"] for entry in last)
            largest = statistics.fmean(entry["TALL/gate_max"] for entry in last)
            lines.append(f"| {method} | {entropy:.6f} | {largest:.4f} |")
    return "\n".join(lines)


def main() -> None:
    parser = parser_of(__doc__, "tall-ml-1m.json")
    parser.add_argument("--dataset", default="ml-1m")
    parser.add_argument("--n_experts", type=int, default=100)
    parser.add_argument("--baselines", action="store_true", help="MultVAE over dropout and weight decay, no other")
    parser.add_argument("--models", nargs="+", choices=[*METHODS], default=["MultVAE", "WL", "MoE", "LMoE", "TALL"])
    parser.add_argument("--split_seed", type=int, default=2020)
    parser.add_argument("--epochs", type=int, default=500)
    parser.set_defaults(stopping_step=30)
    parser.add_argument("--eval_step", type=int, default=1, help="epochs from one validation to the next")
    parser.add_argument("--amp", action="store_true", help="matrix products in 16 bits (RecBole's enable_amp)")
    parser.add_argument("--share_gap", action="store_true", help="let LMoE go on from TALL's end of the gap")
    parser.add_argument("--groups", action="store_true", help="keep validation NDCG by group, for tall_figure.py")
    parser.add_argument("--verbose", action="store_true", help="print every epoch")
    args = parser.parse_args()
    settle(args)
    if args.baselines:
        args.models = [*BASELINES]
    keys = ("dataset", "n_experts", "split_seed", "epochs", "stopping_step", "eval_step", "amp")
    if args.share_gap:  # TALL first
        args.models.sort(key=lambda method: method == "LMoE")
    runs = Runs(args.out, {key: getattr(args, key) for key in keys}, args.minutes)
    # Seed by seed, so that a part of the table is a whole comparison.
    for seed, method in () if args.table else itertools.product(args.seeds, args.models):
        runs.add(f"{method} seed={seed}", functools.partial(one_run, method, seed, args, runs.folder), shown)
    print(table(runs.done))


def shown(run: Mapping[str, Any]) -> str:
    """Its result in a line."""
    groups = "  ".join(f"{group} {value:.4f}" for group, value in run["test"]["groups"].items())
    epochs = f"{run.get('epochs')} epochs, best {run.get('best_epoch')}"
    return f"{METRIC} {run['test'][METRIC]:.4f}  {groups}  ({epochs})"


if __name__ == "__main__":
    main()
