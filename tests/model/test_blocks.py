"""Blocks with a written-out backward pass against RecBole's layers and against numerical gradients."""

from __future__ import annotations

import pytest
import torch
from recbole.model.layers import TransformerLayer

from recbole_fair.model.bases.blocks import Attention, Rows, packed_block

HEADS, SIZE = 2, 6
INSIDE = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]], dtype=torch.bool)


def layer() -> TransformerLayer:
    torch.manual_seed(0)
    made = TransformerLayer(HEADS, SIZE, 10, 0.0, 0.0, "gelu", 1e-12).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def causal(width: int) -> torch.Tensor:
    index = torch.arange(width)
    later = index.unsqueeze(0) > index.unsqueeze(1)
    return torch.zeros(width, width, dtype=torch.double).masked_fill_(later, -torch.inf)


def everywhere(inside: torch.Tensor, dropout: float = 0.0, hidden: float = 0.0) -> Attention:
    rows = Rows.where(inside)
    return Attention(rows, rows, None, causal(inside.shape[1]), HEADS, dropout, hidden)


@pytest.mark.parametrize("inside", [INSIDE, torch.ones(3, 4, dtype=torch.bool)])
def test_values_and_gradients_are_those_of_recboles_layer(inside):
    block, x = layer(), torch.randn(3, 4, SIZE, dtype=torch.double, requires_grad=True)
    mask = causal(4).clamp_min(-10000.0).expand(3, 1, 4, 4)
    wanted = torch.randn(3, 4, SIZE, dtype=torch.double)[inside]
    expected = block(x, mask)[inside]
    found = packed_block(block, x[inside], everywhere(inside), 1e-12)
    torch.testing.assert_close(found, expected)
    parameters = (x, *block.parameters())
    theirs = torch.autograd.grad((expected * wanted).sum(), parameters)
    ours = torch.autograd.grad((found * wanted).sum(), parameters)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_gradient_with_dropout_is_that_of_the_values():
    block = layer()
    how = everywhere(INSIDE, 0.3, 0.4)
    x = torch.randn(int(INSIDE.sum()), SIZE, dtype=torch.double, requires_grad=True)
    weights = torch.randn_like(x)

    def value() -> torch.Tensor:
        torch.manual_seed(3)  # the same masks for every difference
        return (packed_block(block, x, how, 1e-12) * weights).sum()

    parameters = (x, *block.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(value(), parameters), strict=True):
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            parameter += 1e-6 * direction
            above = value()
            parameter -= 2e-6 * direction
            below = value()
            parameter += 1e-6 * direction
        torch.testing.assert_close((above - below) / 2e-6, (gradient * direction).sum(), rtol=1e-5, atol=1e-6)


def test_queries_at_some_rows_are_the_same_rows_of_all():
    block, rows = layer(), Rows.where(INSIDE)
    x = torch.randn(int(INSIDE.sum()), SIZE, dtype=torch.double)
    # The second window asks at its last place, the others at their last two.
    positions = torch.tensor([[2, 3], [0, 1], [1, 2]])
    asked = torch.tensor([[True, True], [False, True], [True, True]])
    number = torch.full((12,), -1).index_copy_(0, rows.cells, torch.arange(len(x)))
    of_keys = number[(torch.arange(3).unsqueeze(1) * 4 + positions)[asked]]
    blocked = torch.zeros(3, 2, 4, dtype=torch.double)
    blocked.masked_fill_(torch.arange(4) > positions.unsqueeze(-1), -torch.inf)
    some = Attention(rows, Rows.where(asked), of_keys, blocked.repeat_interleave(HEADS, 0), HEADS, 0.0, 0.0)
    x.requires_grad_()
    expected, found = packed_block(block, x, everywhere(INSIDE), 1e-12)[of_keys], packed_block(block, x, some, 1e-12)
    torch.testing.assert_close(found, expected)
    parameters = (x, *block.parameters())
    theirs = torch.autograd.grad(expected.square().sum(), parameters)
    ours = torch.autograd.grad(found.square().sum(), parameters)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
