"""Bounds on validation metrics: their form, and which epoch is kept."""

from __future__ import annotations

import math

import pytest

from recbole_fair.errors import FairError
from recbole_fair.evaluator.constraint import ConstrainedSelection, Constraint, parse_constraints, selection_value
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


def kept(
    epochs: list[tuple[float, float]], bound: str = "g <= 0.8", patience: int = 10, bigger: bool = True
) -> tuple[int, int]:
    """Index of the epoch kept from (score, g) pairs, and how many were run."""
    selection = ConstrainedSelection((Constraint.parse(bound),), bigger, patience)
    best = -1
    for epoch, (score, g) in enumerate(epochs):
        improved, stop = selection.update(score, {"g": g})
        best = epoch if improved else best
        if stop:
            return best, epoch + 1
    return best, len(epochs)


def test_best_feasible_epoch_is_kept() -> None:
    assert kept([(0.5, 0.9), (0.3, 0.8), (0.4, 0.7), (0.9, 0.81), (0.35, 0.1)])[0] == 2
    assert kept([(0.5, 0.9), (0.3, 0.8), (0.4, 0.7)], "g < 0.8")[0] == 2
    assert kept([(3.0, 0.1), (2.0, 0.1), (1.0, 0.9)], bigger=False)[0] == 1


def test_without_a_feasible_epoch_the_smallest_violation_is_kept_and_said() -> None:
    assert kept([(0.5, 0.95), (0.3, 0.85), (0.9, 0.9), (0.4, 0.85), (0.8, math.nan)])[0] == 3
    selection = ConstrainedSelection((Constraint.parse("g <= 0.8"),))
    selection.update(0.5, {"g": 0.9})
    assert not selection.feasible
    assert "No epoch kept" in (selection.note() or "")
    selection.update(0.1, {"g": 0.8})
    assert selection.feasible
    assert selection.note() is None


def test_stopping_is_recboles() -> None:
    from recbole.utils import early_stopping

    scores = [0.1, 0.3, 0.3, 0.2, 0.25, 0.29, 0.31, 0.0, 0.0, 0.0]
    for patience in (0, 1, 2, 3):
        best, step, stops = -math.inf, 0, []
        selection = ConstrainedSelection((), True, patience)
        for score in scores:
            best, step, stop, update = early_stopping(score, best, step, max_step=patience, bigger=True)
            stops.append((update, stop))
            if stop:
                break
        assert [selection.update(score, {}) for score in scores[: len(stops)]] == stops
        assert selection.score == best


def test_state_goes_on_where_it_stopped() -> None:
    first = ConstrainedSelection((Constraint.parse("g <= 0.8"),), True, 1)
    first.update(0.5, {"g": 0.9})
    first.update(0.6, {"g": 0.95})
    second = ConstrainedSelection(first.constraints, True, 1)
    second.load_state(first.state())
    assert second.update(0.4, {"g": 0.99}) == first.update(0.4, {"g": 0.99}) == (False, True)


def test_metrics_best_at_zero_are_judged_by_their_distance_from_it() -> None:
    assert selection_value("PopularityLift@10", -0.3) == 0.3
    assert selection_value("ndcg@10", -0.3) == -0.3
