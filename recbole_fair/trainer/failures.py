"""Errors that RecBole's models meet in training for want of a setting, as sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.errors import FairError


@contextmanager
def errors_named(config: Settings) -> Iterator[None]:
    """Name the setting behind a missing label column or a product that 16 bits have no gradient for.

    Raises:
        FairError: in place of either.
    """
    try:
        yield
    except KeyError as error:
        if error.args != (config["LABEL_FIELD"],):
            raise
        raise FairError(
            f"{config['model']} learns from labels here and the data have no column {config['LABEL_FIELD']!r}: set "
            "threshold, or sample negatives (train_neg_sample_args)."
        ) from error
    except RuntimeError as error:
        if not config["enable_amp"] or "scalar type" not in str(error):
            raise
        raise FairError(
            f"enable_amp={config['enable_amp']}: {config['model']} cannot be trained in 16 bits on this device "
            f"({str(error).splitlines()[0]}); leave the key out."
        ) from error


def check_loss(loss: Tensor, config: Settings) -> None:
    """See that a training loss is a number.

    Raises:
        FairError: it is NaN.
    """
    if torch.isnan(loss):
        raise FairError(
            f"The training loss became NaN (learning_rate={config['learning_rate']}); lower learning_rate or "
            "set clip_grad_norm, e.g. {max_norm: 5}."
        )
