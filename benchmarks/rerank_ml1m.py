"""A table of every re-ranker at three strengths on one trained model, as Markdown.

    python benchmarks/rerank_ml1m.py saved/SASRec-....pth --data_path=data
    python benchmarks/rerank_ml1m.py saved/SASRec-....pth --group_field=genre --pufr_models b.pth c.pth \
        --steered saved/PopSteerSASRec-....pth saved/SPREESASRec-....pth

The model scores the test users once; every re-ranker works on the same candidates. Calibration and Diversity need an
item column (--group_field), PUFR needs checkpoints of other seeds; without these they are left out. Steered checkpoints
stand below at three strengths; they should have that model as their base.
"""

from __future__ import annotations

import argparse
import logging
import time
from typing import Any

import torch

from recbole_fair.config.registry import get_reranker
from recbole_fair.config.rerankers import reranker_defaults
from recbole_fair.io.checkpoint import load_checkpoint
from recbole_fair.rerank.base import key_of
from recbole_fair.runs.loading import config_of, load_trainer
from recbole_fair.runs.reranking import facts_of, reranked_struct, score_deviation

COLUMNS = ("ndcg@10", "giniindex@10", "itemcoverage_min5@10", "pce@10", "upd@10")
STRENGTHS: dict[str, list[dict[str, Any]]] = {
    "IPR": [{"alpha": a} for a in (0.1, 0.4, 1.0)],
    "PP": [{"alpha": a} for a in (0.1, 0.4, 0.8)],
    "Random": [{"pool": t} for t in (15, 30, 100)],
    "RandomNeighbors": [{"alpha": a} for a in (0.2, 0.5, 1.0)],
    "FAstarIR": [{"p": p} for p in (0.4, 0.6, 0.8)],
    "PMMF": [{"lambda_": w} for w in (0.01, 0.05, 0.2)],
    "PCT": [{"target": t} for t in (0.2, 0.4, 0.6)],
    "DUOR": [
        {"popular_share": s, "popular_by": b} for s, b in ((0.2, "items"), (0.2, "interactions"), (0.8, "interactions"))
    ],
    "CP": [{"lambda_": w} for w in (0.3, 0.6, 0.9)],
    "Calibration": [{"lambda_": w} for w in (0.05, 0.2, 0.5)],
    "Diversity": [{"theta": t} for t in (0.05, 0.1, 0.2)],
    "FairCo": [{"lambda_": w} for w in (1.0, 10.0, 100.0)],
    "PUFR": [{"lambda_": w} for w in (1.0, 2.5, 5.5)],
}
STEERED: dict[str, list[dict[str, Any]]] = {
    "PopSteerSASRec": [{"alpha_pop": a, "alpha_unpop": a} for a in (1.0, 2.0, 3.0)],
    "SPREESASRec": [{"spree_strength": s} for s in (4.0, 16.0, 32.0)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--data_path")
    parser.add_argument("--group_field")
    parser.add_argument("--candidates", type=int, default=250)
    parser.add_argument("--pufr_models", nargs="*", default=[])
    parser.add_argument("--steered", nargs="*", default=[])
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    changes: dict[str, Any] = {
        "metrics": ["NDCG", "GiniIndex", "ItemCoverage", "PCE", "UPD"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "coverage_min_count": [1, 5],
        "reranker": None,
        "bootstrap": 0,
        "group_metrics": None,
        "group_field": args.group_field,
    }
    if args.data_path:
        changes["data_path"] = args.data_path
    trainer, loaders = bound(args.checkpoint, changes)
    config = trainer.config
    struct = trainer.collect(loaders[2], candidates=args.candidates)
    facts = facts_of(trainer)
    if args.pufr_models:
        facts.deviation = score_deviation(trainer, loaders[2], args.pufr_models)
    print("| re-ranker | strength | NDCG | GiniIndex | ItemCoverage>=5 | PCE | UPD | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    show(config["model"], "", trainer.evaluator.evaluate(struct), 0.0)
    for name, settings in STRENGTHS.items():
        if name in ("Calibration", "Diversity") and not args.group_field:
            continue
        if (name == "PUFR" and not args.pufr_models) or (name == "PP" and facts.masks_seen):
            continue
        cls = get_reranker(name)
        values = {field: reranker_defaults({"reranker": name})[key] for field, key in cls.keys().items()}
        values |= {"seed": config["seed"]} if "seed" in values else {}
        values |= {"models": args.pufr_models} if name == "PUFR" else {}
        for changed in settings:
            start = time.perf_counter()
            metrics = trainer.evaluator.evaluate(reranked_struct(struct, cls(**{**values, **changed}), facts))
            strength = ", ".join(f"{key_of(key).removeprefix('reranker_')} {value}" for key, value in changed.items())
            show(name, strength, metrics, time.perf_counter() - start)

    for path in args.steered:
        other, others = bound(path, changes)
        same = all(
            torch.equal(value, trainer.model.state_dict()[name])
            for name, value in other.model.base.state_dict().items()
        )
        if not same:
            raise SystemExit(f"{path} has another base model than {args.checkpoint}.")
        name = other.config["model"]
        for strengths in STEERED[name]:
            start = time.perf_counter()
            other.model.set_strengths(**strengths)
            with other.model.use_variant(other.model.final_variant):
                metrics = other.evaluate_lists(others[2]).metrics
            strength = ", ".join(f"{key} {value:g}" for key, value in strengths.items())
            show(name, strength, metrics, time.perf_counter() - start)


def bound(path: str, changes: dict[str, Any]) -> tuple[Any, list[Any]]:
    """A checkpoint's trainer and its three loaders."""
    content = load_checkpoint(path)
    return load_trainer(config_of(content, changes), content, path)


def show(name: str, strength: str, metrics: dict[str, float], seconds: float) -> None:
    """One row of the table."""
    cells = " | ".join(f"{metrics[column]:.4f}" for column in COLUMNS)
    print(f"| {name} | {strength} | {cells} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
