"""What steering towards each concept costs, measured on validation once a fit stands, for whoever steers later."""

from __future__ import annotations

import itertools
from typing import Any

from recbole_fair.data.contract import EvaluationLoader
from recbole_fair.evaluator.result import EvaluationResult
from recbole_fair.model.concept_steering import ConceptSteering
from recbole_fair.trainer.trainer import FairTrainer

STEERING = "steering"
_STEPS = (-2.0, 2.0)
_MOST = 60  # concepts


def steering_costs(trainer: FairTrainer, model: ConceptSteering, valid_data: EvaluationLoader) -> list[dict[str, Any]]:
    """Metrics of the validation users when each concept is steered by two, either way; users are encoded once.

    Args:
        trainer: the model's trainer, its splits bound.
        model: the fitted model; its strengths come back at the end.
        valid_data: the validation loader.

    Returns:
        One row a concept and step (``label``, ``step``): ``metrics``, ``share`` and ``base_share`` of the concept in
        the lists, and ``groups`` (metrics by user group, where the settings ask for them). The first row is the base's.
    """
    before = model.strengths
    known = model.known_concepts[:_MOST]
    rows = []

    def share(row: int, result: EvaluationResult) -> float:
        assert result.lists is not None
        return model.share_in(row, result.lists)

    with model.encoded_once(), trainer.remembered_batches():
        with model.use_variant(model.base_variant):
            base = trainer.evaluate_lists(valid_data)
        rows.append({"label": None, "step": 0.0, **_row(base)})
        try:
            for (number, concept), step in itertools.product(enumerate(known), _STEPS):
                model.set_strengths(steer={str(concept["label"]): step})
                with model.use_variant(model.final_variant):
                    found = trainer.evaluate_lists(valid_data)
                shares = {"share": share(number, found), "base_share": share(number, base)}
                rows.append({"label": concept["label"], "step": step, **shares, **_row(found)})
        finally:
            model.set_strengths(**before)
    return rows


def _row(result: EvaluationResult) -> dict[str, Any]:
    groups = {name: group.to_plain() for name, group in result.groups.items()} if result.groups else {}
    return {"metrics": dict(result.metrics), **({"groups": groups} if groups else {})}
