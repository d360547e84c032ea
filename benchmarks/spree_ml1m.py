"""SPREE's trade-off from one checkpoint: strengths, chosen by validation, on test, and against PopSteer on its base.

    python run_recbole_fair.py -m SPREESASRec -d ml-1m --data_path=data -c paper/spree-ml-1m.yaml
    python benchmarks/spree_ml1m.py saved/SPREESASRec-....pth --data_path=data --json=spree.json
    python run_recbole_fair.py -m PopSteerSASRec -d ml-1m --data_path=data -c paper/spree-ml-1m.yaml \
        --base_model_file=saved/SASRec-....pth
    python benchmarks/spree_ml1m.py saved/SPREESASRec-....pth --popsteer=saved/PopSteerSASRec-....pth --data_path=data

The base model encodes each user once a split; a strength then costs an edit, a product and a top-k. Tables are
Markdown, values at full precision and calibration curves go to the JSON file.
"""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from recbole_fair.io.checkpoint import load_checkpoint
from recbole_fair.runs.loading import config_of, load_trainer

STRENGTHS = (1, 2, 4, 8, 16, 32)
ALPHAS = (0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 7)
LOSSES = (0.02, 0.05, 0.10)
SHOWN = ("ndcg@10", "ndcg@100", "pce@100", "pcesum@100", "upd@100", "averagelogpopularity@100", "giniindex@10")
Point = dict[str, Any]


class Runner:
    """A post-hoc checkpoint with its data, evaluated again and again."""

    def __init__(self, path: str, settings: dict[str, Any], stack: ExitStack) -> None:
        wanted = ["NDCG", "PCE", "PCESum", "UPD", "AverageLogPopularity", "GiniIndex"]
        changes = {"metrics": wanted, "topk": [10, 100], "show_progress": False, **settings}
        content = load_checkpoint(path)
        self.trainer, (_, valid, test) = load_trainer(config_of(content, changes), content, path)
        self.model = self.trainer.model
        self.splits = {"validation": valid, "test": test}
        stack.enter_context(self.trainer.contract.encoded_once())

    def measure(self, split: str, variant: str, **strengths: Any) -> Point:
        """Metrics and calibration curve of a variant at these strengths."""
        self.model.set_strengths(**strengths)
        with self.model.use_variant(variant):
            result = self.trainer.evaluate_lists(self.splits[split])
        return {"metrics": dict(result.metrics), "calibration": result.curves["calibration"]}


def percent(value: float, base: float) -> str:
    return f"{100 * (value / base - 1):+.1f} %"


def print_table(header: list[str], rows: list[list[str]]) -> None:
    print("\n| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def cells(point: Point) -> list[str]:
    return [f"{point['metrics'][name]:.4f}" for name in SHOWN]


def chosen_strength(base: Point, points: dict[float, Point]) -> float | None:
    """The largest strength that keeps 90 % of the base's NDCG@100, or None."""
    kept = [s for s, p in points.items() if p["metrics"]["ndcg@100"] >= 0.9 * base["metrics"]["ndcg@100"]]
    return max(kept, default=None)


def at_loss(base: Point, points: dict[float, Point], loss: float, name: str) -> float | None:
    """A metric where a curve has lost this share of NDCG@100: linear between the two points around it."""
    curve = [base, *(points[s] for s in sorted(points))]
    lost = [1 - p["metrics"]["ndcg@100"] / base["metrics"]["ndcg@100"] for p in curve]
    for i in range(1, len(curve)):
        if lost[i - 1] < loss <= lost[i]:
            share = (loss - lost[i - 1]) / (lost[i] - lost[i - 1])
            before, after = (curve[j]["metrics"][name] for j in (i - 1, i))
            return before + share * (after - before)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spree", help="checkpoint of SPREESASRec that steers the last block")
    parser.add_argument("--popsteer", help="checkpoint of PopSteerSASRec on the same base")
    parser.add_argument("--data_path")
    parser.add_argument("--json", help="file for all values and the calibration curves")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = {"data_path": arguments.data_path} if arguments.data_path else {}
    with ExitStack() as stack:
        measure_all(arguments, settings, stack)


def measure_all(arguments: argparse.Namespace, settings: dict[str, Any], stack: ExitStack) -> None:
    """Print every table; the base models in use encode each user once until the stack closes."""
    runner = Runner(arguments.spree, settings, stack)
    report = runner.model.report
    estimator, probe = report["estimator"], report["probe"]["chosen"]
    print(f"site: block {probe['block']}, position {probe['position']}; probes: {report['probe']['accuracies']}")
    print(
        f"bias: mean {report['bias']['mean']:+.4f}, std {report['bias']['std']:.4f}; estimator: held-out R2 "
        f"{estimator['held_out_r2']:.4f}, MSE {estimator['held_out_mse']:.4f}, {estimator['nonzero']} coefficients, "
        f"mean step {estimator['mean_step']:.4f}"
    )
    print("seconds:", {name: round(value, 1) for name, value in report["seconds"].items()})

    curves: dict[str, dict[str, dict[float, Point]]] = {}
    bases: dict[str, Point] = {}
    for split in runner.splits:
        bases[split] = runner.measure(split, "base")
        rows = [["base", "", *cells(bases[split])]]
        curves[split] = {}
        for variant in ("adaptive", "vanilla"):
            curves[split][variant] = points = {
                strength: runner.measure(
                    split, variant, spree_strength=float(strength), spree_adaptive=variant == "adaptive"
                )
                for strength in STRENGTHS
            }
            rows += [[variant, str(strength), *cells(point)] for strength, point in points.items()]
        print(f"\n{split}")
        print_table(["variant", "lambda", *SHOWN], rows)

    print("\ntest, at the largest strength that keeps 90 % of NDCG@100 on validation")
    rows, base = [["base", "", *cells(bases["test"])]], bases["test"]["metrics"]
    for variant in ("adaptive", "vanilla"):
        strength = chosen_strength(bases["validation"], curves["validation"][variant])
        if strength is None:
            print(f"{variant}: no strength keeps it")
            continue
        metrics = curves["test"][variant][strength]["metrics"]
        changes = [f"{metrics[name]:.4f} ({percent(metrics[name], base[name])})" for name in SHOWN]
        rows.append([variant, str(strength), *changes])
    print_table(["variant", "lambda", *SHOWN], rows)
    print("\ncalibration curve @100 on test: tau, base, " + ", ".join(row[0] + " " + row[1] for row in rows[1:]))
    chosen = [bases["test"], *(curves["test"][row[0]][int(row[1])] for row in rows[1:])]
    levels = chosen[0]["calibration"]["levels"]
    for j, level in enumerate(levels):
        print(f"{level:.1f} " + " ".join(f"{point['calibration']['tau_hat']['100'][j]:.3f}" for point in chosen))

    document: dict[str, Any] = {"base": bases, "curves": curves, "intervention": report}
    if arguments.popsteer:
        state = runner.model.base.state_dict()
        other = Runner(arguments.popsteer, settings, stack)
        if any(not torch.equal(value, state[name]) for name, value in other.model.base.state_dict().items()):
            raise SystemExit("The two checkpoints do not have the same base model.")
        points = {
            a: other.measure("test", "steered", alpha_pop=float(a), alpha_unpop=float(a)) for a in ALPHAS
        }  # PopSteer's start is its reconstruction, not the base; losses are counted from the base for all
        document["popsteer"] = points
        print("\nPopSteer on the same base, test")
        print_table(["alpha", *SHOWN], [[str(a), *cells(p)] for a, p in points.items()])
        methods = {
            "PopSteer": points,
            "SPREE adaptive": curves["test"]["adaptive"],
            "SPREE vanilla": curves["test"]["vanilla"],
        }
        names = ("giniindex@10", "pce@100", "averagelogpopularity@100")
        rows = [["0 %", "base", *(f"{base[name]:.4f}" for name in names)]]
        for loss in LOSSES:
            for method, curve in methods.items():
                values = [at_loss(bases["test"], curve, loss, name) for name in names]
                found = [
                    "-" if value is None else f"{value:.4f} ({percent(value, base[name])})"
                    for name, value in zip(names, values, strict=True)
                ]
                rows.append([f"{loss:.0%}", method, *found])
        print("\nat equal loss of NDCG@100, test, between the points of each curve")
        print_table(["NDCG@100 lost", "method", *names], rows)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(document, file, default=lambda value: value.item() if isinstance(value, np.generic) else None)


if __name__ == "__main__":
    main()
