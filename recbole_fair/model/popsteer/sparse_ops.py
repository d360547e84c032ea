"""Top-k linear layers and sparse decoding whose cost follows the kept columns, on any device.

A sparse autoencoder with ``N`` latents keeps ``K << N`` of them a row. Its forward pass needs all ``N``
pre-activations, but only to choose: nothing of width ``N`` has to be kept for the backward pass, whose gradients touch
``B * K`` entries. Plain autograd through ``topk`` would build dense ``[B, N]`` gradients and three dense products.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_fair.io.threads import in_threads, parts_for

_SORTED = 512  # columns up to which a whole row is sorted
_CHUNK_BYTES = 2 * 2**20  # pre-activations of one chunk stay inside a core's second-level cache


def grouped_topk(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest entries of each row, exactly as ``torch.topk``, in no particular order.

    Wide rows are searched in two steps: an entry among the ``k`` largest lies in one of the ``k`` groups of columns
    with the largest maxima, so a vectorised maximum over groups leaves few candidates to select from.

    Args:
        values: ``[B, N]``.
        k: how many, in ``1..N``.

    Returns:
        Values and column indices, each ``[B, k]``. Which of several equal entries is taken at the boundary is
        left open.
    """
    rows, columns = values.shape
    size = _group_size(columns, k)
    if size == 1:
        indices = _largest(values, k)
        return values.gather(1, indices), indices
    groups = columns // size
    # Group g holds the columns g, g + groups, g + 2 * groups, ...: the maximum then runs along contiguous memory.
    best = _largest(values.view(rows, size, groups).amax(dim=1), k)
    offsets = torch.arange(size, device=values.device).view(1, size, 1) * groups
    candidates = (best.unsqueeze(1) + offsets).view(rows, size * k)
    found = values.gather(1, candidates)
    places = _largest(found, k)
    return found.gather(1, places), candidates.gather(1, places)


def _largest(values: Tensor, k: int) -> Tensor:
    """Columns ``[B, k]`` of the ``k`` largest entries of each row ``[B, n]``.

    NumPy sorts short rows by vector instructions, several times as fast as ``torch.topk`` selects in them; what is not
    below the least that is wanted are then the wanted ones. Equal entries there, and NaN, make another number of them.
    """
    if values.device.type == "cpu" and 0 < k < values.shape[1] <= _SORTED:
        rows = values.detach().numpy()
        least = np.sort(rows, axis=1)[:, rows.shape[1] - k]
        found = np.flatnonzero(rows >= least[:, None])
        if len(found) == len(rows) * k:
            return torch.from_numpy(found.reshape(-1, k) % rows.shape[1])
    return values.topk(k, dim=1, sorted=False).indices


def _group_size(columns: int, k: int) -> int:
    """Power of two that divides ``columns`` and keeps groups and candidates equally few; 1 when nothing is won."""
    size = 1
    while columns % (2 * size) == 0 and 4 * size * size * k <= columns:
        size *= 2
    return size if size >= 4 else 1


def topk_linear(x: Tensor, weight: Tensor, bias: Tensor, k: int, absolute: bool = False) -> tuple[Tensor, Tensor]:
    """The ``k`` largest outputs of a linear layer, differentiable, without the ``[B, N]`` outputs in memory.

    Args:
        x: ``[B, d]`` inputs.
        weight: ``[N, d]``.
        bias: ``[N]``.
        k: how many outputs to keep a row.
        absolute: whether the largest in magnitude are meant, which keep their signs.

    Returns:
        Values ``[B, k]`` and their columns ``[B, k]``, in no particular order.
    """
    values, indices = _TopKLinear.apply(x, weight, bias, k, absolute)  # type: ignore[no-untyped-call]
    return values, indices


def sparse_decode(values: Tensor, indices: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of rows, ``out[b] = sum_k values[b, k] * weight[indices[b, k]]``, differentiable.

    Args:
        values: ``[B, K]``.
        indices: ``[B, K]`` rows of ``weight``.
        weight: ``[N, d]``.

    Returns:
        ``[B, d]``.
    """
    result: Tensor = _SparseDecode.apply(values, indices, weight)  # type: ignore[no-untyped-call]
    return result


def scatter_rows(values: Tensor, indices: Tensor, rows: Tensor, n: int) -> Tensor:
    """The transpose of :func:`sparse_decode`: ``out[j] = sum over (b, k) with indices[b, k] = j of values * rows[b]``.

    Sorting the ``B * K`` pairs once and summing contiguous runs is several times faster on a CPU than ``index_add_``
    on materialised products, and its order of summation does not depend on the number of threads.

    Args:
        values: ``[B, K]``.
        indices: ``[B, K]`` in ``0..n-1``.
        rows: ``[B, d]``.
        n: number of output rows.

    Returns:
        ``[n, d]``.
    """
    owner, place, starts = _sorted_places(indices, n)
    weights = values.reshape(-1).index_select(0, place)
    return F.embedding_bag(owner, rows, starts, mode="sum", per_sample_weights=weights)


_SUM = 0  # the number of embedding_bag's mode "sum"
_NARROW = 2**16  # NumPy sorts sixteen bits by counting
_latest: tuple[Tensor, int, int, tuple[Tensor, Tensor, Tensor]] | None = None


def _sorted_places(indices: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """The places of ``indices`` ``[B, K]`` in order of what stands there.

    Encoder and decoder ask for the same ones one after the other, so the last answer is kept.

    Returns:
        Rows ``[B * K]`` and places ``[B * K]`` in that order, and where each of ``0..n-1`` begins ``[n]``.
    """
    global _latest
    if _latest is not None:
        known, version, size, answer = _latest
        if known.is_set_to(indices) and version == indices._version and size == n:
            return answer
    flat = indices.reshape(-1)
    if indices.device.type == "cpu" and n <= _NARROW:
        place = torch.from_numpy(flat.numpy().astype(np.uint16).argsort(kind="stable"))
    else:
        place = flat.to(torch.int32).argsort(stable=True)
    counts = torch.bincount(flat, minlength=n)
    answer = place // indices.shape[1], place, counts.cumsum(0) - counts
    _latest = indices.detach(), indices._version, n, answer
    return answer


def _decode(values: Tensor, indices: Tensor, weight: Tensor) -> Tensor:
    return F.embedding_bag(indices, weight, mode="sum", per_sample_weights=values)


def _row_products(rows: Tensor, indices: Tensor, weight: Tensor) -> Tensor:
    """``out[b, k] = rows[b] @ weight[indices[b, k]]``: the gradient of :func:`_decode` in its values."""
    n, k = indices.shape
    bags = torch.arange(n, device=indices.device)
    products: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        rows, weight, indices.reshape(-1), bags * k, bags.repeat_interleave(k), _SUM
    )
    return products.view(n, k)


def rows_of_chunk(columns: int, x: Tensor) -> int:
    """How many rows of ``columns`` pre-activations a core looks at together; :func:`topk_linear` cuts more into parts.

    Args:
        columns: number of latents.
        x: the inputs, for the size of their numbers.
    """
    return max(1, _CHUNK_BYTES // (columns * x.element_size()))


class _TopKLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, k: int, absolute: bool) -> tuple[Tensor, Tensor]:
        rows, columns = x.shape[0], weight.shape[0]
        chunk = rows
        if x.device.type == "cpu":
            chunk = min(rows, rows_of_chunk(columns, x))
        values = x.new_empty(rows, k)
        indices = torch.empty(rows, k, dtype=torch.long, device=x.device)
        starts = range(0, rows, max(chunk, 1))
        parts = parts_for(len(starts)) if x.device.type == "cpu" else 1

        def choose(begins: range) -> None:
            buffer = x.new_empty(chunk, columns)
            for start in begins:
                part = x[start : start + chunk]
                outputs = torch.addmm(bias, part, weight.t(), out=buffer[: part.shape[0]])
                if absolute:
                    found = grouped_topk(outputs.abs(), k)[1]
                    values[start : start + chunk], indices[start : start + chunk] = outputs.gather(1, found), found
                else:
                    values[start : start + chunk], indices[start : start + chunk] = grouped_topk(outputs, k)

        in_threads([partial(choose, starts[part::parts]) for part in range(parts)])
        ctx.save_for_backward(x, weight, indices)
        ctx.mark_non_differentiable(indices)
        return values, indices

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        x, weight, indices = ctx.saved_tensors
        want_x, want_weight, want_bias = ctx.needs_input_grad[:3]
        grad_x = _decode(grad, indices, weight) if want_x else None
        grad_weight = scatter_rows(grad, indices, x, weight.shape[0]) if want_weight else None
        grad_bias = None
        if want_bias:
            grad_bias = grad.new_zeros(weight.shape[0]).index_add_(0, indices.reshape(-1), grad.reshape(-1))
        return grad_x, grad_weight, grad_bias, None, None


class _SparseDecode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, indices: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(values, indices, weight)
        return _decode(values, indices, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0].contiguous()
        values, indices, weight = ctx.saved_tensors
        want_values, _, want_weight = ctx.needs_input_grad
        grad_values = _row_products(grad, indices, weight) if want_values else None
        grad_weight = scatter_rows(values, indices, grad, weight.shape[0]) if want_weight else None
        return grad_values, None, grad_weight
