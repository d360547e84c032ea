"""TensorBoard for as long as a training writes to it, and not before."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import recbole.trainer.trainer as recbole_trainer
from torch.utils.tensorboard import SummaryWriter

from recbole_fair.evaluator.group_result import GroupResult
from recbole_fair.io.processes import current
from recbole_fair.io.text import visible

logger = logging.getLogger(__name__)


class LazyWriter:
    """Stands in for a ``SummaryWriter`` that is opened with the first value, and may be closed in between.

    RecBole opens one for every trainer, also for one that only evaluates, and closes none: a thread and an empty file
    would be left behind each time.

    Args:
        open_writer: opens the writer. Where that fails nothing is written, and the log says so once.
    """

    def __init__(self, open_writer: Callable[[], SummaryWriter]) -> None:
        self._open, self._failed = open_writer, False
        self._writer: SummaryWriter | None = None

    def add_scalar(self, tag: str, scalar_value: Any, global_step: int | None = None) -> None:
        """As ``SummaryWriter.add_scalar``."""
        writer = self._opened()
        if writer is not None:
            writer.add_scalar(tag, scalar_value, global_step)

    def add_hparams(self, hparam_dict: dict[str, Any], metric_dict: dict[str, Any]) -> None:
        """As ``SummaryWriter.add_hparams``."""
        writer = self._opened()
        if writer is not None:
            texts = {key: visible(value) for key, value in hparam_dict.items() if isinstance(value, str)}
            writer.add_hparams(hparam_dict | texts, metric_dict)

    def close(self) -> None:
        """Write what is left and end the writer's thread; a further value opens it again."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _opened(self) -> SummaryWriter | None:
        if self._writer is None and not self._failed and current().writes:
            try:
                self._writer = self._open()
            except OSError as error:
                self._failed = True
                logger.warning("Nothing is written for TensorBoard: %s.", error)
        return self._writer


def report_groups(groups: Mapping[str, GroupResult], epoch: int, writer: LazyWriter | None) -> None:
    """Log metrics by user group after a validation, and draw them.

    Args:
        groups: by name of the grouping; nothing is logged without any.
        epoch: the epoch.
        writer: gets ``Valid_by_group/GROUPING/GROUP/METRIC``; None: nothing is said at all.
    """
    if writer is None:
        return
    for name, result in groups.items():
        for metric in result.metrics:
            values = result.by_group[metric].to_dict()
            logger.info(
                "epoch %d: %s by %s: %s", epoch, metric, name, ", ".join(f"{g} {v:.4f}" for g, v in values.items())
            )
            for group, value in values.items():
                writer.add_scalar(f"Valid_by_group/{name}/{group}/{metric}", value, epoch)


@contextmanager
def lazy_tensorboard() -> Iterator[None]:
    """Inside the block trainers that are made get a :class:`LazyWriter`."""
    get_tensorboard = recbole_trainer.get_tensorboard
    recbole_trainer.get_tensorboard = lambda of_logger: LazyWriter(lambda: get_tensorboard(of_logger))
    try:
        yield
    finally:
        recbole_trainer.get_tensorboard = get_tensorboard
