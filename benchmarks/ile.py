"""Seconds an epoch of ILEBPR against BPR, on the same data and in the same run.

    python benchmarks/ile.py --dataset=ml-100k
    python benchmarks/ile.py --dataset=ml-1m --data_path=DIRECTORY

The epochs of the models take turns, so that whatever else the machine does falls on all of them, and processor time is
counted, not the clock; the median of the epochs is reported. Measured is the trainer's epoch: sampling, forward and
backward pass, optimizer.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from typing import Any

import torch
from recbole.utils import init_seed

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.registry import get_trainer
from recbole_fair.data.reading.atomic_files import ensure_atomic_files
from recbole_fair.data.reading.prepare import load_data

LIMIT = 1.15


def prepared(args: argparse.Namespace, name: str, **changes: Any) -> tuple[Any, Any]:
    """A trainer and its training loader."""
    settings: dict[str, Any] = {"show_progress": False, "state": "error", "embedding_size": args.embedding_size}
    if args.data_path:
        settings["data_path"] = args.data_path
    config = FairConfig(name, args.dataset, config_dict={**settings, **changes})
    ensure_atomic_files(config)
    init_seed(config["seed"], True)
    train, *_ = load_data(config)
    trainer = get_trainer(config, config.model_class)(
        config, config.model_class(config, train._dataset).to(config["device"])
    )
    return trainer, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--data_path")
    parser.add_argument("--embedding_size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=5, help="measured epochs a model, after one that warms up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--distances", nargs="+", default=["std", "ent", "mad"])
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    runs = {"BPR": prepared(args, "BPR")}
    runs |= {f"ILEBPR {kind}": prepared(args, "ILEBPR", ile_distance=kind) for kind in args.distances}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for epoch in range(args.epochs + 1):
        for name, (trainer, train) in runs.items():
            start = time.process_time()
            trainer._train_epoch(train, epoch)
            if epoch > 0:
                seconds[name].append(time.process_time() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in median.items():
        print(f"{name}: {value:.2f} s an epoch, {value / median['BPR']:.3f} times BPR")
    worst = max(median.values()) / median["BPR"]
    print(f"{'within' if worst <= LIMIT else 'ABOVE'} the limit of {LIMIT} times BPR")


if __name__ == "__main__":
    main()
