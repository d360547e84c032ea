"""Random: some of the top items, drawn at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from recbole_fair.config.keys import Key
from recbole_fair.errors import FairError
from recbole_fair.rerank.base import Candidates, Facts, ReRanker

ORDERS = ("random", "score")


def draw(valid: Tensor, pool: int, k: int, order: str, seed: int) -> Tensor:
    """Draw k of the first ``pool`` candidates of each row without replacement.

    Args:
        valid: bool ``[U, C]``.
        pool: How many of the best candidates to draw from.
        k: Length of the lists.
        order: ``random``, or ``score``: the drawn items in the model's order.
        seed: Seed of the draw.

    Returns:
        Columns, long ``[U, min(k, pool, C)]``; -1 where the candidates ran out.
    """
    valid = valid[:, :pool]
    generator = torch.Generator(valid.device).manual_seed(seed)
    # The largest of independent uniform numbers are a sample without replacement, in random order.
    lots = torch.rand(valid.shape, generator=generator, device=valid.device).masked_fill(~valid, -1.0)
    drawn, places = lots.topk(min(k, lots.shape[1]), dim=1)
    ended = valid.shape[1]
    places = places.masked_fill(drawn < 0, ended)
    if order == "score":
        places = places.sort(1).values
    return places.masked_fill(places == ended, -1)


@dataclass(frozen=True)
class Random(ReRanker):
    """K of the ``pool`` best items, at random and without replacement.

    Source: baseline of the PopSteer paper (pool 15, 30, 50, 75, 100), whose code draws *with* replacement. Here the
    K items are distinct. ``pool`` = K with ``order: score`` changes nothing.

    Attributes:
        pool: How many of the best candidates to draw from, at least K.
        order: ``random``, or ``score``: the model's order.
        seed: Seed of the draw; the run's when not set.
    """

    limits: ClassVar[dict[str, Key]] = {
        "pool": Key("int", low=1),
        "order": Key("str", choices=ORDERS),
        "seed": Key("int", low=0),
    }

    pool: int
    order: str
    seed: int

    @property
    def builds_in_order(self) -> bool:
        """In random order."""
        return self.order == "random"

    def looks_at(self, k: int) -> int:
        """The pool."""
        return self.pool

    def check(self, facts: Facts, k: int) -> None:
        """See that the pool is large enough.

        Raises:
            FairError: if it holds fewer than k items.
        """
        if self.pool < k:
            raise FairError(f"reranker_pool={self.pool} is not allowed: lists of {k} items need at least {k}.")

    def places(self, candidates: Candidates, facts: Facts, k: int) -> Tensor:
        """Draw."""
        return draw(candidates.valid, self.pool, k, self.order, self.seed)
