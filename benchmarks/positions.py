"""All positions against RecBole's prefix procedure: validation NDCG@10 after the same number of targets.

    python benchmarks/positions.py --dataset=ml-100k --epochs=6 --seeds 1 2 3

One epoch of either procedure shows every training target once. Batch size in targets, dropout and initial weights are
equal; each procedure has its own learning rate: RecBole's 0.001 for prefixes, the defaults here for windows.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time

import numpy as np
import torch

from recbole_fair.quick_start import run_recbole_fair


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--data_path", default="dataset/")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--strides", type=int, nargs="*", default=[], help="further window strides to try")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data_path = os.path.abspath(args.data_path)
    procedures = {
        "last": {"train_positions": "last", "learning_rate": 0.001, "learning_rate_warmup": 0.0},
        "all": {"train_positions": "all"},
    }
    procedures |= {f"all, window_stride={n}": {"train_positions": "all", "window_stride": n} for n in args.strides}
    scores: dict[str, list[float]] = {name: [] for name in procedures}
    seconds: dict[str, list[float]] = {name: [] for name in procedures}
    os.chdir(tempfile.mkdtemp())
    for seed in args.seeds:
        for name, settings in procedures.items():
            start = time.perf_counter()
            result = run_recbole_fair(
                "SASRec",
                args.dataset,
                config_dict={
                    "data_path": data_path,
                    "seed": seed,
                    "epochs": args.epochs,
                    "stopping_step": args.epochs,
                    "metrics": ["NDCG"],
                    "state": "error",
                    "show_progress": False,
                    **settings,
                },
                saved=False,
            )
            scores[name].append(result["best_valid_score"])
            seconds[name].append(time.perf_counter() - start)
            print(f"seed {seed}  {name}: {scores[name][-1]:.4f}  {seconds[name][-1]:.0f} s", flush=True)
    for name, values in scores.items():
        print(
            f"{name}: validation NDCG@10 {np.mean(values):.4f} +- {np.std(values):.4f}, {np.mean(seconds[name]):.0f} s"
        )
    print(json.dumps({"epochs": args.epochs, "seeds": args.seeds, "ndcg": scores, "seconds": seconds}))


if __name__ == "__main__":
    main()
