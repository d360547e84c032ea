"""LOCA, LFT and EnLFT against separate models and literal formulas."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import nn

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.batches.item_rows import ItemRows
from recbole_fair.data.facts.interactions import split_interactions
from recbole_fair.errors import FairError
from recbole_fair.model.tall import experts as experts_module
from recbole_fair.model.tall import loca as loca_module
from recbole_fair.model.tall.experts import StackedVAE
from recbole_fair.model.tall.fine_tuning import Recipe, cost, fine_tuned
from recbole_fair.model.tall.lft import (
    anchor_weights,
    jaccard,
    neighbourhoods,
    smoothed_profiles,
    spread_anchors,
    unit_rows,
)
from recbole_fair.model.tall.loca import LOCA, cover, epanechnikov
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair
from recbole_fair.runs.loading import new_trainer


@pytest.fixture
def options(small_data: Path, in_tmp: Path) -> dict[str, Any]:
    return {
        "data_path": str(small_data),
        "latent_dimension": 4,
        "epochs": 2,
        "train_batch_size": 16,
        "learning_rate": 0.02,
        "topk": [5],
        "metrics": ["NDCG"],
        "valid_metric": "NDCG@5",
        "state": "error",
        "show_progress": False,
    }


def built(model: str, options: dict[str, Any], **changes: Any) -> tuple[Any, tuple[Any, Any, Any]]:
    config = FairConfig(model, "small", config_dict={**options, **changes})
    trainer, loaders = new_trainer(config)
    return trainer.model, loaders


class OneVAE(nn.Module):
    """A single autoencoder as one would write it."""

    def __init__(self, stack: StackedVAE, k: int = 0) -> None:
        super().__init__()
        self.encoder = nn.Linear(stack.mean.shape[1], 2 * stack.mean.shape[2])
        self.decoder = nn.Linear(stack.mean.shape[2], stack.mean.shape[1])
        with torch.no_grad():
            self.encoder.weight.copy_(torch.cat([stack.mean[k], stack.logvar[k]], 1).t())
            self.encoder.bias.copy_(torch.cat([stack.mean_bias[k], stack.logvar_bias[k]]))
            self.decoder.weight.copy_(stack.decoder[:, k])
            self.decoder.bias.copy_(stack.decoder_bias[k])

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores, and divergence of each row."""
        mean, logvar = self.encoder(F.normalize(rows)).chunk(2, 1)
        return self.decoder(mean), 0.5 * (logvar.exp() + mean**2 - 1 - logvar).sum(1)


# -- LOCA ------------------------------------------------------------------------------------------------------------


def test_kernel_by_hand():
    users = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [-1.0, 0.0]], dtype=torch.double)
    # Angles of 0, 45, 90 and 180 degrees: distances 0, 1/2, 1 and 2.
    for width, expected in ((1.0, [0.75, 0.5625, 0, 0]), (0.8, [0.75, 0.75 * (1 - (0.5 / 0.8) ** 2), 0, 0])):
        found = epanechnikov(users, users[:1], width)[:, 0]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_cover_takes_the_most_open_users_each_time():
    covers = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]).bool()
    assert cover(covers, 2).tolist() == [1, 2]
    # All users are covered: the count starts anew, and of the rest 0 covers most.
    assert cover(covers, 5).tolist() == [1, 2, 0, 3, 4]


def test_a_step_of_all_local_models_is_a_step_of_each_alone(options, monkeypatch):
    monkeypatch.setattr(experts_module, "NOISE", 0.0)
    net, _ = built("LOCA", options, n_experts=3, total_anneal_steps=4, anneal_cap=0.9)
    kernel = torch.rand(net.n_users, 3) * (torch.rand(net.n_users, 3) < 0.6)
    kernel[:, 2] = 0.0
    kernel[1, 2] = 0.5  # a single neighbour
    users = torch.arange(1, 12)
    dense = net.rows.of(users).dense()
    separate = [OneVAE(net.experts, k) for k in range(3)]
    optimizer = torch.optim.Adam(net.experts.parameters(), lr=0.01, weight_decay=0.1)
    net._step(users, kernel, optimizer, steps=2)
    for k, alone in enumerate(separate):
        own = torch.optim.Adam(alone.parameters(), lr=0.01, weight_decay=0.1)
        weights = kernel[users, k]
        members = weights > 0
        scores, divergence = alone(dense[members])
        ce = -(torch.log_softmax(scores, 1) * dense[members]).sum(1)
        (weights[members] * ce + 0.5 * divergence).mean().backward()
        own.step()
        torch.testing.assert_close(net.experts.decoder[:, k], alone.decoder.weight, atol=2e-4, rtol=0)
        found = torch.cat([net.experts.mean[k], net.experts.logvar[k]], 1).t()
        torch.testing.assert_close(found, alone.encoder.weight, atol=2e-4, rtol=0)


def test_every_local_model_keeps_its_own_best_epoch(options, monkeypatch):
    net, (train, valid, _) = built("LOCA", options, n_experts=2, epochs=6, stopping_step=1)
    scores = iter([[0.1, 0.4], [0.3, 0.3], [0.2, 0.2], [0.1, 0.1], [0.9, 0.9]])
    weights: list[torch.Tensor] = []

    class Judge:
        def __init__(self, *_: Any) -> None: ...

        def scores(self) -> torch.Tensor:
            weights.append(net.experts.decoder.detach().clone())
            return torch.tensor(next(scores))

    monkeypatch.setattr(loca_module, "_Validation", Judge)
    epochs, best = net._train(train, valid, torch.ones(net.n_users, 2), False)
    assert best.tolist() == [1, 0]
    assert epochs == 4  # the second stopped after epoch 2, the first after 3; the fifth score is never asked for
    assert torch.equal(net.experts.decoder[:, 0], weights[1][:, 0])
    assert torch.equal(net.experts.decoder[:, 1], weights[0][:, 1])


def test_without_validation_the_last_epoch_stands(options, caplog):
    net, (train, *_) = built("LOCA", options, n_experts=2, epochs=2, kl_reduction="sum")
    before = net.experts.decoder.detach().clone()
    net.fit_intervention(train, None)
    assert (net.experts.decoder != before).float().mean() > 0.9
    assert net.report["epochs"] == 2
    assert net.report["mean_best_epoch"] == 1
    assert "kl_reduction: of the base alone" in caplog.text


def test_validation_of_local_models_against_a_loop_over_users(options):
    net, (_, valid, _) = built("LOCA", options, n_experts=3, loca_test_h=0.9)
    net.kernel.copy_((torch.rand(net.n_users, 3) < 0.5).float())
    found = loca_module._Validation(net, valid).scores()
    inter = split_interactions(valid._dataset)
    for k in range(3):
        alone, values = OneVAE(net.experts, k), []
        for user in range(1, net.n_users):
            held = inter.item[inter.user == user] - 1
            if net.kernel[user, k] == 0 or len(held) == 0:
                continue
            row = net.rows.of(torch.tensor([user])).dense()
            scores = alone(row)[0].detach()[0].masked_fill(row[0] > 0, -torch.inf)
            ranked = scores.argsort(descending=True)[:5].tolist()
            dcg = sum(1 / math.log2(rank + 2) for rank, item in enumerate(ranked) if item in held)
            values.append(dcg / sum(1 / math.log2(rank + 2) for rank in range(min(5, len(held)))))
        assert found[k].item() == pytest.approx(np.mean(values), abs=1e-5)


def test_scores_are_means_by_the_kernel_and_the_base_beyond_all_anchors(options):
    net, _ = built("LOCA", options, n_experts=2)
    net.fitted.fill_(True)
    net.kernel[1:4] = torch.tensor([[0.3, 0.1], [0.0, 0.2], [0.0, 0.0]])
    users = {net.USER_ID: torch.tensor([1, 2, 3])}
    dense = net.rows.of(users[net.USER_ID]).dense()
    first, second = (OneVAE(net.experts, k)(dense)[0] for k in range(2))
    found = net.full_sort_predict(users)[:, 1:]
    torch.testing.assert_close(found[0], 0.75 * first[0] + 0.25 * second[0])
    torch.testing.assert_close(found[1], second[1])
    torch.testing.assert_close(found[2], net.base.full_sort_predict(users)[2, 1:])
    with net.use_variant("base"):
        assert torch.equal(net.full_sort_predict(users), net.base.full_sort_predict(users))


@pytest.mark.parametrize("anchors", ["coverage", "kmeans", "random"])
def test_anchors_are_distinct_users(options, anchors):
    net, _ = built("LOCA", options, n_experts=6, loca_anchors=anchors)
    users = net.active_users()
    chosen = net._anchors(net._embeddings(users))
    assert len(set(chosen.tolist())) == 6
    if anchors == "coverage":
        assert (chosen % 10 == 0).all()  # every tenth of the 60 users


# -- neighbours ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sets() -> sparse.csr_matrix:
    rng = np.random.default_rng(4)
    dense = (rng.random((30, 18)) < rng.uniform(0.1, 0.6, (30, 1))).astype(np.float32)
    dense[:, 0] = 1
    return sparse.csr_matrix(dense)


def jaccard_by_sets(sets: sparse.csr_matrix) -> np.ndarray:
    items = [set(sets[u].indices) for u in range(sets.shape[0])]
    return np.array([[0.0 if a is b else len(a & b) / len(a | b) for b in items] for a in items])


def test_jaccard_of_blocks(sets):
    wanted = jaccard_by_sets(sets)
    np.testing.assert_allclose(jaccard(sets, slice(7, 20)), wanted[7:20], atol=1e-6)


@pytest.mark.parametrize("threshold", [0.1, 0.45, 0.99])
def test_smoothed_profiles_by_a_loop(sets, threshold, monkeypatch):
    monkeypatch.setattr("recbole_fair.model.tall.lft._BLOCK", 8)
    similarity, dense = jaccard_by_sets(sets), sets.toarray()
    found = smoothed_profiles(sets, 0.7, threshold)
    for user in range(30):
        similar = np.flatnonzero(similarity[user] > threshold)
        if len(similar) < 10:
            tenth = np.sort(similarity[user])[-10]
            if (similarity[user] >= tenth).sum() > 10:
                continue  # a tie for the tenth place
            similar = np.flatnonzero(similarity[user] >= tenth)
        np.testing.assert_allclose(found[user], 0.7 * dense[user] + 0.3 * dense[similar].mean(0), atol=1e-6)


def test_neighbourhoods_by_a_loop(sets, monkeypatch):
    monkeypatch.setattr("recbole_fair.model.tall.lft._BLOCK", 8)
    unit = unit_rows(smoothed_profiles(sets, 0.7, 0.1))
    cosine = unit @ unit.T
    rows = np.array([5, 0, 29])
    for threshold, least, most in ((0.85, 4, None), (0.99, 6, None), (0.2, 4, 9)):
        for user, found in zip(rows, neighbourhoods(unit, rows, threshold, least, most), strict=True):
            ranked = [int(v) for v in np.argsort(-cosine[user])]
            ranked.remove(user)
            count = max(least, int((np.delete(cosine[user], user) > threshold).sum()) + 1)
            wanted = [user, *ranked][: count if most is None else min(count, most)]
            assert sorted(wanted) == found.tolist()


def test_anchors_by_the_literal_formula(sets):
    unit = unit_rows(smoothed_profiles(sets, 0.7, 0.1))
    cosine = (unit @ unit.T).astype(np.float64)
    np.fill_diagonal(cosine, 0.0)
    chosen: list[int] = []
    for i in range(6):
        rest = [u for u in range(30) if u not in chosen]
        score = {u: cosine[u, rest].sum() / (30 - i) - (1.5 * cosine[u, chosen].sum() / i if i else 0.0) for u in rest}
        chosen.append(max(score, key=lambda u: score[u]))
    assert spread_anchors(unit, 6).tolist() == chosen


def test_anchor_weights_by_hand():
    similarity = np.array([[0.6, 0.2, 0.1], [0.15, 0.05, 0.0], [0.0, 0.0, 0.0]], dtype=np.float32)
    expected = [[0.75, 0.25, 0], [0.75, 0.25, 0], [1 / 3] * 3]
    np.testing.assert_allclose(anchor_weights(similarity, 0.2), expected, rtol=1e-6)


# -- fine-tuning -----------------------------------------------------------------------------------------------------

RECIPE = Recipe(epochs=3, batch_size=4, learning_rate=0.01, weight_decay=0.1, dropout=0.0, beta=0.2, chunk=None, seed=3)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experts_module, "NOISE", 0.0)


def a_base() -> tuple[StackedVAE, ItemRows, list[torch.Tensor]]:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    cells = rng.random((13, 9)) < 0.5
    cells[0], cells[:, 0] = False, False
    user, item = np.nonzero(cells)
    groups = [torch.tensor(g) for g in ([1, 2, 3], list(range(1, 12)), [5], [12, 2, 4, 6, 8], [7, 9])]
    return StackedVAE(1, 8, 3), ItemRows.from_pairs(user, item, 13, 9), groups


def test_copies_are_fine_tuned_as_if_each_were_alone(quiet):
    base, rows, groups = a_base()
    found: dict[int, Any] = {}
    for part, copies in fine_tuned(base, groups, rows, RECIPE):
        for place, number in enumerate(part):
            found[number] = {name: value.detach()[place] for name, value in copies.tensors.items()}
    assert sorted(found) == [0, 1, 2, 3, 4]
    for number, group in enumerate(groups):
        alone = OneVAE(base)
        optimizer = torch.optim.Adam(alone.parameters(), lr=0.01, weight_decay=0.1)
        generator = torch.Generator().manual_seed(3 * 1_000_003 + number)
        for _ in range(3):
            order = group[torch.randperm(len(group), generator=generator)]
            for batch in order.split(4):
                dense = rows.of(batch).dense()
                scores, divergence = alone(dense)
                loss = (-(torch.log_softmax(scores, 1) * dense).sum(1) + 0.2 * divergence).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        torch.testing.assert_close(found[number]["decoder"], alone.decoder.weight, atol=2e-5, rtol=0)
        torch.testing.assert_close(found[number]["decoder_bias"], alone.decoder.bias, atol=2e-5, rtol=0)
        encoder = torch.cat([found[number]["mean"], found[number]["logvar"]], 1).t()
        torch.testing.assert_close(encoder, alone.encoder.weight, atol=2e-5, rtol=0)


def test_chunks_do_not_change_the_result(quiet):
    base, rows, groups = a_base()
    users = torch.tensor([4, 5, 6, 7, 8])
    results = []
    for chunk in (None, 2):
        recipe = Recipe(**{**RECIPE.__dict__, "chunk": chunk})
        moves: list[tuple[int, int]] = []
        scores, experts = torch.zeros(5, 8), StackedVAE(5, 8, 3)
        for part, copies in fine_tuned(base, groups, rows, recipe, lambda a, b, _, m=moves: m.append((a, b))):
            scores[part] = copies.scores(rows.of(users[part]))
            copies.write(experts, part)
        assert [done for done, _ in moves] == list(range(1, moves[-1][1] + 1))
        assert moves[-1][1] == {None: 9, 2: 9 + 3 * 1 + 3 * 1}[chunk]  # the longest of each chunk: 11, 3 and 1 users
        for k, user in enumerate(users):
            dense = rows.of(user.view(1)).dense()
            torch.testing.assert_close(scores[k], OneVAE(experts, k)(dense)[0][0].detach())
        results.append(scores)
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


def test_cost_by_hand_and_without_a_trace():
    base, rows, groups = a_base()
    state = torch.get_rng_state()
    before = [p.clone() for p in base.parameters()]
    found = cost(base, groups, rows, RECIPE)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, base.parameters(), strict=True))
    assert found["copies"] == 5
    assert found["mean_users"] == pytest.approx(22 / 5)
    assert found["steps"] == 9
    assert found["teraflop"] == pytest.approx(6 * 24 * 22 * 3 / 1e12)
    parameters = 8 * 3 * 2 + 3 * 2 + 8 * 3 + 8
    assert found["chunk_megabytes"] == pytest.approx(5 * 4 * 4 * parameters / 2**20)
    assert found["minutes"] > 0


# -- whole runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("LOCA", {"n_experts": 4}),
        ("LFT", {"lft_epochs": 1, "lft_batch_size": 8, "lft_chunk": 16}),
        ("EnLFT", {"n_experts": 4, "lft_epochs": 1, "lft_batch_size": 8}),
    ],
)
def test_a_run_reports_the_base_beside_the_local_models_and_loads_again(options, model, changes, caplog):
    with caplog.at_level("INFO"):
        result = run_recbole_fair(model, "small", config_dict={**options, **changes, "state": "info"})
    assert list(result["variants"]) == ["base", "local"]
    assert result["variants"]["local"] == result["test_result"] != result["base_test_result"]
    assert len(result["groups"]["mainstream"]["groups"]) == 5
    said = [record.getMessage() for record in caplog.records]
    if model != "LOCA":
        assert any(line.startswith(f"{model} fine-tunes") and "TFLOP" in line and "minutes" in line for line in said)
        assert result["intervention"]["fine_tuning"]["copies"] == (60 if model == "LFT" else 4)
    again = evaluate_checkpoint(result["checkpoint"])
    assert again["test_result"] == result["test_result"]
    assert again["base_test_result"] == result["base_test_result"]


@pytest.mark.parametrize("model", ["LOCA", "LFT", "EnLFT"])
def test_users_without_training_items_get_the_scores_of_the_base(options, model):
    split = {"split": {"RS": [0.1, 0.4, 0.5]}, "order": "RO", "group_by": "none", "mode": "full"}
    small = {} if model == "LFT" else {"n_experts": 4}
    net, (train, valid, _) = built(model, options, eval_args=split, **small)
    net.fit_intervention(train, valid)
    rows = net.rows.lengths[1:]
    cold, warm = (torch.nonzero(found).squeeze(1) + 1 for found in (rows == 0, rows > 0))
    assert len(cold) > 0
    scores: dict[str, torch.Tensor] = {}
    for variant in net.variants:
        with net.use_variant(variant):
            scores[variant] = net.full_sort_predict({net.USER_ID: torch.cat([cold, warm])})
    n = len(cold)
    assert torch.equal(scores["local"][:n], scores["base"][:n])
    assert not torch.equal(scores["local"][n:], scores["base"][n:])


def test_more_local_models_than_users_are_refused(options):
    for model in ("LOCA", "EnLFT"):
        with pytest.raises(FairError, match="n_experts=61 is more than the 60 users"):
            built(model, options, n_experts=61)


def test_local_models_are_not_scored_before_they_are_fitted(options):
    net, _ = built("LOCA", options, n_experts=2)
    assert isinstance(net, LOCA)
    with pytest.raises(FairError, match="LOCA has not been fitted yet"):
        net.full_sort_predict({net.USER_ID: torch.tensor([1])})
