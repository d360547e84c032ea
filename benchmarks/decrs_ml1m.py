"""DecRS on ml-1m against its baselines and the control that the paper lacks: chosen on validation, reported on test.

    python benchmarks/decrs_ml1m.py --data_path=DIRECTORY --out=decrs-ml-1m.json
    python benchmarks/decrs_ml1m.py --data_path=DIRECTORY --out=decrs-ml-1m.json --minutes=60     # part, again later
    python benchmarks/decrs_ml1m.py --out=decrs-ml-1m.json --table                                # what is there so far
    python benchmarks/decrs_ml1m.py --model=DecNFM --out=decnfm-ml-1m.json ...

The protocol is that of properties/paper/decrs-ml-1m.yaml. A run is a method with its settings and a seed; its metrics
go into the JSON file when it is done, and runs that stand there are skipped, so the script may be stopped and started
at will. In order:

1. For each seed and reg_weight one run of DecRS with its control: backbone, deconfounded model, second backbone. Its
   checkpoint is kept in a folder beside the JSON file. Fusion and control are scored under each alpha of the list.
2. With the reg_weight whose backbones are best on validation: Unawareness, and IPS under each clipping value.
3. On these backbones the re-rankers Calibration, Diversity and FairCo (by genre), each strength of its list.
4. With --suspects: the deconfounded model as in the authors' code (group vectors' initial deviation 1, catalogue
   prior), with that deviation alone, and with Eq. 7, for the same backbones.

Choice: for each row of the table the settings (reg_weight, alpha, strength, clipping value) with the highest mean
validation Recall@10 over the seeds.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from runs import Runs, parser_of, settle, spread

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.evaluator import EvaluationResult
from recbole_fair.io.checkpoint import load_checkpoint
from recbole_fair.rerank.settings import make_reranker
from recbole_fair.runs.loading import new_trainer
from recbole_fair.runs.reranking import evaluate_reranked

SHOWN = ["recall@10", "recall@20", "ndcg@10", "ndcg@20", "ckl@20"]
RERANKERS: dict[str, tuple[str, list[float], dict[str, Any]]] = {
    "Calibration": ("reranker_lambda", [0.01, 0.02, 0.05, 0.1, 0.2, 0.5], {}),
    "Diversity": ("reranker_theta", [0.01, 0.05, 0.1, 0.2], {}),
    "FairCo": ("reranker_lambda", [0.01, 0.02, 0.05, 0.1, 0.2, 0.5], {"reranker_provider": "genre"}),
}
SUSPECTS: list[dict[str, Any]] = [
    {"group_init_std": 1.0, "confounder_prior": "catalogue"},  # as in the authors' code and files
    {"group_init_std": 1.0},
    {"mediator": "product"},
]
FUSED = ("fused", "control")

# Table 3 of the paper, ml-1m: R@10, R@20, N@10, N@20.
PAPER = {
    "DecFM": {
        "backbone": (0.0676, 0.1162, 0.0566, 0.0715),
        "Unawareness": (0.0679, 0.1179, 0.0575, 0.0730),
        "FairCo": (0.0676, 0.1165, 0.0570, 0.0720),
        "Calibration": (0.0647, 0.1149, 0.0539, 0.0695),
        "Diversity": (0.0670, 0.1159, 0.0555, 0.0706),
        "IPS": (0.0663, 0.1188, 0.0556, 0.0718),
        "fused": (0.0704, 0.1231, 0.0578, 0.0737),
    },
    "DecNFM": {
        "backbone": (0.0659, 0.1135, 0.0551, 0.0697),
        "Unawareness": (0.0648, 0.1143, 0.0556, 0.0708),
        "FairCo": (0.0651, 0.1152, 0.0554, 0.0708),
        "Calibration": (0.0636, 0.1131, 0.0526, 0.0682),
        "Diversity": (0.0641, 0.1133, 0.0540, 0.0693),
        "IPS": (0.0648, 0.1135, 0.0544, 0.0692),
        "fused": (0.0694, 0.1218, 0.0580, 0.0742),
    },
}


def name_of(method: str, keys: Mapping[str, Any], seed: int) -> str:
    """One line that says what a run is: its key in the JSON file."""
    return " ".join([method, *(f"{key}={value}" for key, value in keys.items()), f"seed={seed}"])


def shown(run: Mapping[str, Any]) -> str:
    """Its result in a line."""
    return "test recall@20 " + "  ".join(f"{row} {values['recall@20']:.4f}" for row, values in run["test"].items())


class Bench:
    """Trains and evaluates; keeps what it finds in a JSON file."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        fixed = ("model", "dataset", "learning_rate", "batch", "dropout", "epochs", "stopping_step")
        self.runs = Runs(args.out, {key: getattr(args, key) for key in fixed}, args.minutes)
        self.folder = self.runs.folder

    def checkpoint(self, reg_weight: float, seed: int) -> Path:
        """Where the run of DecRS is kept."""
        return self.folder / f"{self.args.model}-{reg_weight}-{seed}.pth"

    def trainer(self, seed: int, **changes: Any) -> tuple[Any, tuple[Any, Any, Any]]:
        """An untrained model with its trainer, and the loaders."""
        args = self.args
        settings: dict[str, Any] = {
            "seed": seed,
            "learning_rate": args.learning_rate,
            "train_batch_size": args.batch,
            "dropout_prob": [args.dropout, args.dropout],
            "epochs": args.epochs,
            "stopping_step": args.stopping_step,
            "checkpoint_dir": str(self.folder),
            "show_progress": False,
            "state": "error",
            **changes,
        }
        if args.data_path:
            settings["data_path"] = args.data_path
        config = FairConfig(args.model, args.dataset, [args.preset], settings)
        return new_trainer(config)

    def add(self, method: str, keys: Mapping[str, Any], seed: int, run: Callable[[], dict[str, Any]]) -> None:
        """Do a run unless it is there."""
        facts = {"method": method, "keys": dict(keys), "seed": seed}
        self.runs.add(name_of(method, keys, seed), lambda: facts | run(), shown)

    def everything(self) -> None:
        """All runs, in the order of the module's text."""
        args = self.args
        for seed in args.seeds:
            for reg_weight in args.reg_weights:
                keys = {"reg_weight": reg_weight}
                self.add("DecRS", keys, seed, lambda r=reg_weight, s=seed: self.decrs(r, s))
        reg_weight = self.chosen_reg_weight()
        for seed in args.seeds:
            plain = {"mediator": "none", "reg_weight": reg_weight}
            keys = {"reg_weight": reg_weight, "unawareness": True}
            self.add("Unawareness", keys, seed, lambda k=keys, s=seed, p=plain: self.trained(s, {**p, **k}))
            for clip in args.clips:
                keys = {"reg_weight": reg_weight, "propensity": "user", "propensity_clip": clip}
                self.add("IPS", keys, seed, lambda k=keys, s=seed, p=plain: self.trained(s, {**p, **k}))
        for seed in args.seeds:
            for method, (key, values, more) in RERANKERS.items():
                for value in values:
                    keys = {"reg_weight": reg_weight, key: value, **more}
                    self.add(method, keys, seed, lambda m=method, k=keys, s=seed: self.reranked(m, k, s))
        for seed in args.seeds if args.suspects else ():
            for change in SUSPECTS:
                keys = {"reg_weight": reg_weight, **change}
                self.add("suspect", keys, seed, lambda k=keys, s=seed: self.suspect(k, s))

    def chosen_reg_weight(self) -> float:
        """The one whose backbones are best on validation."""
        rows = settings_of(self.runs.done, "backbone", self.args.seeds)
        return float(best(rows)["keys"]["reg_weight"])

    # -- runs ----------------------------------------------------------------------------------------------------

    def decrs(self, reg_weight: float, seed: int) -> dict[str, Any]:
        """Backbone, deconfounded model and second backbone, alone and mixed."""
        path = self.checkpoint(reg_weight, seed)
        trainer, (train, valid, test) = self.trainer(seed, reg_weight=reg_weight, fusion_control=True)
        trainer.saved_model_file = str(path)
        if path.is_file():
            trainer.resume_checkpoint(path)
        trainer.fit(train, valid)
        return self.variants(trainer, valid, test, trainer.model.variants)

    def suspect(self, keys: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """A deconfounded model of another kind beside the backbone that is there."""
        content = load_checkpoint(self.checkpoint(keys["reg_weight"], seed))
        trainer, (train, valid, test) = self.trainer(seed, **keys)
        own = trainer.model.parts["backbone"]
        prefix = "parts.backbone."
        own.load_state_dict(
            {name.removeprefix(prefix): v for name, v in content["state_dict"].items() if name.startswith(prefix)}
        )
        trainer.model.trained = ["backbone"]
        trainer._fit_part("deconfounded", train, valid, True, False, False, None)
        return self.variants(trainer, valid, test, ("deconfounded", "fused"))

    def variants(self, trainer: Any, valid: Any, test: Any, names: Any) -> dict[str, Any]:
        """Metrics of each variant on validation and test, the mixed ones under each alpha."""
        found: dict[str, Any] = {"valid": {}, "test": {}, "groups": {}, "parts": trainer.checkpoint_extra["parts"]}
        for name in names:
            for alpha in self.args.alphas if name in FUSED else [None]:
                if alpha is not None:
                    trainer.model.set_strengths(fusion_alpha=alpha)
                row = name if alpha is None else f"{name} {alpha:g}"
                with trainer.model.use_variant(name):
                    on_test = trainer.evaluate_lists(test)
                    found["valid"][row] = dict(trainer.evaluate_lists(valid).metrics)
                found["test"][row], found["groups"][row] = dict(on_test.metrics), groups_of(on_test)
        return found

    def trained(self, seed: int, changes: Mapping[str, Any]) -> dict[str, Any]:
        """One plain machine."""
        trainer, (train, valid, test) = self.trainer(seed, **changes)
        trainer.fit(train, valid, saved=False)
        found = self.variants(trainer, valid, test, ["backbone"])
        return {key: {"plain": v["backbone"]} if key != "parts" else v for key, v in found.items()}

    def reranked(self, method: str, keys: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """The backbone's lists, ordered anew."""
        path = self.checkpoint(keys["reg_weight"], seed)
        trainer, (_, valid, test) = self.trainer(
            seed, fusion_control=True, inference="backbone", reranker=method, **keys
        )
        trainer.load_best(path)
        reranker = make_reranker(trainer.config)
        on_valid, on_test = (evaluate_reranked(trainer, data, reranker)[1] for data in (valid, test))
        return {
            "valid": {"plain": dict(on_valid.metrics)},
            "test": {"plain": dict(on_test.metrics)},
            "groups": {"plain": groups_of(on_test)},
        }


def groups_of(result: EvaluationResult) -> list[dict[str, Any]]:
    """Sizes and values by drift threshold."""
    table: list[dict[str, Any]] = result.groups["drift"].to_plain()["groups"] if result.groups else []
    return table


# -- tables ----------------------------------------------------------------------------------------------------------


def settings_of(runs: Mapping[str, Any], row: str, seeds: list[int]) -> list[dict[str, Any]]:
    """Settings that a row of the table may take, with their runs by seed.

    Args:
        runs: finished runs.
        row: a variant of DecRS, or a method.
        seeds: those that count.
    """
    found: dict[str, dict[str, Any]] = {}
    for run in runs.values():
        if run["seed"] not in seeds or not (run["method"] == row or run["method"] == "DecRS"):
            continue
        for name in run["test"]:
            if run["method"] == "DecRS" and name.partition(" ")[0] != row:
                continue
            words = [f"{key}={value}" for key, value in run["keys"].items()]
            alpha = name.partition(" ")[2]
            label = ", ".join([*words, *([f"alpha={alpha}"] if alpha else [])])
            entry = found.setdefault(label, {"label": label, "keys": run["keys"], "runs": {}})
            entry["runs"][run["seed"]] = {key: run[key][name] for key in ("valid", "test", "groups")}
    return [entry for entry in found.values() if len(entry["runs"]) == max(len(e["runs"]) for e in found.values())]


def best(rows: list[dict[str, Any]], metric: str = "recall@10") -> dict[str, Any]:
    """The setting with the highest mean validation value."""
    return max(rows, key=lambda row: statistics.fmean(run["valid"][metric] for run in row["runs"].values()))


def line(*cells: Any) -> str:
    """One row of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def tables(runs: Mapping[str, Any], args: argparse.Namespace) -> str:
    """Markdown: every method at its chosen setting; then by interest drift."""
    names = ["backbone", "deconfounded", "fused", "backbone2", "control", "Unawareness", "IPS", *RERANKERS]
    rows = {name: settings_of(runs, name, args.seeds) for name in names}
    chosen = {name: best(found) for name, found in rows.items() if found}
    lines = [
        line("row", "setting (chosen on validation)", "seeds", *SHOWN, "paper R@10, R@20, N@10, N@20"),
        line(*["---"] * 9),
    ]
    for name, row in chosen.items():
        cells = [spread([run["test"][metric] for run in row["runs"].values()]) for metric in SHOWN]
        paper = PAPER[args.model].get(name)
        lines.append(line(name, row["label"], len(row["runs"]), *cells, ", ".join(map(str, paper)) if paper else ""))
    lines += ["", *_differences(chosen), "", *_by_drift(chosen)]
    return "\n".join([*lines, *_of_suspects(runs, args.seeds)])


def _of_suspects(runs: Mapping[str, Any], seeds: list[int]) -> Iterator[str]:
    """Other deconfounded models: alone, and mixed at the alpha that is best on validation; then by drift."""
    mine = [run for run in runs.values() if run["method"] == "suspect" and run["seed"] in seeds]
    if not mine:
        return
    thresholds = [group["group"] for group in mine[0]["groups"]["deconfounded"]]
    yield line("suspect", "row", "seeds", *SHOWN, *(f"recall@20, drift {label}" for label in thresholds))
    yield line(*["---"] * (3 + len(SHOWN) + len(thresholds)))
    by_keys: dict[str, list[Any]] = {}
    for run in mine:
        by_keys.setdefault(", ".join(f"{key}={value}" for key, value in run["keys"].items()), []).append(run)
    for label, found in by_keys.items():
        mixed = [row for row in found[0]["test"] if row.startswith("fused")]
        chosen = max(mixed, key=lambda row: statistics.fmean(run["valid"][row]["recall@10"] for run in found))
        for row in ("deconfounded", chosen):
            cells = [spread([run["test"][row][metric] for run in found]) for metric in SHOWN]
            groups = [
                spread([run["groups"][row][place]["values"]["recall@20"] for run in found])
                for place in range(len(thresholds))
            ]
            yield line(label, row, len(found), *cells, *groups)


def _differences(chosen: Mapping[str, Any]) -> Iterator[str]:
    """Seed by seed: what fusion gains over the backbone, what the control gains, and what is left of it."""
    if not {"backbone", "fused", "control"} <= set(chosen):
        return
    yield line("difference on test", *SHOWN)
    yield line(*["---"] * (1 + len(SHOWN)))
    for one, other in (("fused", "backbone"), ("control", "backbone"), ("fused", "control")):
        cells = []
        for metric in SHOWN:
            ours, theirs = chosen[one]["runs"], chosen[other]["runs"]
            cells.append(spread([ours[seed]["test"][metric] - theirs[seed]["test"][metric] for seed in ours]))
        yield line(f"{one} - {other}", *cells)


def _by_drift(chosen: Mapping[str, Any]) -> Iterator[str]:
    """Recall@20, NDCG@20 and CKL@20 of users above each drift threshold."""
    names = [name for name in ("backbone", "deconfounded", "fused", "control") if name in chosen]
    first = next(iter(chosen["backbone"]["runs"].values()))["groups"] if names else []
    for metric in ("recall@20", "ndcg@20", "ckl@20"):
        yield line(f"{metric}, users with drift", "users", *names, *(f"{n} / backbone" for n in names[1:]))
        yield line(*["---"] * (1 + 2 * len(names)))
        for place, group in enumerate(first):
            means = [
                statistics.fmean(run["groups"][place]["values"][metric] for run in chosen[name]["runs"].values())
                for name in names
            ]
            ratios = [f"{100 * (mean / means[0] - 1):+.1f} %" for mean in means[1:]]
            yield line(group["group"], group["size"], *(f"{mean:.4f}" for mean in means), *ratios)
        yield ""


def main() -> None:
    parser = parser_of(__doc__, "decrs-ml-1m.json")
    parser.add_argument("--model", default="DecFM", choices=sorted(PAPER))
    parser.add_argument("--dataset", default="ml-1m")
    parser.add_argument("--preset", default="paper/decrs-ml-1m.yaml")
    parser.add_argument("--reg_weights", type=float, nargs="+", default=[0.1, 0.0])
    parser.add_argument("--learning_rate", type=float, default=0.05)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 2.0, 5.0, 10.0])
    parser.add_argument("--clips", type=float, nargs="+", default=[2.0, 5.0, 10.0], help="clipping values of IPS")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--suspects", action="store_true", help="also other deconfounded models, see above")
    args = parser.parse_args()
    settle(args)
    bench = Bench(args)
    if not args.table:
        bench.everything()
    print(tables(bench.runs.done, args))


if __name__ == "__main__":
    main()
