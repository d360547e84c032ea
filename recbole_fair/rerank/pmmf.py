"""P-MMF: a bonus for the providers that are furthest behind, user after user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from recbole_fair.config.keys import Key
from recbole_fair.rerank.base import Candidates, Facts, ReRanker

_OUT_OF_BUDGET = -1e4


@dataclass(frozen=True)
class PMMF(ReRanker):
    """P-MMF with the min-regularizer: providers whose exposure is furthest below their budget get a bonus.

    With G providers, the budget of provider g is ``B_g = T K rho_g``, ``rho_g = (1 + 1/G) |items of g| / |items|``, T
    the number of lists. Users come in random order; each gets the K items with the largest
    ``s + lambda (B_g - min B) / (T rho_g)``, B being what is left of the budgets; the list is then sorted by score,
    and B falls by what it showed.

    Source: Xu et al., WWW 2023, the min-regularizer of the authors' code, which the PopSteer paper names. Readings:
    providers, the scale of scores and whether an exhausted provider is shut out are options. The default (head, mid
    and tail as providers, min-max scores, no hard budget) gives a usable trade-off; ``paper/pmmf-original.yaml`` is
    the authors' setting (sigmoid scores, hard budget). Strength 0 without hard budget changes nothing.

    Attributes:
        lambda_: Strength, from 0.
        provider: ``group`` (head, mid, tail), ``item``, or an item column; an item of several values counts in parts.
        score: ``minmax`` (over the user's candidates), ``sigmoid`` or ``raw``.
        hard_budget: Whether items of exhausted providers come only after all others. A list may overrun a budget: it is
            checked between users.
        seed: Seed of the users' order; the run's when not set.
    """

    limits: ClassVar[dict[str, Key]] = {
        "lambda_": Key("float", low=0),
        "provider": Key("str"),
        "score": Key("str", choices=("minmax", "sigmoid", "raw")),
        "hard_budget": Key("bool"),
        "seed": Key("int", low=0),
    }

    lambda_: float
    provider: str
    score: str
    hard_budget: bool
    seed: int

    def check(self, facts: Facts, k: int) -> None:
        """See that the providers are known."""
        facts.providers(self.provider)

    def places(self, candidates: Candidates, facts: Facts, k: int) -> Tensor:
        """Serve one user after the other; each changes the budgets that the next one finds."""
        weights = facts.providers(self.provider)
        n_rows, n_items = len(candidates.items), facts.n_items - 1
        if weights is None:
            sizes = np.ones(facts.n_items)
            sizes[0] = 0
        else:
            sizes = weights.sum(0).cpu().numpy()
        rates = (1 + 1 / max(int((sizes > 0).sum()), 1)) * sizes / n_items
        budget = n_rows * k * rates
        there = rates > 0  # a provider without items has no budget to fall behind
        per_unit = np.divide(self.lambda_, n_rows * rates, out=np.zeros_like(rates), where=there)
        scores = candidates.scaled(self.score).cpu().numpy()
        ids = candidates.items.cpu().numpy()
        lengths = candidates.valid.sum(1).tolist()
        owned = None if weights is None else weights.cpu().numpy()
        chosen = np.full((n_rows, min(k, ids.shape[1])), -1)
        for row in np.random.default_rng(self.seed).permutation(n_rows).tolist():
            items = ids[row, : lengths[row]]
            bonus = (budget - budget[there].min()) * per_unit
            gone = (budget <= 0) & there
            if owned is None:
                value, shut = scores[row, : len(items)] + bonus[items], gone[items]
            else:
                mine = owned[items]
                value, shut = scores[row, : len(items)] + mine @ bonus, mine @ gone > 0
            if self.hard_budget:
                value = value + _OUT_OF_BUDGET * shut
            best = np.sort(np.argsort(-value, kind="stable")[:k])  # by the model's score again
            chosen[row, : len(best)] = best
            if owned is None:
                budget[items[best]] -= 1
            else:
                budget -= mine[best].sum(0)
        return torch.from_numpy(chosen).to(candidates.items.device)
