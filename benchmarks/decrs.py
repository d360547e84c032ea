"""Seconds of one evaluation and of one training epoch: DecFM and DecNFM against RecBole's FM and NFM.

    python benchmarks/decrs.py --dataset=ml-100k --group_field=class
    python benchmarks/decrs.py --dataset=ml-1m --data_path=DIRECTORY --skip_recbole

An evaluation is a full ranking of all items for every user of the validation split, with masks, lists and metrics.
RecBole's FM and NFM have no score of all items: each user is paired with each item, each row scored. Both sides go
through the same trainer here, with the same metrics, features and embedding size. The quickest of several repetitions
counts, in processor time, so that other work on the machine matters less; an epoch is sampling, forward and backward
pass, optimizer.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from typing import Any

import torch

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.runs.loading import new_trainer
from recbole_fair.trainer.decrs_trainer import PartTrainer

FACTOR = 50.0
EPOCH = 60.0
COLUMNS = {
    "ml-100k": {"user": ["user_id", "age", "gender", "occupation", "zip_code"], "item": ["item_id", "class"]},
    "ml-1m": {"user": ["user_id", "gender", "age", "occupation", "zip_code"], "item": ["item_id", "genre"]},
}


def quickest(work: Any, repeats: int) -> float:
    """Processor seconds, on all threads, of the quickest of some repetitions."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def prepared(args: argparse.Namespace, name: str, **changes: Any) -> tuple[Any, tuple[Any, Any, Any]]:
    """A trainer and its loaders."""
    settings: dict[str, Any] = {
        "show_progress": False,
        "state": "error",
        "embedding_size": 64,
        "metrics": ["Recall", "NDCG"],
        "topk": [10, 20],
        "valid_metric": "Recall@10",
        **changes,
    }
    if args.data_path:
        settings["data_path"] = args.data_path
    return new_trainer(FairConfig(name, args.dataset, config_dict=settings))


def decrs(args: argparse.Namespace, name: str) -> tuple[dict[str, float], float]:
    """Seconds of an evaluation of each variant, and of an epoch of the deconfounded model."""
    trainer, (train, valid, _) = prepared(args, name, group_field=args.group_field, group_metrics=None)
    part = PartTrainer(trainer.config, trainer.model, "deconfounded")
    part.bind(train, valid)
    trainer.model.part = "deconfounded"
    epoch = quickest(lambda: part._train_epoch(train, 0), args.epochs)
    trainer.model.trained = list(trainer.model.parts)
    seconds = {}
    for variant in trainer.model.variants:
        with trainer.model.use_variant(variant):
            seconds[variant] = quickest(lambda: trainer.evaluate(valid, load_best_model=False), args.repeats)
    return seconds, epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--data_path")
    parser.add_argument("--group_field", default="genre")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--models", nargs="+", default=["DecFM", "DecNFM"])
    parser.add_argument("--skip_recbole", action="store_true", help="RecBole's models take minutes on ml-1m")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(args.threads)
    columns = {"inter": ["user_id", "item_id", "rating", "timestamp"], **COLUMNS.get(args.dataset, {})}
    for name in args.models:
        base, theirs = name.removeprefix("Dec"), None
        if not args.skip_recbole:
            trainer, (_, valid, _) = prepared(args, base, load_col=columns)
            theirs = quickest(lambda t=trainer, v=valid: t.evaluate(v, load_best_model=False), 2)
            print(f"RecBole's {base}: an evaluation {theirs:.3f} s", flush=True)
        seconds, epoch = decrs(args, name)
        for variant, value in seconds.items():
            ratio = f", {theirs / value:.0f} times quicker than RecBole's {base}" if theirs else ""
            print(f"{name} {variant}: an evaluation {value:.3f} s{ratio}", flush=True)
        limit = f"{'within' if epoch < EPOCH else 'ABOVE'} {EPOCH:.0f} s"
        print(f"{name}: a training epoch {epoch:.1f} s ({limit})", flush=True)
        if theirs and name == "DecFM":
            factor = theirs / max(seconds.values())
            print(f"DecFM: {'at least' if factor >= FACTOR else 'BELOW'} {FACTOR:.0f} times quicker", flush=True)


if __name__ == "__main__":
    main()
