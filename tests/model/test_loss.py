from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from recbole_fair.model.bases.dropout import fast_dropout
from recbole_fair.model.bases.loss import chunked_cross_entropy


@pytest.mark.parametrize("chunk", [1, 7, 64, None])
@pytest.mark.parametrize("n", [1, 50])
def test_value_and_gradient_equal_cross_entropy(n, chunk):
    torch.manual_seed(0)
    hidden = torch.randn(n, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(31, 8, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 31, (n,))
    expected = F.cross_entropy(hidden @ weight.T, target)
    grads = torch.autograd.grad(3.0 * expected, (hidden, weight))
    value = chunked_cross_entropy(hidden, weight, target, chunk)
    found = torch.autograd.grad(3.0 * value, (hidden, weight))
    assert abs(value - expected) < 1e-12
    for a, b in zip(found, grads, strict=True):
        assert (a - b).abs().max() < 1e-12


def test_gradient_for_one_side_only():
    hidden, weight = torch.randn(5, 4, requires_grad=True), torch.randn(6, 4)
    target = torch.tensor([0, 1, 2, 3, 5])
    (found,) = torch.autograd.grad(chunked_cross_entropy(hidden, weight, target), hidden)
    (expected,) = torch.autograd.grad(F.cross_entropy(hidden @ weight.T, target), hidden)
    torch.testing.assert_close(found, expected)


def test_extreme_logits_stay_finite():
    hidden = torch.tensor([[300.0], [-300.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0]])
    loss = chunked_cross_entropy(hidden, weight, torch.tensor([1, 1]))
    (gradient,) = torch.autograd.grad(loss, hidden)
    assert torch.isfinite(loss)
    torch.testing.assert_close(gradient, torch.tensor([[1.0], [0.0]]))


def test_no_targets_gives_zero_with_a_gradient():
    hidden = torch.zeros(0, 4, requires_grad=True)
    loss = chunked_cross_entropy(hidden, torch.randn(5, 4), torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0.0


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_dropout_rate_scale_and_gradient(probability):
    torch.manual_seed(1)
    x = torch.full((400, 501), 2.0, requires_grad=True)
    y = fast_dropout(x, probability, training=True)
    dropped = (y == 0).float().mean().item()
    n = x.numel()
    assert abs(dropped - probability) < 5 * (probability * (1 - probability) / n) ** 0.5 + 1e-4
    assert torch.allclose(y[y != 0], torch.tensor(2.0 / (1 - probability)))
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach() / 2.0)


def test_dropout_is_the_identity_outside_training():
    x = torch.randn(3, 3)
    assert fast_dropout(x, 0.5, training=False) is x
    assert fast_dropout(x, 0.0, training=True) is x


def test_dropout_follows_the_seed():
    x = torch.ones(1000)
    torch.manual_seed(3)
    first = fast_dropout(x, 0.5, training=True)
    torch.manual_seed(3)
    assert torch.equal(first, fast_dropout(x, 0.5, training=True))
    assert not torch.equal(first, fast_dropout(x, 0.5, training=True))


def test_logits_beyond_the_safe_bound_give_the_same_loss_and_gradient():
    torch.manual_seed(0)
    hidden, weight = (torch.randn(n, 8, dtype=torch.float64, requires_grad=True) for n in (20, 31))
    target = torch.randint(0, 31, (20,))
    expected = F.cross_entropy(100.0 * hidden @ weight.T, target)
    grads = torch.autograd.grad(expected, (hidden, weight))
    found = chunked_cross_entropy(100.0 * hidden, weight, target, 7)
    torch.testing.assert_close(found, expected)
    for a, b in zip(torch.autograd.grad(found, (hidden, weight)), grads, strict=True):
        torch.testing.assert_close(a, b)


def test_dropout_draws_depend_on_torchs_seed_alone():
    x = torch.ones(1000)
    torch.manual_seed(5)
    first, second = fast_dropout(x, 0.5, True), fast_dropout(x, 0.5, True)
    torch.manual_seed(5)
    assert torch.equal(fast_dropout(x, 0.5, True), first)
    assert not torch.equal(first, second)
