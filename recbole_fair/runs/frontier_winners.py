"""The winners of a frontier: with intervals, compared with those that come next, and one of them as a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_fair.analysis.frontier import Point, best_by_method
from recbole_fair.errors import FairError
from recbole_fair.evaluator.bootstrap import interval, per_item_resamples, per_user_resamples
from recbole_fair.evaluator.metrics import inputs_of, values_of
from recbole_fair.evaluator.options import MetricOptions
from recbole_fair.evaluator.specs import BY_KEY
from recbole_fair.io.checkpoint import load_checkpoint, save_checkpoint
from recbole_fair.report.frontier_document import FrontierDocument
from recbole_fair.rerank.adjuster import ScoreAdjuster
from recbole_fair.runs.frontier_methods import Bench, Try
from recbole_fair.runs.loading import config_of
from recbole_fair.runs.served import OFFSETS, settings_of_reranker

logger = logging.getLogger(__name__)

#: So many methods of a budget get intervals and a comparison with the first.
COMPARED = 4


def winner_rows(
    bench: Bench,
    points: Sequence[Point],
    base: Mapping[str, Mapping[str, float]],
    x: Sequence[str],
    y: str,
    budgets: Sequence[float],
    resamples: int,
) -> tuple[list[dict[str, Any]], dict[tuple[str, float], Point]]:
    """A row for every metric, budget and method that betters the metric within the budget on validation.

    Args:
        bench: measures the methods.
        points: what was measured.
        base: metrics of the base by split.
        x: metrics to better.
        y: the metric that may lose.
        budgets: shares of the base's ``y``.
        resamples: of users, for intervals.

    Returns:
        The rows, the best on validation first within each metric and budget; and the winner of each.
    """
    rows, winners = [], {}
    drawn: dict[int, dict[str, Tensor]] = {}
    for name in x:
        for loss in budgets:
            best = best_by_method(points, base["valid"], name, y, loss)
            for place, index in enumerate(best):
                point = points[index]
                row = {
                    "x": name,
                    "loss": loss,
                    "place": place + 1,
                    "method": point.method,
                    "setting": dict(point.setting),
                    "valid": {key: point.valid[key] for key in (*x, y)},
                    "test": dict(point.test),
                }
                if place < COMPARED:
                    if index not in drawn:
                        struct = bench.struct(Try(point.method, dict(point.setting)), "test")
                        drawn[index] = resampled(bench.lists.trainer.evaluator.options, struct, (*x, y), resamples)
                    row["intervals"] = {key: interval(point.test[key], values) for key, values in drawn[index].items()}
                if place == 0:
                    winners[name, loss] = point
                elif place < COMPARED:
                    first = points[best[0]]
                    low, high = interval(point.test[name] - first.test[name], drawn[index][name] - drawn[best[0]][name])
                    row["difference"] = {
                        "value": point.test[name] - first.test[name],
                        "interval": (low, high),
                        "significant": not low <= 0 <= high,
                    }
                rows.append(row)
    return rows, winners


def resampled(options: MetricOptions, struct: DataStruct, names: Sequence[str], n: int) -> dict[str, Tensor]:
    """Values of metrics under resamples of the users; the same users for every struct of a split.

    Args:
        options: of the metrics.
        struct: what was collected.
        names: ``name@k``.
        n: number of resamples.

    Returns:
        Name to float64 ``[n]``; metrics that are RecBole's own have none.
    """
    inputs = inputs_of(struct, options)
    specs = [BY_KEY[key] for key in dict.fromkeys(name.partition("@")[0].partition("_")[0] for name in names)
             if key in BY_KEY]  # fmt: skip
    found = per_item_resamples(inputs, specs, n, options.seed)
    by_user = {spec.key: values_of(spec, inputs)[1] for spec in specs if spec.per_user is not None}
    known = {key: values for key, values in by_user.items() if values is not None}
    for key, values in per_user_resamples(inputs, known, n, options.seed).items():
        found.update({f"{key}@{k}": values[:, column] for column, k in enumerate(inputs.topk)})
    return {name: found[name] for name in names if name in found}


def save_winner(
    path: str | Path,
    model_file: str | Path,
    content: Mapping[str, Any],
    bench: Bench,
    winner: Point | None,
    result: FrontierDocument,
) -> None:
    """Write a winner as a checkpoint: the model's own, with the winner's settings in place of its old ones.

    Beside the settings, which ``evaluate`` reads, the entry ``frontier`` says how it was chosen, and for a method that
    adds a bias to items ``item_bias`` holds what to subtract from their scores.

    Args:
        path: the file; ``.pth`` is added where it has no suffix.
        model_file: the base's checkpoint.
        content: what is in it.
        bench: what measured the methods.
        winner: the winner, or None where nothing betters the base.
        result: the document.

    Raises:
        FairError: if there is no winner, or the file cannot be written.
    """
    if winner is None:
        raise FairError(
            f"save={path}: no method betters {result['x'][0]} within the budget, so there is nothing to save; "
            "the base model is the answer."
        )
    target = Path(path) if Path(path).suffix else Path(f"{path}.pth")
    settings = dict(winner.setting)
    if winner.method in bench.fitted:
        content = load_checkpoint(bench.fitted[winner.method][2])
    else:
        settings = {"reranker": winner.method, **bench.lists.made(winner.method, settings).describe(bench.lists.k)}
    about: dict[str, Any] = {
        "base": str(model_file),
        "method": winner.method,
        "setting": dict(winner.setting),
        "x": result["x"][0],
        "y": result["y"],
        "loss": result["loss"][0],
        "valid": dict(winner.valid),
        "test": dict(winner.test),
    }
    saved = {key: value for key, value in content.items() if key not in ("format", "format_version", "package_version")}
    saved |= {
        "user_settings": {**content["user_settings"], **settings},
        "config": {**content["config"], **settings},
        "frontier": about,
    }
    if winner.method not in bench.fitted:
        made = bench.lists.made(winner.method, dict(winner.setting))
        if isinstance(made, ScoreAdjuster):
            offsets = bench.lists.offsets(made, "test")
            saved["item_bias"] = offsets.bias.to(torch.float64)
            of_lists = settings_of_reranker(config_of(saved, {}))  # by which recommend and export know it again
            saved[OFFSETS] = {"settings": of_lists, "bias": offsets.bias, "report": offsets.report}
    save_checkpoint(target, saved)
    logger.info("Saved: %s (%s); recbole-fair evaluate %s", target, winner.method, target)
