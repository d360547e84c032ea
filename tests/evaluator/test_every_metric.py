"""One tester that every metric goes through: a new ``MetricSpec`` is tested as soon as its oracle is a loop in
``metric_oracle.all_metrics``.
"""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from metric_cases import collect, make
from metric_oracle import Case, all_metrics, random_case

from recbole_fair.evaluator.inputs import EvalInputs
from recbole_fair.evaluator.metrics import inputs_of, values_of
from recbole_fair.evaluator.options import MetricOptions
from recbole_fair.evaluator.specs import SPECS, MetricSpec

every_metric = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
by_user_only = pytest.mark.parametrize("spec", [s for s in SPECS if s.per_user is not None], ids=lambda s: s.name)
SEEDS = (11, 12, 13)


def inputs(case: Case, monkeypatch: pytest.MonkeyPatch) -> EvalInputs:
    collector, evaluator = make(case, monkeypatch, coverage_min_count=[1, 2])
    collect(collector, case)
    found = inputs_of(collector.get_data_struct(), evaluator.options)
    assert isinstance(found.options, MetricOptions)
    return found


def part(case: Case, rows: list[int]) -> Case:
    """The same data and users, but only some of the lists."""
    smaller = copy.copy(case)
    smaller.users, smaller.lists, smaller.positives = (
        [column[row] for row in rows] for column in (case.users, case.lists, case.positives)
    )
    return smaller


def same(found: float, wanted: float) -> bool:
    return (math.isnan(found) and math.isnan(wanted)) or found == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@every_metric
@pytest.mark.parametrize("seed", SEEDS)
def test_the_value_is_that_of_the_loops(spec: MetricSpec, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(seed)
    found = values_of(spec, inputs(case, monkeypatch))[0]
    wanted = all_metrics(case)
    assert found
    for name, value in found.items():
        assert same(value, wanted[name]), name


@every_metric
def test_the_value_lies_within_its_bounds(spec: MetricSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in SEEDS:
        for value in values_of(spec, inputs(random_case(seed), monkeypatch))[0].values():
            assert value >= spec.low
            if not isinstance(spec.high, str):
                assert value <= spec.high


@by_user_only
def test_the_value_of_a_user_is_that_of_the_user_alone(spec: MetricSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(14)
    _, together = values_of(spec, inputs(case, monkeypatch))
    assert together is not None
    for row in range(len(case.users)):
        if together.values[row].isnan().all():  # left out, for want of a history or of a held-out item of the kind
            continue
        alone = all_metrics(part(case, [row]))
        for column, k in enumerate(case.topk):
            assert same(float(together.values[row, column]), alone[f"{spec.key}@{k}"]), (row, k)


@by_user_only
def test_the_value_of_a_group_is_that_of_its_users_alone(spec: MetricSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(15)
    rows = list(range(0, len(case.users), 2))
    _, together = values_of(spec, inputs(case, monkeypatch))
    assert together is not None
    drawn = torch.zeros(1, len(case.users), dtype=torch.float64)
    drawn[0, rows] = 1.0
    wanted = all_metrics(part(case, rows))
    for k, value in zip(case.topk, together.mean(drawn)[0].tolist(), strict=True):
        assert same(value, wanted[f"{spec.key}@{k}"]), k


@every_metric
def test_values_are_in_double_precision(spec: MetricSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs(random_case(16), monkeypatch)
    found, by_user = values_of(spec, given)
    assert all(isinstance(value, float) for value in found.values())
    if by_user is not None:
        assert by_user.values.dtype == torch.float64
        assert by_user.values.shape == (given.n_rows, len(given.topk))


@every_metric
def test_the_order_of_users_does_not_matter(spec: MetricSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(17)
    found = values_of(spec, inputs(case, monkeypatch))[0]
    turned = values_of(spec, inputs(part(case, [*range(len(case.users))][::-1]), monkeypatch))[0]
    assert all(same(turned[name], value) for name, value in found.items())


@every_metric
def test_nothing_is_made_on_another_device_than_the_lists(spec: MetricSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made on the default device, here one that holds no values, a part of the metric would fail."""
    given = inputs(random_case(18), monkeypatch)
    found = values_of(spec, given)[0]
    fresh = dataclasses.replace(given)
    _ = fresh.history, fresh.counts, fresh.segments  # facts that live on the host and are moved to the lists' device
    with torch.device("meta"):
        elsewhere = values_of(spec, fresh)[0]
    assert all(same(elsewhere[name], value) for name, value in found.items())
