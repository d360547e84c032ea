"""TopKSAE: its sparse arithmetic against dense autograd, its recipe, its fitting."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_fair.errors import FairError
from recbole_fair.model.popsteer.quality import measure_sae
from recbole_fair.model.popsteer.refitting import fit_within, most_unexplained
from recbole_fair.model.popsteer.sae import SAESettings, TopKSAE, fit_sae, geometric_median, split_by_user
from recbole_fair.model.popsteer.score_error import score_error
from recbole_fair.model.popsteer.sparse_ops import grouped_topk, scatter_rows, sparse_decode, topk_linear


def mixture(n: int, d: int, atoms: int, active: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sparse positive mixtures of unit atoms: what a sparse autoencoder can recover."""
    generator = torch.Generator().manual_seed(seed)
    basis = F.normalize(torch.randn(atoms, d, generator=generator), dim=1)
    codes = torch.zeros(n, atoms)
    which = torch.rand(n, atoms, generator=generator).topk(active, dim=1).indices
    codes.scatter_(1, which, 1.0 + torch.rand(n, active, generator=generator))
    return codes @ basis, torch.arange(n) // 5


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 5),
    columns=st.sampled_from([1, 7, 16, 64, 96, 256, 1000, 1024]),
    share=st.floats(0.0, 1.0),
    levels=st.sampled_from([2, 50, 10**6]),
    seed=st.integers(0, 10**6),
)
def test_grouped_topk_is_topk(rows: int, columns: int, share: float, levels: int, seed: int) -> None:
    k = max(1, min(columns, round(share * columns)))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-levels, levels, (rows, columns), generator=generator).float()
    values, indices = grouped_topk(x, k)
    assert torch.equal(values.sort(dim=1).values, x.topk(k, dim=1).values.flip(1))
    assert torch.equal(x.gather(1, indices), values)
    assert all(len(set(row)) == k for row in indices.tolist())


def test_gradients_equal_dense_autograd() -> None:
    torch.manual_seed(0)
    d, n, k = 6, 64, 5
    sae = TopKSAE(d, n, k).double()
    with torch.no_grad():
        sae.b_enc.normal_(0, 0.3)
        sae.b_dec.normal_()
        sae.W_dec.normal_()
    dense = copy.deepcopy(sae)
    x = torch.randn(40, d, dtype=torch.float64)
    sae.inputs_since_fired[::3] = 10**6
    loss = sae.loss(x, sae(x), aux_coef=0.5, dead_after=100, batch_variance=True)
    loss.backward()

    # The same loss written with dense tensors and plain autograd.
    z = (x - dense.b_dec) @ dense.W_enc.t() + dense.b_enc
    kept = torch.zeros_like(z).scatter(1, z.topk(k).indices, 1.0)
    x_hat = (z.relu() * kept) @ dense.W_dec + dense.b_dec
    e = (x - x_hat).detach()
    dead = torch.zeros(n, dtype=torch.bool)
    dead[::3] = True
    masked = z.masked_fill(~dead, float("-inf"))
    k_aux = min(max(k, d // 2), int(dead.sum()))
    aux = torch.zeros_like(z).scatter(1, masked.topk(k_aux).indices, 1.0)
    e_hat = (z.relu() * aux) @ dense.W_dec
    expected = (x - x_hat).square().sum() / (x - x.mean(0)).square().sum()
    expected = expected + 0.5 * (e - e_hat).square().mean() / (e - e.mean(0)).square().mean()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for name, parameter in sae.named_parameters():
        torch.testing.assert_close(parameter.grad, dict(dense.named_parameters())[name].grad, rtol=1e-9, atol=1e-12)


def test_sparse_ops_against_loops() -> None:
    torch.manual_seed(1)
    weight, rows = torch.randn(9, 3), torch.randn(4, 3)
    values, indices = torch.randn(4, 2), torch.tensor([[0, 8], [8, 3], [3, 0], [1, 8]])
    decoded, scattered = torch.zeros(4, 3), torch.zeros(9, 3)
    for b in range(4):
        for k in range(2):
            decoded[b] += values[b, k] * weight[indices[b, k]]
            scattered[indices[b, k]] += values[b, k] * rows[b]
    torch.testing.assert_close(sparse_decode(values, indices, weight), decoded)
    torch.testing.assert_close(scatter_rows(values, indices, rows, 9), scattered)
    top_values, top_indices = topk_linear(rows, weight, torch.zeros(9), 3)
    torch.testing.assert_close((rows @ weight.t()).gather(1, top_indices), top_values)


def test_encodings_agree_and_negative_latents_do_not_fire() -> None:
    torch.manual_seed(2)
    sae = TopKSAE(8, 32, 20)
    with torch.no_grad():
        sae.b_enc.fill_(-0.5)
    x = torch.randn(3, 8)
    values, indices = sae.encode_sparse(x)
    dense = sae.encode(x)
    assert values.min() == 0  # with a bias this low, fewer than k latents are positive
    assert torch.equal(dense.gather(1, indices), values)
    chosen, where = sae.select(sae.encode_pre(x))
    torch.testing.assert_close(dense, torch.zeros_like(dense).scatter(1, where, chosen))
    torch.testing.assert_close(sae.decode(dense), sae(x).reconstruction)
    sae.count_firing(sae(x))
    never = ~(dense > 0).any(dim=0)
    assert never.any()
    assert torch.equal(sae.inputs_since_fired > 0, never)


def test_shift_equals_bias() -> None:
    torch.manual_seed(3)
    sae, x, shift = TopKSAE(8, 32, 4), torch.randn(20, 8), torch.randn(32)
    expected = sae.decode_sparse(*sae.select(sae.encode_pre(x) + shift))
    torch.testing.assert_close(sae(x, shift).reconstruction, expected)


def test_decoder_stays_on_the_sphere_and_gradient_is_tangent() -> None:
    x, users = mixture(600, 8, 12, 2, seed=0)
    sae = TopKSAE(8, 32, 4)
    fit_sae(sae, x, users, SAESettings(epochs=2, batch_size=64))
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(32))
    sae.loss(x, sae(x), 0.0, 100).backward()
    sae.project_gradient()
    torch.testing.assert_close((sae.W_dec.grad * sae.W_dec).sum(dim=1), torch.zeros(32), atol=1e-6, rtol=0)


def test_fit_recovers_a_sparse_mixture() -> None:
    x, users = mixture(4000, 16, 24, 2, seed=1)
    sae = TopKSAE(16, 64, 4)
    fit = fit_sae(sae, x, users, SAESettings(epochs=40, batch_size=256, learning_rate=3e-3, dead_after=4000))
    assert fit.quality.cosine > 0.975
    assert fit.quality.fvu == pytest.approx(min(fit.history), rel=1e-6)
    assert fit.history[fit.best_epoch - 1] == min(fit.history)


def test_dead_latents_revive() -> None:
    """Latents whose encoder never wins the selection come back through AuxK, and the reconstruction gains by it."""

    class BornDead(TopKSAE):
        def initialize(self, *args: object, **kwargs: object) -> None:
            super().initialize(*args, **kwargs)  # type: ignore[arg-type]
            with torch.no_grad():
                self.W_enc[8:] *= 0.02  # too quiet to be among the top k

    x, users = mixture(4000, 16, 24, 3, seed=2)
    alive = {}
    for aux_coef in (0.0, 1 / 32):
        sae = BornDead(16, 64, 4)
        settings_ = SAESettings(epochs=25, batch_size=128, aux_coef=aux_coef, dead_after=1000, stopping_step=25)
        alive[aux_coef] = fit_sae(sae, x, users, settings_).quality
    assert alive[1 / 32].alive_share > alive[0.0].alive_share + 0.1
    assert alive[1 / 32].fvu < 0.95 * alive[0.0].fvu


def test_fit_is_deterministic_and_leaves_the_global_generator_alone() -> None:
    x, users = mixture(500, 8, 12, 2, seed=3)
    states = []
    for _ in range(2):
        torch.manual_seed(len(states))
        before = torch.get_rng_state()
        sae = TopKSAE(8, 32, 4)
        torch.set_rng_state(before)
        fit_sae(sae, x, users, SAESettings(epochs=2, batch_size=64, seed=5))
        assert torch.equal(before, torch.get_rng_state())
        states.append(sae.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_budget_and_early_stopping() -> None:
    x, users = mixture(500, 8, 12, 2, seed=4)
    fit = fit_sae(TopKSAE(8, 32, 4), x, users, SAESettings(epochs=50, batch_size=50, max_inputs=1000))
    assert fit.inputs == 1000
    # With a rate of 0 nothing improves after the first epoch.
    fit = fit_sae(TopKSAE(8, 32, 4), x, users, SAESettings(learning_rate=0.0, stopping_step=3, batch_size=100))
    assert fit.epochs == 4
    assert fit.best_epoch == 1


def test_split_keeps_users_together() -> None:
    users = torch.tensor([3, 3, 3, 8, 8, 2, 9, 9, 9, 9])
    for seed in range(5):
        mask = split_by_user(users, 0.1, torch.Generator().manual_seed(seed))
        assert len(users[mask].unique()) == 1
        assert not set(users[mask].tolist()) & set(users[~mask].tolist())
    with pytest.raises(FairError, match="at least 2 users"):
        split_by_user(torch.tensor([4, 4]), 0.1, torch.Generator())


def test_quality_against_definitions() -> None:
    torch.manual_seed(5)
    sae, x = TopKSAE(8, 32, 4).double(), torch.randn(300, 8, dtype=torch.float64) + 3.0
    output = sae(x)
    error = x - output.reconstruction
    quality = measure_sae(sae, x, batch_size=64)
    variance = (x - x.mean(0)).square().sum()
    assert quality.fvu == pytest.approx((error.square().sum() / variance).item())
    assert quality.explained_variance == pytest.approx(
        (1 - error.var(0, correction=0).sum() / x.var(0, correction=0).sum()).item()
    )
    assert quality.cosine == pytest.approx(F.cosine_similarity(x, output.reconstruction).mean().item())
    fired = sae.encode(x) > 0
    assert quality.l0 == pytest.approx(fired.sum(1).double().mean().item())
    assert quality.alive_share == pytest.approx(fired.any(0).double().mean().item())
    torch.testing.assert_close(quality.frequency, fired.double().mean(0))


def test_state_dict_round_trip_without_encoder_bias() -> None:
    x, users = mixture(300, 8, 12, 2, seed=6)
    sae = TopKSAE(8, 32, 4, encoder_bias=False)
    fit_sae(sae, x, users, SAESettings(epochs=1, batch_size=64))
    assert torch.equal(sae.b_enc, torch.zeros(32))
    fresh = TopKSAE(8, 32, 4, encoder_bias=False)
    fresh.load_state_dict(sae.state_dict())
    assert torch.equal(fresh(x).reconstruction, sae(x).reconstruction)


@pytest.mark.parametrize("k", [0, 33, -1])
def test_k_out_of_range(k: int) -> None:
    with pytest.raises(FairError, match="sae_k"):
        TopKSAE(8, 32, k)


def test_geometric_median_resists_an_outlier() -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.5], [1000.0, 1000.0]])
    median = geometric_median(points, iterations=500)
    assert (median - torch.tensor([0.5, 0.5])).norm() < 0.4


def test_places_are_sorted_anew_for_other_indices() -> None:
    torch.manual_seed(9)
    values, rows = torch.randn(6, 3), torch.randn(6, 4)
    indices = torch.stack([torch.randperm(9)[:3] for _ in range(6)])
    for _ in range(3):
        dense = torch.zeros(6, 9).scatter_add_(1, indices, values)
        torch.testing.assert_close(scatter_rows(values, indices, rows, 9), dense.T @ rows)
        torch.testing.assert_close(scatter_rows(values, indices, rows, 12)[:9], dense.T @ rows)
        indices[0] = torch.randperm(9)[:3]  # in place: the same memory with other numbers


def test_gradients_of_a_step_are_those_of_the_plain_formula() -> None:
    torch.manual_seed(4)
    sae, x = TopKSAE(6, 24, 4).double(), torch.randn(40, 6, dtype=torch.float64) + 1.0
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    found = torch.autograd.grad(sae.loss(x, sae(x), 0.0, 10), list(sae.parameters()))
    pre = (x - sae.b_dec) @ sae.W_enc.T + sae.b_enc
    top = pre.topk(4)
    dense = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    plain = (x - dense @ sae.W_dec - sae.b_dec).square().sum() / 40
    for a, b in zip(found, torch.autograd.grad(plain, list(sae.parameters())), strict=True):
        torch.testing.assert_close(a, b)


def test_the_best_epoch_is_that_of_the_quality() -> None:
    x, users = mixture(600, 8, 12, 2, seed=6)
    fit = fit_sae(TopKSAE(8, 32, 4), x, users, SAESettings(epochs=4, batch_size=64))
    assert fit.history[fit.best_epoch - 1] == min(fit.history)
    assert fit.quality.fvu == fit.history[fit.best_epoch - 1]


# -- selections, activations, scores -----------------------------------------------------------------------------------


def test_batch_topk_keeps_as_many_a_row_on_average_and_those_above_a_threshold_later() -> None:
    torch.manual_seed(0)
    sae, x = TopKSAE(8, 32, 3, selection="batch_topk"), torch.randn(50, 8)
    pre = sae.encode_pre(x).relu()
    sae.train()
    dense = sae.encode(x)
    assert int((dense > 0).sum(1).max()) <= 12
    # The largest 3 x 50 of the batch, where no row has more than 12 of them.
    least = pre.flatten().topk(150).values.min()
    wanted = pre * (pre >= least)
    assert int((wanted > 0).sum(1).max()) <= 12
    torch.testing.assert_close(dense, wanted)
    sae.count_firing(sae(x))
    torch.testing.assert_close(sae.threshold, least.detach())
    sae.eval()
    torch.testing.assert_close(sae.encode(x), pre * (pre > least))


def test_absolute_activations_keep_their_signs() -> None:
    torch.manual_seed(1)
    sae, x = TopKSAE(8, 32, 5, activation="abs").double(), torch.randn(40, 8, dtype=torch.float64)
    x.requires_grad_()
    pre = sae.encode_pre(x)
    kept = pre * (pre.abs() >= pre.abs().topk(5, dim=1).values[:, -1:])
    torch.testing.assert_close(sae.encode(x), kept)
    assert bool((kept < 0).any())
    parameters = [x, sae.W_enc, sae.W_dec, sae.b_enc, sae.b_dec]
    ours = torch.autograd.grad(sae(x).reconstruction.square().sum(), parameters)
    plain = torch.autograd.grad((kept @ sae.W_dec + sae.b_dec).square().sum(), parameters)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other)


def test_matryoshka_adds_the_errors_of_the_first_latents_alone() -> None:
    torch.manual_seed(2)
    sae, x = TopKSAE(8, 32, 5, selection="matryoshka"), torch.randn(40, 8)
    dense = sae.encode(x)
    errors = []
    for size in (32, 2, 4, 8, 16):
        first = dense.clone()
        first[:, size:] = 0
        errors.append((x - first @ sae.W_dec - sae.b_dec).square().sum() / 40 / sae.input_variance)
    torch.testing.assert_close(sae.loss(x, sae(x), 0.0, 10**9), torch.stack(errors).mean())


def test_the_error_in_scores_is_that_over_all_items() -> None:
    torch.manual_seed(3)
    sae, x, items = TopKSAE(8, 32, 4), torch.randn(60, 8), torch.randn(25, 8)
    output = sae(x)
    change = (x - output.reconstruction) @ items.t()
    scores = x @ items.t()
    relative = change.square().sum() / (scores - scores.mean(0)).square().sum()
    with_scores, without = (
        sae.loss(x, output, 0.0, 10**9, score=score_error(items, x, coefficient)) for coefficient in (0.7, 0.0)
    )
    torch.testing.assert_close(with_scores - without, 0.7 * relative, rtol=1e-4, atol=1e-6)


def test_a_fit_for_scores_keeps_them_better() -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(600, 12, generator=generator)
    items = torch.randn(40, 12, generator=generator) * torch.tensor([3.0] * 3 + [0.1] * 9)  # few directions matter
    users, errors = torch.arange(600), []
    for coefficient in (0.0, 3.0):
        sae = TopKSAE(12, 48, 3)
        fit_sae(sae, x, users, SAESettings(epochs=15, batch_size=100, score_coef=coefficient), items=items)
        errors.append(float(((x - sae(x).reconstruction) @ items.t()).square().mean()))
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize("selection", ["topk", "batch_topk", "matryoshka"])
@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_every_selection_learns_and_is_exported_as_it_scores(selection: str, activation: str) -> None:
    x = torch.randn(500, 8, generator=torch.Generator().manual_seed(5))
    sae = TopKSAE(8, 32, 4, selection=selection, activation=activation)
    before = SAESettings(epochs=1, learning_rate=1e-9, batch_size=50)
    start = fit_sae(sae, x, torch.arange(500), before).quality.fvu
    fit = fit_sae(sae, x, torch.arange(500), SAESettings(epochs=15, batch_size=50))
    assert fit.quality.fvu < 0.9 * start
    shift = torch.randn(32, generator=torch.Generator().manual_seed(6)) * 0.1
    torch.testing.assert_close(sae.reconstruct_with(x, sae.b_enc + shift), sae(x, shift).reconstruction)
    fresh = TopKSAE(8, 32, 4, selection=selection, activation=activation)
    fresh.load_state_dict(sae.state_dict())
    torch.testing.assert_close(fresh.eval()(x).reconstruction, sae(x).reconstruction)


def test_an_encoder_to_scale_is_the_least_squares_one() -> None:
    x = torch.randn(500, 8, generator=torch.Generator().manual_seed(3)) * 3.0 + 1.0
    sae, plain = TopKSAE(8, 64, 6), TopKSAE(8, 64, 6)
    for one, to_scale in ((sae, True), (plain, False)):
        one.initialize(x, torch.Generator().manual_seed(0), to_scale=to_scale)
    size = float(sae.W_enc[0, 0] / plain.W_enc[0, 0])
    torch.testing.assert_close(sae.W_enc, size * plain.W_enc)
    errors = {
        factor: float((x - x.mean(0) - factor * (plain(x).reconstruction - x.mean(0))).square().sum())
        for factor in (0.98 * size, size, 1.02 * size, 1.0)
    }
    assert min(errors, key=errors.__getitem__) == size
    assert errors[size] == pytest.approx(float((x - sae(x).reconstruction).square().sum()), rel=1e-4)
    assert errors[size] < 0.5 * errors[1.0]


def test_more_latents_until_little_enough_is_unexplained() -> None:
    x, users = torch.randn(1500, 8, generator=torch.Generator().manual_seed(1)), torch.arange(1500) // 3
    recipe = SAESettings(epochs=3, batch_size=128)
    fits = fit_within(sae := TopKSAE(8, 64, 2), x, users, recipe, 0.05)
    assert len(fits) > 1
    assert [fit.quality.fvu > 0.05 for fit in fits] == [
        *[True] * (len(fits) - 1),
        sae.k == 8 and fits[-1].quality.fvu > 0.05,
    ]
    assert 2 < sae.k <= 8
    again = TopKSAE(8, 64, 2)
    again.load_state_dict(sae.state_dict())
    assert again.k == again.width == sae.k
    assert torch.equal(again(x).reconstruction, sae(x).reconstruction)
    # One fit where any error will do, the same as without a bound, and no more latents than numbers.
    alone = TopKSAE(8, 64, 2)
    fit_sae(alone, x, users, recipe)
    for bound in (None, 1.0):
        sae = TopKSAE(8, 64, 2)
        assert len(fit_within(sae, x, users, recipe, bound)) == 1
        assert torch.equal(sae.W_enc, alone.W_enc)
    fit_within(sae := TopKSAE(8, 64, 2), x, users, recipe, 1e-9)
    assert sae.k == 8


def test_files_without_the_number_of_latents_keep_that_of_the_settings() -> None:
    state = TopKSAE(8, 32, 4).state_dict()
    del state["kept"]
    sae = TopKSAE(8, 32, 6)
    sae.load_state_dict(state)
    assert sae.k == int(sae.kept) == 6


@pytest.mark.parametrize(
    ("given", "bound"), [({}, 0.02), ({"sae_k": 32}, None), ({"sae_k": 32, "sae_most_unexplained": 0.1}, 0.1)]
)
def test_a_number_of_latents_that_is_given_stays(given: dict[str, float], bound: float | None) -> None:
    class Config(dict[str, float]):
        user_settings = given

    assert most_unexplained(Config({"sae_most_unexplained": 0.02, **given})) == bound
