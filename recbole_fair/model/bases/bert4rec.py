"""BERT4Rec (Sun et al., CIKM 2019): RecBole's model with split scoring, so that a post-hoc method can steer it."""

from __future__ import annotations

from typing import Any

import torch
from recbole.model.sequential_recommender.bert4rec import BERT4Rec as RecBoleBERT4Rec
from torch import Tensor


class BERT4Rec(RecBoleBERT4Rec):
    """RecBole's BERT4Rec, the same parameters and scores, said as user times item plus item bias."""

    sequence_fields: tuple[str, ...] = ()  # it reads no list but that of the items

    def reconstruct_test_data(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """``[B, L]`` sequences with the first item dropped and the mask token after the last one."""
        longer = torch.cat([item_seq, item_seq.new_zeros(len(item_seq), 1)], dim=1)
        masked: Tensor = longer.scatter(1, item_seq_len.unsqueeze(1), self.mask_token)
        return masked[:, 1:]

    def represent_users(self, interaction: Any) -> Tensor:
        """``[B, d]`` what the model has at the mask token."""
        lengths = interaction[self.ITEM_SEQ_LEN]
        output = self.forward(self.reconstruct_test_data(interaction[self.ITEM_SEQ], lengths))
        users: Tensor = self.gather_indexes(output, lengths - 1)
        return users

    def item_representations(self) -> Tensor:
        """``[n_items, d]`` item embeddings without the mask token's."""
        weight: Tensor = self.item_embedding.weight
        return weight[: self.n_items]

    def item_bias(self) -> Tensor:
        """``[n_items]``."""
        bias: Tensor = self.output_bias
        return bias
