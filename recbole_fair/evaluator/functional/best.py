"""The best entries of wide rows."""

from __future__ import annotations

import torch
from torch import Tensor

_WIDE = 2**15  # columns from which the detour is worth it


def best_of_rows(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``torch.topk(scores, k, dim=1)``, for wide rows in little more than the time of reading them once.

    The k best entries of a row lie in the k groups of columns whose best members are the best: a maximum over groups,
    which runs along contiguous memory, leaves few entries to choose from. NaN stands first, as in ``torch.topk``; which
    of several equal entries is taken is left open, as there.

    Args:
        scores: ``[B, N]``.
        k: how many, in ``1..N``.

    Returns:
        Values, best first, and their columns, each ``[B, k]``.
    """
    rows, columns = scores.shape
    size = _group_size(columns, k)
    if columns < _WIDE or size < 4:
        top = scores.topk(k, dim=1)
        return top.values, top.indices
    groups = columns // size
    even = groups * size
    # Group g holds the columns g, g + groups, g + 2 * groups, ...; the last columns, if any, take part themselves.
    down, along = scores.stride()
    grid = scores.as_strided((rows, size, groups), (down, groups * along, along), scores.storage_offset())
    best = grid.amax(dim=1).topk(min(k, groups), dim=1, sorted=False).indices
    members = torch.arange(size, device=scores.device) * groups
    rest = torch.arange(even, columns, device=scores.device).expand(rows, -1)
    candidates = torch.cat([(best.unsqueeze(2) + members).flatten(1), rest], dim=1)
    top = scores.gather(1, candidates).topk(k, dim=1)
    return top.values, candidates.gather(1, top.indices)


def _group_size(columns: int, k: int) -> int:
    """Power of two that keeps groups (``N / size``) and candidates (``k * size``) about equally few."""
    size = 1
    while 4 * size * size * k <= columns:
        size *= 2
    return size
