"""CP: lists whose head, mid and tail shares follow the user's history."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from recbole_fair.config.keys import Key
from recbole_fair.data.facts.popularity import SEGMENT_NAMES
from recbole_fair.rerank.base import Candidates, Facts, ReRanker
from recbole_fair.rerank.facts import one_hot
from recbole_fair.rerank.queues import GroupQueues, best_group, gather_heads

_GROUPS = len(SEGMENT_NAMES)


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence of distributions ``[..., G]``, base 2: ``[...]`` in [0, 1]."""
    middle = (p + q) / 2
    # xlogy takes 0 log 0 as 0, where the middle is 0 as well.
    terms = torch.xlogy(p, p) + torch.xlogy(q, q) - 2 * torch.xlogy(middle, middle)
    return (terms.sum(-1) / (2 * math.log(2))).clamp(min=0)


@dataclass(frozen=True)
class CP(ReRanker):
    """Calibrated Popularity: greedily ``(1 - lambda) * sum of scores - lambda * JSD(history, list)``.

    The divergence is between the shares of head, mid and tail items, in base 2.

    Source: Abdollahpouri et al., UMAP 2021. Reading: head, mid and tail are the package's segments (``segment_*``
    keys; by default the paper's 20, 60 and 20 % of the interactions) and scores are scaled to [0, 1] over the user's
    candidates (``score: raw`` leaves them). Only the best candidate of each segment can be the next item, so three
    are compared a step. Strength 0 changes nothing. The list comes in the order in which it was built.

    Attributes:
        lambda_: Strength in [0, 1].
        score: ``minmax`` or ``raw``.
    """

    builds_in_order = True
    limits: ClassVar[dict[str, Key]] = {
        "lambda_": Key("float", low=0, high=1),
        "score": Key("str", choices=("minmax", "raw")),
    }
    needs = ("segments",)

    lambda_: float
    score: str

    def places(self, candidates: Candidates, facts: Facts, k: int) -> Tensor:
        """Add, step by step, the item that leaves the best list."""
        device, scores = candidates.items.device, candidates.scaled(self.score)
        wanted = facts.history_shares(candidates.users, one_hot(facts.segments, _GROUPS)).unsqueeze(1)
        labels = facts.segments.to(device)[candidates.items].masked_fill(~candidates.valid, -1)
        queues, steps = GroupQueues(labels, _GROUPS), torch.eye(_GROUPS, dtype=torch.double, device=device)
        shown = torch.zeros(len(labels), _GROUPS, dtype=torch.double, device=device)
        chosen = []
        for place in range(min(k, queues.none)):
            heads = queues.heads()
            lists = (shown.unsqueeze(1) + steps) / (place + 1)
            # The scores of the items already chosen are the same whatever comes next.
            value = (1 - self.lambda_) * gather_heads(scores, heads, 0.0) - self.lambda_ * jensen_shannon(wanted, lists)
            group = best_group(value.masked_fill(heads >= queues.none, -torch.inf), heads)
            chosen.append(queues.take(group))
            shown += steps[group.clamp(min=0)] * (group >= 0).unsqueeze(1)
        return torch.stack(chosen, dim=1)
