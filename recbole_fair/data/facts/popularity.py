"""How popular an item is, and which items are head and tail: one definition for every model and metric.

Popularity is the number of *training* interactions with an item before any sequence augmentation, so that SASRec and
BPR agree on it. The padding id 0 is no item: it has count 0, no segment and takes no part in any share.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recbole_fair.errors import FairError

if TYPE_CHECKING:
    from recbole_fair.data.facts.interactions import Interactions

HEAD, MID, TAIL, PAD = 0, 1, 2, -1
SEGMENT_NAMES = ("head", "mid", "tail")
MIN_ITEMS = 20


def count_items(items: npt.NDArray[np.int64], n_items: int) -> Tensor:
    """Count how often each item occurs.

    Args:
        items: Item ids, int64 ``[n]``, repeats counted each time.
        n_items: Number of ids including the padding id 0.

    Returns:
        LongTensor ``[n_items]``; entry 0 is always 0.
    """
    counts = np.bincount(items, minlength=n_items).astype(np.int64)
    counts[0] = 0
    return torch.from_numpy(counts)


class DominantItemError(FairError):
    """One item has more interactions than the head may hold.

    Attributes:
        item: inner id of the item.
        share: its share of the interactions.
        head_share: the head's.
    """

    def __init__(self, item: int, share: float, head_share: float) -> None:
        self.item, self.share, self.head_share = item, share, head_share
        super().__init__(
            f"Item {item} (inner id) alone has {100 * share:.1f} % of the "
            f"interactions, more than the head share {head_share:.0%}: raise the share or choose head and tail by "
            "'items'."
        )


def select_head_tail(
    counts: Tensor, head_share: float, tail_share: float, by: str, include_unseen: bool = True
) -> tuple[Tensor, Tensor]:
    """Choose the most and the least popular items.

    Ties are broken by ascending item id on both sides. ``by="items"`` takes the rounded share of the items, one at
    least. ``by="interactions"`` adds items, from the most (least) popular on, while the share of interactions gathered
    *before* adding is below the wanted share. The tail is chosen among the items that are not head.

    Args:
        counts: Interactions of each item ``[n_items]``, index 0 the padding.
        head_share: Share of items or interactions that is head, in (0, 1).
        tail_share: Share of items or interactions that is tail, in (0, 1).
        by: ``"items"`` or ``"interactions"``.
        include_unseen: Whether items without any interaction may be chosen. They then all belong to the tail, however
            many they are; otherwise the catalogue is taken to be the items with at least one interaction.

    Returns:
        Ids of head items, most popular first, and ids of tail items, least popular first.

    Raises:
        FairError: For shares out of range or of more than 1 together, a catalogue of fewer than 20 items, an item that
            alone exceeds the head's share of the interactions, or a side left without items.
    """
    for name, share in (("head", head_share), ("tail", tail_share)):
        if not 0 < share < 1:
            raise FairError(f"The {name} share must lie between 0 and 1, got {share}.")
    if head_share + tail_share > 1:
        raise FairError(f"Head share {head_share} and tail share {tail_share} are more than 1 together: lower one.")
    if by not in ("items", "interactions"):
        raise FairError(f"Head and tail are chosen by 'items' or 'interactions', got {by!r}.")
    all_counts = counts.detach().cpu().numpy().astype(np.int64)
    ids = np.arange(1, len(all_counts))
    if not include_unseen:
        ids = ids[all_counts[1:] > 0]
    c = all_counts[ids]
    if len(ids) < MIN_ITEMS:
        raise FairError(f"Head and tail need at least {MIN_ITEMS} items, the data set has {len(ids)}.")
    total = int(c.sum())
    if total == 0:
        raise FairError("Head and tail need training interactions, the training split has none.")
    most = np.argsort(-c, kind="stable")
    if by == "items":
        n_head = max(1, int(np.floor(head_share * len(ids) + 0.5)))
        n_tail = max(1, int(np.floor(tail_share * len(ids) + 0.5)))
    else:
        top = int(c[most[0]])
        if top > head_share * total:
            raise DominantItemError(int(ids[most[0]]), top / total, head_share)
        n_head = int(_gather_mass(c[most], head_share * total).sum())
    # Popular items cannot be tail: with large shares or many ties both rules may reach for the same item.
    rest = np.sort(most[n_head:])
    least = rest[np.argsort(c[rest], kind="stable")]
    if by == "interactions":
        n_tail = int(_gather_mass(c[least], tail_share * total).sum())
    head, tail = ids[most[:n_head]], ids[least[: max(n_tail, int((c == 0).sum()))]]
    if len(tail) == 0:
        raise FairError(f"No tail item is left with head share {head_share} and tail share {tail_share} by '{by}'.")
    return torch.from_numpy(head), torch.from_numpy(tail)


def select_by_quantile(counts: Tensor, head_share: float, tail_share: float) -> tuple[Tensor, Tensor]:
    """Choose the items at or beyond a popularity threshold on each side (SPREE section 5.2, A.1).

    The thresholds are quantiles of the counts (``inverted_cdf``); items as popular as a threshold belong to the side,
    so that ties make a side larger than its share. Items without any interaction are left out.

    Args:
        counts: Interactions of each item ``[n_items]``, index 0 the padding.
        head_share: Share of items that is head at least, in (0, 1).
        tail_share: Share of items that is tail at least, in (0, 1).

    Returns:
        Ids of head items and ids of tail items, both ascending.

    Raises:
        FairError: For fewer than 20 items, or when the thresholds meet.
    """
    ids = torch.nonzero(counts > 0).flatten()
    ids = ids[ids > 0].cpu()
    if len(ids) < MIN_ITEMS:
        raise FairError(f"Head and tail need at least {MIN_ITEMS} items, the data set has {len(ids)}.")
    c = counts.cpu()[ids]
    at_head, at_tail = np.quantile(c.numpy(), [1 - head_share, tail_share], method="inverted_cdf")
    if at_head <= at_tail:
        raise FairError(
            f"Head and tail items cannot be told apart: with head_share={head_share} and tail_share={tail_share} both "
            f"hold items with {int(at_tail)} interactions; lower the shares or filter rare items."
        )
    return ids[c >= int(at_head)], ids[c <= int(at_tail)]


def _gather_mass(sorted_counts: npt.NDArray[np.int64], mass: float) -> npt.NDArray[np.bool_]:
    """Mark the leading items whose predecessors together hold less than ``mass`` interactions."""
    before = np.cumsum(sorted_counts) - sorted_counts
    # A share like .2 of 5 interactions is 1.0000000000000002 in floating point; counts are whole numbers.
    return before < mass - 1e-9 * max(mass, 1.0)


@dataclass(frozen=True)
class Popularity:
    """Item popularity and the head, mid and tail segments.

    Attributes:
        counts: Training interactions of each item, LongTensor ``[n_items]``, index 0 (padding) is 0.
        head_share: Share of items or interactions that is head.
        tail_share: Share of items or interactions that is tail.
        by: ``"items"`` or ``"interactions"``.
    """

    counts: Tensor
    head_share: float = 0.2
    tail_share: float = 0.2
    by: str = "interactions"

    @classmethod
    def from_interactions(
        cls, inter: Interactions, head_share: float = 0.2, tail_share: float = 0.2, by: str = "interactions"
    ) -> Popularity:
        """Count the un-augmented training interactions.

        Segments are worked out when first asked for, so that a data set too small for head and tail can still be
        counted.

        Args:
            inter: Training interactions.
            head_share: See :func:`select_head_tail`.
            tail_share: See :func:`select_head_tail`.
            by: See :func:`select_head_tail`.

        Returns:
            The popularity of every item.
        """
        return cls(count_items(inter.item, inter.n_items), head_share, tail_share, by)

    @property
    def n_items(self) -> int:
        """Number of item ids including the padding id 0."""
        return len(self.counts)

    @cached_property
    def log_counts(self) -> Tensor:
        """``log(max(count, 1))`` of each item, float64 ``[n_items]``: unseen items have 0."""
        return self.counts.clamp(min=1).double().log()

    @cached_property
    def _head_tail(self) -> tuple[Tensor, Tensor]:
        return select_head_tail(self.counts, self.head_share, self.tail_share, self.by)

    @property
    def head_items(self) -> Tensor:
        """Ids of the head items, most popular first."""
        return self._head_tail[0]

    @property
    def tail_items(self) -> Tensor:
        """Ids of the tail items, least popular first; every unseen item is among them."""
        return self._head_tail[1]

    @cached_property
    def segments(self) -> Tensor:
        """Segment of each item, LongTensor ``[n_items]``: 0 head, 1 mid, 2 tail, -1 for the padding id.

        Raises:
            FairError: As :func:`select_head_tail`.
        """
        segments = torch.full((self.n_items,), MID, dtype=torch.long)
        segments[self.head_items] = HEAD
        segments[self.tail_items] = TAIL
        segments[0] = PAD
        return segments

    def describe(self) -> dict[str, Any]:
        """The definition in use, as plain values for the log and the result document."""
        described: dict[str, Any] = {
            "counts": "un-augmented training interactions",
            "interactions": int(self.counts.sum()),
            "items": self.n_items - 1,
            "unseen_items": int((self.counts[1:] == 0).sum()),
            "by": self.by,
            "head_share": self.head_share,
            "tail_share": self.tail_share,
        }
        try:
            sizes = torch.bincount(self.segments[1:], minlength=3).tolist()
        except FairError as error:
            described["segments"] = f"not defined: {error}"
        else:
            described.update({f"{name}_items": size for name, size in zip(SEGMENT_NAMES, sizes, strict=True)})
        return described
