"""Scores of a split, batch by batch, masked as the evaluation masks them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from recbole.data.dataloader import FullSortEvalDataLoader, NegSampleEvalDataLoader
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.config.mask import Mask
from recbole_fair.data.batches.loaders import same_batches
from recbole_fair.data.contract import EvaluationLoader
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.interactions import training_interactions
from recbole_fair.data.ragged import owners
from recbole_fair.io.bars import bars_shown, new_bar

T = TypeVar("T")


def progress(items: Iterable[T], total: int, title: str, show: bool) -> Iterable[T]:
    """A progress bar around ``items`` when it is wanted and somebody watches, else ``items`` itself."""
    if not bars_shown(show):
        return items
    bar: Iterable[T] = new_bar(items, total=total, desc=title)
    return bar


class ScoredBatch(NamedTuple):
    """A batch of a split with its scores."""

    interaction: Interaction
    """One row a user in full ranking; in sampled ranking the rows of a user are together."""
    scores: Tensor
    """``[B, n_items]``, -inf for what may not be shown; by value ``[B]``, one score a row."""
    positive_u: Tensor | None
    """Row of each held-out item; None by value."""
    positive_i: Tensor | None
    """The held-out items."""


Score = Callable[[Any], tuple[Interaction, Tensor, Tensor | None, Tensor | None]]


class Scorer:
    """Batches of the bound splits with a model's scores.

    Args:
        config: gives the mask, the seed of drawn candidates and the name of the column of users.
        full: scores a batch of full ranking, masking the pairs that the batch names.
        drawn: scores a batch of drawn or labelled candidates.

    Attributes:
        mask: of full rankings.
    """

    def __init__(self, config: Settings, full: Score, drawn: Score) -> None:
        self.mask = Mask.of(config, mode="full")
        self._seed = int(config["seed"] or 0)
        self._user_field: str = config["USER_ID_FIELD"]
        self._full, self._drawn = full, drawn
        self._remembered: dict[int, list[Any]] | None = None
        self._histories: Histories | None = None
        self._valid_data: EvaluationLoader | None = None
        self._test_data: EvaluationLoader | None = None
        self._with_validation: Histories | None = None

    def bind(
        self, histories: Histories | None, valid_data: EvaluationLoader | None, test_data: EvaluationLoader | None
    ) -> None:
        """Take the splits: training histories, and the loaders whose items test rankings leave out."""
        self._histories, self._valid_data, self._test_data = histories, valid_data, test_data
        self._with_validation = None

    def follows_validation(self, eval_data: EvaluationLoader) -> bool:
        """Whether a split is the test part of a run with validation, at which its items are known."""
        return eval_data is self._test_data and self._valid_data is not None

    def batches(self, eval_data: EvaluationLoader, show_progress: bool = False) -> Iterator[ScoredBatch]:
        """Every batch of a split with its scores, masked."""
        full = isinstance(eval_data, FullSortEvalDataLoader)
        seen = self._seen_before(eval_data) if full and not self.mask.by_loader else None
        for batch in progress(self._batches_of(eval_data), len(eval_data), "Evaluate", show_progress):
            if not full:
                yield ScoredBatch(*self._drawn(batch))
                continue
            interaction, listed, positive_u, positive_i = batch
            listed = listed if self.mask.by_loader else None
            _, scores, positive_u, positive_i = self._full((interaction, listed, positive_u, positive_i))
            if seen is not None:
                mask_seen(scores, seen, interaction[self._user_field], positive_u, positive_i)
            yield ScoredBatch(interaction, scores, positive_u, positive_i)

    @contextmanager
    def remembered(self) -> Iterator[None]:
        """Inside the block the batches of each evaluated split are made once and kept; not while loaders change."""
        self._remembered = {}
        try:
            yield
        finally:
            self._remembered = None

    def _batches_of(self, eval_data: EvaluationLoader) -> Iterable[Any]:
        drawn = isinstance(eval_data, NegSampleEvalDataLoader)
        batches: Iterable[Any] = same_batches(eval_data, self._seed) if drawn else eval_data
        if self._remembered is None:
            return batches
        if id(eval_data) not in self._remembered:
            self._remembered[id(eval_data)] = list(batches)
        return self._remembered[id(eval_data)]

    def _seen_before(self, eval_data: EvaluationLoader) -> Histories | None:
        """What the users of a split have seen before it, as far as the mask hides it."""
        if self.mask.rule == "none":
            return None
        assert self._histories is not None
        if not (self.mask.hides_validation and self.follows_validation(eval_data)):
            return self._histories
        if self._with_validation is None:
            assert self._valid_data is not None
            self._with_validation = self._histories.extended(training_interactions(self._valid_data._dataset))
        return self._with_validation


def mask_seen(
    scores: Tensor, seen: Histories, users: Tensor, positive_u: Tensor | None, positive_i: Tensor | None
) -> None:
    """Set the scores of items that users have seen to -inf in place, never those of held-out items (as RecBole).

    Args:
        scores: ``[B, n_items]``.
        seen: histories by user id.
        users: ``[B]`` the rows' users.
        positive_u: row of each held-out item.
        positive_i: the held-out items.
    """
    assert positive_u is not None
    assert positive_i is not None
    rows = seen.rows(users.cpu().numpy())
    row = owners(torch.from_numpy(rows.indptr)).to(scores.device)
    positive_u, positive_i = positive_u.to(scores.device), positive_i.to(scores.device)
    kept = scores[positive_u, positive_i]
    scores[row, torch.from_numpy(rows.items).to(scores.device).long()] = -torch.inf
    scores[positive_u, positive_i] = kept
