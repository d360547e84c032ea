"""Training of autoencoders over users' rows: a cheap optimizer, held-out items, and a patience that waits."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import torch

from recbole_fair.data.interactions import split_interactions
from recbole_fair.errors import FairError
from recbole_fair.trainer.trainer import FairTrainer

logger = logging.getLogger(__name__)


class ExpertTrainer(FairTrainer):
    """Trainer of :class:`~recbole_fair.model.tall.MultVAE` and what builds on it.

    Adam runs fused: one pass over the memory instead of a dozen, which for 111 million parameters is the difference
    between a tenth and all of a training step. With user weights, early stopping counts from the epoch in which they
    begin, since they may lower the validation score at first.
    """

    model: Any

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        decay = float(kwargs.pop("weight_decay", self.config["weight_decay"] or 0.0))
        if self.config["weight_decay_by_experts"]:
            decay /= self.model.n_experts
        if str(kwargs.get("learner", self.config["learner"])).lower() != "adam":
            return super()._build_optimizer(weight_decay=decay, **kwargs)
        params = kwargs.get("params", self.model.parameters())
        rate = kwargs.get("learning_rate", self.config["learning_rate"])
        return torch.optim.Adam(params, lr=rate, weight_decay=decay, fused=True)

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, Any]:
        """Train; with ``gate_source: valid`` the model first gets the validation items.

        Raises:
            FairError: if these are wanted and there are none.
        """
        model = self.model
        if getattr(model, "gate_source", "fold") == "valid" and model.needs_held_out:
            if not valid_data:
                raise FairError("gate_source=valid needs validation data; use gate_source=fold.")
            model.use_validation(split_interactions(valid_data._dataset))
        for note in getattr(model, "scoring_notes", list)():
            logger.info(note)
        return super().fit(train_data, valid_data, verbose, saved, show_progress, callback_fn)

    def _train_epoch(self, train_data: Any, epoch_idx: int, *args: Any, **kwargs: Any) -> Any:
        self._epoch = epoch_idx
        loss = super()._train_epoch(train_data, epoch_idx, *args, **kwargs)
        # Gradients as large as the model need not stay while it is evaluated and saved.
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def _keep_best(self) -> None:
        """Keep the weights as they are, in the memory of the best ones so far: a new copy beside it is too large."""
        if self._best_state is None:
            super()._keep_best()
            return
        kept, now = self._best_state["state_dict"], self.model.state_dict()
        for name, value in now.items():
            kept[name].copy_(value)
        self._best_state["other_parameter"] = copy.deepcopy(self.model.other_parameter())

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> tuple[float, Any]:
        if self._epoch < self._patience_from():
            self.cur_step = 0
        return super()._valid_epoch(valid_data, show_progress)

    def _patience_from(self) -> int:
        """The epoch (0, 1, ...) from which early stopping counts."""
        weighted = getattr(self.model, "weight_signal", "none") != "none"
        return int(self.model.gap) if weighted else 0
