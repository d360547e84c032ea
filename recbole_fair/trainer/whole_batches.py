"""Layers of a model that look at the whole batch, also where processes hold parts of it.

A batch's variance and the norm of its embeddings are no means over rows: what each process would find in its part does
not add up. Here they are made of sums over the processes, forward and backward.
"""

from __future__ import annotations

import torch
from recbole.model.loss import EmbLoss
from torch import Tensor, nn

from recbole_fair.io.processes import current


class _OverBatch(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation by mean and variance of the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        """As PyTorch's, of whatever shape it takes."""
        processes = current()
        if not (self.training and processes.shared):
            return super().forward(x)
        others = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        count = x.new_tensor(x.numel() // x.shape[1])
        total = processes.over_batch(torch.cat([x.sum(others), count.view(1)]))
        n = total[-1].detach()
        mean = total[:-1] / n
        centred = x - mean.view(shape)
        variance = processes.over_batch(centred.square().sum(others)) / n
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            rate = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean.detach(), rate)
            self.running_var.lerp_((variance * n / (n - 1).clamp(min=1)).detach(), rate)
        normal = centred * (variance + self.eps).rsqrt().view(shape)
        return normal * self.weight.view(shape) + self.bias.view(shape) if self.affine else normal


class _OverBatch1d(_OverBatch, nn.BatchNorm1d):
    pass


class _OverBatch2d(_OverBatch, nn.BatchNorm2d):
    pass


class BatchEmbLoss(EmbLoss):
    """RecBole's norm of a batch's embeddings, divided by its rows.

    Without ``require_pow`` it is the norm of all rows together, which the norms of parts do not add up to.

    Attributes:
        rows: rows of the part of the batch that this process holds.
    """

    rows: int = 0

    def forward(self, *embeddings: Tensor, require_pow: bool = False) -> Tensor:
        """As RecBole's; tables, which have other lengths than the batch, count once."""
        processes = current()
        if not processes.shared or require_pow:
            found: Tensor = super().forward(*embeddings, require_pow=require_pow)
            return found
        total = embeddings[-1].new_zeros(1)
        for embedding in embeddings:
            if self._of_rows(embedding):
                powers = processes.over_batch(embedding.abs().pow(self.norm).sum())
                # At 0 a root has no gradient and a norm has gradient 0.
                total = total + torch.where(powers > 0, powers, 1.0).pow(1 / self.norm) * (powers > 0)
            else:
                total = total + torch.norm(embedding, p=self.norm)
        last = embeddings[-1]
        count = last.new_tensor(float(len(last)))
        return total / (processes.over_batch(count) if self._of_rows(last) else count)

    def _of_rows(self, embedding: Tensor) -> bool:
        return self.rows > 0 and len(embedding) % self.rows == 0


_KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _OverBatch1d,
    nn.BatchNorm2d: _OverBatch2d,
    EmbLoss: BatchEmbLoss,
}


def look_at_whole_batches(model: nn.Module) -> list[BatchEmbLoss]:
    """Let the layers of a model look at whole batches where they are shared; their values stay as they are.

    Returns:
        The losses that have to be told the rows of each part.
    """
    for module in model.modules():
        kind = _KINDS.get(type(module))
        if kind is not None:
            module.__class__ = kind
    return [module for module in model.modules() if isinstance(module, BatchEmbLoss)]
