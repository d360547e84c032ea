"""Our values against RecBole's own classes on the same lists."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from metric_cases import config, interactions
from metric_oracle import random_case
from recbole.data.interaction import Interaction
from recbole.evaluator import collector as recbole_collector
from recbole.evaluator import metrics as recbole_metrics
from recbole.evaluator import register
from recbole.utils import EvaluatorType

from recbole_fair.evaluator import FairCollector, FairEvaluator, register_metrics
from recbole_fair.evaluator import collector as collector_module

RANKING = ("Recall", "MRR", "NDCG", "Hit", "Precision", "MAP", "GAUC")


@pytest.fixture(autouse=True)
def _numpy_aliases(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, alias in {"float": np.float64, "bool": np.bool_, "int": np.int64}.items():
        monkeypatch.setattr(np, name, alias, raising=False)


def random_batches(n_users: int, n_items: int, seed: int) -> list[tuple[Any, ...]]:
    """Scores with ties and masked items, several held-out items a user, some named twice."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for start in range(1, n_users, 7):
        users = torch.arange(start, min(start + 7, n_users))
        scores = torch.randn(len(users), n_items, generator=generator)
        scores[:, 0] = -math.inf
        positive_u = torch.arange(len(users)).repeat_interleave(3)
        positive_i = torch.randint(1, n_items, (len(positive_u),), generator=generator)
        masked = torch.rand(scores.shape, generator=generator) < 0.2
        masked[positive_u, positive_i] = False
        batches.append((scores.masked_fill(masked, -math.inf), Interaction({"user_id": users}), positive_u, positive_i))
    return batches


def recbole_values(batches: list[tuple[Any, ...]], names: tuple[str, ...], case: Any, **given: Any) -> dict[str, float]:
    cfg = config(metrics=[], **{**given, "metric_decimal_place": 15})
    collector = recbole_collector.Collector(cfg)
    for need in ("rec.items", "rec.topk", "rec.meanrank"):
        setattr(collector.register, need, True)
    for batch in batches:
        collector.eval_batch_collect(*batch)
    struct = collector.get_data_struct()
    struct["data.num_items"] = case.n_items
    struct["data.count_items"] = Counter(i for _, i in case.interactions)
    values: dict[str, float] = {}
    for name in names:
        values.update(getattr(recbole_metrics, name)(cfg).calculate_metric(struct))
    return values


def our_values(
    batches: list[tuple[Any, ...]], names: tuple[str, ...], case: Any, monkeypatch: pytest.MonkeyPatch, **given: Any
) -> dict[str, float]:
    cfg = config(metrics=list(names), **given)
    monkeypatch.setattr(collector_module, "training_interactions", lambda dataset: interactions(case))
    collector, evaluator = FairCollector(cfg), FairEvaluator(cfg)
    collector.data_collect(object())
    for batch in batches:
        collector.eval_batch_collect(*batch)
    return dict(evaluator.evaluate(collector.get_data_struct()))


@pytest.mark.parametrize("seed", range(4))
def test_accuracy_metrics_have_recboles_values(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(seed)
    batches = random_batches(case.n_users, case.n_items, seed)
    topk = [1, 2, 5, 10]
    wanted = recbole_values(batches, RANKING, case, topk=topk)
    found = our_values(batches, RANKING, case, monkeypatch, topk=topk)
    assert found == pytest.approx(wanted, rel=1e-12, abs=1e-14)
    assert len(found) == 6 * 4 + 1


def test_corrected_metrics_differ_from_recbole_by_the_stated_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gini and coverage count the padding item in RecBole; its entropy is divided by the number of shown items."""
    case = random_case(1)
    batches = random_batches(case.n_users, case.n_items, 1)
    names = ("ItemCoverage", "GiniIndex", "ShannonEntropy", "AveragePopularity")
    theirs = recbole_values(batches, names, case, topk=[5])
    ours = our_values(batches, (*names, "AggregateDiversity"), case, monkeypatch, topk=[5])
    n = case.n_items - 1
    shown = ours["aggregatediversity@5"]
    assert ours["itemcoverage@5"] * n == pytest.approx(theirs["itemcoverage@5"] * (n + 1), rel=1e-12)
    assert ours["shannonentropy@5"] == pytest.approx(theirs["shannonentropy@5"] * shown, rel=1e-12)
    assert ours["averagepopularity@5"] == pytest.approx(theirs["averagepopularity@5"], rel=1e-12)
    # One more item of count zero turns G into (G n + 1) / (n + 1).
    assert (ours["giniindex@5"] * n + 1) / (n + 1) == pytest.approx(theirs["giniindex@5"], rel=1e-12)


def test_tail_percentage_equals_recboles_where_all_items_were_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(2)
    case.interactions += [(1, item) for item in range(1, case.n_items)]
    batches = random_batches(case.n_users, case.n_items, 2)
    for ratio in (0.1, 0.3, 4):
        theirs = recbole_values(batches, ("TailPercentage",), case, topk=[5, 10], tail_ratio=ratio)
        ours = our_values(batches, ("TailPercentage",), case, monkeypatch, topk=[5, 10], tail_ratio=ratio)
        assert ours == pytest.approx(theirs, rel=1e-12)


def test_value_metrics_run_in_recboles_classes_at_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(0)
    generator = torch.Generator().manual_seed(0)
    cfg = config(metrics=["AUC", "LogLoss", "RMSE", "MAE"], eval_type=EvaluatorType.VALUE)
    monkeypatch.setattr(collector_module, "training_interactions", lambda dataset: interactions(case))
    collector, evaluator = FairCollector(cfg), FairEvaluator(cfg)
    collector.data_collect(object())
    scores, labels = torch.rand(40, generator=generator), (torch.rand(40, generator=generator) < 0.4).float()
    for part in (slice(0, 25), slice(25, 40)):
        collector.eval_batch_collect(scores[part], Interaction({"label": labels[part]}), None, None)
    found = evaluator.evaluate(collector.get_data_struct())
    positive, negative = scores[labels == 1], scores[labels == 0]
    auc = (positive.unsqueeze(1) > negative).double().mean().item()
    assert found["auc"] == pytest.approx(auc, rel=1e-12)
    assert found["rmse"] == pytest.approx((scores - labels).square().mean().sqrt().item(), rel=1e-6)
    assert found["mae"] == pytest.approx((scores - labels).abs().mean().item(), rel=1e-6)
    assert found["auc"] != round(found["auc"], 4)


def test_registration_is_idempotent_and_keeps_recboles_other_metrics() -> None:
    register_metrics()
    smaller = list(register.smaller_metrics)
    register_metrics()
    assert register.smaller_metrics == smaller
    assert len(set(smaller)) == len(smaller)
    assert {"giniindex", "upd", "pce", "averagepopularity", "rmse"} <= set(smaller)
    assert register.metrics_dict["gauc"] is recbole_metrics.GAUC
    assert register.metrics_dict["giniindex"] is not recbole_metrics.GiniIndex
    assert {"auc", "mae", "upd", "ckl", "ndcghead"} <= set(register.metric_types)
