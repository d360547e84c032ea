from __future__ import annotations

import numpy as np
import pytest

from recbole_fair.data.reading.order import stable_order


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
