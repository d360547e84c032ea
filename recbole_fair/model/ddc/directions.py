"""The two directions that DDC corrects users along, and how good a ranking is while they are learnt.

Everything here is plain arithmetic on tensors; :mod:`recbole_fair.model.ddc.ddc` brings the model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_PAIRS = 2**18  # pairs of user and item scored at a time
_ROWS = 256  # rows of scores looked through at a time


def popularity_direction(head: Tensor, tail: Tensor, how: str) -> Tensor:
    """Unit vector ``[d]`` from unpopular to popular items.

    ``pca`` is the first principal component of the differences of all pairs of a popular and an unpopular item, about
    the origin: about their mean it would lose just what the two sides differ in. ``mean`` is the difference of the two
    means. Either points to where the popular items lie.

    Args:
        head: ``[n, d]`` popular items.
        tail: ``[m, d]`` unpopular items.
        how: ``pca`` or ``mean``.

    Returns:
        Of length 1; 0 if both sides are the same.
    """
    head, tail = head.double(), tail.double()
    difference = head.mean(0) - tail.mean(0)
    if how == "pca":
        # Sum over all pairs of (p - q)(p - q)^T, of which only the direction counts.
        cross = head.sum(0).outer(tail.sum(0))
        moments = len(tail) * head.T @ head + len(head) * tail.T @ tail - cross - cross.T
        direction = torch.linalg.eigh(moments).eigenvectors[:, -1]
        direction = direction * torch.sign(direction @ difference)
    else:
        direction = difference
    return F.normalize(direction, dim=0)


def preference_directions(
    users: Tensor, items: Tensor, bias: Tensor | None, indptr: Tensor, history: Tensor, share: float
) -> Tensor:
    """Each user's taste: the normalised mean of the normalised vectors of the items that the model likes best for them.

    Args:
        users: ``[U, d]``.
        items: ``[n_items, d]``.
        bias: ``[n_items]``, or None.
        indptr: long ``[U + 1]``; the items of user ``u`` are ``history[indptr[u]:indptr[u + 1]]``.
        history: long ``[n]`` training items, repeats counted once each.
        share: share of a user's items, best by the model's score, that are taken; rounded up.

    Returns:
        ``[U, d]`` of length 1, 0 for users without items.
    """
    lengths = indptr.diff()
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=history.device), lengths)
    parts = zip(torch.split(owner, _PAIRS), torch.split(history, _PAIRS), strict=True)
    scores = torch.cat([(users[o] * items[i]).sum(1) for o, i in parts])
    if bias is not None:
        scores = scores + bias[history]
    # Best first within each user; equal scores keep their order.
    order = torch.sort(scores, descending=True, stable=True).indices
    order = order[torch.sort(owner[order], stable=True).indices]
    rank = torch.arange(len(history), device=history.device) - indptr[owner]
    wanted = rank < (lengths * share).ceil()[owner]
    chosen = history[order][wanted]
    total = torch.zeros_like(users).index_add_(0, owner[wanted], F.normalize(items, dim=1)[chosen])
    return F.normalize(total, dim=1)


def mean_ndcg(scores: Tensor, row: Tensor, item: Tensor, k: int) -> Tensor:
    """NDCG@k of each user of a batch that has held-out items.

    Args:
        scores: ``[B, n_items]``, -inf where an item may not be recommended.
        row: ``[P]`` row of each held-out item.
        item: ``[P]`` held-out items.
        k: length of the lists.

    Returns:
        ``[B]``.
    """
    own = scores[row, item].unsqueeze(1)
    parts = zip(torch.split(row, _ROWS), torch.split(own, _ROWS), strict=True)
    rank = torch.cat([(scores[r] > s).sum(1) for r, s in parts])
    discounts = 1.0 / torch.log2(torch.arange(k, device=scores.device) + 2.0)
    gains = torch.where(rank < k, discounts[rank.clamp(max=k - 1)], 0.0)
    held_out = torch.bincount(row, minlength=len(scores)).clamp(max=k)
    ideal = torch.cat([discounts.new_zeros(1), discounts.cumsum(0)])[held_out]
    return torch.zeros_like(ideal).index_add_(0, row, gains) / ideal
