"""Sequential models as users times items: the user is what the model has made of the sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from recbole.model import sequential_recommender as recbole
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_fair.model.bases.split import Split


class SequenceSplit(Split, SequentialRecommender):
    """Models with ``forward(item_seq, item_seq_len)`` and one table of item embeddings."""

    sequence_fields: ClassVar[tuple[str, ...] | None] = ()  # they read no list but that of the items

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` the model's output for each sequence."""
        users: Tensor = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return users

    def item_representations(self) -> Tensor:
        """``[n_items, d]`` item embeddings."""
        items: Tensor = self.item_embedding.weight
        return items


class TransformerSplit(SequenceSplit):
    """Models of RecBole's transformer encoder, ``trm_encoder``."""

    def blocks(self) -> Sequence[nn.Module]:
        """The encoder's layers."""
        layers: Sequence[nn.Module] = self.trm_encoder.layer
        return layers


class FEARecSplit(SequenceSplit):
    """FEARec: blocks in the time and the frequency domain."""

    def blocks(self) -> Sequence[nn.Module]:
        """The encoder's layers."""
        layers: Sequence[nn.Module] = self.item_encoder.layer
        return layers


class GCSANSplit(SequenceSplit):
    """GCSAN: self-attention on top of a graph network."""

    def blocks(self) -> Sequence[nn.Module]:
        """The layers of the self-attention."""
        layers: Sequence[nn.Module] = self.self_attention.layer
        return layers


class FDSASplit(SequenceSplit):
    """FDSA: one encoder for items and one for their features, whose outputs are joined."""

    def blocks(self) -> Sequence[nn.Module]:
        """The layers of the items' encoder."""
        layers: Sequence[nn.Module] = self.item_trm_encoder.layer
        return layers


class NextItNetSplit(SequenceSplit):
    """NextItNet: convolutions over the whole window, whose last column is the user."""

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` the model's output for each sequence."""
        users: Tensor = self.forward(interaction[self.ITEM_SEQ])
        return users


class CORESplit(SequenceSplit):
    """CORE: the user is a mean of items, and scores are cosines over a temperature."""

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` of length 1."""
        users: Tensor = self.forward(interaction[self.ITEM_SEQ])
        return users

    def item_representations(self) -> Tensor:
        """``[n_items, d]`` of length 1 over the temperature."""
        items: Tensor = F.normalize(self.item_embedding.weight, dim=-1) / self.temperature
        return items

    def blocks(self) -> Sequence[nn.Module]:
        """The layers of the encoder that weights the items, under ``dnn_type: trm``."""
        layers: Sequence[nn.Module] = self.net.trm_encoder.layer if self.dnn_type == "trm" else ()
        return layers


class BERT4RecSplit(TransformerSplit):
    """BERT4Rec: the user is what the model has at the mask token; items have a bias."""

    any_width: ClassVar[bool] = True

    def reconstruct_test_data(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """``[B, L]`` sequences with the first item dropped and the mask token after the last one."""
        longer = torch.cat([item_seq, torch.zeros_like(item_seq[:, :1])], dim=1)
        masked: Tensor = longer.scatter(1, item_seq_len.unsqueeze(1), self.mask_token)
        return masked[:, 1:]

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` what the model has at the mask token."""
        lengths = interaction[self.ITEM_SEQ_LEN]
        output = self.forward(self.reconstruct_test_data(interaction[self.ITEM_SEQ], lengths))
        users: Tensor = self.gather_indexes(output, lengths - 1)
        return users

    def item_representations(self) -> Tensor:
        """``[n_items, d]`` item embeddings without the mask token's."""
        weight: Tensor = self.item_embedding.weight
        return weight[: self.n_items]

    def score_bias(self) -> Tensor:
        """``[n_items]``."""
        bias: Tensor = self.output_bias
        return bias


class S3RecSplit(TransformerSplit):
    """S3Rec: a causal transformer whose table ends in a mask token."""

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` output at the last item."""
        output = self.forward(interaction[self.ITEM_SEQ], bidirectional=False)
        users: Tensor = self.gather_indexes(output, interaction[self.ITEM_SEQ_LEN] - 1)
        return users

    def item_representations(self) -> Tensor:
        """``[n_items, d]`` item embeddings without the mask token's."""
        weight: Tensor = self.item_embedding.weight
        return weight[: self.n_items - 1]


class CaserSplit(SequenceSplit):
    """Caser: convolutions over the sequence, beside a vector of the user."""

    reads_user_id: ClassVar[bool] = True

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` the model's output for each user and sequence."""
        users: Tensor = self.forward(interaction[self.USER_ID], interaction[self.ITEM_SEQ])
        return users


class SHANSplit(SequenceSplit):
    """SHAN: attention of the user over the sequence."""

    reads_user_id: ClassVar[bool] = True

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` the model's output for each user and sequence."""
        users: Tensor = self.forward(interaction[self.ITEM_SEQ], interaction[self.USER_ID])
        return users


class HGNSplit(SHANSplit):
    """HGN: items have other embeddings when they are scored."""

    def item_representations(self) -> Tensor:
        """``[n_items, d]`` item embeddings for prediction."""
        items: Tensor = self.item_embedding_for_prediction.weight
        return items


class NPESplit(SHANSplit):
    """NPE: vectors of users and items through a ReLU."""

    def item_representations(self) -> Tensor:
        """``[n_items, d]``, none negative."""
        items: Tensor = self.relu(self.item_embedding.weight)
        return items


class FOSSILSplit(SequenceSplit):
    """FOSSIL: a Markov chain of high order beside the similarity of items."""

    reads_user_id: ClassVar[bool] = True

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` the model's output for each user and sequence."""
        sequences, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        users: Tensor = self.forward(sequences, lengths, interaction[self.USER_ID])
        return users


class HRMSplit(SequenceSplit):
    """HRM: pooled vectors of the last items and of the user."""

    reads_user_id: ClassVar[bool] = True

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` the model's output for each user and sequence."""
        sequences, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        users: Tensor = self.forward(sequences, interaction[self.USER_ID], lengths)
        return users


class FPMCSplit(SequenceSplit):
    """FPMC: a factorisation of users and one of the last item, side by side."""

    reads_user_id: ClassVar[bool] = True

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, 2 d]`` the user's vector and that of the user's last item."""
        last = interaction[self.ITEM_SEQ].gather(1, (interaction[self.ITEM_SEQ_LEN] - 1).unsqueeze(1)).squeeze(1)
        return torch.cat([self.UI_emb(interaction[self.USER_ID]), self.LI_emb(last)], dim=1)

    def item_representations(self) -> Tensor:
        """``[n_items, 2 d]`` the items' vectors against users and against the last item."""
        return torch.cat([self.IU_emb.weight, self.IL_emb.weight], dim=1)


FAMILIES: dict[type[Any], type[Split]] = {
    **dict.fromkeys(
        (
            recbole.GRU4Rec, recbole.GRU4RecF, recbole.NARM, recbole.STAMP, recbole.SRGNN, recbole.SINE,
        ),
        SequenceSplit,
    ),
    **dict.fromkeys((recbole.SASRec, recbole.SASRecF, recbole.LightSANs), TransformerSplit),
    recbole.BERT4Rec: BERT4RecSplit,
    recbole.CORE: CORESplit,
    recbole.Caser: CaserSplit,
    recbole.FDSA: FDSASplit,
    recbole.FEARec: FEARecSplit,
    recbole.FOSSIL: FOSSILSplit,
    recbole.FPMC: FPMCSplit,
    recbole.GCSAN: GCSANSplit,
    recbole.HGN: HGNSplit,
    recbole.HRM: HRMSplit,
    recbole.NPE: NPESplit,
    recbole.NextItNet: NextItNetSplit,
    recbole.S3Rec: S3RecSplit,
    recbole.SHAN: SHANSplit,
}  # fmt: skip
