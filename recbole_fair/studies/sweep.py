"""The sweep of a checkpoint: many settings of scoring time on validation and test, and what to choose."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole.utils import init_logger

from recbole_fair.analysis.sweep import (
    choose,
    constraint_of,
    pareto_front,
    parse_grid,
    settings_of,
    smaller_is_better,
    sweep,
    sweep_table,
)
from recbole_fair.checkpoint import load_checkpoint
from recbole_fair.errors import FairError
from recbole_fair.loading import config_of, load_trainer
from recbole_fair.outputs import versions, write_atomically, write_result
from recbole_fair.report.summary import sweep_lines
from recbole_fair.trainer.trainer import progress

logger = logging.getLogger(__name__)


def sweep_checkpoint(
    model_file: str | Path,
    grid: Sequence[str],
    x: str = "GiniIndex@10",
    y: str = "NDCG@10",
    subject_to: Sequence[str] = (),
    output: str | Path | None = None,
    config_dict: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Evaluate a steered model under many strengths on validation and test; users are encoded once a split.

    Args:
        model_file: checkpoint of a model with strengths that apply at scoring time.
        grid: ``key=start:stop:step`` or ``key=a,b,c``, one a strength.
        x: metric to choose by, among the settings that keep the bounds.
        y: the metric that it is traded against.
        subject_to: bounds on validation, such as ``NDCG@10 >= 0.9*base``.
        output: where the CSV of all settings and the JSON document go, without suffix.
        config_dict: settings to change, such as ``data_path``.

    Returns:
        ``base`` (metrics of the base model by split), ``settings`` (one row each), ``front`` (rows of the Pareto front
        of ``x`` and ``y`` on validation) and ``chosen`` (the row that wins on validation, or None).

    Raises:
        FairError: for a checkpoint without strengths, an empty grid or a metric that is not computed.
    """
    values = parse_grid(grid)
    changes = dict(config_dict or {})
    content = load_checkpoint(model_file)
    config = config_of(content, changes, None)
    if not getattr(config.model_class, "strength_keys", ()):
        raise FairError(f"{model_file} is a {config['model']}, which has no strengths to sweep.")
    init_logger(config)
    trainer, loaders = load_trainer(config, content, model_file)
    net = trainer.model
    x, y = x.lower(), y.lower()
    settings = settings_of(values)
    base: dict[str, dict[str, float]] = {}
    found: dict[str, list[dict[str, float]]] = {}
    for split, loader in (("valid", loaders[1]), ("test", loaders[2])):
        with net.use_variant(net.base_variant):
            base[split] = dict(trainer.evaluate(loader, load_best_model=False))
        for name in (x, y):
            if name not in base[split]:
                raise FairError(f"{name} is not computed; there is {', '.join(base[split])}: set metrics and topk.")
        bounds = [constraint_of(text, base["valid"]) for text in subject_to]
        found[split] = sweep(trainer, loader, settings, lambda these: progress(these, len(these), "Sweep", True))
    table = sweep_table(settings, found["valid"], found["test"])
    rows = table.to_dict("records")
    on_x, on_y = ([values[name] for values in found["valid"]] for name in (x, y))
    front = pareto_front(on_x, on_y, smaller_is_better(x), smaller_is_better(y))
    winner = choose(found["valid"], x, bounds)
    result = {
        "model": config["model"],
        "dataset": config["dataset"],
        "checkpoint": str(model_file),
        "x": x,
        "y": y,
        "subject_to": [str(bound) for bound in bounds],
        "base": base,
        "settings": rows,
        "front": [rows[index] for index in front],
        "chosen": None if winner is None else rows[winner],
        "versions": versions(),
    }
    if output is not None:
        write_atomically(f"{output}.csv", lambda file: table.to_csv(file, index=False))
        write_result(f"{output}.json", result)
    for line in sweep_lines(result, list(values), int(config["metric_decimal_place"] or 4)):
        logger.info(line)
    return result
