"""FairCo: a bonus for groups whose exposure falls short of their relevance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from recbole_fair.config.keys import Key
from recbole_fair.rerank.base import Candidates, Facts, ReRanker, best_places

_LEAST_RELEVANCE = 1e-4


@dataclass(frozen=True)
class FairCo(ReRanker):
    """FairCo's error term, static: sort by ``s + lambda * err_g``.

    ``err_g`` is the largest ``Exp / Rel`` of any group minus ``Exp_g / Rel_g``. Exp_g is the exposure
    ``1 / log2(1 + rank)`` of group g in the base lists, summed over users; Rel_g the sum of the sigmoid of the scores
    of its items (at least 1e-4).

    Source: Morik et al., SIGIR 2020 (exposure fairness), in the static form of DecRS: the error is worked out once, on
    the lists sorted by relevance. Readings: it is one error a group for all users together; relevance is summed over
    the candidates; an item of several groups gets the weighted mean of their errors. Strength 0 changes nothing.

    Attributes:
        lambda_: Strength, from 0 (DecRS: .01 to .5).
        provider: The groups: ``group`` (head, mid, tail), ``item``, or an item column (DecRS: genres).
        score: The scale of s: ``raw``, ``sigmoid`` or ``minmax``.
    """

    limits: ClassVar[dict[str, Key]] = {
        "lambda_": Key("float", low=0),
        "provider": Key("str"),
        "score": Key("str", choices=("raw", "sigmoid", "minmax")),
    }

    lambda_: float
    provider: str
    score: str

    def check(self, facts: Facts, k: int) -> None:
        """See that the groups are known."""
        facts.providers(self.provider)

    def errors(self, candidates: Candidates, facts: Facts, k: int) -> Tensor:
        """Error of each item, float64 ``[n_items]``, from 0 up; the groups' errors weighted by membership."""
        device = candidates.items.device
        discount = 1 / torch.arange(2, k + 2, dtype=torch.double, device=device).log2()
        shown = candidates.items[:, :k]
        weights = facts.providers(self.provider)

        def by_group(items: Tensor, values: Tensor) -> Tensor:
            total = torch.zeros(facts.n_items, dtype=torch.double, device=device)
            total.index_add_(0, items.reshape(-1), values.reshape(-1))
            total[0] = 0
            return total if weights is None else weights.to(device).T @ total

        exposure = by_group(shown, discount[: shown.shape[1]].expand(shown.shape).contiguous())
        relevance = by_group(candidates.items, candidates.scaled("sigmoid")).clamp(min=_LEAST_RELEVANCE)
        error = (exposure / relevance).max() - exposure / relevance
        return error if weights is None else weights.to(device) @ error

    def places(self, candidates: Candidates, facts: Facts, k: int) -> Tensor:
        """Sort by score and error."""
        bonus = self.lambda_ * self.errors(candidates, facts, k)[candidates.items]
        return best_places(candidates.scaled(self.score) + bonus, candidates.valid, k)
