"""How well a sparse autoencoder reconstructs vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from recbole_fair.model.popsteer.sae import TopKSAE


@dataclass(frozen=True)
class SAEQuality:
    """How well an autoencoder reconstructs a set of vectors."""

    fvu: float
    """Summed squared error over the summed squared distance from the vectors' mean; 0 is perfect."""
    explained_variance: float
    """``1 - var(x - x_hat) / var(x)``, variances summed over dimensions: blind to a constant error."""
    cosine: float
    """Mean cosine similarity of vector and reconstruction (PopSteer Table 3)."""
    l0: float
    """Mean number of latents that fire."""
    alive_share: float
    """Share of the latents that fired at least once on these vectors."""
    frequency: Tensor
    """``[N]`` share of the vectors on which each latent fired."""

    def as_dict(self) -> dict[str, float]:
        """The scalar values, for a result document."""
        names = ("fvu", "explained_variance", "cosine", "l0", "alive_share")
        return {name: getattr(self, name) for name in names}


@torch.no_grad()
def measure_sae(sae: TopKSAE, vectors: Tensor, batch_size: int = 4096, rows: Tensor | None = None) -> SAEQuality:
    """Quality of ``sae`` on ``[n, d]`` vectors, in one pass over batches; sums are kept in float64.

    Args:
        sae: the autoencoder.
        vectors: ``[n, d]``.
        batch_size: vectors at a time.
        rows: ``[m]`` numbers of the vectors that count; all of them when omitted.
    """
    d, n, mode = sae.d_in, len(vectors if rows is None else rows), sae.training
    sae.eval()
    sums = vectors.new_zeros(4, d, dtype=torch.float64)  # of x, x^2, error, error^2
    firing = torch.zeros(sae.n_latents, dtype=torch.long, device=vectors.device)
    cosine = vectors.new_zeros((), dtype=torch.float64)
    # Moments around a point near the mean lose no digits.
    origin = vectors[slice(batch_size) if rows is None else rows[:batch_size]].mean(dim=0)
    for batch in torch.split(vectors if rows is None else rows, batch_size):
        x = batch if rows is None else vectors[batch]
        output = sae(x)
        cosine += torch.cosine_similarity(x, output.reconstruction, dim=1).sum()
        firing += torch.bincount(output.indices[output.values != 0], minlength=sae.n_latents)
        for row, part in ((0, x - origin), (2, x - output.reconstruction)):
            part = part.double()
            sums[row] += part.sum(dim=0)
            sums[row + 1] += part.square().sum(dim=0)
    sae.train(mode)
    total = (sums[1] - sums[0].square() / n).sum()
    error_variance = (sums[3] - sums[2].square() / n).sum()
    scale = total.clamp_min(torch.finfo(torch.float64).tiny)
    return SAEQuality(
        fvu=float(sums[3].sum() / scale),
        explained_variance=float(1.0 - error_variance / scale),
        cosine=float(cosine / n),
        l0=float(firing.sum()) / n,
        alive_share=float((firing > 0).double().mean()),
        frequency=firing.double() / n,
    )


@torch.no_grad()
def spread_of(vectors: Tensor, rows: Tensor, batch_size: int = 4096) -> Tensor:
    """Summed squared distance of some vectors from their mean, float64, as :func:`measure_sae` works it out."""
    sums = vectors.new_zeros(2, vectors.shape[1], dtype=torch.float64)
    origin = vectors[rows[:batch_size]].mean(dim=0)
    for batch in torch.split(rows, batch_size):
        part = (vectors[batch] - origin).double()
        sums[0] += part.sum(dim=0)
        sums[1] += part.square().sum(dim=0)
    total: Tensor = (sums[1] - sums[0].square() / len(rows)).sum()
    return total.clamp_min(torch.finfo(torch.float64).tiny)


@torch.no_grad()
def fvu_of(sae: TopKSAE, vectors: Tensor, rows: Tensor, spread: Tensor, batch_size: int = 4096) -> float:
    """The FVU of :func:`measure_sae` alone, for the look after every epoch."""
    mode = sae.training
    sae.eval()
    error = vectors.new_zeros(vectors.shape[1], dtype=torch.float64)
    for batch in torch.split(rows, batch_size):
        x = vectors[batch]
        error += (x - sae(x).reconstruction).double().square().sum(dim=0)
    sae.train(mode)
    return float(error.sum() / spread)
