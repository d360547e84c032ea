"""The best items of many users out of a catalogue that is too large for a matrix of scores."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_fair.rerank.base import Candidates

_GROUP = 32
_BYTES = 256 * 2**20


def best_items(
    users: Tensor, items: Tensor, number: int, ids: Tensor | None = None, item_bias: Tensor | None = None
) -> Candidates:
    """Exactly the best items of every user by ``users @ items.T + item_bias``, a few hundred megabytes at a time.

    A row's best C items lie in the C groups of items whose best members are the best; so one pass over the scores takes
    the groups' maxima, and only C groups are looked into.

    Args:
        users: Vectors ``[U, d]``.
        items: Vectors ``[n_items, d]``, row 0 the padding item, which is never among the best.
        number: How many items a user, C.
        ids: User id of each row, long ``[U]``; 1, 2, ... when left out.
        item_bias: ``[n_items]``, or None.

    Returns:
        Candidates ``[U, C]``, best first; of equal scores any may stand.
    """
    n = len(items)
    number = min(number, n - 1)
    width = -(-n // _GROUP)
    padded = torch.nn.functional.pad(items, (0, 0, 0, width * _GROUP - n)).t().contiguous()
    shift = torch.zeros(width * _GROUP, dtype=users.dtype) if item_bias is None else item_bias.to(users.dtype)
    shift = torch.nn.functional.pad(shift, (0, width * _GROUP - len(shift)))
    shift[0] = shift[n:] = -torch.inf
    step = max(1, _BYTES // (4 * width * _GROUP))
    groups = min(number, width)
    member = torch.arange(_GROUP) * width
    found_items, found_scores = [], []
    for start in range(0, len(users), step):
        scores = (users[start : start + step] @ padded).add_(shift)
        # Group g holds the items g, g + width, g + 2 width, ...: maxima over a leading dimension are quick.
        tops = scores.view(len(scores), _GROUP, width).amax(1).topk(groups, dim=1, sorted=False).indices
        at = (tops.unsqueeze(2) + member).flatten(1)
        best = scores.gather(1, at).topk(number, dim=1)
        found_items.append(at.gather(1, best.indices))
        found_scores.append(best.values)
    chosen, values = torch.cat(found_items), torch.cat(found_scores)
    users_of = torch.arange(1, len(users) + 1) if ids is None else ids
    return Candidates(chosen.masked_fill(values == -torch.inf, 0), values, users_of)
