"""Sequence preparation, SASRec training and evaluation against RecBole 1.2.1, in one run.

    python benchmarks/sasrec.py --dataset=ml-100k
    python benchmarks/sasrec.py --dataset=ml-1m --data_path=DIRECTORY --batches=4

Each part runs in a process of its own, so that memory can be told apart. RecBole is measured as its users get it:
importing its models switches autograd's anomaly detection on (the import of SINE does); ``--no-anomaly`` switches it
off for RecBole as well. Its Gini, coverage and popularity metrics crash as shipped; here its collector is mended first,
so that the same metrics can be timed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
import warnings
from typing import Any

import torch

METRICS = [
    "NDCG", "Recall", "MRR", "Hit", "Precision", "MAP", "ItemCoverage", "GiniIndex", "ShannonEntropy",
    "AveragePopularity", "TailPercentage",
]  # fmt: skip


def memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def configuration(args: argparse.Namespace, model: Any, **changes: Any) -> Any:
    from recbole_fair.config.fair_config import FairConfig
    from recbole_fair.data.reading.atomic_files import ensure_atomic_files

    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    settings = {"show_progress": False, "seed": 2020, "metrics": METRICS, **changes}
    if args.data_path:
        settings["data_path"] = args.data_path
    config = FairConfig(model, args.dataset, config_dict=settings)
    ensure_atomic_files(config)
    return config


def prepare(args: argparse.Namespace, ours: bool) -> dict[str, float]:
    """Seconds and megabytes of turning loaded interactions into sequences."""
    from recbole.data.dataset import SequentialDataset

    from recbole_fair.data.batches.sequences import FairSequentialDataset

    dataset = (FairSequentialDataset if ours else SequentialDataset)(configuration(args, "SASRec"))
    before = memory_mb()
    start = time.perf_counter()
    dataset._change_feat_format()
    return {"seconds": time.perf_counter() - start, "megabytes": memory_mb() - before}


def train(args: argparse.Namespace, ours: bool) -> dict[str, float]:
    """Training targets a second, optimizer steps included."""
    from recbole.model.sequential_recommender.sasrec import SASRec as RecBoleSASRec

    from recbole_fair.data.batches.windows import WINDOW_TARGETS
    from recbole_fair.data.reading.prepare import load_data
    from recbole_fair.model.bases.sasrec import SASRec

    config = configuration(args, "SASRec", train_positions="all" if ours else "last", window_stride=args.window_stride)
    loader = load_data(config)[0]
    torch.autograd.set_detect_anomaly(not ours and not args.no_anomaly)
    torch.manual_seed(0)
    model = (SASRec if ours else RecBoleSASRec)(config, loader._dataset)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    targets, start = 0, 0.0
    for number, batch in enumerate(loader):
        if number == 1:  # the first batch warms up
            targets, start = 0, time.perf_counter()
        optimizer.zero_grad()
        model.calculate_loss(batch).backward()
        optimizer.step()
        targets += int((batch[WINDOW_TARGETS] > 0).sum()) if ours else len(batch)
        if number == args.batches * (10 if ours else 1):
            break
    seconds = time.perf_counter() - start
    return {"targets_a_second": targets / seconds, "megabytes": memory_mb()}


def evaluate(args: argparse.Namespace, ours: bool, name: str) -> dict[str, float]:
    """Seconds of one evaluation of all test users with all metrics, RecBole with its default batch size."""
    from recbole.data.utils import data_preparation
    from recbole.evaluator import Collector, Evaluator
    from recbole.evaluator.collector import DataStruct
    from recbole.evaluator.register import metrics_dict
    from recbole.trainer.trainer import Trainer
    from recbole.utils import get_model

    from recbole_fair.data.reading.prepare import create_dataset, load_data
    from recbole_fair.trainer.trainer import FairTrainer

    if ours:
        config = configuration(args, name)
        loaders = load_data(config)
        trainer: Any = FairTrainer(config, config.model_class(config, loaders[0]._dataset))
        trainer.bind(*loaders)
        start = time.perf_counter()
        trainer.evaluate(loaders[2], load_best_model=False)
        return {"seconds": time.perf_counter() - start}

    class MendedCollector(Collector):
        def get_data_struct(self) -> DataStruct:
            struct = DataStruct()
            for key, value in self.data_struct._data_dict.items():
                struct[key] = value.cpu() if hasattr(value, "cpu") else value
            return struct

    import recbole.evaluator.metrics as recboles

    config = configuration(args, name, eval_batch_size=4096)
    for metric in METRICS:  # RecBole's classes in place of ours
        metrics_dict[metric.lower()] = getattr(recboles, metric)
    loaders = data_preparation(config, create_dataset(config))
    trainer = Trainer(config, get_model(name)(config, loaders[0]._dataset))
    from recbole.evaluator import register

    fresh = register.cluster_info("recbole.evaluator.metrics")
    register.metric_information.update(fresh[1])
    trainer.eval_collector, trainer.evaluator = MendedCollector(config), Evaluator(config)
    trainer.eval_collector.data_collect(loaders[0])
    start = time.perf_counter()
    trainer.evaluate(loaders[2], load_best_model=False)
    return {"seconds": time.perf_counter() - start}


def apart(function: Any, *args: Any) -> dict[str, float]:
    """Run in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found: dict[str, float] = pool.apply(function, args)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--data_path")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, default=4, help="measured batches of RecBole's training; ten times ours")
    parser.add_argument("--window_stride", type=int)
    parser.add_argument("--no-anomaly", action="store_true")
    parser.add_argument("--parts", nargs="+", default=["prepare", "train", "evaluate"])
    args = parser.parse_args()
    report: dict[str, Any] = {"dataset": args.dataset, "threads": args.threads, "torch": torch.__version__}

    def show(title: str, theirs: dict[str, float], ours: dict[str, float], key: str, more_is_better: bool) -> None:
        ratio = ours[key] / theirs[key] if more_is_better else theirs[key] / ours[key]
        report[title] = {"recbole": theirs, "recbole_fair": ours, "ratio": ratio}
        print(f"{title}: RecBole {theirs}, recbole_fair {ours}: {ratio:.1f} times", flush=True)

    if "prepare" in args.parts:
        show("prepare", apart(prepare, args, False), apart(prepare, args, True), "seconds", False)
    if "train" in args.parts:
        show("train", apart(train, args, False), apart(train, args, True), "targets_a_second", True)
    if "evaluate" in args.parts:
        for name in ("SASRec", "BPR"):
            show(
                f"evaluate {name}",
                apart(evaluate, args, False, name),
                apart(evaluate, args, True, name),
                "seconds",
                False,
            )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
