"""The model that a study begins with: found where an earlier run has left it, taken up where one was cut short."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_fair.config.catalogue import keys_of
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.errors import FairError
from recbole_fair.io.bars import bars_shown
from recbole_fair.runs.alone import alone
from recbole_fair.runs.compare import protocol_of
from recbole_fair.runs.loading import FILE_KEYS, new_trainer, refuse
from recbole_fair.runs.logs import begin_together
from recbole_fair.runs.takeup import file_of_finished, taken_up

logger = logging.getLogger(__name__)


@alone
def trained_checkpoints(
    model: str,
    datasets: Sequence[str],
    config_file_list: str | Path | Sequence[str | Path] | None = None,
    config_dict: Mapping[str, Any] | None = None,
) -> list[str]:
    """Checkpoints of one model on several data sets, under one protocol; what is not there is trained.

    A training that has come to its end under these settings is found in ``checkpoint_dir``, whoever began it; one that
    was cut short goes on from its last epoch.

    Args:
        model: the model's name.
        datasets: names of data sets.
        config_file_list: yaml files, or one of them; later ones win.
        config_dict: settings; they win over the files.

    Returns:
        A file a data set, in their order.

    Raises:
        FairError: for names or settings that are not allowed, or protocols that differ between the data sets.
    """
    given = dict(config_dict or {})
    refuse(given, (*FILE_KEYS, "reranker"), "is for run and evaluate; a study writes its own files")
    refuse(given, keys_of("start"), "is not for a study, which finds trainings by their settings")
    names = distinct(datasets)
    configs = {name: FairConfig(model, name, config_file_list, given) for name in names}
    check_protocols({name: protocol_of(config) for name, config in configs.items()})
    return [_trained(config) for config in configs.values()]


def _trained(config: FairConfig) -> str:
    """The file of one model."""
    begin_together(config)
    trainer, loaders = new_trainer(config)
    if (file := file_of_finished(trainer, config)) is not None:
        logger.info("%s on %s is there: %s", config["model"], config["dataset"], file)
        return file
    trainer = taken_up(trainer, config, config["checkpoint_dir"])
    logger.info("Training %s on %s", config["model"], config["dataset"])
    trainer.fit(loaders[0], loaders[1], saved=True, show_progress=bars_shown(bool(config["show_progress"])))
    return str(trainer.saved_model_file)


def distinct(datasets: Sequence[str]) -> list[str]:
    """Names of data sets, without spaces around them.

    Raises:
        FairError: if there is none, or one twice.
    """
    names = [name.strip() for name in datasets if name.strip()]
    if not names:
        raise FairError("dataset is not set: add --dataset=NAME.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FairError(f"dataset names {twice} twice.")
    return names


def check_protocols(protocols: Mapping[str, Mapping[str, Any]]) -> None:
    """See that numbers of different data sets are made alike.

    Args:
        protocols: settings by data set.

    Raises:
        FairError: for the first setting that differs.
    """
    (first, reference), *others = protocols.items()
    for name, protocol in others:
        for key, value in protocol.items():
            if value != reference[key]:
                raise FairError(
                    f"{key} is {reference[key]!r} on {first} and {value!r} on {name}: a study has one protocol, set "
                    f"{key} for all data sets."
                )
