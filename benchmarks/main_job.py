"""README's first command over several seeds, under two or more sets of settings: quality and seconds of the processor.

    python benchmarks/main_job.py --seeds 2020 2021 2022 2023 2024 \
        --settings '{}' '{"sae_max_inputs": 4000000, "sae_learning_rate": 0.001}'

The base of a seed is trained once and shared by all settings. Strengths are chosen on validation, values are those of
test. A line a fit, as soon as it is there; then means and standard deviations over the seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from typing import Any

import torch

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.runs.loading import new_trainer

METRICS = ("ndcg@10", "giniindex@10")


def fit(args: argparse.Namespace, model: str, seed: int, folder: str, settings: dict[str, Any]) -> dict[str, float]:
    """Train or fit a model and evaluate its variants on test."""
    given = {"seed": seed, "checkpoint_dir": folder, "show_progress": False, "state": "error", **settings}
    if args.data_path:
        given["data_path"] = args.data_path
    trainer, (train, valid, test) = new_trainer(FairConfig(model, args.dataset, config_dict=given))
    start = time.process_time()
    trainer.fit(train, valid, verbose=False)
    found = {"seconds": time.process_time() - start}
    if "intervention" in trainer.checkpoint_extra:
        report = trainer.checkpoint_extra["intervention"]
        found |= {"fvu": report["sae"]["validation"]["fvu"], "alive": report["sae"]["validation"]["alive_share"]}
        found["users_a_side"] = report["profiles"]["users_a_side"]
        for name, result in trainer.evaluate_variants(test).items():
            found |= {f"{name} {metric}": result.metrics[metric] for metric in METRICS}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--data_path")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2020, 2021, 2022, 2023, 2024])
    parser.add_argument("--settings", type=json.loads, nargs="+", default=[{}])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    every = defaultdict(list)
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            base = fit(args, "SASRec", seed, folder, {})
            print(f"{seed}: base {base['seconds']:.0f} s of the processor", flush=True)
            for settings in args.settings:
                found = fit(args, "PopSteerSASRec", seed, folder, settings)
                every[json.dumps(settings)].append(found)
                values = ", ".join(f"{key} {value:.4f}" for key, value in found.items())
                print(f"{seed} {settings}: {values}", flush=True)
    for name, fits in every.items():
        values = {key: [one[key] for one in fits] for key in fits[0]}
        spread = {key: statistics.stdev(some) if len(some) > 1 else 0.0 for key, some in values.items()}
        print(name)
        for key, some in values.items():
            print(f"  {key:28s} {statistics.mean(some):.4f} ({spread[key]:.4f})")


if __name__ == "__main__":
    main()
