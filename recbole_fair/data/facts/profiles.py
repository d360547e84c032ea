"""Synthetic users who consume only popular or only unpopular items (PopSteer section 3.1; SPREE section 4.1).

Profiles are drawn when they are asked for and never stored: a run may use hundreds of thousands of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.data.facts.interactions import Interactions
from recbole_fair.errors import FairError

# Users drawn at a time: part of the stream's definition, so that it does not depend on how it is cut into batches.
_BLOCK = 4096


@dataclass(frozen=True)
class SyntheticProfiles:
    """Users whose items are drawn uniformly, with replacement, from one set of items.

    Args:
        items: ``[m]`` inner ids of the items to draw from.
        n_users: how many users.
        length: items a user, the window of the model (PopSteer section 4.4: M = 50).
        lengths: ``[n]`` histories' lengths of real users; with them each synthetic user takes the length of a real
            user drawn at random, ``length`` at most (the option ``matched``).
        seed: of the own generator; the same seed gives the same users. The global random state is untouched.

    Raises:
        FairError: no items, or sizes below 1.
    """

    items: Tensor
    n_users: int
    length: int
    lengths: Tensor | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.items) == 0:
            raise FairError("synthetic users need at least one item to draw from; change the head and tail shares.")
        if self.n_users < 1 or self.length < 1:
            raise FairError(
                f"synthetic_users={self.n_users} and the length {self.length} of their profiles must be at least 1."
            )

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Stream the users.

        Args:
            batch_size: users a batch, at most.

        Yields:
            Item sequences ``[B, length]``, padded with 0 at the right, and their lengths ``[B]``, on the CPU.
        """
        generator = torch.Generator().manual_seed(self.seed)
        items = self.items.cpu()
        columns = torch.arange(self.length)
        for begin in range(0, self.n_users, _BLOCK):
            size = min(_BLOCK, self.n_users - begin)
            drawn = items[torch.randint(len(items), (size, self.length), generator=generator)]
            lengths = torch.full((size,), self.length)
            if self.lengths is not None:
                chosen = torch.randint(len(self.lengths), (size,), generator=generator)
                lengths = self.lengths.cpu()[chosen].clamp(1, self.length)
                drawn = drawn.masked_fill(columns >= lengths.unsqueeze(1), 0)
            yield from zip(torch.split(drawn, batch_size), torch.split(lengths, batch_size), strict=True)


def check_profile_length(length: int | str | None, window: int) -> None:
    """Raise a FairError when ``synthetic_length`` is beyond the window of the model."""
    if isinstance(length, int) and length > window:
        raise FairError(
            f"synthetic_length={length} is longer than the window of the model; "
            f"it must be at most MAX_ITEM_LIST_LENGTH={window}."
        )


def profiles_of(config: Settings, items: Tensor, inter: Interactions, window: int, seed: int) -> SyntheticProfiles:
    """The synthetic users that ``synthetic_users`` and ``synthetic_length`` ask for.

    Args:
        config: gives both keys; without a length profiles fill the window, ``matched`` draws real users' lengths.
        items: ``[m]`` inner ids of the items to draw from.
        inter: training interactions, for the lengths of real histories.
        window: longest sequence that the model reads.
        seed: of the users' own generator.

    Raises:
        FairError: a length beyond the window.
    """
    check_profile_length(config["synthetic_length"], window)
    length = config["synthetic_length"] or window
    lengths = None
    if length == "matched":
        length = window
        histories = np.bincount(inter.user)
        lengths = torch.from_numpy(histories[histories > 0])
    return SyntheticProfiles(items, config["synthetic_users"], length, lengths, seed)
