"""How the popularity of a list relates to the popularity of what its user consumed before.

Lists are ``items`` (long ``[U, K]``, best first, 0 = no item). Histories are compressed rows, ``indptr`` (long
``[U + 1]``) and ``entries`` (long ``[n]`` item ids, repeats counted each time), row r belonging to list r. Results are
float64 ``[U, len(topk)]``; a row without a list or without a history is NaN, for the caller to leave out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from recbole_fair.data.ragged import owners


def list_means(values: Tensor, items: Tensor, topk: Sequence[int]) -> Tensor:
    """Mean of a per-item value over the first k places.

    Args:
        values: Value of each item id ``[n_items]``.
        items: Lists ``[U, K]``.
        topk: Cutoffs.

    Returns:
        float64 ``[U, len(topk)]``, NaN for an empty list.
    """
    at = torch.as_tensor(topk, device=items.device) - 1
    shown = items > 0
    gathered = values.double()[items] * shown
    return gathered.cumsum(1)[:, at] / shown.cumsum(1)[:, at]


def list_lengths(items: Tensor, topk: Sequence[int]) -> Tensor:
    """Number of items among the first k places, long ``[U, len(topk)]``."""
    at = torch.as_tensor(topk, device=items.device) - 1
    return (items > 0).cumsum(1)[:, at]


def history_means(values: Tensor, indptr: Tensor, entries: Tensor) -> Tensor:
    """Mean of a per-item value over each history, float64 ``[U]``, NaN for an empty history."""
    n = len(indptr) - 1
    sums = torch.zeros(n, dtype=torch.double, device=entries.device)
    return sums.index_add_(0, owners(indptr), values.double()[entries]) / indptr.diff()


def popularity_lift(counts: Tensor, items: Tensor, indptr: Tensor, entries: Tensor, topk: Sequence[int]) -> Tensor:
    """Relative difference ``(mean of list - mean of history) / mean of history`` of item popularity.

    A history of items that all have popularity 0 has no defined lift (NaN). Source: Abdollahpouri et al. 2020.
    """
    before = history_means(counts, indptr, entries).unsqueeze(1)
    lift = (list_means(counts, items, topk) - before) / before
    return lift.masked_fill(before == 0, float("nan"))


def log_popularity_difference(
    log_counts: Tensor, items: Tensor, indptr: Tensor, entries: Tensor, topk: Sequence[int]
) -> Tensor:
    """Difference of the mean log popularity of list and history, in nats. Source: Lichtenberg et al. 2024."""
    return list_means(log_counts, items, topk) - history_means(log_counts, indptr, entries).unsqueeze(1)


def list_shares(segments: Tensor, items: Tensor, topk: Sequence[int], n_segments: int = 3) -> Tensor:
    """Share of the first k places that each segment takes, float64 ``[U, len(topk), n_segments]``."""
    at = torch.as_tensor(topk, device=items.device) - 1
    of_place = segments[items]
    lengths = (items > 0).cumsum(1)[:, at]
    return torch.stack([(of_place == s).cumsum(1)[:, at] / lengths.double() for s in range(n_segments)], dim=-1)


def history_shares(segments: Tensor, indptr: Tensor, entries: Tensor, n_segments: int = 3) -> Tensor:
    """Share of each history that each segment takes, float64 ``[U, n_segments]``."""
    n = len(indptr) - 1
    counts = torch.bincount(owners(indptr) * n_segments + segments[entries], minlength=n * n_segments)
    return counts.view(n, n_segments) / indptr.diff().double().unsqueeze(1)


def jensen_shannon(p: Tensor, q: Tensor, base: float = 2.0) -> Tensor:
    """Jensen-Shannon divergence over the last dimension, with ``0 log 0 = 0``.

    Args:
        p: Distributions ``[..., n]``.
        q: Distributions ``[..., n]``.
        base: Base of the logarithm.

    Returns:
        ``[...]`` in [0, log_base 2]; not the distance, which is its square root.
    """
    middle = (p + q) / 2
    entr = torch.special.entr
    # Equal distributions may come out as -1e-17.
    divergence = (entr(middle) - (entr(p) + entr(q)) / 2).sum(-1).clamp(min=0)
    return divergence / math.log(base)


def user_popularity_deviation(
    segments: Tensor,
    items: Tensor,
    indptr: Tensor,
    entries: Tensor,
    topk: Sequence[int],
    base: float = 2.0,
    smoothing: float = 0.0,
) -> Tensor:
    """Jensen-Shannon divergence between the head, mid and tail shares of history and list.

    Source: Abdollahpouri et al., UMAP 2021.

    Args:
        segments: Segment of each item id, long ``[n_items]`` in {0, 1, 2}.
        items: Lists ``[U, K]``.
        indptr: Row bounds of the histories.
        entries: Items of the histories.
        topk: Cutoffs.
        base: Base of the logarithm.
        smoothing: Added to every share before both sides are normalised again.

    Returns:
        float64 ``[U, len(topk)]`` in [0, log_base 2].
    """
    recommended = list_shares(segments, items, topk) + smoothing
    consumed = history_shares(segments, indptr, entries).unsqueeze(1) + smoothing
    norm = 1 + 3 * smoothing
    return jensen_shannon(consumed / norm, recommended / norm, base)
