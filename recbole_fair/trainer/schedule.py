"""The learning rate over the epochs of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from recbole_fair.config.contract import Settings
from recbole_fair.errors import FairError
from recbole_fair.trainer.resumption import other_optimizers

if TYPE_CHECKING:
    from recbole_fair.trainer.trainer import FairTrainerMixin


class Schedule:
    """Learning rate as a function of how much of ``epochs`` is done, so that a resumed run needs no state of it."""

    def __init__(self, optimizer: torch.optim.Optimizer, epochs: int | None, warmup: float) -> None:
        self.optimizer, self.epochs, self.warmup = optimizer, epochs, warmup
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.epoch, self.step, self.steps = 0, 0, 1
        optimizer.register_step_post_hook(self._after_step)

    @classmethod
    def of(cls, config: Settings, trainer: FairTrainerMixin) -> Schedule | None:
        """The schedule that a configuration asks for; None for a constant rate.

        Raises:
            FairError: for a trainer with optimizers of its own, which would go on at their constant rates.
        """
        linear, warmup = config["learning_rate_schedule"] == "linear", float(config["learning_rate_warmup"] or 0.0)
        if not linear and warmup == 0.0:
            return None
        if other_optimizers(trainer):
            asked = f"learning_rate_warmup={warmup:g}" if warmup else "learning_rate_schedule=linear"
            raise FairError(
                f"{asked} is not possible with {config['model']}, which has several optimizers; leave it out."
            )
        return cls(trainer.optimizer, int(config["epochs"]) if linear else None, warmup)

    def begin(self, epoch: int, steps: int) -> None:
        """Start an epoch of ``steps`` steps."""
        self.epoch, self.step, self.steps = epoch, 0, max(steps, 1)
        self._set()

    def _after_step(self, *_: Any) -> None:
        self.step += 1
        self._set()

    def _set(self) -> None:
        done = self.epoch + min(self.step / self.steps, 1.0)
        rising = (done + 1.0 / self.steps) / self.warmup if self.warmup > 0 else 1.0
        falling = 1.0 if self.epochs is None else max(1.0 - done / self.epochs, 1e-3)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * min(rising, falling)
