"""Tilt: lists as popular as their own user's past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from recbole_fair.config.keys import Key
from recbole_fair.rerank.adjuster import ScoreAdjuster
from recbole_fair.rerank.base import Facts
from recbole_fair.rerank.tilting import MATCHES, list_popularity, solve_exponents


@dataclass(frozen=True)
class TiltSettings:
    """The keys of :class:`Tilt`.

    Attributes:
        strength: How much of the way from the list's popularity to the history's, in [0, 1].
        match: ``mean`` or ``median`` log popularity.
        shrinkage: So many items of the population's mean are added to every history.
    """

    strength: float
    match: str
    shrinkage: float


TILT_LIMITS: dict[str, Key] = {
    "strength": Key("float", low=0, high=1),
    "match": Key("str", choices=MATCHES),
    "shrinkage": Key("float", low=0),
}


def tilt_exponents(
    settings: TiltSettings, scores: Tensor, items: Tensor, users: Tensor, facts: Facts, k: int
) -> Tensor | None:
    """Exponents of users under some settings, float64 ``[U]``; None at strength 0.

    Args:
        settings: Strength, match and shrinkage.
        scores: ``[U, C]``, -inf where there is no item.
        items: Item ids ``[U, C]`` or ``[1, C]``.
        users: User ids ``[U]``.
        facts: Popularity and histories.
        k: Length of the lists.
    """
    if settings.strength == 0:
        return None
    log_pop = facts.popularity.log_counts.to(scores.device)[items].expand(scores.shape)
    at = scores.topk(min(k, scores.shape[1]), dim=1, sorted=False).indices
    there = scores.gather(1, at) > -torch.inf
    now = list_popularity(log_pop.gather(1, at).masked_fill(~there, torch.nan), settings.match)
    wanted = facts.history_popularity(users, settings.match, settings.shrinkage)
    target = now + settings.strength * (wanted - now)
    return solve_exponents(scores, log_pop, target, k, settings.match)


@dataclass(frozen=True)
class Tilt(TiltSettings, ScoreAdjuster):
    """Top-k of ``s_ui - a_u log pop_i``, every user's exponent a_u solved for.

    pop_i is the number of training interactions (at least 1). By bisection a_u is such that the mean log popularity of
    the user's list lies ``strength`` of the way from that of the model's own list to that of the training history. A
    positive a_u makes the list less popular, a negative one more. A list is a choice of whole items, so the target is
    met up to the step of one swap.

    Users without a history get the mean of all interactions as theirs. Nothing is learnt and no label is used: a user
    whom training has not seen needs a history only. Strength 0 changes nothing, bit for bit.

    A method of this package. SPREE (Schirmer et al., 2026) estimates how biased a user's list is and pushes a fixed
    vector by so much; here the push is solved for. We know of no source for a popularity exponent of each user's own
    that is solved in this way.

    Attributes:
        pool: Best items of each user among which the exponent is looked for first; where they do not settle it, all
            items are taken.
    """

    per_user: ClassVar[bool] = True
    limits: ClassVar[dict[str, Key]] = {**ScoreAdjuster.pool_limits, **TILT_LIMITS}

    @property
    def changes_nothing(self) -> bool:
        """Whether strength is 0."""
        return self.strength == 0

    def exponents(self, scores: Tensor, items: Tensor, users: Tensor, facts: Facts, k: int) -> Tensor | None:
        """See :func:`tilt_exponents`."""
        return tilt_exponents(self, scores, items, users, facts, k)
