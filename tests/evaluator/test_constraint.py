"""Bounds on validation metrics: their form, and which epoch is kept."""

from __future__ import annotations

import pytest

from recbole_fair.errors import FairError
from recbole_fair.evaluator.constraint import Constraint, parse_constraints, selection_value
from recbole_fair.evaluator.options import MetricOptions

OPTIONS = MetricOptions(topk=(5, 10), metrics=("NDCG", "GiniIndex", "ItemCoverage"), coverage_min_count=(1, 5))


def test_forms() -> None:
    assert Constraint.parse(" GiniIndex@10<=.8 ") == Constraint("giniindex@10", "<=", 0.8)
    both = parse_constraints("GiniIndex@10 <= 0.8 and itemcoverage_min5@5 > 1e-1", OPTIONS)
    assert both == parse_constraints(["GiniIndex@10 <= 0.8", "itemcoverage_min5@5 > 0.1"], OPTIONS)
    assert [str(c) for c in both] == ["giniindex@10 <= 0.8", "itemcoverage_min5@5 > 0.1"]
    assert parse_constraints(None, OPTIONS) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("GiniIndex@10 = 0.8", "write it as"),
        ("0.8 >= GiniIndex@10", "write it as"),
        (3, "write it as"),
        ("UPD@10 <= 0.1", "'upd', which is not computed"),
        ("GiniIndex@20 <= 0.1", "giniindex@5, giniindex@10"),
        ("GiniIndex <= 0.1", "giniindex@5"),
    ],
)
def test_slips_are_named(text: object, message: str) -> None:
    with pytest.raises(FairError, match=message):
        parse_constraints(text, OPTIONS)


def test_metrics_best_at_zero_are_judged_by_their_distance_from_it() -> None:
    assert selection_value("PopularityLift@10", -0.3) == 0.3
    assert selection_value("ndcg@10", -0.3) == -0.3
