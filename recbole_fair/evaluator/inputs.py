"""Everything a metric may look at, in one object; derived quantities are computed once and shared between metrics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recbole_fair.config.concepts import POPULARITY
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.popularity import HEAD, Popularity
from recbole_fair.errors import FairError
from recbole_fair.evaluator.functional.alignment import history_means, list_lengths
from recbole_fair.evaluator.functional.calibration_errors import calibration_shares
from recbole_fair.evaluator.functional.exposure import item_counts, item_exposure
from recbole_fair.evaluator.options import MetricOptions

if TYPE_CHECKING:
    from recbole_fair.data.facts.groups import ItemGroups, UserFacts


@dataclass(frozen=True)
class EvalInputs:
    """The lists of one evaluation and what they are measured against. U rows, one a list.

    A row is a user, except where an evaluation split has several rows a user (sequential data that are not left out
    one by one): then ``users`` repeats.

    Attributes:
        items: Lists ``[U, K]`` of item ids, best first, 0 = no item (the candidates ran out).
        hits: bool ``[U, K]``, whether the item is a held-out one.
        n_positives: long ``[U]``, number of distinct held-out items.
        users: long ``[U]`` user ids.
        positives: Held-out items in compressed rows: bounds ``[U + 1]`` and item ids.
        n_items: Number of item ids including the padding id 0.
        options: Options of the metrics.
        popularity: Item popularity, or None if not known.
        histories: Training histories of all users, or None if not known.
        groups: Item groups, or None if not asked for.
        facts: What is known about users from training, or None if not known.
        concept: float64 ``[n_items]``, how much each item counts for ``options.concept``, or None if not asked for.
    """

    items: Tensor
    hits: Tensor
    n_positives: Tensor
    users: Tensor
    positives: tuple[Tensor, Tensor]
    n_items: int
    options: MetricOptions
    popularity: Popularity | None = None
    histories: Histories | None = None
    groups: ItemGroups | None = None
    facts: UserFacts | None = None
    concept: Tensor | None = None

    @property
    def topk(self) -> tuple[int, ...]:
        """The cutoffs."""
        return self.options.topk

    @property
    def n_rows(self) -> int:
        """Number of lists."""
        return len(self.items)

    @cached_property
    def known_popularity(self) -> Popularity:
        """The popularity.

        Raises:
            FairError: If there is none.
        """
        if self.popularity is None:
            raise FairError("This metric needs item popularity: collect the training data before evaluating.")
        return self.popularity

    @property
    def known_facts(self) -> UserFacts:
        """What is known about users.

        Raises:
            FairError: If nothing is.
        """
        if self.facts is None:
            raise FairError("group_metrics need the training data: collect them before evaluating.")
        return self.facts

    @cached_property
    def concept_weight(self) -> Tensor:
        """How much each item counts for the concept, float64 ``[n_items]``; of popularity, 1 for head items.

        Raises:
            FairError: If it is not known.
        """
        if self.options.concept == POPULARITY:
            return (self.segments == HEAD).double()
        if self.concept is None:
            raise FairError("This metric needs the concept's items: collect the training data before evaluating.")
        return self.concept.to(self.items.device)

    @cached_property
    def counts(self) -> Tensor:
        """Popularity of each item id, long ``[n_items]``."""
        return self.known_popularity.counts.to(self.items.device)

    @cached_property
    def segments(self) -> Tensor:
        """Segment of each item id, long ``[n_items]``."""
        return self.known_popularity.segments.to(self.items.device)

    @cached_property
    def history(self) -> tuple[Tensor, Tensor]:
        """Histories of the rows: bounds ``[U + 1]`` and item ids.

        Raises:
            FairError: If there are none.
        """
        if self.histories is None:
            raise FairError("This metric needs training histories: collect the training data before evaluating.")
        rows = self.histories.rows(self.users.cpu().numpy())
        device = self.items.device
        return torch.from_numpy(rows.indptr).to(device), torch.from_numpy(rows.items).to(device)

    @cached_property
    def lengths(self) -> Tensor:
        """Items among the first k places, long ``[U, len(topk)]``."""
        return list_lengths(self.items, self.topk)

    @cached_property
    def calibration(self) -> Tensor:
        """Tau-hat of each row, cutoff and level, ``[U, len(topk), len(levels)]``."""
        return calibration_shares(self.counts, self.items, *self.history, self.topk, self.options.pce_levels)

    @cached_property
    def head_share(self) -> Tensor:
        """Share of head items in the history of each row, float64 ``[U]``, NaN without a history."""
        return history_means((self.segments == 0).double(), *self.history)

    def recommended_counts(self, k: int) -> Tensor:
        """How often each catalogue item is among the first k, long ``[n_items - 1]``."""
        return item_counts(self.items[:, :k], self.n_items)

    def exposure(self, k: int) -> Tensor:
        """Rank-discounted exposure of each catalogue item in the first k places, float64 ``[n_items - 1]``."""
        return item_exposure(self.items[:, :k], self.n_items)
