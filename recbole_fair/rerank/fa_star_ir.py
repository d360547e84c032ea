"""FA*IR: every prefix of a list holds enough tail items to pass a binomial test."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binom
from torch import Tensor

from recbole_fair.config.keys import Key
from recbole_fair.data.facts.popularity import TAIL
from recbole_fair.rerank.base import Candidates, Facts, ReRanker
from recbole_fair.rerank.queues import GroupQueues

Floats = npt.NDArray[np.float64]


def failure_probability(minimum: npt.ArrayLike, p: float) -> float:
    """Probability that a list of independent draws, protected with probability p, fails the table at some prefix.

    Args:
        minimum: Least number of protected items among the first 1, 2, ..., k.
        p: Share of protected items, in [0, 1].

    Returns:
        In [0, 1].
    """
    table = np.asarray(minimum, dtype=int)
    alive = np.zeros(len(table) + 1)  # by number of protected items so far, for lists that have not failed
    alive[0] = 1.0
    for wanted in table:
        alive[1:] = alive[1:] * (1 - p) + alive[:-1] * p
        alive[0] *= 1 - p
        alive[:wanted] = 0.0
    return float(1 - alive.sum())


@cache
def minimum_protected(k: int, p: float, alpha: float, correction: str) -> tuple[tuple[int, ...], float]:
    """The table of FA*IR: least number of protected items among the first 1, 2, ..., k.

    ``m(i)`` is the smallest z with ``F(z; i, p) > alpha_c``, F the binomial distribution function.

    Args:
        k: Length of the list.
        p: Wanted share of protected items, in [0, 1].
        alpha: Largest probability that a fair list fails, in (0, 1).
        correction: ``exact``: the largest alpha_c at which a list of fair draws fails with probability at most alpha
            over all its prefixes (AdjustSignificance of the paper); ``sidak``: ``1 - (1 - alpha)^(1/k)``, as if
            prefixes were independent, which is stricter on itself than it need be; ``none``: alpha at each prefix.

    Returns:
        The table and alpha_c. A range of exact levels has the same table; its upper end is given.
    """
    cdf = binom.cdf(np.arange(k)[None, :], np.arange(1, k + 1)[:, None], p)

    def table(level: float) -> npt.NDArray[np.int64]:
        # Equal values of F may differ in the last bit.
        counts: npt.NDArray[np.int64] = np.minimum((cdf <= level * (1 + 1e-12)).sum(1), np.arange(1, k + 1))
        return counts

    if correction == "none":
        level = alpha
    elif correction == "sidak":
        level = 1 - (1 - alpha) ** (1 / k)
    else:
        # The table changes only where alpha_c passes a value of F: search among these, not in the continuum.
        steps = np.concatenate([[0.0], np.unique(cdf[(cdf > 0) & (cdf < 1)]), [1.0]])
        low, high = 0, len(steps) - 1  # the first never fails; one wanted item more than possible always does
        while high - low > 1:
            middle = (low + high) // 2
            if failure_probability(table(steps[middle]), p) <= alpha:
                low = middle
            else:
                high = middle
        return tuple(table(steps[low]).tolist()), float(steps[low + 1])
    return tuple(table(level).tolist()), level


@dataclass(frozen=True)
class FAstarIR(ReRanker):
    """FA*IR: the best items in order, with a tail item put forward wherever a prefix would hold too few of them.

    Source: Zehlike et al., CIKM 2017; protected are the tail items, as in the PopSteer paper. Reading: the exact
    adjustment of the significance level (the PopSteer code uses Sidak's, which is an option). If a user's tail
    candidates run out, others take their place. Strength 0 (p = 0, or a p so small that the table is all zeros, such
    as p <= .2 for K = 10) changes nothing. Unlike the table of a whole list, that of a longer K is adjusted for more
    prefixes, so lists of 5 are not the first halves of lists of 10.

    Attributes:
        p: Wanted share of tail items, in [0, 1]; at 1 the list is all tail.
        alpha: Significance level in (0, 1).
        correction: ``exact``, ``sidak`` or ``none``: see :func:`minimum_protected`.
    """

    limits: ClassVar[dict[str, Key]] = {
        "p": Key("float", low=0, high=1),
        "alpha": Key("float", low=0, high=1, open_low=True, open_high=True),
        "correction": Key("str", choices=("exact", "sidak", "none")),
    }
    needs = ("segments",)

    p: float
    alpha: float
    correction: str

    def describe(self, k: int) -> dict[str, Any]:
        """Settings, the table and the adjusted level."""
        table, level = minimum_protected(k, self.p, self.alpha, self.correction)
        return {**super().describe(k), "alpha_c": level, "minimum_protected": list(table)}

    def places(self, candidates: Candidates, facts: Facts, k: int) -> Tensor:
        """Merge the protected and the other candidates, by score unless the table forces a protected one."""
        table, _ = minimum_protected(k, self.p, self.alpha, self.correction)
        protected = (facts.segments == TAIL).long().to(candidates.items.device)
        queues = GroupQueues(protected[candidates.items].masked_fill(~candidates.valid, -1), 2)
        count = torch.zeros(len(candidates.items), dtype=torch.long, device=candidates.items.device)
        chosen = []
        for wanted in table:
            others, ours = queues.heads().unbind(1)
            take_ours = (ours < queues.none) & ((count < wanted) | (ours < others))
            column = queues.take(take_ours.long())
            count += take_ours
            chosen.append(column)
        return torch.stack(chosen, dim=1)
