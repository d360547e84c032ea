from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_fair.data.batches.windows import FlatSequences, draw_windows, gather_windows


def sequences_of(lengths: list[int]) -> FlatSequences:
    lengths_array = np.array(lengths, dtype=np.int64)
    items = np.arange(1, lengths_array.sum() + 1, dtype=np.int32)
    return FlatSequences(items, np.cumsum(lengths_array) - lengths_array, lengths_array)


def pairs_by_hand(sequences: FlatSequences, length: int, stride: int, rng: np.random.Generator | None):
    """(context, target) of every loss term, read from the padded batches."""
    windows = draw_windows(sequences, length, stride, rng)
    inputs, targets = gather_windows(sequences, windows, np.arange(len(windows)), length, stride)
    pairs = []
    for row, goal in zip(inputs.tolist(), targets.tolist(), strict=True):
        real = [item for item in row if item]
        assert row == real + [0] * (len(row) - len(real)), "padding stands at the right"
        base = max(len(real) - len(goal), 0)
        pairs += [(tuple(real[: base + j + 1]), item) for j, item in enumerate(goal) if item]
    return pairs


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 23), min_size=1, max_size=6).filter(lambda x: max(x) > 1),
    length=st.integers(1, 9),
    stride=st.integers(1, 9),
    seed=st.none() | st.integers(0, 5),
)
def test_every_target_once_with_the_context_it_is_promised(lengths, length, stride, seed):
    stride = min(stride, length)
    sequences = sequences_of(lengths)
    pairs = pairs_by_hand(sequences, length, stride, None if seed is None else np.random.default_rng(seed))
    expected = Counter(
        int(sequences.items[s + t]) for s, n in zip(sequences.starts, lengths, strict=True) for t in range(1, n)
    )
    assert Counter(target for _, target in pairs) == expected
    assert len(pairs) == sequences.n_targets
    start_of = {
        int(sequences.items[s + t]): int(sequences.items[s])
        for s, n in zip(sequences.starts, lengths, strict=True)
        for t in range(n)
    }
    for context, target in pairs:
        # Items are numbered in order, so a context is a run that ends just before its target.
        assert context == tuple(range(target - len(context), target))
        before = target - start_of[target]
        assert min(before, length - stride + 1) <= len(context) <= min(before, length)


def test_stride_one_is_the_prefix_augmentation():
    pairs = pairs_by_hand(sequences_of([6, 3]), 4, 1, None)
    expected = [((1,), 2), ((1, 2), 3), ((1, 2, 3), 4), ((1, 2, 3, 4), 5), ((2, 3, 4, 5), 6), ((7,), 8), ((7, 8), 9)]
    assert sorted(pairs, key=lambda p: p[1]) == expected


def test_offsets_differ_between_epochs():
    sequences = sequences_of([200])
    contexts = [
        {target: len(context) for context, target in pairs_by_hand(sequences, 10, 10, np.random.default_rng(epoch))}
        for epoch in range(40)
    ]
    assert {c[150] for c in contexts} == set(range(1, 11))


@pytest.mark.parametrize("stride", [1, 3, 5])
def test_sequences_without_a_target_make_no_window(stride):
    windows = draw_windows(sequences_of([1, 4, 1]), 5, stride, np.random.default_rng(0))
    assert windows.span.sum() == 3
    assert (windows.span > 0).all()
