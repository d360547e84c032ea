"""ILE against its baselines: BPR, IPS, CP and PUFR on one base, chosen on validation, reported on test.

    python benchmarks/ile_ml1m.py --data_path=DIRECTORY --out=ile-ml-1m.json
    python benchmarks/ile_ml1m.py --data_path=DIRECTORY --out=ile-ml-1m.json --minutes=60      # part of it, again later
    python benchmarks/ile_ml1m.py --out=ile-ml-1m.json --table                                 # what is there so far

A run is a method with its settings and a seed. Its metrics on validation and test go into the JSON file when it is
done, and runs that stand there are skipped, so the script may be stopped and started at will. The checkpoints of BPR
(for the re-rankers) are kept in a folder beside that file.

Data: all items and users of the files, per-user random 8:1:1, one split for all seeds, as PUFR compares models of
several seeds on the same data. The seed decides initial weights, order and sampled negatives. Settings of the ILE code:
embedding size 128, learning rate 0.001, batches of 2048, lists of 10.

``overlap`` in the file is the mean share of a test list's items that the list of another BPR has too, by that BPR's
seed: of the same seed, what a method changes; of another one, what chance does.

Choice: of each method, among the settings whose mean validation NDCG@10 is at least (1 - NDCG_LOSS) times BPR's, the
one with the lowest mean validation UPD@10; if none is, the one with the highest NDCG@10.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from runs import Runs, parser_of, settle, spread

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.rerank.settings import make_reranker
from recbole_fair.runs.loading import new_trainer
from recbole_fair.runs.reranking import evaluate_reranked

METRICS = ["NDCG", "UPD", "AggregateDiversity", "ExposureGini", "GiniIndex"]
SHOWN = ["ndcg@10", "upd@10", "aggregatediversity@10", "exposuregini@10", "giniindex@10"]
RERANKERS = {"CP": [0.1, 0.3, 0.5, 0.7, 0.9, 0.98], "PUFR": [0.5, 1.0, 2.0, 5.5, 11.0]}

# What the authors' own prediction files of ml-1m hold (top 10; embedding size 128, April 2024).
AUTHORS = {"BPR": (1567, 0.9037), "ILE, weight 0.2": (1797, 0.8724)}

Setting = tuple[str, dict[str, Any]]  # method, the keys that it changes


def settings_of(args: argparse.Namespace) -> list[Setting]:
    """Methods with their settings, the most wanted first."""
    found: list[Setting] = [("BPR", {})]
    warmup = {"ile_warmup": args.ile_warmup} if args.ile_warmup else {}
    ile = [
        (f"ILE {kind}", {"ile_distance": kind, "ile_weight": weight} | warmup)
        for weight in args.weights
        for kind in args.distances
    ]
    found += [setting for setting in ile if setting[1]["ile_weight"] == 0.2]
    found += [(name, {"reranker": name, "reranker_lambda": value}) for name in RERANKERS for value in RERANKERS[name]]
    found += [("IPS", {"ips_normalize": flag}) for flag in (True, False)]
    return found + [setting for setting in ile if setting[1]["ile_weight"] != 0.2]


def runs_of(args: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any], int]]:
    """All runs: settings by seed; BPR also for the seeds that only PUFR looks at."""
    for method, keys in settings_of(args):
        if args.only and method.split()[0] not in args.only:
            continue
        for seed in [*args.seeds, *(args.pufr_seeds if method == "BPR" else [])]:
            yield method, keys, seed


def name_of(method: str, keys: Mapping[str, Any], seed: int | None = None) -> str:
    """One line that says what a run is: its key in the JSON file."""
    words = [method, *(f"{key}={value}" for key, value in keys.items() if key not in ("reranker", "ile_distance"))]
    return " ".join(words if seed is None else [*words, f"seed={seed}"])


class Bench:
    """Trains and evaluates; holds the split of the last configuration."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args = args
        self.folder = folder

    def checkpoint(self, seed: int) -> Path:
        """Where the BPR of a seed is kept."""
        return self.folder / f"BPR-{seed}.pth"

    def trainer(self, method: str, keys: Mapping[str, Any], seed: int) -> tuple[Any, tuple[Any, Any, Any]]:
        """An untrained model of a seed on the split, which does not depend on the seed."""
        args = self.args
        model = {"ILE": "ILEBPR", "IPS": "IPSBPR"}.get(method.split()[0], "BPR")
        settings: dict[str, Any] = {
            "seed": seed,
            "embedding_size": args.embedding_size,
            "learning_rate": args.learning_rate,
            "train_batch_size": args.batch,
            "epochs": args.epochs,
            "stopping_step": args.stopping_step,
            "user_inter_num_interval": "[0,inf)",
            "item_inter_num_interval": "[0,inf)",
            "metrics": METRICS,
            "topk": [10],
            "valid_metric": "NDCG@10",
            "checkpoint_dir": str(self.folder),
            "show_progress": False,
            "state": "error",
            **keys,
        }
        if args.data_path:
            settings["data_path"] = args.data_path
        config = FairConfig(model, args.dataset, config_dict=settings)
        return new_trainer(config, args.split_seed)

    def run(self, method: str, keys: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """Metrics of one run on validation and test, with epochs."""
        keys = dict(keys)
        if method == "PUFR":
            others = [s for s in (*self.args.seeds, *self.args.pufr_seeds) if s != seed]
            keys["reranker_models"] = [str(self.checkpoint(other)) for other in others]
        trainer, (train, valid, test) = self.trainer(method, keys, seed)
        found: dict[str, Any] = {"method": method, "keys": {k: v for k, v in keys.items() if k != "reranker_models"}}
        if method in RERANKERS:
            trainer.load_best(self.checkpoint(seed))
            reranker = make_reranker(trainer.config)
            valid_result, test_result = (evaluate_reranked(trainer, data, reranker)[1] for data in (valid, test))
        else:
            if method == "BPR":
                trainer.saved_model_file = str(self.checkpoint(seed))
            reports: list[dict[str, float]] = []
            report = getattr(trainer.model, "epoch_report", None)
            trainer.fit(
                train, valid, saved=method == "BPR", callback_fn=lambda *_: reports.append(report() if report else {})
            )
            trainer.load_best()
            best = max(len(reports) - 1 - trainer.cur_step, 0)
            found |= {"epochs": len(reports), "best_epoch": best, "group_losses": reports[best]}
            valid_result, test_result = trainer.evaluate_lists(valid), trainer.evaluate_lists(test)
        found |= {"seed": seed, "valid": dict(valid_result.metrics), "test": dict(test_result.metrics)}
        found["overlap"] = self.overlaps(test_result.lists, seed if method == "BPR" else None)
        return found

    def overlaps(self, lists: torch.Tensor, own: int | None) -> dict[str, float]:
        """Mean share of each list ``[U, K]`` that lists of BPR share, by seed; those of a BPR are kept for the rest."""
        files = {seed: self.folder / f"lists-{seed}.pt" for seed in (*self.args.seeds, *self.args.pufr_seeds)}
        if own is not None:
            torch.save(lists, files.pop(own))
        others = {seed: torch.load(file) for seed, file in files.items() if file.is_file()}
        return {
            str(seed): float((lists[:, :, None] == other[:, None, :]).any(2).float().mean())
            for seed, other in others.items()
        }


def table(runs: Mapping[str, Mapping[str, Any]], args: argparse.Namespace) -> str:
    """Markdown: every setting with mean and standard deviation over the seeds, then the choice of each method."""

    def of(setting: Setting) -> list[Mapping[str, Any]]:
        names = [name_of(*setting, seed) for seed in args.seeds]
        return [runs[name] for name in names if name in runs]

    def mean(setting: Setting, split: str, metric: str) -> float:
        return statistics.fmean(run[split][metric] for run in of(setting))

    def row(setting: Setting, remark: str = "") -> str:
        cells = []
        for metric in SHOWN:
            values = [run["test"][metric] for run in of(setting)]
            digits = 0 if metric.startswith("aggregate") else 4
            cells.append(spread(values, digits))
        return " | ".join(["", name_of(*setting) + remark, str(len(of(setting))), *cells, ""]).strip()

    settings = [setting for setting in settings_of(args) if of(setting)]
    head = " | ".join(["", "setting", "seeds", *SHOWN, ""]).strip()
    rule = "|---|" + "---|" * (len(SHOWN) + 1)
    lines = [head, rule, *map(row, settings)]
    if settings and settings[0][0] == "BPR":
        floor = (1 - args.ndcg_loss) * mean(settings[0], "valid", "ndcg@10")
        lines += ["", f"Chosen on validation, NDCG@10 at least {floor:.4f}, lowest UPD@10:", "", head, rule]
        for method in dict.fromkeys(setting[0] for setting in settings):
            own = [setting for setting in settings if setting[0] == method]
            kept = [setting for setting in own if mean(setting, "valid", "ndcg@10") >= floor]
            if kept:
                chosen = min(kept, key=lambda setting: mean(setting, "valid", "upd@10"))
            else:
                chosen = max(own, key=lambda setting: mean(setting, "valid", "ndcg@10"))
            lines.append(row(chosen, "" if kept else " (below the floor)"))
    if args.dataset == "ml-1m":
        theirs = "; ".join(f"{name}: {items} items, Gini {gini}" for name, (items, gini) in AUTHORS.items())
        lines += ["", f"The authors' lists: {theirs}."]
    return "\n".join(lines)


def main() -> None:
    parser = parser_of(__doc__, "ile-ml-1m.json")
    parser.add_argument("--dataset", default="ml-1m")
    parser.add_argument("--pufr_seeds", type=int, nargs="*", default=[4, 5], help="further BPRs that PUFR compares")
    parser.add_argument("--split_seed", type=int, default=2020)
    parser.add_argument("--distances", nargs="+", default=["std", "ent", "mad"])
    parser.add_argument("--weights", type=float, nargs="+", default=[0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0])
    parser.add_argument("--ile_warmup", type=float, default=0)
    parser.add_argument("--only", nargs="*", choices=["BPR", "ILE", "CP", "PUFR", "IPS"], help="these methods only")
    parser.add_argument("--embedding_size", type=int, default=128)
    parser.add_argument("--learning_rate", type=float, default=0.001)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--ndcg_loss", type=float, default=0.05)
    args = parser.parse_args()
    settle(args)
    fixed = ("dataset", "split_seed", "embedding_size", "learning_rate", "batch", "epochs", "stopping_step")
    runs = Runs(args.out, {key: getattr(args, key) for key in fixed}, args.minutes)
    bench = Bench(args, runs.folder)
    for method, keys, seed in () if args.table else runs_of(args):
        bases = [seed, *args.seeds, *args.pufr_seeds] if method == "PUFR" else [seed] if method == "CP" else []
        missing = [base for base in bases if name_of("BPR", {}, base) not in runs.done]
        if missing:
            raise SystemExit(f"{method} needs the BPR of seeds {missing}: leave --only out, or add BPR to it.")
        runs.add(name_of(method, keys, seed), functools.partial(bench.run, method, keys, seed), shown)
    print(table(runs.done, args))


def shown(run: Mapping[str, Any]) -> str:
    """Its result in a line."""
    overlap = ", ".join(f"{seed}: {value:.3f}" for seed, value in run.get("overlap", {}).items())
    values = "  ".join(f"{metric} {run['test'][metric]:.4f}" for metric in SHOWN)
    return f"{values}  overlap with the BPR of seed {overlap}" if overlap else values


if __name__ == "__main__":
    main()
