"""Calibration of lists to histories: of the popularity distribution by its quantiles, and of item groups.

Lists and histories are given as in :mod:`recbole_fair.evaluator.functional.alignment`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recbole_fair.data.facts.groups import group_distribution, smoothed_kl
from recbole_fair.data.facts.quantiles import calibration_shares

__all__ = ["calibration_shares", "group_calibration", "popularity_calibration_error"]


def popularity_calibration_error(shares: Tensor, levels: Sequence[float], normalised: bool = True) -> Tensor:
    """Mean (or sum) over the levels of ``(tau - tau_hat)^2``.

    Source: SPREE, section 4.5; the printed tables of that paper agree with the sum over the levels.

    Args:
        shares: Result of :func:`calibration_shares`, ``[..., len(levels)]``.
        levels: The same levels.
        normalised: Mean if true, sum if false.

    Returns:
        ``[...]`` in [0, 1] (mean) or [0, len(levels)] (sum).
    """
    squared = (shares - torch.as_tensor(levels, dtype=shares.dtype, device=shares.device)).square()
    return squared.mean(-1) if normalised else squared.sum(-1)


def group_calibration(
    items: Tensor,
    indptr: Tensor,
    entries: Tensor,
    groups: sparse.csr_matrix,
    topk: Sequence[int],
    smoothing: float = 0.01,
    block: int = 4_000_000,
) -> Tensor:
    """Smoothed KL divergence from the item-group distribution of the history to that of the list (C_KL).

    Args:
        items: Lists ``[U, K]``.
        indptr: Row bounds of the histories.
        entries: Items of the histories.
        groups: ``[n_items, G]`` as in :func:`recbole_fair.data.facts.groups.group_distribution`.
        topk: Cutoffs.
        smoothing: See :func:`recbole_fair.data.facts.groups.smoothed_kl`.
        block: Users are worked off in blocks of about this many user-group pairs, to bound memory.

    Returns:
        float64 ``[U, len(topk)]`` in [0, ln(1 / smoothing)], NaN where no item of history or list has a group.
    """
    lists, bounds, past = items.cpu().numpy(), indptr.cpu().numpy(), entries.cpu().numpy()
    step = max(1, block // max(1, groups.shape[1]))
    result = np.empty((len(lists), len(topk)))
    for start in range(0, len(lists), step):
        part = lists[start : start + step]
        n = len(part)
        owner = np.repeat(np.arange(n), np.diff(bounds[start : start + n + 1]))
        consumed = group_distribution(past[bounds[start] : bounds[start + n]], owner, n, groups)
        for j, k in enumerate(topk):
            row, column = np.nonzero(part[:, :k])
            shown = group_distribution(part[row, column], row, n, groups)
            result[start : start + n, j] = smoothed_kl(consumed, shown, smoothing)
    return torch.from_numpy(result).to(items.device)
