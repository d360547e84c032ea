"""PopSteer on models without sequences: the autoencoder learns the users' own vectors, real users are the profiles.

There is no encoder that could be shown a synthetic user, so popular and unpopular users are the training users whose
histories lean most to either side. Source: the LightGCN variant in PopSteer's public code; unlike there, the labels use
the share of head *and* of tail interactions, means and deviations are not weighted, and the padding user is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.model.general_recommender import BPR, LightGCN
from torch import Tensor

from recbole_fair.data.facts.interactions import Interactions
from recbole_fair.errors import FairError
from recbole_fair.model.bases.split import split_class
from recbole_fair.model.popsteer.keys import GENERAL_KEYS
from recbole_fair.model.popsteer.popsteer import PopSteer
from recbole_fair.model.popsteer.vectors import UserVectors

_ROWS = 8192


class PopSteerGeneral(PopSteer):
    """PopSteer on a model with one vector a user."""

    keys = GENERAL_KEYS

    def collect_vectors(self, inter: Interactions, show_progress: bool) -> UserVectors:
        """Vectors of the users who have training interactions, one each."""
        users = torch.from_numpy(np.unique(inter.user))
        vectors = torch.cat(list(self._vectors(users)))
        return UserVectors(vectors, users, torch.ones(len(users), dtype=torch.bool))

    def profile_users(self, inter: Interactions) -> tuple[Tensor, Tensor]:
        """Users whose histories lean most to popular and to unpopular items.

        Users are ordered by the share of head items less the share of tail items among their ``profile_history`` last
        training interactions (all, where it is not set or there is no time); ties by ascending id. The share
        ``profile_share`` of them at either end is taken.

        Args:
            inter: training interactions.

        Returns:
            Ids of popular and of unpopular users, the most extreme first.

        Raises:
            FairError: if a side would have fewer than two users, or all users lean alike.
        """
        head, tail = self.profile_items(inter)
        lean = np.isin(inter.item, head.numpy()).astype(np.float64) - np.isin(inter.item, tail.numpy())
        last = self._config["profile_history"]
        if last is not None and inter.time is not None:
            # Interactions stand in order of user and time.
            ends = np.searchsorted(inter.user, inter.user, side="right")
            recent = ends - np.arange(len(inter.user)) <= last
        else:
            recent = np.ones(len(inter.user), dtype=bool)
        size = np.bincount(inter.user[recent], minlength=inter.n_users)
        users = np.flatnonzero(size)
        mean = np.bincount(inter.user[recent], weights=lean[recent], minlength=inter.n_users)[users] / size[users]
        share = self._config["profile_share"]
        n = int(len(users) * share)
        popular = users[np.argsort(-mean, kind="stable")[:n]]
        unpopular = users[np.argsort(mean, kind="stable")[:n]]
        if n < 2 or mean.max() == mean.min():
            raise FairError(
                f"Popular and unpopular users cannot be told apart: profile_share={share} leaves {n} of {len(users)} "
                "users a side, or all lean alike; raise the share, or head_share and tail_share."
            )
        return torch.from_numpy(popular), torch.from_numpy(unpopular)

    def profile_vectors(
        self, items: Tensor, inter: Interactions, seed: int, n_users: int | None = None
    ) -> Iterator[Tensor]:
        """Vectors of the users who lean to ``items``: to the head or to the tail of :meth:`profile_items`."""
        is_head = torch.equal(items, self.profile_items(inter)[0])
        users = self.profile_users(inter)[0 if is_head else 1]
        yield from self._vectors(users[:n_users])

    @torch.no_grad()
    def _vectors(self, users: Tensor) -> Iterator[Tensor]:
        self.base.eval()
        device = self.base.item_representations().device
        for part in torch.split(users, _ROWS):
            yield self.base.represent_users(Interaction({self.base.USER_ID: part}).to(device))


class PopSteerBPR(PopSteerGeneral):
    """PopSteer on BPR."""

    base_class = split_class(BPR)
    base_model_name = "BPR"
    type = BPR.type
    input_type = BPR.input_type


class PopSteerLightGCN(PopSteerGeneral):
    """PopSteer on LightGCN, on its propagated user vectors."""

    base_class = split_class(LightGCN)
    base_model_name = "LightGCN"
    type = LightGCN.type
    input_type = LightGCN.input_type
