"""Stable sorting in linear time: the order is that of ``numpy.argsort(kind="stable")``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

_DIGIT = 16  # bits; NumPy sorts such small numbers by counting


def stable_order(keys: npt.NDArray[Any]) -> Ints | None:
    """Order in which keys rise, equal ones as they stand.

    Args:
        keys: numbers ``[n]``.

    Returns:
        Indices ``[n]``, or None where the keys rise already.
    """
    if len(keys) < 2 or bool((keys[1:] >= keys[:-1]).all()):
        return None
    digits = _digits(keys)
    if digits is None:
        return np.argsort(keys, kind="stable")
    order: Ints | None = None
    for digit in digits:
        step = np.argsort(digit if order is None else digit[order], kind="stable")
        order = step if order is None else order[step]
    return order


def _digits(keys: npt.NDArray[Any]) -> list[npt.NDArray[np.uint16]] | None:
    """Numbers by 16 bits, the lowest first, such that keys rise as these do; None if four bytes do not hold them."""
    if keys.dtype == np.float32:
        if not keys.min() >= 0:  # the bits of negative numbers fall; NaN is no number
            return None
        bits = (keys + np.float32(0)).view(np.uint32)  # -0 becomes 0
    elif keys.dtype == np.float64:
        low = keys.min()
        if not (np.isfinite(low) and keys.max() - low < 1 << (2 * _DIGIT)):
            return None
        bits = (keys - low).astype(np.uint32)
        if (bits != keys - low).any():  # not whole numbers
            return None
    elif keys.dtype.kind in "iu" and keys.min() >= 0 and keys.max() < 1 << (2 * _DIGIT):
        bits = keys.astype(np.uint32)
    else:
        return None
    lower = (bits & np.uint32((1 << _DIGIT) - 1)).astype(np.uint16)
    if int(bits.max()) < 1 << _DIGIT:
        return [lower]
    return [lower, (bits >> np.uint32(_DIGIT)).astype(np.uint16)]
