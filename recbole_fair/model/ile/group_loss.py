"""Losses by group and how far apart they are, as pure functions of sums and counts.

Sums and counts add up over batches and over processes, so that several processes get the distance of one. The functions
follow Prent and Mansoury, "Correcting Popularity Bias in Recommender Systems via Item Loss Equalization" (2024,
arXiv 2410.04830) and its public code: ``std`` is the unbiased standard deviation, ``ent`` is G - exp(entropy).
"""

from __future__ import annotations

import torch
from torch import Tensor

DISTANCES = ("std", "ent", "mad")

_EPSILON = 1e-12  # keeps the root's gradient finite where all means are equal, and logarithms finite at loss 0


def group_sums(losses: Tensor, membership: Tensor) -> tuple[Tensor, Tensor]:
    """Add up losses by group.

    Args:
        losses: Loss of each pair, float ``[B]``.
        membership: 1 where a pair belongs to a group, float ``[B, G]``; a row of zeros belongs to none.

    Returns:
        Sums ``[G]``, through which gradients flow, and counts ``[G]``.
    """
    # Not a product of matrices: that would be rounded to half precision under autocast.
    return (losses.unsqueeze(1) * membership).sum(0), membership.sum(0)


def group_distance(sums: Tensor, counts: Tensor, kind: str) -> Tensor:
    """How far apart the mean losses of the groups are.

    Groups without a pair are left out; with G groups left, fewer than two of them are at distance 0. With L the means:

    * ``std``: sqrt(sum (L - mean L)^2 / (G - 1) + 1e-12), in units of the loss.
    * ``ent``: G - exp(H(p)), p = L / sum L, natural logarithm: from 0 to G - 1, whatever the scale of the losses.
    * ``mad``: mean of |L - mean L|, in units of the loss.

    Args:
        sums: Loss added up by group, float ``[G]``, not negative.
        counts: Pairs by group, ``[G]``.
        kind: ``"std"``, ``"ent"`` or ``"mad"``.

    Returns:
        Scalar; its gradient is finite, also where all means are equal or 0.

    Raises:
        ValueError: For another kind.
    """
    present = counts > 0
    means = sums / counts.clamp(min=1)
    n = present.sum()
    if kind == "ent":
        means = torch.where(present, means.clamp(min=_EPSILON), 0.0)
        # Absent groups get p = 1, which adds nothing to the entropy and has a logarithm.
        p = torch.where(present, means / means.sum().clamp(min=_EPSILON), 1.0)
        distance = n - torch.exp(-(p * p.log()).sum())
    elif kind in ("std", "mad"):
        off = torch.where(present, means - (means * present).sum() / n.clamp(min=1), 0.0)
        if kind == "std":
            distance = ((off * off).sum() / (n - 1).clamp(min=1) + _EPSILON).sqrt()
        else:
            distance = off.abs().sum() / n.clamp(min=1)
    else:
        raise ValueError(f"kind must be one of {', '.join(DISTANCES)}, got {kind!r}")
    return torch.where(n > 1, distance, 0.0)
