"""Inverse propensity weights from training counts, for the IPS baselines of ILE and of DecRS."""

from __future__ import annotations

import torch
from torch import Tensor


def inverse_propensity(counts: Tensor, ips_max: float, normalize: bool) -> Tensor:
    """Training weight of each item as coded with ILE: from 1 for the rarest item down to 1 / ``ips_max``.

    ``1 / r`` with ``r = 1 + (n - min n) / max(n - min n) * (ips_max - 1)``, the minimum over items that have any.

    Args:
        counts: Training interactions of each item ``[n_items]``.
        ips_max: Divisor of the most popular item, at least 1.
        normalize: Whether to divide by the mean weight of the interactions.

    Returns:
        Float ``[n_items]``: in [1 / ips_max, 1] before normalising, 0 for items without interaction.
    """
    above = (counts - counts[counts > 0].min()).double() if (counts > 0).any() else counts.double()
    propensity = 1.0 + above / above.max().clamp(min=1.0) * (ips_max - 1.0)
    weights = torch.where(counts > 0, 1.0 / propensity, 0.0)
    if normalize:
        weights = weights / ((weights * counts).sum() / counts.sum().clamp(min=1))
    return weights.float()


def user_propensity(lengths: Tensor, clip: float) -> Tensor:
    """Training weight of each user as a baseline of DecRS: ``1 / P(d_u)`` with ``P(d_u) = |H_u| / sum |H_v|``.

    The paper clips these weights at 2 to 10 without naming their scale; in themselves they are in the thousands.
    Reading: they are brought to mean 1 over the users with a history, then clipped.

    Args:
        lengths: Training interactions of each user ``[n_users]``.
        clip: Largest weight, above 0.

    Returns:
        Float ``[n_users]``; 0 for users without a history.
    """
    weights = torch.where(lengths > 0, 1.0 / lengths.double().clamp(min=1), 0.0)
    weights = weights / (weights.sum() / (lengths > 0).sum().clamp(min=1)).clamp(min=1e-300)
    return weights.clamp(max=clip).float()


def item_propensity(counts: Tensor, clip: float, power: float = 0.5) -> Tensor:
    """Training weight of each item's positives after Saito et al. (WSDM 2020): ``1 / theta``, clipped.

    ``theta = (n / max n) ** power``. Clipping the weight at c is clipping theta at 1 / c from below.

    Args:
        counts: Training interactions of each item ``[n_items]``.
        clip: Largest weight, at least 1.
        power: Exponent; their code has 0.5.

    Returns:
        Float ``[n_items]`` in [1, clip].
    """
    theta = (counts.double() / counts.max().clamp(min=1)) ** power
    return (1.0 / theta.clamp(min=1.0 / clip)).float()
