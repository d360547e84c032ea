"""DecRS part by part: features, prior, mediator, machines, mixture, sampled pairs, weights."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.utils import init_seed
from scipy import sparse

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.batches.pairs import PairLoader
from recbole_fair.data.facts.confounder import PRIORS, confounder_prior, normalized_drift
from recbole_fair.data.facts.features import Features, FeatureTable
from recbole_fair.data.facts.groups import ItemGroups, interest_drift, smoothed_kl
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.reading.prepare import load_data
from recbole_fair.errors import FairError
from recbole_fair.model.decrs.decrs import fused_logits
from recbole_fair.model.decrs.factorization import FactorizationMachine, FeatureTables, _Sums
from recbole_fair.model.propensity import item_propensity, user_propensity
from tests.conftest import write_atomic

# -- prior, drift and weights ------------------------------------------------------------------------------------------


def histories_of(lists: list[list[int]], n_items: int) -> Histories:
    """Histories of users 1, 2, ..."""
    lengths = [0, *map(len, lists)]
    items = np.array(list(itertools.chain(*lists)), dtype=np.int64)
    times = np.arange(len(items), dtype=np.float64)
    return Histories(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), items, times, n_items)


def random_groups(n_items: int, n_groups: int, seed: int) -> ItemGroups:
    """Random memberships with weights 1/m; some items have no group."""
    rng = np.random.default_rng(seed)
    member = rng.random((n_items, n_groups)) < 0.4
    member[0] = False
    weights = member / np.maximum(member.sum(1, keepdims=True), 1)
    return ItemGroups(sparse.csr_matrix(weights), tuple(f"g{g}" for g in range(n_groups)), "genre")


@given(st.lists(st.lists(st.integers(1, 8), min_size=1, max_size=6), min_size=1, max_size=6), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_prior_is_the_users_mean_distribution_weighted_by_their_histories(lists, seed):
    groups = random_groups(9, 4, seed)
    weight = groups.matrix.toarray()
    total = sum(map(len, lists))
    expected = np.zeros(4)
    for items in lists:
        of_user = np.array([sum(weight[i, g] for i in items) / len(items) for g in range(4)])  # Eq. 3
        expected += len(items) / total * of_user
    np.testing.assert_allclose(confounder_prior(histories_of(lists, 9), groups), expected, atol=1e-12)
    catalogue = [sum(weight[i, g] for i in range(1, 9)) / 8 for g in range(4)]
    np.testing.assert_allclose(confounder_prior(histories_of(lists, 9), groups, "catalogue"), catalogue, atol=1e-12)
    np.testing.assert_allclose(confounder_prior(histories_of(lists, 9), groups, "uniform"), [0.25] * 4)
    assert PRIORS == ("interactions", "catalogue", "uniform")


def test_drift_is_0_for_equal_halves_and_largest_for_disjoint_ones():
    groups = ItemGroups(sparse.csr_matrix(np.array([[0, 0], [1, 0], [1, 0], [0, 1]], dtype=float)), ("a", "b"), "g")
    drift = interest_drift(histories_of([[1, 3, 2, 3], [1, 2, 3, 3], [1], [1, 1, 2]], 4), groups)
    assert drift[1] == pytest.approx(0.0, abs=1e-12)
    assert drift[2] == pytest.approx(2 * np.log(100))
    assert np.isnan(drift[3])
    assert drift[4] == pytest.approx(0.0, abs=1e-12)
    scaled = normalized_drift(torch.from_numpy(drift))
    assert scaled.tolist() == pytest.approx([0, 0, 1, 0, 0], abs=1e-12)
    assert normalized_drift(torch.tensor([torch.nan, 3.0, 3.0])).tolist() == [0, 0, 0]
    assert normalized_drift(torch.tensor([torch.nan])).tolist() == [0]


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6).filter(lambda p: sum(p) > 0.1))
@settings(max_examples=30, deadline=None)
def test_calibration_error_of_equal_distributions_is_0(p):
    shares = np.array(p) / sum(p)
    assert smoothed_kl(shares, shares) == pytest.approx(0.0, abs=1e-12)


def test_propensities_by_hand():
    lengths = torch.tensor([0, 1, 2, 10])
    # 1/P is proportional to 1, 1/2, 1/10: mean 1.6/3.
    expected = torch.tensor([0.0, 3 / 1.6, 1.5 / 1.6, 0.3 / 1.6])
    torch.testing.assert_close(user_propensity(lengths, 10), expected)
    torch.testing.assert_close(user_propensity(lengths, 1.5), expected.clamp(max=1.5))
    torch.testing.assert_close(
        item_propensity(torch.tensor([0, 1, 4, 16, 64]), 5), torch.tensor([5.0, 5.0, 4.0, 2.0, 1.0])
    )


# -- the mixture -------------------------------------------------------------------------------------------------------

LOGITS = st.lists(st.floats(-12, 12), min_size=1, max_size=5)


@given(LOGITS, LOGITS, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_mixture_is_equation_11(backbone, other, weight):
    n = min(len(backbone), len(other))
    b, o = np.array(backbone[:n]), np.array(other[:n])
    expected = weight / (1 + np.exp(-o)) + (1 - weight) / (1 + np.exp(-b))
    found = fused_logits(torch.tensor(b), torch.tensor(o), torch.tensor(weight, dtype=torch.double))
    np.testing.assert_allclose(1 / (1 + np.exp(-found.numpy())), expected, atol=1e-12)


def test_mixture_tells_large_scores_apart_and_stays_finite():
    scores = torch.tensor([15.0, 20.0, 30.0, 39.0, 500.0, -500.0])
    mixed = fused_logits(scores, scores.clone(), torch.tensor(0.3))
    assert torch.equal(scores[:4].sigmoid()[1:], torch.ones(3))  # which the probability itself does not
    torch.testing.assert_close(mixed[:4], scores[:4])
    assert torch.isfinite(mixed).all()
    assert mixed[4] >= 40
    assert scores[4] == 500  # the arguments are left as they were


# -- machines ----------------------------------------------------------------------------------------------------------


def random_features(seed: int = 0, n_users: int = 7, n_items: int = 9) -> Features:
    """Users with an id and two further columns, items with an id and up to three groups; some columns dense."""
    generator = torch.Generator().manual_seed(seed)

    def table(n: int, start: int, more: int, slots: int, few: int) -> FeatureTable:
        index = torch.randint(start + n - 1, start + n - 1 + more, (n, 1 + slots), generator=generator)
        index[:, 0] = torch.arange(n) + start - 1
        value = torch.rand(n, 1 + slots, generator=generator)
        value[:, 0] = 1.0
        value[2:, -1] = 0.0
        index[value == 0] = 0
        index[0], value[0] = 0, 0.0
        dense = torch.rand(n, few, generator=generator) * (torch.rand(n, few, generator=generator) > 0.4)
        dense[0] = 0.0
        after = start + n - 1 + more
        return FeatureTable(index, value, dense, after, after + few, ("id", "column"))

    users = table(n_users, 1, 4, 2, 2)
    items = table(n_items, users.size, 5, 3, 3)
    return Features(users, items, items.size)


def machine(mediator: str = "none", hidden: tuple[int, ...] = (), seed: int = 0) -> FactorizationMachine:
    """A machine in double precision, in evaluation mode, none of whose parts is trivial."""
    torch.manual_seed(seed)
    prior = torch.tensor([0.5, 0.3, 0.2])
    net = FactorizationMachine(FeatureTables(random_features()), 6, [0.3, 0.2], hidden, mediator, prior, 1.0).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0.0, 0.7)
        net.embedding[0] = 0.0
        net.linear[0] = 0.0
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(0.0, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    return net.eval()


def features_of(tables: FeatureTables, side: str, row: int) -> list[tuple[int, float]]:
    """Position and value of each feature of a user or an item."""
    index, value, dense = (getattr(tables, f"{side}_{part}")[row].tolist() for part in ("index", "value", "dense"))
    pairs = [*zip(index, value, strict=True), *((tables.starts[side] + g, x) for g, x in enumerate(dense))]
    return [(i, x) for i, x in pairs if x != 0]


def vectors_of(net: FactorizationMachine, side: str, row: int) -> list[torch.Tensor]:
    """Weighted feature vectors of a user or an item."""
    return [net.embedding[i] * x for i, x in features_of(net.tables, side, row)]


def mediator_by_loops(net: FactorizationMachine, user: int) -> torch.Tensor:
    groups = [p * v for p, v in zip(net.prior, net.groups, strict=True)]
    features = vectors_of(net, "user", user)
    total = torch.zeros(6, dtype=torch.double)
    if net.mediator == "product":  # Eq. 7
        for a in groups:
            for b in features:
                total += a * b
        return total
    entries = groups + features  # Eq. 8, each unordered pair once
    for a in range(len(entries)):
        for b in range(a):
            total += entries[a] * entries[b]
    return total


@torch.no_grad()
def score_by_loops(net: FactorizationMachine, user: int, item: int) -> float:
    """A score from pairs of features, one at a time."""
    entries = vectors_of(net, "user", user) + vectors_of(net, "item", item)
    if net.mediator != "none":
        entries.append(mediator_by_loops(net, user))
    pairs = torch.zeros(6, dtype=torch.double)
    for a, b in itertools.combinations(entries, 2):
        pairs += a * b
    hidden = net.norm(pairs.unsqueeze(0))
    second = net.hidden(hidden).sum() if len(net.hidden) else hidden.sum()
    linear = 0.0
    for side, row in (("user", user), ("item", item)):
        linear += sum(net.linear[i].item() * x for i, x in features_of(net.tables, side, row))
    return float(second) + linear + float(net.bias)


@pytest.mark.parametrize("mediator", ["fm", "product"])
def test_mediator_is_the_double_loop_over_pairs(mediator):
    net = machine(mediator)
    users = torch.arange(1, 7)
    found = net.mediator_of(*net._sums(net.tables.rows("user", users))[0][0][:2])
    for user, row in zip(users.tolist(), found, strict=True):
        torch.testing.assert_close(row, mediator_by_loops(net, user))


@pytest.mark.parametrize("mediator", ["none", "fm", "product"])
@pytest.mark.parametrize("hidden", [(), (5,), (5, 4)])
@torch.no_grad()
def test_all_scores_are_those_of_the_pairs_one_at_a_time(mediator, hidden):
    net = machine(mediator, hidden)
    users = torch.arange(1, 7)
    found = net.all_scores(users)
    assert found.shape == (6, 9)
    rows, columns = users.repeat_interleave(9), torch.arange(9).repeat(6)
    torch.testing.assert_close(found.reshape(-1), net(rows, columns), atol=1e-10, rtol=1e-10)
    for user, item in ((1, 1), (3, 8), (6, 4)):
        assert found[user - 1, item].item() == pytest.approx(score_by_loops(net, user, item), abs=1e-9)


def test_hidden_layers_are_worked_off_in_blocks(monkeypatch):
    net = machine("fm", (5,))
    whole = net.all_scores(torch.arange(1, 7))
    monkeypatch.setattr("recbole_fair.model.decrs.factorization._CELLS", 100)
    torch.testing.assert_close(net.all_scores(torch.arange(1, 7)), whole)


def test_gradients_of_the_sums_and_of_the_norm():
    tables = FeatureTables(random_features()).double()
    table = torch.randn(tables.size, 3, dtype=torch.double, requires_grad=True)
    sides = tables.rows("user", torch.tensor([1, 2, 2, 5])), tables.rows("item", torch.tensor([8, 3, 1, 8]))
    assert torch.autograd.gradcheck(lambda t: _Sums.apply(t, sides), [table])
    for chosen in ([0], [4], [1, 4]):  # some outputs unused
        assert torch.autograd.gradcheck(lambda t, chosen=chosen: [_Sums.apply(t, sides)[o] for o in chosen], [table])


@pytest.mark.parametrize("mediator", ["none", "fm"])
def test_loss_is_summed_with_the_norm_and_weights(mediator):
    net = machine(mediator)
    generator = torch.Generator().manual_seed(2)
    users, items = (torch.randint(1, n, (12,), generator=generator) for n in (7, 9))
    labels, weights = (torch.rand(12, generator=generator) > 0.5).double(), torch.rand(12, dtype=torch.double)
    scores = torch.tensor([score_by_loops(net, u, i) for u, i in zip(users.tolist(), items.tolist(), strict=True)])
    probability = scores.double().sigmoid()
    log_loss = -(labels * probability.log() + (1 - labels) * (1 - probability).log())
    norm = float(sum(x * x for x in net.embedding.flatten().tolist())) ** 0.5
    assert net.loss(users, items, labels).item() == pytest.approx(log_loss.sum().item())
    found = net.loss(users, items, labels, 0.7, weights)
    assert found.item() == pytest.approx((weights * log_loss).sum().item() + 0.7 * norm)
    found.backward()
    step, place = 1e-6, (int(net.tables.item_index[items[0], 0]), 2)
    with torch.no_grad():
        values = []
        for sign in (1, -2):
            net.embedding[place] += sign * step
            values.append(net.loss(users, items, labels, 0.7, weights).item())
    assert net.embedding.grad[place].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)
    assert torch.equal(net.embedding.grad[0], torch.zeros(6, dtype=torch.double))


def test_dropout_and_batch_normalisation_are_at_work_in_training():
    net = machine("fm", (5,)).train()
    users, items = torch.arange(1, 7), torch.arange(1, 7)
    assert not torch.equal(net(users, items), net(users, items))
    before = net.norm.running_mean.clone()
    net(users, items)
    assert not torch.equal(net.norm.running_mean, before)


# -- labelled pairs ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def featured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data set with a user file: two columns of tokens (one of several values) and one of numbers."""
    folder = write_atomic(tmp_path_factory.mktemp("featured"), "small")
    rows = ["user_id:token\tgender:token\tjobs:token_seq\tage:float"]
    rows += [f"u{u}\t{'FM'[u % 2]}\t{'x y' if u % 5 == 0 else 'F' if u % 5 == 1 else 'z'}\t{u}" for u in range(60)]
    (folder / "small" / "small.user").write_text("\n".join(rows) + "\n")
    return folder


def configured(folder: Path, model: str = "DecFM", **changes: Any) -> FairConfig:
    settings = {"data_path": str(folder), "train_batch_size": 64, "topk": [5, 10], "embedding_size": 8, **changes}
    return FairConfig(model, "small", config_dict=settings)


def model_of(config: FairConfig) -> tuple[Any, Any]:
    init_seed(config["seed"], True)
    train = load_data(config)[0]
    return config.model_class(config, train._dataset), train


def test_pairs_are_the_positives_and_items_that_the_user_does_not_have(featured, in_tmp):
    _, train = model_of(configured(featured, train_batch_size=48))
    assert isinstance(train, PairLoader)
    met = set(zip(train.users.tolist(), train.items.tolist(), strict=True))
    drawn: list[tuple[int, int]] = []
    for epoch in range(20):
        train.set_epoch(epoch)
        batches = list(train)
        assert len(batches) == len(train)
        assert all(len(batch) == 48 for batch in batches[:-1])
        rows = [
            tuple(row)
            for batch in batches
            for row in zip(*(batch[name].tolist() for name in ("user_id", "item_id", "label")), strict=True)
        ]
        positives = [row[:2] for row in rows if row[2] == 1]
        assert sorted(positives) == sorted(zip(train.users.tolist(), train.items.tolist(), strict=True))
        negatives = [row[:2] for row in rows if row[2] == 0]
        assert sorted(user for user, _ in negatives) == train.users.tolist()
        assert not met & set(negatives)
        drawn += negatives
    counts = np.bincount([item for user, item in drawn if user == 1], minlength=41)
    free = [item for item in range(1, 41) if (1, item) not in met]
    assert counts[0] == 0
    assert counts.sum() == counts[free].sum()
    expected = counts.sum() / len(free)
    assert ((counts[free] - expected) ** 2 / expected).sum() < 2.5 * len(free)  # chi-squared, far beyond its 0.1 %


def test_an_epochs_pairs_follow_from_seed_stream_and_number(featured, in_tmp):
    _, train = model_of(configured(featured))
    loaders = [train, PairLoader(train.config, train.dataset)]

    def drawn(loader: PairLoader, epoch: int, stream: int = 0) -> list[int]:
        loader.set_epoch(epoch)
        loader.stream = stream
        return [item for batch in loader for item in batch["item_id"].tolist()]

    first = drawn(loaders[0], 3)
    assert first == drawn(loaders[1], 3)
    assert first != drawn(loaders[0], 4)
    assert first != drawn(loaders[0], 3, stream=1)
    batches = list(loaders[1])
    loaders[1].batch_size = len(first) - 1  # a single row would be left over
    assert [len(batch) for batch in loaders[1]] == [len(first)]
    assert len(loaders[1]) == 1
    assert len(batches) == -(-len(first) // 64)


def test_pairs_cannot_be_drawn_where_a_user_has_everything(featured, in_tmp):
    _, train = model_of(configured(featured))
    dataset = train.dataset
    uid, iid = dataset.inter_feat["user_id"].clone(), dataset.inter_feat["item_id"].clone()
    dataset.inter_feat.interaction["user_id"] = torch.cat([uid, torch.ones(40, dtype=uid.dtype)])
    dataset.inter_feat.interaction["item_id"] = torch.cat([iid, torch.arange(1, 41)])
    dataset.inter_feat.interaction["timestamp"] = torch.zeros(len(uid) + 40)
    with pytest.raises(FairError, match="every item"):
        PairLoader(train.config, dataset)
    with pytest.raises(FairError, match="train_batch_size=1"):
        model_of(configured(featured, train_batch_size=1))


# -- features ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("few", [0, 3, 64])  # all columns looked up, some, none
def test_features_are_read_from_the_files_and_no_two_columns_share_one(few, featured, in_tmp, monkeypatch):
    monkeypatch.setattr("recbole_fair.data.facts.features.FEW", few)
    net, train = model_of(configured(featured))
    dataset, tables = train.dataset, net.parts["backbone"].tables
    assert net.features["users"] == ["user_id", "gender", "jobs"]
    assert net.features["items"] == ["item_id", "genre"]
    assert tables.user_dense.shape[1] == {0: 0, 3: 2, 64: 6}[few]
    assert net.features["size"] == 1 + 60 + 2 + 4 + 40 + 3
    seen: dict[int, set[str]] = {}
    for token, user in dataset.field2token_id["user_id"].items():
        if user == 0:
            continue
        number = int(token[1:])
        jobs = ["x", "y"] if number % 5 == 0 else ["F"] if number % 5 == 1 else ["z"]
        expected = {"user": 1.0, "gender": 1.0} | {job: 1 / len(jobs) for job in jobs}
        row = dict(features_of(tables, "user", user))
        assert sorted(row.values()) == pytest.approx(sorted(expected.values()))
        for index in row:
            seen.setdefault(index, set()).add(token)
    # A feature of the table stands for the same users as a value of a column: gender F is not job F.
    sizes = sorted(len(tokens) for tokens in seen.values())
    assert sizes == sorted([1] * 60 + [30, 30] + [12, 12, 12, 36])
    assert features_of(tables, "user", 0) == features_of(tables, "item", 0) == []
    genres = {token: row for token, row in dataset.field2token_id["item_id"].items() if row}
    for token, item in genres.items():
        wanted = 2 if int(token[1:]) % 3 == 0 else 1
        assert sorted(x for _, x in features_of(tables, "item", item)) == sorted([1.0, *[1 / wanted] * wanted])


def test_columns_may_be_chosen(featured, in_tmp):
    net, _ = model_of(configured(featured, user_features=["gender"], item_features=["movie_title"]))
    assert net.features["users"] == ["user_id", "gender"]
    assert net.features["items"] == ["item_id", "movie_title", "genre"]
    net, _ = model_of(configured(featured, user_features=[], unawareness=True))
    assert (net.features["users"], net.features["items"]) == (["user_id"], ["item_id"])
    assert net.parts["deconfounded"].groups.shape == (3, 8)  # the adjustment still knows the groups
    for changes, says in (
        ({"user_features": ["age"]}, "column of numbers"),
        ({"user_features": ["town"]}, "user_features needs the column 'town'"),
        ({"item_features": "genre", "unawareness": True}, "unawareness leaves out"),
        ({"group_field": "style"}, "group_field needs the column 'style'.*movie_title, genre"),
        ({"group_field": None}, "set group_field to an item column"),
    ):
        with pytest.raises(FairError, match=says):
            model_of(configured(featured, **changes))


def test_weights_of_ips_reach_the_loss(featured, in_tmp):
    plain, train = model_of(configured(featured, mediator="none", reg_weight=0))
    batch = next(iter(train))
    users, items, labels = (batch[name] for name in ("user_id", "item_id", "label"))
    plain.eval()
    machine = plain.parts["backbone"]
    losses = torch.nn.functional.binary_cross_entropy_with_logits(machine(users, items), labels, reduction="none")
    assert plain.calculate_loss(batch).item() == pytest.approx(losses.sum().item(), rel=1e-5)
    lengths = np.bincount(train.users, minlength=61)
    counts = np.bincount(train.items, minlength=41)
    inverse = np.array([0, *(1 / lengths[1:])]) * 60 / (1 / lengths[1:]).sum()
    for kind, weights in (
        ("user", np.minimum(inverse, 1.2)[users]),
        ("item", np.where(labels > 0, np.minimum((counts.max() / np.maximum(counts, 1e-9)) ** 0.5, 1.2)[items], 1.0)),
    ):
        net, _ = model_of(configured(featured, mediator="none", reg_weight=0, propensity=kind, propensity_clip=1.2))
        net.eval()
        expected = (losses.detach().numpy() * weights).sum()
        assert net.calculate_loss(batch).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"fusion_alpha": -1}, "at least 0"),
        ({"mediator": "sum"}, "fm, product, none"),
        ({"confounder_prior": "flat"}, "interactions, catalogue, uniform"),
        ({"inference": "base"}, "fused, deconfounded, backbone"),
        ({"propensity_clip": 0.5}, "at least 1"),
        ({"drift_history": "all"}, "train, train_valid"),
    ],
)
def test_settings_out_of_range(setting, says):
    with pytest.raises(FairError, match=says):
        FairConfig("DecFM", "ml-100k", config_dict=setting)
