"""Lorenz: one bias an item, at the equilibrium of scores and a concave welfare of exposure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from recbole_fair.config.keys import Key
from recbole_fair.rerank.adjuster import Offsets, ScoreAdjuster, row_blocks
from recbole_fair.rerank.base import Candidates, Facts
from recbole_fair.rerank.equilibrium import STEPS, WELFARES, Welfare, find_equilibrium

Exponents = Callable[[Tensor, Tensor, Tensor], "Tensor | None"]


@dataclass(frozen=True)
class LorenzSettings:
    """The keys of :class:`Lorenz`.

    Attributes:
        lambda_: Strength, from 0, in units of scores.
        welfare: ``entropy``, ``gini``, ``maxmin`` or ``alpha`` (:class:`~recbole_fair.rerank.equilibrium.Welfare`).
        alpha: Exponent of ``alpha``: 1 is proportional fairness, 0 is indifferent.
        sharpness: Of ``maxmin``: the larger, the nearer to the least exposed item alone.
        provider: Whose exposure counts: ``item``, ``group`` (head, mid, tail), or an item column.
        exposure: ``count``: places among the first k; ``discounted``: the sum of ``1 / log2(1 + rank)``.
        target: What an item is due: ``equal`` parts; ``merit``: in proportion to the model's own probabilities (softmax
            over the pool, summed over users); ``popularity``: to ``(1 + training count)^gamma``. Dues of items add up
            to those of their provider.
        gamma: Exponent of ``popularity``.
        score: ``raw``; ``logsoftmax``, which gives the same lists; ``standard``: divided by the standard deviation of
            the user's scores.
        rounds: Moves towards equilibrium at most; null: 30 when ``damped``, else 15.
        step: ``damped``, ``frank_wolfe``, or ``auto``: damped for the welfare ``gini``, which is not smooth.
        learn_on: ``valid``: the validation users, whose labels are not looked at; ``own``: those whose lists are made.
        users: Learn on so many of them, evenly spread over the rows; null: on all.
    """

    lambda_: float
    welfare: str
    alpha: float
    sharpness: float
    provider: str
    exposure: str
    target: str
    gamma: float
    score: str
    rounds: int | None
    step: str
    learn_on: str
    users: int | None


LORENZ_LIMITS: dict[str, Key] = {
    "lambda_": Key("float", low=0),
    "welfare": Key("str", choices=WELFARES),
    "alpha": Key("float", low=0),
    "sharpness": Key("float", low=0, open_low=True),
    "provider": Key("str"),
    "exposure": Key("str", choices=("count", "discounted")),
    "target": Key("str", choices=("equal", "merit", "popularity")),
    "gamma": Key("float"),
    "score": Key("str", choices=("raw", "logsoftmax", "standard")),
    "rounds": Key("int", low=1, optional=True),
    "step": Key("str", choices=("auto", *STEPS)),
    "learn_on": Key("str", choices=("valid", "own")),
    "users": Key("int", low=1, optional=True),
}
_LEAST_DUE = 1e-3  # of an equal part: nobody is due nothing, or the first place shown would cost the earth


def learn_biases(
    settings: LorenzSettings, learning: Candidates, facts: Facts, k: int, exponents: Exponents | None = None
) -> Offsets:
    """Biases of items at equilibrium.

    Args:
        settings: Strength and the rest.
        learning: Best items of the users to learn on; no labels.
        facts: Popularity, and providers.
        k: Length of the lists.
        exponents: For :class:`~recbole_fair.rerank.lorenz_tilt.LorenzTilt`: from values, items and users, the users'
            exponents of popularity under these biases.
    """
    n = facts.n_items
    if settings.lambda_ == 0 or not len(learning.items):
        return Offsets(torch.zeros(n, dtype=torch.double))
    learning = _some(learning, settings.users)
    weights = facts.providers(settings.provider)
    rank = torch.arange(2, k + 2, dtype=torch.double)
    discount = 1 / rank.log2() if settings.exposure == "discounted" else torch.ones_like(rank)
    due_of_items = _dues(settings, learning, facts)
    total = float(sum(discount[: min(int(row), k)].sum() for row in _lengths(learning, k)))
    due = total * due_of_items
    if weights is not None:
        due = weights.T @ due
    kept = due > 0  # the padding id, and providers of no item
    due = due[kept]
    pool = _Pool(learning, settings.score == "standard", discount, facts, exponents)

    def spread_out(bias: Tensor) -> Tensor:
        """From each provider's bias to each item's."""
        whole = torch.zeros(len(kept), dtype=torch.double)
        whole[kept] = bias
        return whole if weights is None else weights @ whole

    def expose(bias: Tensor) -> tuple[Tensor, float]:
        found, scores = pool.exposure(spread_out(bias))
        return (found if weights is None else weights.T @ found)[kept], scores

    welfare = Welfare(settings.welfare, settings.alpha, settings.sharpness)
    step = None if settings.step == "auto" else settings.step
    found = find_equilibrium(expose, welfare, due, settings.lambda_, settings.rounds, step)
    bias = spread_out(found.bias)
    bias[1:] -= bias[1:].min()
    bias[0] = 0
    certain = pool.certain(bias)
    return Offsets(bias, {"users": len(learning.items), "certain": certain, **found.report()})


def _lengths(candidates: Candidates, k: int) -> list[int]:
    return candidates.valid[:, :k].sum(1).tolist()


def _some(candidates: Candidates, number: int | None) -> Candidates:
    """A number of rows, evenly spread, the same each time."""
    n = len(candidates.items)
    if number is None or number >= n:
        return candidates
    rows = torch.arange(number) * n // number
    spread = None if candidates.spread is None else candidates.spread[rows]
    return Candidates(candidates.items[rows], candidates.scores[rows], candidates.users[rows], spread)


def _dues(settings: LorenzSettings, learning: Candidates, facts: Facts) -> Tensor:
    """Share of all exposure that each item is due, float64 ``[n_items]``; 0 for the padding id."""
    n = facts.n_items
    due = torch.ones(n, dtype=torch.double)
    if settings.target == "popularity":
        due = (1 + facts.popularity.counts.double()) ** settings.gamma
    elif settings.target == "merit":
        due = torch.zeros(n, dtype=torch.double)
        for rows in row_blocks(*learning.items.shape):
            merit = learning.scores[rows].double().softmax(1).nan_to_num()
            due.index_add_(0, learning.items[rows].reshape(-1), merit.reshape(-1))
    due[0] = 0
    due[1:] = due[1:].clamp(min=_LEAST_DUE * float(due.sum()) / (n - 1))
    return due / due.sum()


class _Pool:
    """The lists of the learning users under biases, a few million candidates at a time."""

    def __init__(
        self, learning: Candidates, standard: bool, discount: Tensor, facts: Facts, exponents: Exponents | None
    ) -> None:
        self._learning, self._discount, self._facts = learning, discount, facts
        self._standard, self._find, self._rounds = standard, exponents, 0
        self._slopes: dict[int, Tensor | None] = {}
        self._log_pop = facts.popularity.log_counts

    def _scores(self, rows: slice) -> Tensor:
        scores = self._learning.scores[rows]
        if self._standard:
            assert self._learning.spread is not None
            scores = scores / self._learning.spread[rows].unsqueeze(1)
        return scores

    def _values(self, rows: slice, bias: Tensor) -> Tensor:
        scores = self._scores(rows)
        return scores - bias.to(scores.dtype)[self._learning.items[rows]]

    def exposure(self, bias: Tensor) -> tuple[Tensor, float]:
        """Exposure of each item id, float64 ``[n_items]``, and the sum of the lists' scores, discounted alike.

        Lists that follow exponents of popularity too do not maximise that sum, which is then NaN.
        """
        found, total = torch.zeros(self._facts.n_items, dtype=torch.double), 0.0
        k = len(self._discount)
        for number, rows in enumerate(row_blocks(*self._learning.items.shape)):
            items, values = self._learning.items[rows], self._values(rows, bias)
            if self._find is not None:
                # Exponents follow the biases slowly; solving for them is dearer than a ranking.
                if self._rounds % _SOLVE_EVERY == 0:
                    self._slopes[number] = self._find(values, items, self._learning.users[rows])
                slopes = self._slopes[number]
                if slopes is not None:
                    values = values - slopes.unsqueeze(1) * self._log_pop[items]
            best = values.topk(min(k, values.shape[1]), dim=1, sorted=bool(self._discount[-1] != 1)).indices
            listed = items.gather(1, best)
            weight = self._discount[: listed.shape[1]].expand(listed.shape)
            own = self._scores(rows).gather(1, best).double()
            total += float((own.masked_fill(listed == 0, 0.0) * weight).sum())
            found += torch.bincount(listed.reshape(-1), weight.reshape(-1), minlength=len(found))
        found[0] = 0
        self._rounds += 1
        return found, total if self._find is None else float("nan")

    def certain(self, bias: Tensor) -> float:
        """Share of users whose list no item outside the pool could enter, popularity exponents left aside."""
        k, count = len(self._discount), 0
        for rows in row_blocks(*self._learning.items.shape):
            values = self._values(rows, bias)
            last = values[:, -1] + bias[self._learning.items[rows][:, -1]] - bias[1:].min()
            settled = values.topk(min(k, values.shape[1]), dim=1).values[:, -1] >= last
            count += int((settled | (self._learning.items[rows][:, -1] == 0)).sum())
        return count / max(len(self._learning.items), 1)


_SOLVE_EVERY = 5


@dataclass(frozen=True)
class Lorenz(LorenzSettings, ScoreAdjuster):
    """Top-k of ``s_ui - b_i``: b_i is ``lambda`` times what exposure of item i is worth less than elsewhere.

    The biases maximise ``sum of scores + lambda * W(exposure)`` over everybody's lists, W a concave welfare
    (:mod:`recbole_fair.rerank.equilibrium`). They are learnt on one set of users without looking at a label, and used
    for others. With ``score: raw`` the result *is* an item bias: it can be folded into the model, and an index over
    items still works. Strength 0 changes nothing, bit for bit.

    Source: the welfare view and its Frank-Wolfe algorithm are Do et al., NeurIPS 2021, and Do and Usunier, SIGIR 2022;
    they keep a mixture of lists for every user. That only the dual bias is kept, learnt once and used for other users,
    is ours. P-MMF with items as providers is an online form of ``maxmin``, FairCo is one step of such a bias from the
    base lists' exposure, and IPR a bias that looks at popularity in place of exposure.

    Attributes:
        pool: Best items of each user that biases are learnt from. The result says for how many of these users
            (``certain``) no item outside the pool could have entered the list.
    """

    learns: ClassVar[bool] = True
    limits: ClassVar[dict[str, Key]] = {**ScoreAdjuster.pool_limits, **LORENZ_LIMITS}

    @property
    def scale(self) -> str:
        """``standard`` or ``raw``: the logarithm of the softmax takes the same number off all of a user's scores."""
        return "standard" if self.score == "standard" else "raw"

    @property
    def changes_nothing(self) -> bool:
        """Whether lambda is 0."""
        return self.lambda_ == 0

    def check(self, facts: Facts, k: int) -> None:
        """See that the providers are known."""
        facts.providers(self.provider)

    def learn(self, learning: Candidates | None, facts: Facts, k: int) -> Offsets:
        """See :func:`learn_biases`."""
        assert learning is not None
        return learn_biases(self, learning, facts, k)
