"""Transformer blocks of RecBole's make, trained on packed rows: forward and backward passes written out.

Autograd keeps an intermediate for every operation and walks over memory once for each. Here a whole block is one
function: padding is left out of everything but the attention, masks and scales are folded into products, residuals and
dropout into one operation, and gradients are added where they are made. The numbers are those of the layers, up to the
order of additions; ``tests/model/test_blocks.py`` compares both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_fair.model.bases.dropout import dropout_factors

#: Names of a block's parameters in the order in which :func:`packed_block` hands them on.
_PARAMETERS = (
    "multi_head_attention.query.weight", "multi_head_attention.query.bias",
    "multi_head_attention.key.weight", "multi_head_attention.key.bias",
    "multi_head_attention.value.weight", "multi_head_attention.value.bias",
    "multi_head_attention.dense.weight", "multi_head_attention.dense.bias",
    "multi_head_attention.LayerNorm.weight", "multi_head_attention.LayerNorm.bias",
    "feed_forward.dense_1.weight", "feed_forward.dense_1.bias",
    "feed_forward.dense_2.weight", "feed_forward.dense_2.bias",
    "feed_forward.LayerNorm.weight", "feed_forward.LayerNorm.bias",
)  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """Which cells of a padded ``[B, L]`` grid some packed rows ``[n]`` are.

    Attributes:
        batch: ``B``.
        width: ``L``.
        cells: ``[n]`` their numbers in ``0..B*L-1``, ascending; None where they are all cells.
    """

    batch: int
    width: int
    cells: Tensor | None

    @classmethod
    def where(cls, inside: Tensor) -> Rows:
        """The cells at which ``inside`` ``[B, L]`` holds."""
        cells = inside.reshape(-1).nonzero().squeeze(1)
        return cls(inside.shape[0], inside.shape[1], None if len(cells) == inside.numel() else cells)

    def of(self, grid: Tensor) -> Tensor:
        """The rows ``[n, ...]`` of ``[B, L, ...]``."""
        flat = grid.reshape(self.batch * self.width, *grid.shape[2:])
        return flat if self.cells is None else flat.index_select(0, self.cells)

    def by_head(self, x: Tensor, heads: int) -> Tensor:
        """``[n, heads * s]`` as a padded ``[B * heads, L, s]``; what is no row is 0."""
        if self.cells is not None:
            x = x.new_zeros(self.batch * self.width, x.shape[1]).index_copy_(0, self.cells, x)
        grid = x.view(self.batch, self.width, heads, -1).transpose(1, 2)
        return grid.reshape(self.batch * heads, self.width, -1)

    def packed(self, x: Tensor) -> Tensor:
        """The reverse of :meth:`by_head`."""
        grid = x.view(self.batch, -1, self.width, x.shape[2]).transpose(1, 2)
        return self.of(grid.reshape(self.batch, self.width, -1))


@dataclass(frozen=True)
class Attention:
    """Who attends to whom in a block.

    Attributes:
        keys: the rows that are attended to, all inputs of the block.
        queries: the rows that attend; their outputs are the block's.
        of_keys: ``[m]`` the queries' numbers among the keys; None where they are the same.
        blocked: ``[S, L]`` or ``[B * heads, S, L]``: 0, and -inf where a query must not look.
        heads: number of heads.
        dropout: probability of dropping an attention weight.
        hidden_dropout: probability of dropping an output of attention and feed-forward network.
    """

    keys: Rows
    queries: Rows
    of_keys: Tensor | None
    blocked: Tensor
    heads: int
    dropout: float
    hidden_dropout: float


def _draw(shape: tuple[int, ...], probability: float, like: Tensor) -> Tensor | None:
    if probability == 0.0:
        return None
    return dropout_factors(math.prod(shape), probability, like.dtype).view(shape)


def _normed(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    return torch.native_layer_norm(x, (x.shape[1],), weight, bias, eps)


def _normed_back(
    grad: Tensor, x: Tensor, statistics: tuple[Tensor, Tensor], weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    mean, scale = statistics
    parts: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_layer_norm_backward(
        grad, x, (x.shape[1],), mean, scale, weight, bias, [True, True, True]
    )
    return parts


def _added(residual: Tensor, x: Tensor, factors: Tensor | None) -> Tensor:
    """``residual + dropout(x)``."""
    return residual + x if factors is None else torch.addcmul(residual, x, factors)


def _dropped(x: Tensor, factors: Tensor | None) -> Tensor:
    return x if factors is None else x * factors


class _Block(torch.autograd.Function):
    """One block; arguments: inputs ``[n, d]``, :class:`Attention`, epsilon, parameters as in ``_PARAMETERS``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, how: Attention, eps: float, *parameters: Tensor) -> Tensor:
        wq, bq, wk, bk, wv, bv, wo, bo, g1, c1, w1, b1, w2, b2, g2, c2 = parameters
        asking = x if how.of_keys is None else x.index_select(0, how.of_keys)
        query = how.queries.by_head(torch.addmm(bq, asking, wq.t()), how.heads)
        key = how.keys.by_head(torch.addmm(bk, x, wk.t()), how.heads)
        value = how.keys.by_head(torch.addmm(bv, x, wv.t()), how.heads)
        scores = torch.baddbmm(how.blocked, query, key.transpose(1, 2), alpha=1.0 / math.sqrt(query.shape[2]))
        weights = torch.softmax(scores, dim=-1)
        of_weights = _draw(tuple(weights.shape), how.dropout, x)
        context = how.queries.packed(torch.bmm(_dropped(weights, of_weights), value))
        factors = _draw((2, *asking.shape), how.hidden_dropout, x)
        first, second = (None, None) if factors is None else (factors[0], factors[1])
        summed = _added(asking, torch.addmm(bo, context, wo.t()), first)
        middle, *statistics = _normed(summed, g1, c1, eps)
        before = torch.addmm(b1, middle, w1.t())
        inner = F.gelu(before)
        summed_again = _added(middle, torch.addmm(b2, inner, w2.t()), second)
        out, *statistics_again = _normed(summed_again, g2, c2, eps)
        ctx.how = how
        ctx.factors = of_weights, first, second
        ctx.statistics = tuple(statistics), tuple(statistics_again)
        ctx.inner = x, asking, query, key, value, weights, context, summed, middle, before, inner, summed_again
        ctx.save_for_backward(*parameters)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wq, _, wk, _, wv, _, wo, _, g1, c1, w1, _, w2, _, g2, c2 = ctx.saved_tensors
        x, asking, query, key, value, weights, context, summed, middle, before, inner, summed_again = ctx.inner
        how: Attention = ctx.how
        of_weights, first, second = ctx.factors
        ctx.inner = ctx.factors = None

        into, d_g2, d_c2 = _normed_back(grads[0], summed_again, ctx.statistics[1], g2, c2)
        out = _dropped(into, second)
        d_w2, d_b2 = out.t() @ inner, out.sum(0)
        d_before = torch.ops.aten.gelu_backward(out @ w2, before)
        d_w1, d_b1 = d_before.t() @ middle, d_before.sum(0)
        into, d_g1, d_c1 = _normed_back(into.addmm_(d_before, w1), summed, ctx.statistics[0], g1, c1)
        out = _dropped(into, first)
        d_wo, d_bo = out.t() @ context, out.sum(0)

        d_context = how.queries.by_head(out @ wo, how.heads)
        d_value = how.keys.packed(torch.bmm(_dropped(weights, of_weights).transpose(1, 2), d_context))
        d_weights = torch.bmm(d_context, value.transpose(1, 2))
        if of_weights is not None:
            d_weights.mul_(of_weights)
        d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
        d_scores.mul_(1.0 / math.sqrt(query.shape[2]))
        d_query = how.queries.packed(torch.bmm(d_scores, key))
        d_key = how.keys.packed(torch.bmm(d_scores.transpose(1, 2), query))
        d_x = into.addmm_(d_query, wq)
        if how.of_keys is not None:
            d_x = torch.zeros_like(x).index_add_(0, how.of_keys, d_x)
        d_x.addmm_(d_key, wk).addmm_(d_value, wv)
        return (
            d_x, None, None,
            d_query.t() @ asking, d_query.sum(0), d_key.t() @ x, d_key.sum(0), d_value.t() @ x, d_value.sum(0),
            d_wo, d_bo, d_g1, d_c1, d_w1, d_b1, d_w2, d_b2, d_g2, d_c2,
        )  # fmt: skip


def packed_block(layer: nn.Module, x: Tensor, how: Attention, eps: float) -> Tensor:
    """Outputs of a block of RecBole's transformer in training, differentiable once.

    Args:
        layer: a ``TransformerLayer`` whose activation is ``gelu``.
        x: ``[n, d]`` its inputs, one a row of ``how.keys``.
        how: the attention and the dropout.
        eps: of both layer norms.

    Returns:
        ``[m, d]``, one a row of ``how.queries``.
    """
    parameters = dict(layer.named_parameters())
    out: Tensor = _Block.apply(x, how, eps, *(parameters[name] for name in _PARAMETERS))  # type: ignore[no-untyped-call]
    return out
