"""Models with a vector a user and a vector an item: factorisations and graph networks."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from recbole.model import general_recommender as recbole
from recbole.model import knowledge_aware_recommender as knowledge
from recbole.model.abstract_recommender import AbstractRecommender, GeneralRecommender
from torch import Tensor

from recbole_fair.model.bases.split import Split


class EmbeddingSplit(Split, GeneralRecommender):
    """Models whose score is the product of two embeddings (BPR, LINE)."""

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` user embeddings."""
        users: Tensor = self.user_embedding(interaction[self.USER_ID])
        return users

    def item_representations(self) -> Tensor:
        """``[n_items, d]`` item embeddings."""
        items: Tensor = self.item_embedding.weight
        return items


class ENMFSplit(EmbeddingSplit):
    """ENMF: a product with a weight a coordinate, which is counted to the user."""

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` user embeddings times the weights of the coordinates."""
        return super().represent_users(interaction) * self.H_i.weight


class CKESplit(Split, AbstractRecommender):
    """CKE: an item is its embedding plus that of its entity in the knowledge graph."""

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` user embeddings."""
        users: Tensor = self.user_embedding(interaction[self.USER_ID])
        return users

    def item_representations(self) -> Tensor:
        """``[n_items, d]``."""
        items: Tensor = self.item_embedding.weight + self.entity_embedding.weight[: self.n_items]
        return items


class SimpleXSplit(Split, GeneralRecommender):
    """SimpleX: a user is mixed of an own vector and the history; scores are cosines."""

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` of length 1."""
        user = interaction[self.USER_ID]
        mixed = self.get_UI_aggregation(
            self.user_emb(user), self.item_emb(self.history_item_id[user]), self.history_item_len[user]
        )
        return F.normalize(mixed, dim=1)

    def item_representations(self) -> Tensor:
        """``[n_items, d]`` of length 1."""
        return F.normalize(self.item_emb.weight, dim=1)


class FISMSplit(Split, GeneralRecommender):
    """FISM: a user is the scaled sum of the source vectors of the user's items.

    The user's own bias is left out: it moves all of a user's scores alike.
    """

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]``."""
        user = interaction[self.USER_ID]
        history = self.item_src_embedding(self.history_item_matrix[user]) * self.mask_mat[user].unsqueeze(-1)
        # A user without history keeps the vector 0.
        scale = self.history_lens[user].clamp_min(1).float().pow(-self.alpha)
        return history.sum(dim=1) * scale.unsqueeze(1)

    def item_representations(self) -> Tensor:
        """``[n_items, d]`` destination vectors."""
        items: Tensor = self.item_dst_embedding.weight
        return items

    def score_bias(self) -> Tensor:
        """``[n_items]``."""
        bias: Tensor = self.item_bias
        return bias


class NCEPLRecSplit(Split, GeneralRecommender):
    """NCE-PLRec: a projection of the interactions that is computed, not trained."""

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` projected users."""
        users: Tensor = self.user_embeddings[interaction[self.USER_ID]]
        return users.float()

    def item_representations(self) -> Tensor:
        """``[n_items, d]`` regression weights."""
        items: Tensor = self.item_embeddings.t()
        return items.float()


class DerivedSplit(Split, AbstractRecommender):
    """Models whose vectors are computed from all of their parameters at once, as graph networks do.

    A subclass writes :meth:`both_sides`. Without gradients its result is kept for as long as the parameters stay as
    they are.
    """

    _kept: tuple[tuple[Any, ...], Tensor, Tensor] | None = None

    def both_sides(self) -> tuple[Tensor, Tensor]:
        """``[n_users, d]`` and ``[n_items, d]``: by default what ``forward()`` gives, users and items first."""
        users, items, *_ = self.forward()
        return users, items[: self.n_items]

    def _sides(self) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():
            return self.both_sides()
        # Dropout makes the two modes differ.
        parameters = list(self.parameters())
        version = (self.training, parameters[0].device, *(parameter._version for parameter in parameters))
        if self._kept is None or self._kept[0] != version:
            self._kept = (version, *self.both_sides())
        return self._kept[1:]

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` users as they are after propagation."""
        return self._sides()[0][interaction[self.USER_ID]]

    def item_representations(self) -> Tensor:
        """``[n_items, d]`` items as they are after propagation."""
        return self._sides()[1]


class FullPrecisionLightGCN(recbole.LightGCN):
    """LightGCN whose propagation stays in full precision under ``enable_amp``.

    Sparse products have no gradient in 16 bits on a CPU; RecBole's own class ends in PyTorch's error there.
    """

    def forward(self) -> tuple[Tensor, Tensor]:
        """Propagated users and items."""
        with torch.autocast(self.device.type, enabled=False):
            users, items = super().forward()
        return users, items


class LightGCNSplit(DerivedSplit, FullPrecisionLightGCN):
    """LightGCN: representations are the propagated embeddings, averaged over the layers."""


class SGLSplit(DerivedSplit):
    """SGL: LightGCN's propagation over the graph of all training interactions."""

    def both_sides(self) -> tuple[Tensor, Tensor]:
        """Propagated users and items."""
        users, items = self.forward(self.train_graph)
        return users, items


class GCMCSplit(DerivedSplit):
    """GCMC: a bilinear form of the encoded users and items, whose matrix is counted to the users."""

    def both_sides(self) -> tuple[Tensor, Tensor]:
        """Users times the mixture of basis matrices that makes up the score, and items."""
        users, items = self.GcEncoder(self.user_features, self.item_features)
        weights = self.BiDecoder.dense_layer.weight[1]
        mixture = sum(weight * basis for weight, basis in zip(weights, self.BiDecoder.weights, strict=True))
        return users @ mixture, items


class DMFSplit(DerivedSplit):
    """DMF: rows and columns of the interaction matrix through two networks; scores are a sigmoid of the product."""

    def both_sides(self) -> tuple[Tensor, Tensor]:
        """Users and items out of the two networks."""
        everybody = torch.arange(self.n_users, device=self.device)
        parts = [self.user_fc_layers(self.get_user_embedding(part)) for part in torch.split(everybody, 1024)]
        return torch.cat(parts), self.get_item_embedding()

    def to_scores(self, products: Tensor) -> Tensor:
        """Probabilities."""
        return products.sigmoid()


FAMILIES: dict[type[Any], type[Split]] = {
    recbole.BPR: EmbeddingSplit,
    recbole.LINE: EmbeddingSplit,
    recbole.ENMF: ENMFSplit,
    recbole.SimpleX: SimpleXSplit,
    recbole.FISM: FISMSplit,
    recbole.NCEPLRec: NCEPLRecSplit,
    recbole.LightGCN: LightGCNSplit,
    FullPrecisionLightGCN: DerivedSplit,
    recbole.NGCF: DerivedSplit,
    recbole.DGCF: DerivedSplit,
    recbole.NCL: DerivedSplit,
    recbole.SpectralCF: DerivedSplit,
    recbole.SGL: SGLSplit,
    recbole.GCMC: GCMCSplit,
    recbole.DMF: DMFSplit,
    knowledge.CKE: CKESplit,
}
