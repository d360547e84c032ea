"""Synthetic users and streamed moments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_fair.data.facts.popularity import select_head_tail
from recbole_fair.data.facts.profiles import SyntheticProfiles
from recbole_fair.errors import FairError
from recbole_fair.model.popsteer.moments import StreamingMoments


def drawn(profiles: SyntheticProfiles, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    sequences, lengths = zip(*profiles.batches(batch_size), strict=True)
    assert all(len(s) <= batch_size for s in sequences)
    return torch.cat(sequences), torch.cat(lengths)


def test_stream_does_not_depend_on_the_batch_size_or_move_the_global_generator() -> None:
    profiles = SyntheticProfiles(torch.tensor([3, 5, 9]), 5000, 7, seed=4)
    before = torch.get_rng_state()
    one, _ = drawn(profiles, 5000)
    two, _ = drawn(profiles, 33)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one, two)
    other, _ = drawn(SyntheticProfiles(torch.tensor([3, 5, 9]), 5000, 7, seed=5), 64)
    assert not torch.equal(one, other)


def test_draws_are_uniform_with_replacement_and_full_length() -> None:
    items = torch.arange(11, 31)
    sequences, lengths = drawn(SyntheticProfiles(items, 4000, 10), 512)
    assert set(sequences.unique().tolist()) == set(items.tolist())
    assert (lengths == 10).all()
    counts = torch.bincount(sequences.flatten(), minlength=31)[11:].double()
    expected = 40000 / 20
    chi_square = ((counts - expected).square() / expected).sum().item()
    assert chi_square < 43.8  # 99.9 % of chi-square with 19 degrees of freedom
    distinct = np.mean([len(set(row)) for row in sequences.tolist()])
    assert distinct == pytest.approx(20 * (1 - 0.95**10), abs=0.1)


def test_matched_lengths_follow_real_users_and_pad_at_the_right() -> None:
    real = torch.tensor([1, 2, 2, 5, 400])
    sequences, lengths = drawn(SyntheticProfiles(torch.tensor([7, 8]), 10000, 20, real), 4096)
    assert torch.equal((sequences > 0).sum(dim=1), lengths)
    assert not ((sequences[:, :-1] == 0) & (sequences[:, 1:] > 0)).any()
    share = torch.bincount(lengths, minlength=21).double() / 10000
    for length, expected in {1: 0.2, 2: 0.4, 5: 0.2, 20: 0.2}.items():
        assert share[length] == pytest.approx(expected, abs=0.02)


def test_guards() -> None:
    with pytest.raises(FairError, match="at least one item"):
        SyntheticProfiles(torch.tensor([], dtype=torch.long), 10, 5)
    with pytest.raises(FairError, match="synthetic_users=0"):
        SyntheticProfiles(torch.tensor([1]), 0, 5)
    with pytest.raises(FairError, match="20 items"):
        select_head_tail(torch.arange(19), 0.1, 0.1, "items")
    counts = torch.ones(31, dtype=torch.long)
    counts[0], counts[7] = 0, 1000
    with pytest.raises(FairError, match="alone has"):
        select_head_tail(counts, 0.1, 0.1, "interactions")


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6), seed=st.integers(0, 1000), offset=st.floats(-50, 50))
def test_streamed_moments_equal_two_passes(sizes: list[int], seed: int, offset: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes = [*sizes, 3]
    x = torch.randn(sum(sizes), 4, generator=generator, dtype=torch.float64) + offset
    weight, bias = torch.randn(9, 4, generator=generator), torch.randn(9, generator=generator)
    moments, left, right = StreamingMoments(4), StreamingMoments(4), StreamingMoments(4)
    for number, part in enumerate(x.split(sizes)):
        moments.update(part)
        (left if number % 2 else right).update(part)
    left.merge(right)
    z = x @ weight.double().t() + bias.double()
    for one in (moments, left):
        assert one.count == len(x)
        mean, std = one.linear(weight, bias)
        torch.testing.assert_close(mean, z.mean(dim=0), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(std, z.std(dim=0, correction=0), rtol=1e-6, atol=1e-6)


def test_identical_users_have_no_variance() -> None:
    moments = StreamingMoments(3)
    row = torch.tensor([[0.1, 0.7, -0.3]])
    moments.update(row.repeat(5, 1))
    moments.update(row.repeat(6, 1) * (1 + 1e-8))
    _, std = moments.linear(torch.randn(8, 3), torch.randn(8))
    assert torch.equal(std, torch.zeros(8, dtype=torch.float64))
