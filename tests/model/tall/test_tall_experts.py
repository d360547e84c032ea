"""The stack of autoencoders and its sparse rows, against dense and separate computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_fair.data.batches.item_rows import ItemRows
from recbole_fair.model.tall import experts as experts_module
from recbole_fair.model.tall.experts import Bags, StackedVAE, cross_entropy, sample, sparse_product


def rows_of(*rows: list[int], columns: int = 7) -> ItemRows:
    """Rows from lists of columns."""
    user = np.array([r for r, items in enumerate(rows) for _ in items]) + 1
    item = np.array([c for items in rows for c in items], dtype=np.int64) + 1
    return ItemRows.from_pairs(user, item, len(rows) + 1, columns + 1).of(torch.arange(1, len(rows) + 1))


def random_rows(n: int, columns: int, seed: int, most: int | None = None) -> ItemRows:
    rng = np.random.default_rng(seed)
    lists = [
        rng.choice(columns, size=int(rng.integers(0, (most or columns) + 1)), replace=False).tolist() for _ in range(n)
    ]
    return rows_of(*lists, columns=columns)


INPUT = rows_of([0, 3], [1, 2, 5], [], [6])
HELD = rows_of([1], [0, 6], [2], [])


def stack_of(n_experts: int, columns: int = 7, latent: int = 3, seed: int = 0) -> StackedVAE:
    torch.manual_seed(seed)
    return StackedVAE(n_experts, columns, latent).double()


def dense_scores(stack: StackedVAE, latent: torch.Tensor) -> torch.Tensor:
    """Scores of each expert ``[E, B, I]`` from its own matrices, one after another."""
    return torch.stack([latent[k] @ stack.decoder[:, k].t() + stack.decoder_bias[k] for k in range(stack.n_experts)])


# -- rows ------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_rows_against_a_matrix_of_zeros_and_ones(seed, n, columns):
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, n + 1, 40), rng.integers(0, columns + 1, 40)
    matrix = np.zeros((n + 1, columns))
    for u, i in zip(user, item, strict=True):
        if u > 0 and i > 0:
            matrix[u, i - 1] = 1
    rows = ItemRows.from_pairs(user, item, n + 1, columns + 1)
    assert np.array_equal(rows.dense().numpy(), matrix)
    assert rows.lengths.tolist() == matrix.sum(1).tolist()
    index = rng.integers(0, n + 1, 5)
    assert np.array_equal(rows.of(torch.from_numpy(index)).dense().numpy(), matrix[index])
    drawn = rows.sample(0.3, seed)
    assert np.array_equal(drawn.dense().numpy() + rows.without(drawn).dense().numpy(), matrix)
    again = ItemRows.from_arrays(drawn.arrays())
    assert torch.equal(again.indptr, drawn.indptr)
    assert torch.equal(again.columns, drawn.columns)


def test_a_share_of_each_row_at_least_one_and_never_all():
    rows = rows_of([0], [0, 1], list(range(7)), [], list(range(20)), columns=20)
    drawn = rows.sample(0.1, seed=1)
    assert drawn.lengths.tolist() == [0, 1, 1, 0, 2]
    assert (rows.dense() - drawn.dense()).min() == 0
    assert not torch.equal(drawn.columns, rows.sample(0.1, seed=2).columns)
    assert torch.equal(drawn.columns, rows.sample(0.1, seed=1).columns)


# -- sparse products -------------------------------------------------------------------------------------------------


def test_shared_rows_times_each_experts_matrix_with_gradient():
    weight = torch.randn(4, 7, 3, dtype=torch.double, requires_grad=True)
    inputs = Bags.normalised(INPUT, 4)
    found = sparse_product(weight, inputs)
    wanted = torch.stack([F.normalize(INPUT.dense()).double() @ weight[k] for k in range(4)])
    upstream = torch.randn_like(wanted)
    torch.testing.assert_close(found, wanted, atol=1e-7, rtol=0)  # the weights of the rows are single precision
    (own,) = torch.autograd.grad(found, weight, upstream)
    (other,) = torch.autograd.grad(wanted, weight, upstream)
    torch.testing.assert_close(own, other, atol=1e-6, rtol=0)


def test_own_rows_of_each_expert_with_gradient():
    rows = random_rows(6, 7, seed=3)
    weight = torch.randn(2, 7, 3, dtype=torch.double, requires_grad=True)
    found = sparse_product(weight, Bags.normalised(rows, 2, shared=False))
    dense = F.normalize(rows.dense()).double().view(2, 3, 7)
    wanted = torch.bmm(dense, weight)
    upstream = torch.randn_like(wanted)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
    (own,) = torch.autograd.grad(found, weight, upstream)
    (other,) = torch.autograd.grad(wanted, weight, upstream)
    torch.testing.assert_close(own, other, atol=1e-6, rtol=0)


def test_dropout_scales_what_it_keeps():
    rows = rows_of(list(range(200)), columns=200)
    torch.manual_seed(0)
    kept = Bags.normalised(rows, 1, dropout=0.25).gather(torch.eye(200).unsqueeze(0))[0, 0]
    values = kept[kept > 0]
    torch.testing.assert_close(values, torch.full_like(values, 200**-0.5 / 0.75))
    assert 120 < len(values) < 180


# -- the stack -------------------------------------------------------------------------------------------------------


def test_stack_is_separate_linear_layers_with_the_same_weights():
    stack = stack_of(5)
    mean, logvar = stack.encode(Bags.normalised(INPUT, 5))
    rows = F.normalize(INPUT.dense()).double()
    for k in range(5):
        encoder = torch.nn.Linear(7, 6).double()
        encoder.weight.data = torch.cat([stack.mean[k].t(), stack.logvar[k].t()])
        encoder.bias.data = torch.cat([stack.mean_bias[k], stack.logvar_bias[k]])
        decoder = torch.nn.Linear(3, 7).double()
        decoder.weight.data, decoder.bias.data = stack.decoder[:, k].data, stack.decoder_bias[k].data
        wanted_mean, wanted_logvar = encoder(rows).split(3, 1)
        torch.testing.assert_close(mean[k], wanted_mean, atol=1e-7, rtol=0)
        torch.testing.assert_close(logvar[k], wanted_logvar, atol=1e-7, rtol=0)
        alone = torch.zeros(4, 5).double()
        alone[:, k] = 1
        torch.testing.assert_close(stack.mixture(mean, alone), decoder(wanted_mean), atol=1e-7, rtol=0)
        normal = torch.distributions.Normal(wanted_mean, (0.5 * wanted_logvar).exp())
        kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(1)
        torch.testing.assert_close(sample(mean, logvar)[1][k], kl, atol=1e-6, rtol=0)


def test_first_weights_are_those_of_linear_layers():
    torch.manual_seed(0)
    stack = StackedVAE(3, 400, 25)
    for name in ("mean", "logvar", "mean_bias", "logvar_bias"):
        bound = getattr(stack, name).abs().max()
        assert 0.9 / 20 < bound <= 1 / 20
    for name in ("decoder", "decoder_bias"):
        assert 0.9 / 5 < getattr(stack, name).abs().max() <= 1 / 5


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_mixture_is_the_weighted_sum_of_scores(seed):
    stack = stack_of(4, seed=seed)
    latent = torch.randn(4, 5, 3, dtype=torch.double)
    gate = torch.softmax(torch.randn(5, 4, dtype=torch.double), 1)
    scores = dense_scores(stack, latent)
    torch.testing.assert_close(stack.mixture(latent, gate), (gate.t().unsqueeze(2) * scores).sum(0))
    torch.testing.assert_close(stack.mixture(latent, None), scores.mean(0))


def test_noise_has_a_hundredth_of_the_deviation():
    torch.manual_seed(0)
    mean, logvar = torch.full((200_000,), 2.0), torch.full((200_000,), 0.8)
    noise = sample(mean, logvar)[0] - mean
    assert noise.std().item() == pytest.approx(0.01 * np.exp(0.4), rel=0.02)
    assert noise.mean().item() == pytest.approx(0.0, abs=1e-4)


def test_gradients_of_noise_and_divergence():
    mean = torch.randn(3, 4, dtype=torch.double, requires_grad=True)
    logvar = torch.randn(3, 4, dtype=torch.double, requires_grad=True)

    def seeded(m: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(5)
        return sample(m, v)

    assert torch.autograd.gradcheck(seeded, (mean, logvar))


# -- losses ----------------------------------------------------------------------------------------------------------


def loss_by_log_softmax(scores: torch.Tensor, targets: ItemRows, masked: ItemRows | None) -> torch.Tensor:
    """The definition: minus the sum of log probabilities of the targets, over the items that are not masked."""
    result = torch.zeros(scores.shape[:-1], dtype=scores.dtype)
    for row in range(len(targets)):
        hidden = torch.zeros(targets.n_columns, dtype=torch.bool)
        if masked is not None:
            hidden = masked.dense()[row].bool()
        for column in torch.nonzero(targets.dense()[row]).flatten().tolist():
            p = torch.softmax(scores[..., row, ~hidden], -1)
            place = int((~hidden[:column]).sum())
            result[..., row] -= torch.log(p[..., place])
    return result


@pytest.mark.parametrize("masked", [None, INPUT])
@pytest.mark.parametrize("block", [None, (3, 2)])
def test_losses_and_gradients_by_expert_in_blocks(masked, block, monkeypatch):
    stack = stack_of(5)
    if block is not None:  # rows of a block, experts of a block
        monkeypatch.setattr(experts_module, "_BLOCK_ROWS", block[0])
        monkeypatch.setattr(experts_module, "_BLOCK_BYTES", block[0] * block[1] * 7 * 8)
    latent = torch.randn(5, 4, 3, dtype=torch.double, requires_grad=True)
    found = stack.losses(latent, HELD, masked)
    wanted = loss_by_log_softmax(dense_scores(stack, latent), HELD, masked).t()
    torch.testing.assert_close(found, wanted)
    assert (found[3] == 0).all()  # no target
    upstream = torch.rand(4, 5, dtype=torch.double)
    leaves = [latent, stack.decoder, stack.decoder_bias]
    for own, other in zip(
        torch.autograd.grad(found, leaves, upstream), torch.autograd.grad(wanted, leaves, upstream), strict=True
    ):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize("masked", [None, INPUT], ids=["all", "masked"])
@pytest.mark.parametrize("block", [None, (1, 2), (3, 4)], ids=str)
def test_losses_under_autocast_round_only_the_factors_of_products(masked, block, monkeypatch):
    if block is not None:  # rows of a block (times four under autocast on a processor), experts of a block
        monkeypatch.setattr(experts_module, "_BLOCK_ROWS", block[0])
        monkeypatch.setattr(experts_module, "_BLOCK_BYTES", min(4, 4 * block[0]) * block[1] * 7 * 4)
    stack = stack_of(5).float()
    latent = torch.randn(5, 4, 3, requires_grad=True)
    leaves = [latent, stack.decoder, stack.decoder_bias]
    with torch.autocast("cpu"):
        found = stack.losses(latent, HELD, masked)
    assert found.dtype == torch.float32
    assert not torch.equal(found, stack.losses(latent, HELD, masked))  # autocast does reach the products
    wanted = loss_by_log_softmax(dense_scores(stack, latent), HELD, masked).t()
    torch.testing.assert_close(found, wanted, atol=0.02, rtol=0.005)
    own, other = (torch.autograd.grad(value.sum(), leaves) for value in (found, wanted))
    for one, two in zip(own, other, strict=True):
        torch.testing.assert_close(one, two, atol=0.02, rtol=0.02)


def test_small_gradients_do_not_vanish_in_half_precision():
    stack = stack_of(5).float()
    latent = torch.randn(5, 4, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.float16):
        found = stack.losses(latent, HELD)
    wanted = loss_by_log_softmax(dense_scores(stack, latent), HELD, None).t()
    for leaf in (latent, stack.decoder, stack.decoder_bias):
        own, other = (
            torch.autograd.grad(value.sum() * 1e-9, leaf, retain_graph=True)[0] * 1e9 for value in (found, wanted)
        )
        torch.testing.assert_close(own, other, atol=0.005, rtol=0.005)


def test_losses_of_large_scores_are_finite():
    stack = stack_of(2)
    latent = torch.randn(2, 4, 3, dtype=torch.double) * 1e5
    found = stack.losses(latent.requires_grad_(), HELD, INPUT)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(latent.grad).all()


def test_row_whose_items_are_all_masked_has_no_loss():
    everything = rows_of(list(range(7)), [0], [1], [2])
    held = rows_of([], [1], [], [])
    stack, latent = stack_of(2), torch.randn(2, 4, 3, dtype=torch.double, requires_grad=True)
    found = stack.losses(latent, held, everything)
    found.sum().backward()
    assert found[0].tolist() == [0.0, 0.0]
    assert torch.isfinite(latent.grad).all()
    scores = torch.randn(4, 7)
    assert cross_entropy(scores, held, everything)[0] == 0


@given(st.integers(0, 1000), st.booleans())
@settings(max_examples=20, deadline=None)
def test_cross_entropy_of_a_mixture(seed, mask):
    held = random_rows(5, 6, seed, most=3)
    other = random_rows(5, 6, seed + 1).without(held) if mask else None
    scores = torch.randn(5, 6, dtype=torch.double, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(cross_entropy(scores, held, other), loss_by_log_softmax(scores, held, other))


def test_blocks_of_scores_hold_every_expert_once(monkeypatch):
    monkeypatch.setattr(experts_module, "_BLOCK_BYTES", 4 * 7 * 8 // 2)
    stack, latent = stack_of(5), torch.randn(5, 4, 3, dtype=torch.double)
    with torch.no_grad():
        parts = [(some, scores.clone()) for some, scores in stack.scores_in_blocks(latent)]
        wanted = dense_scores(stack, latent)
    assert len(parts) > 1
    assert [k for some, _ in parts for k in range(some.start, some.stop)] == list(range(5))
    torch.testing.assert_close(torch.cat([scores for _, scores in parts]), wanted)


def test_nothing_of_the_size_of_all_experts_scores_is_kept():
    """What the graph of a training loss keeps stays far below the scores of all experts for all items."""
    batch, n_experts, columns, latent_size = 16, 12, 500, 4
    rows, held = random_rows(batch, columns, 1, most=20), random_rows(batch, columns, 2, most=3)
    stack = StackedVAE(n_experts, columns, latent_size)
    own = {p.untyped_storage().data_ptr() for p in stack.parameters()}
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        mean, logvar = stack.encode(Bags.normalised(rows, n_experts))
        latent, divergences = sample(mean, logvar)
        gate = torch.softmax(stack.losses(latent, held, rows.without(held)), 1)
        loss = cross_entropy(stack.mixture(latent, gate), rows).mean() + divergences.mean()
        loss.backward()
    assert max(kept) < batch * n_experts * columns / 5
    assert sum(kept) < batch * n_experts * columns
