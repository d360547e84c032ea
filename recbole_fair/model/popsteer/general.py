"""PopSteer on models without sequences: the autoencoder learns the users' own vectors, real users are the profiles.

There is no encoder that could be shown a synthetic user, so popular and unpopular users are the training users whose
histories lean most to either side. Source: the LightGCN variant in PopSteer's public code; unlike there, the labels use
the share of head *and* of tail interactions, means and deviations are not weighted, and the padding user is left out.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recbole_fair.data.facts.interactions import Interactions
from recbole_fair.model.popsteer.keys import GENERAL_KEYS
from recbole_fair.model.popsteer.popsteer import PopSteer
from recbole_fair.model.popsteer.vectors import UserVectors
from recbole_fair.model.sided_users import RealUsers, SidedUsers, leaning_users

_ROWS = 8192


class PopSteerGeneral(PopSteer):
    """PopSteer on a model with one vector a user."""

    keys = GENERAL_KEYS
    rows_at_once = (_ROWS, _ROWS)

    def collect_vectors(self, inter: Interactions, show_progress: bool) -> UserVectors:
        """Vectors of the users who have training interactions, one each."""
        users = torch.from_numpy(np.unique(inter.user))
        vectors = torch.cat(list(self.represent(RealUsers(self.base, users))))
        return UserVectors(vectors, users, torch.ones(len(users), dtype=torch.bool))

    def profile_users(self, inter: Interactions) -> tuple[Tensor, Tensor]:
        """Ids of the users who lean most to popular and to unpopular items, the most extreme first.

        The share ``profile_share`` of all users is taken at either end, by their ``profile_history`` last interactions;
        see :func:`~recbole_fair.model.sided_users.leaning_users`.

        Args:
            inter: training interactions.

        Raises:
            FairError: if a side would have fewer than two users, or all users lean alike.
        """
        config = self._config
        return leaning_users(inter, *self.profile_items(inter), config["profile_share"], config["profile_history"])

    def profiles(self, items: Tensor, inter: Interactions, seed: int, n_users: int | None = None) -> SidedUsers:
        """The users who lean to ``items``: to the head or to the tail of :meth:`profile_items`."""
        is_head = torch.equal(items, self.profile_items(inter)[0])
        return RealUsers(self.base, self.profile_users(inter)[0 if is_head else 1][:n_users])
