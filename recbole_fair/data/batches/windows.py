"""Training windows over flat sequences: offsets into one array, no padded copy of the data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

# Fields of a training batch of windows.
WINDOW_ITEMS = "window_items"
WINDOW_TARGETS = "window_targets"


@dataclass(frozen=True)
class FlatSequences:
    """Users' training sequences, one after another in one array.

    Attributes:
        items: ``[n]`` item ids, in order of time within a user.
        starts: ``[n_sequences]`` index of each sequence's first item.
        lengths: ``[n_sequences]`` number of items; every item but the first is a training target.
    """

    items: npt.NDArray[np.int32]
    starts: IntArray
    lengths: IntArray

    @property
    def n_targets(self) -> int:
        """Training targets an epoch has, whatever the windows."""
        return int(np.maximum(self.lengths - 1, 0).sum())


@dataclass(frozen=True)
class Windows:
    """Windows as offsets: inputs ``items[first : last]``, targets ``items[last - span + 1 : last + 1]``.

    Attributes:
        first: ``[n]`` index of the first input.
        last: ``[n]`` index one past the last input, which is the index of the last target.
        span: ``[n]`` number of targets, counted back from the last one.
    """

    first: IntArray
    last: IntArray
    span: IntArray

    def __len__(self) -> int:
        return len(self.first)


def draw_windows(sequences: FlatSequences, length: int, stride: int, rng: np.random.Generator | None) -> Windows:
    """Cover every target of every sequence once with windows of at most ``length`` inputs and ``stride`` targets.

    A target's context is everything before it inside its window: between ``length - stride + 1`` and ``length`` items
    where the sequence has that many. ``stride=1`` gives the prefixes of RecBole's augmentation, ``stride=length``
    windows that do not overlap, the cheapest.

    Args:
        sequences: the training sequences.
        length: inputs a window, at least 1.
        stride: targets a window, in ``1..length``.
        rng: draws each sequence's offset, so that over epochs a target meets contexts of every allowed length;
            without it the windows are counted back from the end of the sequence.

    Returns:
        Windows in sequence order.
    """
    targets = np.maximum(sequences.lengths - 1, 0)
    # Targets are numbered 1..m; the first chunk ends at target `head` (1..stride), the others are `stride` long.
    if rng is None:
        head = (targets - 1) % stride + 1
    else:
        head = rng.integers(1, stride + 1, size=len(targets))
    head = np.minimum(head, targets)
    chunks = np.where(targets > 0, 1 + -(-(targets - head) // stride), 0)
    owner = np.repeat(np.arange(len(targets)), chunks)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(chunks) - chunks, chunks)
    end = np.minimum(head[owner] + number * stride, targets[owner])
    begin = np.where(number == 0, 0, head[owner] + (number - 1) * stride)
    start = sequences.starts[owner]
    return Windows(first=start + np.maximum(end - length, 0), last=start + end, span=end - begin)


def gather_windows(
    sequences: FlatSequences, windows: Windows, index: IntArray, length: int, stride: int
) -> tuple[IntArray, IntArray]:
    """Padded inputs and targets of some windows.

    Args:
        sequences: the training sequences.
        windows: their windows.
        index: which windows.
        length: most inputs a window can have.
        stride: most targets a window can have.

    Returns:
        Inputs ``[len(index), width]`` with ``width`` the longest of these windows, padded with 0 at the right, and
        targets ``[len(index), span]`` with ``span = min(stride, width)``: column ``j`` follows the input at position
        ``max(inputs - span, 0) + j``, 0 where there is no loss.
    """
    first, last, span = windows.first[index], windows.last[index], windows.span[index]
    count = last - first
    width = int(count.max())
    columns = np.arange(width)
    source = first[:, None] + columns
    inputs = np.where(columns < count[:, None], sequences.items[np.minimum(source, len(sequences.items) - 1)], 0)
    depth = min(stride, width)
    position = np.maximum(count - depth, 0)[:, None] + np.arange(depth)
    valid = (position >= (count - span)[:, None]) & (position < count[:, None])
    target = np.where(valid, first[:, None] + position + 1, 0)
    targets = np.where(valid, sequences.items[target], 0)
    return inputs.astype(np.int64), targets.astype(np.int64)
