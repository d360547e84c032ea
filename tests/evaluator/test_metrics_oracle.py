"""Every metric against loops over users and items, to 1e-12."""

from __future__ import annotations

import math

import pytest
import torch
from metric_cases import ALL, collect, evaluate, make
from metric_oracle import all_metrics, random_case


def assert_same(found: dict[str, float], wanted: dict[str, float]) -> None:
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        if math.isnan(value):
            assert math.isnan(found[name]), name
        else:
            assert found[name] == pytest.approx(value, rel=1e-12, abs=1e-12), name


@pytest.mark.parametrize("seed", range(25))
def test_all_metrics_equal_the_loops(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(seed)
    found = evaluate(case, monkeypatch, coverage_min_count=[1, 2]).metrics
    assert_same(dict(found), all_metrics(case))


def test_upd_over_groups_is_the_mean_of_three_means(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(5):
        case = random_case(seed)
        found = evaluate(case, monkeypatch, metrics=["UPD"], upd_over="groups").metrics
        wanted = all_metrics(case, upd_groups=True)
        assert_same(dict(found), {name: v for name, v in wanted.items() if name.startswith("upd@")})


def test_upd_over_fifths_is_the_mean_of_five_means(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(5):
        case = random_case(seed)
        found = evaluate(case, monkeypatch, metrics=["UPD"], upd_over="fifths").metrics
        wanted = all_metrics(case, upd_fifths=True)
        assert_same(dict(found), {name: v for name, v in wanted.items() if name.startswith("upd@")})
        assert dict(found) != dict(evaluate(case, monkeypatch, metrics=["UPD"], upd_over="groups").metrics)


def test_parts_of_ndcg_add_up_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    several = 0
    for seed in range(5):
        case = random_case(seed)
        found = evaluate(case, monkeypatch).metrics
        for k in case.topk:
            parts = [found[f"ndcgfrom{segment}@{k}"] for segment in ("head", "mid", "tail")]
            assert sum(parts) == pytest.approx(found[f"ndcg@{k}"], rel=1e-12, abs=1e-15)
            several += sum(part > 0 for part in parts) > 1
    assert several  # else nothing would be added


def test_invariance_to_the_order_of_users_and_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(3)
    wanted = evaluate(case, monkeypatch).metrics
    case.users, case.lists, case.positives = case.users[::-1], case.lists[::-1], case.positives[::-1]
    found = evaluate(case, monkeypatch).metrics
    assert dict(found) == pytest.approx(dict(wanted), rel=1e-12)


def test_a_second_evaluation_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(4)
    collector, evaluator = make(case, monkeypatch)
    results = []
    for batch in (3, 100):
        collect(collector, case, batch)
        results.append(evaluator.evaluate(collector.get_data_struct()))
    assert results[0] == results[1]
    assert "rec.items" not in collector.get_data_struct()


def test_values_by_user_average_to_the_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(5)
    case.lists[0] = torch.randperm(case.n_items - 1)[: case.kmax].add(1).tolist()  # lists of equal length
    result = evaluate(case, monkeypatch)
    for name, values in result.per_user.items():
        for column, k in enumerate(result.topk):
            assert values[:, column].nanmean().item() == pytest.approx(result.metrics[f"{name}@{k}"], rel=1e-12), name
    assert {"ndcg", "upd", "pce", "averagepopularity"} <= set(result.per_user)
    assert len(result.metrics) == len(ALL) * 3
