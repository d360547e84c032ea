from __future__ import annotations

import pytest
import torch

from recbole_fair.evaluator.functional import best
from recbole_fair.evaluator.functional.best import best_of_rows


@pytest.mark.parametrize("columns", [2**15, 40_001, 65_537])
@pytest.mark.parametrize("k", [1, 10, 250])
def test_the_best_are_those_of_topk(columns, k):
    torch.manual_seed(0)
    scores = torch.randn(3, columns)
    scores[0, 5:30_000] = -torch.inf
    scores[1, -1] = 99.0  # among the columns that are in no group
    expected = scores.topk(k, dim=1)
    values, items = best_of_rows(scores, k)
    assert torch.equal(values, expected.values)
    assert torch.equal(items, expected.indices)


def test_the_detour_is_taken_and_nan_stands_first(monkeypatch):
    monkeypatch.setattr(best, "_WIDE", 1)
    assert best._group_size(400, 2) >= 4
    scores = torch.arange(400.0).flip(0).repeat(2, 1)
    scores[1, 137] = torch.nan
    values, items = best_of_rows(scores, 2)
    assert items[0].tolist() == [0, 1]
    assert values[1, 0].isnan()
    assert items[1].tolist() == [137, 0]


def test_fewer_finite_entries_than_wanted(monkeypatch):
    monkeypatch.setattr(best, "_WIDE", 1)
    scores = torch.full((1, 500), -torch.inf)
    scores[0, [3, 499]] = torch.tensor([1.0, 2.0])
    values, items = best_of_rows(scores, 5)
    assert items[0, :2].tolist() == [499, 3]
    assert values[0, 2:].eq(-torch.inf).all()
    assert len(set(items[0].tolist())) == 5
