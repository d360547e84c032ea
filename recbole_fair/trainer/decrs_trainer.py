"""Training of DecRS: its machines one after another, each with early stopping, in one checkpoint."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch
from recbole.utils import init_seed

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.batches.pairs import PairLoader
from recbole_fair.data.contract import EvaluationLoader, TrainingLoader
from recbole_fair.data.facts.interactions import split_interactions
from recbole_fair.model.decrs.decrs import DecRS, part_seed
from recbole_fair.trainer.checkpoints import model_state
from recbole_fair.trainer.trainer import Callback, FairTrainer, Validation

logger = logging.getLogger(__name__)

_ACCUMULATOR = 1e-8  # Adagrad's, as coded with DecRS; RecBole's is 0


class PartTrainer(FairTrainer):
    """Trains one machine of a DecRS model; its checkpoints hold the whole model and say which part is at work.

    Args:
        config: the configuration.
        model: a :class:`~recbole_fair.model.decrs.decrs.DecRS`.
        part: name of the machine.
    """

    model: DecRS

    def __init__(self, config: FairConfig, model: DecRS, part: str) -> None:
        self.part = part
        super().__init__(config, model)
        self.checkpoint_extra["part"] = part

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        params = kwargs.pop("params", self.model.parts[self.part].parameters())
        if str(self.learner).lower() == "adagrad":
            return torch.optim.Adagrad(
                params,
                lr=self.learning_rate,
                weight_decay=self.weight_decay or 0.0,
                initial_accumulator_value=_ACCUMULATOR,
                fused=torch.device(self.device).type == "cpu",  # one pass over the table instead of five
            )
        optimizer: torch.optim.Optimizer = super()._build_optimizer(params=params, **kwargs)
        return optimizer


class DecRSTrainer(FairTrainer):
    """Trainer of :class:`~recbole_fair.model.decrs.decrs.DecRS`.

    ``fit`` trains the plain machine, the deconfounded one and, if asked for, a second plain one, each until its own
    validation score stops rising and each with random numbers of its own; then it validates all variants. The
    checkpoint is written after every epoch, so that an interrupted run goes on in the part that it was in.

    Attributes:
        timings: seconds by part.
    """

    model: DecRS

    def __init__(self, config: FairConfig, model: DecRS) -> None:
        super().__init__(config, model)
        self.checkpoint_extra |= {"part": None, "parts": {}, "decrs": model.report()}
        self._resume: tuple[str, str | None] | None = None

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        # The parts have optimizers of their own; this one never steps and has no state.
        return torch.optim.SGD(self.model.parameters(), lr=1.0)

    def fit(
        self,
        train_data: TrainingLoader,
        valid_data: EvaluationLoader | None = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callback | None = None,
    ) -> Validation:
        """Train all parts and validate all variants; see the class.

        Returns:
            Validation score and metrics of the final variant; without validation data RecBole's start value and None.
        """
        if self._train_data is not train_data:
            self.bind(train_data, valid_data, self._test_data)
        self._add_validation_to_drift(valid_data)
        names = list(self.model.parts)
        if self._resume is not None and self._resume[1] is None:
            logger.info("The training of the run to resume had already ended.")
            names = []
        elif self._resume is not None:
            names = names[names.index(str(self._resume[1])) :]
        for name in names:
            start = time.perf_counter()
            self._fit_part(name, train_data, valid_data, verbose, saved, show_progress, callback_fn)
            self.timings[name] = time.perf_counter() - start
        self.model.variant = self.final_variant
        if valid_data:
            self.checkpoint_extra["validation"] = self.validate_variants(valid_data, show_progress)
        return self.keep_fitted(valid_data, saved)

    def _fit_part(
        self,
        name: str,
        train_data: TrainingLoader,
        valid_data: EvaluationLoader | None,
        verbose: bool,
        saved: bool,
        show_progress: bool,
        callback_fn: Callback | None,
    ) -> None:
        model, facts = self.model, self.checkpoint_extra["parts"]
        model.part = model.variant = name
        # RecBole clips over all parameters, and a part's optimizer clears those of the part alone: a gradient that
        # another part left behind would count in every norm, but not in a resumed run's.
        model.zero_grad(set_to_none=True)
        seed = part_seed(self.config, name)
        init_seed(seed, self.config["reproducibility"])
        if isinstance(train_data, PairLoader):
            train_data.stream = seed  # RecBole's own loader takes the global generators
        trainer = PartTrainer(self.config, model, name)
        trainer.saved_model_file, trainer.checkpoints.owned = self.saved_model_file, self.checkpoints.owned
        trainer.checkpoint_extra |= {"parts": facts, "decrs": self.checkpoint_extra["decrs"]}
        trainer.bind(train_data, valid_data, self._test_data)
        if self._resume is not None:
            trainer.resume_checkpoint(self._resume[0])
            self._resume = None
        logger.info("Training the part '%s' (%d of %d).", name, list(model.parts).index(name) + 1, len(model.parts))
        score, result = trainer.fit(train_data, valid_data, verbose, saved, show_progress, callback_fn)
        trainer.load_best()
        self.saved_model_file = trainer.saved_model_file
        model.zero_grad(set_to_none=True)
        self.notes += trainer.notes
        model.trained = [*model.trained, name]
        facts[name] = {
            "best_valid_score": float(score),
            "best_valid_result": dict(result) if result else None,
            "epochs": len(trainer.train_loss_dict) + trainer.start_epoch,
        }

    def _add_validation_to_drift(self, valid_data: EvaluationLoader | None) -> None:
        if self.config["drift_history"] != "train_valid" or not valid_data or self.eval_collector.histories is None:
            return
        if any(name in ("fused", "control") for name in self.model.variants):
            self.model.set_drift(self.eval_collector.histories.extended(split_interactions(valid_data._dataset)))
            self.model.drift_has_validation = True
            self.checkpoint_extra["decrs"] = self.model.report()

    def resume_checkpoint(self, resume_file: str | Path) -> None:
        """Go on with an interrupted run in the part and epoch where its checkpoint left it.

        Raises:
            FairError: a file that is no checkpoint of this model on these data.
        """
        content = self.checkpoints.read_resumable(resume_file, self.fingerprint)
        if content.get("other_parameter"):
            self.model.check_features(content["other_parameter"]["features"])  # now, rather than when it is loaded
        self.saved_model_file = str(resume_file)
        self.checkpoints.owned.add(self.saved_model_file)
        self.checkpoint_extra["parts"] = dict(content["parts"])
        self._resume = str(resume_file), content["part"]
        if content["part"] is None:
            self.checkpoints.restore(model_state(content), resume_file)
