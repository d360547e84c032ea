"""Evaluation of models that can be scored in several ways."""

from __future__ import annotations

from typing import Any

from recbole_fair.evaluator import EvaluationResult
from recbole_fair.trainer.trainer import FairTrainer


class VariantTrainer(FairTrainer):
    """Trainer of a model with :class:`~recbole_fair.model.variants.Variants`."""

    model: Any

    @property
    def final_variant(self) -> str:
        """The variant that the run is about."""
        name: str = self.model.final_variant
        return name

    def evaluate_variants(self, eval_data: Any, show_progress: bool = False) -> dict[str, EvaluationResult]:
        """Evaluate every variant of the model on one split, the plain one first."""
        results = {}
        for name in self.model.variants:
            with self.model.use_variant(name):
                results[name] = self.evaluate_lists(eval_data, show_progress)
        return results
