"""The tables of FA*IR: failure rates by simulation and by enumeration, and other implementations' values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rerank_oracle import make
from scipy.stats import binom

from recbole_fair.data.facts.popularity import TAIL
from recbole_fair.rerank.fa_star_ir import FAstarIR, failure_probability, minimum_protected


@pytest.mark.parametrize(("k", "p", "alpha"), [(10, 0.6, 0.1), (20, 0.3, 0.05), (50, 0.4, 0.1), (100, 0.25, 0.1)])
@pytest.mark.parametrize("correction", ["exact", "sidak", "none"])
def test_failure_rate_of_simulated_fair_lists(k: int, p: float, alpha: float, correction: str) -> None:
    table, _ = minimum_protected(k, p, alpha, correction)
    drawn = np.random.default_rng(0).random((40_000, k)) < p
    failed = (drawn.cumsum(1) < np.array(table)).any(1).mean()
    assert failure_probability(table, p) == pytest.approx(failed, abs=4 * np.sqrt(0.25 / 40_000))
    if correction == "exact":
        assert failure_probability(table, p) <= alpha
    if correction == "none" and k > 10:
        assert failed > alpha  # what the adjustment is for


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.floats(0.05, 0.95), st.lists(st.integers(0, 2), min_size=9, max_size=9))
def test_failure_probability_by_enumeration(k: int, p: float, steps: list[int]) -> None:
    table = np.minimum(np.cumsum(np.array(steps[:k]) // 2), np.arange(1, k + 1))
    fails = 0.0
    for draws in itertools.product((0, 1), repeat=k):
        if (np.cumsum(draws) < table).any():
            fails += p ** sum(draws) * (1 - p) ** (k - sum(draws))
    assert failure_probability(table, p) == pytest.approx(fails, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 25), st.floats(0.02, 0.98), st.floats(0.005, 0.3))
def test_the_exact_table_is_the_strictest_that_keeps_the_level(k: int, p: float, alpha: float) -> None:
    table, level = minimum_protected(k, p, alpha, "exact")
    assert failure_probability(table, p) <= alpha
    below = [int((binom.cdf(np.arange(k), i, p) <= level * (1 - 1e-9)).sum()) for i in range(1, k + 1)]
    beyond = [min(i, int((binom.cdf(np.arange(k), i, p) <= level * (1 + 1e-9)).sum())) for i in range(1, k + 1)]
    assert list(table) == below
    assert level == 1 or failure_probability(beyond, p) > alpha


# Adjusted level and table by the procedure of LensKit's FAIRReranker (blocks, convolution, bisection), recorded. Its
# bisection ends beside the step at which the failure probability passes alpha, on either side of it.
LENSKIT_BELOW = {
    (10, 0.6, 0.1): (0.06399999998393469, [0, 0, 0, 1, 1, 2, 2, 3, 3, 4]),
    (10, 0.8, 0.01): (0.006719999975757673, [0, 0, 0, 1, 1, 2, 3, 3, 4, 5]),
}
LENSKIT_ABOVE = {
    (10, 0.5, 0.1): (0.06250000002910383, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]),
    (20, 0.3, 0.05): (0.035483132320223376, [0] * 9 + [1] * 5 + [2] * 5 + [3]),
}


@pytest.mark.parametrize("case", LENSKIT_BELOW)
def test_recorded_values(case: tuple[int, float, float]) -> None:
    table, level = minimum_protected(*case, "exact")
    assert level == pytest.approx(LENSKIT_BELOW[case][0], abs=1e-9)
    assert list(table) == LENSKIT_BELOW[case][1]


@pytest.mark.parametrize("case", LENSKIT_ABOVE)
def test_recorded_values_on_the_other_side_of_the_step(case: tuple[int, float, float]) -> None:
    table, level = minimum_protected(*case, "exact")
    theirs = LENSKIT_ABOVE[case]
    assert level == pytest.approx(theirs[0], abs=1e-9)
    assert failure_probability(theirs[1], case[1]) > case[2] >= failure_probability(table, case[1])
    assert all(0 <= b - a <= 1 for a, b in zip(table, theirs[1], strict=True))


def test_sidak_and_small_p() -> None:
    table, level = minimum_protected(10, 0.6, 0.1, "sidak")
    assert level == pytest.approx(0.0105, abs=5e-5)
    assert table == (0, 0, 0, 0, 1, 1, 1, 2, 2, 2)
    assert failure_probability(table, 0.6) == pytest.approx(0.015, abs=5e-4)
    for p in (0.0, 0.01, 0.05, 0.1, 0.2):
        assert minimum_protected(10, p, 0.1, "exact")[0] == (0,) * 10


def test_p_of_1_wants_the_tail_alone() -> None:
    assert minimum_protected(10, 1.0, 0.1, "exact")[0] == tuple(range(1, 11))
    made = make(30, 60, 40, short=False)
    lists = FAstarIR(1.0, 0.1, "exact").rerank(made.candidates, made.facts, 5)
    segments = made.facts.segments
    for listed, items in zip(lists.items, made.items, strict=True):
        n_tail = sum(made.segments[i] == TAIL for i in items)
        assert int((segments[listed] == TAIL).sum()) == min(5, n_tail)


def test_lists_pass_the_table_wherever_the_candidates_allow_it() -> None:
    made = make(60, 60, 40, short=False)
    table, _ = minimum_protected(10, 0.7, 0.1, "exact")
    lists = FAstarIR(0.7, 0.1, "exact").rerank(made.candidates, made.facts, 10)
    found = (made.facts.segments[lists.items] == TAIL).cumsum(1)
    room = torch.tensor([sum(made.segments[i] == TAIL for i in items) for items in made.items])
    assert bool((found >= torch.minimum(torch.tensor(table), room.unsqueeze(1))).all())


def test_the_result_names_table_and_level() -> None:
    described = FAstarIR(0.6, 0.1, "exact").describe(10)
    assert described["minimum_protected"] == [0, 0, 0, 1, 1, 2, 2, 3, 3, 4]
    assert described["alpha_c"] == pytest.approx(0.064)
    assert described["reranker_p"] == 0.6
