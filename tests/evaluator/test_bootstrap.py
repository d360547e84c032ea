"""Bootstrap intervals: against an explicit loop, known standard errors, and list-level metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from metric_cases import ALL, collect, make
from metric_oracle import all_metrics, gini, list_counts, list_exposure, random_case

from recbole_fair.evaluator.bootstrap import draws, interval, per_item_resamples, per_user_resamples
from recbole_fair.evaluator.metrics import inputs_of
from recbole_fair.evaluator.specs import BY_KEY, PerUser


def test_resamples_equal_lists_repeated_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resample is the evaluation in which each user's list occurs as often as it was drawn."""
    case = random_case(11)
    collector, evaluator = make(case, monkeypatch)
    collect(collector, case)
    struct = collector.get_data_struct()
    evaluator.evaluate(struct)
    inputs = inputs_of(struct, evaluator.options)
    drawn = torch.cat(list(draws(inputs.users, 6, seed=5))).long()
    specs = [BY_KEY[name.lower()] for name in ALL]
    by_item = per_item_resamples(inputs, specs, 6, 5)
    by_user = per_user_resamples(inputs, evaluator._by_user, 6, 5)
    users, lists, positives = list(case.users), list(case.lists), list(case.positives)
    for b, times in enumerate(drawn.tolist()):
        case.lists = [ranked for ranked, n in zip(lists, times, strict=True) for _ in range(n)]
        case.users = [user for user, n in zip(users, times, strict=True) for _ in range(n)]
        case.positives = [items for items, n in zip(positives, times, strict=True) for _ in range(n)]
        for k in case.topk:
            assert by_item[f"giniindex@{k}"][b] == pytest.approx(gini(list_counts(case, k)), rel=1e-9)
            assert by_item[f"exposuregini@{k}"][b] == pytest.approx(gini(list_exposure(case, k)), rel=1e-9)
        wanted = all_metrics(case)
        for name, values in by_user.items():
            for column, k in enumerate(case.topk):
                value = wanted[f"{name}@{k}"]
                assert values[b, column] == pytest.approx(value, rel=1e-9, nan_ok=True), name


def test_draws_do_not_depend_on_blocks_and_keep_the_rows_of_a_user_together() -> None:
    users = torch.tensor([4, 9, 4, 2, 2, 2])
    whole = torch.cat(list(draws(users, 50, seed=1)))
    assert torch.equal(whole, torch.cat(list(draws(users, 50, seed=1, rows_at_once=7))))
    assert torch.equal(whole[:, 0], whole[:, 2])
    assert torch.equal(whole[:, 3], whole[:, 5])
    assert (whole[:, [0, 1, 3]].sum(1) == 3).all()
    assert not torch.equal(whole, torch.cat(list(draws(users, 50, seed=2))))


def test_interval_of_a_mean_has_the_textbook_width() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(400, 1, generator=generator, dtype=torch.double)
    means = torch.cat([PerUser(values).mean(times) for times in draws(torch.arange(400), 4000, seed=0)])[:, 0]
    low, high = interval(float(values.mean()), means)
    error = float(values.std(correction=0)) / math.sqrt(400)
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1, rel=0.05)
    assert (high + low) / 2 == pytest.approx(float(values.mean()), abs=0.1 * error)


def test_interval_is_centred_on_the_sample_and_kept_inside_the_bounds() -> None:
    resampled = torch.tensor([0.5, 0.6, 0.7])  # all below the sample's value, as coverage is
    low, high = interval(0.95, resampled, 0, 1)
    assert low < 0.95 < high == 1.0
    assert all(math.isnan(bound) for bound in interval(0.5, torch.tensor([math.nan])))


def test_result_has_intervals_for_every_metric_that_hold_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(12)
    collector, evaluator = make(
        case, monkeypatch, bootstrap=60, seed=3, group_metrics={"mainstream": {"metrics": ["NDCG"], "bins": 2}}
    )
    collect(collector, case)
    result = evaluator.result(collector.get_data_struct())
    assert set(result.intervals) == set(result.metrics)
    for name, (low, high) in result.intervals.items():
        if not math.isnan(result.metrics[name]):
            assert low - 1e-12 <= result.metrics[name] <= high + 1e-12, name
    for row in result.groups["mainstream"].to_plain()["groups"]:
        low, high = row["intervals"]["ndcg@8"]
        assert low <= row["values"]["ndcg@8"] <= high
    collect(collector, case)
    again = evaluator.result(collector.get_data_struct()).intervals
    assert all(again[name] == bounds for name, bounds in result.intervals.items() if not math.isnan(bounds[0]))
    assert np.isfinite(result.intervals["giniindex@8"]).all()
