"""Softmax over a sample of the items, for catalogues whose full softmax costs too much."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_fair.model.bases.loss import chunk_rows


class NegativeItems(nn.Module):
    """Draws items with probability proportional to a power of their popularity, with replacement.

    Args:
        counts: ``[n_items]`` training interactions of each item; the padding item 0 is never drawn, the others count as
            one interaction at least.
        power: 0 draws uniformly, 1 by popularity.
    """

    cumulated: Tensor
    log_probability: Tensor

    def __init__(self, counts: Tensor, power: float) -> None:
        super().__init__()
        weights = counts.double().clamp_min(1.0) ** power
        weights[0] = 0.0
        probability = weights / weights.sum()
        # No part of the state: they follow from the data.
        self.register_buffer("cumulated", probability.cumsum(0), persistent=False)
        self.register_buffer("log_probability", probability.log().float(), persistent=False)

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """``[n]`` drawn items and the logarithm of how often each is expected among them, ``log(n q)``."""
        uniform = torch.rand(n, dtype=torch.float64, device=self.cumulated.device)
        items = torch.searchsorted(self.cumulated, uniform, right=True).clamp_(1, len(self.cumulated) - 1)
        return items, self.log_probability[items] + torch.tensor(float(n)).log()


class _SampledCrossEntropy(torch.autograd.Function):
    """The loss with its gradient, computed in the forward pass, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, positives: Tensor, negatives: Tensor, same: tuple[Tensor, Tensor], expected: Tensor
    ) -> Tensor:
        target, drawn = same
        n, m = len(hidden), len(negatives)
        chunk = chunk_rows(m, hidden)
        loss = hidden.new_zeros(())
        grad_hidden, residual = torch.empty_like(hidden), hidden.new_empty(n, 1)
        grad_negatives = torch.zeros_like(negatives)
        for start in range(0, n, chunk):
            part = slice(start, start + chunk)
            rows, own = hidden[part], positives[part]
            logits = torch.addmm(expected, rows, negatives.t(), beta=-1.0)
            logits.masked_fill_(target[part].unsqueeze(1) == drawn, -torch.inf)
            positive = (rows * own).sum(dim=1, keepdim=True)
            top = torch.maximum(logits.amax(dim=1, keepdim=True), positive)
            weights = logits.sub_(top).exp_()
            of_positive = (positive - top).exp_()
            total = weights.sum(dim=1, keepdim=True) + of_positive
            loss += (total.log() + top - positive).sum()
            weights.div_(total)
            residual[part] = of_positive / total - 1.0
            torch.mm(weights, negatives, out=grad_hidden[part])
            grad_negatives.addmm_(weights.t(), rows)
        grad_hidden.addcmul_(residual, positives)
        ctx.gradients = grad_hidden, residual * hidden, grad_negatives
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_output: Tensor) -> tuple[Tensor | None, ...]:
        hidden, positives, negatives = (gradient.mul_(grad_output[0]) for gradient in ctx.gradients)
        ctx.gradients = None
        return hidden, positives, negatives, None, None


def sampled_cross_entropy(
    hidden: Tensor, positives: Tensor, negatives: Tensor, target: Tensor, drawn: Tensor, expected: Tensor
) -> Tensor:
    """Mean softmax cross-entropy whose normaliser is estimated from drawn items, shared by all rows.

    The normaliser is ``exp(f(p)) + sum over drawn i != p of exp(f(i)) / (m q(i))``: the positive ``p`` takes part with
    its own term, uncorrected, since it is there with certainty; the drawn items stand for all others, whose sum theirs
    has as its mean (the logQ correction, with the positive as in Khrylchenko et al., 2025, arXiv 2507.09331: the
    gradient is theirs). With every item drawn once at equal odds this is the full softmax.

    Args:
        hidden: ``[n, d]`` user representations.
        positives: ``[n, d]`` representations of the targets.
        negatives: ``[m, d]`` representations of the drawn items.
        target: ``[n]`` ids of the targets.
        drawn: ``[m]`` ids of the drawn items, which may repeat.
        expected: ``[m]`` logarithms of how often each drawn item was expected, ``log(m q)``.

    Returns:
        Scalar mean loss in nats. It can be differentiated once.
    """
    if len(hidden) == 0:
        return hidden.sum() * 0.0
    total: Tensor = _SampledCrossEntropy.apply(hidden, positives, negatives, (target, drawn), expected.to(hidden))  # type: ignore[no-untyped-call]
    return total / len(hidden)
