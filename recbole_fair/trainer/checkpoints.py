"""The states of a training that are worth keeping: the best in memory, the best and the latest in one file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.facts.stored import DATA
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import (
    load_checkpoint,
    load_others,
    load_weights,
    other_parameters,
    pack_arrays,
    plain_config,
    save_checkpoint,
    unpack_arrays,
)
from recbole_fair.io.processes import current


class ModelState(TypedDict):
    """A model at one moment of its training."""

    state_dict: dict[str, Tensor]
    """Its parameters and buffers."""
    other_parameter: Any
    """What RecBole's ``other_parameter()`` holds besides."""


def model_state(content: Mapping[str, Any]) -> ModelState:
    """The state in a checkpoint's content, or in the training part of one."""
    return {
        "state_dict": content["state_dict"],
        "other_parameter": unpack_arrays(content.get("other_parameter")),
    }


class CheckpointWriter:
    """Keeps the best state of a model, and writes checkpoints.

    Args:
        config: the settings, which go into every checkpoint.
        model: the model.

    Attributes:
        best: the best state so far, if there is one.
        extra: entries besides the training's own (a post-hoc model's report, say).
        owned: files that this training has written or goes on from, and may write over; parts of a training share it.
        data: what a checkpoint carries of the data, set by the trainer
            (:func:`~recbole_fair.data.facts.stored.stored_data`).
    """

    def __init__(self, config: FairConfig, model: AbstractRecommender) -> None:
        self.config, self.model = config, model
        self.best: ModelState | None = None
        self.extra: dict[str, Any] = {}
        self.data: dict[str, Any] | None = None
        self.owned: set[str] = set()

    def snapshot(self) -> ModelState:
        """A copy of the model's state."""
        return {
            "state_dict": {name: value.detach().clone() for name, value in self.model.state_dict().items()},
            "other_parameter": copy.deepcopy(other_parameters(self.model)),
        }

    def current(self) -> ModelState:
        """The model's state, to be written at once."""
        return self.snapshot()

    def keep_best(self) -> None:
        """Keep the state as it is now as the best one."""
        self.best = self.snapshot()

    def restore(self, state: ModelState, source: str | Path) -> None:
        """Give the model a state.

        Args:
            state: the state.
            source: where it is from, for the message.

        Raises:
            FairError: if the model has other weights.
        """
        load_weights(self.model, state["state_dict"], source)
        load_others(self.model, state["other_parameter"], source)

    def write(
        self, path: str, fingerprint: str | None, training: Mapping[str, Any], is_best: bool, replace: bool = False
    ) -> str:
        """Write a checkpoint.

        Args:
            path: the file.
            fingerprint: digest of the splits.
            training: what a training needs to go on beside the model's own state.
            is_best: whether the model as it is now is the best state.
            replace: whether to write over a file that is none of ``owned``; else another name is taken in its place.

        Returns:
            Where it was written: by the first of several processes, for all.
        """
        path = current().made_by_first(lambda: self._written(path, fingerprint, training, is_best, replace))
        self.owned.add(path)
        return path

    def _written(
        self, path: str, fingerprint: str | None, training: Mapping[str, Any], is_best: bool, replace: bool
    ) -> str:
        best = self.best or self.current()
        latest = best if is_best else self.current()
        content = {
            "model": self.config["model"],
            "dataset": self.config["dataset"],
            "config": plain_config(self.config),
            "user_settings": self.config.user_settings,
            "fingerprint": fingerprint,
            DATA: self.data,
            "state_dict": best["state_dict"],
            "other_parameter": pack_arrays(best["other_parameter"]),
            "training": {
                **training,
                "state_dict": None if is_best else latest["state_dict"],
                "other_parameter": pack_arrays(latest["other_parameter"]),
            },
            **self.extra,
        }
        return save_checkpoint(path, content, fresh=not replace and path not in self.owned)

    def read_resumable(self, resume_file: str | Path, fingerprint: str | None) -> dict[str, Any]:
        """The content of a checkpoint of the same model on the same data.

        Raises:
            FairError: if it cannot be read, or is another model's or of other data.
        """
        content = load_checkpoint(resume_file, self.config["device"])
        if content["model"] != self.config["model"]:
            raise FairError(f"resume={resume_file} is a checkpoint of {content['model']}, not {self.config['model']}.")
        if fingerprint is not None and content["fingerprint"] != fingerprint:
            raise FairError(
                f"resume={resume_file} was trained on other data or another split of {content['dataset']}; "
                "use the same files, filters and eval_args."
            )
        return content
