"""PP: scores mixed with how often the user has met the item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from recbole_fair.config.keys import Key
from recbole_fair.errors import FairError
from recbole_fair.rerank.base import Candidates, Facts, ReRanker, best_places


@dataclass(frozen=True)
class PP(ReRanker):
    """Personalized Popularity: ``alpha * own count + (1 - alpha) * score``.

    Source: Abbattista et al., RecSys 2024, as a baseline of the SPREE paper. Reading: the own count is divided by that
    of the user's most frequent item, and scores are scaled to [0, 1] over the user's candidates, so that alpha means
    the same for every model (``score: raw`` leaves them as they are). Items that tie, such as all unseen items at
    alpha 1, keep the model's order. Strength 0 changes nothing. Only candidates are ranked: an item of the history
    that is not among them stays out, ``reranker_candidates: null`` makes all items candidates.

    Attributes:
        alpha: Strength in [0, 1]; at 1 the user's own counts decide.
        score: ``minmax`` or ``raw``.
    """

    builds_in_order = True
    promotes_seen = True
    limits: ClassVar[dict[str, Key]] = {
        "alpha": Key("float", low=0, high=1),
        "score": Key("str", choices=("minmax", "raw")),
    }

    alpha: float
    score: str

    def check(self, facts: Facts, k: int) -> None:
        """See that items of the history can be recommended at all.

        Raises:
            FairError: if they are masked.
        """
        if facts.masks_seen:
            raise FairError(
                "reranker=PP promotes items of the user's history, but the evaluation leaves them out: "
                "set mask_seen=none, with mode: full of eval_args."
            )

    def places(self, candidates: Candidates, facts: Facts, k: int) -> Tensor:
        """Sort by the mixture; equal values keep the model's order."""
        own = facts.history_counts(candidates.users, candidates.items)
        mixed = torch.lerp(candidates.scaled(self.score), own, self.alpha)
        return best_places(mixed, candidates.valid, k)
