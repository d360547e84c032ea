"""The best items out of a large catalogue, against a sort of all scores."""

from __future__ import annotations

import pytest
import torch

from recbole_fair.rerank import best_items as module
from recbole_fair.rerank.best_items import best_items


@pytest.mark.parametrize("n_items", [7, 33, 500])
@pytest.mark.parametrize("number", [1, 5, 60])
@pytest.mark.parametrize("biased", [False, True])
def test_they_are_those_of_a_full_sort(
    n_items: int, number: int, biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BYTES", 4 * 3 * 512)  # a few users at a time
    generator = torch.Generator().manual_seed(n_items)
    users, items = torch.randn(11, 8, generator=generator), torch.randn(n_items, 8, generator=generator)
    bias = 2 * torch.randn(n_items, generator=generator) if biased else None
    scores = users @ items.T + (0 if bias is None else bias)
    scores[:, 0] = -torch.inf
    expected = scores.sort(dim=1, descending=True)
    found = best_items(users, items, number, torch.arange(20, 31), bias)
    kept = min(number, n_items - 1)
    assert torch.equal(found.items, expected.indices[:, :kept])
    torch.testing.assert_close(found.scores, expected.values[:, :kept])
    assert found.users.tolist() == list(range(20, 31))
