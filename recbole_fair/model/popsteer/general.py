"""PopSteer on models without sequences: the autoencoder learns the users' own vectors, real users are the profiles.

There is no encoder that could be shown a synthetic user, so popular and unpopular users are the training users whose
histories lean most to either side. Source: the LightGCN variant in PopSteer's public code; unlike there, the labels use
the share of head *and* of tail interactions, means and deviations are not weighted, and the padding user is left out.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recbole_fair.data.facts.concepts import Concept
from recbole_fair.data.facts.interactions import Interactions
from recbole_fair.model.popsteer.keys import GENERAL_KEYS
from recbole_fair.model.popsteer.popsteer import PopSteer
from recbole_fair.model.popsteer.vectors import UserVectors
from recbole_fair.model.sided_users import RealUsers, leaning_users

_ROWS = 8192


class PopSteerGeneral(PopSteer):
    """PopSteer on a model with one vector a user."""

    keys = GENERAL_KEYS
    rows_at_once = (_ROWS, _ROWS)
    reads_sequences = False

    def collect_vectors(self, inter: Interactions, show_progress: bool) -> UserVectors:
        """Vectors of the users who have training interactions, one each."""
        users = torch.from_numpy(np.unique(inter.user))
        vectors = torch.cat(list(self.represent(RealUsers(self.base, users))))
        return UserVectors(vectors, users, torch.ones(len(users), dtype=torch.bool))

    def profile_users(self, concept: Concept, inter: Interactions) -> tuple[Tensor, Tensor]:
        """Ids of the users who stand for either side of a concept.

        Of a concept of items, the share ``profile_share`` of all users at either end, by their ``profile_history`` last
        interactions, the most extreme first; see :func:`~recbole_fair.model.sided_users.leaning_users`.

        Args:
            concept: the concept.
            inter: training interactions.

        Raises:
            FairError: if a side would have fewer than two users, or all users lean alike.
        """
        if concept.of == "users":
            return concept.positive, concept.negative
        config = self._config
        pair = concept.positive, concept.negative
        return leaning_users(inter, *pair, config["profile_share"], config["profile_history"])
