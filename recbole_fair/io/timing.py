"""How long the stages of a run take, said stage by stage where somebody watches."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


class Stages:
    """Adds up how long named stages take: ``with stages("data"): ...``.

    Attributes:
        seconds: by stage.
        total: how many stages with a title there will be; 0 where none is to be said.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.total = 0
        self._done = 0

    @contextmanager
    def __call__(self, name: str, title: str | None = None) -> Iterator[None]:
        """Count the block into a stage, also when it fails.

        Args:
            name: of the stage.
            title: what the log calls it when it has ended, with number and time; None for nothing.
        """
        start = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + took
        self._done += title is not None
        if title is not None and self.total:
            logger.info("%d/%d  %s, %s", self._done, self.total, title, duration(took))


def duration(seconds: float) -> str:
    """A span of time for people: ``0.4 s``, ``51 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
