"""Losses that never hold a full batch of logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CHUNK_BYTES = 2 * 2**20  # logits of one chunk stay inside a core's second-level cache
_LEAST_ROWS = 64  # with fewer rows a chunk the products are slow
_SAFE_LOGIT = 40.0  # exp(40) times a billion items is far below the largest float32, exp(-40) far above the smallest


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Softmax cross-entropy over all items; the gradient is computed in the forward pass, chunk by chunk.

    Four passes over a chunk of logits: their product, the exponential in place, their sums, and the two products of the
    gradient. The division by the sums falls on the ``d`` columns instead of on the items, and the targets' part of the
    gradient is added as rows.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, chunk: int) -> Tensor:
        n, n_items = hidden.shape[0], weight.shape[0]
        want_hidden, want_weight = ctx.needs_input_grad[:2]
        wanted = weight.index_select(0, target)
        loss = -(hidden * wanted).sum()
        grad_hidden = torch.empty_like(hidden) if want_hidden else None
        # Transposed: along the items the product runs faster.
        across = hidden.new_zeros(weight.shape[1], n_items) if want_weight else None
        transposed = weight.t()
        buffer = hidden.new_empty(min(chunk, n), n_items)
        bound = float(hidden.square().sum(1).amax().sqrt() * weight.square().sum(1).amax().sqrt())
        for start in range(0, n, chunk):
            rows = hidden[start : start + chunk]
            logits = torch.mm(rows, transposed, out=buffer[: rows.shape[0]])
            if not bound <= _SAFE_LOGIT:  # NaN is not
                top = logits.amax(dim=1, keepdim=True)
                loss += top.sum()
                logits.sub_(top)
            weights = logits.exp_()
            total = weights.sum(dim=1, keepdim=True)
            loss += total.log().sum()
            if grad_hidden is not None:
                part = torch.mm(weights, weight, out=grad_hidden[start : start + chunk])
                part.div_(total)
            if across is not None:
                across.addmm_((rows / total).t(), weights)
        if grad_hidden is not None:
            grad_hidden -= wanted
        grad_weight = None
        if across is not None:
            grad_weight = across.t().contiguous().index_add_(0, target, hidden, alpha=-1.0)
        ctx.grad_hidden, ctx.grad_weight = grad_hidden, grad_weight
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_output: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (scale,) = grad_output
        grad_hidden = ctx.grad_hidden.mul_(scale) if ctx.grad_hidden is not None else None
        grad_weight = ctx.grad_weight.mul_(scale) if ctx.grad_weight is not None else None
        ctx.grad_hidden = ctx.grad_weight = None
        return grad_hidden, grad_weight, None, None


def chunk_rows(columns: int, like: Tensor) -> int:
    """Rows of so many columns, of the type of ``like``, that fit into the processor's caches together; 64 at least."""
    cache = _CHUNK_BYTES * (torch.get_num_threads() if like.device.type == "cpu" else 16)
    return max(_LEAST_ROWS, cache // (columns * like.element_size()))


def chunked_cross_entropy(hidden: Tensor, weight: Tensor, target: Tensor, chunk: int | None = None) -> Tensor:
    """Mean softmax cross-entropy of ``hidden @ weight.T`` against ``target``, in memory independent of ``n``.

    Equal to ``F.cross_entropy(hidden @ weight.T, target)`` in value and gradient, but only ``chunk`` rows of
    logits exist at a time and the gradient is formed while they are in cache.

    Args:
        hidden: ``[n, d]`` user representations.
        weight: ``[n_items, d]`` item representations.
        target: ``[n]`` item ids in ``0..n_items-1``.
        chunk: rows of logits held at once; by default as many as fit into 2 MiB a thread, at least 64.

    Returns:
        Scalar mean loss in nats. It can be differentiated once.
    """
    if hidden.shape[0] == 0:
        return hidden.sum() * 0.0
    if chunk is None:
        chunk = chunk_rows(weight.shape[0], hidden)
    total: Tensor = _ChunkedCrossEntropy.apply(hidden, weight, target, chunk)  # type: ignore[no-untyped-call]
    return total / hidden.shape[0]
