"""The best items of many users out of a catalogue that is too large for a matrix of scores."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from recbole_fair.io.threads import in_threads, parts_for
from recbole_fair.rerank.base import Candidates

_GROUP = 32
_BYTES = 256 * 2**20


@torch.no_grad()
def best_items(
    users: Tensor, items: Tensor, number: int, ids: Tensor | None = None, item_bias: Tensor | None = None
) -> Candidates:
    """Exactly the best items of every user by ``users @ items.T + item_bias``, a few hundred megabytes at a time.

    A row's best C items lie in the C groups of items whose best members are the best; so one pass over the scores takes
    the groups' maxima, and only C groups are looked into. Each of PyTorch's threads has users of its own.

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
    slabs = items.new_zeros(_GROUP, items.shape[1], width)
    for j, slab in enumerate(torch.split(items, width)):
        slabs[j, :, : len(slab)] = slab.t()
    shift = None if item_bias is None else torch.nn.functional.pad(item_bias.to(given), (0, width * _GROUP - n))
    parts = parts_for(len(users))
    step = max(1, min(_BYTES // (4 * width * _GROUP * parts), -(-len(users) // parts)))
    found = Candidates(
        # Made once: thousands of pieces would be joined in twice the memory.
        torch.empty(len(users), number, dtype=torch.long),
        torch.empty(len(users), number, dtype=given),
        torch.arange(1, len(users) + 1) if ids is None else ids,
    )
    share = -(-len(users) // parts)
    in_threads(
        [
            partial(_fill, found.part(slice(at, at + share)), users[at : at + share], slabs, shift, n, step)
            for at in range(0, len(users), share)
        ]
    )
    return found


def _fill(found: Candidates, users: Tensor, slabs: Tensor, shift: Tensor | None, n: int, step: int) -> None:
    """Write the best items of some users ``[U, d]`` into ``found``, so many users at a time."""
    width, number = slabs.shape[2], found.items.shape[1]
    scores = torch.empty(_GROUP, min(step, len(users)), width, dtype=users.dtype)
    for start in range(0, len(users), step):
        rows = slice(start, start + step)
        part = users[rows]
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
        found.items[rows] = chosen.masked_fill(values == -torch.inf, 0)
        found.scores[rows] = values


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
