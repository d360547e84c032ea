"""Trainings that are there already: found by model, data and settings, whole or cut short."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.errors import FairError
from recbole_fair.runs.loading import new_trainer
from recbole_fair.trainer.posthoc_trainer import checkpoints_alike, finished
from recbole_fair.trainer.trainer import FairTrainerMixin

logger = logging.getLogger(__name__)


def finished_model(trainer: FairTrainerMixin, config: FairConfig) -> tuple[str, dict[str, Any]] | None:
    """File and content of a model that was trained to its end under the very settings, if it is there.

    Args:
        trainer: one with its splits bound.
        config: its configuration; ``checkpoint_dir`` is looked through.
    """
    alike = checkpoints_alike(config["checkpoint_dir"], config, trainer.fingerprint)
    return next(((str(path), content) for path, content in alike if finished(content)), None)


def taken_up(trainer: FairTrainerMixin, config: FairConfig, folder: str | Path) -> FairTrainerMixin:
    """Take up a training of the same model, data and settings that an interruption left behind.

    Args:
        trainer: a new one; of a post-hoc method it is the base's training that is taken up.
        config: its configuration.
        folder: where checkpoints are.

    Returns:
        The trainer, at the epoch from which it goes on; a new one where the file that was found cannot be used.
    """
    own = trainer.trained_config()
    for path, content in checkpoints_alike(folder, own, trainer.fingerprint):
        if not content.get("training"):
            continue
        if own is not trainer.config and finished(content):
            return trainer  # it finds this file itself
        try:
            trainer.resume_checkpoint(path)
            return trainer
        except FairError as error:
            logger.info("Training %s anew: %s", own["model"], error)
            made: FairTrainerMixin = new_trainer(config)[0]
            return made
    return trainer
