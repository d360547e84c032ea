"""Softmax over all items against a sampled one: accuracy, concentration and seconds after the same epochs.

    python benchmarks/sampled_softmax.py --dataset=ml-1m --data_path=data --epochs=3
    python benchmarks/sampled_softmax.py --dataset=amazon-cds --data_path=data --negatives 1000 --powers 0 .5 1

One seed, the package's own settings otherwise; values are those of the last epoch on the validation split.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import torch

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.runs.loading import new_trainer

METRICS = ["NDCG", "Recall", "GiniIndex", "ItemCoverage", "AveragePopularity", "TailPercentage"]


def trained(args: argparse.Namespace, **changes: Any) -> None:
    settings = {"metrics": METRICS, "show_progress": False, "state": "error", "seed": args.seed, **changes}
    settings |= dict(pair.split("=", 1) for pair in args.set)
    if args.data_path:
        settings["data_path"] = args.data_path
    trainer, (train, valid, _) = new_trainer(FairConfig("SASRec", args.dataset, config_dict=settings))
    torch.manual_seed(args.seed)
    wall, cpu = time.perf_counter(), time.process_time()
    for epoch in range(args.epochs):
        trainer._train_epoch(train, epoch)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    found = trainer.evaluate(valid, load_best_model=False)
    values = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
    print(f"{changes or 'all items'}: {values}; {wall:.0f} s, {cpu:.0f} s of the processor", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--data_path")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--negatives", nargs="+", type=int, default=[1000])
    parser.add_argument("--powers", nargs="+", type=float, default=[0.0, 0.5, 1.0])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    trained(args)
    for negatives in args.negatives:
        for power in args.powers:
            trained(args, softmax_negatives=negatives, softmax_negatives_power=power)


if __name__ == "__main__":
    main()
