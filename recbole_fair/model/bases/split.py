"""RecBole's BPR and LightGCN with split scoring: the same models, which also say what their two sides are."""

from __future__ import annotations

from typing import Any

import torch
from recbole.model.general_recommender import BPR, LightGCN
from torch import Tensor


class SplitBPR(BPR):
    """BPR: a user's representation is the embedding."""

    def represent_users(self, interaction: Any) -> Tensor:
        """``[B, d]`` user embeddings."""
        users: Tensor = self.user_embedding(interaction[self.USER_ID])
        return users

    def item_representations(self) -> Tensor:
        """``[n_items, d]`` item embeddings."""
        items: Tensor = self.item_embedding.weight
        return items


class FullPrecisionLightGCN(LightGCN):
    """LightGCN whose propagation stays in full precision under ``enable_amp``.

    Sparse products have no gradient in 16 bits on a CPU; RecBole's own class ends in PyTorch's error there.
    """

    def forward(self) -> tuple[Tensor, Tensor]:
        """Propagated users and items."""
        with torch.autocast(self.device.type, enabled=False):
            users, items = super().forward()
        return users, items


class SplitLightGCN(FullPrecisionLightGCN):
    """LightGCN: representations are the propagated embeddings, averaged over the layers."""

    _propagated: tuple[tuple[int, int], Tensor, Tensor] | None = None

    def _sides(self) -> tuple[Tensor, Tensor]:
        """Propagated users and items; without gradient they are kept for as long as the embeddings stay as they are."""
        if torch.is_grad_enabled():
            users, items = self.forward()
            return users, items
        version = self.user_embedding.weight._version, self.item_embedding.weight._version
        if self._propagated is None or self._propagated[0] != version:
            self._propagated = (version, *self.forward())
        return self._propagated[1:]

    def represent_users(self, interaction: Any) -> Tensor:
        """``[B, d]`` propagated users."""
        return self._sides()[0][interaction[self.USER_ID]]

    def item_representations(self) -> Tensor:
        """``[n_items, d]`` propagated items."""
        return self._sides()[1]
