"""Metrics of a model under changed settings, as data frames: what dossiers measure by evaluating again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd
import torch

from recbole_fair.analysis.grid import settings_of
from recbole_fair.analysis.neuron_effects import doubling, reduced_neurons
from recbole_fair.data.contract import EvaluationLoader
from recbole_fair.model.popsteer.neurons import choose_sigma
from recbole_fair.model.popsteer.popsteer import PopSteer
from recbole_fair.runs.sweeper import Sweeper
from recbole_fair.trainer.trainer import FairTrainerMixin

Show = Callable[[Sequence[Any]], Iterable[Any]]


def lowered_neurons(
    trainer: FairTrainerMixin, eval_data: EvaluationLoader, show: Show = iter, counts: Sequence[int] | None = None
) -> pd.DataFrame:
    """What lowering the strongest K' neurons of one side by one deviation does to the lists (PopSteer Figure 4).

    The deviation is the one that scales steering (``steer_sigma``). The users are encoded once.

    Args:
        trainer: a trainer with its splits bound and a fitted PopSteer model.
        eval_data: a validation or test loader.
        show: wraps the evaluations, for a progress bar.
        counts: the K' to try, those beyond the number of neurons left out; doubling ones when left out.

    Returns:
        ``side``, ``neurons`` (K') and each metric of the trainer.
    """
    model = trainer.model
    assert isinstance(model, PopSteer)
    sigma = choose_sigma(model.neurons, model.steer_sigma)
    tasks: list[tuple[str, list[int]]] = []
    for side in ("popular", "unpopular"):
        able = reduced_neurons(model, side)
        tasks += [(side, able[:k]) for k in (doubling(len(able)) if counts is None else counts) if k <= len(able)]
    rows = []
    with model.encoded_once(), trainer.remembered_batches(), model.use_variant("steered"):
        for side, chosen in show(tasks):
            shift = torch.zeros_like(sigma)
            shift[chosen] = -sigma[chosen]
            with model.use_shift(shift):
                rows.append({"side": side, "neurons": len(chosen), **_metrics(trainer, eval_data)})
    return pd.DataFrame(rows)


def surface_of(
    trainer: FairTrainerMixin, eval_data: EvaluationLoader, grid: dict[str, list[float]], show: Show = iter
) -> pd.DataFrame:
    """Every metric over a grid of strengths (PopSteer Figure 6); one row a setting."""
    settings = settings_of(grid)
    with Sweeper(trainer, {"split": eval_data}) as sweeper:
        return pd.DataFrame([{**setting, **sweeper.measure(setting)["split"]} for setting in show(settings)])


def variant_metrics(trainer: FairTrainerMixin, eval_data: EvaluationLoader) -> pd.DataFrame:
    """Every metric of every variant of a post-hoc model as it is set; one row a variant."""
    rows = []
    with trainer.contract.encoded_once(), trainer.remembered_batches():
        for name in trainer.contract.variants:
            with trainer.contract.use_variant(name):
                rows.append({"variant": name, **_metrics(trainer, eval_data)})
    return pd.DataFrame(rows)


def _metrics(trainer: FairTrainerMixin, eval_data: EvaluationLoader) -> dict[str, float]:
    return dict(trainer.evaluate(eval_data, load_best_model=False) or {})
