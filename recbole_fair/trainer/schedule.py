"""The learning rate over the epochs of a training."""

from __future__ import annotations

from typing import Any

import torch


class Schedule:
    """Learning rate as a function of how much of ``epochs`` is done, so that a resumed run needs no state of it."""

    def __init__(self, optimizer: torch.optim.Optimizer, epochs: int | None, warmup: float) -> None:
        self.optimizer, self.epochs, self.warmup = optimizer, epochs, warmup
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.epoch, self.step, self.steps = 0, 0, 1
        optimizer.register_step_post_hook(self._after_step)

    @classmethod
    def of(cls, config: Any, trainer: Any) -> Schedule | None:
        """The schedule that a configuration asks for; None for a constant rate."""
        linear, warmup = config["learning_rate_schedule"] == "linear", float(config["learning_rate_warmup"] or 0.0)
        if not linear and warmup == 0.0:
            return None
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
