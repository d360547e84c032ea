"""The object of metrics by group: against numbers by hand, and fairlearn's definitions."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from recbole_fair.evaluator.group_result import GroupResult
from recbole_fair.evaluator.result import plain

VALUES = st.one_of(st.just(math.nan), st.floats(-10, 10))


def made(values: list[list[float]], intervals: bool = False) -> GroupResult:
    labels = [f"g{place}" for place in range(len(values))]
    frame = pd.DataFrame(values, index=labels, columns=["ndcg@5", "upd@5"], dtype="float64")
    bounds = (frame - 1, frame + 1) if intervals else (None, None)
    return GroupResult("by rule", 3, {label: 2 + place for place, label in enumerate(labels)}, frame, *bounds)


def test_how_far_groups_are_apart_by_hand() -> None:
    result = made([[0.25, 3.0], [0.5, math.nan], [0.125, -1.0]])
    assert result.minimum().to_dict() == {"ndcg@5": 0.125, "upd@5": -1.0}
    assert result.maximum().to_dict() == {"ndcg@5": 0.5, "upd@5": 3.0}
    assert result.difference().to_dict() == {"ndcg@5": 0.375, "upd@5": 4.0}
    assert result.ratio().to_dict() == {"ndcg@5": 0.25, "upd@5": -1 / 3}
    assert result.worst("ndcg@5") == "g2"
    # No ratio without a largest value above 0.
    assert made([[0.0, -2.0], [0.0, -1.0]]).ratio().isna().all()
    assert list(result.to_frame().columns) == ["users", "ndcg@5", "upd@5"]


@given(st.lists(st.tuples(VALUES, VALUES), max_size=6), st.booleans())
def test_json_and_back(rows: list[tuple[float, float]], intervals: bool) -> None:
    result = made([list(row) for row in rows], intervals)
    text = json.dumps(plain(result), allow_nan=False)
    again = GroupResult.from_plain(json.loads(text))
    pd.testing.assert_frame_equal(again.by_group, result.by_group)
    if intervals and rows:
        assert again.low is not None
        pd.testing.assert_frame_equal(again.low, result.by_group - 1)
    assert json.dumps(plain(again)) == text


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=6))
def test_summary_against_numpy(rows: list[tuple[float, float]]) -> None:
    summary = made([list(row) for row in rows]).to_plain()["summary"]["upd@5"]
    known = np.array([row[1] for row in rows if not math.isnan(row[1])])
    if not len(known):
        assert all(math.isnan(value) for value in summary.values())
        return
    low, high = known.min(), known.max()
    expected = {"min": low, "max": high, "difference": high - low, "ratio": low / high if high > 0 else math.nan}
    np.testing.assert_array_equal([summary[key] for key in expected], list(expected.values()))
