"""Scores of a split, batch by batch, masked as the evaluation masks them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from recbole.data.dataloader import FullSortEvalDataLoader, NegSampleEvalDataLoader
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.config.mask import Mask, Rule
from recbole_fair.data.batches.loaders import same_batches
from recbole_fair.data.contract import EvaluationLoader
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.interactions import training_interactions
from recbole_fair.data.ragged import owners
from recbole_fair.io.bars import bars_shown, new_bar
from recbole_fair.io.checkpoint import random_states, restore_random_states
from recbole_fair.io.processes import current

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
        self._own: bool = False
        self._drew = self._by_chance = False

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
        processes = current()
        batches = progress(self._batches_of(eval_data), len(eval_data), "Evaluate", show_progress)
        for number, batch in enumerate(batches):
            if self._own and number % processes.world != processes.rank:
                continue  # drawn all the same, so that every process's generators go on alike
            before = _draws() if self._own else None
            if full:
                interaction, listed, positive_u, positive_i = batch
                listed = listed if self.mask.by_loader else None
                _, scores, positive_u, positive_i = self._full((interaction, listed, positive_u, positive_i))
                if seen is not None:
                    mask_seen(scores, seen, interaction[self._user_field], positive_u, positive_i)
                scored = ScoredBatch(interaction, scores, positive_u, positive_i)
            else:
                scored = ScoredBatch(*self._drawn(batch))
            self._drew |= before is not None and before != _draws()
            yield scored

    def shared(self, one_pass: Callable[[], None], forget: Callable[[], object], alike: bool) -> bool:
        """Let each process score its own batches in a pass over a split: every ``world``-th, as they are.

        The batches are those of one process, whose numbers depend on how many rows a product of matrices has. A model
        that draws random numbers when it scores would draw others: all processes then score all batches.

        Args:
            one_pass: goes over the batches.
            forget: drops what a pass has collected.
            alike: whether every process has to see all batches.

        Returns:
            Whether this process has seen its own batches only.
        """
        processes = current()
        if not processes.several or alike or self._by_chance:
            one_pass()
            return False
        states, self._own, self._drew = random_states(), True, False
        try:
            one_pass()
        finally:
            self._own = False
        self._by_chance = processes.any(self._drew)
        if self._by_chance:
            forget()
            restore_random_states(states)
            one_pass()
        return not self._by_chance

    @contextmanager
    def remembered(self) -> Iterator[None]:
        """Inside the block the batches of each evaluated split are made once and kept; not while loaders change."""
        self._remembered = {}
        try:
            yield
        finally:
            self._remembered = None

    @contextmanager
    def masked(self, rule: Rule) -> Iterator[None]:
        """Inside the block full rankings leave out what this rule names, whatever the configuration says."""
        before, self.mask = self.mask, Mask(rule, True, False, rule != "none")
        try:
            yield
        finally:
            self.mask = before

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


def _draws() -> tuple[object, ...]:
    """The states of the generators that a model may draw from when it scores."""
    _, keys, position, *_ = np.random.get_state()
    states = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]
    return random.getstate(), np.asarray(keys).tobytes(), position, *(state.numpy().tobytes() for state in states)


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
