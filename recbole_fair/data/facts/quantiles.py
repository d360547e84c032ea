"""Where the popularity quantiles of a list lie in the popularity distribution of its user's history.

The metric PCE and the bias that SPREE learns (its Eq. 1 and 4) are both made of these shares.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recbole_fair.data.ragged import owners


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
    owner = owners(indptr)
    # One sorted array for all users: the keys of a row lie between those of its neighbours.
    keys = (owner * stride + counts[entries]).sort().values
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
