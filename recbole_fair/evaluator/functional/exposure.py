"""Who gets shown: functions of how often (or how visibly) each item is recommended.

The functions of counts take ``[..., n]`` tensors over the catalogue items (zeros included, the padding id left out) and
return ``[...]``, so that one call serves one system or all resamples of a bootstrap. Counts are sums over users: they
can be added across processes before any of these functions is applied.
"""

from __future__ import annotations

import torch
from torch import Tensor


def item_counts(items: Tensor, n_items: int) -> Tensor:
    """How often each catalogue item occurs in the lists.

    Args:
        items: Lists ``[U, K]`` of item ids, 0 = no item.
        n_items: Number of ids including the padding id 0.

    Returns:
        LongTensor ``[n_items - 1]``; entry j is item id j + 1.
    """
    return torch.bincount(items.reshape(-1), minlength=n_items)[1:]


def item_exposure(items: Tensor, n_items: int) -> Tensor:
    """Rank-discounted exposure of each catalogue item: the sum of ``1 / log2(rank + 1)`` over its places in the lists.

    Args:
        items: Lists ``[U, K]`` of item ids, best first, 0 = no item.
        n_items: Number of ids including the padding id 0.

    Returns:
        float64 ``[n_items - 1]``; entry j is item id j + 1.
    """
    ranks = torch.arange(1, items.shape[1] + 1, device=items.device, dtype=torch.double)
    weights = (1 / torch.log2(ranks + 1)).expand(items.shape)
    return torch.bincount(items.reshape(-1), weights=weights.reshape(-1), minlength=n_items)[1:]


def coverage(counts: Tensor, min_count: int = 1) -> Tensor:
    """Share of the catalogue that occurs in at least ``min_count`` lists. Range [0, 1]."""
    return (counts >= min_count).double().mean(-1)


def aggregate_diversity(counts: Tensor) -> Tensor:
    """Number of distinct items that are recommended. Range [0, n]."""
    return (counts > 0).sum(-1).double()


def gini(counts: Tensor) -> Tensor:
    """Gini index ``sum_i (2 i - n - 1) c_(i) / (n sum c)`` with c ascending. Range [0, 1 - 1/n]; 0 if all is 0."""
    n = counts.shape[-1]
    ordered = counts.double().sort(-1).values
    weights = 2 * torch.arange(1, n + 1, device=counts.device, dtype=torch.double) - n - 1
    total = ordered.sum(-1)
    return torch.where(total > 0, (ordered @ weights) / (n * total.clamp(min=1e-300)), torch.zeros_like(total))


def _shares(counts: Tensor) -> Tensor:
    counts = counts.double()
    return counts / counts.sum(-1, keepdim=True).clamp(min=1e-300)


def shannon_entropy(counts: Tensor) -> Tensor:
    """Entropy ``-sum phi log phi`` of the item shares, natural logarithm, in nats. Range [0, log n]."""
    return torch.special.entr(_shares(counts)).sum(-1)


def herfindahl(counts: Tensor) -> Tensor:
    """Sum of squared item shares. Range [1/n, 1] once anything is shown."""
    return _shares(counts).square().sum(-1)


def lorenz_curve(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Lorenz curve: the share of exposure held by the least exposed share of the catalogue.

    The Gini index is one minus twice the area under it (trapezoids).

    Args:
        counts: ``[n]`` counts or exposures.

    Returns:
        Share of items and share of exposure, float64 ``[n + 1]`` each, from (0, 0) to (1, 1).
    """
    shares = _shares(counts.sort().values)
    zero = shares.new_zeros(1)
    n = len(counts)
    return torch.arange(n + 1, device=counts.device, dtype=torch.double) / n, torch.cat([zero, shares.cumsum(0)])
