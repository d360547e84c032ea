"""Seconds and memory from files to loaders, ours and RecBole's, in one run and each in a process of its own.

    python benchmarks/data_stage.py --rows 1000000 --recbole
    python benchmarks/data_stage.py --rows 16000000 --model SASRec
    python benchmarks/data_stage.py --data data/ml-1m --recbole

Without ``--data`` a data set of so many interactions is made up: users of 115 interactions each on average, a
long-tailed catalogue, rows in no order, columns of MovieLens. RecBole's side ends with its split, ours with loaders.
Figures are wall seconds and processor seconds, and the most memory that a process had.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np


def write_interactions(folder: Path, n_rows: int) -> Path:
    """Made-up interactions in ``folder/synthetic/synthetic.inter``."""
    rng = np.random.default_rng(0)
    n_users, n_items = max(2, n_rows // 115), max(50, min(60_000, n_rows // 270))
    (folder / "synthetic").mkdir(parents=True, exist_ok=True)
    with (folder / "synthetic" / "synthetic.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\trating:float\ttimestamp:float\n")
        for start in range(0, n_rows, 500_000):
            size = min(500_000, n_rows - start)
            columns = (
                rng.integers(0, n_users, size).tolist(),
                (n_items * rng.random(size) ** 2).astype(int).tolist(),
                (rng.integers(1, 11, size) / 2).tolist(),
                rng.integers(1_000_000_000, 1_500_000_000, size).tolist(),
            )
            file.write("".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in zip(*columns, strict=True)))
    return folder


def measure(side: str, folder: Path, name: str, model: str, settings: dict[str, Any]) -> None:
    """Run one side and print its figures as JSON."""
    warnings.simplefilter("ignore")
    from recbole.data.dataset import Dataset, SequentialDataset
    from recbole.utils import ModelType, init_seed

    from recbole_fair.config.fair_config import FairConfig
    from recbole_fair.data.reading.prepare import load_data

    given = {"data_path": str(folder), "state": "error", "show_progress": False, **settings}
    config = FairConfig(model, name, config_dict=given)
    if side == "recbole":
        config["load_col"] = {"inter": ["user_id", "item_id", "timestamp"]}
    logging.disable(logging.WARNING)
    init_seed(2020, True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, processor = time.perf_counter(), time.process_time()
    if side == "ours":
        train, *_ = load_data(config)
        n_rows = len(train._dataset)
    else:
        kind = SequentialDataset if config["MODEL_TYPE"] == ModelType.SEQUENTIAL else Dataset
        n_rows = len(kind(config).build()[0])
    figures = {
        "seconds": time.perf_counter() - wall,
        "processor": time.process_time() - processor,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "before_mb": before / 1024,
        "training_rows": n_rows,
    }
    print(json.dumps(figures))


def in_process(
    side: str, args: argparse.Namespace, folder: Path, name: str, settings: dict[str, Any]
) -> dict[str, float]:
    """Figures of one side, from a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--data", str(folder / name), "--model", args.model]
    done = subprocess.run([*command, "--settings", json.dumps(settings)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--data", type=Path, help="folder of a data set: .../NAME with NAME.inter")
    parser.add_argument("--model", default="SASRec")
    parser.add_argument("--recbole", action="store_true", help="RecBole's reading and split as well")
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON")
    parser.add_argument("--side", choices=("ours", "recbole"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        measure(args.side, args.data.parent, args.data.name, args.model, args.settings)
        return
    with tempfile.TemporaryDirectory() as made:
        folder, name = (args.data.parent, args.data.name) if args.data else (Path(made), "synthetic")
        if not args.data:
            write_interactions(folder, args.rows)
        runs = {"ours, first": ("ours", args.settings), "ours, again": ("ours", args.settings)}
        if args.recbole:
            runs["RecBole"] = ("recbole", args.settings)
        figures = {}
        print(f"{name}, {args.model}")
        for label, (side, settings) in runs.items():
            found = figures[label] = in_process(side, args, folder, name, settings)
            print(
                f"{label:12s} {found['seconds']:7.2f} s, {found['processor']:7.2f} s of processor, "
                f"{found['peak_mb']:6.0f} MB at most ({found['before_mb']:.0f} before), "
                f"{found['training_rows']} training rows",
                flush=True,
            )
        if args.recbole:
            for label in ("ours, first", "ours, again"):
                ratio = figures["RecBole"]["processor"] / figures[label]["processor"]
                print(f"RecBole / {label}: {ratio:.1f} (processor seconds)")


if __name__ == "__main__":
    main()
