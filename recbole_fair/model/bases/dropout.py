"""Dropout whose mask costs one byte pair an element instead of one slow Bernoulli draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_LEVELS = 65536


def dropout_factors(n: int, probability: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """``[n]`` what dropout multiplies elements by, on the CPU: 0, or ``1 / (1 - probability)``.

    Sixteen random bits an element resolve the probability to 1/65,536. They come from a generator of NumPy that is
    seeded by one draw of torch's, four times as fast as torch's own; the comparison leaves numbers, not booleans, so
    that dropout is one product forwards and one backwards.

    Args:
        n: how many.
        probability: share of zeros, in ``[0, 1)``.
        dtype: of the factors.
    """
    seed = int(torch.randint(2**63 - 1, ()))
    words = np.random.Generator(np.random.SFC64(seed)).bit_generator.random_raw((n + 3) // 4)
    bits = torch.from_numpy(words.view(np.int16))[:n]
    threshold = round(probability * _LEVELS) - _LEVELS // 2
    return bits.to(dtype).ge_(threshold).mul_(1.0 / (1.0 - probability))


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, probability: float) -> Tensor:
        factors = dropout_factors(x.numel(), probability, x.dtype).view(x.shape)
        ctx.save_for_backward(factors)
        return x * factors

    @staticmethod
    def backward(ctx: Any, *grad_output: Tensor) -> tuple[Tensor, None]:
        (factors,) = ctx.saved_tensors
        return grad_output[0] * factors, None


def fast_dropout(x: Tensor, probability: float, training: bool) -> Tensor:
    """``F.dropout`` with masks drawn from 16 random bits an element.

    On a CPU ``F.dropout`` draws its mask in one thread at about 12 ns an element, which is most of the time of a
    small transformer; see :func:`dropout_factors`. Elsewhere this is ``F.dropout``.

    Args:
        x: any floating-point tensor.
        probability: share of elements set to 0, in ``[0, 1)``; the others are scaled by ``1 / (1 - probability)``.
        training: without it ``x`` is returned as it is.
    """
    if not training or probability == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, probability, training=True)
    out: Tensor = _Dropout.apply(x.contiguous(), probability)  # type: ignore[no-untyped-call]
    return out
