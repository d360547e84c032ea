"""The dossiers: every analysis against a computation of its own."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from recbole_fair.analysis import neuron_effects as on
from recbole_fair.analysis.distances import distance_frame, paired_permutation, project, wasserstein
from recbole_fair.analysis.populations import NAMES, Populations, activations
from recbole_fair.data.reading.titles import item_titles
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import load_checkpoint
from recbole_fair.model.popsteer.neurons import choose_sigma
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair
from recbole_fair.report.dossiers import neuron_entries
from recbole_fair.report.neuron_figures import neuron_figures
from recbole_fair.report.style import save_figure
from recbole_fair.runs.dossiers.base import Options
from recbole_fair.runs.dossiers.measures import lowered_neurons
from recbole_fair.runs.dossiers.neurons import NeuronsDossier, clouds_of
from recbole_fair.runs.dossiers.users import collect
from recbole_fair.runs.explain import explain_checkpoint
from recbole_fair.runs.loading import config_of, load_trainer

BASE = {
    "epochs": 2, "hidden_size": 8, "inner_size": 16, "n_layers": 2, "MAX_ITEM_LIST_LENGTH": 8, "show_progress": False,
    "head_share": 0.2, "tail_share": 0.2, "metrics": ["NDCG", "GiniIndex"], "topk": [5], "valid_metric": "NDCG@5",
    "state": "WARNING",
}  # fmt: skip
SMALL = Options(synthetic_users=200, strongest=3, tops=4, map_users=30, map="pca", permutations=19,
                alphas=(0.0, 2.0), strengths=(0.0, 4.0))  # fmt: skip


@pytest.fixture(scope="module")
def steered(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("explain")
    settings = {
        **BASE, "data_path": str(small_data), "checkpoint_dir": str(folder), "sae_scale": 4, "sae_k": 4,
        "sae_epochs": 4, "synthetic_users": 500, "strengths": "fixed", "keep_reconstruction_error": False,
    }  # fmt: skip
    return str(run_recbole_fair("PopSteerSASRec", "small", config_dict=settings)["checkpoint"])


@pytest.fixture(scope="module")
def loaded(steered: str) -> tuple[Any, Any]:
    content = load_checkpoint(steered)
    return load_trainer(config_of(content, {}), content, steered)


@pytest.fixture(scope="module")
def populations(loaded: tuple[Any, Any]) -> Populations:
    trainer, loaders = loaded
    return collect(trainer.model, loaders[0], loaders[1], 200, 7)


def test_real_users_and_their_head_share(loaded: tuple[Any, Any], populations: Populations) -> None:
    trainer = loaded[0]
    assert sorted(populations.users) == list(populations.users)
    assert len(populations.real) == len(populations.users) == 60
    inter = populations.inter
    counts = np.bincount(inter.item, minlength=inter.n_items)
    head = np.flatnonzero(populations.weight)
    assert 0 < len(head) < 20
    assert counts[head].min() >= np.delete(counts, [0, *head]).max()
    for row, user in enumerate(populations.users):
        history = inter.item[inter.user == user]
        assert populations.head_share[row] == pytest.approx(np.mean([item in head for item in history]))
    # Validation meets a user after the training history.
    one = torch.zeros(1, 8, dtype=torch.long)
    history = torch.from_numpy(inter.item[inter.user == populations.users[5]][-8:])
    one[0, : len(history)] = history
    from recbole.data.interaction import Interaction

    batch = Interaction(
        {trainer.model.base.ITEM_SEQ: one, trainer.model.base.ITEM_SEQ_LEN: torch.tensor([len(history)])}
    )
    torch.testing.assert_close(trainer.model.base.represent_users(batch)[0], populations.real[5], atol=1e-5, rtol=1e-4)


def test_top_users_by_sorting_all(loaded: tuple[Any, Any], populations: Populations) -> None:
    model = loaded[0].model
    found = on.top_users(model, populations, 4)
    z = model.sae.encode_pre(populations.real).detach().double().numpy()
    share = populations.head_share
    for neuron in range(model.sae.n_latents):
        order = sorted(range(len(z)), key=lambda row: -z[row, neuron])[:4]
        part = found[found["neuron"] == neuron]
        assert part["user"].tolist() == populations.users[order].tolist()
        np.testing.assert_allclose(part["activation"], z[order, neuron], atol=1e-5)
        assert on.head_share_of_top_users(found)[neuron] == pytest.approx(share[order].mean())


def test_ties_are_broken_by_the_smaller_row() -> None:
    values = np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 0.0], [1.0, 5.0]])
    assert on._largest(values, 2).tolist() == [[1, 3], [0, 0]]
    assert on._largest(values, 4).tolist() == [[1, 3], [0, 0], [2, 1], [3, 2]]


def test_top_items_by_loops(loaded: tuple[Any, Any], populations: Populations) -> None:
    model = loaded[0].model
    found = on.top_items(model, populations, 3)
    z = activations(model, populations.real, np.arange(model.sae.n_latents))
    z = (z - z.mean(0)) / z.std(0)
    inter, items = populations.inter, model.item_representations().detach().double().numpy()
    for neuron in (0, 5, 31):
        liked = {}
        for item in range(1, inter.n_items):
            rows = [int(np.flatnonzero(populations.users == user)[0]) for user in inter.user[inter.item == item]]
            liked[item] = sum(z[row, neuron] for row in rows) / (len(rows) + on.SMOOTHING)
        promoted = {item: items[item] @ model.sae.W_dec[neuron].detach().double().numpy() for item in liked}
        for kind, scores in (("history", liked), ("promoted", promoted)):
            part = found[(found["neuron"] == neuron) & (found["kind"] == kind)]
            best = sorted(scores, key=lambda item: -scores[item])[:3]
            assert part["item"].tolist() == best
            np.testing.assert_allclose(part["score"], [scores[item] for item in best], atol=1e-5)


def test_normality_against_definitions(loaded: tuple[Any, Any], populations: Populations) -> None:
    model = loaded[0].model
    table = on.normality_frame(model, populations)
    for name in NAMES:
        z = model.sae.encode_pre(populations[name]).detach().double().numpy()
        centred = (z - z.mean(0)) / z.std(0)
        np.testing.assert_allclose(table[f"skew_{name}"], (centred**3).mean(0), atol=1e-4)
        np.testing.assert_allclose(table[f"kurtosis_{name}"], (centred**4).mean(0) - 3, atol=1e-3)
        assert table[f"p_{name}"][4] == pytest.approx(stats.normaltest(z[:, 4]).pvalue, abs=1e-4)
    summary = on.normality_summary(table, pd.Series([True] * 30 + [False] * 2)).set_index(["population", "neurons"])
    inside = table["skew_real"].abs()[:30] < 0.5
    assert summary.loc[("real", "alive"), "skew"] == pytest.approx(inside.mean())
    assert summary.loc[("real", "all"), "count"] == 32


def test_normal_and_constant_activations() -> None:
    rng = np.random.default_rng(0)

    class Model:
        neurons = torch.zeros(2, 9)

        class sae:  # noqa: N801
            W_enc, b_enc, b_dec = torch.tensor([[1.0], [0.0]]), torch.tensor([0.0, 0.3]), torch.zeros(1)

    draws = torch.from_numpy(rng.normal(size=(4000, 1)).astype(np.float32))
    people = Populations(draws, draws, draws.exp(), np.arange(4000), None, np.zeros(3))  # type: ignore[arg-type]
    summary = on.normality_summary(on.normality_frame(Model, people), pd.Series([True, False])).set_index(
        ["population", "neurons"]
    )
    assert summary.loc[("popular", "alive")].tolist() == [1, 1, 1, 1, 1]
    assert summary.loc[("real", "alive")].tolist() == [1, 0, 0, 0, 0]  # log-normal
    assert summary.loc[("popular", "all"), "both"] == 0.5  # the neuron without variance passes nothing


def test_lowering_neurons_equals_a_full_evaluation(
    loaded: tuple[Any, Any], steered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, loaders = loaded
    model = trainer.model
    table = lowered_neurons(trainer, loaders[2], counts=[0, 1, 3])
    reconstructed = evaluate_checkpoint(steered)["variants"]["reconstructed"]
    d, sigma = model.neurons[:, 6], choose_sigma(model.neurons, "group")
    for side, sign in (("popular", 1), ("unpopular", -1)):
        part = table[table["side"] == side].set_index("neurons")
        able = [j for j in range(len(d)) if sign * d[j] > 1 and model.neurons[j, 7] > 0]
        able.sort(key=lambda j: -abs(float(d[j])))
        assert set(part.index) == {k for k in (0, 1, 3) if k <= len(able)}
        assert part.loc[0, "ndcg@5"] == pytest.approx(reconstructed["ndcg@5"], abs=1e-9)
        for k in part.index:
            chosen = able[:k]

            # Written out without the model's own steering: encode all, lower, keep the largest, decode.
            def scored(interaction: Any, chosen: list[int] = chosen) -> torch.Tensor:
                pre = model.sae.encode_pre(model.base.represent_users(interaction))
                pre[:, chosen] -= sigma[chosen].to(pre)
                kept = pre.topk(model.sae.k, dim=1)
                dense = torch.zeros_like(pre).scatter(1, kept.indices, kept.values.relu())
                return model.sae.decode(dense) @ model.item_representations().t()

            with monkeypatch.context() as patch, torch.no_grad():
                patch.setattr(model, "full_sort_predict", scored, raising=False)
                full = trainer.evaluate(loaders[2], load_best_model=False)
            assert part.loc[k, "ndcg@5"] == pytest.approx(full["ndcg@5"], abs=1e-9)
            assert part.loc[k, "giniindex@5"] == pytest.approx(full["giniindex@5"], abs=1e-9)


def test_lowering_nothing_is_the_base_where_the_error_is_kept(loaded: tuple[Any, Any]) -> None:
    trainer, loaders = loaded
    before = trainer.model.strengths
    trainer.model.set_strengths(keep_reconstruction_error=True)
    try:
        table = lowered_neurons(trainer, loaders[2], counts=[0])
        with trainer.model.use_variant("base"):
            base = trainer.evaluate(loaders[2], load_best_model=False)
    finally:
        trainer.model.set_strengths(**before)
    assert all(row["ndcg@5"] == base["ndcg@5"] for row in table.to_dict("records"))


def test_direction_and_weight_are_those_of_the_moves(loaded: tuple[Any, Any]) -> None:
    model = loaded[0].model
    before = model.strengths
    try:
        for mode in ("popsteer", "random_select", "noise", "dense"):
            model.set_strengths(steer_mode=mode)
            frame = on.neuron_frame(model)
            np.testing.assert_array_equal(frame["direction"], np.sign(frame["shift"]))
            assert bool((frame["shift"] != 0).any()) == (mode in ("popsteer", "random_select"))
            np.testing.assert_array_equal(frame["weight"] > 0, frame["shift"] != 0)
    finally:
        model.set_strengths(**before)


def test_doubling() -> None:
    assert on.doubling(0) == [0]
    assert on.doubling(1) == [0, 1]
    assert on.doubling(10) == [0, 1, 2, 4, 8, 10]


# -- distances ---------------------------------------------------------------------------------------------------------


def test_wasserstein_on_a_line_and_by_trying_all_matchings() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(40, 1)), rng.normal(1.0, 2.0, size=(40, 1))
    assert wasserstein(a, b) == pytest.approx(stats.wasserstein_distance(a[:, 0], b[:, 0]))
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    best = min(
        np.mean([np.linalg.norm(a[i] - b[j]) for i, j in enumerate(order)])
        for order in itertools.permutations(range(5))
    )
    assert wasserstein(a, b) == pytest.approx(best)
    assert wasserstein(a, a + np.array([3.0, 0.0, 4.0])) == pytest.approx(
        5.0
    )  # a shift moves every point by its length
    with pytest.raises(ValueError, match="equally many"):
        wasserstein(a, b[:4])


def test_the_test_says_what_moved_and_is_uniform_when_nothing_did() -> None:
    rng = np.random.default_rng(2)
    group = rng.normal(size=(30, 2))
    before = rng.normal(size=(30, 2))
    change, p = paired_permutation(before, before + np.array([4.0, 0.0]), group, 99, 0)
    assert change > 1
    assert p == 0.01
    change, p = paired_permutation(before, before, group, 19, 0)
    assert change == 0
    assert p == 1
    values = []
    for seed in range(200):
        draws = np.random.default_rng(seed).normal(size=(3, 12, 2))
        values.append(paired_permutation(draws[0], draws[1], draws[2], 49, seed)[1])
    # p-values of an exact test on 50 steps are uniform on 0.02, 0.04, ..., 1.
    assert stats.kstest(np.array(values) - 0.01, "uniform").pvalue > 0.01
    assert np.mean(np.array(values) <= 0.1) == pytest.approx(0.1, abs=0.06)


def test_distances_of_groups() -> None:
    rng = np.random.default_rng(3)
    clouds = {name: rng.normal(size=(20, 3)) + shift for name, shift in
              (("popular", 0.0), ("unpopular", 5.0), ("real", 1.0))}  # fmt: skip
    clouds["steered"] = clouds["real"] + 2.0
    plane = {name: x[:, :2] for name, x in clouds.items()}
    table = distance_frame(clouds, plane, 19, 0).set_index("to")
    for group, name in itertools.product(("popular", "unpopular"), ("real", "steered")):
        assert table.loc[group, name] == pytest.approx(wasserstein(clouds[name], clouds[group]))
        assert table.loc[group, f"{name}_on_map"] == pytest.approx(wasserstein(plane[name], plane[group]))
    assert table.loc["popular", "change"] > 0 > table.loc["unpopular", "change"]
    assert (table["p_value"] == 0.05).all()


def test_projections() -> None:
    from sklearn.decomposition import PCA

    points = np.random.default_rng(4).normal(size=(50, 6)) * [5, 3, 1, 1, 1, 1]
    flat = project(points, "pca", 0)
    np.testing.assert_allclose(np.abs(flat), np.abs(PCA(2).fit_transform(points)), atol=1e-8)
    assert project(points[:, :1], "pca", 0)[:, 1].tolist() == [0] * 50


def test_umap_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole_fair.analysis.distances.has_umap", lambda: False)
    with pytest.raises(FairError, match=r"pip install 'recbole_fair\[viz\]'"):
        project(np.zeros((5, 2)), "umap", 0)


@pytest.mark.slow
def test_umap_is_seeded_and_keeps_groups_apart() -> None:
    pytest.importorskip("umap")
    rng = np.random.default_rng(5)
    points = np.concatenate([rng.normal(size=(60, 8)), rng.normal(size=(60, 8)) + 8])
    flat = project(points, "umap", 1)
    np.testing.assert_array_equal(flat, project(points, "umap", 1))
    gap = np.linalg.norm(flat[:60].mean(0) - flat[60:].mean(0))
    assert gap > 2 * max(flat[:60].std(), flat[60:].std())


def test_without_steering_nobody_moves(loaded: tuple[Any, Any], populations: Populations) -> None:
    model = loaded[0].model
    before = model.strengths
    still = {"alpha_pop": 0.0, "alpha_unpop": 0.0, "dense_strength": 0.0}
    try:
        for change in ({}, {"keep_reconstruction_error": True}, {"steer_mode": "dense"}):
            model.set_strengths(**{**before, **still, **change})
            clouds, rows = clouds_of(model, populations, 20, 0)
            np.testing.assert_array_equal(clouds["real"], clouds["steered"])
            assert len(rows) == len(clouds["popular"]) == len(clouds["unpopular"]) == 20
        model.set_strengths(**before)
        clouds, _ = clouds_of(model, populations, 20, 0)
        assert np.abs(clouds["real"] - clouds["steered"]).max() > 0.01
    finally:
        model.set_strengths(**before)


# -- the whole dossier -------------------------------------------------------------------------------------------------


def test_a_dossier_of_neurons(steered: str, loaded: tuple[Any, Any], in_tmp: Path) -> None:
    document = explain_checkpoint(steered, "out", options=SMALL)
    written = json.loads((in_tmp / "out" / "explain.json").read_text())
    assert written["kind"] == "neurons"
    assert written["method"] == "PopSteer"
    assert written["strongest"] == json.loads(json.dumps(document["strongest"]))
    for name in (*written["tables"], *written["figures"]):
        assert (in_tmp / "out" / name).stat().st_size > 50, name
    assert {Path(name).suffix for name in written["figures"]} == {".png", ".svg"}
    table = pd.read_csv("out/neurons.csv")
    model = loaded[0].model
    np.testing.assert_allclose(table["effect_size"], model.neurons[:, 6])
    np.testing.assert_allclose(table["shift"], model.steering_shift(), atol=1e-6)
    assert written["neurons"]["alive"] == int(table["alive"].sum())
    assert sum(written["effect_sizes"]["counts"]) == int(table["alive"].sum())
    # The grid's corner without steering is the reconstruction, its other one what a single evaluation gives.
    surface = pd.read_csv("out/strengths.csv").set_index(["alpha_pop", "alpha_unpop"])
    variants = pd.read_csv("out/variants.csv").set_index("variant")
    assert surface.loc[(0, 0), "ndcg@5"] == pytest.approx(variants.loc["reconstructed", "ndcg@5"])
    assert surface.loc[(2, 2), "giniindex@5"] == pytest.approx(variants.loc["steered", "giniindex@5"])
    # Ids and titles are the data set's own.
    dataset = loaded[1][0]._dataset
    users, items = pd.read_csv("out/users.csv"), pd.read_csv("out/items.csv")
    assert set(users["user_id"]) <= set(map(str, dataset.field2id_token["user_id"]))
    titles = dict(zip(map(str, dataset.field2id_token["item_id"]), item_titles(dataset) or [], strict=True))
    assert items["title"].tolist() == [titles[item] for item in items["item_id"]]


def test_the_same_dossier_twice(loaded: tuple[Any, Any], in_tmp: Path) -> None:
    trainer, loaders = loaded
    one, two = (NeuronsDossier(trainer, loaders[0], loaders[1], SMALL).found for _ in range(2))
    assert neuron_entries(one) == neuron_entries(two)
    for name, dossier in (("a", one), ("b", two)):
        save_figure(neuron_figures(dossier, ["ndcg@5"], trainer.model.strengths)["map"](), in_tmp / name)
    assert (in_tmp / "a.svg").read_bytes() == (in_tmp / "b.svg").read_bytes()


def test_a_dossier_of_a_model_without_sequences(small_data: Path, in_tmp: Path) -> None:
    settings = {
        "data_path": str(small_data), "epochs": 2, "embedding_size": 8, "sae_scale": 4, "sae_k": 4, "sae_epochs": 2,
        "head_share": 0.2, "tail_share": 0.2, "metrics": ["NDCG", "GiniIndex"], "topk": [5], "valid_metric": "NDCG@5",
        "state": "WARNING",
    }  # fmt: skip
    path = run_recbole_fair("PopSteerBPR", "small", config_dict=settings)["checkpoint"]
    content = load_checkpoint(path)
    trainer, loaders = load_trainer(config_of(content, {}), content, path)
    dossier = NeuronsDossier(trainer, loaders[0], loaders[1], SMALL).found
    assert "whose histories lean most to either side (6 and 6)" in dossier.notes[0]
    single = evaluate_checkpoint(path)["variants"]
    tested = NeuronsDossier(trainer, loaders[0], loaders[2], SMALL).found.variants.set_index("variant")
    assert tested.loc["steered", "giniindex@5"] == pytest.approx(single["steered"]["giniindex@5"])
    # Its users are their own vectors.
    users = trainer.model.base.represent_users({"user_id": torch.tensor([3])})
    populations = collect(trainer.model, loaders[0], loaders[1], 50, 0)
    torch.testing.assert_close(populations.real[list(populations.users).index(3)], users[0])


def test_a_dossier_of_probes(small_data: Path, in_tmp: Path) -> None:
    settings = {**BASE, "data_path": str(small_data), "synthetic_users": 300, "topk": [5], "bias_list_length": 5}
    path = run_recbole_fair("SPREESASRec", "small", config_dict=settings)["checkpoint"]
    document = explain_checkpoint(path, "out", split="test", options=SMALL)
    assert document["method"] == "SPREE"
    assert [row["chosen"] for row in document["probe"]].count(True) == 1
    single = evaluate_checkpoint(path)
    for name, curve in single["calibration_curves"].items():
        rows = [row for row in document["calibration"] if row["variant"] == name]
        assert [row["tau_hat"] for row in rows] == pytest.approx(curve["tau_hat"]["5"])
        # The bias is tau-hat at the median, less a half (SPREE Eq. 4).
        middle = next(row["tau_hat"] for row in rows if row["level"] == 0.5)
        assert document["bias"][name]["mean"] == pytest.approx(middle - 0.5)
    assert document["strength_curve"][0]["ndcg@5"] == pytest.approx(single["variants"]["base"]["ndcg@5"])
    for name in (*document["tables"], *document["figures"]):
        assert (in_tmp / "out" / name).stat().st_size > 50, name


def test_what_cannot_be_explained(steered: str, small_data: Path, in_tmp: Path) -> None:
    plain = run_recbole_fair("BPR", "small", config_dict={"data_path": str(small_data), "epochs": 1})["checkpoint"]
    with pytest.raises(FairError, match="BPR, which has nothing to explain"):
        explain_checkpoint(plain)
    with pytest.raises(FairError, match="steer_mode=dense moves no neuron by an amount of its own"):
        explain_checkpoint(steered, config_dict={"steer_mode": "dense"})
    with pytest.raises(FairError, match="result_file='r' is for run and evaluate; a dossier writes"):
        explain_checkpoint(steered, config_dict={"result_file": "r"})
    with pytest.raises(FairError, match="valid or test"):
        explain_checkpoint(steered, split="train")
    with pytest.raises(FairError, match="map='tsne'"):
        Options(map="tsne")
    with pytest.raises(FairError, match="permutations=0"):
        Options(permutations=0)
    (in_tmp / "file").write_text("")
    with pytest.raises(FairError, match="cannot be made"):
        explain_checkpoint(steered, "file/below")
