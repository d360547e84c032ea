"""SASRec (Kang and McAuley, ICDM 2018), trained on all positions of a window at once.

The class is RecBole's SASRec with the same parameters, the same state dict and the same scores; what differs is the
work. Training takes windows of the users' sequences and puts the loss on many of their positions
(``train_positions: all``), so that one encoder position serves one target instead of one encoder window a target;
evaluation computes the last block only for the position that is scored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender.sasrec import SASRec as RecBoleSASRec
from torch import Tensor, nn

from recbole_fair.config.contract import Settings
from recbole_fair.data.batches.windows import WINDOW_ITEMS, WINDOW_TARGETS
from recbole_fair.data.contract import DataSet
from recbole_fair.data.facts.interactions import training_interactions
from recbole_fair.errors import FairError
from recbole_fair.model.bases.blocks import Attention, Rows, packed_block
from recbole_fair.model.bases.dropout import fast_dropout
from recbole_fair.model.bases.keys import SASREC_KEYS
from recbole_fair.model.bases.loss import chunked_cross_entropy
from recbole_fair.model.bases.sampled import NegativeItems, sampled_cross_entropy
from recbole_fair.model.bases.split import Split

_NEGATIVES_POWER = 0.5


def columns_needed(item_seq: Tensor, lengths: Tensor) -> int:
    """Columns of ``item_seq`` ``[B, L]`` that a batch with these lengths ``[B]`` needs; no row needs more.

    A graph that is exported has no sizes that depend on its inputs: there all columns are needed.
    """
    if torch.compiler.is_compiling():
        return item_seq.shape[1]
    return max(int(lengths.max()), 1) if len(lengths) else 1


def scored_positions(items: Tensor, span: int) -> Tensor | None:
    """Positions ``[B, span]`` of the targets of windows ``[B, L]``, the last ones of each; None where all are."""
    if span == items.shape[1]:
        return None
    lengths = (items > 0).sum(dim=1, keepdim=True)
    return (lengths - span).clamp_min(0) + torch.arange(span, device=items.device)


def _blocked(where: Tensor, like: Tensor) -> Tensor:
    """0, and -inf ``where`` a query must not look."""
    return torch.zeros(where.shape, dtype=like.dtype).masked_fill_(where, -math.inf)


def _numbers(cells: Tensor, size: int) -> Tensor:
    """``[size]`` with the number of each of these cells at its place."""
    return torch.zeros(size, dtype=torch.long).index_copy_(0, cells, torch.arange(len(cells)))


class SASRec(Split, RecBoleSASRec):
    """Self-attentive sequential recommendation with split scoring.

    ``calculate_loss`` takes either RecBole's prefixes (``train_positions: last``) or windows: ``window_items``
    ``[B, L]`` input items padded with 0 at the right, ``window_targets`` ``[B, S]`` the items that follow the last
    ``S`` inputs of each window, 0 where there is no loss.
    """

    keys = SASREC_KEYS
    trainer_name = "FairTrainer"
    reads_windows = True
    sequential: ClassVar[bool] = True
    sequence_fields: ClassVar[tuple[str, ...] | None] = ()  # it reads no list but that of the items
    any_width: ClassVar[bool] = True
    encodes_positions: ClassVar[bool] = True

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        if config["hidden_size"] % config["n_heads"] != 0:
            raise FairError(
                f"hidden_size={config['hidden_size']} is not a multiple of n_heads={config['n_heads']}; "
                "change one of the two."
            )
        if config["loss_type"] != "CE" and config["train_positions"] == "all":
            raise FairError(
                f"loss_type={config['loss_type']} trains one sampled negative a prefix; "
                "use it with train_positions=last, or loss_type=CE with train_positions=all."
            )
        super().__init__(config, dataset)
        self._negatives = int(config["softmax_negatives"] or 0)
        if self._negatives:
            inter = training_interactions(dataset)
            counts = torch.from_numpy(np.bincount(inter.item, minlength=inter.n_items))
            power = config["softmax_negatives_power"]
            self.negative_items = NegativeItems(counts, _NEGATIVES_POWER if power is None else float(power))

    # -- encoder -------------------------------------------------------------------------------------------------

    def encode(self, item_seq: Tensor, positions: Tensor | None = None) -> Tensor:
        """Output of the last block.

        Args:
            item_seq: ``[B, L]`` item ids, padded with 0 at the right; ``L`` at most ``max_seq_length``.
            positions: ``[B, S]`` positions that are wanted, in ``0..L-1``; all of them when omitted. Earlier blocks
                always run on every position, the last block only on these.

        Returns:
            ``[B, S, d]`` (``[B, L, d]`` without ``positions``). A position sees itself and what lies before it; what
            comes out at padded positions has no meaning.
        """
        length = item_seq.shape[1]
        hidden = self.item_embedding(item_seq) + self.position_embedding.weight[:length]
        hidden = fast_dropout(self.LayerNorm(hidden), self.hidden_dropout_prob, self.training)
        index = torch.arange(length, device=item_seq.device)
        causal = index.unsqueeze(0) > index.unsqueeze(1)
        last = len(self.trm_encoder.layer) - 1
        for number, layer in enumerate(self.trm_encoder.layer):
            queries = hidden
            blocked = causal
            if number == last and positions is not None:
                queries = hidden.gather(1, positions.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
                blocked = (index > positions.unsqueeze(-1)).unsqueeze(1)
            hidden = self._attend(layer.multi_head_attention, queries, hidden, blocked)
            hidden = self._feed_forward(layer.feed_forward, hidden)
        return hidden

    def _attend(self, attention: Any, queries: Tensor, inputs: Tensor, blocked: Tensor) -> Tensor:
        heads, size = attention.num_attention_heads, attention.attention_head_size

        def split(x: Tensor) -> Tensor:
            return x.view(x.shape[0], x.shape[1], heads, size).transpose(1, 2)

        query = split(attention.query(queries) / math.sqrt(size))
        scores = query @ split(attention.key(inputs)).transpose(2, 3)
        # A copy is needed for gradients alone.
        masked = scores.masked_fill if scores.requires_grad else scores.masked_fill_
        weights = masked(blocked, float("-inf")).softmax(dim=-1)
        weights = fast_dropout(weights, self.attn_dropout_prob, self.training)
        context = (weights @ split(attention.value(inputs))).transpose(1, 2).reshape(queries.shape)
        out = fast_dropout(attention.dense(context), self.hidden_dropout_prob, self.training)
        result: Tensor = attention.LayerNorm(out + queries)
        return result

    def _feed_forward(self, block: Any, hidden: Tensor) -> Tensor:
        inner = block.dense_1(hidden)
        inner = F.gelu(inner) if self.hidden_act == "gelu" else block.intermediate_act_fn(inner)
        out = fast_dropout(block.dense_2(inner), self.hidden_dropout_prob, self.training)
        result: Tensor = block.LayerNorm(out + hidden)
        return result

    # -- training ------------------------------------------------------------------------------------------------

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Mean loss over the targets of the batch, in nats."""
        if WINDOW_ITEMS not in interaction:
            if self.loss_type != "CE":
                loss: Tensor = super().calculate_loss(interaction)
                return loss
            return self._softmax_loss(self.represent_users(interaction), interaction[self.POS_ITEM_ID])
        items, targets = interaction[WINDOW_ITEMS], interaction[WINDOW_TARGETS]
        positions = scored_positions(items, targets.shape[1])
        wanted = targets > 0
        if self._trains_packed(items):
            hidden = self._packed(items, positions, wanted)
        else:
            hidden = self.encode(items, positions)[wanted]
        return self._softmax_loss(hidden, targets[wanted])

    def _softmax_loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of ``hidden`` ``[n, d]`` against all items, or against a sample of them."""
        table = self.item_embedding.weight
        if not self._negatives:
            return chunked_cross_entropy(hidden, table, targets)
        drawn, expected = self.negative_items.draw(self._negatives)
        # One look-up: its gradient is as large as the table.
        rows, n = F.embedding(torch.cat([targets, drawn]), table), len(targets)
        return sampled_cross_entropy(hidden, rows[:n], rows[n:], targets, drawn, expected)

    def _trains_packed(self, items: Tensor) -> bool:
        """Whether the written-out blocks apply: a CPU's full precision, and the activation that they know."""
        return items.device.type == "cpu" and self.hidden_act == "gelu" and not torch.is_autocast_enabled("cpu")

    def _packed(self, items: Tensor, positions: Tensor | None, wanted: Tensor) -> Tensor:
        """``encode(items, positions)[wanted]`` without work on padding; ``[m, d]``.

        Args:
            items: ``[B, L]``.
            positions: ``[B, S]``; all of them when None.
            wanted: bool ``[B, S]``, never at padding.
        """
        length, heads = items.shape[1], int(self.n_heads)
        rows = Rows.where(items > 0)
        index = torch.arange(length)
        table = self.position_embedding.weight[:length]
        places = index.expand_as(items)
        hidden = F.embedding(rows.of(items), self.item_embedding.weight) + F.embedding(rows.of(places), table)
        hidden = fast_dropout(self.LayerNorm(hidden), self.hidden_dropout_prob, self.training)
        dropout = (self.attn_dropout_prob, self.hidden_dropout_prob) if self.training else (0.0, 0.0)
        causal = _blocked(index.unsqueeze(0) > index.unsqueeze(1), hidden)
        everywhere = Attention(rows, rows, None, causal, heads, *dropout)
        scored = everywhere
        if positions is not None or not torch.equal(wanted, items > 0):
            positions = places if positions is None else positions
            cells = torch.arange(len(items)).unsqueeze(1) * length + positions
            number = torch.arange(items.numel()) if rows.cells is None else _numbers(rows.cells, items.numel())
            blocked = _blocked(index > positions.unsqueeze(-1), hidden).repeat_interleave(heads, dim=0)
            scored = Attention(rows, Rows.where(wanted), number[cells[wanted]], blocked, heads, *dropout)
        layers = self.blocks()
        for number_of_layer, layer in enumerate(layers):
            how = scored if number_of_layer == len(layers) - 1 else everywhere
            hidden = packed_block(layer, hidden, how, self.layer_norm_eps)
        return hidden

    def blocks(self) -> Sequence[nn.Module]:
        """The encoder's layers."""
        layers: Sequence[nn.Module] = self.trm_encoder.layer
        return layers

    # -- scoring -------------------------------------------------------------------------------------------------

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` representations of the users' last positions (RecBole's ``seq_output``)."""
        item_seq, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        width = columns_needed(item_seq, lengths)
        return self.encode(item_seq[:, :width], (lengths - 1).clamp_min(0).unsqueeze(1)).squeeze(1)

    def item_representations(self) -> Tensor:
        """``[n_items, d]`` item embeddings, row 0 being the padding item."""
        weight: Tensor = self.item_embedding.weight
        return weight

    def predict(self, interaction: Interaction) -> Tensor:
        """``[B]`` scores of the interaction's own items."""
        users = self.represent_users(interaction)
        return (users * self.item_embedding(interaction[self.ITEM_ID])).sum(dim=1)

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """``[B, n_items]`` scores of all items."""
        return self.represent_users(interaction) @ self.item_representations().t()
