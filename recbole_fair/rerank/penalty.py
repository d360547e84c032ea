"""Penalty: the plainest way to show popular items less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from recbole_fair.config.keys import Key
from recbole_fair.rerank.adjuster import SCALES, Offsets, ScoreAdjuster
from recbole_fair.rerank.base import Candidates, Facts


@dataclass(frozen=True)
class Penalty(ScoreAdjuster):
    """Top-k of ``s_ui - alpha log(1 + pop_i)``, pop_i being the number of training interactions.

    A baseline that needs no learning, and that many methods of papers do not beat. With ``score: raw`` it needs no
    candidates either, and can be folded into the model's item bias; with ``score: softmax`` it is taken off the model's
    probabilities, and lists are made of each user's best ``pool`` items. Strength 0 changes nothing, bit for bit.

    Attributes:
        alpha: Strength, from 0, in units of scores.
        pool: Best items of each user among which lists are looked for first, and with probabilities alone.
        score: One of :data:`~recbole_fair.rerank.adjuster.SCALES`.
    """

    limits: ClassVar[dict[str, Key]] = {
        **ScoreAdjuster.pool_limits,
        "alpha": Key("float", low=0),
        "score": Key("str", choices=SCALES),
    }

    alpha: float
    score: str

    @property
    def scale(self) -> str:
        """``score``."""
        return self.score

    @property
    def changes_nothing(self) -> bool:
        """Whether alpha is 0."""
        return self.alpha == 0

    def learn(self, learning: Candidates | None, facts: Facts, k: int) -> Offsets:
        """The penalties; nobody is looked at."""
        counts = facts.popularity.counts.double()
        bias = self.alpha * torch.log1p(counts)
        bias[1:] -= bias[1:].min()
        bias[0] = 0
        return Offsets(bias)
