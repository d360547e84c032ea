"""Losses that never hold a full batch of logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CHUNK_BYTES = 8 * 2**20  # logits of one chunk stay inside a usual last-level cache


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Softmax cross-entropy over all items; the gradient is computed in the forward pass, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, chunk: int) -> Tensor:
        n, n_items = hidden.shape[0], weight.shape[0]
        want_hidden, want_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if want_hidden else None
        grad_weight = torch.zeros_like(weight) if want_weight else None
        loss = hidden.new_zeros(())
        transposed = weight.t()
        logits_buffer = hidden.new_empty(min(chunk, n), n_items)
        probability_buffer = torch.empty_like(logits_buffer)
        tiny = torch.finfo(hidden.dtype).tiny
        for start in range(0, n, chunk):
            rows = hidden[start : start + chunk]
            size = rows.shape[0]
            logits = torch.mm(rows, transposed, out=logits_buffer[:size])
            probability = torch.softmax(logits, dim=1, out=probability_buffer[:size])
            index = target[start : start + chunk].unsqueeze(1)
            hit = probability.gather(1, index)
            loss -= hit.clamp_min(tiny).log().sum()
            if grad_hidden is None and grad_weight is None:
                continue
            probability.scatter_(1, index, hit - 1.0)
            if grad_hidden is not None:
                torch.mm(probability, weight, out=grad_hidden[start : start + size])
            if grad_weight is not None:
                grad_weight.addmm_(probability.t(), rows)
        ctx.grad_hidden, ctx.grad_weight = grad_hidden, grad_weight
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_output: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (scale,) = grad_output
        grad_hidden = ctx.grad_hidden.mul_(scale) if ctx.grad_hidden is not None else None
        grad_weight = ctx.grad_weight.mul_(scale) if ctx.grad_weight is not None else None
        ctx.grad_hidden = ctx.grad_weight = None
        return grad_hidden, grad_weight, None, None


def chunked_cross_entropy(hidden: Tensor, weight: Tensor, target: Tensor, chunk: int | None = None) -> Tensor:
    """Mean softmax cross-entropy of ``hidden @ weight.T`` against ``target``, in memory independent of ``n``.

    Equal to ``F.cross_entropy(hidden @ weight.T, target)`` in value and gradient, but only ``chunk`` rows of
    logits exist at a time and the gradient is formed while they are in cache.

    Args:
        hidden: ``[n, d]`` user representations.
        weight: ``[n_items, d]`` item representations.
        target: ``[n]`` item ids in ``0..n_items-1``.
        chunk: rows of logits held at once; by default as many as fit into 8 MiB.

    Returns:
        Scalar mean loss in nats. It can be differentiated once.
    """
    if hidden.shape[0] == 0:
        return hidden.sum() * 0.0
    if chunk is None:
        chunk = max(64, _CHUNK_BYTES // (weight.shape[0] * hidden.element_size()))
    total: Tensor = _ChunkedCrossEntropy.apply(hidden, weight, target, chunk)  # type: ignore[no-untyped-call]
    return total / hidden.shape[0]
