"""Every user's own exponent of popularity, solved by bisection: the computation alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

MATCHES = ("mean", "median")
_FIRST_REACH = 0.25
_LARGEST = 64.0
_HALVINGS, _AT_ONCE = 24, 6
_CLOSE = 1e-12


def list_popularity(log_popularity: Tensor, match: str) -> Tensor:
    """Mean or median log popularity of lists.

    Args:
        log_popularity: ``[U, k]`` of the listed items, NaN where there is none.
        match: ``mean``, or ``median``: the item in the middle, of an even number the less popular one.

    Returns:
        float64 ``[U]``, NaN for an empty list.
    """
    values = log_popularity.double()
    return values.nanmean(1) if match == "mean" else values.nanmedian(1).values


def solve_exponents(scores: Tensor, log_popularity: Tensor, target: Tensor, k: int, match: str = "mean") -> Tensor:
    """The exponent ``a_u`` at which the k items with the largest ``s_ui - a_u log pop_i`` are as popular as wanted.

    The mean log popularity of that list never rises with a_u, so the exponent is found by bisection, for all users at
    once. It falls in steps, a swap of two items at a time: of the two lists beside the last step the one nearer to the
    target is taken. Exponents are limited to 64 either way. With ``median`` the fall is not guaranteed, but the same
    bisection ends at one of the crossings.

    Args:
        scores: ``[U, C]``, -inf where there is no item.
        log_popularity: ``[U, C]`` of the same items.
        target: The wanted mean (or median) log popularity ``[U]``; NaN: the user keeps exponent 0.
        k: Length of the lists.
        match: ``mean`` or ``median``.

    Returns:
        float64 ``[U]``; exactly 0 where the list without exponent is nearest to the target already.
    """
    k = min(k, scores.shape[1])
    found = torch.zeros(len(scores), dtype=torch.double, device=scores.device)
    at_found = _reached(scores, log_popularity, found, k, match)
    gap = at_found - target
    rows = (gap.abs() > _CLOSE).nonzero().squeeze(1)  # a NaN target compares false
    if not len(rows):
        return found
    scores, log_popularity, target, sign = scores[rows], log_popularity[rows], target[rows], gap[rows].sign()
    near, far, reached = _bracket(scores, log_popularity, target, sign, at_found[rows], k, match)
    exponent = near[0]
    if bool(reached.any()):
        ends = (near[0][reached], near[1][reached]), (far[0][reached], far[1][reached])
        exponent[reached] = _bisect(
            scores[reached], log_popularity[reached], target[reached], sign[reached], *ends, k, match
        )
    found[rows] = exponent
    return found


def best_of_each_popularity(scores: Tensor, log_popularity: Tensor, k: int) -> Tensor:
    """Columns of the k best items of each popularity: no others are ever in a list, whatever the exponent.

    An exponent moves items of one popularity alike. Of a large catalogue, whose items share few counts, little is left.

    Args:
        scores: ``[U, C]`` of the whole catalogue, -inf where there is no item.
        log_popularity: ``[C]``, the same for all users.
        k: Length of the lists.

    Returns:
        long ``[U, at most C]``, ascending in each row.
    """
    order = log_popularity.argsort(stable=True)
    sizes = torch.unique_consecutive(log_popularity[order], return_counts=True)[1]
    together, kept, start = scores.index_select(1, order), [], 0
    for size in sizes.tolist():
        columns = order[start : start + size].expand(len(scores), -1)
        if size > k:
            columns = columns.gather(1, together[:, start : start + size].topk(k, dim=1, sorted=False).indices)
        kept.append(columns)
        start += size
    return torch.cat(kept, dim=1).sort(dim=1).values


_End = tuple[Tensor, Tensor]  # exponents and what is reached under them


def _reached(scores: Tensor, log_popularity: Tensor, exponent: Tensor, k: int, match: str) -> Tensor:
    """Log popularity of the lists under exponents; in the precision of the final lists."""
    at = (scores.double() - exponent.unsqueeze(1) * log_popularity).topk(k, dim=1, sorted=False).indices
    listed = log_popularity.double().gather(1, at)
    return list_popularity(listed.masked_fill(scores.gather(1, at) == -torch.inf, torch.nan), match)


def _bracket(
    scores: Tensor, log_popularity: Tensor, target: Tensor, sign: Tensor, start: Tensor, k: int, match: str
) -> tuple[_End, _End, Tensor]:
    """The last exponent before the target and the first beyond it, doubling the reach; and where there is one beyond.

    ``sign`` is +1 where the list is too popular, so that the exponent must rise.
    """
    near, at_near = torch.zeros_like(target), start.clone()
    far, at_far = near.clone(), at_near.clone()
    rows, reach = torch.arange(len(scores), device=scores.device), _FIRST_REACH
    while len(rows) and reach <= _LARGEST:
        far[rows] = sign[rows] * reach
        at_far[rows] = _reached(scores[rows], log_popularity[rows], far[rows], k, match)
        rows = rows[(at_far[rows] - target[rows]) * sign[rows] > 0]
        near[rows], at_near[rows] = far[rows], at_far[rows]
        reach *= 2
    beyond = (at_far - target) * sign <= 0
    return (near, at_near), (far, at_far), beyond


def _bisect(
    scores: Tensor,
    log_popularity: Tensor,
    target: Tensor,
    sign: Tensor,
    near: _End,
    far: _End,
    k: int,
    match: str,
    left: int = _HALVINGS,
) -> Tensor:
    """Halve the brackets and take the end whose list is nearer to the target."""
    found = torch.where((far[1] - target).abs() < (near[1] - target).abs(), far[0], near[0])
    if left <= 0:
        return found
    for rows, columns in _in_play(scores, log_popularity, near[0], far[0], k):
        part = scores[rows].gather(1, columns), log_popularity[rows].gather(1, columns), target[rows], sign[rows]
        ends = _halve(*part, (near[0][rows], near[1][rows]), (far[0][rows], far[1][rows]), k, match)
        found[rows] = _bisect(*part, *ends, k, match, left - _AT_ONCE)
    return found


def _halve(
    scores: Tensor, log_popularity: Tensor, target: Tensor, sign: Tensor, near: _End, far: _End, k: int, match: str
) -> tuple[_End, _End]:
    """A few halvings at once; the new ends."""
    (near_a, at_near), (far_a, at_far) = near, far
    rows = torch.arange(len(scores), device=scores.device)
    for _ in range(_AT_ONCE):
        middle = (near_a[rows] + far_a[rows]) / 2
        value = _reached(scores[rows], log_popularity[rows], middle, k, match)
        beyond = (value - target[rows]) * sign[rows] <= 0
        over, under = rows[beyond], rows[~beyond]
        far_a[over], at_far[over] = middle[beyond], value[beyond]
        near_a[under], at_near[under] = middle[~beyond], value[~beyond]
        rows = rows[(at_far[rows] - target[rows]).abs() > _CLOSE]
        if not len(rows):
            break
    return (near_a, at_near), (far_a, at_far)


def _in_play(
    scores: Tensor, log_popularity: Tensor, near: Tensor, far: Tensor, k: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows, with columns that hold every item that can be in their lists between two exponents.

    Values are lines in the exponent. An item that stays below the k-th best line of one end all the way stays outside.
    """
    at_near = scores.double() - near.unsqueeze(1) * log_popularity
    at_far = scores.double() - far.unsqueeze(1) * log_popularity
    low, high = torch.minimum(at_near, at_far), torch.maximum(at_near, at_far)
    floors = [low.gather(1, end.topk(k, dim=1, sorted=False).indices).amin(1) for end in (at_near, at_far)]
    number = (high >= torch.maximum(*floors).unsqueeze(1)).sum(1)
    most, done = scores.shape[1], 0
    for width in (k + 2, 4 * k, 16 * k, most):
        rows = ((number > done) & (number <= width)).nonzero().squeeze(1)
        if len(rows):
            # In the order of the columns, so that equal values are taken alike.
            yield rows, high[rows].topk(min(width, most), dim=1).indices.sort(1).values
        done = width
        if width >= most:
            return
