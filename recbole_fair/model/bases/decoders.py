"""Autoencoders with a linear last layer: its inputs are the users, its weights the items, its offsets the item bias."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from recbole.model import general_recommender as recbole
from recbole.model.abstract_recommender import GeneralRecommender
from torch import Tensor, nn

from recbole_fair.model.bases.split import Split


class DecoderSplit(Split, GeneralRecommender):
    """Autoencoders whose ``decoder`` is a sequence of layers that ends in a linear one (MultiDAE)."""

    def hidden(self, rows: Tensor) -> Tensor:
        """``[B, h]`` latent values of users' rows ``[B, n_items]``."""
        latent: Tensor = self.encoder(F.normalize(rows))
        return latent

    def last_layer(self) -> nn.Linear:
        """The linear map to the items."""
        layer: nn.Linear = self.decoder[-1]
        return layer

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` what goes into the last layer."""
        users: Tensor = self.decoder[:-1](self.hidden(self.get_rating_matrix(interaction[self.USER_ID])))
        return users

    def item_representations(self) -> Tensor:
        """``[n_items, d]`` weights of the last layer."""
        return self.last_layer().weight

    def score_bias(self) -> Tensor:
        """``[n_items]`` offsets of the last layer."""
        return self.last_layer().bias


class MultiVAESplit(DecoderSplit):
    """MultiVAE: the latent values are the means of the encoder."""

    def hidden(self, rows: Tensor) -> Tensor:
        """``[B, h]`` means, the first half of what the encoder gives."""
        return super().hidden(rows)[:, : self.lat_dim // 2]


class RaCTSplit(MultiVAESplit):
    """RaCT: MultiVAE with inputs scaled as RaCT scales them."""

    def hidden(self, rows: Tensor) -> Tensor:
        """``[B, h]`` means."""
        latent: Tensor = self.encoder(F.normalize(rows) * (1 - self.drop_out))
        return latent[:, : self.lat_dim // 2]


class RecVAESplit(DecoderSplit):
    """RecVAE: one linear layer decodes the means of a deep encoder."""

    def last_layer(self) -> nn.Linear:
        """The decoder."""
        layer: nn.Linear = self.decoder
        return layer

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` means of the latent values."""
        means: Tensor = self.encoder(self.get_rating_matrix(interaction[self.USER_ID]), dropout_prob=0.0)[0]
        return means


class CDAESplit(DecoderSplit):
    """CDAE: one hidden layer that also has a vector of the user; scores go through the output's activation."""

    def last_layer(self) -> nn.Linear:
        """The output layer."""
        layer: nn.Linear = self.out_layer
        return layer

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` hidden values."""
        user = interaction[self.USER_ID]
        users: Tensor = self.h_act(torch.add(self.h_user(user), self.h_item(self.get_rating_matrix(user))))
        return users

    def to_scores(self, products: Tensor) -> Tensor:
        """Values of the output's activation."""
        scores: Tensor = self.o_act(products)
        return scores


FAMILIES: dict[type[Any], type[Split]] = {
    recbole.MultiDAE: DecoderSplit,
    recbole.MultiVAE: MultiVAESplit,
    recbole.RaCT: RaCTSplit,
    recbole.RecVAE: RecVAESplit,
    recbole.CDAE: CDAESplit,
}
