"""SPREE on an encoder whose first coordinate is popularity, on small transformers, and from the entry point."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender import BERT4Rec
from torch import nn

from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.popularity import select_by_quantile
from recbole_fair.errors import FairError
from recbole_fair.model.bases.sasrec import SASRec
from recbole_fair.model.spree.probe import (
    Site,
    choose_site,
    fit_bias_estimator,
    median_bias,
    parse_sites,
    probe_accuracy,
)
from recbole_fair.model.spree.spree import SPREE
from recbole_fair.report.tables import intervention_tables

N_USERS, N_ITEMS, D, WINDOW, K = 200, 61, 8, 12, 10


class Settings(dict[str, Any]):
    """RecBole's convention: absent keys are None."""

    def __getitem__(self, key: str) -> Any:
        return self.get(key)


SETTINGS = Settings(
    spree_strength=8.0, spree_adaptive=True, spree_sites="last", synthetic_users=300, head_share=0.1, tail_share=0.1,
    bias_list_length=K, bias_regularization="cv", seed=3, MAX_ITEM_LIST_LENGTH=WINDOW, USER_ID_FIELD="user_id",
    ITEM_ID_FIELD="item_id", LIST_SUFFIX="_list", ITEM_LIST_LENGTH_FIELD="item_length", NEG_PREFIX="neg_",
    device="cpu", n_layers=3, n_heads=2, hidden_size=D, inner_size=16, hidden_dropout_prob=0.5, attn_dropout_prob=0.5,
    hidden_act="gelu", layer_norm_eps=1e-12, initializer_range=0.5, loss_type="CE", train_positions="all",
    mask_ratio=0.2,
)  # fmt: skip


def histories() -> tuple[np.ndarray, np.ndarray]:
    """Users of different tastes for popularity; item ids rise as popularity falls."""
    rng = np.random.default_rng(0)
    users, items = [], []
    for user in range(1, N_USERS + 1):
        weight = np.arange(1, N_ITEMS) ** -rng.uniform(-0.7, 1.5)
        length = rng.integers(8, 14)
        users += [user] * length
        items += (rng.choice(N_ITEMS - 1, size=length, p=weight / weight.sum()) + 1).tolist()
    return np.array(users), np.array(items)


class ToyDataset:
    """As much of a RecBole data set as fitting reads."""

    item_num, user_num = N_ITEMS, N_USERS + 1

    def original_rows(self) -> tuple[np.ndarray, np.ndarray, None]:
        return (*histories(), None)

    def num(self, field: str) -> int:
        return N_ITEMS if field == "item_id" else N_USERS + 1


def batch(n: int = N_USERS) -> Interaction:
    users, items = histories()
    sequences = torch.zeros(n, WINDOW, dtype=torch.long)
    lengths = torch.zeros(n, dtype=torch.long)
    for row in range(n):
        own = torch.from_numpy(items[users == row + 1])[-WINDOW:]
        sequences[row, : len(own)], lengths[row] = own, len(own)
    return Interaction({"user_id": torch.arange(1, n + 1), "item_id_list": sequences, "item_length": lengths})


class Blind(nn.Module):
    """A block that forgets everything."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(hidden)


class RunningMean(nn.Module):
    """Three blocks that pass on the running mean of the items; coordinate 0 of an item is its popularity p.

    Items are scored ``(m + 2) p - p^2 / 0.6`` for a user of mean ``m``, best where ``p = 0.6 + 0.3 m``: lists
    differ less than tastes do, too popular for some, not popular enough for others.
    """

    ITEM_SEQ, ITEM_SEQ_LEN, ITEM_ID, max_seq_length = "item_id_list", "item_length", "item_id", WINDOW

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__()
        table = torch.randn(N_ITEMS, D, generator=torch.Generator().manual_seed(1)) * 0.1
        table[1:, 0] = torch.linspace(2, -2, N_ITEMS - 1)
        table[:, 1] = 1.0
        self.table = nn.Parameter(table)
        items = torch.zeros(N_ITEMS, D)
        items[:, 0], items[:, 1] = table[:, 0], 2 * table[:, 0] - table[:, 0].square() / 0.6
        self.register_buffer("items", items)
        self.trm_encoder = nn.Module()
        last = Blind() if config["blind"] else nn.Identity()
        self.trm_encoder.layer = nn.ModuleList([nn.Identity(), nn.Identity(), last])

    sequential = True

    def blocks(self) -> Any:
        return self.trm_encoder.layer

    def represent_users(self, interaction: Any) -> torch.Tensor:
        hidden = self.table[interaction[self.ITEM_SEQ]].cumsum(1) / torch.arange(1, WINDOW + 1).unsqueeze(1)
        for layer in self.trm_encoder.layer:
            hidden = layer(hidden)
        return hidden[torch.arange(len(hidden)), interaction[self.ITEM_SEQ_LEN] - 1]

    def item_representations(self) -> torch.Tensor:
        return self.items


class ToySPREE(SPREE):
    base_class = RunningMean
    base_model_name = "RunningMean"


def fitted(kind: type[SPREE] = ToySPREE, **changes: Any) -> Any:
    torch.manual_seed(0)
    model = kind(Settings(SETTINGS, **changes), ToyDataset())
    model.freeze_base()

    def scored(data: Any) -> Any:
        for part in data:
            scores = model.full_sort_predict(part)
            scores[:, 0] = -math.inf
            yield part, scores, None, None

    model.scored_batches = scored
    model.fit_intervention(SimpleNamespace(_dataset=ToyDataset()), [batch()])
    return model


@pytest.fixture(scope="module")
def toy() -> Any:
    return fitted()


@pytest.fixture(autouse=True)
def _default_strengths(request: pytest.FixtureRequest) -> None:
    if "toy" in request.fixturenames:
        request.getfixturevalue("toy").set_strengths(spree_strength=8.0, spree_adaptive=True)


def lists_of(model: Any) -> torch.Tensor:
    scores = model.full_sort_predict(batch())
    scores[:, 0] = -math.inf
    return scores.topk(K).indices


def bias_of(lists: torch.Tensor) -> np.ndarray:
    """e(u) by loops: lower median of the list's counts, share of the history at or below it, less a half."""
    users, items = histories()
    counts = np.bincount(items, minlength=N_ITEMS)
    found = []
    for row, listed in enumerate(lists.tolist()):
        own = counts[items[users == row + 1]]
        median = sorted(counts[listed])[math.ceil(len(listed) / 2) - 1]
        found.append(sum(c <= median for c in own) / len(own) - 0.5)
    return np.array(found)


# -- where and in which direction ---------------------------------------------------------------------------------


def test_direction_is_the_popularity_coordinate(toy: Any) -> None:
    assert toy.direction.norm().item() == pytest.approx(1)
    assert toy.direction[0].item() < -0.99  # towards unpopular items
    report = toy.report
    assert [row["accuracy"] for row in report["probe"]["accuracies"]] == [1.0] * 3
    assert report["probe"]["chosen"] == {"block": 3, "position": -1}
    _, items = histories()
    means = []
    for side in (1, -1):
        popular = np.argsort(-side * np.bincount(items, minlength=N_ITEMS)[1:], kind="stable")[:6] + 1
        means.append(toy.base.table[torch.from_numpy(popular), 0].mean().item())
    assert report["direction"]["norm"] == pytest.approx(means[0] - means[1], rel=0.1)


def test_the_probe_finds_where_popularity_is_still_known() -> None:
    model = fitted(blind=True)
    accuracy = [row["accuracy"] for row in model.report["probe"]["accuracies"]]
    assert accuracy == [1.0, 1.0, 0.5]
    assert model.site.tolist() == [2, -1]
    table = "\n".join(intervention_tables(model.report, {}, "NDCG@10"))
    assert "chosen: block 2 at position -1" in table
    assert f"R2 {model.report['estimator']['held_out_r2']:.4f}" in table


def test_probe_accuracy_of_known_groups() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(4000, 3))
    shift = np.array([0, 2.0, 0])  # the best rule errs with probability Phi(-1)
    assert probe_accuracy(noise[:2000], noise[2000:] + shift, 0) == pytest.approx(0.8413, abs=0.03)
    assert probe_accuracy(noise[:2000], noise[2000:], 0) == pytest.approx(0.5, abs=0.05)


def test_grid_covers_every_site_and_ties_go_to_the_last() -> None:
    model = fitted(spree_sites="grid", synthetic_users=60)
    rows = model.report["probe"]["accuracies"]
    assert len(rows) == 3 * WINDOW
    assert {(row["block"], row["position"]) for row in rows} == {(b, -p) for b in (1, 2, 3) for p in range(1, 13)}
    assert model.site.tolist() == [3, -1]
    close = {Site(1, -1): 1.0, Site(2, -2): 0.9995, Site(2, -5): 0.9999, Site(3, -1): 0.998}
    assert choose_site(close) == Site(2, -2)


@pytest.mark.parametrize("value", ["first", [], [[0, -1]], [[4, -1]], [[1, 0]], [[1, -13]], [1], [[1.0, -1]], 3])
def test_sites_that_do_not_exist(value: Any) -> None:
    with pytest.raises(FairError, match="spree_sites="):
        parse_sites(value, 3, WINDOW)


@given(st.lists(st.integers(0, 12), min_size=20, max_size=60), st.sampled_from([0.1, 0.25]))
@settings(max_examples=60, deadline=None)
def test_head_and_tail_by_quantile(counts: list[int], share: float) -> None:
    known = sorted(c for c in counts if c > 0)
    if len(known) < 20:
        return
    low = known[math.ceil(share * len(known) - 1e-9) - 1]
    high = known[math.ceil((1 - share) * len(known) - 1e-9) - 1]
    table = torch.tensor([0, *counts])
    if high <= low:
        with pytest.raises(FairError, match="told apart"):
            select_by_quantile(table, share, share)
        return
    head, tail = select_by_quantile(table, share, share)
    assert head.tolist() == [i for i, c in enumerate(counts, 1) if c >= high]
    assert tail.tolist() == [i for i, c in enumerate(counts, 1) if 0 < c <= low]


# -- the bias and its estimator -----------------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 9), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_median_bias_by_brute_force_with_ties(levels: int, k: int, random: Any) -> None:
    counts = torch.tensor([0, *(random.randint(1, levels) for _ in range(12))])
    rows, items, indptr = [], [], [0]
    for _ in range(4):
        size = random.randint(0, k)
        rows.append(random.sample(range(1, 13), size) + [0] * (k - size))
        items += [random.randint(1, 12) for _ in range(random.randint(0, 7))]
        indptr.append(len(items))
    found = median_bias(counts, torch.tensor(rows), Histories(np.array(indptr), np.array(items, dtype=int), None, 13))
    for row, value in enumerate(found.tolist()):
        listed = sorted(counts[i].item() for i in rows[row] if i)
        own = [counts[i].item() for i in items[indptr[row] : indptr[row + 1]]]
        if not listed or not own:
            assert math.isnan(value)
            continue
        median = listed[(len(listed) + 1) // 2 - 1]
        assert value == pytest.approx(sum(c <= median for c in own) / len(own) - 0.5)
        assert -0.5 <= value <= 0.5


def test_the_bias_that_is_learnt_is_that_of_the_base_lists(toy: Any) -> None:
    with toy.use_variant("base"):
        expected = bias_of(lists_of(toy))
    assert toy.report["bias"]["mean"] == pytest.approx(expected.mean())
    assert toy.report["bias"]["std"] == pytest.approx(expected.std())
    x = toy.base.represent_users(batch())
    # clipping can only bring an estimate nearer to a bias that lies inside the range
    residual = expected - toy.estimate_bias(x).numpy()
    assert 1 - residual.var() / expected.var() > 0.3
    assert toy.report["estimator"]["held_out_r2"] > 0.3
    assert toy.report["estimator"]["mean_step"] == pytest.approx(toy.estimate_bias(x).abs().mean().item(), rel=1e-5)


def test_estimator_recovers_a_sparse_rule() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 12)) * rng.uniform(0.1, 30, 12) + rng.normal(size=12)
    rule = np.zeros(12)
    rule[[2, 7]] = [0.1, -0.15]
    standard = (x - x.mean(0)) / x.std(0)
    bias = np.clip(standard @ rule + 0.05 + rng.normal(size=1500) * 0.05, -0.5, 0.5)
    fit = fit_bias_estimator(x, bias, "cv", 0)
    assert np.corrcoef(fit(x), standard @ rule)[0, 1] > 0.995
    assert fit.r2 == pytest.approx(1 - 0.05**2 / bias.var(), abs=0.04)
    assert fit.mse == pytest.approx(0.05**2, rel=0.25)
    by_hand = fit_bias_estimator(x, bias, 0.02, 0)
    assert by_hand.nonzero == 2
    assert by_hand.alpha == 0.02
    with pytest.raises(FairError, match="at least 20"):
        fit_bias_estimator(x[:19], bias[:19], "cv", 0)


def test_a_lasso_of_zeros_says_so(caplog: pytest.LogCaptureFixture, toy: Any) -> None:
    model = fitted(bias_regularization=1.0)
    estimator = model.report["estimator"]
    assert estimator["nonzero"] == 0
    assert "no coefficient left (bias_regularization=1.0" in estimator["warning"]
    assert estimator["warning"] in caplog.text
    assert estimator["warning"] in intervention_tables(model.report, {}, "NDCG@10")
    assert "warning" not in toy.report["estimator"]


def test_estimates_are_clipped(toy: Any) -> None:
    x = toy.base.represent_users(batch())
    kept = toy.coefficients.clone()
    try:
        toy.coefficients.mul_(1000)
        estimates = toy.estimate_bias(x)
        assert estimates.abs().max() == 0.5
        step = toy.edit(x, "adaptive") - x
        assert step.norm(dim=1).max().item() == pytest.approx(0.5 * 8.0, rel=1e-5)
    finally:
        toy.coefficients.copy_(kept)


# -- steering -----------------------------------------------------------------------------------------------------


def test_positive_strength_moves_lists_towards_each_users_own_median(toy: Any) -> None:
    bias, popularity = {}, {}
    for strength in (-2.0, 0.0, 1.0, 2.0):
        toy.set_strengths(spree_strength=strength)
        lists = lists_of(toy)
        bias[strength] = np.abs(bias_of(lists)).mean()
        popularity[strength] = toy.base.table[lists, 0].mean(1).detach().numpy()
    assert bias[2.0] < bias[1.0] < bias[0.0] < bias[-2.0]
    estimate = toy.estimate_bias(toy.base.represent_users(batch())).numpy()
    change = popularity[2.0] - popularity[0.0]
    assert (change[estimate > 0.1] <= 1e-6).all()
    assert (change[estimate < -0.1] >= -1e-6).all()
    assert change[estimate > 0.1].mean() < 0 < change[estimate < -0.1].mean()


def test_vanilla_makes_everyones_list_less_popular_by_the_same_mean_step(toy: Any) -> None:
    x = toy.base.represent_users(batch())
    steps = {name: (toy.edit(x, name) - x).norm(dim=1) for name in ("vanilla", "adaptive")}
    assert steps["vanilla"].std() < 1e-5
    assert steps["vanilla"].mean().item() == pytest.approx(steps["adaptive"].mean().item(), rel=1e-4)
    toy.set_strengths(spree_adaptive=False, spree_strength=1.5)
    assert toy.variant == toy.final_variant == "vanilla"
    step = toy.edit(x, "vanilla") - x
    torch.testing.assert_close(step, (1.5 * toy.direction).expand_as(x), atol=1e-5, rtol=0)
    adaptive = (toy.edit(x, "adaptive") - x).norm(dim=1)
    assert adaptive.mean().item() == pytest.approx(1.5, rel=1e-4)
    counts = np.bincount(histories()[1], minlength=N_ITEMS)
    steered = counts[lists_of(toy).numpy()].mean()
    with toy.use_variant("base"):
        assert steered < counts[lists_of(toy).numpy()].mean()
    assert "vanilla at strength 1.5; adaptive at strength" in toy.scoring_notes()[0]


SPREESASRec, SPREEBERT4Rec = SPREE.on(SASRec), SPREE.on(BERT4Rec)


class ThroughHook(SPREESASRec):
    """SASRec steered by a hook even where its representation could be edited directly."""

    def is_output(self, site: Site) -> bool:
        return False


@pytest.fixture(scope="module", params=["SASRec", "BERT4Rec"])
def transformer(request: pytest.FixtureRequest) -> Any:
    kind = {"SASRec": SPREESASRec, "BERT4Rec": SPREEBERT4Rec}[request.param]
    model = fitted(kind, spree_sites=[[1, -1], [1, -3]], synthetic_users=60)
    assert model.site[0] == 1
    return model


@pytest.mark.parametrize("position", [-1, -3])
def test_the_hook_edits_exactly_one_position_of_block_1(transformer: Any, position: int) -> None:
    transformer.site.copy_(torch.tensor([1, position]))
    transformer.set_strengths(spree_strength=3.0)
    layers = transformer.base.trm_encoder.layer
    interaction = batch(50)
    outputs: dict[str, list[torch.Tensor]] = {}
    scores = {}
    for variant in ("base", "adaptive"):
        outputs[variant] = []
        # Registered on the next block, so that it sees what the first block hands on.
        seen = layers[1].register_forward_pre_hook(lambda m, args, v=variant: outputs[v].append(args[0].clone()))
        with torch.no_grad(), transformer.use_variant(variant):
            if variant == "base":
                scores["modules"] = transformer.run_blocks(interaction) @ transformer.item_representations().t()
            else:
                scores["adaptive"] = transformer.full_sort_predict(interaction)
        seen.remove()
    before, after = outputs["base"][0], outputs["adaptive"][0]
    column = (interaction["item_length"] + position).clamp_min(0)
    changed = (before != after).any(dim=2)
    expected = torch.zeros_like(changed)
    expected[torch.arange(50), column] = True
    assert torch.equal(changed, expected)
    x = before[torch.arange(50), column]
    moved = x + 3.0 * transformer.estimate_bias(x).unsqueeze(1) * transformer.direction
    torch.testing.assert_close(after[torch.arange(50), column], moved, atol=1e-6, rtol=0)
    assert not any(layer._forward_hooks for layer in layers)


def test_block_1_of_3_by_running_the_other_blocks_by_hand(transformer: Any) -> None:
    transformer.site.copy_(torch.tensor([1, -1]))
    transformer.set_strengths(spree_strength=3.0)
    interaction = batch(50)
    steered = transformer.represent_users(interaction)
    base, rows, last = transformer.base, torch.arange(50), interaction["item_length"] - 1
    sequences, bert = interaction["item_id_list"], hasattr(transformer.base, "output_ffn")
    with torch.no_grad():
        if bert:
            for row in rows:
                longer = [*sequences[row, : last[row] + 1].tolist(), base.mask_token]
                sequences[row] = torch.tensor(longer[1:] + [0] * (WINDOW + 1 - len(longer)))
        hidden = base.LayerNorm(base.item_embedding(sequences) + base.position_embedding.weight)
        mask = base.get_attention_mask(sequences, bidirectional=bert)
        first = base.trm_encoder.layer[0](hidden, mask)
        x = first[rows, last]
        first[rows, last] = x + 3.0 * transformer.estimate_bias(x).unsqueeze(1) * transformer.direction
        output = base.trm_encoder.layer[2](base.trm_encoder.layer[1](first, mask), mask)[rows, last]
        if bert:
            output = base.output_ln(base.output_gelu(base.output_ffn(output)))
    torch.testing.assert_close(steered, output, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("adaptive", [True, False])
def test_strength_zero_is_the_base_bit_by_bit(transformer: Any, adaptive: bool) -> None:
    last = fitted(SPREESASRec, spree_sites=[[3, -1]], synthetic_users=60)
    assert last.site.tolist() == [3, -1]
    for model in (transformer, last):
        model.set_strengths(spree_strength=0.0, spree_adaptive=adaptive)
        scores = model.full_sort_predict(batch())
        with model.use_variant("base"):
            assert torch.equal(scores, model.full_sort_predict(batch()))
        model.set_strengths(spree_strength=3.0, spree_adaptive=True)
        assert not torch.equal(scores, model.full_sort_predict(batch()))


def test_bert4rec_scores_are_recboles(transformer: Any) -> None:
    if not isinstance(transformer, SPREEBERT4Rec):
        pytest.skip("SASRec has tests of its own")
    with torch.no_grad(), transformer.use_variant("base"):
        torch.testing.assert_close(
            transformer.full_sort_predict(batch()), transformer.base.full_sort_predict(batch()), atol=0, rtol=0
        )


def test_the_last_site_of_sasrec_needs_no_hook() -> None:
    direct = fitted(SPREESASRec, spree_sites=[[3, -1]], synthetic_users=60)
    hooked = fitted(ThroughHook, spree_sites=[[3, -1]], synthetic_users=60)
    assert hooked.site.tolist() == direct.site.tolist() == [3, -1]
    torch.testing.assert_close(direct.direction, hooked.direction, atol=1e-4, rtol=1e-3)
    hooked.load_state_dict(direct.state_dict())
    torch.testing.assert_close(direct.represent_users(batch()), hooked.represent_users(batch()), atol=1e-4, rtol=1e-4)


def test_guards(toy: Any) -> None:
    for name, value in {"spree_strength": math.inf, "spree_adaptive": 1}.items():
        with pytest.raises(FairError, match=name):
            toy.set_strengths(**{name: value})
    with pytest.raises(FairError, match="full rankings"):
        toy.check_splits(SimpleNamespace(_dataset=ToyDataset()), None)
    with pytest.raises(FairError, match="synthetic_length=13"):
        ToySPREE(Settings(SETTINGS, synthetic_length=13), ToyDataset())
    with pytest.raises(FairError, match="not been fitted"):
        ToySPREE(SETTINGS, ToyDataset()).full_sort_predict(batch())
