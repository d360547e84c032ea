"""One process with one thread against two with one thread each: training and evaluation at ml-1m's size.

    python benchmarks/processes.py                                # drawn: 6,040 users, 3,416 items, a million rows
    python benchmarks/processes.py --data_path=data --dataset=ml-1m
    python benchmarks/processes.py --models SASRec,BPR --steps 300 --processes 1,2

``--batch`` sets the size of a training batch: steps of a few milliseconds are too short to share. Of each model so many
training steps are timed, after a few that are not, and one evaluation of the test users with all
default metrics. Both numbers of processes run in one call, one after the other, and the table ends in their ratios.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_SCRIPT = Path(__file__).resolve()

_WARM = 20  # steps before the clock starts


def drawn(folder: Path, n_users: int = 6040, n_items: int = 3416, n_rows: int = 1_000_000) -> None:
    """An atomic file with ml-1m's sizes: popularity falls off as a power law, histories have different lengths."""
    rng = np.random.default_rng(0)
    weight = np.arange(1, n_items + 1) ** -0.7
    weight /= weight.sum()
    lengths = rng.lognormal(4.5, 1.0, n_users)
    lengths = np.clip(lengths * n_rows / lengths.sum(), 20, n_items // 3).astype(int)
    (folder / "drawn").mkdir(parents=True)
    with (folder / "drawn" / "drawn.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for user, length in enumerate(lengths):
            for step, item in enumerate(rng.choice(n_items, length, replace=False, p=weight)):
                file.write(f"{user}\t{item}\t{step}\n")


class FirstBatches:
    """A training loader that ends after some batches."""

    def __init__(self, loader: Any, steps: int) -> None:
        self._loader, self._steps = loader, steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return min(self._steps, len(self._loader))

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(iter(self._loader), self._steps)


def measured(model: str, dataset: str, data_path: str, steps: int, batch: int | None) -> dict[str, Any]:
    """Seconds of one process of the group."""
    import torch

    from recbole_fair.config.fair_config import FairConfig
    from recbole_fair.io.processes import current
    from recbole_fair.runs.alone import together
    from recbole_fair.runs.loading import new_trainer

    settings: dict[str, Any] = {"data_path": data_path, "show_progress": False, "state": "error"}
    settings |= {} if batch is None else {"train_batch_size": batch}
    config = FairConfig(
        model, dataset, config_dict={**settings, "load_col": {"inter": ["user_id", "item_id", "timestamp"]}}
    )
    together(config)
    trainer, (train, _, test) = new_trainer(config)
    trainer._train_epoch(FirstBatches(train, _WARM), 0)
    current().wait()
    start = time.perf_counter()
    worked = time.process_time()
    trainer._train_epoch(FirstBatches(train, steps), 0)
    worked = time.process_time() - worked
    current().wait()
    training = time.perf_counter() - start
    seconds, evaluated = [], []
    for _ in range(2):
        current().wait()
        start, used = time.perf_counter(), time.process_time()
        result = trainer.evaluate(test, load_best_model=False)
        seconds.append(time.perf_counter() - start)
        evaluated.append(time.process_time() - used)
    assert result is not None
    return {
        "training": training / min(steps, len(train)),
        "evaluation": min(seconds),
        "of the processor": [1e3 * worked / min(steps, len(train)), min(evaluated)],
        "first": next(iter(result.items())),
        "threads": torch.get_num_threads(),
        "in_parts": trainer._steps._in_parts,
    }


def group(count: int, words: list[str]) -> dict[str, Any]:
    """What the first of so many processes has measured."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    common = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = [
        subprocess.Popen(
            [sys.executable, str(_SCRIPT), *words],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    said = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        raise SystemExit("a process has failed")
    found_by_first: dict[str, Any] = json.loads(said[0].strip().splitlines()[-1])
    return found_by_first


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="SASRec,BPR")
    parser.add_argument("--data_path")
    parser.add_argument("--dataset", default="drawn")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--batch", type=int, help="train_batch_size; the model's own if left out")
    parser.add_argument("--of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.of:
        print(json.dumps(measured(given.of, given.dataset, given.data_path, given.steps, given.batch)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if given.data_path is None:
            drawn(Path(folder))
        data_path = str(Path(given.data_path or folder).resolve())
        os.chdir(folder)
        counts = [int(word) for word in given.processes.split(",")]
        for model in given.models.split(","):
            words = [
                f"--of={model}",
                f"--dataset={given.dataset}",
                f"--data_path={data_path}",
                f"--steps={given.steps}",
                *([f"--batch={given.batch}"] if given.batch else []),
            ]
            by_count = {count: group(count, words) for count in counts}
            one = by_count[counts[0]]
            for count, found in by_count.items():
                ratios = [f"{one[name] / found[name]:.2f}" for name in ("training", "evaluation")]
                print(
                    f"{model:16} {count} x 1 thread: step {1e3 * found['training']:7.2f} ms ({ratios[0]}), "
                    f"evaluation {found['evaluation']:6.2f} s ({ratios[1]}), of the first one's processor "
                    f"{found['of the processor'][0]:.2f} ms and {found['of the processor'][1]:.2f} s, "
                    f"{found['first']}, {found['in_parts']}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
