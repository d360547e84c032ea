"""Ranks over data sets against published numbers and SciPy's own functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recbole_fair.analysis.ranks import critical_difference, limits, ranking, ranks_by_dataset

# Demšar (2006), table 6: AUC of four learners on fourteen data sets, with mean ranks and Friedman's statistic. Two that
# are printed as .975 have the ranks 2 and 3 there.
AUC = np.array([
    [.763, .768, .771, .798], [.599, .591, .590, .569], [.954, .971, .968, .967], [.628, .661, .654, .657],
    [.882, .888, .886, .898], [.936, .931, .916, .931], [.661, .668, .609, .685], [.583, .583, .563, .625],
    [.775, .838, .866, .875], [1.00, 1.00, 1.00, 1.00], [.940, .962, .965, .962], [.619, .666, .614, .669],
    [.972, .981, .9755, .975], [.957, .978, .946, .970],
])  # fmt: skip


def test_demsar_s_example() -> None:
    found = ranking("ndcg@10", ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"], AUC)
    means = dict(zip(found.systems, found.mean_ranks, strict=True))
    assert means == pytest.approx({"C4.5": 3.143, "C4.5+m": 2.0, "C4.5+cf": 2.893, "C4.5+m+cf": 1.964}, abs=5e-4)
    assert found.systems[0] == "C4.5+m+cf"
    assert found.critical_difference == pytest.approx(1.25, abs=5e-3), "page 13"
    ranks = np.array(found.mean_ranks)
    # Printed without the correction for ties, which SciPy makes.
    assert 12 * 14 / 20 * ((ranks**2).sum() - 25) == pytest.approx(9.28, abs=5e-3)
    assert found.p == pytest.approx(stats.friedmanchisquare(*AUC.T).pvalue, rel=1e-12)
    assert found.groups == (found.systems,), "even the best and the worst are nearer than the critical difference"


@pytest.mark.parametrize(("systems", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_differences_are_those_of_the_table(systems: int, q: float) -> None:
    """Table 5 of Demšar: critical values of the two-tailed Nemenyi test at .05."""
    assert critical_difference(systems, 12) == pytest.approx(q * math.sqrt(systems * (systems + 1) / 72), rel=5e-4)


@given(st.lists(st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=3, max_size=3), min_size=2, max_size=6))
def test_ranks_turn_with_the_metric(rows: list[list[float]]) -> None:
    values = np.array(rows)
    more = ranks_by_dataset("ndcg@10", values)
    assert np.allclose(more.sum(axis=1), 6)
    assert np.allclose(more, 4 - ranks_by_dataset("giniindex@10", values))
    assert np.allclose(more, stats.rankdata(-values, axis=1))
    found = ranking("ndcg@10", ["a", "b", "c"], values)
    assert list(found.mean_ranks) == sorted(found.mean_ranks)
    assert 0 <= found.p <= 1


def test_groups_by_hand() -> None:
    values = np.tile([0.5, 0.4, 0.3, 0.2], (30, 1))
    found = ranking("ndcg@10", ["a", "b", "c", "d"], values)
    assert found.mean_ranks == (1.0, 2.0, 3.0, 4.0)
    assert found.critical_difference == pytest.approx(0.856, abs=1e-3)
    assert found.groups == ()
    close = ranking("ndcg@10", ["a", "b", "c", "d"], values[:12])  # critical difference 1.35
    assert close.groups == (("a", "b"), ("b", "c"), ("c", "d"))


def test_what_so_few_data_sets_can_say() -> None:
    assert math.isnan(ranking("ndcg@10", ["a", "b"], np.ones((4, 2))).p)
    assert "at least three systems" in limits(2, 9)[0]
    few = " ".join(limits(3, 2))
    assert "it would take at least 3 data sets" in few
    assert critical_difference(3, 3) <= 2 < critical_difference(3, 2)
    assert "take at least" not in " ".join(limits(3, 12))
