"""PopSteer's statistics and steering on a base model small enough to reason about, and on SASRec."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from torch import nn

from recbole_fair.data.facts.interactions import training_interactions
from recbole_fair.data.facts.popularity import count_items, select_head_tail
from recbole_fair.data.facts.profiles import SyntheticProfiles
from recbole_fair.errors import FairError
from recbole_fair.model.bases.sasrec import SASRec
from recbole_fair.model.popsteer.neurons import COLUMNS, cohens_d, steering_moves, steering_weights
from recbole_fair.model.popsteer.popsteer import PopSteer
from recbole_fair.model.popsteer.sequential import PopSteerSequential
from recbole_fair.model.popsteer.vectors import collect_prefix_vectors

N_USERS, N_ITEMS, D, WINDOW = 120, 61, 8, 12


class Settings(dict[str, Any]):
    """RecBole's convention: absent keys are None."""

    def __getitem__(self, key: str) -> Any:
        return self.get(key)


SETTINGS = Settings(
    sae_scale=4, sae_k=6, sae_encoder_bias=True, sae_aux_coef=1 / 32, sae_learning_rate=3e-3, sae_batch_size=256,
    sae_epochs=12, sae_stopping_step=10, sae_vectors="all", sae_vector_stride=1, synthetic_users=600, head_share=0.1,
    tail_share=0.1, head_tail_by="items", alpha_pop=2.0, alpha_unpop=2.0, beta=0.0, steer_sigma="group",
    steer_mode="popsteer", steer_norm="global", erase_share=1.0,
    noise_std=1.0, dense_strength=2.0, keep_reconstruction_error=False, seed=3,
    MAX_ITEM_LIST_LENGTH=WINDOW, USER_ID_FIELD="user_id", ITEM_ID_FIELD="item_id", LIST_SUFFIX="_list",
    ITEM_LIST_LENGTH_FIELD="item_length", NEG_PREFIX="neg_", device="cpu", n_layers=2, n_heads=2, hidden_size=D,
    inner_size=16, hidden_dropout_prob=0.5, attn_dropout_prob=0.5, hidden_act="gelu", layer_norm_eps=1e-12,
    initializer_range=0.5, loss_type="CE", train_positions="all",
)  # fmt: skip


def histories() -> tuple[np.ndarray, np.ndarray]:
    """Users of different tastes for popularity; item ids rise as popularity falls."""
    rng = np.random.default_rng(0)
    users, items = [], []
    for user in range(1, N_USERS + 1):
        weight = np.arange(1, N_ITEMS) ** -rng.uniform(0.2, 1.5)
        length = rng.integers(3, 30)
        users += [user] * length
        items += (rng.choice(N_ITEMS - 1, size=length, p=weight / weight.sum()) + 1).tolist()
    return np.array(users), np.array(items)


class ToyDataset:
    """As much of a RecBole data set as fitting reads."""

    iid_field, item_num, user_num = "item_id", N_ITEMS, N_USERS + 1
    item_feat, dataset_path, dataset_name, config = None, "nowhere", "toy", SETTINGS

    def __init__(self) -> None:
        self.field2source: dict[str, str] = {}
        self.field2id_token = {"item_id": np.array([f"i{i}" for i in range(N_ITEMS)])}

    def original_rows(self) -> tuple[np.ndarray, np.ndarray, None]:
        return (*histories(), None)

    def num(self, field: str) -> int:
        return N_ITEMS


class MeanOfItems(nn.Module):
    """A base model whose user is the mean of the items, the first dimension of which is popularity."""

    USER_ID, ITEM_SEQ, ITEM_SEQ_LEN, ITEM_ID = "user_id", "item_id_list", "item_length", "item_id"
    max_seq_length = WINDOW

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__()
        table = torch.randn(N_ITEMS, D, generator=torch.Generator().manual_seed(1)) * 0.5
        table[:, 0] = torch.linspace(2, -2, N_ITEMS)
        table[0] = 0
        self.table = nn.Parameter(table)

    def represent_users(self, interaction: Any) -> torch.Tensor:
        sequence = interaction[self.ITEM_SEQ]
        return self.table[sequence].sum(dim=1) / interaction[self.ITEM_SEQ_LEN].unsqueeze(1)

    def item_representations(self) -> torch.Tensor:
        return self.table


PopSteerSASRec = PopSteer.on(SASRec)


class ToyPopSteer(PopSteerSequential):
    base_class = MeanOfItems
    base_model_name = "MeanOfItems"


@pytest.fixture(scope="module")
def model() -> ToyPopSteer:
    made = ToyPopSteer(SETTINGS, ToyDataset())
    made.freeze_base()
    made.fit_intervention(SimpleNamespace(_dataset=ToyDataset()), None)
    return made


@pytest.fixture(autouse=True)
def _default_strengths(request: pytest.FixtureRequest) -> None:
    if "model" in request.fixturenames:
        made = request.getfixturevalue("model")
        made.set_strengths(**{key: SETTINGS[key] for key in made.strength_keys})


def batch(n: int = 40) -> Interaction:
    users, items = histories()
    sequences = torch.zeros(n, WINDOW, dtype=torch.long)
    lengths = torch.zeros(n, dtype=torch.long)
    for row in range(n):
        own = torch.from_numpy(items[users == row + 1])[-WINDOW:]
        sequences[row, : len(own)], lengths[row] = own, len(own)
    return Interaction({"item_id_list": sequences, "item_length": lengths})


def column(model: PopSteer, name: str) -> torch.Tensor:
    return model.neurons[:, COLUMNS.index(name)]


def test_table_equals_two_pass_statistics_of_stored_activations(model: ToyPopSteer) -> None:
    _, items = histories()
    head, tail = select_head_tail(count_items(items, N_ITEMS), 0.1, 0.1, "items")
    assert len(head) == len(tail) == 6
    z = {}
    for side, chosen, seed in (("popular", head, 4), ("unpopular", tail, 5)):
        sequences, lengths = zip(*SyntheticProfiles(chosen, 600, WINDOW, seed=seed).batches(600), strict=True)
        users = Interaction({"item_id_list": sequences[0], "item_length": lengths[0]})
        z[side] = model.sae.encode_pre(model.base.represent_users(users)).detach().double().numpy()
        np.testing.assert_allclose(column(model, f"mean_{side}"), z[side].mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(column(model, f"std_{side}"), z[side].std(axis=0), atol=1e-5)
    pooled = np.sqrt((z["popular"].var(axis=0) + z["unpopular"].var(axis=0)) / 2)
    d = (z["popular"].mean(axis=0) - z["unpopular"].mean(axis=0)) / pooled
    np.testing.assert_allclose(column(model, "effect_size"), d, rtol=1e-3)


def test_effect_size_by_hand() -> None:
    mean = torch.tensor([3.0, 1.0, 1.0])
    std = torch.tensor([1.0, 0.0, 0.0])
    d = cohens_d(mean, std, torch.tensor([1.0, 1.0, 0.0]), torch.tensor([7.0**0.5, 0.0, 0.0]))
    torch.testing.assert_close(d, torch.tensor([1.0, 0.0, 0.0]))  # 2 / sqrt((1 + 7) / 2); no variance: 0


def test_weights_by_hand() -> None:
    d = torch.tensor([4.0, 1.0, -2.0, 0.0, -1.0])
    weights = steering_weights(d, alpha_pop=2.0, alpha_unpop=3.0, beta=1.0)
    torch.testing.assert_close(weights, torch.tensor([2.0, 0.0, 1.5, 0.0, 0.0]))  # |d| = beta is not steered
    assert steering_weights(d, 2.0, 3.0, 0.0).count_nonzero() == 4
    assert torch.equal(steering_weights(torch.zeros(3), 1.0, 1.0, 0.0), torch.zeros(3))


@pytest.mark.parametrize(
    ("sigma", "expected"),
    [
        ("group", [-2 * 3.0, 2 * 0.5 * 5.0]),
        ("crossed", [-2 * 4.0, 2 * 0.5 * 12.0]),
        ("pooled", [-2 * 12.5**0.5, 2 * 0.5 * 84.5**0.5]),
        ("real", [-2 * 0.1, 2 * 0.5 * 0.2]),
    ],
)
def test_shift_by_hand(sigma: str, expected: list[float]) -> None:
    table = torch.zeros(2, len(COLUMNS), dtype=torch.float64)
    values = {"std_popular": [3, 12], "std_unpopular": [4, 5], "std_real": [0.1, 0.2], "effect_size": [2, -1]}
    for name, column_values in values.items():
        table[:, COLUMNS.index(name)] = torch.tensor(column_values, dtype=torch.float64)
    _, shift = steering_moves(table, 2.0, 2.0, 0.0, sigma)
    torch.testing.assert_close(shift, torch.tensor(expected, dtype=torch.float64))


def test_pooled_sigma_is_exactly_an_encoded_shift_of_the_user(model: ToyPopSteer) -> None:
    """With pooled sigma, beta=0 and equal alphas, steering z is encoding x - c (mean_pop - mean_unpop)."""
    alpha = 1.7
    model.set_strengths(alpha_pop=alpha, alpha_unpop=alpha, steer_sigma="pooled")
    x = model.base.represent_users(batch())
    c = alpha / column(model, "effect_size").abs().max()
    moved = x - (c * (model.mean_popular - model.mean_unpopular)).float()
    steered = model.sae.encode_pre(x) + model.steering_shift()
    torch.testing.assert_close(steered, model.sae.encode_pre(moved), atol=1e-5, rtol=0)
    torch.testing.assert_close(model.edit(x, "steered"), model.sae(moved).reconstruction, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["popsteer", "random_select", "noise", "dense"])
def test_strength_zero(model: ToyPopSteer, mode: str) -> None:
    model.set_strengths(steer_mode=mode, alpha_pop=0.0, alpha_unpop=0.0, noise_std=0.0, dense_strength=0.0)
    scores = {}
    for variant in model.variants:
        with model.use_variant(variant):
            scores[variant] = model.full_sort_predict(batch())
    same = "base" if mode == "dense" else "reconstructed"
    torch.testing.assert_close(scores["steered"], scores[same], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(scores["base"], scores["reconstructed"], atol=1e-3)
    if mode in ("popsteer", "random_select"):
        model.set_strengths(keep_reconstruction_error=True)
        assert torch.equal(model.full_sort_predict(batch()), scores["base"])


def test_steering_lowers_the_popularity_of_the_lists(model: ToyPopSteer) -> None:
    _, items = histories()
    counts = count_items(items, N_ITEMS).double()
    means = []
    for alpha in (0.0, 0.5, 1.0, 2.0, 4.0):
        model.set_strengths(alpha_pop=alpha, alpha_unpop=alpha)
        top = model.full_sort_predict(batch(100))[:, 1:].topk(10, dim=1).indices + 1
        means.append(counts[top].mean().item())
    assert means == sorted(means, reverse=True)
    assert means[-1] < 0.8 * means[0]


def test_strengths_apply_without_a_new_fit(model: ToyPopSteer) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one = model.full_sort_predict(batch())
    model.set_strengths(alpha_pop=5.0, beta=0.5)
    assert not torch.equal(one, model.full_sort_predict(batch()))
    model.set_strengths(alpha_pop=2.0, beta=0.0)
    assert torch.equal(one, model.full_sort_predict(batch()))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_random_select_makes_the_same_moves_elsewhere(model: ToyPopSteer) -> None:
    model.set_strengths(beta=column(model, "effect_size").abs().median().item())
    steered = model.steering_shift()
    model.set_strengths(steer_mode="random_select")
    shuffled = model.steering_shift()
    assert 0 < steered.count_nonzero() < len(steered)
    assert torch.equal(steered.sort().values, shuffled.sort().values)
    assert not torch.equal(steered, shuffled)


def test_noise_touches_selected_neurons_only_and_repeats(model: ToyPopSteer) -> None:
    model.set_strengths(steer_mode="noise", noise_std=0.7)
    scores = []
    for _ in range(2):
        with model.use_variant("steered"):
            scores.append(model.full_sort_predict(batch()))
    assert torch.equal(*scores)
    model.set_strengths(beta=1e9)  # nothing is selected
    with model.use_variant("reconstructed"):
        expected = model.full_sort_predict(batch())
    torch.testing.assert_close(model.full_sort_predict(batch()), expected, atol=1e-5, rtol=1e-5)


def test_dense_moves_along_the_difference_of_means(model: ToyPopSteer) -> None:
    model.set_strengths(steer_mode="dense", dense_strength=1.5)
    x = model.base.represent_users(batch())
    step = model.edit(x, "steered") - x
    torch.testing.assert_close(step.norm(dim=1), torch.full((len(x),), 1.5))
    assert (step[:, 0] < 0).all()  # the first dimension of this base is popularity


def test_state_dict_is_the_whole_model(model: ToyPopSteer) -> None:
    fresh = ToyPopSteer(SETTINGS, ToyDataset())
    with pytest.raises(FairError, match="not been fitted"):
        fresh.full_sort_predict(batch())
    fresh.load_state_dict(model.state_dict())
    fresh.load_other_parameter(model.other_parameter())
    assert torch.equal(fresh.full_sort_predict(batch()), model.full_sort_predict(batch()))
    assert fresh.report == model.report


def test_predict_is_an_entry_of_full_sort_predict(model: ToyPopSteer) -> None:
    interaction = batch()
    interaction.update(Interaction({"item_id": torch.arange(40) + 5}))
    everything = model.full_sort_predict(interaction)
    torch.testing.assert_close(model.predict(interaction), everything[torch.arange(40), torch.arange(40) + 5])


def test_report_and_neuron_table(model: ToyPopSteer, tmp_path: Path) -> None:
    neurons = model.report["neurons"]
    d = column(model, "effect_size")
    assert neurons["popular"][0]["effect_size"] == pytest.approx(d.max().item())
    assert neurons["unpopular"][0]["effect_size"] == pytest.approx(d.min().item())
    head_shares = [neurons[side][0]["head_share_of_top_users"] for side in ("popular", "unpopular")]
    assert head_shares[0] > neurons["median_head_share"] > head_shares[1]
    model.write_neurons(str(tmp_path / "neurons.csv"))
    with (tmp_path / "neurons.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == model.sae.n_latents
    for row in rows:
        value = d[int(row["neuron"])].item()
        assert float(row["effect_size"]) == value
        assert int(row["direction"]) == -np.sign(value)
        assert float(row["weight"]) == pytest.approx(2.0 * abs(value) / d.abs().max().item())


def test_guards(model: ToyPopSteer) -> None:
    with pytest.raises(FairError, match="sae_k"):
        ToyPopSteer(Settings(SETTINGS, sae_k=33), ToyDataset())
    for name, value in {"alpha_pop": -1.0, "beta": float("nan"), "steer_sigma": "mine", "steer_mode": "off"}.items():
        with pytest.raises(FairError, match=name):
            model.set_strengths(**{name: value})
    with pytest.raises(FairError, match="scoring-time"):
        model.set_strengths(sae_k=3)
    with pytest.raises(FairError, match="not a variant"), model.use_variant("other"):
        pass
    with pytest.raises(FairError, match="synthetic_length=13"):
        ToyPopSteer(Settings(SETTINGS, synthetic_length=WINDOW + 1), ToyDataset())


# -- vectors ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sasrec() -> SASRec:
    torch.manual_seed(0)
    return SASRec(SETTINGS, ToyDataset())


def prefix_by_prefix(base: SASRec, users: np.ndarray, items: np.ndarray) -> torch.Tensor:
    """Every prefix on its own through RecBole's forward pass."""
    rows = []
    for end in range(1, len(users) + 1):
        own = items[:end][users[:end] == users[end - 1]][-WINDOW:]
        padded = torch.zeros(1, WINDOW, dtype=torch.long)
        padded[0, : len(own)] = torch.from_numpy(own)
        rows.append(base.forward(padded, torch.tensor([len(own)])))
    return torch.cat(rows)


@torch.no_grad()
def test_collected_vectors_are_those_of_scoring_time(sasrec: SASRec) -> None:
    users, items = (column[:260] for column in histories())
    sasrec.train()  # dropout 0.5 must not reach the vectors
    found = collect_prefix_vectors(sasrec, users, items)
    again = collect_prefix_vectors(sasrec, users, items)
    mapped = collect_prefix_vectors(sasrec, users, items, most_mb=0)
    assert torch.equal(mapped.vectors, found.vectors)
    assert sasrec.training
    assert torch.equal(found.vectors, again.vectors)
    sasrec.eval()
    exact = prefix_by_prefix(sasrec, users, items)
    torch.testing.assert_close(found.vectors, exact, atol=1e-5, rtol=1e-4)
    assert torch.equal(found.users, torch.from_numpy(users))
    assert found.last.sum() == len(np.unique(users))

    position = np.concatenate([np.arange(n) for n in np.bincount(users)[1:]])
    for stride in (3, 5, 100):
        strided = collect_prefix_vectors(sasrec, users, items, stride=stride)
        torch.testing.assert_close(strided.vectors[found.last], exact[found.last], atol=1e-5, rtol=1e-4)
        short = torch.from_numpy(position < WINDOW)
        torch.testing.assert_close(strided.vectors[short], exact[short], atol=1e-5, rtol=1e-4)
        assert not torch.allclose(strided.vectors, exact, atol=1e-3)
    last = collect_prefix_vectors(sasrec, users, items, which="last")
    torch.testing.assert_close(last.vectors, exact[found.last], atol=1e-5, rtol=1e-4)
    assert last.last.all()


def test_weights_by_side_are_relative_to_the_largest_of_that_side() -> None:
    d = torch.tensor([4.0, 1.0, -2.0, -0.5, 0.0], dtype=torch.float64)
    torch.testing.assert_close(steering_weights(d, 2.0, 3.0, 0.0), torch.tensor([2.0, 0.5, 1.5, 0.375, 0.0]).double())
    sided = steering_weights(d, 2.0, 3.0, 0.0, by_side=True)
    torch.testing.assert_close(sided, torch.tensor([2.0, 0.5, 3.0, 0.75, 0.0]).double())


# -- erasing -----------------------------------------------------------------------------------------------------------


def test_erasing_moves_neurons_towards_the_middle_of_both_sides(model: ToyPopSteer) -> None:
    users = model.base.represent_users(batch())
    model.set_strengths(steer_mode="erase", erase_share=0.0, keep_reconstruction_error=True)
    torch.testing.assert_close(model.edit(users, "steered"), users)
    model.set_strengths(erase_share=0.6)
    d = column(model, "effect_size")
    weight = (0.6 * d.abs() / d.abs().max()).float()
    middle = ((column(model, "mean_popular") + column(model, "mean_unpopular")) / 2).float()
    pre = model.sae.encode_pre(users)
    moved = model.sae.decode_sparse(*model.sae.select((1 - weight) * pre + weight * middle))
    wanted = users + moved - model.sae(users).reconstruction
    torch.testing.assert_close(model.edit(users, "steered"), wanted, atol=1e-5, rtol=1e-4)
    assert float(model.steering_shift().abs().max()) == 0


def test_least_squares_erasing_leaves_both_sides_the_same_mean_and_nothing_for_a_linear_probe(
    model: ToyPopSteer,
) -> None:
    inter_sides = []
    inter = training_interactions(ToyDataset())
    concept = model.read_concepts(ToyDataset(), inter)[0]
    for side, seed in ((True, model._seed + 1), (False, model._seed + 2)):
        inter_sides.append(torch.cat(list(model.profile_vectors(concept, side, inter, seed))))
    model.set_strengths(steer_mode="erase_dense", erase_share=1.0)
    with torch.no_grad():
        after = [model.edit(side, "steered") for side in inter_sides]
    before = (inter_sides[0].mean(0) - inter_sides[1].mean(0)).norm()
    assert float((after[0].mean(0) - after[1].mean(0)).norm()) < 1e-3 * float(before)
    # Least squares finds nothing: the best linear fit to the sides is a constant.
    x = torch.cat(after).double()
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    y = torch.cat([torch.ones(len(after[0])), torch.zeros(len(after[1]))]).double()
    fitted = x @ torch.linalg.lstsq(x, y, driver="gelsd").solution
    assert float((fitted - y.mean()).abs().max()) < 0.02
    model.set_strengths(erase_share=0.5)
    with torch.no_grad():
        half = [model.edit(side, "steered") for side in inter_sides]
    torch.testing.assert_close(half[0], (inter_sides[0] + after[0]) / 2, atol=1e-5, rtol=1e-4)


def test_an_autoencoder_that_loses_too_much_is_fitted_again_and_its_file_knows_its_size(model: ToyPopSteer) -> None:
    assert model.report["sae"]["fits"] == 1
    unexplained = model.report["sae"]["validation"]["fvu"]
    finer = ToyPopSteer(Settings(SETTINGS, sae_most_unexplained=unexplained / 10), ToyDataset())
    finer.freeze_base()
    found = finer.fit_intervention(SimpleNamespace(_dataset=ToyDataset()), None)["sae"]
    assert found["fits"] > 1
    assert SETTINGS["sae_k"] < found["k"] == finer.sae.k <= D
    assert found["validation"]["fvu"] < unexplained
    again = ToyPopSteer(SETTINGS, ToyDataset())
    again.load_state_dict(finer.state_dict())
    rows = batch()
    for variant in ("reconstructed", "steered"):
        with finer.use_variant(variant), again.use_variant(variant):
            assert torch.equal(finer.represent_users(rows), again.represent_users(rows))
