"""Memory and seconds of SASRec on millions of interactions: data, steps of an epoch, an evaluation with all metrics.

    python benchmarks/large_epoch.py --rows 16000000
    python benchmarks/large_epoch.py --rows 16000000 --negatives 1000 --users 10000

Data are made up as in ``data_stage.py``. Every step of an epoch is like every other, so that some of them show the
memory of all; windows are drawn for the whole epoch before the first. An evaluation ranks all items for so many
validation users; histories and popularity are those of everybody.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from data_stage import write_interactions

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.evaluator.specs import GROUPS, SPECS
from recbole_fair.runs.loading import new_trainer


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Print what some work took."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{name}: {wall:.1f} s, {cpu:.1f} s of the processor, {peak:.0f} MB at most so far", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16_000_000)
    parser.add_argument("--data", type=Path, help="folder of a data set instead: .../NAME with NAME.inter")
    parser.add_argument("--steps", type=int, default=20, help="of the epoch")
    parser.add_argument("--users", type=int, default=10_000, help="to evaluate")
    parser.add_argument("--negatives", type=int, help="softmax_negatives")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as made:
        folder, name = (args.data.parent, args.data.name) if args.data else (Path(made), "synthetic")
        if not args.data:
            write_interactions(folder, args.rows)
        settings: dict[str, Any] = {
            "data_path": str(folder), "checkpoint_dir": made, "state": "error", "show_progress": False,
            "softmax_negatives": args.negatives, "metrics": [spec.name for spec in SPECS if GROUPS not in spec.needs],
        }  # fmt: skip
        with stage("data and model"):
            trainer, (train, valid, _) = new_trainer(FairConfig("SASRec", name, config_dict=settings))
        trainer.model.train()
        with stage(f"{args.steps} of {len(train)} steps"):
            for batch in itertools.islice(train, args.steps):
                trainer.optimizer.zero_grad()
                trainer.model.calculate_loss(batch).backward()
                trainer.optimizer.step()
        rows = valid.sampler.data_source  # numbers of the rows that are looked up
        del rows[args.users :]
        with stage(f"evaluation of {len(rows)} users, {trainer.model.n_items} items"):
            trainer.evaluate(valid, load_best_model=False)


if __name__ == "__main__":
    main()
