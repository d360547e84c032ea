"""Tests and intervals against scipy, brute force, loops and worked examples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recbole_fair.analysis.significance import (
    UserLists,
    bootstrap_means,
    difference_interval,
    holm,
    list_resamples,
    permutation_tests,
    t_test,
    wilcoxon_test,
)
from recbole_fair.analysis.systems import Cell, comparisons_table, differs, systems_table
from recbole_fair.evaluator.options import MetricOptions
from recbole_fair.evaluator.specs import BY_KEY

RNG = np.random.default_rng(7)


def test_holm_on_worked_examples():
    # Holm's procedure by hand: .005 x 4, .01 x 3, .03 x 2, and .04 may not fall below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # statsmodels 0.14.4: multipletests([.001, .2, .049, .02, .5, .02], method="holm")[1]
    assert holm([0.001, 0.2, 0.049, 0.02, 0.5, 0.02]) == pytest.approx([0.006, 0.4, 0.147, 0.1, 0.5, 0.1])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])
    found = holm([np.nan, 0.02, 0.03])
    assert np.isnan(found[0])
    assert found[1:] == pytest.approx([0.04, 0.04])
    assert len(holm([])) == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.2))
def test_holm_rejects_what_the_step_down_procedure_rejects(p, level):
    order, rejected = np.argsort(p, kind="stable"), set()
    for step, index in enumerate(order):
        if p[index] * (len(p) - step) > level:
            break
        rejected.add(int(index))
    assert {i for i, value in enumerate(holm(p)) if value <= level} == rejected


def test_t_and_wilcoxon_are_scipys():
    a, b = RNG.normal(0.3, 1, 80), RNG.normal(0, 1, 80)
    assert t_test(a - b) == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-12)
    assert wilcoxon_test(a - b) == pytest.approx(stats.wilcoxon(a, b).pvalue, rel=1e-12)
    hits = RNG.integers(0, 2, 300) - RNG.integers(0, 2, 300) * 1.0
    assert wilcoxon_test(hits) == pytest.approx(stats.wilcoxon(hits, zero_method="wilcox", method="approx").pvalue)
    assert t_test(np.zeros(5)) == wilcoxon_test(np.zeros(5)) == 1
    assert np.isnan(t_test(np.ones(1)))
    assert np.isnan(wilcoxon_test(np.ones(0)))
    assert t_test(np.ones(5)) == 0


def test_wilcoxon_on_a_small_sample_by_all_patterns_of_signs():
    assert wilcoxon_test(np.arange(1, 20) * 0.1) == pytest.approx(2 / 2**19)  # exact without ties
    values = RNG.normal(0.5, 1, 12)
    assert wilcoxon_test(values) == pytest.approx(stats.wilcoxon(values, method="exact").pvalue)
    d = np.array([1.5, -0.5, 2.25, 3.0, -1.0, 1.5, 1.5])  # with ties
    ranks = stats.rankdata(np.abs(d))
    sums = [
        sum(r for r, s in zip(ranks, signs, strict=True) if s > 0) for signs in itertools.product((-1, 1), repeat=7)
    ]
    seen, middle = ranks[d > 0].sum(), ranks.sum() / 2
    expected = np.mean([abs(total - middle) >= abs(seen - middle) for total in sums])
    assert wilcoxon_test(d) == pytest.approx(expected)


def all_patterns(d):
    means = [abs(np.dot(signs, d)) for signs in itertools.product((-1.0, 1.0), repeat=len(d))]
    return np.mean([mean >= abs(d.sum()) - 1e-12 for mean in means])


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_permutations_of_a_small_sample_by_brute_force(values):
    d = np.array(values, dtype=float) / 10  # tenths, so that sums of floats differ in their last digits
    assert permutation_tests(d[:, None])[0] == pytest.approx(all_patterns(d))


def test_permutations_against_scipys():
    a, b = RNG.normal(0.35, 1, (2, 12)), RNG.normal(0, 1, (2, 12))
    d = np.stack([*(a - b), np.zeros(12), np.full(12, np.nan)], axis=1)
    exact = permutation_tests(d, 4096)
    for row in range(2):
        reference = stats.permutation_test(
            (a[row], b[row]), lambda x, y, axis: (x - y).mean(axis=axis), permutation_type="samples",
            vectorized=True, n_resamples=np.inf,
        )  # fmt: skip
        assert exact[row] == pytest.approx(reference.pvalue)
    assert exact[2] == 1
    assert np.isnan(exact[3])
    assert permutation_tests(d, 4000, seed=3)[:2] == pytest.approx(exact[:2], abs=0.03)  # drawn at random: 2^12 > 4000
    assert permutation_tests(d, 4000, seed=3)[0] == permutation_tests(d, 4000, seed=3)[0]
    far = permutation_tests(np.full((60, 1), 0.1), 999)
    assert far[0] == 1 / 1000  # never 0
    # A user without a value in a column takes no part in it.
    holes = d[:, :1].copy()
    holes[[2, 5]] = np.nan
    padded = np.concatenate([holes, np.full((3, 1), np.nan)])
    assert permutation_tests(padded, 4096)[0] == pytest.approx(all_patterns(holes[~np.isnan(holes)]))


def test_p_values_of_equal_systems_are_uniform():
    rng = np.random.default_rng(1)
    d = rng.normal(0, 1, (40, 400)) * rng.exponential(1, (40, 1))
    found = {
        "t": np.array([t_test(column) for column in d.T]),
        "wilcoxon": np.array([wilcoxon_test(column) for column in d.T]),
        "permutation": permutation_tests(d, 2000, seed=2),
    }
    for name, p in found.items():
        assert stats.kstest(p, "uniform").pvalue > 0.001, name
        assert abs((p < 0.05).mean() - 0.05) < 0.035, name
    families = d.reshape(40, 80, 5)
    wrong = [min(holm([t_test(c) for c in families[:, f].T])) < 0.05 for f in range(80)]
    assert np.mean(wrong) < 0.125  # 80 families at the level .05: beyond 3 standard deviations otherwise


def test_a_bootstrap_interval_against_a_loop():
    d = RNG.normal(0.2, 1, (30, 2))
    d[4, 1] = np.nan
    found = bootstrap_means(d, [0.2, 0.5], 400, seed=11)
    generator, means = np.random.default_rng(11), []
    for _ in range(400):
        drawn = d[np.repeat(np.arange(30), np.bincount(generator.integers(0, 30, 30), minlength=30))]
        means.append(np.nanmean(drawn, axis=0))
    means = np.array(means)
    for column, value in enumerate((0.2, 0.5)):
        expected = np.quantile(means[:, column], [0.025, 0.975]) - means[:, column].mean() + value
        assert found[column] == pytest.approx(tuple(expected))


def random_lists(rng, n_users, n_items=12, k=4):
    weight = rng.dirichlet(np.ones(n_items - 1) * 0.7)
    return np.stack([rng.choice(np.arange(1, n_items), k, replace=False, p=weight) for _ in range(n_users)])


OPTIONS = MetricOptions(topk=(2, 4), metrics=("GiniIndex", "ItemCoverage", "ExposureGini"), coverage_min_count=(1, 3))
SPECS = [BY_KEY[name] for name in ("giniindex", "itemcoverage", "exposuregini", "ndcg")]


def counts_by_loop(lists, users, times, n_items, k, exposure):
    counts = np.zeros(n_items - 1)
    for row, user in enumerate(users):
        for rank, item in enumerate(lists[row][:k]):
            counts[item - 1] += times[user] * (1 / np.log2(rank + 2) if exposure else 1)
    return counts


def gini_by_loop(counts):
    n, total = len(counts), counts.sum()
    return sum(abs(a - b) for a in counts for b in counts) / (2 * n * total)


def test_list_metrics_of_resamples_against_loops():
    rng = np.random.default_rng(3)
    n_users, n_items = 9, 12
    users = np.array([0, 1, 2, 3, 3, 5, 6, 7, 8])  # one user twice, one user not there
    lists = random_lists(rng, len(users), n_items)
    found = list_resamples(UserLists(users, lists, n_items), SPECS, OPTIONS, n_users, 25, seed=5)
    assert set(found) == {
        f"{name}@{k}" for name in ("giniindex", "itemcoverage", "itemcoverage_min3", "exposuregini") for k in (2, 4)
    }
    generator = np.random.default_rng(5)
    for b in range(25):
        times = np.bincount(generator.integers(0, n_users, n_users), minlength=n_users)
        for k in (2, 4):
            counts, exposure = (counts_by_loop(lists, users, times, n_items, k, e) for e in (False, True))
            assert found[f"giniindex@{k}"][b] == pytest.approx(gini_by_loop(counts))
            assert found[f"exposuregini@{k}"][b] == pytest.approx(gini_by_loop(exposure))
            assert found[f"itemcoverage_min3@{k}"][b] == pytest.approx((counts >= 3).mean())


def test_differences_are_paired():
    rng = np.random.default_rng(4)
    users, lists = np.arange(40), random_lists(rng, 40)
    twin = UserLists(users[::-1].copy(), lists[::-1].copy(), 12)  # the same lists in another order
    one, other = (
        list_resamples(each, SPECS, OPTIONS, 40, 50, seed=1)["giniindex@4"]
        for each in (UserLists(users, lists, 12), twin)
    )
    assert one == pytest.approx(other, abs=1e-12)
    assert difference_interval(0.0, [one], [other]) == pytest.approx((0, 0), abs=1e-12)
    third = one + rng.normal(0.1, 0.02, 50)
    drawn = np.mean([third - one, one - one], axis=0)
    expected = np.quantile(drawn, [0.025, 0.975]) - drawn.mean() + 0.05
    assert difference_interval(0.05, [third, one], [one, one]) == pytest.approx(tuple(expected))


def cell(system, seed, values, users=None, gini=0.5, lists=None):
    n = len(values)
    return Cell(
        model=system, reranker=None, seed=seed, metrics={"ndcg@2": float(np.nanmean(values)), "giniindex@2": gini},
        users=np.array(users if users is not None else [f"u{i}" for i in range(n)]),
        per_user={"ndcg@2": np.asarray(values, dtype=float)},
        lists=lists if lists is not None else random_lists(RNG, n, k=2), n_items=12,
    )  # fmt: skip


def test_mean_spread_and_best():
    cells = [cell("A", 1, [0.1, 0.3], gini=0.4), cell("A", 2, [0.3, 0.5], gini=0.6), cell("B", 1, [0.5, 0.7], gini=0.9)]
    table = systems_table(cells).set_index(["system", "metric"])
    assert table.loc[("A", "ndcg@2"), ["mean", "std", "seeds"]].tolist() == pytest.approx([0.3, 0.2 / np.sqrt(2), 2])
    assert np.isnan(table.loc[("B", "ndcg@2"), "std"])
    assert table["best"].to_dict() == {
        ("A", "ndcg@2"): False, ("A", "giniindex@2"): True, ("B", "ndcg@2"): True, ("B", "giniindex@2"): False,
    }  # fmt: skip


def test_users_are_averaged_over_the_seeds_that_both_systems_have():
    n, rng = 30, np.random.default_rng(8)
    a, b = rng.random((3, n)), rng.random((3, n)) + 0.1
    a[1, 5] = np.nan
    shuffled = rng.permutation(n)
    names = np.array([f"u{i}" for i in range(n)])
    cells = [cell("A", s, a[s]) for s in range(3)]
    # In another order, and without the third seed.
    cells += [cell("B", s, b[s][shuffled], users=names[shuffled], gini=0.5 - s / 10) for s in range(2)]
    options = MetricOptions(topk=(2,), metrics=("NDCG", "GiniIndex"))
    table = comparisons_table(cells, "A", options, permutations=500, resamples=50)
    row = table[table["metric"] == "ndcg@2"].iloc[0]
    d = np.nanmean([b[s] - a[s] for s in range(2)], axis=0)
    assert (row["users"], row["seeds"], row["kind"], row["reference"]) == (n, 2, "users", "A")
    assert row["p_t"] == pytest.approx(stats.ttest_1samp(d, 0).pvalue)
    assert row["p_wilcoxon"] == pytest.approx(stats.wilcoxon(d).pvalue)
    assert row["difference"] == pytest.approx(np.mean([np.nanmean(b[s]) - np.nanmean(a[s]) for s in range(2)]))
    assert row["low"] < row["difference"] < row["high"]
    assert row["seeds_better"] == sum(np.nanmean(b[s]) > np.nanmean(a[s]) for s in range(2))
    lists = table[table["metric"] == "giniindex@2"].iloc[0]
    assert lists["kind"] == "lists"
    assert np.isnan(lists["holm_permutation"])
    assert lists["difference"] == pytest.approx(-0.05)
    assert lists["seeds_better"] == 1  # 0.5 against 0.5, then 0.4
    assert row["holm_t"] == pytest.approx(row["p_t"])  # the only p-value of its test
    both = comparisons_table([*cells, cell("C", 0, a[0])], "all", options, 200, 20)
    assert both[["system", "reference"]].drop_duplicates().to_numpy().tolist() == [["B", "A"], ["C", "A"], ["C", "B"]]
    same = both[(both["system"] == "C") & (both["reference"] == "A") & (both["metric"] == "ndcg@2")].iloc[0]
    assert same["p_t"] == same["p_permutation"] == same["holm_wilcoxon"] == 1
    assert not differs(same)
    assert len(comparisons_table([cells[0]], "A", options)) == 0


def test_difference_marks():
    assert differs({"kind": "users", "holm_permutation": 0.01})
    assert not differs({"kind": "users", "holm_permutation": float("nan")})
    assert differs({"kind": "lists", "low": -0.2, "high": -0.1})
    assert not differs({"kind": "lists", "low": -0.2, "high": 0.1})
    assert not differs({"kind": "other", "low": float("nan"), "high": float("nan")})
