"""Accuracy of ranked lists, per user and cutoff, from the hits at each rank.

All functions take ``hits`` (bool ``[U, K]``, whether the item at a rank is a held-out item), ``n_positives`` (long
``[U]``, number of held-out items) and ``topk`` (cutoffs, each at most K), and return float64 ``[U, len(topk)]``.
Rows without held-out items have no defined value and are NaN. Values equal RecBole's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def _at(values: Tensor, topk: Sequence[int]) -> Tensor:
    """Columns ``k - 1`` of a ``[U, K]`` matrix."""
    return values[:, torch.as_tensor(topk, device=values.device) - 1]


def _undefined(values: Tensor, n_positives: Tensor) -> Tensor:
    """NaN in the rows that have no held-out item."""
    return values.masked_fill((n_positives == 0).unsqueeze(1), float("nan"))


def _cutoffs(topk: Sequence[int], like: Tensor) -> Tensor:
    return torch.as_tensor(topk, dtype=torch.double, device=like.device)


def hit(hits: Tensor, n_positives: Tensor, topk: Sequence[int]) -> Tensor:
    """1 if any held-out item is among the first k, else 0."""
    return _undefined((_at(hits.cumsum(1), topk) > 0).double(), n_positives)


def recall(hits: Tensor, n_positives: Tensor, topk: Sequence[int]) -> Tensor:
    """Share of the held-out items that are among the first k."""
    return _undefined(_at(hits.cumsum(1), topk).double() / n_positives.unsqueeze(1), n_positives)


def precision(hits: Tensor, n_positives: Tensor, topk: Sequence[int]) -> Tensor:
    """Share of the k places taken by held-out items; the divisor is k even where a list is shorter."""
    return _undefined(_at(hits.cumsum(1), topk).double() / _cutoffs(topk, hits), n_positives)


def mrr(hits: Tensor, n_positives: Tensor, topk: Sequence[int]) -> Tensor:
    """Reciprocal rank of the first held-out item among the first k, 0 if there is none."""
    ranks = torch.arange(1, hits.shape[1] + 1, device=hits.device, dtype=torch.double)
    first = ((hits.cumsum(1) == 1) & hits).double() / ranks
    return _undefined(_at(first.cumsum(1), topk), n_positives)


def average_precision(hits: Tensor, n_positives: Tensor, topk: Sequence[int]) -> Tensor:
    """Sum of the precision at each hit among the first k, divided by ``min(n_positives, k)``."""
    ranks = torch.arange(1, hits.shape[1] + 1, device=hits.device, dtype=torch.double)
    summed = (hits.cumsum(1) / ranks * hits).cumsum(1)
    best = torch.minimum(n_positives.unsqueeze(1).double(), _cutoffs(topk, hits))
    return _undefined(_at(summed, topk) / best, n_positives)


def ndcg(hits: Tensor, n_positives: Tensor, topk: Sequence[int]) -> Tensor:
    """Discounted gain ``1 / log2(rank + 1)`` of the hits among the first k over that of the best possible list."""
    ranks = torch.arange(1, hits.shape[1] + 1, device=hits.device, dtype=torch.double)
    discounts = 1 / torch.log2(ranks + 1)
    gained = (hits * discounts).cumsum(1)
    ideal = torch.cat([discounts.new_full((1,), float("nan")), discounts.cumsum(0)])
    best = torch.minimum(n_positives.unsqueeze(1), torch.as_tensor(topk, device=hits.device))
    return _undefined(_at(gained, topk) / ideal[best], n_positives)
