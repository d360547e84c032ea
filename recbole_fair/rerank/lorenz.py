"""Lorenz: one bias an item, at the equilibrium of scores and a concave welfare of exposure."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from recbole_fair.config.keys import Key
from recbole_fair.rerank.adjuster import Offsets, ScoreAdjuster, lowest_offset, norm_in, on_scale, row_blocks
from recbole_fair.rerank.base import Candidates, Facts
from recbole_fair.rerank.equilibrium import STEPS, WELFARES, Welfare, find_equilibrium

logger = logging.getLogger(__name__)

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
        score: What lists are worth. ``raw``: the sum of scores, which makes the result an item bias; ``logsoftmax``
            gives the same lists. ``softmax``: the sum of the model's probabilities, that is of expected hits, so that
            users whose next item is uncertain bear more of the change. ``standard``: scores divided by the standard
            deviation of the user's.
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
    "score": Key("str", choices=("raw", "softmax", "logsoftmax", "standard")),
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
    pool = _Pool(learning, scale_of(settings), discount, facts, exponents)

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
    if not bool(bias.any()) and found.residual > 0:
        logger.warning(
            "reranker_lambda=%g: no biases were found whose lists are better than the model's own, which stay as they "
            "are. Give a strength nearer to the scale of these scores (%s), or a larger reranker_pool.",
            settings.lambda_,
            settings.score,
        )
    certain = pool.certain(bias)
    return Offsets(bias, {"users": len(learning.items), "certain": certain, **found.report()})


def _lengths(candidates: Candidates, k: int) -> list[int]:
    return candidates.valid[:, :k].sum(1).tolist()


def _some(candidates: Candidates, number: int | None) -> Candidates:
    """A number of rows, evenly spread, the same each time."""
    n = len(candidates.items)
    if number is None or number >= n:
        return candidates
    return candidates.part(torch.arange(number) * n // number)


def scale_of(settings: LorenzSettings) -> str:
    """One of :data:`SCALES`: the logarithm of the softmax takes the same number off all of a user's scores."""
    return "raw" if settings.score == "logsoftmax" else settings.score


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
        self, learning: Candidates, scale: str, discount: Tensor, facts: Facts, exponents: Exponents | None
    ) -> None:
        self._learning, self._discount, self._facts = learning, discount, facts
        self._find, self._rounds = exponents, 0
        self._blocks = row_blocks(*learning.items.shape)
        self._slopes: dict[int, Tensor | None] = {}
        self._log_pop = facts.popularity.log_counts
        scores = [on_scale(scale, part.scores, norm_in(scale, part)) for part in map(learning.part, self._blocks)]
        # Probabilities are worth no more than single precision, and half as dear.
        self._scores = [block.float() if scale == "softmax" else block for block in scores]

    def exposure(self, bias: Tensor) -> tuple[Tensor, float]:
        """Exposure of each item id, float64 ``[n_items]``, and the sum of the lists' scores, discounted alike.

        Lists that follow exponents of popularity too do not maximise that sum, which is then NaN.
        """
        found, total = torch.zeros(self._facts.n_items, dtype=torch.double), 0.0
        for number in range(len(self._blocks)):
            if self._find is not None and self._rounds % _SOLVE_EVERY == 0:
                # Exponents follow the biases slowly; solving for them is dearer than a ranking.
                rows = self._blocks[number]
                items = self._learning.items[rows]
                values = self._scores[number] - bias.to(self._scores[number].dtype)[items]
                self._slopes[number] = self._find(values, items, self._learning.users[rows])
            listed, own = self._lists(number, bias)
            weight = self._discount[: listed.shape[1]].expand(listed.shape)
            total += float((own.double().masked_fill(listed == 0, 0.0) * weight).sum())
            found += torch.bincount(listed.reshape(-1), weight.reshape(-1), minlength=len(found))
        found[0] = 0
        self._rounds += 1
        return found, total if self._find is None else float("nan")

    def _lists(self, number: int, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Items of a block's lists ``[U, k]`` and their scores: out of the very best items where these settle them."""
        scores, items = self._scores[number], self._learning.items[self._blocks[number]]
        slopes = self._slopes.get(number)
        width = _FIRST * len(self._discount)
        if items.shape[1] <= 2 * width:
            return self._best(scores, items, slopes, bias)[:2]
        listed, own, last = self._best(scores[:, :width], items[:, :width], slopes, bias)
        lowest = bias[1:].min() if slopes is None else lowest_offset(bias, self._log_pop, slopes)
        rows = (scores[:, width] - lowest > last).nonzero().squeeze(1)
        if len(rows):
            some = None if slopes is None else slopes[rows]
            listed[rows], own[rows], _ = self._best(scores[rows], items[rows], some, bias)
        return listed, own

    def _best(
        self, scores: Tensor, items: Tensor, slopes: Tensor | None, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best items of each row, their scores, and the last one's value."""
        values = scores - bias.to(scores.dtype)[items]
        if slopes is not None:
            values = values - slopes.unsqueeze(1) * self._log_pop[items]
        k = min(len(self._discount), values.shape[1])
        best = values.topk(k, dim=1, sorted=bool(self._discount[-1] != 1))
        return items.gather(1, best.indices), scores.gather(1, best.indices), best.values.amin(1)

    def certain(self, bias: Tensor) -> float:
        """Share of users whose list no item outside the pool could enter, popularity exponents left aside."""
        k, count = len(self._discount), 0
        for rows, scores in zip(self._blocks, self._scores, strict=True):
            items = self._learning.items[rows]
            values = scores - bias.to(scores.dtype)[items]
            settled = values.topk(min(k, values.shape[1]), dim=1).values[:, -1] >= scores[:, -1] - bias[1:].min()
            count += int((settled | (items[:, -1] == 0)).sum())
        return count / max(len(self._learning.items), 1)


_SOLVE_EVERY = 5
_FIRST = 10  # so many times the length of a list is looked at first


@dataclass(frozen=True)
class Lorenz(LorenzSettings, ScoreAdjuster):
    """Top-k of ``s_ui - b_i``: b_i is ``lambda`` times what exposure of item i is worth less than elsewhere.

    The biases maximise ``sum of scores + lambda * W(exposure)`` over everybody's lists, W a concave welfare
    (:mod:`recbole_fair.rerank.equilibrium`). They are learnt on one set of users without looking at a label, and used
    for others. With ``score: raw`` the result *is* an item bias: it can be folded into the model, and an index over
    items still works. With ``score: softmax`` it is taken off the model's probabilities, and lists are made of each
    user's best ``pool`` items. Strength 0 changes nothing, bit for bit.

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
        """See :func:`scale_of`."""
        return scale_of(self)

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
