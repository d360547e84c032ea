"""Re-rankers that change scores: ``s_ui - b_i - a_u log pop_i`` of *all* items, before the best ones are taken.

Where other re-rankers see a user's best candidates, these change the scores of the whole catalogue. The candidates are
then a means to be quick: from the best C items of a user follows the exact list whenever nothing outside them can reach
it, which :meth:`ScoreAdjuster.ranked` says for every user.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from recbole_fair.config.keys import Key
from recbole_fair.rerank.base import Candidates, Facts, ReRanker

_CELLS = 4_000_000  # user-item pairs handled at once


@dataclass(frozen=True)
class Offsets:
    """What an adjuster has learnt on one set of users, to be applied to any.

    Attributes:
        bias: b_i of each item id, float64 ``[n_items]``, from 0; 0 for the padding id.
        report: How the learning went, as plain values.
    """

    bias: Tensor
    report: dict[str, Any] = field(default_factory=dict)


class Ranked(NamedTuple):
    """Lists out of candidates."""

    places: Tensor
    """Columns of the candidates ``[U, min(k, C)]``, best first."""
    certain: Tensor
    """bool ``[U]``: no item outside the candidates would be in the list."""


@dataclass(frozen=True)
class ScoreAdjuster(ReRanker):
    """Base of :class:`Lorenz`, :class:`Tilt`, :class:`LorenzTilt` and :class:`Penalty`.

    Attributes:
        pool: Best items of each user that biases and exponents are found with.
        learns: Whether there is anything to learn on other users first.
        per_user: Whether users have exponents of their own.
        learn_on: Whose lists biases are learnt on: ``valid``, the validation users (their labels are not looked at),
            or ``own``, the very users whose lists are made.
    """

    builds_in_order = True
    pool_limits: ClassVar[dict[str, Key]] = {"pool": Key("int", low=1)}
    learns: ClassVar[bool] = False
    per_user: ClassVar[bool] = False
    learn_on: ClassVar[str] = "own"

    pool: int

    def learn(self, learning: Candidates | None, facts: Facts, k: int) -> Offsets:
        """What to subtract from items' scores.

        Args:
            learning: Best items of the users to learn on, without labels; None where :attr:`learns` is false.
            facts: What is known from training.
            k: Length of the lists.
        """
        return Offsets(torch.zeros(facts.n_items, dtype=torch.double))

    def exponents(self, scores: Tensor, items: Tensor, users: Tensor, facts: Facts, k: int) -> Tensor | None:
        """Exponents a_u of popularity, float64 ``[U]``; None where users have none.

        Args:
            scores: ``[U, C]``, biases already taken off, -inf where there is no item.
            items: Item ids ``[U, C]`` or ``[1, C]``.
            users: User ids ``[U]``.
            facts: What is known from training.
            k: Length of the lists.
        """
        return None

    @property
    @abstractmethod
    def changes_nothing(self) -> bool:
        """Whether the strengths are such that every list stays as it is."""

    @property
    def scale(self) -> str:
        """``raw``, or ``standard``: scores are divided by their standard deviation over all items of the user."""
        return "raw"

    def places(self, candidates: Candidates, facts: Facts, k: int) -> Tensor:
        """Learn on these very candidates and order them; nothing outside them is looked at."""
        return self.ranked(candidates, facts, k, self.learn(candidates, facts, k)).places

    def ranked(self, candidates: Candidates, facts: Facts, k: int, offsets: Offsets) -> Ranked:
        """Lists of the adjusted scores out of candidates.

        Args:
            candidates: Each user's best items by the model's scores.
            facts: What is known from training.
            k: Length of the lists.
            offsets: What :meth:`learn` returned.
        """
        device = candidates.items.device
        bias, log_pop = offsets.bias.to(device), facts.popularity.log_counts.to(device)
        places, certain, spread = [], [], candidates.spread
        for rows in row_blocks(*candidates.items.shape):
            items, valid = candidates.items[rows], candidates.valid[rows]
            scores = self._scaled(candidates.scores[rows].double(), None if spread is None else spread[rows])
            values = scores - bias[items]
            slopes = self.exponents(values, items, candidates.users[rows], facts, k)
            # The best that an item with no more than the last candidate's score could come to.
            outside = scores[:, -1] - bias[1:].min()
            if slopes is not None:
                values = values - slopes.unsqueeze(1) * log_pop[items]
                outside = scores[:, -1] - _lowest_offset(bias, log_pop, slopes)
            values = values.masked_fill(~valid, -torch.inf)
            best = best_columns(values, k)
            places.append(best)
            certain.append(~valid[:, -1] | (values.gather(1, best[:, -1:]).squeeze(1) >= outside))
        return Ranked(torch.cat(places), torch.cat(certain))

    def adjusted(self, scores: Tensor, users: Tensor, facts: Facts, k: int, offsets: Offsets) -> Tensor:
        """Scores of all items with the offsets taken off.

        Args:
            scores: The model's scores ``[B, n_items]``, -inf for what may not be shown.
            users: User ids ``[B]``.
            facts: What is known from training.
            k: Length of the lists.
            offsets: What :meth:`learn` returned.

        Returns:
            float64 ``[B, n_items]``; the very scores given where nothing is to be taken off.
        """
        if self.changes_nothing:
            return scores
        bias, log_pop = offsets.bias.to(scores.device), facts.popularity.log_counts.to(scores.device)
        out = torch.empty(scores.shape, dtype=torch.double, device=scores.device)
        for rows in row_blocks(*scores.shape):
            spread = spread_of(scores[rows]) if self.scale == "standard" else None
            values = self._scaled(scores[rows].double(), spread) - bias
            slopes = self._exact_exponents(scores[rows], spread, values, users[rows], facts, k, offsets)
            out[rows] = values if slopes is None else values - slopes.unsqueeze(1) * log_pop
        return out

    def _exact_exponents(
        self,
        scores: Tensor,
        spread: Tensor | None,
        values: Tensor,
        users: Tensor,
        facts: Facts,
        k: int,
        offsets: Offsets,
    ) -> Tensor | None:
        """Exponents found among each user's best items, and among all items where these do not settle them."""
        size = min(max(self.pool, k), scores.shape[1])
        best, items = scores.topk(size, dim=1)
        items = items.masked_fill(best == -torch.inf, 0)
        few = Candidates(items, best, users, spread)
        slopes = self.exponents(values.gather(1, items), items, users, facts, k)
        if slopes is None:
            return None
        unsettled = (~self.ranked(few, facts, k, offsets).certain).nonzero().squeeze(1)
        if len(unsettled):
            ids = torch.arange(scores.shape[1], device=scores.device).unsqueeze(0)
            found = self.exponents(values[unsettled], ids, users[unsettled], facts, k)
            assert found is not None
            slopes[unsettled] = found
        return slopes

    def _scaled(self, scores: Tensor, spread: Tensor | None) -> Tensor:
        if self.scale != "standard":
            return scores
        if spread is None:
            raise ValueError("Standardised scores need the spread of each user's scores.")
        return scores / spread.unsqueeze(1)


def row_blocks(n_rows: int, width: int) -> list[slice]:
    """Blocks of rows that hold a few million cells each."""
    step = max(1, _CELLS // max(1, width))
    return [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]


def spread_of(scores: Tensor) -> Tensor:
    """Standard deviation of each row's finite scores, float64 ``[B]``; 1 where they are all alike."""
    shown = scores > -torch.inf
    values, count = scores.double().masked_fill(~shown, 0.0), shown.sum(1).clamp(min=1)
    mean = values.sum(1) / count
    squares = ((values - mean.unsqueeze(1)).masked_fill(~shown, 0.0) ** 2).sum(1)
    spread = (squares / count).sqrt()
    return torch.where(spread > 0, spread, 1.0)


def best_columns(values: Tensor, k: int) -> Tensor:
    """Columns of the k largest values of each row, best first; equal values keep their order.

    As a stable sort of whole rows, but most rows are only looked at for their best values.

    Args:
        values: ``[U, C]``.
        k: Length of the lists.

    Returns:
        long ``[U, min(k, C)]``.
    """
    k = min(k, values.shape[1])
    best, columns = values.topk(min(k + 1, values.shape[1]), dim=1)
    tied = (best[:, 1:] == best[:, :-1]).any(1).nonzero().squeeze(1)
    columns = columns[:, :k].clone()
    if len(tied):
        columns[tied] = values[tied].argsort(dim=1, descending=True, stable=True)[:, :k]
    return columns


def _lowest_offset(bias: Tensor, log_pop: Tensor, slopes: Tensor) -> Tensor:
    """Smallest ``b_i + a_u log pop_i`` of any item, ``[U]``: only the least bias of equally popular items counts."""
    levels, place = torch.unique(log_pop[1:], return_inverse=True)
    least = torch.full_like(levels, torch.inf).scatter_reduce_(0, place, bias[1:], "amin")
    lowest = torch.full_like(slopes, torch.inf)
    for rows in row_blocks(len(slopes), len(levels)):
        lowest[rows] = (least + slopes[rows].unsqueeze(1) * levels).amin(1)
    return lowest
