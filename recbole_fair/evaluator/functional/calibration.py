"""Calibration of lists to histories: of the popularity distribution by its quantiles, and of item groups.

Lists and histories are given as in :mod:`recbole_fair.evaluator.functional.alignment`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recbole_fair.data.groups import group_distribution, smoothed_kl
from recbole_fair.evaluator.functional.alignment import row_ids


def calibration_shares(
    counts: Tensor, items: Tensor, indptr: Tensor, entries: Tensor, topk: Sequence[int], levels: Sequence[float]
) -> Tensor:
    r"""Share of the history at or below each popularity quantile of the list (tau-hat, SPREE Eq. 1).

    The quantile at level tau of a list of n items is the order statistic ``ceil(tau n)`` (numpy's ``inverted_cdf``),
    the least popular item for tau = 0. Items as popular as the quantile count as below it.

    Args:
        counts: Popularity of each item id, long ``[n_items]``.
        items: Lists ``[U, K]``.
        indptr: Row bounds of the histories.
        entries: Items of the histories, repeats counted.
        topk: Cutoffs.
        levels: Quantile levels in [0, 1].

    Returns:
        float64 ``[U, len(topk), len(levels)]`` in [0, 1], NaN without a list or a history.
    """
    n_rows, device = len(items), items.device
    beyond = int(counts.max()) + 1  # more popular than any item: where a list has no item
    stride = beyond + 1
    rows = torch.arange(n_rows, device=device).unsqueeze(1)
    # One sorted array for all users: the keys of a row lie between those of its neighbours.
    keys = (row_ids(indptr) * stride + counts[entries]).sort().values
    tau = torch.as_tensor(levels, dtype=torch.double, device=device)
    lengths = indptr.diff().double().unsqueeze(1)
    result = []
    for k in topk:
        shown = items[:, :k] > 0
        ordered = torch.where(shown, counts[items[:, :k]], beyond).sort(1).values
        n = shown.sum(1, keepdim=True)
        # 0.1 * 30 is 3.0000000000000004 in floating point: the tolerance keeps the order statistic the third.
        place = ((tau * n - 1e-9).ceil().long() - 1).clamp(min=0)
        at_most = torch.searchsorted(keys, rows * stride + ordered.gather(1, place), right=True)
        result.append(((at_most - indptr[:-1].unsqueeze(1)) / lengths).masked_fill(n == 0, float("nan")))
    return torch.stack(result, dim=1)


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
        groups: ``[n_items, G]`` as in :func:`recbole_fair.data.groups.group_distribution`.
        topk: Cutoffs.
        smoothing: See :func:`recbole_fair.data.groups.smoothed_kl`.
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
