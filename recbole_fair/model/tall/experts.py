"""Many variational autoencoders as one stack of tensors: the experts of TALL and the local models of its baselines.

An expert is the MultVAE of TALL's code (Liang et al., WWW 2018, without hidden layers): a linear encoder from a user's
row to the mean and log variance of ``H`` latent values and a linear decoder back to all items. ``E`` experts are three
tensors. Input rows are sparse, and scores of all experts for all items ``[B, E, I]`` never exist at once: a weighted
mixture of linear decoders is one product, and losses by expert are streamed over blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_fair.data.batches.item_rows import ItemRows

NOISE = 0.01  # standard deviation of the noise on the latent values, as coded for MultVAE in RecBole, LOCA and TALL
_BLOCK_ROWS = 128
_BLOCK_BYTES = 8 * 2**20


class StackedVAE(nn.Module):
    """``E`` autoencoders with ``H`` latent values over ``I`` items (columns; the padding item has none).

    The weights start as those of PyTorch's linear layers do: uniform within one over the root of the number of inputs.

    Attributes:
        mean: encoder of the means ``[E, I, H]``.
        logvar: encoder of the logarithms of the variances ``[E, I, H]``.
        mean_bias: ``[E, H]``.
        logvar_bias: ``[E, H]``.
        decoder: ``[I, E, H]``.
        decoder_bias: ``[E, I]``.
    """

    def __init__(self, n_experts: int, n_columns: int, latent: int, device: torch.device | str | None = None) -> None:
        super().__init__()

        def uniform(fan_in: int, *shape: int) -> nn.Parameter:
            bound = 1.0 / math.sqrt(fan_in)
            return nn.Parameter(torch.empty(*shape, device=device).uniform_(-bound, bound))

        self.mean = uniform(n_columns, n_experts, n_columns, latent)
        self.logvar = uniform(n_columns, n_experts, n_columns, latent)
        self.mean_bias = uniform(n_columns, n_experts, latent)
        self.logvar_bias = uniform(n_columns, n_experts, latent)
        self.decoder = uniform(latent, n_columns, n_experts, latent)
        self.decoder_bias = uniform(latent, n_experts, n_columns)

    @property
    def n_experts(self) -> int:
        """E."""
        return self.mean.shape[0]

    def encode_mean(self, inputs: Bags) -> Tensor:
        """Means of the latent values ``[E, B, H]``."""
        return sparse_product(self.mean, inputs) + self.mean_bias.unsqueeze(1)

    def encode(self, inputs: Bags) -> tuple[Tensor, Tensor]:
        """Means and log variances of the latent values, each ``[E, B, H]``."""
        return self.encode_mean(inputs), sparse_product(self.logvar, inputs) + self.logvar_bias.unsqueeze(1)

    def mixture(self, latent: Tensor, gate: Tensor | None) -> Tensor:
        """Weighted sum of the experts' scores.

        Args:
            latent: ``[E, B, H]``.
            gate: weights ``[B, E]`` that sum to 1 a row; None for equal ones.

        Returns:
            ``[B, I]``, exactly ``sum_k gate_k * (decoder_k latent_k + bias_k)`` up to rounding.
        """
        experts, batch, size = latent.shape
        if gate is None:
            scaled, bias = latent * (1.0 / experts), self.decoder_bias.mean(0, keepdim=True)
        else:
            scaled, bias = latent * gate.t().unsqueeze(2), gate @ self.decoder_bias
        flat = scaled.permute(1, 0, 2).reshape(batch, experts * size)
        return F.linear(flat, self.decoder.view(-1, experts * size)) + bias.to(latent.dtype)

    def losses(self, latent: Tensor, targets: ItemRows, masked: ItemRows | None = None) -> Tensor:
        """Cross-entropy of each expert on each row's targets, summed over them; streamed, differentiable.

        Under autocast the products are made in its precision, all else in that of the weights.

        Args:
            latent: ``[E, B, H]``.
            targets: ``B`` rows of items.
            masked: ``B`` rows of items that are left out of the softmax; none of them a target.

        Returns:
            ``[B, E]``, 0 for rows without a target.
        """
        result: Tensor = _Losses.apply(latent, self.decoder, self.decoder_bias, targets, masked)  # type: ignore[no-untyped-call]
        return result

    def scores_in_blocks(self, latent: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Scores of each expert by itself, some experts at a time, in memory that the next block reuses.

        Args:
            latent: ``[E, B, H]``.

        Yields:
            Which experts, and their scores ``[experts, B, I]``.
        """
        columns = self.decoder_bias.shape[1]
        group = max(1, 4 * _BLOCK_BYTES // (latent.shape[1] * columns * latent.element_size()))
        buffer = latent.new_empty(min(group, self.n_experts), latent.shape[1], columns)
        for start in range(0, self.n_experts, group):
            some = slice(start, min(start + group, self.n_experts))
            out = buffer[: some.stop - some.start]
            torch.bmm(latent[some], self.decoder[:, some].permute(1, 2, 0), out=out)
            yield some, out.add_(self.decoder_bias[some].unsqueeze(1))


def sample(mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    """Latent values for training, and how far their distribution is from the prior.

    Args:
        mean: ``[..., H]``.
        logvar: logarithms of the variances ``[..., H]``.

    Returns:
        ``mean + NOISE * normal * exp(logvar / 2)`` ``[..., H]``, and the Kullback-Leibler divergence from the standard
        normal, summed over the latent values ``[...]``.
    """
    latent, divergences = _Sample.apply(mean, logvar)  # type: ignore[no-untyped-call]
    return latent, divergences


def cross_entropy(scores: Tensor, targets: ItemRows, masked: ItemRows | None = None) -> Tensor:
    """Cross-entropy of scores ``[B, I]`` on each row's targets, summed over them: ``[B]``, 0 for rows without any.

    Args:
        scores: ``[B, I]``.
        targets: ``B`` rows of items.
        masked: ``B`` rows of items that are left out of the softmax; none of them a target.
    """
    chosen = scores.reshape(-1)[targets.cells]
    if masked is not None:
        scores = scores.reshape(-1).index_fill(0, masked.cells, -torch.inf).view_as(scores)
    counts = targets.lengths
    total = counts * torch.logsumexp(scores, 1)
    return torch.where(counts > 0, total.index_add(0, targets.rows, -chosen), 0.0)


class Bags:
    """Sparse inputs of ``E`` experts: ``E * B`` bags of rows of a table ``[E * I, H]``, and the transpose.

    Args:
        rows: ``B`` rows that all experts read, or ``E * B`` rows, expert by expert, when each reads its own.
        scale: what each row is multiplied by, float ``[B]`` or ``[E * B]``; None for 1.
        n_experts: E.
        shared: whether all experts read the same rows.
    """

    def __init__(self, rows: ItemRows, scale: Tensor | None, n_experts: int, shared: bool = True) -> None:
        self.n_experts, self.n_columns = n_experts, rows.n_columns
        self.batch = len(rows) if shared else len(rows) // n_experts
        self._rows, self._shared = rows, shared
        self._scale = None if scale is None else scale.view(1 if shared else n_experts, self.batch, 1)

    @classmethod
    def normalised(cls, rows: ItemRows, n_experts: int, shared: bool = True, dropout: float = 0.0) -> Bags:
        """Rows divided by their Euclidean length, with dropout of entries (of the divided rows, as in MultVAE)."""
        scale = rows.lengths.clamp(min=1).float().rsqrt()
        if dropout > 0:
            kept = torch.rand(len(rows.columns), device=scale.device) >= dropout
            rows, scale = rows.keep(kept), scale / (1.0 - dropout)
        return cls(rows, scale, n_experts, shared)

    def gather(self, table: Tensor) -> Tensor:
        """``out[e, b] = scale * sum over the row's entries of table[e, column]``: ``[E, B, H]``."""
        rows = self._rows
        if self._shared:
            index = _repeated(rows.columns, self.n_experts, self.n_columns)
            starts = _repeated(rows.indptr[:-1], self.n_experts, len(rows.columns))
        else:
            index = (rows.rows // self.batch * self.n_columns + rows.columns).int()
            starts = rows.indptr[:-1].int()
        out = _sums(table, index, starts).view(self.n_experts, self.batch, -1)
        return out if self._scale is None else out.mul_(self._scale)

    def scatter(self, values: Tensor) -> Tensor:
        """The transpose of :meth:`gather`: ``[E, B, H]`` to ``[E, I, H]``.

        A gather as well, over the bags of each item's users: no sorting by column for each expert, no atomic additions,
        and an order of summation that does not depend on the number of threads.
        """
        rows, columns = self._rows, self._rows.columns
        if self._scale is not None:
            values = values * self._scale
        if self._shared:
            order = columns.argsort(stable=True)
            ends = torch.bincount(columns, minlength=self.n_columns).cumsum(0)
            index = _repeated(rows.rows[order], self.n_experts, self.batch)
            starts = _repeated(F.pad(ends, (1, 0))[:-1], self.n_experts, len(columns))
        else:
            cells = rows.rows // self.batch * self.n_columns + columns
            order = cells.argsort(stable=True)
            ends = torch.bincount(cells, minlength=self.n_experts * self.n_columns).cumsum(0)
            index, starts = rows.rows[order].int(), F.pad(ends, (1, 0))[:-1].int()
        return _sums(values, index, starts).view(self.n_experts, self.n_columns, -1)


def _sums(table: Tensor, index: Tensor, starts: Tensor) -> Tensor:
    """Sums of the rows of a table in each bag."""
    flat = table.reshape(-1, table.shape[-1])
    return F.embedding_bag(index, flat, F.pad(starts, (0, 1), value=len(index)), mode="sum", include_last_offset=True)


def _repeated(index: Tensor, times: int, step: int) -> Tensor:
    """``index``, ``index + step``, ``index + 2 * step`` ... one after another, as 32-bit integers ``[times * n]``."""
    offset = torch.arange(times, device=index.device, dtype=torch.int32).unsqueeze(1) * step
    return (offset + index.int()).view(-1)


def sparse_product(weight: Tensor, inputs: Bags) -> Tensor:
    """Sparse rows times each expert's matrix, differentiable in the matrix.

    Args:
        weight: ``[E, I, H]``.
        inputs: the rows.

    Returns:
        ``[E, B, H]``.
    """
    result: Tensor = _SparseProduct.apply(weight, inputs)  # type: ignore[no-untyped-call]
    return result


class _SparseProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, inputs: Bags) -> Tensor:
        ctx.inputs = inputs
        return inputs.gather(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.inputs.scatter(grads[0].contiguous()), None


class _Sample(torch.autograd.Function):
    """Noise and divergence in one, so that little is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
        spread = torch.exp(0.5 * logvar)
        noise = torch.randn_like(mean).mul_(NOISE).mul_(spread)
        divergences = spread.square_().add_(mean.square()).sub_(logvar).sub_(1.0).sum(-1).mul_(0.5)
        ctx.save_for_backward(mean, logvar, noise)
        return mean + noise, divergences

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        mean, logvar, noise = ctx.saved_tensors
        in_latent, in_divergence = grads[0], grads[1].unsqueeze(-1)
        in_logvar = (in_latent * noise).add_(logvar.exp().sub_(1.0).mul_(in_divergence)).mul_(0.5)
        return torch.addcmul(in_latent, mean, in_divergence), in_logvar


class _Losses(torch.autograd.Function):
    """Cross-entropy by expert in blocks of users and experts; the backward pass makes each block's scores again.

    Blocks hold scores times log2 e: powers of two take a third of the time of PyTorch's ``exp`` on a processor.
    """

    @staticmethod
    def forward(
        ctx: Any, latent: Tensor, decoder: Tensor, bias: Tensor, targets: ItemRows, masked: ItemRows | None
    ) -> Tensor:
        losses = latent.new_zeros(latent.shape[0], latent.shape[1])
        log_sums = torch.empty_like(losses)
        ctx.product_dtype = _product_dtype(latent)
        factors = _in_bits(latent, decoder, bias, ctx.product_dtype)
        for block in _blocks(latent, bias, targets, masked, ctx.product_dtype):
            scores = block.scores(*factors)
            flat = scores.view(len(scores), -1)
            total = flat.new_zeros(scores.shape[:2]).index_add_(1, block.rows, flat[:, block.targets])
            if block.masked is not None:
                flat.index_fill_(1, block.masked, -torch.inf)
            peak = scores.amax(-1, keepdim=True)
            log_sum = scores.sub_(peak).exp2_().sum(-1).log2_() + peak.squeeze(-1)
            losses[block.where] = torch.where(block.counts > 0, block.counts * log_sum - total, 0.0)
            log_sums[block.where] = log_sum
        losses *= math.log(2.0)
        ctx.save_for_backward(latent, decoder, bias, log_sums)
        ctx.rows = targets, masked
        return losses.t()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        latent, decoder, bias, log_sums = ctx.saved_tensors
        targets, masked = ctx.rows
        # Without their common factor small gradients do not vanish where products are made in 16 bits.
        unit = grads[0].abs().amax().clamp(min=torch.finfo(latent.dtype).tiny)
        upstream = grads[0].t() / unit
        in_latent, in_decoder, in_bias = torch.zeros_like(latent), torch.zeros_like(decoder), torch.zeros_like(bias)
        factors = _in_bits(latent, decoder, bias, ctx.product_dtype)
        weight = factors[1]
        for block in _blocks(latent, bias, targets, masked, ctx.product_dtype):
            scores = block.scores(*factors)
            flat = scores.view(len(scores), -1)
            if block.masked is not None:
                flat.index_fill_(1, block.masked, -torch.inf)
            scale = torch.where(block.counts > 0, upstream[block.where], 0.0)
            log_sum = torch.where(block.counts > 0, log_sums[block.where], torch.inf)
            scores.sub_(log_sum.unsqueeze(-1)).exp2_().mul_((scale * block.counts).unsqueeze(-1))
            flat.index_add_(1, block.targets, -scale[:, block.rows])
            experts, _ = block.where
            in_bias[experts] += scores.sum(1)
            scores = scores.to(ctx.product_dtype)
            in_latent[block.where] = torch.bmm(scores, weight[experts])
            inputs = latent[block.where].to(ctx.product_dtype)
            in_decoder[:, experts] += torch.bmm(scores.transpose(1, 2), inputs).transpose(0, 1)
        return in_latent.mul_(unit), in_decoder.mul_(unit), in_bias.mul_(unit), None, None


def _product_dtype(values: Tensor) -> torch.dtype:
    """What autocast makes products of matrices in; the precision of the values where it is off."""
    device = values.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else values.dtype


def _in_bits(latent: Tensor, decoder: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Latent values ``[E, B, H]``, decoder ``[E, I, H]`` and bias ``[E, I]`` whose scores come out times log2 e."""
    scale = 1.0 / math.log(2.0)
    weight = decoder.transpose(0, 1)
    if dtype != weight.dtype:
        weight = weight.to(dtype, memory_format=torch.contiguous_format)
    return (latent * scale).to(dtype), weight, bias * scale


class _Block:
    """Some experts and some rows: where they stand, and the cells of targets and masked items in their scores."""

    def __init__(
        self,
        experts: slice,
        rows: slice,
        buffer: Tensor,
        product: Tensor,
        targets: ItemRows,
        masked: ItemRows | None,
    ) -> None:
        self.where = (experts, rows)
        self._buffer, self._product = buffer, product
        size = rows.stop - rows.start
        self.counts = targets.lengths[rows]
        self.rows = torch.repeat_interleave(torch.arange(size, device=buffer.device), self.counts)
        self.targets = self._cells(targets, rows, self.rows)
        self.masked = None
        if masked is not None:
            owner = torch.repeat_interleave(torch.arange(size, device=buffer.device), masked.lengths[rows])
            self.masked = self._cells(masked, rows, owner)

    @staticmethod
    def _cells(items: ItemRows, rows: slice, owner: Tensor) -> Tensor:
        part = items.columns[int(items.indptr[rows.start]) : int(items.indptr[rows.stop])]
        return owner * items.n_columns + part

    def scores(self, latent: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Scores of the block's experts for its rows ``[experts, rows, I]``, in memory that the next block reuses."""
        experts, rows = self.where
        part = latent[experts, rows]
        product, out = (
            memory[: part.shape[0] * part.shape[1]].view(part.shape[0], part.shape[1], -1)
            for memory in (self._product, self._buffer)
        )
        torch.bmm(part, weight[experts].transpose(1, 2), out=product)
        return torch.add(product, bias[experts].unsqueeze(1), out=out)


def _blocks(
    latent: Tensor, bias: Tensor, targets: ItemRows, masked: ItemRows | None, product_dtype: torch.dtype
) -> Iterator[_Block]:
    experts, batch, _ = latent.shape
    columns = bias.shape[1]
    lower = product_dtype != latent.dtype
    # In 16 bits a processor multiplies few large matrices faster than many small ones, in 32 bits it is the other way.
    on_cpu = latent.device.type == "cpu"
    rows = min(batch, (4 if lower else 1) * _BLOCK_ROWS if on_cpu else 8 * _BLOCK_ROWS)
    budget = _BLOCK_BYTES if on_cpu else 16 * _BLOCK_BYTES
    group = min(experts, max(1, budget // (max(rows, 1) * columns * latent.element_size())))
    buffer = latent.new_empty(group * rows, columns)
    product = torch.empty_like(buffer, dtype=product_dtype) if lower else buffer
    for start in range(0, batch, max(rows, 1)):
        part = slice(start, min(start + rows, batch))
        block = None
        for first in range(0, experts, group):
            some = slice(first, min(first + group, experts))
            if block is None:
                block = _Block(some, part, buffer, product, targets, masked)
            else:
                block.where = (some, part)
            yield block
