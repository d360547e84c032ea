"""Winners within budgets, fronts by method, and the area that a front dominates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_fair.analysis.frontier import Point, best_by_method, front_by_method, hypervolume, within

X, Y = "giniindex@10", "ndcg@10"
BASE = {X: 0.8, Y: 0.1}


def point(method: str, gini: float, ndcg: float, **setting: float) -> Point:
    values = {X: gini, Y: ndcg}
    return Point(method, setting, values, {X: gini + 0.01, Y: ndcg - 0.001})


POINTS = [
    point("A", 0.75, 0.099, a=1),
    point("A", 0.60, 0.094, a=2),  # over a budget of 5 %
    point("B", 0.70, 0.096, b=1),
    point("B", 0.72, 0.097, b=2),  # worse than its neighbour in Gini, better in NDCG
    point("C", 0.85, 0.099, c=1),  # no gain
    point("D", 0.50, 0.05, d=1),  # beyond every budget
]


def test_winners_keep_the_budget_and_better_the_base() -> None:
    assert best_by_method(POINTS, BASE, X, Y, 0.05) == [2, 0]
    assert best_by_method(POINTS, BASE, X, Y, 0.1) == [1, 2]
    assert best_by_method(POINTS, BASE, X, Y, 0.005) == []


def test_a_budget_of_a_metric_that_falls_when_it_betters() -> None:
    """Losing 5 % of a small-is-better metric is a rise."""
    assert within(0.84, 0.8, X, 0.05)
    assert not within(0.85, 0.8, X, 0.05)
    assert within(0.095, 0.1, Y, 0.05)
    assert not within(0.094, 0.1, Y, 0.05)
    found = best_by_method([point("A", 0.83, 0.12), point("A", 0.9, 0.2)], BASE, Y, X, 0.05)
    assert found == [0]


def test_fronts_are_each_method_s_own() -> None:
    assert front_by_method(POINTS, X, Y) == {"A": [1, 0], "B": [2, 3], "C": [4], "D": [5]}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 8), loss=st.sampled_from([0.05, 0.1, 0.3]))
def test_the_hypervolume_is_the_share_of_random_corners_that_are_dominated(seed: int, n: int, loss: float) -> None:
    """Against a fine grid of targets: how many of them some point reaches."""
    rng = np.random.default_rng(seed)
    values = [
        {X: float(g), Y: float(a)} for g, a in zip(rng.uniform(0, 0.9, n), rng.uniform(0.06, 0.1, n), strict=True)
    ]
    gains = (np.arange(400) + 0.5) / 400
    losses = loss * (np.arange(400) + 0.5) / 400
    reached = np.zeros((400, 400), dtype=bool)
    for one in values:
        gain, lost = (BASE[X] - one[X]) / BASE[X], (BASE[Y] - one[Y]) / BASE[Y]
        reached |= (gains[:, None] <= gain) & (losses[None, :] >= lost)
    assert hypervolume(values, BASE, X, Y, loss) == pytest.approx(reached.mean(), abs=0.02)


def test_hypervolumes_of_known_fronts() -> None:
    assert hypervolume([{X: 0.0, Y: 0.1}], BASE, X, Y, 0.1) == pytest.approx(1.0)
    assert hypervolume([{X: 0.4, Y: 0.095}], BASE, X, Y, 0.1) == pytest.approx(0.25)
    assert hypervolume([{X: 0.9, Y: 0.1}, {X: 0.1, Y: 0.05}], BASE, X, Y, 0.1) == 0.0
    # A better accuracy than the base's widens the budget.
    assert hypervolume([{X: 0.4, Y: 0.11}], BASE, X, Y, 0.1) == pytest.approx(1.0)
