from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_fair.data.reading.order import stable_order
from recbole_fair.data.reading.splits import Groups


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.integers(0, 9, n),
        lambda rng, n: rng.integers(0, 70_000, n),
        lambda rng, n: rng.integers(0, 2**32, n),
        lambda rng, n: rng.integers(0, 2**40, n),
        lambda rng, n: rng.integers(-5, 5, n).astype(np.int32),
        lambda rng, n: rng.random(n).astype(np.float32) * 1e9,
        lambda rng, n: rng.integers(0, 4, n).astype(np.float32) * np.float32(1e-40),
        lambda rng, n: rng.choice(np.array([-0.0, 0.0, 1.0], dtype=np.float32), n),
        lambda rng, n: rng.choice(np.array([np.inf, np.nan, 1.0, 2.0], dtype=np.float32), n),
        lambda rng, n: rng.normal(size=n).astype(np.float32),
        lambda rng, n: rng.normal(size=n),
        lambda rng, n: rng.integers(-(10**9), 10**9, n).astype(np.float64),
        lambda rng, n: rng.integers(0, 10**15, n).astype(np.float64),
        lambda rng, n: rng.integers(0, 10**6, n) / 2,
        lambda rng, n: rng.choice([np.inf, np.nan, 1.0, 2.0], n),
        lambda rng, n: np.sort(rng.integers(0, 9, n)),
        lambda rng, n: np.zeros(n, dtype=np.float32),
    ],
)
def test_the_order_is_that_of_a_stable_sort(draw):
    rng = np.random.default_rng(0)
    for n in (0, 1, 2, 3, 50, 3000):
        keys = draw(rng, n)
        found = stable_order(keys)
        expected = np.argsort(keys, kind="stable")
        if found is None:
            assert expected.tolist() == list(range(n))
        else:
            assert found.tolist() == expected.tolist()


@settings(max_examples=80, deadline=None)
@given(n=st.integers(0, 40), n_users=st.integers(1, 8), n_times=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_groups_of_sorted_rows_are_those_in_order_of_time(n: int, n_users: int, n_times: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    users, times = rng.integers(1, n_users + 1, n), rng.integers(0, n_times, n).astype(np.float32)
    rows = np.lexsort((times, users))
    users, times = users[rows], times[rows]
    by_time = np.argsort(times, kind="stable")
    expected, found = Groups.of(users[by_time]), Groups.of_sorted(users, times)
    if n == 0:
        assert found is None
        return
    assert found is not None
    assert np.array_equal(found.order, by_time[expected.order])
    for name in ("group", "position", "lengths"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))


def test_rows_that_are_not_sorted_are_left_to_the_other_way() -> None:
    users, times = np.array([1, 1, 2]), np.array([1.0, 2.0, 0.0])
    assert Groups.of_sorted(users, times) is not None
    assert Groups.of_sorted(users[::-1], times) is None
    assert Groups.of_sorted(users, np.array([2.0, 1.0, 0.0])) is None
    for missing in range(3):
        assert Groups.of_sorted(users, np.where(np.arange(3) == missing, np.nan, times)) is None
