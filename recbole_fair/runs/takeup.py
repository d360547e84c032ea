"""Trainings that are there already: found by model, data and settings, whole or cut short."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.errors import FairError
from recbole_fair.io.processes import current
from recbole_fair.model.posthoc import PostHocModel
from recbole_fair.runs.loading import new_trainer
from recbole_fair.trainer.posthoc_trainer import checkpoints_alike, finished
from recbole_fair.trainer.strengths import CHOSEN, wants_choice
from recbole_fair.trainer.trainer import FairTrainerMixin

logger = logging.getLogger(__name__)


#: How the strengths of a fitted model are found.
_OF_CHOICE = ("strengths", "strength_goal", "strength_budget")


def finished_model(
    trainer: FairTrainerMixin, config: FairConfig, any_strengths: bool = False
) -> tuple[str, dict[str, Any]] | None:
    """File and content of a model that was trained to its end under the very settings, if it is there.

    Args:
        trainer: one with its splits bound.
        config: its configuration; ``checkpoint_dir`` is looked through.
        any_strengths: whether a fitted model will do whose strengths were found otherwise.
    """
    model = trainer.model
    found_later = (*model.strength_keys, *_OF_CHOICE) if isinstance(model, PostHocModel) else ()
    for path, content in checkpoints_alike(config["checkpoint_dir"], config, trainer.fingerprint, found_later):
        if not isinstance(model, PostHocModel):
            if finished(content):
                return str(path), content
        elif "intervention" in content and (any_strengths or _chosen_alike(content, config, model)):
            return str(path), content
    return None


def file_of_finished(trainer: FairTrainerMixin, config: FairConfig, any_strengths: bool = False) -> str | None:
    """The file of :func:`finished_model` as the first process finds it; called by all."""

    def find() -> str | None:
        known = finished_model(trainer, config, any_strengths)
        return None if known is None else known[0]

    return current().made_by_first(find)


def _chosen_alike(content: Mapping[str, Any], config: FairConfig, model: PostHocModel) -> bool:
    """Whether the strengths of a checkpoint are those that a run under the configuration would come to."""
    if wants_choice(config, model):
        return CHOSEN in content and all(content["config"].get(key) == config[key] for key in _OF_CHOICE)
    return all(content["config"].get(key) == config[key] for key in model.strength_keys)


def take_choice(config: FairConfig, content: Mapping[str, Any]) -> None:
    """Put the strengths that were chosen when a checkpoint was made into the configuration, where it has none set."""
    for key, value in content.get(CHOSEN, {}).get("chosen", {}).items():
        if key not in config.user_settings:
            config[key] = value


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
