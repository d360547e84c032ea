"""The candidates of every user as one queue a group: the core of methods that only ever look at a group's best item."""

from __future__ import annotations

import torch
from torch import Tensor


class GroupQueues:
    """Candidates by group, in the model's order; all users step at once.

    Within a group the best item is always the first that is left, so that a greedy method looks at G candidates a
    step and not at C.

    Attributes:
        none: The column that stands for "this queue is empty": the number of candidates C.
    """

    def __init__(self, groups: Tensor, n_groups: int) -> None:
        """Sort the candidates into queues.

        Args:
            groups: Group of each candidate, long ``[U, C]``, -1 where there is no candidate.
            n_groups: Number of groups G.
        """
        n_rows, self.none = groups.shape
        labels = torch.where(groups < 0, n_groups, groups)
        # A stable sort by group keeps the model's order within each group.
        self._order = labels.argsort(dim=1, stable=True)
        sizes = torch.zeros(n_rows, n_groups + 1, dtype=torch.long, device=groups.device)
        sizes.scatter_add_(1, labels, torch.ones_like(labels))
        self._end = sizes.cumsum(1)[:, :n_groups]
        self._next = self._end - sizes[:, :n_groups]

    def heads(self) -> Tensor:
        """Column of the best candidate left in each group, long ``[U, G]``; :attr:`none` where a group is empty."""
        columns = self._order.gather(1, self._next.clamp(max=self.none - 1))
        return columns.masked_fill(self._next >= self._end, self.none)

    def take(self, group: Tensor) -> Tensor:
        """Take the best candidate of one group out of each row's queues.

        Args:
            group: long ``[U]``, -1: take nothing.

        Returns:
            Its column, long ``[U]``; -1 where nothing was taken.
        """
        chosen = group.clamp(min=0).unsqueeze(1)
        column = self.heads().gather(1, chosen).squeeze(1)
        taken = (group >= 0) & (column < self.none)
        self._next.scatter_add_(1, chosen, taken.long().unsqueeze(1))
        return column.masked_fill(~taken, -1)


def gather_heads(values: Tensor, heads: Tensor, empty: float) -> Tensor:
    """Values ``[U, C]`` of the queues' heads: float ``[U, G]``, ``empty`` where a queue is empty."""
    n = values.shape[1]
    return values.gather(1, heads.clamp(max=n - 1)).masked_fill(heads >= n, empty)


def best_group(values: Tensor, heads: Tensor) -> Tensor:
    """The group with the largest value of each row; ties go to the candidate that the model ranks higher.

    Args:
        values: ``[U, G]``, -inf for groups that may not be chosen.
        heads: Result of :meth:`GroupQueues.heads`.

    Returns:
        long ``[U]``, -1 where no group may be chosen.
    """
    best = values.amax(1, keepdim=True)
    first = heads.masked_fill((values < best) | (values == -torch.inf), torch.iinfo(torch.long).max).argmin(1)
    return first.masked_fill(best.squeeze(1) == -torch.inf, -1)
