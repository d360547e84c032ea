"""DUOR (our reading): lists whose share of popular items follows the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from recbole_fair.config.keys import Key
from recbole_fair.data.facts.popularity import select_head_tail
from recbole_fair.rerank.base import Candidates, Facts, ReRanker
from recbole_fair.rerank.facts import one_hot
from recbole_fair.rerank.queues import GroupQueues, best_group, gather_heads


@dataclass(frozen=True)
class DUOR(ReRanker):
    """DUOR in *our reading*: popular items are damped while the list is more popular than the user, else promoted.

    Source: Gulsoy, Yalcin, Tacli and Bilge, IJHCS 2025, of which only the two sentences of the PopSteer paper could be
    used: a Pareto split of the items, and a list that is calibrated step by step to the user's popularity inclination.
    Reading: scores are scaled to [0, 1] over the t candidates (t is ``reranker_candidates``; the paper tunes 50 to
    1000); at each step ``delta`` = popular share of the list so far minus that of the user's history (0 at the first
    step), popular items count ``score * (1 - delta)``, others ``score * (1 + delta)``, and the best is taken. It is
    not the authors' code, and has no strength: where lists already match histories it changes little.

    ``rule: hard``, as in the later code of the PopSteer authors: while the list's popular share is below the user's the
    next item must be popular, while it is above it must not be (the first one is the best of all); where that class has
    run out, the other one goes on. The list is then sorted by the model's scores.

    Attributes:
        popular_share: Share of the items, or of the interactions, that the popular items make up.
        popular_by: ``items`` or ``interactions``.
        last: Look at this many interactions at the end of a history, all of them if not set.
        rule: ``soft`` or ``hard``.
    """

    limits: ClassVar[dict[str, Key]] = {
        "popular_share": Key("float", low=0, high=1, open_low=True, open_high=True),
        "popular_by": Key("str", choices=("items", "interactions")),
        "last": Key("int", low=1, optional=True),
        "rule": Key("str", choices=("soft", "hard")),
    }

    popular_share: float
    popular_by: str
    last: int | None
    rule: str

    @property
    def builds_in_order(self) -> bool:
        """Under the hard rule a list is sorted when it is complete."""
        return self.rule == "soft"

    def check(self, facts: Facts, k: int) -> None:
        """See that the items can be split."""
        self._popular(facts)

    def _popular(self, facts: Facts) -> Tensor:
        """1 for popular items, 0 for others, long ``[n_items]``."""
        share = self.popular_share
        head, _ = select_head_tail(facts.popularity.counts, share, 1 - share, self.popular_by)
        return torch.zeros(facts.n_items, dtype=torch.long).index_fill_(0, head, 1)

    def places(self, candidates: Candidates, facts: Facts, k: int) -> Tensor:
        """Choose between the best popular and the best other candidate, step by step."""
        hard = self.rule == "hard"
        popular = self._popular(facts)
        wanted = facts.history_shares(candidates.users, one_hot(popular, 2), self.last)[:, 1]
        labels = popular.to(candidates.items.device)[candidates.items].masked_fill(~candidates.valid, -1)
        queues, scores = GroupQueues(labels, 2), candidates.scaled("minmax")
        shown = torch.zeros_like(wanted)
        chosen = []
        for place in range(min(k, queues.none)):
            delta = shown / place - wanted if place else torch.zeros_like(wanted)
            heads = queues.heads()
            values = gather_heads(scores, heads, -torch.inf)
            if hard:
                # Scaled scores differ by 1 at most: the class that is wanted goes first while it lasts.
                values = values + 2 * torch.stack([delta > 0, delta < 0], dim=1)
            else:
                values = values * torch.stack([1 + delta, 1 - delta], dim=1)
            # An empty queue stays empty whatever its factor: -inf * 0 is not a number.
            group = best_group(values.masked_fill(heads >= queues.none, -torch.inf), heads)
            chosen.append(queues.take(group))
            shown += group == 1
        places = torch.stack(chosen, dim=1)
        return in_model_order(places, queues.none) if hard else places


def in_model_order(places: Tensor, none: int) -> Tensor:
    """Columns of the candidates from the model's best on, those without an item (-1) last.

    Args:
        places: long ``[U, K]``.
        none: number of candidates.
    """
    ordered = places.masked_fill(places < 0, none).sort(dim=1).values
    return ordered.masked_fill(ordered == none, -1)
