"""Lorenz and Tilt together: even exposure of items, and each user's own popularity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from recbole_fair.config.keys import Key
from recbole_fair.rerank.adjuster import Offsets, ScoreAdjuster
from recbole_fair.rerank.base import Candidates, Facts
from recbole_fair.rerank.lorenz import LORENZ_LIMITS, LorenzSettings, learn_biases, scale_of
from recbole_fair.rerank.tilt import TILT_LIMITS, TiltSettings, tilt_exponents


@dataclass(frozen=True)
class LorenzTilt(TiltSettings, LorenzSettings, ScoreAdjuster):
    """Top-k of ``s_ui - b_i - a_u log pop_i``: :class:`Lorenz`'s biases and :class:`Tilt`'s exponents.

    While biases are learnt, the exponents are solved for anew every fifth round; a user's target starts from the list
    that the biases alone give. Without ``strength`` it is Lorenz, without ``lambda`` it is Tilt.

    Attributes:
        pool: Best items of each user that biases and exponents are found with.
    """

    learns: ClassVar[bool] = True
    per_user: ClassVar[bool] = True
    limits: ClassVar[dict[str, Key]] = {**ScoreAdjuster.pool_limits, **LORENZ_LIMITS, **TILT_LIMITS}

    @property
    def scale(self) -> str:
        """As :attr:`Lorenz.scale`."""
        return scale_of(self)

    @property
    def changes_nothing(self) -> bool:
        """Whether both strengths are 0."""
        return self.lambda_ == 0 and self.strength == 0

    def check(self, facts: Facts, k: int) -> None:
        """See that the providers are known."""
        facts.providers(self.provider)

    def learn(self, learning: Candidates | None, facts: Facts, k: int) -> Offsets:
        """Biases at equilibrium, exponents following them."""
        assert learning is not None
        if self.strength == 0:
            return learn_biases(self, learning, facts, k)

        def exponents(values: Tensor, items: Tensor, users: Tensor) -> Tensor | None:
            return tilt_exponents(self, values, items, users, facts, k)

        return learn_biases(self, learning, facts, k, exponents)

    def exponents(self, scores: Tensor, items: Tensor, users: Tensor, facts: Facts, k: int) -> Tensor | None:
        """See :func:`~recbole_fair.rerank.tilt.tilt_exponents`."""
        return tilt_exponents(self, scores, items, users, facts, k)
