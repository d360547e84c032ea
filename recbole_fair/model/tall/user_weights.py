"""Weights of users in a training loss: by how their held-out losses change (TALL), or by mainstreamness (WL)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recbole_fair.io.processes import current

Floats = npt.NDArray[np.float64]


def clipped_weights(signal: Tensor, alpha: float) -> Tensor:
    """The paper's closed form ``max((s - mean s + 2 alpha) / (2 alpha), 0)`` (TALL, Eq. 2 and 3).

    It solves ``max_w sum w s - alpha |w|^2`` with ``sum w = N`` as long as nothing is clipped; with clipping the sum is
    above ``N``.

    Args:
        signal: one number a user ``[N]``.
        alpha: above 0; the smaller, the more unequal the weights.

    Returns:
        Weights ``[N]``, at least 0.
    """
    return ((signal - signal.mean()) / (2 * alpha) + 1.0).clamp(min=0.0)


def simplex_weights(signal: Tensor, alpha: float) -> Tensor:
    """The exact solution of the same problem with ``w >= 0`` and ``sum w = N``.

    It is the projection of ``s / (2 alpha)`` on the simplex, found by sorting (Held, Wolfe and Crowder, 1974).

    Args:
        signal: one number a user ``[N]``.
        alpha: above 0.

    Returns:
        Weights ``[N]``, at least 0, with sum N.
    """
    scaled = signal / (2 * alpha)
    ranked = scaled.sort(descending=True).values
    count = torch.arange(1, len(ranked) + 1, device=signal.device, dtype=signal.dtype)
    thresholds = (ranked.cumsum(0) - len(ranked)) / count
    kept = int((ranked > thresholds).sum())
    return (scaled - thresholds[kept - 1]).clamp(min=0.0)


SOLVERS = {"clip": clipped_weights, "simplex": simplex_weights}


def niche_weights(mainstream: Floats, exponent: float) -> Tensor:
    """Weights that grow the further a user is from the mainstream (WL; Zhu and Caverlee, WSDM 2022, as coded).

    ``w = ((max m - m) / (max m - min m)) ** exponent``, divided by its mean over the users with a score.

    Args:
        mainstream: mainstream score of each user id ``[n_users]``, NaN where there is none.
        exponent: 0 weights all users alike.

    Returns:
        Float ``[n_users]``; 1 for users without a score.
    """
    known = ~np.isnan(mainstream)
    weights = np.ones(len(mainstream))
    distance = mainstream[known].max(initial=0.0) - mainstream[known]
    if known.any() and distance.max() > 0 and exponent > 0:
        raised = (distance / distance.max()) ** exponent
        weights[known] = raised / raised.mean()
    return torch.from_numpy(weights).float()


class LossWindow(nn.Module):
    """Each user's held-out losses of the last epochs, and the weights that follow from them.

    With L(t) the loss of epoch t (1, 2, ...), the change of epoch t >= 2 is ``L(t - 1) - L(t)``, and the signal is the
    mean of the last ``window`` changes. Everything is a buffer of fixed shape, so that a checkpoint holds it.

    Args:
        n_users: user ids including the padding.
        window: changes that are averaged, at least 1.

    Attributes:
        current: losses seen in the running epoch ``[n_users]``, NaN where a user has none.
        past: losses of finished epochs ``[window + 1, n_users]``, the newest first, NaN where there is none.
    """

    current: Tensor
    past: Tensor

    def __init__(self, n_users: int, window: int) -> None:
        super().__init__()
        self.register_buffer("current", torch.full((n_users,), torch.nan))
        self.register_buffer("past", torch.full((window + 1, n_users), torch.nan))

    def reset(self) -> None:
        """Forget everything."""
        self.current.fill_(torch.nan)
        self.past.fill_(torch.nan)

    def record(self, users: Tensor, losses: Tensor) -> None:
        """Take the held-out losses of some users in the running epoch: long ``[B]`` and float ``[B]``."""
        self.current[users] = losses

    def put_together(self) -> None:
        """Take the running epoch's losses of every process: of users that several have seen, the mean."""
        processes = current()
        if processes.several:
            known = ~self.current.isnan()
            both = processes.add(torch.stack([self.current.nan_to_num(0.0), known.to(self.current.dtype)]).double())
            self.current.copy_(both[0] / both[1])

    def finish_epoch(self) -> None:
        """Move the running epoch's losses to the past."""
        self.past.copy_(torch.cat([self.current.unsqueeze(0), self.past[:-1]]))
        self.current.fill_(torch.nan)

    def mean_change(self) -> Tensor:
        """Mean fall of the loss over the last ``window`` changes ``[n_users]``; NaN before there is one."""
        changes = self.past[1:] - self.past[:-1]
        return changes.nanmean(0)

    def weights(self, signal: str, alpha: float, solver: str) -> Tensor:
        """Weights of all users for the epoch that begins.

        Args:
            signal: ``change`` (mean fall of the loss) or ``loss`` (the last epoch's loss).
            alpha: see :func:`clipped_weights`.
            solver: a name in :data:`SOLVERS`.

        Returns:
            Float ``[n_users]``; 1 for users without a signal, and for all before there is any.
        """
        values = self.mean_change() if signal == "change" else self.past[0]
        known = ~values.isnan()
        weights = torch.ones_like(values)
        if known.any():
            weights[known] = SOLVERS[solver](values[known].double(), alpha).float()
        return weights
