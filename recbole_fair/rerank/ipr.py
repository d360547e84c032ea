"""IPR: scores divided by popularity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from recbole_fair.config.keys import Key
from recbole_fair.rerank.base import Candidates, Facts, ReRanker, best_places


@dataclass(frozen=True)
class IPR(ReRanker):
    """Inverse Popularity Ranking: ``s / (1 + alpha * rho)``, rho = training count / largest training count.

    Source: Zhang and Hurley 2010, in the form of the PopSteer and SPREE papers. Reading: a negative score is
    *multiplied* by ``1 + alpha * rho``, since dividing it would promote popular items. Strength 0 changes nothing.

    Attributes:
        alpha: Strength, from 0.
    """

    builds_in_order = True
    limits: ClassVar[dict[str, Key]] = {"alpha": Key("float", low=0)}

    alpha: float

    def places(self, candidates: Candidates, facts: Facts, k: int) -> Tensor:
        """Sort by the damped scores."""
        counts = facts.popularity.counts.to(candidates.items.device)
        damping = 1 + self.alpha * counts.double() / counts.max().clamp(min=1)
        by, scores = damping[candidates.items], candidates.scaled("raw")
        return best_places(torch.where(scores >= 0, scores / by, scores * by), candidates.valid, k)
