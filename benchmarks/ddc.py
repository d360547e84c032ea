"""DDC beside BPR, ILE, IPS, PopSteer and Lorenz: is it more accurate and less popular at once, as its paper says?

    python benchmarks/ddc.py --data_path=DIRECTORY --dataset=ml-1m --out=ddc-ml-1m.json
    python benchmarks/ddc.py --data_path=DIRECTORY --out=ddc-ml-1m.json --minutes=3     # part of it, again later
    python benchmarks/ddc.py --dataset=ml-1m --out=ddc-ml-1m.json --table               # what is there so far

For every seed a BPR is trained; DDC, PopSteer and Lorenz start from it, ILE and IPS are trained in its place. Leave one
out by time, so that the split is one for all seeds; items of the history are masked, lists of 10. PopSteer takes its
strengths and Lorenz its setting on validation, for the lowest Gini within a budget of NDCG; DDC, ILE and IPS have no
budget and stand as they come out.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from runs import Runs, parser_of, settle, spread

from recbole_fair.quick_start import frontier_checkpoint, run_recbole_fair

Row = dict[str, Any]
METRICS = ["NDCG", "AveragePopularity", "GiniIndex", "PCE", "ItemCoverage"]
SHOWN = [f"{name.lower()}@10" for name in METRICS]
SPLIT = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"}
BUDGETS = (0.05, 0.1)
NAMES = (
    "BPR", "DDC", "DDC, popularity's term alone", "DDC, taste's term alone", "ILE std 0.05", "ILE std 0.2", "IPS",
    "PopSteer, 10 %", "Lorenz, 5 %", "Lorenz, 10 %",
)  # fmt: skip


class Bench:
    """Trains and evaluates one data set."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder = args, folder

    def settings(self, seed: int, **changes: Any) -> Row:
        """Settings that all runs of a seed have, with these."""
        args = self.args
        own: Row = {
            "seed": seed,
            "eval_args": SPLIT,
            "metrics": METRICS,
            "topk": [10],
            "show_progress": False,
            "checkpoint_dir": str(self.folder / str(seed)),
        }
        return own | ({"data_path": args.data_path} if args.data_path else {}) | changes

    def trained(self, model: str, seed: int, **changes: Any) -> Row:
        """A model that is trained from the start."""
        args = self.args
        recipe = {
            "embedding_size": args.embedding_size,
            "learning_rate": args.learning_rate,
            "train_batch_size": args.batch,
            "epochs": args.epochs,
            "eval_step": 2,
            "stopping_step": args.stopping_step,
        }
        result = run_recbole_fair(model, args.dataset, config_dict=self.settings(seed, **recipe, **changes))
        return {"test": dict(result["test_result"]), "checkpoint": result["checkpoint"]}

    def fitted(self, model: str, seed: int, base: str) -> Row:
        """A post-hoc method with its defaults, in all its variants."""
        settings = self.settings(seed, base_model_file=base)
        result = run_recbole_fair(model, self.args.dataset, config_dict=settings)
        variants = {name: dict(values) for name, values in result["variants"].items()}
        notes = [note for note in result["notes"] if "trength" in note]
        return {"test": dict(result["test_result"]), "variants": variants, "notes": notes}

    def lorenz(self, base: str) -> Row:
        """The lowest Gini on validation within each budget; the base where there is none."""
        data = {"data_path": self.args.data_path} if self.args.data_path else {}
        result = frontier_checkpoint(
            base, ["GiniIndex@10"], "NDCG@10", BUDGETS, ["Lorenz"], config_dict={**data, "show_progress": False}
        )
        found = {str(row["loss"]): dict(row["test"]) for row in result["winners"]}
        return {"within": {str(loss): found.get(str(loss), dict(result["base"]["test"])) for loss in BUDGETS}}


def jobs(bench: Bench, runs: Runs, seed: int) -> Mapping[str, Callable[[], Row]]:
    """What is run for a seed, the base first."""

    def base() -> str:
        return str(runs.done[f"BPR {seed}"]["checkpoint"])

    return {
        "BPR": lambda: bench.trained("BPR", seed),
        "DDC": lambda: bench.fitted("DDCBPR", seed, base()),
        "Lorenz": lambda: bench.lorenz(base()),
        "PopSteer": lambda: bench.fitted("PopSteerBPR", seed, base()),
        "IPS": lambda: bench.trained("IPSBPR", seed),
        "ILE std 0.05": lambda: bench.trained("ILEBPR", seed, ile_weight=0.05),
        "ILE std 0.2": lambda: bench.trained("ILEBPR", seed, ile_weight=0.2),
    }


def values_of(name: str, done: Mapping[str, Row], seed: int) -> Mapping[str, float] | None:
    """Test metrics of a row of the table for a seed, if they are there."""
    method, _, rest = name.partition(",")
    row = done.get(f"{method} {seed}")
    if row is None:
        return None
    if method == "DDC" and rest:
        found: Mapping[str, float] = row["variants"]["popularity" if "popularity" in rest else "preference"]
        return found
    if method == "Lorenz":
        within: Mapping[str, float] = row["within"][str(float(rest.strip(" %")) / 100)]
        return within
    test: Mapping[str, float] = row["test"]
    return test


def table(done: Mapping[str, Row], seeds: list[int]) -> str:
    """Markdown: mean and deviation over the seeds, in brackets what NDCG and popularity change, by seed against BPR."""
    lines = ["| | seeds | " + " | ".join(METRICS) + " |", "|---" * (2 + len(METRICS)) + "|"]
    for name in NAMES:
        both = [
            (own, base)
            for seed in seeds
            if (own := values_of(name, done, seed)) and (base := values_of("BPR", done, seed))
        ]
        if not both:
            continue
        cells = []
        for metric in SHOWN:
            if any(metric not in own for own, _ in both):  # frontier measures no popularity
                cells.append("–")
                continue
            text = spread([own[metric] for own, _ in both], 1 if metric.startswith("average") else 4)
            if name != "BPR" and metric in SHOWN[:2]:
                changes = [100 * (own[metric] / base[metric] - 1) for own, base in both]
                text += f" ({np.mean(changes):+.1f} %)"
            cells.append(text)
        lines.append(f"| {name} | {len(both)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shown(run: Mapping[str, Any]) -> str:
    """Its result in a line."""
    test = run.get("test") or run["within"][str(BUDGETS[-1])]
    return "  ".join(f"{metric} {test[metric]:.4f}" for metric in SHOWN if metric in test)


def main() -> None:
    parser = parser_of(__doc__, "ddc.json")
    parser.add_argument("--dataset", default="ml-1m")
    parser.add_argument("--only", nargs="*", help="these methods, as BPR DDC Lorenz PopSteer IPS 'ILE std 0.05'")
    parser.add_argument("--embedding_size", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=0.002)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=40)
    parser.set_defaults(stopping_step=3)
    args = parser.parse_args()
    settle(args)
    fixed = ("dataset", "embedding_size", "learning_rate", "batch", "epochs", "stopping_step")
    runs = Runs(args.out, {key: getattr(args, key) for key in fixed}, args.minutes)
    bench = Bench(args, runs.folder)
    for name in () if args.table else jobs(bench, runs, 0):  # a method for all seeds before the next one
        if args.only and name not in args.only:
            continue
        for seed in args.seeds:
            work = jobs(bench, runs, seed)[name]
            runs.add(f"{name} {seed}", functools.partial(work), shown)
    print(table(runs.done, args.seeds))


if __name__ == "__main__":
    main()
