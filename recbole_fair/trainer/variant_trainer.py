"""Evaluation of models that can be scored in several ways."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from recbole.utils import calculate_valid_score

from recbole_fair.evaluator import EvaluationResult
from recbole_fair.evaluator.constraint import selection_value
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

    def validate_variants(self, valid_data: Any, show_progress: bool = False) -> dict[str, dict[str, float]]:
        """Validate every variant; the final one's score and metrics become those of the run.

        Args:
            valid_data: the validation loader, or None.
            show_progress: whether to show bars.

        Returns:
            Metrics by variant; none without validation data.
        """
        if not valid_data:
            return {}
        results = self.evaluate_variants(valid_data, show_progress)
        validation = {name: dict(result.metrics) for name, result in results.items()}
        self.best_valid_result = OrderedDict(validation[self.final_variant])
        score = calculate_valid_score(self.best_valid_result, self.valid_metric)
        self.best_valid_score = selection_value(self.valid_metric, score)
        if any(constraint.violation(self.best_valid_result) for constraint in self._constraints):
            bounds = " and ".join(map(str, self._constraints))
            self.notes.append(f"The variant {self.final_variant} does not keep valid_constraint ({bounds}).")
        return validation

    def keep_fitted(self, valid_data: Any, saved: bool) -> tuple[float, Any]:
        """Keep the model as it is now as the result of the training.

        Args:
            valid_data: the validation loader, or None.
            saved: whether to write the checkpoint.

        Returns:
            Validation score and metrics of the final variant; without validation data RecBole's start value and None.
        """
        self._keep_best()
        if saved:
            self._write_checkpoint(0)
        return self.best_valid_score, self.best_valid_result if valid_data else None
