"""Local models: copies or relatives of a base autoencoder that are fitted to some users each (TALL's baselines)."""

from __future__ import annotations

from typing import ClassVar

import torch
from recbole.data.interaction import Interaction
from recbole.utils import InputType, ModelType
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.data.contract import DataSet
from recbole_fair.errors import FairError
from recbole_fair.model.posthoc import PostHocModel
from recbole_fair.model.tall.experts import StackedVAE

_USERS_AT_ONCE = 512


class LocalModel(PostHocModel):
    """A trained autoencoder and what local models make of its scores.

    The variant ``base`` is the autoencoder, ``local`` the method. A concrete class writes ``fit_intervention`` and
    :meth:`local_scores`.
    """

    type = ModelType.GENERAL
    input_type = InputType.PAIRWISE
    variants = ("base", "local")
    needs_split: ClassVar[bool] = False

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        super().__init__(config, dataset)
        self.device = self.base.device
        self.rows = self.base.rows
        self.n_users: int = self.base.n_users
        self.n_items: int = self.base.n_items
        self.USER_ID, self.ITEM_ID = self.base.USER_ID, self.base.ITEM_ID

    def local_scores(self, users: Tensor) -> Tensor:
        """Scores ``[B, I]`` of the items without the padding, for users with a local model."""
        raise NotImplementedError

    def has_local_model(self, users: Tensor) -> Tensor:
        """Which users have a local model, bool ``[B]``: those with training items, unless a class says otherwise."""
        return self.rows.lengths[users] > 0

    @torch.no_grad()
    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """``[B, n_items]`` scores of all items by the variant in use; those of the padding item are -inf.

        Users without a local model get the base's scores.
        """
        if self.variant == "base":
            base: Tensor = self.base.full_sort_predict(interaction)
            return base
        if not self.fitted:
            raise FairError(f"{type(self).__name__} has not been fitted yet; train it, or load a checkpoint of it.")
        users = interaction[self.USER_ID]
        scores = torch.full((len(users), self.n_items), -torch.inf, device=users.device)
        for start in range(0, len(users), _USERS_AT_ONCE):
            stop = start + _USERS_AT_ONCE
            scores[start:stop, 1:] = self.local_scores(users[start:stop])
        alone = ~self.has_local_model(users)
        if bool(alone.any()):
            scores[alone] = self.base.full_sort_predict({self.USER_ID: users[alone]})
        return scores

    @torch.no_grad()
    def predict(self, interaction: Interaction) -> Tensor:
        """``[B]`` scores of pairs; each user is scored once."""
        users, back = torch.unique(interaction[self.USER_ID], return_inverse=True)
        return self.full_sort_predict({self.USER_ID: users})[back, interaction[self.ITEM_ID]]

    def make_experts(self, config: Settings) -> StackedVAE:
        """A stack of ``n_experts`` local models.

        Raises:
            FairError: for more local models than users.
        """
        wanted, there = int(config["n_experts"]), len(self.active_users())
        if wanted > there:
            raise FairError(f"n_experts={wanted} is more than the {there} users with training items.")
        return StackedVAE(wanted, self.n_items - 1, int(config["latent_dimension"]), self.device)

    def active_users(self) -> Tensor:
        """Ids of the users with training items, long ``[N]``, rising."""
        return torch.nonzero(self.rows.lengths > 0).squeeze(1)
