"""RandomNeighbors: some of the items nearest to the user, drawn at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from recbole_fair.config.keys import Key
from recbole_fair.rerank.base import Candidates, Facts, ReRanker
from recbole_fair.rerank.random_items import ORDERS, draw


@dataclass(frozen=True)
class RandomNeighbors(ReRanker):
    """K of the ``M = K (1 + alpha)`` items nearest to the user, at random and without replacement.

    Source: baseline of the SPREE paper, which takes it from Ahmadov and Mansoury 2025. Reading: nearest by score (the
    dot product, for models that have one), M rounded to a whole number, random order (unstated in the paper). Strength
    0 leaves the *set* of items unchanged, with ``order: score`` the ranking too.

    Attributes:
        alpha: Strength, from 0 (the paper: to 1).
        order: ``random``, or ``score``: the model's order.
        seed: Seed of the draw; the run's when not set.
    """

    limits: ClassVar[dict[str, Key]] = {
        "alpha": Key("float", low=0),
        "order": Key("str", choices=ORDERS),
        "seed": Key("int", low=0),
    }

    alpha: float
    order: str
    seed: int

    def looks_at(self, k: int) -> int:
        """The neighbourhood ``k (1 + alpha)``."""
        return round(k * (1 + self.alpha))

    def places(self, candidates: Candidates, facts: Facts, k: int) -> Tensor:
        """Draw from the neighbourhood."""
        return draw(candidates.valid, self.looks_at(k), k, self.order, self.seed)
