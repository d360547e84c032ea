"""Bounds, extremes, invariances, and what each alignment metric can and cannot see."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import evaluate
from metric_oracle import random_case
from scipy import integrate, stats
from scipy.spatial.distance import jensenshannon

from recbole_fair.data.facts.groups import smoothed_kl
from recbole_fair.evaluator import functional as f
from recbole_fair.evaluator.specs import BY_KEY

LEVELS = tuple(j / 10 for j in range(11))


def rows(*histories: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    bounds = np.concatenate([[0], np.cumsum([len(h) for h in histories])])
    return torch.from_numpy(bounds), torch.tensor([item for h in histories for item in h], dtype=torch.long)


# -- exposure -------------------------------------------------------------------------------------------------------

COUNTS = st.lists(st.integers(0, 50), min_size=2, max_size=40).filter(lambda c: sum(c) > 0)


@settings(max_examples=80, deadline=None)
@given(COUNTS)
def test_exposure_metrics_agree_with_scipy_and_with_each_other(counts: list[int]) -> None:
    c, n = torch.tensor(counts), len(counts)
    items, held = f.lorenz_curve(c)
    assert float(f.gini(c)) == pytest.approx(1 - 2 * integrate.trapezoid(held.numpy(), items.numpy()), abs=1e-12)
    assert float(f.shannon_entropy(c)) == pytest.approx(stats.entropy(counts), abs=1e-12)
    assert float(f.herfindahl(c)) == pytest.approx(sum((x / sum(counts)) ** 2 for x in counts), rel=1e-12)
    assert 0 - 1e-12 <= float(f.gini(c)) <= 1 - 1 / n + 1e-12
    assert float(f.shannon_entropy(c)) <= math.log(n) + 1e-12
    assert 1 / n - 1e-12 <= float(f.herfindahl(c)) <= 1
    assert bool((held.diff() >= -1e-15).all())
    assert bool((held <= items + 1e-12).all())
    for function in (f.gini, f.shannon_entropy, f.herfindahl):  # scale does not matter, nor the order of items
        assert float(function(c * 7)) == pytest.approx(float(function(c)), abs=1e-12)
        assert float(function(c.flip(0))) == pytest.approx(float(function(c)), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(COUNTS, st.data())
def test_giving_exposure_from_rich_to_poor_improves_gini_entropy_and_concentration(
    counts: list[int], data: st.DataObject
) -> None:
    rich, poor = int(np.argmax(counts)), int(np.argmin(counts))
    gap = counts[rich] - counts[poor]
    if gap < 2:
        return
    moved = list(counts)
    amount = data.draw(st.integers(1, gap // 2))
    moved[rich] -= amount
    moved[poor] += amount
    before, after = torch.tensor(counts), torch.tensor(moved)
    assert float(f.gini(after)) < float(f.gini(before))
    assert float(f.shannon_entropy(after)) > float(f.shannon_entropy(before))
    assert float(f.herfindahl(after)) < float(f.herfindahl(before))


def test_extremes_of_exposure() -> None:
    one, all_alike, nothing = torch.tensor([0, 0, 9, 0]), torch.tensor([3, 3, 3, 3]), torch.zeros(4, dtype=torch.long)
    assert [float(f.gini(c)) for c in (one, all_alike, nothing)] == pytest.approx([0.75, 0, 0], abs=1e-15)
    assert [float(f.shannon_entropy(c)) for c in (one, all_alike)] == pytest.approx([0, math.log(4)])
    assert [float(f.herfindahl(c)) for c in (one, all_alike)] == pytest.approx([1, 0.25])
    assert [float(f.coverage(c)) for c in (one, all_alike, nothing)] == [0.25, 1, 0]
    assert float(f.coverage(torch.tensor([4, 5, 6, 0]), 5)) == 0.5
    assert float(f.aggregate_diversity(one)) == 1
    batch = torch.stack([one, all_alike])
    assert f.gini(batch).tolist() == pytest.approx([0.75, 0], abs=1e-15)


# -- divergences ----------------------------------------------------------------------------------------------------

SHARES = st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(lambda c: sum(c) > 0)


@settings(max_examples=60, deadline=None)
@given(SHARES, SHARES, st.sampled_from([2.0, math.e]))
def test_jensen_shannon_agrees_with_scipy(a: list[int], b: list[int], base: float) -> None:
    p, q = (torch.tensor(x, dtype=torch.double) / sum(x) for x in (a, b))
    found = float(f.jensen_shannon(p, q, base))
    assert found == pytest.approx(float(np.nan_to_num(jensenshannon(p, q, base)) ** 2), abs=1e-9)
    assert found == pytest.approx(float(f.jensen_shannon(q, p, base)), abs=1e-12)
    assert 0 <= found <= math.log(2) / math.log(base) + 1e-12


def test_smoothed_kl_extremes() -> None:
    p, q = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert smoothed_kl(p, p) == 0
    assert smoothed_kl(p, q) == pytest.approx(math.log(100))
    assert np.isnan(smoothed_kl(p, np.array([np.nan, np.nan])))


# -- lists that are their histories ------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(1, 31)), st.integers(1, 30))
def test_a_list_equal_to_its_history_is_aligned(order: list[int], k: int) -> None:
    """Zero lift, difference, UPD and C_KL; PCE is zero only at levels that the k items can reproduce."""
    from scipy import sparse

    counts = torch.tensor([0, *[(7 * i) % 11 + 1 for i in range(1, 31)]])
    ranked, history = torch.tensor([order[:k]]), rows(order[:k])
    segments = torch.tensor([-1, *[i % 3 for i in range(30)]])
    assert float(f.popularity_lift(counts, ranked, *history, [k])) == pytest.approx(0, abs=1e-12)
    assert float(f.log_popularity_difference(counts.double(), ranked, *history, [k])) == pytest.approx(0, abs=1e-12)
    assert float(f.user_popularity_deviation(segments, ranked, *history, [k])) == pytest.approx(0, abs=1e-12)
    groups = sparse.csr_matrix(np.eye(3)[(np.arange(31) % 3)])
    assert float(f.group_calibration(ranked, *history, groups, [k])) == pytest.approx(0, abs=1e-12)
    distinct = torch.arange(31)  # without ties, tau-hat is the order statistic itself
    shares = f.calibration_shares(distinct, ranked, *history, [k], LEVELS)[0, 0]
    wanted = [max(math.ceil(k * j / 10 - 1e-9), 1) / k for j in range(11)]
    assert shares.tolist() == pytest.approx(wanted)
    # At level 0 the least popular item itself is at or below the threshold: identical lists do not give PCE 0.
    assert shares[0] == pytest.approx(1 / k)
    assert float(f.popularity_calibration_error(shares, LEVELS)) > 0


def test_quantiles_are_numpys_inverted_cdf() -> None:
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 3, 7, 10, 30, 100):
        counts = torch.randint(0, 40, (n + 1,), generator=generator)
        levels = [0.0, 0.05, 0.25, 1 / 3, 0.5, 0.77, 1.0]
        ranked = torch.arange(1, n + 1).unsqueeze(0)
        history = torch.randint(1, n + 1, (50,), generator=generator)
        found = f.calibration_shares(counts, ranked, *rows(history.tolist()), [n], levels)[0, 0]
        thresholds = np.quantile(counts[1:].numpy(), levels, method="inverted_cdf")
        wanted = [(counts[history].numpy() <= t).mean() for t in thresholds]
        assert found.tolist() == pytest.approx(wanted)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 50))
def test_pce_depends_on_the_order_of_popularity_alone(seed: int, scale: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 30, (40,), generator=generator)
    ranked = torch.stack([torch.randperm(39, generator=generator)[:10] + 1 for _ in range(5)])
    history = rows(*[torch.randint(1, 40, (n,), generator=generator).tolist() for n in (1, 5, 20, 3, 8)])
    first = f.calibration_shares(counts, ranked, *history, [3, 10], LEVELS)
    assert torch.equal(first, f.calibration_shares(counts**2 * scale + 3, ranked, *history, [3, 10], LEVELS))
    error = f.popularity_calibration_error(first, LEVELS)
    assert bool(((error >= 0) & (error <= 1)).all())
    total = f.popularity_calibration_error(first, LEVELS, normalised=False)
    assert torch.allclose(total, error * 11, rtol=1e-12)


# -- what UPD does not see (SPREE, Figure 1) ---------------------------------------------------------------------------

POPULARITY = torch.tensor([0, *range(1, 91)])  # items 1..30 tail, 31..60 mid, 61..90 head
BINS = torch.tensor([-1, *[2] * 30, *[1] * 30, *[0] * 30])


def upd(history: list[int], ranked: list[int]) -> float:
    return float(f.user_popularity_deviation(BINS, torch.tensor([ranked]), *rows(history), [len(ranked)]))


def curve(history: list[int], ranked: list[int]) -> torch.Tensor:
    return f.calibration_shares(POPULARITY, torch.tensor([ranked]), *rows(history), [len(ranked)], LEVELS)[0, 0]


def pce(history: list[int], ranked: list[int]) -> float:
    return float(f.popularity_calibration_error(curve(history, ranked), LEVELS))


def test_direction_is_not_in_upd_but_in_the_curve() -> None:
    """Left: one list is too popular, the other too niche, by the same amount."""
    history = list(range(41, 51))
    too_popular, too_niche = list(range(71, 81)), list(range(11, 21))
    assert upd(history, too_popular) == pytest.approx(upd(history, too_niche)) == pytest.approx(1)
    tau = torch.tensor(LEVELS, dtype=torch.double)
    assert bool((curve(history, too_popular) >= tau).all())  # above the diagonal: too popular
    assert bool((curve(history, too_niche) <= tau).all())
    assert curve(history, too_popular)[0] == 1
    assert curve(history, too_niche)[-1] == 0


def test_a_shift_inside_a_bin_is_not_in_upd_but_in_pce() -> None:
    """Middle: all items stay in the mid bin, but move from its lower to its upper end."""
    history = list(range(31, 41))
    shifts = [pce(history, list(range(31 + s, 41 + s))) for s in (0, 3, 6, 20)]
    assert [upd(history, list(range(31 + s, 41 + s))) for s in (0, 3, 6, 20)] == [0, 0, 0, 0]
    assert shifts == sorted(shifts)
    assert shifts[-1] > shifts[0] + 0.2


def test_spread_inside_a_bin_is_not_in_upd_but_in_pce() -> None:
    """Right: the same bin and the same mean, but the list is more concentrated than the history."""
    history, narrow = list(range(36, 56)), [44, 45, 46, 47]
    assert upd(history, narrow) == 0
    assert float(f.popularity_lift(POPULARITY, torch.tensor([narrow]), *rows(history), [4])) == pytest.approx(
        0, abs=1e-12
    )
    assert pce(history, narrow) > pce(history, history) + 0.02
    shares = curve(history, narrow)
    assert shares[1] > 0.1  # above the diagonal at low levels ...
    assert shares[-2] < 0.9  # ... and below it at high ones


# -- declared bounds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(100, 106))
def test_values_keep_their_declared_bounds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in evaluate(random_case(seed), monkeypatch).metrics.items():
        spec = BY_KEY[name.partition("@")[0]]
        if not math.isnan(value):
            assert value >= spec.low - 1e-12, name
            if isinstance(spec.high, (int, float)):
                assert value <= spec.high + 1e-12, name


def test_curves_belong_to_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    result = evaluate(random_case(1), monkeypatch)
    lorenz = result.curves["lorenz"]["8"]
    area = integrate.trapezoid(lorenz["exposure"], lorenz["items"])
    assert 1 - 2 * area == pytest.approx(result.metrics["giniindex@8"], abs=1e-12)
    calibration = result.curves["calibration"]
    assert calibration["levels"] == pytest.approx([j / 10 for j in range(11)])
    assert len(calibration["tau_hat"]["3"]) == 11
    assert result.to_dict()["curves"]["calibration"]["tau_hat"]["3"] == calibration["tau_hat"]["3"]


def test_exposure_by_popularity_item_by_item(monkeypatch: pytest.MonkeyPatch) -> None:
    result = evaluate(random_case(1), monkeypatch)
    curve = result.curves["exposure"]
    counts = result.popularity.counts.tolist()
    n = result.n_items - 1
    assert sum(curve["items"]) == n
    assert max(curve["items"]) - min(curve["items"]) <= 1
    for k in result.topk:
        exposure = dict.fromkeys(range(1, n + 1), 0.0)
        for row in result.lists.tolist():
            for rank, item in enumerate(row[:k], start=1):
                if item:
                    exposure[item] += 1 / math.log2(rank + 1)
        mean = sum(exposure.values()) / n
        ordered = iter(sorted(exposure, key=lambda item: (-counts[item], item)))
        for place, size in enumerate(curve["items"]):
            group = [next(ordered) for _ in range(size)]
            assert curve["popularity"][place] == pytest.approx(sum(counts[item] for item in group) / size)
            shown = sum(exposure[item] for item in group) / size / mean
            assert curve["exposure"][str(k)][place] == pytest.approx(shown)
