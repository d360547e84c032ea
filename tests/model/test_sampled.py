"""Sampled softmax against the full one and against sums over everything that may be drawn."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from recbole_fair.model.bases.sampled import NegativeItems, sampled_cross_entropy


def sides(n: int, n_items: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(n, 4, dtype=torch.float64, requires_grad=True)
    table = torch.randn(n_items, 4, dtype=torch.float64, requires_grad=True)
    return hidden, table, torch.randint(0, n_items, (n,))


def loss_of(hidden, table, target, drawn, expected):
    return sampled_cross_entropy(hidden, table[target], table[drawn], target, drawn, expected)


def test_every_item_drawn_once_is_the_full_softmax():
    hidden, table, target = sides(150, 9)
    found = loss_of(hidden, table, target, torch.arange(9).flip(0), torch.zeros(9, dtype=torch.float64))
    expected = F.cross_entropy(hidden @ table.T, target)
    torch.testing.assert_close(found, expected)
    for a, b in zip(
        torch.autograd.grad(found, (hidden, table)), torch.autograd.grad(expected, (hidden, table)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_value_and_gradient_are_those_of_the_formula():
    hidden, table, target = sides(5, 7)
    drawn, expected = torch.tensor([3, 3, 0, 6]), torch.tensor([0.5, 0.5, -1.0, 2.0], dtype=torch.float64)
    total = hidden.new_zeros(())
    for row, own in zip(hidden, target.tolist(), strict=True):
        pairs = zip(drawn.tolist(), expected.tolist(), strict=True)
        others = [(row @ table[i]).exp() / math.exp(c) for i, c in pairs if i != own]
        positive = (row @ table[own]).exp()
        total = total - torch.log(positive / (positive + sum(others)))
    wanted = torch.autograd.grad(2.0 * total / 5, (hidden, table), retain_graph=True)
    found = loss_of(hidden, table, target, drawn, expected)
    torch.testing.assert_close(found, total / 5)
    for a, b in zip(torch.autograd.grad(2.0 * found, (hidden, table)), wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_normaliser_is_right_on_average_over_all_draws():
    """Whatever the odds, the mean of exp(loss + positive logit) over every possible draw is the full normaliser."""
    hidden, table, _ = sides(1, 4)
    counts = torch.tensor([0, 1, 5, 20])
    odds = NegativeItems(counts, 0.7).log_probability.double().exp()
    logits = (hidden @ table.T).squeeze(0)
    target, mean = torch.tensor([2]), 0.0
    for drawn in itertools.product(range(1, 4), repeat=2):
        index = torch.tensor(drawn)
        loss = loss_of(hidden, table, target, index, (2.0 * odds[index]).log())
        mean += (odds[index].prod() * (loss + logits[2]).exp()).item()
    assert mean == pytest.approx(float(logits[1:].exp().sum()), rel=1e-6)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_items_are_drawn_by_the_power_of_their_popularity(power):
    torch.manual_seed(0)
    counts = torch.tensor([50, 1, 0, 16, 100])
    items, expected = NegativeItems(counts, power).draw(200_000)
    weights = torch.tensor([0.0, 1.0, 1.0, 16.0**power, 100.0**power])
    odds = weights / weights.sum()
    torch.testing.assert_close(torch.bincount(items, minlength=5) / 200_000, odds, atol=0.006, rtol=0)
    torch.testing.assert_close(expected.exp(), 200_000 * odds[items], rtol=1e-4, atol=0)
