"""The loss of a batch from parts that are computed side by side, with gradients that are ready at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recbole_fair.io.threads import in_threads

Gradients = Sequence[Tensor | None]


def loss_of_parts(parts: Sequence[Callable[[], Tensor]], parameters: Sequence[nn.Parameter]) -> Tensor:
    """The sum of some losses, each computed with its gradients in a thread of its own.

    Args:
        parts: functions that give a scalar; they must not draw from the global generators.
        parameters: what they are differentiated by.

    Returns:
        Scalar. It can be differentiated once, by these parameters.
    """

    def with_gradients(part: Callable[[], Tensor]) -> tuple[Tensor, Gradients]:
        loss = part()
        return loss.detach(), torch.autograd.grad(loss, parameters, allow_unused=True)

    found = in_threads([lambda part=part: with_gradients(part) for part in parts])  # type: ignore[misc]
    loss, gradients = found[0][0].clone(), list(found[0][1])
    for more, others in found[1:]:
        loss += more
        gradients = [_sum(one, other) for one, other in zip(gradients, others, strict=True)]
    total: Tensor = _Ready.apply(loss, gradients, *parameters)  # type: ignore[no-untyped-call]
    return total


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one.add_(other)


class _Ready(torch.autograd.Function):
    """A number whose gradients are known."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: Gradients, *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_output: Tensor) -> tuple[Tensor | None, ...]:
        scale, gradients = grad_output[0], ctx.gradients
        ctx.gradients = None
        return None, None, *(None if gradient is None else gradient.mul_(scale) for gradient in gradients)
