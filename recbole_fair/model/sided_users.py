"""Users of only some items, as a base model can be shown them: what post-hoc methods learn a direction from.

A sequential base is shown synthetic users, whose sequences are drawn from the items. Any other base knows its own users
alone: those whose histories lean most to popular, or to unpopular, items stand for either side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.data.facts.concepts import Concept
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.id_rows import Rows
from recbole_fair.data.facts.interactions import Interactions
from recbole_fair.data.facts.profiles import SyntheticProfiles, profiles_of
from recbole_fair.errors import FairError


class SidedUsers(Protocol):
    """Users of one side."""

    @property
    def n_users(self) -> int:
        """How many."""

    @property
    def length(self) -> int | None:
        """Items of each, at most; None for real users."""

    def batches(self, rows: int) -> Iterator[Interaction]:
        """Batches of at most ``rows`` users that the base can represent, on the CPU."""


@dataclasses.dataclass(frozen=True)
class SyntheticUsers:
    """Synthetic users of a sequential base.

    Args:
        base: the base model.
        profiles: their sequences.
        identities: ``[m]`` ids of the training users, for a base that reads who the user is: each synthetic user is
            given one of them at random, the same ones on either side, so that identities cannot tell the sides apart.
        seed: of that draw.
    """

    base: Any
    profiles: SyntheticProfiles
    identities: Tensor | None = None
    seed: int = 0

    @property
    def n_users(self) -> int:
        """How many."""
        return self.profiles.n_users

    @property
    def length(self) -> int:
        """Items of each, at most."""
        return self.profiles.length

    def batches(self, rows: int) -> Iterator[Interaction]:
        """Batches of at most ``rows`` users."""
        base = self.base
        missing = 0 if base.any_width else int(base.max_seq_length) - self.profiles.length
        generator = torch.Generator().manual_seed(self.seed)
        for sequences, lengths in self.profiles.batches(rows):
            if missing > 0:
                sequences = torch.nn.functional.pad(sequences, (0, missing))
            columns = {base.ITEM_SEQ: sequences, base.ITEM_SEQ_LEN: lengths}
            if self.identities is not None:
                drawn = torch.randint(len(self.identities), (len(lengths),), generator=generator)
                columns[base.USER_ID] = self.identities[drawn]
            yield Interaction(columns)


@dataclasses.dataclass(frozen=True)
class RealUsers:
    """Real users of a base that reads their ids.

    Args:
        base: the base model.
        users: ``[n]`` their ids.
    """

    base: Any
    users: Tensor

    @property
    def n_users(self) -> int:
        """How many."""
        return len(self.users)

    @property
    def length(self) -> None:
        """Their histories are as long as they are."""
        return None

    def batches(self, rows: int) -> Iterator[Interaction]:
        """Batches of at most ``rows`` users."""
        for part in torch.split(self.users, rows):
            yield Interaction({self.base.USER_ID: part})


@dataclasses.dataclass(frozen=True)
class HistoryUsers:
    """Real users of a sequential base, by their training histories.

    Args:
        base: the base model.
        users: ``[n]`` their ids.
        inter: training interactions, in order of user and time.
    """

    base: Any
    users: Tensor
    inter: Interactions

    @property
    def n_users(self) -> int:
        """How many."""
        return len(self.users)

    @property
    def length(self) -> int:
        """Items of each, at most: the window."""
        return int(self.base.max_seq_length)

    def batches(self, rows: int) -> Iterator[Interaction]:
        """Batches of at most ``rows`` users, each with the last items of the window."""
        base = self.base
        histories = Histories.from_interactions(self.inter)
        all_rows = Rows(histories.indptr, histories.items)
        for part in torch.split(self.users, rows):
            last = all_rows.take(part.numpy(), self.length)
            width = max(int(last.lengths.max()), 1) if base.any_width else self.length
            yield Interaction(
                {
                    base.USER_ID: part,
                    base.ITEM_SEQ: last.padded(width),
                    base.ITEM_SEQ_LEN: torch.from_numpy(last.lengths),
                }
            )


def users_of(
    base: Any, config: Settings, concept: Concept, positive: bool, inter: Interactions, seed: int, sequential: bool
) -> SidedUsers:
    """Users who stand for one side of a concept.

    Of a concept of users, the training users who have it, or have it not. Of a concept of items, synthetic users of
    those items on a sequential base, and on any other the training users who lean most to that side.

    Args:
        base: the base model.
        config: how many synthetic users, or what share of the real ones.
        concept: the concept.
        positive: the side that has it, or the other one.
        inter: training interactions.
        seed: of synthetic users.
        sequential: whether the base reads sequences.

    Raises:
        FairError: if the sides cannot be told apart.
    """
    own = concept.positive if positive else concept.negative
    if concept.of == "users":
        return HistoryUsers(base, own, inter) if sequential else RealUsers(base, own)
    if sequential:
        return synthetic_users(base, config, own, inter, seed)
    sides = leaning_users(inter, concept.positive, concept.negative, config["profile_share"], config["profile_history"])
    return RealUsers(base, sides[0 if positive else 1])


def synthetic_users(base: Any, config: Settings, items: Tensor, inter: Interactions, seed: int) -> SyntheticUsers:
    """Synthetic users of some items, as the configuration asks for them.

    Args:
        base: a sequential base.
        config: ``synthetic_users``, ``synthetic_length`` and ``seed``, of which identities are drawn.
        items: ``[m]`` inner ids of the items to draw from.
        inter: training interactions.
        seed: of the sequences.

    Raises:
        FairError: a length beyond the window, or no items.
    """
    profiles = profiles_of(config, items, inter, int(base.max_seq_length), seed)
    identities = torch.from_numpy(np.unique(inter.user)) if base.reads_user_id else None
    return SyntheticUsers(base, profiles, identities, int(config["seed"] or 0))


def leaning_users(
    inter: Interactions, head: Tensor, tail: Tensor, share: float, last: int | None
) -> tuple[Tensor, Tensor]:
    """Users whose histories lean most to popular and to unpopular items.

    Users are ordered by the share of head items less the share of tail items among their ``last`` last training
    interactions (all, where it is None or there is no time); ties by ascending id.

    Args:
        inter: training interactions.
        head: inner ids of the popular items.
        tail: inner ids of the unpopular items.
        share: share of the users that is taken at either end.
        last: interactions that count.

    Returns:
        Ids of popular and of unpopular users, the most extreme first.

    Raises:
        FairError: if a side would have fewer than two users, or all users lean alike.
    """
    lean = np.isin(inter.item, head.numpy()).astype(np.float64) - np.isin(inter.item, tail.numpy())
    if last is not None and inter.time is not None:
        # Interactions stand in order of user and time.
        ends = np.searchsorted(inter.user, inter.user, side="right")
        recent = ends - np.arange(len(inter.user)) <= last
    else:
        recent = np.ones(len(inter.user), dtype=bool)
    size = np.bincount(inter.user[recent], minlength=inter.n_users)
    users = np.flatnonzero(size)
    mean = np.bincount(inter.user[recent], weights=lean[recent], minlength=inter.n_users)[users] / size[users]
    n = int(len(users) * share)
    popular = users[np.argsort(-mean, kind="stable")[:n]]
    unpopular = users[np.argsort(mean, kind="stable")[:n]]
    if n < 2 or mean.max() == mean.min():
        raise FairError(
            f"Users of either side cannot be told apart: profile_share={share} leaves {n} of {len(users)} "
            "users a side, or all lean alike; raise the share, or head_share and tail_share."
        )
    return torch.from_numpy(popular), torch.from_numpy(unpopular)
