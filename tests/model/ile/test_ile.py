from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.model.general_recommender import BPR, NGCF
from recbole.model.loss import BPRLoss
from recbole.utils import init_seed
from scipy.stats import entropy
from torch.utils.tensorboard import SummaryWriter

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.registry import get_trainer, layers_of
from recbole_fair.data.reading.prepare import load_data
from recbole_fair.errors import FairError
from recbole_fair.model.ile.group_loss import DISTANCES, group_distance, group_sums
from recbole_fair.model.ile.ile import ILE, IPS, IPSBPR, PairLoss
from recbole_fair.model.propensity import inverse_propensity
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair

MEANS = st.lists(st.floats(0.01, 10), min_size=2, max_size=5)


def by_numpy(means: list[float], kind: str) -> float:
    values = np.array(means)
    if len(values) < 2:
        return 0.0
    if kind == "std":
        return float(values.std(ddof=1))
    if kind == "mad":
        return float(np.abs(values - values.mean()).mean())
    return float(len(values) - np.exp(entropy(values / values.sum())))


# -- the distance, a pure function of sums and counts ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    # Means 1, 2, 6: off the mean by -2, -1, 3. Shares 1/9, 2/9, 6/9: exp(entropy) = 9 / (2^(2/9) 6^(6/9)).
    [("std", (14 / 2) ** 0.5), ("mad", 2.0), ("ent", 3 - 9 / (2 ** (2 / 9) * 6 ** (6 / 9)))],
)
def test_distances_by_hand(kind, expected):
    sums, counts = torch.tensor([2.0, 2.0, 24.0]), torch.tensor([2.0, 1.0, 4.0])
    assert group_distance(sums, counts, kind).item() == pytest.approx(expected, rel=1e-6)


@given(MEANS, st.lists(st.integers(0, 5), min_size=5, max_size=5), st.sampled_from(DISTANCES))
@settings(max_examples=60, deadline=None)
def test_distances_against_numpy_with_absent_groups_left_out(means, counts, kind):
    counts = counts[: len(means)]
    sums = torch.tensor([m * n for m, n in zip(means, counts, strict=True)], dtype=torch.double)
    found = group_distance(sums, torch.tensor(counts), kind).item()
    here = [m for m, n in zip(means, counts, strict=True) if n > 0]
    assert found == pytest.approx(by_numpy(here, kind), abs=2e-6)


@given(MEANS, st.floats(1e-3, 1e3))
@settings(max_examples=60, deadline=None)
def test_entropy_distance_does_not_depend_on_the_scale_and_is_bounded(means, scale):
    sums, counts = torch.tensor(means, dtype=torch.double), torch.ones(len(means))
    distance = group_distance(sums, counts, "ent").item()
    assert group_distance(scale * sums, counts, "ent").item() == pytest.approx(distance, abs=1e-9)
    assert -1e-9 <= distance <= len(means) - 1
    for kind in ("std", "mad"):
        one, many = group_distance(sums, counts, kind).item(), group_distance(scale * sums, counts, kind).item()
        assert many == pytest.approx(scale * one, rel=1e-4, abs=2e-6 * max(scale, 1))  # the root's epsilon


@pytest.mark.parametrize("kind", DISTANCES)
@pytest.mark.parametrize(
    ("sums", "counts"),
    [
        ([3.0, 3.0, 3.0], [1, 1, 1]),
        ([0.0, 0.0, 0.0], [2, 3, 4]),
        ([0.0, 1.0, 1.0], [2, 1, 1]),
        ([0.0, 4.0, 0.0], [0, 2, 0]),
        ([0.0, 0.0, 0.0], [0, 0, 0]),
        ([1.0, 0.0, 1.0], [1, 0, 1]),
    ],
)
def test_value_and_gradient_are_finite_where_they_could_break(kind, sums, counts):
    leaf = torch.tensor(sums, requires_grad=True)
    with torch.autograd.detect_anomaly(check_nan=True):
        distance = group_distance(leaf, torch.tensor(counts), kind)
        distance.backward()
    assert torch.isfinite(distance)
    assert torch.isfinite(leaf.grad).all()
    here = {s / n for s, n in zip(sums, counts, strict=True) if n}
    if len(here) < 2:
        assert distance.item() == pytest.approx(0.0, abs=2e-6)


@pytest.mark.parametrize("kind", DISTANCES)
def test_gradient_by_finite_differences(kind):
    sums = torch.tensor([1.0, 2.5, 0.7], dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: group_distance(s, torch.tensor([2, 3, 1]), kind), [sums])


def test_unknown_distance():
    with pytest.raises(ValueError, match="std, ent, mad"):
        group_distance(torch.ones(3), torch.ones(3), "kl")


@given(st.integers(0, 2**31 - 1), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_sums_and_counts_of_parts_add_up_to_those_of_the_whole(seed, parts):
    generator = torch.Generator().manual_seed(seed)
    losses = torch.rand(50, generator=generator, dtype=torch.double)
    groups = torch.randint(-1, 3, (50,), generator=generator)  # -1: in no group
    membership = torch.stack([groups == g for g in range(3)], dim=1).double()
    pieces = [group_sums(a, b) for a, b in zip(losses.chunk(parts), membership.chunk(parts), strict=True)]
    sums, counts = (torch.stack(part).sum(0) for part in zip(*pieces, strict=True))
    for group in range(3):
        rows = [i for i in range(50) if groups[i] == group]
        assert counts[group] == len(rows)
        assert sums[group].item() == pytest.approx(sum(losses[i].item() for i in rows))
    for kind in DISTANCES:
        whole = group_distance(*group_sums(losses, membership), kind)
        torch.testing.assert_close(group_distance(sums, counts, kind), whole)


# -- the loss of every pair -------------------------------------------------------------------------------------------


def test_pair_loss_is_recboles_bit_for_bit():
    torch.manual_seed(0)
    scores = [(4 * torch.randn(1000)).requires_grad_() for _ in range(4)]
    theirs, ours = BPRLoss()(*scores[:2]), PairLoss(1e-10)
    scores[2].data, scores[3].data = scores[0].data.clone(), scores[1].data.clone()
    mine = ours(*scores[2:])
    theirs.backward()
    mine.backward()
    assert torch.equal(mine, theirs)
    assert torch.equal(scores[0].grad, scores[2].grad)
    assert torch.equal(scores[1].grad, scores[3].grad)


class ILENGCF(ILE, NGCF):
    """As the documentation shows it."""


class ILEIPSBPR(ILE, IPS, BPR):
    """Both mixins on one model."""


@pytest.fixture
def options(small_data: Path, in_tmp: Path) -> dict[str, Any]:
    return {
        "data_path": str(small_data),
        "epochs": 3,
        "train_batch_size": 128,
        "embedding_size": 8,
        "hidden_size_list": [8],
        "show_progress": False,
        "metrics": ["NDCG", "UPD", "AggregateDiversity", "ExposureGini"],
        "topk": [5],
        "valid_metric": "NDCG@5",
        "learning_rate": 0.05,
        "head_share": 0.3,  # the most popular item of the small data has more than a fifth
        "segment_head_share": 0.3,
    }


def prepared(model: Any, options: dict[str, Any], **changes: Any) -> tuple[Any, Any, Any]:
    config = FairConfig(model, "small", config_dict={**options, **changes})
    init_seed(3, True)
    train = load_data(config)[0]
    init_seed(3, True)
    return config, config.model_class(config, train._dataset), next(iter(train))


@pytest.mark.parametrize("kind", DISTANCES)
def test_loss_is_the_bases_plus_the_distance_of_the_batch(kind, options):
    _, net, batch = prepared("ILEBPR", options, ile_weight=0.7, ile_distance=kind)
    user, positive, negative = (batch[name] for name in ("user_id", "item_id", "neg_item_id"))
    u, i, j = net.user_embedding.weight[user], net.item_embedding.weight[positive], net.item_embedding.weight[negative]
    losses = -torch.log(1e-10 + torch.sigmoid((u * i).sum(1) - (u * j).sum(1)))
    torch.testing.assert_close(net.pair_losses(batch), losses)
    # Head, mid and tail from the training interactions, most popular first.
    counts = net.popularity.counts
    head, tail = set(net.popularity.head_items.tolist()), set(net.popularity.tail_items.tolist())
    assert min(counts[list(head)]) >= max(counts[list(tail)])
    means = [
        float(np.mean([loss for loss, item in zip(losses.tolist(), positive.tolist(), strict=True) if chosen(item)]))
        for chosen in (head.__contains__, lambda x: x not in head | tail, tail.__contains__)
    ]
    expected = losses.mean().item() + 0.7 * by_numpy(means, kind)
    assert net.calculate_loss(batch).item() == pytest.approx(expected, abs=5e-6)
    report = net.epoch_report()
    assert list(report) == ["ILE/head", "ILE/mid", "ILE/tail", f"ILE/{kind}"]
    assert list(report.values())[:3] == pytest.approx(means, rel=1e-5)
    assert report[f"ILE/{kind}"] == pytest.approx(by_numpy(means, kind), abs=5e-6)


def test_gradient_of_the_parameters_by_finite_differences(options):
    _, net, batch = prepared("ILEBPR", options, ile_weight=0.7)
    net.double()
    weight = net.item_embedding.weight
    net.calculate_loss(batch).backward()
    step = 1e-6
    for item in batch["item_id"][:3].tolist():
        with torch.no_grad():
            weight[item, 2] += step
            up = net.calculate_loss(batch).item()
            weight[item, 2] -= 2 * step
            down = net.calculate_loss(batch).item()
            weight[item, 2] += step
        assert weight.grad[item, 2].item() == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-8)


def test_batches_without_some_groups_train(options):
    _, net, batch = prepared("ILEBPR", options)
    for chosen in (net.popularity.head_items, net.popularity.tail_items):
        net.begin_epoch(0)
        part = batch[torch.isin(batch["item_id"], chosen)]
        net.zero_grad()
        with_ile = net.calculate_loss(part)
        with_ile.backward()
        assert torch.equal(with_ile, net.pair_losses(part).mean())
        assert torch.isfinite(net.item_embedding.weight.grad).all()
        assert len(net.epoch_report()) == 2
    net.begin_epoch(1)
    assert net.epoch_report() == {}


@pytest.mark.parametrize(("name", "base"), [("ILEBPR", "BPR"), ("ILELightGCN", "LightGCN")])
def test_weight_0_is_the_base_bit_for_bit(name, base, options):
    ours = run_recbole_fair(name, "small", config_dict={**options, "ile_weight": 0})
    plain = {key: value for key, value in options.items() if key != "head_share"}
    theirs = run_recbole_fair(base, "small", config_dict=plain)
    assert ours["test_result"] == theirs["test_result"]
    assert ours["best_valid_result"] == theirs["best_valid_result"]
    states = [torch.load(result["checkpoint"], weights_only=True)["state_dict"] for result in (ours, theirs)]
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_training_narrows_the_gap_and_reports_it(options, caplog, monkeypatch):
    gaps, drawn = {}, []
    monkeypatch.setattr(SummaryWriter, "add_scalar", lambda _, tag, value, step=None, **__: drawn.append((tag, step)))
    for weight in (0.0, 2.0):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            result = run_recbole_fair("ILEBPR", "small", config_dict={**options, "epochs": 8, "ile_weight": weight})
        lines = [record.getMessage() for record in caplog.records if "ILE/std" in record.getMessage()]
        assert len(lines) == 8
        assert lines[3].startswith("epoch 3: ILE/head ")
        gaps[weight] = float(lines[-1].rsplit(" ", 1)[1])
    assert gaps[2.0] < 0.5 * gaps[0.0]
    again = evaluate_checkpoint(result["checkpoint"])
    assert again["test_result"] == result["test_result"]
    assert [step for tag, step in drawn if tag == "ILE/head"] == [*range(8), *range(8)]
    assert {"ILE/mid", "ILE/tail", "ILE/std", "Loss/Train"} <= {tag for tag, _ in drawn}


def test_lightgcn_keeps_its_regularisation(options):
    _, net, batch = prepared("ILELightGCN", options, reg_weight=0.5, ile_weight=0.3)
    _, base, _ = prepared("LightGCN", {k: v for k, v in options.items() if k != "head_share"}, reg_weight=0.5)
    penalty = net.calculate_loss(batch) - base.calculate_loss(batch)
    distance = group_distance(*group_sums(net.pair_losses(batch), net.item_groups[batch["item_id"]]), "std")
    torch.testing.assert_close(penalty.squeeze(), 0.3 * distance, atol=1e-6, rtol=1e-4)


def test_weight_rises_over_the_warmup(options):
    config, net, batch = prepared("ILEBPR", options, ile_weight=0.8, ile_warmup=4)
    distance = group_distance(*group_sums(net.pair_losses(batch), net.item_groups[batch["item_id"]]), "std").item()
    plain = net.pair_losses(batch).mean().item()
    for epoch, weight in ((0, 0.0), (1, 0.2), (3, 0.6), (4, 0.8), (9, 0.8)):
        net.begin_epoch(epoch)
        assert net.calculate_loss(batch).item() == pytest.approx(plain + weight * distance, abs=1e-6)
    assert get_trainer(config, type(net)).__name__ == "FairTrainer"


def test_any_pairwise_model_takes_the_mixin(options):
    assert layers_of(ILENGCF)[0] == "model/NGCF.yaml"
    assert layers_of(ILENGCF)[-2:] == ("method/ILE.yaml", "model/ILENGCF.yaml")
    result = run_recbole_fair(ILENGCF, "small", config_dict={**options, "ile_distance": "ent", "epochs": 2})
    assert result["config"]["ile_distance"] == "ent"
    config = FairConfig(ILENGCF, "small", config_dict=options)
    assert (config["ile_weight"], config["n_layers"], config["tail_share"]) == (0.2, None, 0.2)


def test_sequential_models_with_the_bpr_loss(options):
    from recbole.model.sequential_recommender import GRU4Rec

    class ILEGRU4Rec(ILE, GRU4Rec):
        pass

    sequential = {**options, "MAX_ITEM_LIST_LENGTH": 8, "hidden_size": 8, "epochs": 1}
    with pytest.raises(FairError, match="set loss_type: BPR"):
        run_recbole_fair(ILEGRU4Rec, "small", config_dict=sequential)
    run_recbole_fair(ILEGRU4Rec, "small", config_dict={**sequential, "loss_type": "BPR"})


def test_losses_in_several_parts_get_the_distance_in_the_first(options):
    class Parts(BPR):
        def calculate_loss(self, interaction: Any) -> Any:
            return super().calculate_loss(interaction), torch.tensor(5.0)

    class ILEParts(ILE, Parts):
        pass

    _, net, batch = prepared(ILEParts, options)
    _, whole, _ = prepared("ILEBPR", options)
    first, second = net.calculate_loss(batch)
    assert torch.equal(first, whole.calculate_loss(batch))
    assert second == 5


def test_models_that_give_no_loss_by_pairs_are_refused(options):
    from recbole.model.general_recommender import DMF

    class ILEDMF(ILE, DMF):
        pass

    class Two(BPR):
        def __init__(self, config: Any, dataset: Any) -> None:
            super().__init__(config, dataset)
            self.other = BPRLoss()

    class ILETwo(ILE, Two):
        pass

    class ILENamed(ILE, Two):
        pair_loss = "loss"

    class Twice(BPR):
        def calculate_loss(self, interaction: Any) -> Any:
            return super().calculate_loss(interaction) + super().calculate_loss(interaction)

    class ILETwice(ILE, Twice):
        pass

    for model, says in ((ILEDMF, "no BPRLoss"), (ILETwo, "name one by pair_loss")):
        with pytest.raises(FairError, match=says):
            prepared(model, options)
    _, net, batch = prepared(ILENamed, options)
    assert net.pair_losses(batch).shape == batch["item_id"].shape
    _, net, batch = prepared(ILETwice, options)
    with pytest.raises(FairError, match="called 2 times"):
        net.calculate_loss(batch)


@pytest.mark.parametrize(
    ("setting", "says"),
    [({"ile_weight": -0.1}, "at least 0"), ({"ile_distance": "kl"}, "std, ent, mad"), ({"ile_warmup": -1}, "at least")],
)
def test_settings_out_of_range(setting, says):
    with pytest.raises(FairError, match=says):
        FairConfig("ILEBPR", "ml-100k", config_dict=setting)


# -- IPS --------------------------------------------------------------------------------------------------------------


def test_inverse_propensity_by_hand():
    counts = torch.tensor([0, 1, 3, 9, 0])
    # Above the rarest: 0, 2, 8, so r = 1, 1 + 2/8 * 9, 10.
    torch.testing.assert_close(inverse_propensity(counts, 10, False), torch.tensor([0.0, 1.0, 1 / 3.25, 0.1, 0.0]))
    normal = inverse_propensity(counts, 10, True)
    assert float((normal * counts).sum() / counts.sum()) == pytest.approx(1.0)
    torch.testing.assert_close(normal / normal[1], inverse_propensity(counts, 10, False))
    assert torch.equal(inverse_propensity(torch.tensor([0, 4, 4]), 10, False), torch.tensor([0.0, 1.0, 1.0]))
    assert torch.equal(inverse_propensity(counts, 1, True) > 0, counts > 0)


def test_ips_weights_each_pair_by_its_positive_item(options):
    plain = {key: value for key, value in options.items() if key != "head_share"}
    _, net, batch = prepared("IPSBPR", plain, ips_max=4, ips_normalize=False)
    losses, total = net.pair_losses(batch).tolist(), 0.0
    for loss, item in zip(losses, batch["item_id"].tolist(), strict=True):
        total += loss * net.item_weights[item].item()
    assert net.calculate_loss(batch).item() == pytest.approx(total / len(losses), rel=1e-5)
    assert net.item_weights[0] == 0
    assert net.item_weights[1:][net.item_weights[1:] > 0].min().item() == pytest.approx(0.25)
    _, net, _ = prepared(IPSBPR, plain, ips_max=1)
    _, base, batch = prepared("BPR", plain)
    assert torch.equal(net.calculate_loss(batch), base.calculate_loss(batch))


def test_both_mixins_go_together(options):
    assert [layer for layer in layers_of(ILEIPSBPR) if layer in ("method/ILE.yaml", "method/IPS.yaml")] == [
        "method/IPS.yaml",
        "method/ILE.yaml",
    ]
    _, net, batch = prepared(ILEIPSBPR, options, ile_weight=0.5)
    losses = net.pair_losses(batch)
    weighted = (losses * net.item_weights[batch["item_id"]]).mean()
    distance = group_distance(*group_sums(losses, net.item_groups[batch["item_id"]]), "std")
    torch.testing.assert_close(net.calculate_loss(batch), weighted + 0.5 * distance)
