"""Diversity: lists of items that resemble each other less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from recbole_fair.config.keys import Key
from recbole_fair.rerank.base import Candidates, Facts, ReRanker

_CELLS = 4_000_000  # user-item-item triples worked on at a time


@dataclass(frozen=True)
class Diversity(ReRanker):
    """Topic diversification: ``(1 - theta) * relevance rank + theta * dissimilarity rank``, smallest first.

    The first item is the best one. For each next place the other candidates are ranked by their summed similarity to
    the list so far, the least similar first.

    Source: Ziegler et al., WWW 2005, as a baseline of DecRS, which does not say what similarity it uses. Reading:
    cosine of the items' group weights (``group_field``); equally similar items keep the model's order. Strength 0
    changes nothing. Needs ``group_field``.

    Attributes:
        theta: Strength in [0, 1] (DecRS: .01 to .2).
        pool_factor: The best ``pool_factor * K`` candidates are looked at (the paper: 5).
    """

    limits: ClassVar[dict[str, Key]] = {"theta": Key("float", low=0, high=1), "pool_factor": Key("int", low=1)}
    needs = ("item_groups",)

    theta: float
    pool_factor: int

    def looks_at(self, k: int) -> int:
        """The pool ``pool_factor * k``."""
        return self.pool_factor * k

    def places(self, candidates: Candidates, facts: Facts, k: int) -> Tensor:
        """Build the lists item by item, for a block of users at a time."""
        groups = torch.nn.functional.normalize(facts.item_groups.to(candidates.items.device), dim=1)
        items = candidates.items[:, : self.looks_at(k)]
        rows = max(1, _CELLS // items.shape[1] ** 2)
        blocks = [items[start : start + rows] for start in range(0, len(items), rows)]
        return torch.cat([self._block(block, groups[block], k) for block in blocks])

    def _block(self, items: Tensor, mine: Tensor, k: int) -> Tensor:
        similar = mine @ mine.transpose(1, 2)  # [B, P, P]
        ranks = torch.arange(items.shape[1], dtype=torch.double, device=items.device)
        every = torch.arange(len(items), device=items.device)
        free, to_list = items > 0, torch.zeros(items.shape, dtype=torch.double, device=items.device)
        chosen = []
        for place in range(min(k, items.shape[1])):
            # Sums of the same cosines in another order differ in the last bits; they are ties all the same.
            order = (to_list * 1e9).round().masked_fill(~free, torch.inf).argsort(dim=1, stable=True)
            unlike = torch.empty_like(to_list).scatter_(1, order, ranks.expand_as(to_list))
            value = (1 - self.theta) * ranks + self.theta * unlike if place else ranks.expand_as(to_list)
            best = value.masked_fill(~free, torch.inf).argmin(1)
            chosen.append(best.masked_fill(~free.any(1), -1))
            free[every, best] = False
            to_list += similar[every, best]
        return torch.stack(chosen, dim=1)
