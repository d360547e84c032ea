"""Training of autoencoders over users' rows: a cheap optimizer, held-out items, and a patience that waits."""

from __future__ import annotations

import copy
import functools
import logging
import sys
from typing import Any

import torch

from recbole_fair.data.contract import EvaluationLoader, TrainingLoader
from recbole_fair.data.facts.interactions import split_interactions
from recbole_fair.errors import FairError
from recbole_fair.io.processes import current
from recbole_fair.model.tall.tall import TALL, MultVAE
from recbole_fair.trainer.checkpoints import CheckpointWriter, ModelState
from recbole_fair.trainer.trainer import Callback, FairTrainer, Validation

logger = logging.getLogger(__name__)


class EagerAdam(torch.optim.Adam):
    """Adam that moves each parameter as soon as its gradient is complete, and lets go of the gradient at once.

    The numbers are those of Adam, and so is the state; ``step`` finds nothing left to do. A backward pass then holds
    the gradient of one parameter instead of all.
    """

    def __init__(self, params: list[torch.nn.Parameter], **settings: Any) -> None:
        super().__init__(params, **settings)
        for param in params:
            single = torch.optim.Adam([param], **settings)
            param.register_post_accumulate_grad_hook(functools.partial(self._move, single))  # type: ignore[no-untyped-call]

    def _move(self, single: torch.optim.Adam, param: torch.Tensor) -> None:
        single.state = self.state
        single.param_groups[0]["lr"] = self.param_groups[0]["lr"]
        single.step()
        param.grad = None


class ThriftyWriter(CheckpointWriter):
    """Never holds more than one copy of the weights beside the model's own: a second one would be too large."""

    def current(self) -> ModelState:
        """The weights themselves, uncopied."""
        state = {name: value.detach() for name, value in self.model.state_dict().items()}
        return {"state_dict": state, "other_parameter": self.model.other_parameter()}

    def keep_best(self) -> None:
        """Keep the weights as they are now in the memory of the best ones so far."""
        if self.best is None:
            super().keep_best()
            return
        kept, now = self.best["state_dict"], self.model.state_dict()
        for name, value in now.items():
            kept[name].copy_(value)
        self.best["other_parameter"] = copy.deepcopy(self.model.other_parameter())


class ExpertTrainer(FairTrainer):
    """Trainer of :class:`~recbole_fair.model.tall.tall.MultVAE` and what builds on it.

    Adam runs fused, in one pass over the memory instead of a dozen: at 111 million parameters PyTorch's plain loop
    takes as long as half a step. Gradients do not outlive an epoch, and the best weights are kept in one place.
    """

    writer_class = ThriftyWriter

    model: MultVAE
    enable_scaler: bool

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        decay = float(kwargs.pop("weight_decay", self.config["weight_decay"] or 0.0))
        if self.config["weight_decay_by_experts"]:
            decay /= self.model.n_experts
        if str(kwargs.get("learner", self.config["learner"])).lower() != "adam":
            return super()._build_optimizer(weight_decay=decay, **kwargs)
        params = list(kwargs.get("params", self.model.parameters()))
        rate = kwargs.get("learning_rate", self.config["learning_rate"])
        needs_all_gradients = self.config["clip_grad_norm"] or self.enable_scaler or current().several
        kind = torch.optim.Adam if needs_all_gradients else EagerAdam
        return kind(params, lr=rate, weight_decay=decay, fused=True)

    def _train_epoch(self, train_data: TrainingLoader, epoch_idx: int, *args: Any, **kwargs: Any) -> Any:
        loss = super()._train_epoch(train_data, epoch_idx, *args, **kwargs)
        # Gradients as large as the model need not stay while it is evaluated and saved.
        self.optimizer.zero_grad(set_to_none=True)
        return loss


class TALLTrainer(ExpertTrainer):
    """Trainer of :class:`~recbole_fair.model.tall.tall.TALL`.

    With user weights, early stopping counts from the epoch in which they begin: they disturb the validation score at
    first, and a patience that runs out there would end the training by luck.
    """

    model: TALL

    def fit(
        self,
        train_data: TrainingLoader,
        valid_data: EvaluationLoader | None = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callback | None = None,
    ) -> Validation:
        """Train; with ``gate_source: valid`` the model first gets the validation items.

        Raises:
            FairError: if these are wanted and there are none.
        """
        model = self.model
        if model.gate_source == "valid" and model.needs_held_out:
            if not valid_data:
                raise FairError("gate_source=valid needs validation data; use gate_source=fold.")
            model.use_validation(split_interactions(valid_data._dataset))
        for note in model.scoring_notes():
            logger.info(note)
        self._epoch = self.start_epoch - 1
        found = super().fit(train_data, valid_data, verbose, saved, show_progress, callback_fn)
        kept = self._kept_epoch()
        if model.weight_signal != "none" and 0 <= kept < model.gap:
            self.notes.append(
                f"The epoch that was kept ({kept}) precedes the user weights, which begin at epoch {model.gap} (gap): "
                "the model is that of weight_signal=none."
            )
        return found

    def _kept_epoch(self) -> int:
        """The validated epoch whose weights were kept, without validation the last one."""
        if not self._validated:
            return self._epoch
        last = (self._epoch + 1) // self.eval_step * self.eval_step - 1
        return int(last - self.cur_step * self.eval_step)

    def _train_epoch(self, train_data: TrainingLoader, epoch_idx: int, *args: Any, **kwargs: Any) -> Any:
        self._epoch = epoch_idx
        return super()._train_epoch(train_data, epoch_idx, *args, **kwargs)

    def _patience(self, epoch: int) -> int:
        """The configured patience; without end until the weights have been there for so many validations."""
        steps, gap = int(self.config["stopping_step"]), self.model.gap
        weighted = (epoch + 1) // self.eval_step - gap // self.eval_step
        return steps if self.model.weight_signal == "none" or weighted > steps else sys.maxsize

    def _valid_epoch(self, valid_data: EvaluationLoader | None, show_progress: bool = False) -> Validation:
        self.stopping_step = self._patience(self._epoch)
        return super()._valid_epoch(valid_data, show_progress)
