"""Rows of different lengths, one after another in one array; ``indptr`` ``[n + 1]`` holds their bounds."""

from __future__ import annotations

import torch
from torch import Tensor


def owners(indptr: Tensor) -> Tensor:
    """Row of each entry, long ``[indptr[-1]]``.

    Args:
        indptr: long ``[n + 1]``, rising from 0.

    >>> owners(torch.tensor([0, 2, 2, 3])).tolist()
    [0, 0, 2]
    """
    return torch.repeat_interleave(torch.arange(len(indptr) - 1, device=indptr.device), indptr.diff())


def gather(indptr: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Where the entries of some rows stand, the rows in any order and as often as wanted.

    Args:
        indptr: bounds of all rows, long ``[n + 1]``.
        rows: the wanted rows, long ``[m]``.

    Returns:
        Bounds of the wanted rows, long ``[m + 1]``, and the position of each of their entries among all.

    >>> bounds, position = gather(torch.tensor([0, 2, 2, 5]), torch.tensor([2, 0, 1]))
    >>> bounds.tolist(), position.tolist()
    ([0, 3, 5, 5], [2, 3, 4, 0, 1])
    """
    lengths = indptr.diff()[rows]
    bounds = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    shift = torch.repeat_interleave(indptr[rows] - bounds[:-1], lengths)
    return bounds, torch.arange(len(shift), device=shift.device) + shift
