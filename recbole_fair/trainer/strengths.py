"""Strengths of a fitted intervention, chosen on validation: never a setting that makes its own target worse."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping
from typing import Any

from recbole.evaluator.collector import DataStruct

from recbole_fair.analysis.frontier import within
from recbole_fair.analysis.grid import setting_text
from recbole_fair.analysis.pareto import cost
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.contract import EvaluationLoader
from recbole_fair.errors import FairError
from recbole_fair.evaluator.directions import display_name
from recbole_fair.evaluator.metrics import inputs_of, values_of
from recbole_fair.evaluator.specs import BY_KEY, MetricSpec
from recbole_fair.io.processes import current
from recbole_fair.model.posthoc import PostHocModel
from recbole_fair.trainer.trainer import FairTrainer

logger = logging.getLogger(__name__)

#: Under this name a checkpoint holds what was chosen.
CHOSEN = "chosen_strengths"


def wants_choice(config: FairConfig, model: PostHocModel) -> bool:
    """Whether strengths are to be chosen: ``strengths: auto``, and the user gave none of the model's."""
    given = set(model.strength_keys) & set(config.user_settings)
    return bool(model.strength_choices()) and config["strengths"] == "auto" and not given


def choose_strengths(
    trainer: FairTrainer, model: PostHocModel, valid_data: EvaluationLoader, goal: str, budget: float
) -> dict[str, Any]:
    """Set a model's strengths to the choice of its grid that is best on validation.

    The best value of the goal wins among the settings that lose at most the budget of the metric that chooses epochs
    (``valid_metric``), both against the base. Where none betters the goal, every strength becomes 0. Users are encoded
    once.

    Args:
        trainer: the model's trainer, its splits bound.
        model: the fitted model; its strengths are changed.
        valid_data: the validation loader.
        goal: name of the metric to better, without cutoff.
        budget: share of ``valid_metric`` that may be lost.

    Returns:
        ``chosen`` strengths, ``goal``, ``budget``, the values of the ``base`` and of the choice, and ``tried``, a row a
        setting.

    Raises:
        FairError: for a goal that is no metric of lists.
    """
    measured = trainer.valid_metric.lower()
    spec, cutoff = _spec(goal), int(measured.partition("@")[2] or max(trainer.config["topk"]))
    target = f"{spec.key}@{cutoff}"

    def values(struct: DataStruct) -> dict[str, float]:
        found = dict(trainer.evaluator.evaluate(struct))
        known = found.get(target)
        if known is None:
            known = float(values_of(spec, inputs_of(struct, trainer.evaluator.options))[0][target])
        return {target: known, measured: found[measured]}

    grid = model.strength_choices()
    with model.encoded_once(), trainer.scorer.remembered():
        with model.use_variant(model.base_variant):
            base = values(trainer.collect(valid_data))
        best, tried = dict.fromkeys(grid, 0.0), []
        best_values: Mapping[str, float] = base
        for strengths in itertools.product(*grid.values()):
            setting = dict(zip(grid, strengths, strict=True))
            if not any(strengths):
                continue
            model.set_strengths(**setting)
            with model.use_variant(model.final_variant):
                found = values(trainer.collect(valid_data))
            tried.append({**setting, **found})
            kept = not math.isnan(found[target]) and within(found[measured], base[measured], measured, budget)
            if kept and cost(target, found[target]) < cost(target, best_values[target]):
                best, best_values = setting, found
    best, best_values = current().of_first([best, dict(best_values)])
    model.set_strengths(**best)
    _say(best, target, measured, budget, base, best_values)
    return {
        "chosen": best,
        "goal": target,
        "metric": measured,
        "budget": budget,
        "base": base,
        "values": dict(best_values),
        "tried": tried,
    }


def choice_note(choice: Mapping[str, Any]) -> str:
    """A sentence on the choice, for the result document."""
    goal, measured, budget = choice["goal"], choice["metric"], f"{100 * choice['budget']:g} %"
    if not any(choice["chosen"].values()):
        return (
            f"Strength 0 was kept: on validation no setting betters {display_name(goal)} within {budget} of "
            f"{display_name(measured)}, so the lists are the base's."
        )
    return (
        f"Strengths chosen on validation ({setting_text(choice['chosen'])}): the best {display_name(goal)} of "
        f"{len(choice['tried']) + 1} settings within {budget} of {display_name(measured)}."
    )


def _spec(goal: str) -> MetricSpec:
    spec = BY_KEY.get(goal.lower())
    if spec is None:
        raise FairError(f"strength_goal={goal!r} is not a metric of lists; name one such as GiniIndex or PCE.")
    return spec


def _say(
    best: Mapping[str, Any],
    target: str,
    measured: str,
    budget: float,
    base: Mapping[str, float],
    found: Mapping[str, float],
) -> None:
    logger.info(
        "Strengths chosen on validation: %s; %s %.4f (base %.4f), %s %.4f (base %.4f)",
        setting_text(best),
        display_name(target),
        found[target],
        base[target],
        display_name(measured),
        found[measured],
        base[measured],
    )
