"""Item groups (genres) and user groups (columns, mainstreamness, interest drift, taste for popular items)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class ItemGroups:
    """Which groups each item belongs to.

    Attributes:
        matrix: ``[n_items, G]``; an item's weights are equal over its groups and sum to 1, or are 0 without a group.
        names: The G group names.
        field: The item column.
    """

    matrix: Any
    names: tuple[str, ...]
    field: str


def taste_groups(head_share: Tensor, bounds: tuple[float, float] = (0.2, 0.8)) -> Tensor:
    """Users by their taste for popular items: 0 niche (lowest fifth), 1 diverse, 2 blockbuster (highest fifth).

    Source: Abdollahpouri et al., UMAP 2021. Ties by position.

    Args:
        head_share: Share of head items in each user's history ``[U]``, NaN without one.
        bounds: Where the ranked users are cut.

    Returns:
        long ``[U]`` in {0, 1, 2}, -1 for users without a history.
    """
    known = ~head_share.isnan()
    n = int(known.sum())
    groups = torch.full_like(head_share, -1, dtype=torch.long)
    rank = torch.empty(n, dtype=torch.long, device=head_share.device)
    rank[head_share[known].argsort(stable=True)] = torch.arange(n, device=head_share.device)
    low, high = (int(n * bound + 0.5) for bound in bounds)
    groups[known] = (rank >= low).long() + (rank >= high).long()
    return groups
