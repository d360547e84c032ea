"""TALL: held-out items, losses and weights within a model, and whole runs."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.model.general_recommender import MultiVAE

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.registry import lineage
from recbole_fair.data.batches.item_rows import ItemRows
from recbole_fair.data.facts.groups import mainstream_scores
from recbole_fair.data.facts.interactions import split_interactions
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import load_checkpoint
from recbole_fair.model.tall.experts import Bags
from recbole_fair.model.tall.tall import TALL, loss_gate
from recbole_fair.model.tall.user_weights import clipped_weights, niche_weights
from recbole_fair.quick_start import evaluate_checkpoint, load_data_and_model, run_recbole_fair
from recbole_fair.runs.loading import new_trainer
from recbole_fair.trainer.tall_trainer import EagerAdam

# -- models ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def options(small_data: Path, in_tmp: Path) -> dict[str, Any]:
    return {
        "data_path": str(small_data),
        "latent_dimension": 4,
        "n_experts": 3,
        "epochs": 3,
        "train_batch_size": 16,
        "learning_rate": 0.02,
        "topk": [5],
        "metrics": ["NDCG"],
        "valid_metric": "NDCG@5",
        "state": "error",
        "show_progress": False,
    }


def built(model: str, options: dict[str, Any], **changes: Any) -> tuple[Any, Any, tuple[Any, Any, Any]]:
    """Trainer and model with their loaders, all seeded."""
    if model != "TALL":
        options = {key: value for key, value in options.items() if key != "n_experts"}
    config = FairConfig(model, "small", config_dict={**options, **changes})
    trainer, loaders = new_trainer(config)
    return trainer, trainer.model, loaders


def some_users(net: Any, n: int = 8) -> dict[str, torch.Tensor]:
    return {net.USER_ID: torch.arange(1, n + 1)}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"gate_temperature": 2.0, "gap": 3, "weight_alpha": 0.1}, {}),
        ({"gate": "uniform", "gate_temperature": 2.0, "gap": 3}, {"gate_temperature": "gate=uniform"}),
        ({"gate": "mlp", "gate_hidden_size": 5, "gate_grad": True}, {"gate_grad": "gate=mlp"}),
        ({"gate_hidden_size": 5}, {"gate_hidden_size": "gate=inverse"}),
        ({"n_experts": 1, "gate_norm": "mean"}, {"gate_norm": "n_experts=1"}),
        (
            {"n_experts": 1, "gate_hidden_size": 5, "gate": "mlp"},
            dict.fromkeys(("gate_hidden_size", "gate"), "n_experts=1"),
        ),
        ({"weight_signal": "none", "gap": 3}, {"gap": "weight_signal=none"}),
        ({"weight_signal": "loss", "loss_window": 3, "gap": 3}, {"loss_window": "weight_signal=loss"}),
        ({"gate_source": "valid", "gate_fold_share": 0.2}, {"gate_fold_share": "gate_source=valid"}),
        (
            {"gate": "uniform", "weight_signal": "none", "gate_source": "valid"},
            {"gate_source": "gate=uniform and weight_signal=none"},
        ),
    ],
)
def test_keys_that_cannot_act_are_named(options, caplog, settings, named):
    with caplog.at_level(logging.WARNING, logger="recbole_fair.model.tall.tall"):
        built("TALL", options, **settings)
    said = [record.getMessage() for record in caplog.records if record.name == "recbole_fair.model.tall.tall"]
    assert said == [f"{key}={settings[key]!r} has no effect with {why}." for key, why in named.items()]


def test_multvae_is_recboles_multivae_without_the_padding_column(options):
    _, net, (train, _, _) = built("MultVAE", options, anneal_cap=0.3, total_anneal_steps=0)
    config = FairConfig(
        "MultiVAE",
        "small",
        config_dict={
            "data_path": options["data_path"],
            "mlp_hidden_size": [],
            "latent_dimension": 8,
            "dropout_prob": 0.0,
            "anneal_cap": 0.3,
            "total_anneal_steps": 0,
        },
    )
    theirs = MultiVAE(config, train._dataset)
    stack = net.experts
    with torch.no_grad():
        theirs.encoder[0].weight[:, 1:] = torch.cat([stack.mean[0], stack.logvar[0]], 1).t()
        theirs.encoder[0].bias.copy_(torch.cat([stack.mean_bias[0], stack.logvar_bias[0]]))
        theirs.decoder[0].weight[1:] = stack.decoder[:, 0]
        theirs.decoder[0].bias[1:] = stack.decoder_bias[0]
        theirs.decoder[0].weight[0], theirs.decoder[0].bias[0] = 0.0, -1e4  # the padding takes no probability
    net.eval(), theirs.eval()
    users = some_users(net)
    torch.testing.assert_close(net.calculate_loss(users), theirs.calculate_loss(users))
    scores = net.full_sort_predict(users)
    torch.testing.assert_close(scores[:, 1:], theirs.full_sort_predict(users).view(8, -1)[:, 1:])
    assert (scores[:, 0] == -torch.inf).all()
    pairs = {net.USER_ID: torch.tensor([3, 1, 3]), net.ITEM_ID: torch.tensor([5, 2, 1])}
    torch.testing.assert_close(net.predict(pairs), scores[[2, 0, 2], [5, 2, 1]])


def test_one_expert_without_weights_is_multvae(options):
    one = built("TALL", options, n_experts=1, weight_signal="none")
    other = built("MultVAE", options)
    for trainer, _, (train, valid, _) in (one, other):
        torch.manual_seed(7)
        trainer.fit(train, valid, saved=False)
    for name, value in other[1].experts.state_dict().items():
        assert torch.equal(value, one[1].experts.state_dict()[name]), name
    assert one[1].held_out is None
    assert torch.equal(one[1].full_sort_predict(some_users(one[1])), other[1].full_sort_predict(some_users(other[1])))


def loss_by_hand(net: TALL, users: torch.Tensor, weights: torch.Tensor, reduction: str, beta: float) -> torch.Tensor:
    """The objective of a batch, from dense rows and each expert's own scores, without noise."""
    seen, held = net.training_rows.of(users).dense(), net.held_out.of(users).dense()
    rows = torch.nn.functional.normalize(seen)
    stack, scores, losses, divergences = net.experts, [], [], []
    for k in range(net.n_experts):
        mean, logvar = rows @ stack.mean[k] + stack.mean_bias[k], rows @ stack.logvar[k] + stack.logvar_bias[k]
        scores.append(mean @ stack.decoder[:, k].t() + stack.decoder_bias[k])
        log_p = scores[-1] - torch.log((scores[-1].exp() * (1 - seen)).sum(1, keepdim=True))
        losses.append(-(log_p * held).sum(1))
        divergences.append(0.5 * (logvar.exp() + mean**2 - 1 - logvar).sum(1).mean())
    gate = torch.softmax(1 / torch.stack(losses, 1), 1)
    if not net.gate_grad:
        gate = gate.detach()
    mixed = sum(gate[:, k : k + 1] * scores[k] for k in range(net.n_experts))
    ce = -(torch.log_softmax(mixed, 1) * seen).sum(1)
    kl = sum(gate[:, k].mean() * divergences[k] for k in range(net.n_experts))
    return (weights * ce).sum() / weights.sum() + beta * kl * (len(users) if reduction == "sum" else 1)


@pytest.mark.parametrize(("reduction", "grad"), [("mean", False), ("sum", True)])
def test_loss_and_gradient_of_a_batch_by_hand(options, reduction, grad):
    _, net, _ = built("TALL", options, kl_reduction=reduction, gate_grad=grad, total_anneal_steps=0, anneal_cap=0.2)
    net.eval()  # no noise
    users = torch.arange(1, 9)
    net.user_weights.copy_(torch.rand(net.n_users))
    found = net.calculate_loss({net.USER_ID: users})
    wanted = loss_by_hand(net, users, net.user_weights[users], reduction, 0.2)
    torch.testing.assert_close(found, wanted)
    own, other = (torch.autograd.grad(loss, list(net.parameters())) for loss in (found, wanted))
    for a, b in zip(own, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_gate_does_not_depend_on_a_constant_in_an_experts_scores(options):
    _, net, _ = built("TALL", options)
    users = torch.arange(1, 9)
    net.eval()
    before = net._scoring_gate(users)
    with torch.no_grad():
        net.experts.decoder_bias[1] += 3.0
    torch.testing.assert_close(net._scoring_gate(users), before, atol=1e-6, rtol=1e-5)


def test_equal_experts_have_equal_weights_and_score_as_one(options):
    _, net, _ = built("TALL", options, gate="softmax")
    stack = net.experts
    with torch.no_grad():
        for value in (stack.mean, stack.mean_bias, stack.decoder_bias):
            value.copy_(value[:1].expand_as(value).clone())
        stack.decoder.copy_(stack.decoder[:, :1].expand_as(stack.decoder).clone())
    users = torch.arange(1, 9)
    torch.testing.assert_close(net._scoring_gate(users), torch.full((8, 3), 1 / 3))
    rows = torch.nn.functional.normalize(net.rows.of(users).dense())
    alone = (rows @ stack.mean[0] + stack.mean_bias[0]) @ stack.decoder[:, 0].t() + stack.decoder_bias[0]
    torch.testing.assert_close(net.full_sort_predict({net.USER_ID: users})[:, 1:], alone)


@pytest.mark.parametrize("gate", ["inverse", "mlp", "uniform"])
def test_padding_user_and_empty_users_never_contribute(options, gate):
    _, net, (train, _, _) = built("TALL", options, gate=gate)
    net.train()

    def loss_and_gradients(users: list[int]) -> list[torch.Tensor]:
        torch.manual_seed(1)
        net.updates.fill_(5)
        net.begin_epoch(0)
        loss = net.calculate_loss({net.USER_ID: torch.tensor(users)})
        grads = torch.autograd.grad(loss, [p for p in net.parameters() if p.requires_grad], allow_unused=True)
        return [loss, *(g for g in grads if g is not None)]

    for a, b in zip(loss_and_gradients([3, 1, 7]), loss_and_gradients([0, 3, 0, 1, 7]), strict=True):
        assert torch.equal(a, b)
    assert net.window.current[0].isnan()
    for epoch in range(2):
        seen = torch.cat([batch[net.USER_ID] for batch in train])
        assert sorted(seen.tolist()) == list(range(1, net.n_users)), epoch


def test_held_out_items_are_neither_input_nor_target_in_training(options):
    _, net, _ = built("TALL", options, gate_fold_share=0.2)
    assert (net.training_rows.dense() * net.held_out.dense()).sum() == 0
    assert torch.equal(net.training_rows.dense() + net.held_out.dense(), net.rows.dense())
    users = torch.arange(1, 9)
    # Scores are made from all training items, the gate from those without the held-out ones.
    latent = net.experts.encode_mean(Bags.normalised(net.rows.of(users), 3))
    visible = net.experts.encode_mean(Bags.normalised(net.training_rows.of(users), 3))
    losses = net.experts.losses(visible, net.held_out.of(users), net.training_rows.of(users))
    gate = loss_gate(losses, net.held_out.of(users).lengths, "inverse")
    torch.testing.assert_close(net.full_sort_predict({net.USER_ID: users})[:, 1:], net.experts.mixture(latent, gate))
    for settings_without in ({"gate": "uniform"}, {"gate": "mlp"}, {"n_experts": 1}):
        _, other, _ = built("TALL", options, weight_signal="none", **settings_without)
        assert other.held_out is None
        assert torch.equal(other.training_rows.dense(), other.rows.dense())


def perturbed(loader: Any, seed: int) -> Any:
    """The same validation users with other held-out items."""
    other = copy.copy(loader)
    other._dataset = copy.copy(loader._dataset)
    feat = copy.deepcopy(loader._dataset.inter_feat)
    items = feat[loader._dataset.iid_field]
    feat.interaction[loader._dataset.iid_field] = items[
        torch.randperm(len(items), generator=torch.Generator().manual_seed(seed))
    ]
    other._dataset.inter_feat = feat
    return other


@pytest.mark.parametrize(("source", "same"), [("fold", True), ("valid", False)])
def test_scores_depend_on_validation_labels_only_where_asked_for(options, source, same):
    scores = []
    for seed in (None, 1):
        # A single validation, at the end: none chooses between epochs, which looks at its labels in any case.
        trainer, net, (train, valid, _) = built(
            "TALL", options, gate="softmax", gate_source=source, gap=1, epochs=3, eval_step=3
        )
        if seed is not None:
            swapped = perturbed(valid, seed)
            assert not np.array_equal(
                split_interactions(swapped._dataset).item, split_interactions(valid._dataset).item
            )
            valid = swapped
        trainer.fit(train, valid, saved=False)
        net.eval()
        scores.append(net.full_sort_predict(some_users(net, 30)))
    assert torch.equal(*scores) == same


def test_users_without_held_out_items_have_a_uniform_gate_and_weight_one(tmp_path, options):
    folder = tmp_path / "data" / "thin"
    folder.mkdir(parents=True)
    rows = ["user_id:token\titem_id:token"]
    rows += [f"u{u}\ti{(u * 7 + j) % 25}" for u in range(40) for j in range(1 if u < 10 else 8)]
    (folder / "thin.inter").write_text("\n".join(rows) + "\n")
    settings = {**options, "data_path": str(tmp_path / "data"), "gap": 1, "epochs": 4, "gate": "softmax"}
    settings["eval_args"] = {"split": {"RS": [0.7, 0.1, 0.2]}, "order": "RO", "group_by": "user", "mode": "full"}
    result = run_recbole_fair("TALL", "thin", config_dict=settings)
    assert any(note.startswith("10 users have no held-out item") for note in result["notes"])
    assert np.isfinite(result["test_result"]["ndcg@5"])
    _, net, *_ = load_data_and_model(result["checkpoint"])
    thin = torch.nonzero(net.rows.lengths == 1).squeeze(1)
    assert len(thin) == 10
    torch.testing.assert_close(net._scoring_gate(thin), torch.full((10, 3), 1 / 3))
    assert (net.user_weights[thin] == 1).all()
    assert len(net.user_weights[net.held_out.lengths > 0].unique()) > 5


def test_weights_of_a_run_follow_from_its_losses(options):
    """The weights of epoch gap + 1 from losses recomputed at each batch, and 1 before."""
    trainer, net, (train, _, _) = built("TALL", options, gap=3, loss_window=2, weight_alpha=0.5)
    seen: list[dict[int, float]] = []
    original = net._see_scores

    def spy(users: torch.Tensor, rows: ItemRows, scores: torch.Tensor) -> None:
        for user, score, row in zip(users.tolist(), scores, rows.dense(), strict=True):
            hidden = row.bool()
            log_p = score - torch.logsumexp(score[~hidden], 0)
            seen[-1][user] = float(-(log_p * net.held_out.of(torch.tensor([user])).dense()[0]).sum())
        original(users, rows, scores)

    net._see_scores = spy
    for epoch in range(4):
        seen.append({})
        trainer._train_epoch(train, epoch)
        if epoch < 3:
            assert (net.user_weights == 1).all()
    change = [(seen[0][u] - seen[2][u]) / 2 for u in range(1, net.n_users)]
    expected = clipped_weights(torch.tensor(change, dtype=torch.double), 0.5)
    np.testing.assert_allclose(net.user_weights[1:], expected, rtol=1e-3, atol=1e-3)


def test_report_of_an_epoch(options):
    trainer, net, (train, _, _) = built("TALL", options, gap=1, gate="softmax")
    for epoch in range(3):
        trainer._train_epoch(train, epoch)
        report = net.epoch_report()
        assert 0 < report["TALL/gate_entropy"] < 1
        assert 1 < report["TALL/gate_max"] < 3
    scores = mainstream_scores(net.histories)
    ranked = np.argsort(scores[1:], kind="stable") + 1
    names = ["low", "med-low", "medium", "med-high", "high"]
    for name, members in zip(names, np.array_split(ranked, 5), strict=True):
        assert report[f"TALL/weight_{name}"] == pytest.approx(net.user_weights[torch.from_numpy(members)].mean().item())
    _, uniform, _ = built("TALL", options, gate="uniform", weight_signal="none")
    uniform.begin_epoch(0)
    uniform.calculate_loss(some_users(uniform))
    assert uniform.epoch_report() == {}


# -- training --------------------------------------------------------------------------------------------------------


def test_eager_adam_is_adam(options):
    results = []
    for kind in (EagerAdam, torch.optim.Adam):
        _, net, _ = built("TALL", options)
        optimizer = kind(list(net.parameters()), lr=0.01, weight_decay=0.1, fused=True)
        torch.manual_seed(3)
        for _ in range(3):
            optimizer.zero_grad()
            net.calculate_loss(some_users(net)).backward()
            if kind is EagerAdam:
                assert all(p.grad is None for p in net.parameters())
            optimizer.step()
        results.append((net.state_dict(), optimizer.state_dict()))
    for name, value in results[0][0].items():
        torch.testing.assert_close(value, results[1][0][name], rtol=0, atol=0, equal_nan=True)
    states = [result[1]["state"] for result in results]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][p]["exp_avg_sq"], states[1][p]["exp_avg_sq"]) for p in states[0])


def test_weight_decay_is_shared_among_the_experts(options):
    for by_experts, expected in ((True, 0.3 / 3), (False, 0.3)):
        trainer, _, _ = built("TALL", options, weight_decay=0.3, weight_decay_by_experts=by_experts)
        assert trainer.optimizer.param_groups[0]["weight_decay"] == pytest.approx(expected)
    trainer, _, _ = built("TALL", options, clip_grad_norm={"max_norm": 1.0})
    assert type(trainer.optimizer) is torch.optim.Adam  # clipping needs all gradients at once
    trainer, _, _ = built("TALL", options, learner="sgd", weight_decay=0.3)
    assert trainer.optimizer.param_groups[0]["weight_decay"] == pytest.approx(0.1)


def test_wl_weights_its_users(options):
    _, net, _ = built("WL", options, wl_exponent=1.5)
    net.eval()
    users = torch.arange(1, 9)
    weights = niche_weights(mainstream_scores(net.histories), 1.5)[users]
    _, plain, _ = built("WL", options, wl_exponent=0)
    plain.load_state_dict(net.state_dict())
    plain.eval()
    each = torch.stack([plain.calculate_loss({net.USER_ID: users[i : i + 1]}) for i in range(8)]).detach()
    found = net.calculate_loss({net.USER_ID: users}).item()
    # The first updates have next to no weight of the divergence.
    assert found == pytest.approx(float((weights * each).sum() / weights.sum()), rel=1e-5)
    assert lineage(type(net), "WL") == ("MultVAE", "WL")
    assert lineage(TALL, "TALL") == ("MultVAE", "TALL")


@pytest.mark.parametrize(
    ("changes", "validated"),
    [
        # stopping_step + 1 validations without improvement end a training: the second to fourth, or the first three
        # from the gap on.
        ({"gap": 6, "weight_signal": "none"}, 1 + 3),
        ({"gap": 6}, 6 + 3),
        ({"gap": 6, "eval_step": 2}, 3 + 3),
        ({"gap": 6, "eval_step": 4}, 1 + 3),
        ({"gap": 0}, 1 + 3),
        ({"gap": 6, "stopping_step": 0}, 6 + 1),
    ],
)
def test_patience_counts_from_the_end_of_the_gap(options, monkeypatch, changes, validated):
    trainer, _, (train, valid, _) = built("TALL", {**options, "epochs": 40, "stopping_step": 2, **changes})
    values = iter([0.5] + [0.1] * 40)  # validation never improves after the first
    monkeypatch.setattr(
        "recbole_fair.trainer.trainer.FairTrainerMixin._valid_epoch",
        lambda self, *_: (next(values), {"ndcg@5": 0.1}),
    )
    seen: list[int] = []
    trainer.fit(train, valid, saved=False, callback_fn=lambda epoch, _: seen.append(epoch))
    assert len(seen) == validated
    assert trainer._kept_epoch() == seen[0]
    before_the_weights = changes["gap"] > 0 and "weight_signal" not in changes
    assert any("precedes the user weights" in note for note in trainer.notes) == before_the_weights


# -- whole runs ------------------------------------------------------------------------------------------------------


def test_a_run_reports_groups_and_equal_weights_beside_the_gate(options):
    result = run_recbole_fair("TALL", "small", config_dict={**options, "gate": "softmax", "gap": 1})
    groups = result["groups"]["mainstream"]["groups"]
    assert [group["group"] for group in groups] == ["low", "med-low", "medium", "med-high", "high"]
    assert result["variants"]["gated"] == result["test_result"]
    assert result["variants"]["uniform"] == result["base_test_result"] != result["test_result"]
    assert not any("gate_source" in note for note in result["notes"])
    again = evaluate_checkpoint(result["checkpoint"])
    assert again["test_result"] == result["test_result"]
    assert again["groups"] == result["groups"]
    uniform = run_recbole_fair("TALL", "small", config_dict={**options, "gate": "uniform"})
    assert list(uniform["variants"]) == ["uniform"]


def test_validation_labels_in_the_gate_are_said_and_kept_in_the_checkpoint(options):
    result = run_recbole_fair("TALL", "small", config_dict={**options, "gate_source": "valid", "gate": "softmax"})
    assert any("validation results are not clean" in note for note in result["notes"])
    again = evaluate_checkpoint(result["checkpoint"])
    assert again["test_result"] == result["test_result"]
    assert any("validation results are not clean" in note for note in again["notes"])
    _, net, _, _, valid, _ = load_data_and_model(result["checkpoint"])
    inter = split_interactions(valid._dataset)
    wanted = ItemRows.from_pairs(inter.user, inter.item, net.n_users, net.n_items)
    assert torch.equal(net.held_out.columns, wanted.columns)
    assert torch.equal(net.training_rows.columns, net.rows.columns)


def test_validation_labels_need_a_validation_split(options):
    settings = {**options, "gate_source": "valid"}
    settings["eval_args"] = {"split": {"RS": [0.8, 0.0, 0.2]}, "order": "RO", "group_by": "user", "mode": "full"}
    with pytest.raises(FairError, match="gate_source=valid needs validation"):
        run_recbole_fair("TALL", "small", config_dict=settings)
    _, net, _ = built("TALL", options, gate_source="valid")
    with pytest.raises(FairError, match="has not been given the validation items"):
        net.full_sort_predict(some_users(net))


class KilledError(Exception):
    """Stands for the end of a process."""


@pytest.mark.parametrize("changes", [{"gap": 2, "dropout_prob": 0.2}, {"gate": "mlp", "gate_hidden_size": 5}])
def test_a_resumed_run_ends_with_the_numbers_of_an_uninterrupted_one(options, changes, monkeypatch):
    settings = {**options, "gate": "softmax", "epochs": 6, **changes}
    whole = run_recbole_fair("TALL", "small", config_dict={**settings, "checkpoint_dir": "whole"})
    with monkeypatch.context() as patch:
        original = TALL.begin_epoch

        def killed(self: Any, epoch: int) -> None:
            if epoch == 4:
                raise KilledError
            original(self, epoch)

        patch.setattr(TALL, "begin_epoch", killed)
        with pytest.raises(KilledError):
            run_recbole_fair("TALL", "small", config_dict=settings)
    (path,) = Path("saved").glob("*.pth")
    torch.rand(7), np.random.rand(3)
    resumed = run_recbole_fair("TALL", "small", config_dict={**settings, "resume": str(path)})
    assert resumed["best_valid_score"] == whole["best_valid_score"]
    assert resumed["test_result"] == whole["test_result"]
    a, b = load_checkpoint(path), load_checkpoint(whole["checkpoint"])
    for part in ("state_dict", "training"):
        mine, other = (content[part].get("state_dict") or content["state_dict"] for content in (a, b))
        for name, value in other.items():
            torch.testing.assert_close(mine[name], value, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [("n_experts", 0), ("gate_temperature", 0), ("gate", "loss"), ("gate_fold_share", 1.0), ("weight_alpha", 0)],
)
def test_values_out_of_range_are_named(options, key, value):
    with pytest.raises(FairError, match=f"{key}="):
        FairConfig("TALL", "small", config_dict={**options, key: value})


def test_two_groups_of_users_are_each_shown_their_own_items(tmp_path, options):
    folder = tmp_path / "data" / "two"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = ["user_id:token\titem_id:token"]
    for u in range(40):
        rows += [f"u{u}\t{'ab'[u % 2]}{i}" for i in rng.choice(15, 8, replace=False)]
    (folder / "two.inter").write_text("\n".join(rows) + "\n")
    config = FairConfig(
        "TALL", "two", config_dict={**options, "data_path": str(tmp_path / "data"), "weight_decay": 0.0}
    )
    trainer, (train, *_) = new_trainer(config)
    for epoch in range(30):
        trainer._train_epoch(train, epoch)
    net, data = trainer.model.eval(), train._dataset
    top = net.full_sort_predict(some_users(net, 40)).topk(15).indices
    groups = np.array([name[0] for name in data.id2token("item_id", np.arange(1, net.n_items))])
    of_user = np.array(["ab"[int(name[1:]) % 2] for name in data.id2token("user_id", np.arange(1, 41))])
    assert (groups[top.numpy() - 1] == of_user[:, None]).mean() > 0.95
