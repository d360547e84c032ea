"""The best items of many users out of a catalogue that is too large for a matrix of scores."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_fair.rerank.base import Candidates

_GROUP = 32
_BYTES = 256 * 2**20


@torch.no_grad()
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
    n, given = len(items), users.dtype
    number = min(number, n - 1)
    width = -(-n // _GROUP)
    # Slab j holds the items j width, j width + 1, ...; group g the items g, g + width, g + 2 width, ...
    padded = torch.nn.functional.pad(items, (0, 0, 0, width * _GROUP - n))
    slabs = padded.view(_GROUP, width, -1).transpose(1, 2).contiguous()
    shift = None if item_bias is None else torch.nn.functional.pad(item_bias.to(given), (0, width * _GROUP - n))
    step = max(1, min(_BYTES // (4 * width * _GROUP), len(users)))
    scores = torch.empty(_GROUP, step, width, dtype=given)
    found_items, found_scores = [], []
    for start in range(0, len(users), step):
        part = users[start : start + step]
        of_slab = scores[:, : len(part)]
        for j in range(_GROUP):
            torch.mm(part, slabs[j], out=of_slab[j])
            if shift is not None:
                of_slab[j].add_(shift[j * width : (j + 1) * width])
            if j == 0:
                of_slab[j][:, 0] = -torch.inf
                tops = of_slab[j].clone()
            if (j + 1) * width > n:
                of_slab[j][:, max(n - j * width, 0) :] = -torch.inf
            torch.maximum(tops, of_slab[j], out=tops)
        chosen, values = _best_of_groups(of_slab, tops, number)
        found_items.append(chosen)
        found_scores.append(values)
    ids_of = torch.arange(1, len(users) + 1) if ids is None else ids
    items_of, scores_of = torch.cat(found_items), torch.cat(found_scores)
    return Candidates(items_of.masked_fill(scores_of == -torch.inf, 0), scores_of, ids_of)


def _best_of_groups(scores: Tensor, tops: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Ids and scores of the best items ``[U, number]``, best first.

    Args:
        scores: By slab ``[_GROUP, U, width]``.
        tops: The best of each group ``[U, width]``.
        number: How many.
    """
    width = tops.shape[1]
    groups = tops.topk(min(number, width), dim=1, sorted=False).indices
    members = scores.gather(2, groups.expand(len(scores), -1, -1)).transpose(0, 1).flatten(1)
    best = members.topk(number, dim=1)
    slab = best.indices // groups.shape[1]
    return slab * width + groups.gather(1, best.indices % groups.shape[1]), best.values
