"""Re-rankers that change scores: ``s_ui - b_i - a_u log pop_i`` of *all* items, before the best ones are taken.

Where other re-rankers see a user's best candidates, these change the scores of the whole catalogue. The candidates are
then a means to be quick: from the best C items of a user follows the exact list whenever nothing outside them can reach
it, which :meth:`ScoreAdjuster.ranked` says for every user.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from recbole_fair.config.keys import Key
from recbole_fair.rerank.base import Candidates, Facts, ReRanker
from recbole_fair.rerank.tilting import best_of_each_popularity

_CELLS = 4_000_000  # user-item pairs handled at once
_FIRST = 10  # so many times the length of a list is looked at first

#: ``raw``: the model's scores; ``standard``: divided by their standard deviation over all items of the user;
#: ``softmax``: the model's probabilities, ``exp(score)`` divided by its sum over all items of the user.
SCALES = ("raw", "standard", "softmax")


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
    slopes: Tensor | None
    """The exponents under which the lists are best, float64 ``[U]``; None where users have none."""


@dataclass(frozen=True)
class ScoreAdjuster(ReRanker):
    """Base of :class:`Lorenz`, :class:`Tilt`, :class:`LorenzTilt` and :class:`Penalty`.

    Attributes:
        pool: Best items of each user that biases and exponents are found with, and with probabilities
            (:attr:`pool_only`) the only ones that lists are made of.
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
        """One of :data:`SCALES`, on which offsets are taken off."""
        return "raw"

    @property
    def pool_only(self) -> bool:
        """Whether lists are made of each user's best ``pool`` items alone.

        So with probabilities: where these are flat, the whole catalogue is within reach of a small bias.
        """
        return self.scale == "softmax"

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
        width = candidates.items.shape[1]
        narrow = width if self.per_user else min(width, _FIRST * k)
        ranked = self._ranked(candidates.part(slice(None), narrow), facts, k, offsets)
        if self.pool_only and narrow == width:
            ranked.certain[:] = True
        if narrow == width or bool(ranked.certain.all()):
            return ranked
        rows = (~ranked.certain).nonzero().squeeze(1)  # the others' lists are settled by their very best items
        whole = self._ranked(candidates.part(rows), facts, k, offsets)
        ranked.places[rows], ranked.certain[rows] = whole.places, whole.certain | self.pool_only
        return ranked

    def _ranked(self, candidates: Candidates, facts: Facts, k: int, offsets: Offsets) -> Ranked:
        """See :meth:`ranked`; all columns of all rows are looked at."""
        device = candidates.items.device
        bias, log_pop = offsets.bias.to(device), facts.popularity.log_counts.to(device)
        places, certain, all_slopes = [], [], []
        for rows in row_blocks(*candidates.items.shape):
            part = candidates.part(rows)
            items, valid = part.items, part.valid
            scores = on_scale(self.scale, part.scores.double(), norm_in(self.scale, part))
            values = scores - bias[items]
            slopes = self.exponents(values, items, part.users, facts, k)
            # The best that an item with no more than the last candidate's score could come to.
            outside = scores[:, -1] - bias[1:].min()
            if slopes is not None:
                values = values - slopes.unsqueeze(1) * log_pop[items]
                outside = scores[:, -1] - lowest_offset(bias, log_pop, slopes)
                all_slopes.append(slopes)
            values = values.masked_fill(~valid, -torch.inf)
            best = best_columns(values, k)
            places.append(best)
            certain.append(~valid[:, -1] | (values.gather(1, best[:, -1:]).squeeze(1) >= outside))
        return Ranked(torch.cat(places), torch.cat(certain), torch.cat(all_slopes) if all_slopes else None)

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
            norm = norm_of(self.scale, scores[rows])
            values = on_scale(self.scale, scores[rows].double(), norm) - bias
            if self.pool_only and max(self.pool, k) < scores.shape[1]:
                last = scores[rows].topk(max(self.pool, k), dim=1, sorted=False).values.amin(1, keepdim=True)
                values = torch.where(scores[rows] >= last, values, values - (1 + bias.max()))
            slopes = self._exact_exponents(scores[rows], norm, values, users[rows], facts, k, offsets)
            out[rows] = values if slopes is None else values - slopes.unsqueeze(1) * log_pop
        return out

    def best_of_all(self, scores: Tensor, users: Tensor, facts: Facts, k: int, offsets: Offsets) -> Tensor:
        """The best k of all items, for users whom their candidates do not settle; takes what :meth:`adjusted` takes.

        Returns:
            Item ids, best first, long ``[B, min(k, n_items)]``.
        """
        if not self.per_user or self.pool_only:
            return self.adjusted(scores, users, facts, k, offsets).topk(min(k, scores.shape[1]), dim=1).indices
        bias, found = offsets.bias.to(scores.device), []
        for rows in row_blocks(*scores.shape):
            values = on_scale(self.scale, scores[rows].double(), norm_of(self.scale, scores[rows])) - bias
            items, values, _ = self._tilted(values, users[rows], facts, k)
            found.append(items.gather(1, values.topk(min(k, values.shape[1]), dim=1).indices))
        return torch.cat(found)

    def _tilted(self, values: Tensor, users: Tensor, facts: Facts, k: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """All items that can be in a list, with their values under the users' exponents, and the exponents."""
        log_pop = facts.popularity.log_counts.to(values.device)
        items = best_of_each_popularity(values, log_pop, k)
        values = values.gather(1, items)
        slopes = self.exponents(values, items, users, facts, k)
        return items, values if slopes is None else values - slopes.unsqueeze(1) * log_pop[items], slopes

    def _exact_exponents(
        self,
        scores: Tensor,
        norm: Tensor | None,
        values: Tensor,
        users: Tensor,
        facts: Facts,
        k: int,
        offsets: Offsets,
    ) -> Tensor | None:
        """Exponents found among each user's best items, and among all items where these do not settle them."""
        if not self.per_user:
            return None
        size = min(max(self.pool, k), scores.shape[1])
        best, items = scores.topk(size, dim=1)
        items = items.masked_fill(best == -torch.inf, 0)
        ranked = self.ranked(with_norm(self.scale, Candidates(items, best, users), norm), facts, k, offsets)
        slopes, unsettled = ranked.slopes, (~ranked.certain).nonzero().squeeze(1)
        if slopes is not None and len(unsettled):
            found = self._tilted(values[unsettled], users[unsettled], facts, k)[2]
            assert found is not None
            slopes[unsettled] = found
        return slopes


def norm_of(scale: str, scores: Tensor) -> Tensor | None:
    """What a scale has to know of each user's scores of all items, float64 ``[B]``; None for ``raw``.

    Args:
        scale: one of :data:`SCALES`.
        scores: ``[B, n_items]``, -inf for what may not be shown.
    """
    if scale == "standard":
        return spread_of(scores)
    return log_total_of(scores) if scale == "softmax" else None


def norm_in(scale: str, candidates: Candidates) -> Tensor | None:
    """What :func:`norm_of` gave when the candidates were collected; None for ``raw``."""
    return {"standard": candidates.spread, "softmax": candidates.log_total}.get(scale)


def with_norm(scale: str, candidates: Candidates, norm: Tensor | None) -> Candidates:
    """Candidates that know what :func:`norm_of` gave."""
    if scale == "standard":
        return replace(candidates, spread=norm)
    return replace(candidates, log_total=norm) if scale == "softmax" else candidates


def on_scale(scale: str, scores: Tensor, norm: Tensor | None) -> Tensor:
    """Scores on a scale; -inf stays -inf.

    Args:
        scale: one of :data:`SCALES`.
        scores: ``[B, C]``.
        norm: what :func:`norm_of` gave for these users ``[B]``.
    """
    if scale == "raw":
        return scores
    if norm is None:
        raise ValueError(f"Scores on the scale {scale!r} need a number of each user's scores of all items.")
    if scale == "standard":
        return scores / norm.unsqueeze(1)
    return (scores - norm.unsqueeze(1)).exp().masked_fill(scores == -torch.inf, -torch.inf)


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


def log_total_of(scores: Tensor) -> Tensor:
    """Logarithm of the sum of ``exp(score)`` of each row, float64 ``[B]``; 0 where nothing may be shown."""
    total = scores.logsumexp(1).double()
    return torch.where(total.isfinite(), total, 0.0)


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


def lowest_offset(bias: Tensor, log_pop: Tensor, slopes: Tensor) -> Tensor:
    """Smallest ``b_i + a_u log pop_i`` of any item, ``[U]``: only the least bias of equally popular items counts."""
    levels, place = torch.unique(log_pop[1:], return_inverse=True)
    least = torch.full_like(levels, torch.inf).scatter_reduce_(0, place, bias[1:], "amin")
    lowest = torch.full_like(slopes, torch.inf)
    for rows in row_blocks(len(slopes), len(levels)):
        lowest[rows] = (least + slopes[rows].unsqueeze(1) * levels).amin(1)
    return lowest
