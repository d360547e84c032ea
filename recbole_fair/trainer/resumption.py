"""What the training state in a checkpoint holds beside the weights, and whether another run can go on from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from recbole_fair.errors import FairError

# A checkpoint of another learner has another optimizer's state; one of another stage counts other epochs.
_MUST_AGREE = ("learner", "train_stage")


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


def check_resumable(content: Mapping[str, Any], config: Any, resume_file: str | Path) -> None:
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


def optimizer_states(trainer: Any) -> dict[str, Any]:
    """The state of every optimizer of a trainer: RecVAE's takes turns with two."""
    others = other_optimizers(trainer)
    states: dict[str, Any] = {"optimizer": trainer.optimizer.state_dict()}
    if others:
        states["optimizers"] = {name: optimizer.state_dict() for name, optimizer in others.items()}
        states["optimizer_in_use"] = next((name for name, one in others.items() if one is trainer.optimizer), None)
    return states


def restore_optimizers(trainer: Any, training: Mapping[str, Any], resume_file: str | Path) -> None:
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
            optimizer.load_state_dict(stored[name])
        if in_use is None:
            trainer.optimizer.load_state_dict(training["optimizer"])
        else:
            trainer.optimizer = others[in_use]
    except (KeyError, ValueError) as error:
        raise FairError(
            f"resume={resume_file} holds the state of another optimizer than the settings ask for ({error}); "
            "use those that it was trained with."
        ) from error


def other_optimizers(trainer: Any) -> dict[str, Optimizer]:
    """Optimizers of a trainer besides ``optimizer``, by attribute."""
    found = {name: value for name, value in vars(trainer).items() if isinstance(value, Optimizer)}
    found.pop("optimizer", None)
    return found
