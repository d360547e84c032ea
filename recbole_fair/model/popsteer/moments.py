"""Mean and covariance of a stream of vectors, in one pass and in double precision."""

from __future__ import annotations

import torch
from torch import Tensor


class StreamingMoments:
    """Running mean ``[d]`` and centred scatter matrix ``[d, d]`` (pairwise update of Chan, Golub and LeVeque, 1979).

    The covariance of the vectors gives the variance of every linear function of them: the moments of an
    autoencoder's ``N`` pre-activations ``W (x - b)`` follow from those of the ``d`` inputs, exactly, without ever
    computing ``N`` values a vector.

    Args:
        d: size of the vectors.
    """

    def __init__(self, d: int) -> None:
        self.count = 0
        self.mean = torch.zeros(d, dtype=torch.float64)
        self.scatter = torch.zeros(d, d, dtype=torch.float64)

    def update(self, x: Tensor) -> None:
        """Take in ``[n, d]`` vectors."""
        if len(x) == 0:
            return
        x = x.detach().double()
        mean = x.mean(dim=0)
        centred = x - mean
        self._combine(len(x), mean.cpu(), (centred.t() @ centred).cpu())

    def merge(self, other: StreamingMoments) -> None:
        """Take in what another process or stream has seen."""
        if other.count:
            self._combine(other.count, other.mean, other.scatter)

    def _combine(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total = self.count + count
        delta = mean - self.mean
        self.scatter += scatter + torch.outer(delta, delta) * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def linear(self, weight: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and population standard deviation of ``weight @ x + offset``.

        Args:
            weight: ``[N, d]``.
            offset: ``[N]``.

        Returns:
            Two float64 tensors ``[N]``. A deviation below the rounding of single precision is 0.
        """
        weight, offset = weight.detach().double().cpu(), offset.detach().double().cpu()
        mean = weight @ self.mean + offset
        variance = ((weight @ self.scatter) * weight).sum(dim=1) / max(self.count, 1)
        # Identical inputs differ by rounding once they come from different batches of a single-precision model.
        size = (weight.abs() @ self.mean.abs() + offset.abs()) * torch.finfo(torch.float32).eps
        std = variance.clamp_min(0.0).sqrt()
        return mean, torch.where(std > size, std, torch.zeros_like(std))
