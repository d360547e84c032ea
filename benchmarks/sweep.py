"""Seconds a setting of a sweep, against one full evaluation a setting in RecBole's way, in one run.

    python benchmarks/sweep.py saved/PopSteerSASRec-....pth --data_path=data
    python benchmarks/sweep.py saved/SPREESASRec-....pth --data_path=data --grid spree_strength=0:36:4
    python benchmarks/sweep.py saved/SASRec-....pth --data_path=data --reranker=IPR --grid reranker_alpha=0:1:0.1

A setting is measured on validation and on test. RecBole's way: the same steered model through RecBole's trainer,
collector and metrics (its crash with popularity metrics mended), users encoded by RecBole's forward pass each time, in
batches of its default size. RecBole has no re-rankers: there the other side is our own full evaluation with one.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from typing import Any

import recbole.evaluator.metrics as recbole_metrics
import torch
from recbole.evaluator import Collector, Evaluator, register
from recbole.evaluator.collector import DataStruct
from recbole.trainer.trainer import Trainer

from recbole_fair.analysis.grid import parse_grid, setting_text, settings_of
from recbole_fair.config.registry import get_trainer
from recbole_fair.quick_start import load_data_and_model
from recbole_fair.rerank.settings import make_reranker
from recbole_fair.runs.reranking import evaluate_reranked
from recbole_fair.runs.sweeper import Sweeper

METRICS = ["NDCG", "Hit", "ItemCoverage", "GiniIndex"]


class MendedCollector(Collector):
    """RecBole's collector, which calls ``.cpu()`` on whatever it holds."""

    def get_data_struct(self) -> DataStruct:
        """Hand over what was collected."""
        struct = DataStruct()
        for key, value in self.data_struct._data_dict.items():
            struct[key] = value.cpu() if hasattr(value, "cpu") else value
        for key in [key for key in self.data_struct._data_dict if key.startswith("rec.")]:
            del self.data_struct[key]
        return struct


def recboles_trainer(config: Any, model: Any, train_data: Any) -> Trainer:
    """RecBole's own evaluation of a model of ours."""
    fresh = register.cluster_info("recbole.evaluator.metrics")
    for metric in METRICS:
        register.metrics_dict[metric.lower()] = getattr(recbole_metrics, metric)
    register.metric_information.update(fresh[1])
    trainer = Trainer(config, model)
    trainer.eval_collector, trainer.evaluator = MendedCollector(config), Evaluator(config)
    trainer.eval_collector.data_collect(train_data)
    base = getattr(model, "base", None)
    if base is not None:  # RecBole encodes padded windows, whatever their length
        base.represent_users = lambda batch: base.forward(batch[base.ITEM_SEQ], batch[base.ITEM_SEQ_LEN])
    return trainer


class Clock:
    """Seconds since it was made: of the wall, and of the processor, which other work on the machine does not change."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def since(self, count: int = 1) -> tuple[float, float]:
        """Mean seconds of each of ``count`` steps."""
        return (time.perf_counter() - self._start[0]) / count, (time.process_time() - self._start[1]) / count


def shown(seconds: tuple[float, float]) -> str:
    return f"{seconds[0]:.3f} s ({seconds[1]:.3f} s of processor)"


def full_evaluations(loaded: Any, settings: list[dict[str, Any]]) -> tuple[tuple[float, float], list[float]]:
    """Mean seconds of whole evaluations, and NDCG@10 on test of each."""
    config, model, _, *loaders = loaded
    values = []
    if config["reranker"]:
        trainer = get_trainer(config, type(model))(config, model)
        trainer.bind(*loaders)
        clock = Clock()
        for setting in settings:
            for key, value in setting.items():
                config[key] = value
            for loader in loaders[1:]:
                _, result = evaluate_reranked(trainer, loader, make_reranker(config))
            values.append(result.metrics["ndcg@10"])
        return clock.since(len(settings)), values
    trainer = recboles_trainer(config, model, loaders[0])
    clock = Clock()
    for setting in settings:
        model.set_strengths(**setting)
        with model.use_variant(model.final_variant):
            for loader in loaders[1:]:
                result = trainer.evaluate(loader, load_best_model=False)
        values.append(result["ndcg@10"])
    return clock.since(len(settings)), values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--data_path")
    parser.add_argument("--reranker")
    parser.add_argument("--grid", nargs="+", default=["alpha_pop=0:4:1", "alpha_unpop=0:3:1"])
    parser.add_argument("--full", type=int, default=2, help="settings that are evaluated in full")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(args.threads)
    settings = settings_of(parse_grid(args.grid))
    changes = {"metrics": METRICS, "topk": [10], "valid_metric": "NDCG@10", "show_progress": False}
    changes |= {"data_path": args.data_path} if args.data_path else {}
    changes |= {"reranker": args.reranker} if args.reranker else {}

    config, model, _, *loaders = load_data_and_model(args.checkpoint, changes)
    trainer = get_trainer(config, type(model))(config, model)
    trainer.bind(*loaders)
    clock = Clock()
    with Sweeper(trainer, {"valid": loaders[1], "test": loaders[2]}, config["reranker"]) as sweeper:
        sweeper.base()
        first = sweeper.measure(settings[0])
        encoding = clock.since()
        clock = Clock()
        found = [first, *(sweeper.measure(setting) for setting in settings[1:])]
        each = clock.since(len(settings) - 1)
    users = " and ".join(str(len(loader._dataset)) for loader in loaders[1:])
    print(f"{config['model']} on {config['dataset']}: {users} users, {loaders[0]._dataset.item_num - 1} items")
    print(f"base and first setting, users encoded: {shown(encoding)}")
    print(f"each of {len(settings) - 1} more settings: {shown(each)}", flush=True)

    config, *_ = loaded = load_data_and_model(args.checkpoint, {**changes, "eval_batch_size": 4096})
    step = max(1, len(settings) // max(1, args.full))
    chosen = settings[::step][: args.full]
    whole, values = full_evaluations(loaded, chosen)
    print(f"one full evaluation: {shown(whole)}, {whole[0] / each[0]:.1f} times as long")
    total, all_full = encoding[0] + each[0] * (len(settings) - 1), whole[0] * len(settings)
    print(f"the {len(settings)} settings: {total:.1f} s against {all_full:.1f} s, {all_full / total:.1f} times")
    for setting, value in zip(chosen, values, strict=True):
        ours = found[settings.index(setting)]["test"]["ndcg@10"]
        assert abs(ours - value) < 1e-4, (setting, ours, value)  # RecBole rounds to four digits
        print(f"  {setting_text(setting)}: test NDCG@10 {ours:.4f}, in full {value:.4f}")
    if args.json:
        report = {"threads": args.threads, "torch": torch.__version__, "settings": len(settings), "encoding": encoding}
        with open(args.json, "w") as file:
            json.dump({**report, "seconds_a_setting": each, "seconds_in_full": whole}, file)


if __name__ == "__main__":
    main()
