"""What re-rankers may know: popularity, histories, item groups; never a held-out item."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_fair.data.facts.groups import ItemGroups, load_item_groups
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.popularity import SEGMENT_NAMES, Popularity
from recbole_fair.errors import FairError


@dataclass
class Facts:
    """What is known from training, worked out when first asked for.

    Attributes:
        popularity: Item popularity and the head, mid and tail segments.
        histories: The users' histories (with validation interactions at test time, if ``metric_history`` says so).
        dataset: Any split of the RecBole data set, from which item columns are read; or None.
        group_field: The item column with the item groups.
        masks_seen: Whether the candidates leave out what the user has seen.
        deviation: How much the item's mean score varies between models trained with other seeds ``[n_items]``.
        known_groups: Item groups by column, as far as they were read.
        population: Mean log popularity of all interactions, where ``histories`` are not everybody's.
    """

    popularity: Popularity
    histories: Histories
    dataset: Any = None
    group_field: str | None = None
    masks_seen: bool = False
    deviation: Tensor | None = None
    known_groups: dict[str, ItemGroups] = field(default_factory=dict)
    population: float | None = None

    @property
    def n_items(self) -> int:
        """Number of item ids including the padding id 0."""
        return self.popularity.n_items

    @property
    def segments(self) -> Tensor:
        """Segment of each item id, long ``[n_items]``: 0 head, 1 mid, 2 tail, -1 padding.

        Raises:
            FairError: if the data are too few for segments.
        """
        return self.popularity.segments

    @cached_property
    def item_groups(self) -> Tensor:
        """Weights of each item in the groups of ``group_field``, float64 ``[n_items, G]``; rows sum to 1 or 0.

        Raises:
            FairError: if there is no such column.
        """
        return self._column(self.group_field, "group_field")

    def providers(self, name: str) -> Tensor | None:
        """Who provides each item.

        Args:
            name: ``group``: head, mid and tail; ``item``: each item its own provider; or an item column.

        Returns:
            Weights float64 ``[n_items, G]``, rows sum to 1, or to 0 for items of no provider; None for ``item``.

        Raises:
            FairError: if the column does not exist or the data are too few for head and tail.
        """
        if name == "item":
            return None
        if name == "group":
            return one_hot(self.segments, len(SEGMENT_NAMES))
        return self._column(name, "reranker_provider")

    def _column(self, name: str | None, key: str) -> Tensor:
        if name is None or name not in self.known_groups:
            if self.dataset is None:
                raise FairError(f"{key}={name!r}: there is no data set to read this column from.")
            groups = load_item_groups(self.dataset, name, key)
            self.known_groups[groups.field] = groups
            name = groups.field
        return torch.from_numpy(self.known_groups[name].matrix.toarray())

    # -- histories -----------------------------------------------------------------------------------------------

    def history_shares(self, users: Tensor, weights: Tensor, last: int | None = None) -> Tensor:
        """How each user's history is spread over groups of items.

        Args:
            users: long ``[U]`` user ids.
            weights: Weights of each item in the groups ``[n_items, G]``.
            last: Look at this many interactions at the end of each history; None: at all.

        Returns:
            float64 ``[U, G]``, rows sum to 1. Users without a history (in any group) get the shares of all users'
            interactions together; if nobody has one, equal shares.
        """
        ids, owner = np.unique(users.cpu().numpy(), return_inverse=True)
        rows = self.histories.rows(ids)
        items, row = rows.items, rows.users
        if last is not None:
            kept = rows.indptr[row + 1] - np.arange(len(items)) <= last
            items, row = items[kept], row[kept]
        mass = torch.zeros(len(ids), weights.shape[1], dtype=torch.double)
        mass.index_add_(0, torch.from_numpy(row), weights[torch.from_numpy(items)].double())
        total = mass.sum(1, keepdim=True)
        everybody = weights[torch.from_numpy(self.histories.items)].double().sum(0)
        met = everybody.sum()
        overall = everybody / met if bool(met > 0) else torch.full_like(everybody, 1 / len(everybody))
        shares = torch.where(total > 0, mass / total, overall)
        return shares[torch.from_numpy(owner.reshape(-1))].to(users.device)

    def history_popularity(self, users: Tensor, match: str = "mean", shrinkage: float = 0.0) -> Tensor:
        """How popular what users had is.

        Args:
            users: long ``[U]`` user ids.
            match: ``mean`` or ``median`` of the log popularity of the history's items, repeats counted; the median of
                an even number is the lower one in the middle.
            shrinkage: So many items of the population's mean are added to every history (``median``: the result moves
                towards the population's mean by the same weight).

        Returns:
            float64 ``[U]``; users without a history get the mean over all interactions, NaN if there are none.
        """
        ids, owner = np.unique(users.cpu().numpy(), return_inverse=True)
        rows = self.histories.rows(ids)
        log_pop = self.popularity.log_counts.numpy()
        of_items = log_pop[rows.items]
        everybody = log_pop[self.histories.items]
        mean = float(everybody.mean()) if len(everybody) else float("nan")
        mean = mean if self.population is None else self.population
        lengths = rows.lengths
        if match == "mean":
            center = np.bincount(rows.users, of_items, minlength=len(ids)) / np.maximum(lengths, 1)
        else:
            order = np.lexsort((of_items, rows.users))
            middle = rows.indptr[:-1] + (lengths - 1) // 2
            center = of_items[order][np.minimum(middle, max(len(order) - 1, 0))] if len(order) else np.zeros(len(ids))
        weight = lengths + shrinkage
        with np.errstate(invalid="ignore"):
            found = np.where(weight > 0, (lengths * center + shrinkage * mean) / np.maximum(weight, 1e-300), mean)
        return torch.from_numpy(found[owner.reshape(-1)]).to(users.device)

    def history_counts(self, users: Tensor, items: Tensor) -> Tensor:
        """How often users have met items.

        Args:
            users: long ``[U]`` user ids.
            items: long ``[U, C]`` item ids.

        Returns:
            float64 ``[U, C]``: count of the item in the user's history divided by that of the user's most frequent
            item; 0 for users without a history and for the padding id.
        """
        rows = self.histories.rows(users.cpu().numpy())
        met, counts = np.unique(rows.users * self.n_items + rows.items, return_counts=True)
        if not len(met):
            return torch.zeros(items.shape, dtype=torch.double, device=items.device)
        most = np.ones(len(users))
        np.maximum.at(most, met // self.n_items, counts)
        keys, found = torch.from_numpy(met).to(items.device), torch.from_numpy(counts).to(items.device)
        wanted = torch.arange(len(users), device=items.device).unsqueeze(1) * self.n_items + items
        at = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        share = found[at].double() / torch.from_numpy(most).to(items.device).unsqueeze(1)
        return torch.where(keys[at] == wanted, share, 0.0)


def one_hot(labels: Tensor, n: int) -> Tensor:
    """Weights float64 ``[n_items, n]`` from labels ``[n_items]``: 1 at the label, a row of zeros for a negative one."""
    weights = torch.zeros(len(labels), n, dtype=torch.double, device=labels.device)
    known = (labels >= 0).nonzero().squeeze(1)
    weights[known, labels[known]] = 1.0
    return weights
