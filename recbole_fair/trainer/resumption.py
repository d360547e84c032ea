"""What the training state in a checkpoint holds beside the weights, and whether another run can go on from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from recbole_fair.config.contract import Settings
from recbole_fair.data.contract import Loader
from recbole_fair.errors import FairError

if TYPE_CHECKING:
    from recbole_fair.trainer.trainer import FairTrainerMixin

# A checkpoint of another learner has another optimizer's state; one of another stage counts other epochs.
_MUST_AGREE = ("learner", "train_stage")


# Loaders inside RecBole's loader of knowledge graphs, and what its models keep of their training as plain attributes.
_LOADERS = ("", "general_dataloader", "kg_dataloader")
_PROGRESS = ("update", "Lt_history", "Lt_count")


def loader_states(loader: Loader) -> dict[str, torch.Tensor]:
    """States of the generators of a training loader and of the loaders inside it, by attribute."""
    return {name: generator.get_state() for name, generator in _generators(loader).items()}


def restore_loader(loader: Loader, states: Mapping[str, torch.Tensor] | torch.Tensor | None) -> None:
    """Put back what :func:`loader_states` took; older checkpoints hold the loader's own state alone."""
    known = {"": states} if isinstance(states, torch.Tensor) else dict(states or {})
    for name, generator in _generators(loader).items():
        if name in known:
            try:
                generator.set_state(known[name].cpu())
            except (AttributeError, TypeError, RuntimeError) as error:
                raise FairError(f"The state of the loader in the checkpoint is not usable ({error}).") from error


def _generators(loader: Loader) -> dict[str, torch.Generator]:
    inner = {name: getattr(loader, name, None) if name else loader for name in _LOADERS}
    found = {name: getattr(one, "generator", None) for name, one in inner.items()}
    return {name: generator for name, generator in found.items() if generator is not None}


def progress_of(model: Any) -> dict[str, Any]:
    """What a model of RecBole keeps of its training beside its weights: steps of annealing, losses by step."""
    found = {name: getattr(model, name) for name in _PROGRESS if name in vars(model)}
    return {name: value.clone() if isinstance(value, torch.Tensor) else int(value) for name, value in found.items()}


def restore_progress(model: Any, progress: Mapping[str, Any] | None) -> None:
    """Put back what :func:`progress_of` took.

    Raises:
        FairError: if this is the progress of another model.
    """
    for name, value in (progress or {}).items():
        if name not in _PROGRESS or name not in vars(model):
            raise FairError(f"The checkpoint holds {name!r}, which is no progress of {type(model).__name__}.")
        own = getattr(model, name)
        like = isinstance(own, torch.Tensor) and isinstance(value, torch.Tensor) and own.shape == value.shape
        if not like and (isinstance(own, torch.Tensor) or type(value) is not int):
            raise FairError(f"The checkpoint holds {name!r} as {value!r}, which does not fit {type(model).__name__}.")
        setattr(model, name, value.to(own.device) if isinstance(value, torch.Tensor) else value)


def epochs_that_count(epochs: int, eval_step: int, validated: bool) -> int:
    """Epochs after which the result of a training is settled.

    Args:
        epochs: the most that are trained.
        eval_step: epochs from one validation to the next.
        validated: whether there is validation; what follows the last one can then not be chosen any more.
    """
    if not validated or epochs <= 0 or eval_step <= 0:
        return epochs
    return epochs - epochs % min(eval_step, epochs)


def check_resumable(content: Mapping[str, Any], config: Settings, resume_file: str | Path) -> None:
    """Refuse a training state that the configuration cannot go on from.

    Raises:
        FairError: naming the setting that differs.
    """
    if content.get("training") is None:
        raise FairError(f"resume={resume_file} holds no training state to go on from.")
    for key in _MUST_AGREE:
        old, new = content["config"].get(key), config[key]
        if str(old).lower() != str(new).lower():
            raise FairError(
                f"{key}={new} cannot go on from resume={resume_file}, which was trained with {key}={old}; "
                f"set {key}={old}, or leave resume out."
            )


def optimizer_states(trainer: FairTrainerMixin) -> dict[str, Any]:
    """The state of every optimizer of a trainer: RecVAE's takes turns with two."""
    others = other_optimizers(trainer)
    states: dict[str, Any] = {"optimizer": trainer.optimizer.state_dict()}
    if others:
        states["optimizers"] = {name: optimizer.state_dict() for name, optimizer in others.items()}
        states["optimizer_in_use"] = next((name for name, one in others.items() if one is trainer.optimizer), None)
    return states


def restore_optimizers(trainer: FairTrainerMixin, training: Mapping[str, Any], resume_file: str | Path) -> None:
    """Put back what :func:`optimizer_states` took.

    Raises:
        FairError: if these are not the states of this trainer's optimizers.
    """
    others, stored = other_optimizers(trainer), training.get("optimizers") or {}
    if set(others) != set(stored):
        raise FairError(
            f"resume={resume_file} does not hold the states of {', '.join(sorted(set(others) ^ set(stored)))}; "
            "leave resume out and train anew."
        )
    in_use = training.get("optimizer_in_use")
    try:
        for name, optimizer in others.items():
            _restore(optimizer, stored[name])
        if in_use is None:
            _restore(trainer.optimizer, training["optimizer"])
        else:
            trainer.optimizer = others[in_use]
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise FairError(
            f"resume={resume_file} holds the state of another optimizer than the settings ask for ({error}); "
            "use those that it was trained with."
        ) from error


def _restore(optimizer: Optimizer, state: dict[str, Any]) -> None:
    optimizer.load_state_dict(state)
    for param, held in optimizer.state.items():
        for name, value in held.items():
            if isinstance(value, torch.Tensor) and value.dim() and value.shape != param.shape:
                raise ValueError(f"{name} of shape {tuple(value.shape)} for weights of {tuple(param.shape)}")


def other_optimizers(trainer: FairTrainerMixin) -> dict[str, Optimizer]:
    """Optimizers of a trainer besides ``optimizer``, by attribute."""
    found = {name: value for name, value in vars(trainer).items() if isinstance(value, Optimizer)}
    found.pop("optimizer", None)
    return found
