"""Settings that lie between those of a grid."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_fair.analysis.frontier import Point, best_by_method, within
from recbole_fair.analysis.refining import between

X, Y = "giniindex@10", "ndcg@10"
BASE = {X: 0.8, Y: 0.1}


def made(method: str, loss: Callable[[float], float], **setting: float) -> Point:
    """A method whose strength, the sum of its numbers, costs accuracy and lowers Gini."""
    strength = sum(value for value in setting.values() if not isinstance(value, str))
    values = {X: 0.8 - 0.1 * loss(strength), Y: 0.1 * (1 - loss(strength))}
    return Point(method, setting, values, values)


def square(strength: float) -> float:
    return 0.1 * strength**2


def test_half_way_to_the_next_setting_out_of_the_budget() -> None:
    points = [made("A", square, a=0.5), made("A", square, a=1.0), made("A", square, a=0.25)]
    assert between(points, BASE, [X], Y, [0.05]) == [("A", {"a": 0.75})]


def test_other_keys_stay_and_rows_are_not_mixed() -> None:
    points = [made("A", square, a=value, b=b) for value in (0.5, 1.0) for b in (0.0, 0.3)]
    points += [Point("A", {"a": 0.6, "kind": "other"}, {X: 0.9, Y: 0.1}, BASE)]
    assert between(points, BASE, [X], Y, [0.04]) == [("A", {"a": 0.75, "b": 0.0})]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.1, 0.3), [0.5]),  # a grid that ends within the budget goes on
        ((0.1, 0.6), [0.245]),  # of a wide gap the geometric mean
        ((1.0, 2.0), [0.5]),  # nothing within the budget: milder
        ((1, 4), [0]),  # among whole numbers whole ones
        ((2, 8), [1]),
        ((0.1,), []),  # a row of one says nothing
    ],
)
def test_ends_of_a_row(values: tuple[float, ...], expected: list[float]) -> None:
    points = [made("A", square, a=value) for value in values]
    found = [setting["a"] for _, setting in between(points, BASE, [X], Y, [0.02])]
    assert found == expected
    assert all(type(one) is type(other) for one, other in zip(found, expected, strict=True))


def test_numbers_that_work_the_other_way_round() -> None:
    """Smaller is stronger: the mildest is the largest."""
    points = [made("A", lambda value: 0.2 / value, a=value) for value in (1.0, 2.0)]
    assert between(points, BASE, [X], Y, [0.05]) == [("A", {"a": 3.0})]


def test_what_is_measured_is_not_tried_again() -> None:
    points = [made("A", square, a=value) for value in (0.5, 0.75, 1.0)]
    assert between(points, BASE, [X], Y, [0.06, 0.061]) == [("A", {"a": 0.875})]


@settings(max_examples=100, deadline=None)
@given(
    grid=st.lists(st.floats(0.05, 3), min_size=2, max_size=6, unique_by=lambda value: round(value, 1)),
    loss=st.floats(0.01, 0.3),
)
def test_rounds_come_nearer_to_the_strongest_setting_within_the_budget(grid: list[float], loss: float) -> None:
    """Against the solution of the equation, 0.1 a² = loss."""
    points = [made("A", square, a=value) for value in grid]
    reached = []
    for _ in range(24):
        best = best_by_method(points, BASE, X, Y, loss)
        reached.append(points[best[0]].setting["a"] if best else 0.0)
        further = between(points, BASE, [X], Y, [loss])
        assert not {setting["a"] for _, setting in further} & {point.setting["a"] for point in points}
        points += [made(method, square, **setting) for method, setting in further]
    best_possible = (loss / 0.1) ** 0.5
    assert reached == sorted(reached)
    assert all(within(point.valid[Y], BASE[Y], Y, loss) == (point.setting["a"] <= best_possible) for point in points)
    assert reached[-1] == pytest.approx(best_possible, rel=0.02)
