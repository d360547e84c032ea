"""Calibration: lists whose item groups (genres) follow the user's history."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from recbole.utils import ModelType
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.keys import Key
from recbole_fair.config.traits import Traits
from recbole_fair.rerank.base import Candidates, Facts, ReRanker

_CELLS = 1_000_000  # user-candidate-group triples worked on at a time: what stays in a processor's cache
_TINY = 1e-300


@dataclass(frozen=True)
class Calibration(ReRanker):
    """Calibrated recommendations: greedily ``(1 - lambda) * sum of scores - lambda * C_KL(history, list)``.

    C_KL is the smoothed Kullback-Leibler divergence between the item-group distributions of the user's history and of
    the list, the one of the metric CKL, natural logarithm.

    Source: Steck, RecSys 2018, as DecRS uses it (no item weights, no rank weights; scores through the sigmoid). The
    checkpoint notebook of the DecRS code adds the divergence instead of subtracting it; here it is subtracted. An item
    of no group leaves the list's distribution as it is. Strength 0 changes nothing. Needs ``group_field``.

    Attributes:
        lambda_: Strength in [0, 1] (DecRS: .01 to .5).
        score: ``sigmoid``, ``minmax`` (over the user's candidates) or ``raw``; ``auto`` in settings: probabilities
            where the model gives them (DecRS: the sigmoid of its logits; RecBole's context models: as they are), else
            ``minmax``, since a sigmoid is nearly 1 for all of the best logits of other models.
        smoothing: Weight of the history in the smoothed list distribution, in (0, 1].
    """

    builds_in_order = True
    limits: ClassVar[dict[str, Key]] = {
        "lambda_": Key("float", low=0, high=1),
        "score": Key("str", choices=("auto", "sigmoid", "minmax", "raw")),
        "smoothing": Key("float", low=0, high=1, open_low=True),
    }
    needs = ("item_groups",)

    lambda_: float
    score: str
    smoothing: float

    @classmethod
    def from_config(cls, config: Settings) -> ReRanker:
        """Make one from the configuration's ``reranker_*`` keys; ``auto`` becomes the scale of the model's scores."""
        made = super().from_config(config)
        if not isinstance(made, Calibration) or made.score != "auto":
            return made
        if isinstance(config, FairConfig) and Traits.of(config.model_class).scores_are_logits:
            return replace(made, score="sigmoid")
        return replace(made, score="raw" if config["MODEL_TYPE"] == ModelType.CONTEXT else "minmax")

    def places(self, candidates: Candidates, facts: Facts, k: int) -> Tensor:
        """Build the lists item by item, for a block of users at a time."""
        groups = facts.item_groups.to(candidates.items.device)
        history = facts.history_shares(candidates.users, groups)
        scores = (1 - self.lambda_) * candidates.scaled(self.score)
        rows = max(1, _CELLS // (candidates.items.shape[1] * groups.shape[1]))
        parts = [slice(start, start + rows) for start in range(0, len(scores), rows)]
        return torch.cat([self._block(candidates.items[p], scores[p], history[p], groups, k) for p in parts])

    def _block(self, items: Tensor, scores: Tensor, history: Tensor, groups: Tensor, k: int) -> Tensor:
        mine = groups[items]  # [B, C, G]
        free, mass = items > 0, torch.zeros_like(history)
        entropy = torch.xlogy(history, history).sum(1, keepdim=True)
        every = torch.arange(len(items), device=items.device)
        chosen = []
        for _ in range(min(k, items.shape[1])):
            lists = mass.unsqueeze(1) + mine
            lists *= (1 - self.smoothing) / lists.sum(-1, keepdim=True).clamp(min=_TINY)
            lists += self.smoothing * history.unsqueeze(1)
            # Where the history has nothing of a group, 0 * log(tiny) is the 0 that it should be.
            cross = torch.einsum("bcg,bg->bc", lists.clamp_(min=_TINY).log_(), history)
            value = scores - self.lambda_ * (entropy - cross)
            place = value.masked_fill(~free, -torch.inf).argmax(1)
            ended = ~free.any(1)
            chosen.append(place.masked_fill(ended, -1))
            free[every, place] = False
            mass += mine[every, place].masked_fill(ended.unsqueeze(1), 0.0)
        return torch.stack(chosen, dim=1)
