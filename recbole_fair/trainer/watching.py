"""What a long training shows while it lasts: bars that vanish, and a line now and then where there is no terminal."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import recbole.trainer.trainer as recbole_trainer

from recbole_fair.io.bars import new_bar

logger = logging.getLogger(__name__)

#: Seconds between two lines.
EVERY = 20.0


class Heartbeat:
    """Says every now and then how far a training is, so that minutes without a word do not look like a hang.

    Args:
        model: name of the model.
        epochs: how many epochs there are at most.
    """

    def __init__(self, model: str, epochs: int) -> None:
        self._model, self._epochs = model, epochs
        self._last = time.monotonic()

    def beat(self, epoch: int, metric: str | None = None, value: float = 0.0, best: float = 0.0) -> None:
        """An epoch has ended; nothing is said if the last line is not long ago.

        Args:
            epoch: its number, from 0.
            metric: what was measured on validation, None without validation.
            value: the metric.
            best: the best value until now.
        """
        now = time.monotonic()
        if now - self._last < EVERY:
            return
        self._last = now
        measured = f": {metric} {value:.4f} on validation, best {best:.4f}" if metric else ""
        logger.info("     %s, epoch %d of at most %d%s", self._model, epoch + 1, self._epochs, measured)


@contextmanager
def vanishing_bars() -> Iterator[None]:
    """Inside the block RecBole's bars go when they are full; it would leave two lines an epoch."""
    kept = recbole_trainer.tqdm
    recbole_trainer.tqdm = new_bar
    try:
        yield
    finally:
        recbole_trainer.tqdm = kept
