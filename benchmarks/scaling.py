"""How time and memory grow with users, items and interactions: data, an epoch of SASRec, an evaluation.

    python benchmarks/scaling.py --threads=2

Made-up data: a base size, and from there users, items and interactions are doubled twice, one at a time, each size in a
process of its own. The slope is that of a straight line through logarithms: 1 means "twice as much for twice as many".
Seconds are those of the processor, which hardly depend on what else the machine does; ``--wall`` takes the clock's.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BASE = {"users": 4000, "items": 2000, "interactions": 200_000}
STAGES = ("data", "epoch", "evaluation", "megabytes")


def write(folder: Path, users: int, items: int, interactions: int) -> None:
    """Interactions with a long tail, every user with as many as any other, in no order."""
    rng = np.random.default_rng(0)
    user = rng.permutation(np.arange(interactions) % users)
    item = (items * rng.random(interactions) ** 2).astype(np.int64)
    item[:items] = np.arange(items)
    when = rng.permutation(interactions)
    place = folder / "made-up"
    place.mkdir()
    with (place / "made-up.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        file.writelines(f"u{u}\ti{i}\t{t}\n" for u, i, t in zip(user, item, when, strict=True))


def measure(size: dict[str, int], args: argparse.Namespace) -> dict[str, float]:
    import torch

    from recbole_fair.config.fair_config import FairConfig
    from recbole_fair.runs.loading import new_trainer

    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    clock: Callable[[], float] = time.perf_counter if args.wall else time.process_time
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), **size)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        settings: dict[str, Any] = {"data_path": name, "show_progress": False, "state": "error", "checkpoint_dir": name}
        start = clock()
        trainer, (train, valid, _) = new_trainer(FairConfig("SASRec", "made-up", config_dict=settings))
        times = [clock() - start]
        start = clock()
        trainer._train_epoch(train, 0)
        times.append(clock() - start)
        start = clock()
        trainer.evaluate(valid, load_best_model=False)
        times.append(clock() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return dict(zip(STAGES, [*times, peak / 1024], strict=True)) | {"before": before / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--size", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.size:
        print(json.dumps(measure(args.size, args)))
        return
    found: dict[tuple[int, ...], dict[str, float]] = {}
    for grown in BASE:
        rows = []
        for factor in (1, 2, 4):
            size = {**BASE, grown: BASE[grown] * factor}
            key = tuple(size.values())
            if key not in found:
                found[key] = apart(size)
            rows.append(found[key])
            shown = ", ".join(f"{stage} {found[key][stage]:.2f}" for stage in STAGES)
            print(f"{size}: {shown}", flush=True)
        slopes = {stage: np.polyfit(np.log([1, 2, 4]), np.log([row[stage] for row in rows]), 1)[0] for stage in STAGES}
        print(f"slopes by {grown}: " + ", ".join(f"{stage} {slope:.2f}" for stage, slope in slopes.items()), flush=True)


def apart(size: dict[str, int]) -> dict[str, float]:
    """One size in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], f"--size={json.dumps(size)}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
