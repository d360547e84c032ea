"""Popularity, segments and histories: hand-made examples, guards, properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_oracle import segments

from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.interactions import Interactions
from recbole_fair.data.facts.popularity import Popularity, select_head_tail
from recbole_fair.errors import FairError


def inter_of(counts: list[int]) -> Interactions:
    """Item i (from 1) interacted with counts[i - 1] times, by as many users."""
    item = np.repeat(np.arange(1, len(counts) + 1), counts)
    user = np.arange(len(item)) % 7 + 1
    order = np.argsort(user, kind="stable")
    return Interactions(user[order], item[order].astype(np.int64), None, 9, len(counts) + 1)


def test_segments_by_interactions_hand_example() -> None:
    # 100 interactions. Head: items 1 and 2 (before the third 20 are gathered). Tail: unseen 19..21 and ones up to 20.
    counts = [10, 10, 10, 8, 8, 8, 8, 8, 6, 6, 4, 4, 2, 2, 2, 2, 1, 1, 0, 0, 0]
    popularity = Popularity.from_interactions(inter_of(counts), 0.2, 0.2, "interactions")
    assert popularity.counts.tolist() == [0, *counts]
    assert popularity.head_items.tolist() == [1, 2]
    # 1+1+2+2+2+2 = 10, +4 = 14, +4 = 18 < 20, so one item of 6 comes in (18 before it), the next (24) does not.
    assert sorted(popularity.tail_items.tolist()) == [9, *range(11, 22)]
    assert popularity.segments[[0, 1, 2, 3, 9, 10, 21]].tolist() == [-1, 0, 0, 1, 2, 1, 2]
    described = popularity.describe()
    assert (described["head_items"], described["mid_items"], described["tail_items"]) == (2, 7, 12)
    assert described["unseen_items"] == 3


def test_segments_by_items_break_ties_by_ascending_id() -> None:
    head, tail = select_head_tail(torch.tensor([0] + [3] * 20), 0.1, 0.1, "items")
    assert head.tolist() == [1, 2]
    assert tail.tolist() == [3, 4]  # items 1 and 2 would come first, but are head
    counts = torch.tensor([0, 9, *range(1, 20)])
    head, tail = select_head_tail(counts, 0.1, 0.1, "items")
    assert head.tolist() == [20, 19]
    assert tail.tolist() == [2, 3]


def test_unseen_items_are_tail_however_many() -> None:
    counts = torch.tensor([0, *[5] * 14, *[0] * 6])
    _, tail = select_head_tail(counts, 0.1, 0.1, "items")
    assert set(tail.tolist()) == set(range(15, 21))
    _, tail = select_head_tail(torch.cat([counts, torch.full((10,), 4)]), 0.1, 0.1, "items", include_unseen=False)
    assert tail.tolist() == [21, 22]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=20, max_size=50),
    st.sampled_from([0.1, 0.2, 0.3]),
    st.sampled_from([0.1, 0.2]),
)
def test_segments_equal_the_loop(counts: list[int], head_share: float, tail_share: float) -> None:
    if sum(counts) == 0 or max(counts) > head_share * sum(counts):
        with pytest.raises(FairError):
            _ = Popularity.from_interactions(inter_of(counts), head_share, tail_share, "interactions").segments
        return
    found = Popularity.from_interactions(inter_of(counts), head_share, tail_share, "interactions").segments
    names = {"pad": -1, "head": 0, "mid": 1, "tail": 2}
    assert found.tolist() == [names[label] for label in segments([0, *counts], head_share, tail_share)]


@pytest.mark.parametrize(
    ("counts", "by", "shares", "message"),
    [
        ([5] * 19, "items", (0.1, 0.1), "at least 20 items"),
        ([500, *[5] * 30], "interactions", (0.2, 0.2), "alone has 76.9 %"),
        ([5] * 30, "rating", (0.1, 0.1), "'rating'"),
        ([5] * 30, "items", (0.0, 0.1), "head share"),
        ([5] * 30, "items", (0.1, 1.0), "tail share"),
        ([5] * 30, "items", (0.6, 0.5), "more than 1 together"),
        ([0] * 30, "items", (0.1, 0.1), "none"),
        ([5] * 30, "items", (0.99, 0.01), "No tail item"),
    ],
)
def test_guards_say_what_is_wrong(counts: list[int], by: str, shares: tuple[float, float], message: str) -> None:
    popularity = Popularity.from_interactions(inter_of(counts), *shares, by)
    assert popularity.counts.sum() == sum(counts)  # counting never fails
    with pytest.raises(FairError, match=message):
        _ = popularity.segments
    if by == "items" and min(shares) > 0:
        assert "not defined" in str(popularity.describe().get("segments"))


def test_histories_keep_repeats_and_order_and_answer_by_row() -> None:
    user = np.array([2, 1, 2, 4, 2, 1])
    item = np.array([5, 6, 7, 8, 5, 6])
    time = np.array([3.0, 1.0, 2.0, 9.0, 3.0, 0.0])
    histories = Histories.from_interactions(Interactions(user, item, time, 6, 10))
    assert [histories.of(u).tolist() for u in range(6)] == [[], [6, 6], [7, 5, 5], [], [8], []]
    rows = histories.rows(np.array([4, 3, 2, 2]))
    assert [rows.of(r).tolist() for r in range(4)] == [[8], [], [7, 5, 5], [7, 5, 5]]
    assert rows.times is not None
    assert rows.times.tolist() == [9.0, 2.0, 3.0, 3.0, 2.0, 3.0, 3.0]
    longer = histories.extended(Interactions(np.array([3, 2]), np.array([1, 1]), np.array([0.0, 2.5]), 6, 10))
    assert [longer.of(u).tolist() for u in (2, 3)] == [[7, 1, 5, 5], [1]]
    untimed = histories.extended(Interactions(np.array([2]), np.array([1]), None, 6, 10))
    assert untimed.of(2).tolist() == [7, 5, 5, 1]
    assert untimed.times is None
