"""The gate and the weights of users as functions of losses, by hand and against solvers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from recbole_fair.model.tall.tall import loss_gate
from recbole_fair.model.tall.user_weights import LossWindow, clipped_weights, niche_weights, simplex_weights

# -- gate ------------------------------------------------------------------------------------------------------------


def test_gate_by_hand():
    losses, counts = torch.tensor([[2.0, 4.0]]), torch.tensor([2])
    inverse = loss_gate(losses, counts, "inverse")
    expected = np.exp([0.5, 0.25]) / np.exp([0.5, 0.25]).sum()
    np.testing.assert_allclose(inverse[0], expected, rtol=1e-6)
    softmax = loss_gate(losses, counts, "softmax", norm="mean", temperature=0.5)
    expected = np.exp([-2.0, -4.0]) / np.exp([-2.0, -4.0]).sum()
    np.testing.assert_allclose(softmax[0], expected, rtol=1e-6)


@given(st.integers(0, 1000), st.sampled_from(["inverse", "softmax"]), st.sampled_from(["sum", "mean"]))
@settings(max_examples=40, deadline=None)
def test_gate_prefers_low_losses_and_follows_the_experts(seed, kind, norm):
    generator = torch.Generator().manual_seed(seed)
    losses = 0.1 + 20 * torch.rand(6, 5, generator=generator, dtype=torch.double)
    counts = torch.randint(1, 9, (6,), generator=generator)
    gate = loss_gate(losses, counts, kind, norm)
    torch.testing.assert_close(gate.sum(1), torch.ones(6, dtype=torch.double))
    assert torch.equal(gate.argsort(1), losses.argsort(1, descending=True))
    order = torch.randperm(5, generator=generator)
    torch.testing.assert_close(loss_gate(losses[:, order], counts, kind, norm), gate[:, order])
    equal = loss_gate(losses[:, :1].expand(-1, 5), counts, kind, norm)
    torch.testing.assert_close(equal, torch.full((6, 5), 0.2, dtype=torch.double))
    # The inverse of a loss is bounded: max / min = exp(1 / least - 1 / largest).
    if kind == "inverse" and norm == "sum":
        ratio = torch.exp(1 / losses.amin(1) - 1 / losses.amax(1))
        torch.testing.assert_close(gate.amax(1) / gate.amin(1), ratio)


def test_gate_without_held_out_items_is_uniform_and_zero_losses_stay_finite():
    gate = loss_gate(torch.tensor([[0.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 1]), "inverse")
    assert gate[0].tolist() == [0.5, 0.5]
    assert gate[1].tolist() == [1.0, 0.0]


# -- weights of users ------------------------------------------------------------------------------------------------


def test_weights_by_hand():
    # Mean 0.1; (s - mean) / 0.16 + 1.
    signal = torch.tensor([0.1, 0.18, 0.02, 0.1], dtype=torch.double)
    np.testing.assert_allclose(clipped_weights(signal, 0.08), [1.0, 1.5, 0.5, 1.0])
    np.testing.assert_allclose(simplex_weights(signal, 0.08), [1.0, 1.5, 0.5, 1.0])
    # Mean 0.25: the first three would be negative; clipped, the sum is no longer 4, projected it is.
    signal = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.double)
    np.testing.assert_allclose(clipped_weights(signal, 0.08), [0, 0, 0, 1 + 0.75 / 0.16])
    np.testing.assert_allclose(simplex_weights(signal, 0.08), [0, 0, 0, 4])


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=12), st.floats(0.02, 2))
@settings(max_examples=80, deadline=None)
def test_simplex_weights_solve_the_problem(signal, alpha):
    s = torch.tensor(signal, dtype=torch.double)
    weights = simplex_weights(s, alpha)
    n = len(signal)
    assert weights.min() >= 0
    assert weights.sum().item() == pytest.approx(n, rel=1e-9)
    # Optimality: one multiplier for all positive weights, and no larger slope at 0.
    slope = s - 2 * alpha * weights
    positive = weights > 1e-9
    multiplier = slope[positive].mean()
    torch.testing.assert_close(slope[positive], multiplier.expand(int(positive.sum())), atol=1e-8, rtol=0)
    assert (slope[~positive] <= multiplier + 1e-8).all()
    clipped = clipped_weights(s, alpha)
    if (clipped > 0).all():
        torch.testing.assert_close(clipped, weights, atol=1e-9, rtol=1e-9)
    else:
        assert clipped.sum() >= n - 1e-9


def test_simplex_weights_against_a_general_solver():
    rng = np.random.default_rng(1)
    signal, alpha = rng.normal(size=7), 0.1
    found = minimize(
        lambda w: -(w @ signal) + alpha * (w @ w),
        np.ones(7),
        jac=lambda w: -signal + 2 * alpha * w,
        bounds=[(0, None)] * 7,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 7},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    np.testing.assert_allclose(simplex_weights(torch.from_numpy(signal), alpha), found.x, atol=1e-5)


@pytest.mark.parametrize("window", [1, 3, 8])
def test_window_of_changes_as_columns_that_are_appended(window):
    """The authors' bookkeeping: from the second epoch on a column of changes each, the last of which are averaged."""
    rng = np.random.default_rng(0)
    losses, columns = LossWindow(4, window), []
    previous = None
    for epoch in range(1, 13):
        now = rng.random(3).astype(np.float32)
        losses.record(torch.tensor([1, 2, 3]), torch.from_numpy(now))
        losses.finish_epoch()
        if previous is not None:
            columns.append(previous - now)
        previous = now
        found = losses.mean_change()
        assert found[0].isnan()
        if epoch == 1:
            assert found.isnan().all()
            assert losses.weights("change", 0.08, "clip").tolist() == [1.0] * 4
            continue
        kept = columns[-window:]
        assert len(kept) == min(window, epoch - 1)  # window 8: 1 column after epoch 2, 8 after epochs 9 and 10
        np.testing.assert_allclose(found[1:], np.mean(kept, axis=0), atol=1e-6)
        expected = clipped_weights(torch.from_numpy(np.mean(kept, axis=0)), 0.08)
        np.testing.assert_allclose(losses.weights("change", 0.08, "clip")[1:], expected, atol=1e-5)
        np.testing.assert_allclose(losses.weights("loss", 0.5, "simplex")[1:].sum(), 3, atol=1e-5)
        assert losses.weights("change", 0.08, "clip")[0] == 1


def test_weights_against_the_mainstream_by_hand():
    scores = np.array([np.nan, 0.1, 0.3, 0.5, np.nan])
    raw = np.array([1.0, 0.5, 0.0]) ** 1.5
    np.testing.assert_allclose(niche_weights(scores, 1.5), [1, *(raw / raw.mean()), 1], rtol=1e-6)
    assert niche_weights(scores, 0.0).tolist() == [1.0] * 5
    assert niche_weights(np.array([np.nan, 0.2, 0.2]), 1.5).tolist() == [1.0] * 3
