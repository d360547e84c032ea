"""PopSteer's Table 5 and Fig. 6 from one checkpoint: the ablation at three beta, and each strength alone.

    python run_recbole_fair.py -m PopSteerSASRec -d ml-1m --data_path=data -c paper/popsteer-ml-1m.yaml
    python benchmarks/popsteer_ml1m.py saved/PopSteerSASRec-....pth --data_path=data --out=ablation.json

Strengths of PopSteer and the deviation of the noise are chosen on validation: the lowest Gini among those that keep
90 % of the base's NDCG@10. RandomSelect takes PopSteer's strengths, as in the paper, with the moves handed to other
neurons (``--draws`` times; mean and deviation). Test is shown. Each measured setting is written at once, so the script
may be stopped and started at will.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from runs import Runs, parser_of, settle, spread

from recbole_fair.io.imported import open_checkpoint
from recbole_fair.runs.loading import config_of, load_trainer

BETAS = (0.5, 1.0, 1.5)
ALPHA_POP = (0.0, 1.0, 2.0, 3.0)
ALPHA_UNPOP = (0.0, 1.0, 2.0, 3.0, 4.0)
ALONE = (1.0, 2.0, 3.0, 4.0, 5.0)
NOISE = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5)
NDCG, GINI, COVERAGE = "ndcg@10", "giniindex@10", "itemcoverage_min5@10"
SHOWN = (NDCG, GINI, COVERAGE)
# Table 5 of the paper, ml-1m: coverage (at least 5 lists) and Gini of PopSteer, Noise and RandomSelect by beta.
PAPER = {
    0.5: ((0.5707, 0.4732, 0.475), (0.6645, 0.7464, 0.7429)),
    1.0: ((0.5651, 0.4741, 0.4791), (0.6698, 0.7438, 0.7442)),
    1.5: ((0.5531, 0.4750, 0.475), (0.6748, 0.7428, 0.7429)),
}


class Bench:
    """A checkpoint of PopSteer whose users are encoded once a split."""

    def __init__(self, path: str, data_path: str | None, runs: Runs, stack: ExitStack) -> None:
        changes: dict[str, Any] = {
            "metrics": ["NDCG", "GiniIndex", "ItemCoverage"], "topk": [10], "coverage_min_count": [1, 5],
            "show_progress": False, "group_metrics": None, **({"data_path": data_path} if data_path else {}),
        }  # fmt: skip
        content = open_checkpoint(path)
        self.trainer, (_, valid, test) = load_trainer(config_of(content, changes), content, path)
        self.model, self.runs, self.splits = self.trainer.model, runs, {"valid": valid, "test": test}
        self.seed = self.model._seed
        stack.enter_context(self.trainer.contract.encoded_once())

    def measure(self, variant: str, draw: int = 0, **strengths: Any) -> Mapping[str, Mapping[str, float]]:
        """Metrics on validation and test at these strengths."""
        name = " ".join([variant, *(f"{key}={value}" for key, value in strengths.items()), f"draw={draw}"])

        def run() -> dict[str, Any]:
            self.model._seed = self.seed + draw
            self.model.set_strengths(**strengths)
            found = {}
            for split, loader in self.splits.items():
                if strengths.get("steer_mode") == "noise":
                    self.model.restart_noise()
                with self.model.use_variant(variant):
                    found[split] = dict(self.trainer.evaluate_lists(loader).metrics)
            return found

        self.runs.add(name, run, lambda found: "  ".join(f"{m} {found['test'][m]:.4f}" for m in SHOWN))
        return self.runs.done[name]


def line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def shown(found: Mapping[str, float]) -> list[str]:
    return [f"{found[metric]:.4f}" for metric in SHOWN]


def ablation(bench: Bench, draws: int) -> None:
    """The rows of Table 5."""
    base = bench.measure("base")
    floor = 0.9 * base["valid"][NDCG]

    def best(settings: list[dict[str, Any]]) -> dict[str, Any] | None:
        found = [(bench.measure("steered", **one)["valid"], one) for one in settings]
        kept = [(values[GINI], index) for index, (values, _) in enumerate(found) if values[NDCG] >= floor]
        return found[min(kept)[1]][1] if kept else None

    print(line("", "beta", "strengths", *SHOWN, "paper: Gini", "paper: coverage"))
    print("|" + "---|" * 8)
    print(line("base", "", "", *shown(base["test"]), "", ""))
    print(line("reconstructed", "", "", *shown(bench.measure("reconstructed")["test"]), "", ""))
    for beta in BETAS:
        coverage, gini = PAPER[beta]
        grid = [
            {"steer_mode": "popsteer", "beta": beta, "alpha_pop": a, "alpha_unpop": b}
            for a in ALPHA_POP
            for b in ALPHA_UNPOP
        ]
        chosen = best(grid)
        assert chosen is not None, "no strength keeps 90 % of NDCG"
        words = f"{chosen['alpha_pop']:g}, {chosen['alpha_unpop']:g}"
        test = bench.measure("steered", **chosen)["test"]
        print(line("PopSteer", f"{beta:g}", words, *shown(test), f"{gini[0]:.4f}", f"{coverage[0]:.4f}"))
        noise = best([{"steer_mode": "noise", "beta": beta, "noise_std": std} for std in NOISE])
        if noise is not None:
            test = bench.measure("steered", **noise)["test"]
            words = f"deviation {noise['noise_std']:g}"
            print(line("Noise", f"{beta:g}", words, *shown(test), f"{gini[1]:.4f}", f"{coverage[1]:.4f}"))
        others = [bench.measure("steered", draw, **{**chosen, "steer_mode": "random_select"}) for draw in range(draws)]
        cells = [spread([other["test"][metric] for other in others]) for metric in SHOWN]
        print(line("RandomSelect", f"{beta:g}", "the same", *cells, f"{gini[2]:.4f}", f"{coverage[2]:.4f}"))


def asymmetry(bench: Bench) -> None:
    """Each strength alone: how soon NDCG falls."""
    print()
    print(line("alone", "strength", *SHOWN, "NDCG of the base kept"))
    print("|" + "---|" * 6)
    base = bench.measure("base")["test"][NDCG]
    for key, other in (("alpha_pop", "alpha_unpop"), ("alpha_unpop", "alpha_pop")):
        for alpha in ALONE:
            found = bench.measure("steered", steer_mode="popsteer", beta=0.0, **{key: alpha, other: 0.0})["test"]
            print(line(key, f"{alpha:g}", *shown(found), f"{found[NDCG] / base:.3f}"))
    both = [
        bench.measure("steered", steer_mode="popsteer", beta=0.0, alpha_pop=a, alpha_unpop=a)["test"] for a in ALONE
    ]
    print(f"\nboth alike, 1 to 5: NDCG {', '.join(f'{found[NDCG]:.4f}' for found in both)}; mean", end=" ")
    print(f"{statistics.fmean(found[GINI] for found in both):.4f} of Gini")


def main() -> None:
    parser = parser_of(__doc__, "popsteer-ablation.json")
    parser.add_argument("checkpoint", help="of PopSteerSASRec")
    parser.add_argument("--draws", type=int, default=3, help="random choices of neurons")
    args = parser.parse_args()
    settle(args)
    runs = Runs(args.out, {"checkpoint": args.checkpoint}, args.minutes)
    with ExitStack() as stack:
        bench = Bench(args.checkpoint, args.data_path, runs, stack)
        ablation(bench, args.draws)
        asymmetry(bench)


if __name__ == "__main__":
    main()
