"""PopSteer and SPREE on other concepts than popularity: groups, effect sizes, steps, checkpoints, every command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_fair.data.facts.interactions import training_interactions
from recbole_fair.errors import FairError
from recbole_fair.model.popsteer.neurons import COLUMNS, cohens_d
from recbole_fair.quick_start import (
    Recommender,
    evaluate_checkpoint,
    explain_checkpoint,
    frontier_checkpoint,
    load_data_and_model,
    run_recbole_fair,
    sweep_checkpoint,
)
from recbole_fair.report.html import write_report
from recbole_fair.runs.dossiers.base import Options

SMALL: dict[str, Any] = {
    "epochs": 12, "hidden_size": 8, "inner_size": 16, "n_layers": 2, "MAX_ITEM_LIST_LENGTH": 8, "learning_rate": 0.02,
    "metrics": ["NDCG", "GiniIndex"], "topk": [5], "valid_metric": "NDCG@5", "show_progress": False, "seed": 1,
    "sae_scale": 4, "sae_k": 4, "sae_epochs": 10, "synthetic_users": 300, "head_share": 0.2, "tail_share": 0.2,
}  # fmt: skip
EFFECT = COLUMNS.index("effect_size")


@pytest.fixture(scope="module")
def settings(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("concepts")
    users = ["user_id:token\tgender:token", *(f"u{n}\t{'FM'[n % 2]}" for n in range(60))]
    (folder / "small").mkdir()
    (folder / "small" / "small.item").write_text((small_data / "small" / "small.item").read_text())
    rng = np.random.default_rng(0)
    rows = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(60):  # women like the genre C, which men leave alone
        weight = np.where(np.arange(40) % 3 == 2, (6.0, 0.5)[user % 2], 1.0)
        items = rng.choice(40, size=int(rng.integers(6, 16)), replace=False, p=weight / weight.sum())
        rows += [f"u{user}\ti{item}\t5\t{10 * step + user}" for step, item in enumerate(items)]
    (folder / "small" / "small.inter").write_text("\n".join(rows) + "\n")
    (folder / "small" / "small.user").write_text("\n".join(users) + "\n")
    return {**SMALL, "data_path": str(folder), "checkpoint_dir": str(tmp_path_factory.mktemp("saved"))}


@pytest.fixture(scope="module")
def steered(settings: dict[str, Any]) -> dict[str, Any]:
    """A run for one genre that knows the other ones, both genders and popularity as well."""
    more = {"concept": "genre:C", "concepts": ["genre", "user:gender", "popularity"], "strengths": "fixed", "steer": 2}
    return dict(run_recbole_fair("PopSteerSASRec", "small", config_dict={**settings, **more}))


def test_effect_sizes_are_those_of_users_of_either_side(steered: dict[str, Any], in_tmp: Path) -> None:
    _, model, dataset, *_ = load_data_and_model(steered["checkpoint"])
    known = model.known_concepts
    assert [one["label"] for one in known] == ["C", "A", "B", "gender=F", "gender=M", "popular"]
    inter = training_interactions(dataset)
    concepts = model.read_concepts(dataset, inter)
    of_users = concepts[3]
    histories = {int(u): inter.item[inter.user == u][-8:] for u in np.unique(inter.user)}
    for row, concept in ((0, concepts[0]), (3, of_users)):
        z = []
        for side, seed in ((True, 2), (False, 3)):
            if concept.of == "users":
                ids = (concept.positive if side else concept.negative).tolist()
                sequences = torch.zeros(len(ids), 8, dtype=torch.long)
                for place, user in enumerate(ids):
                    sequences[place, : len(histories[user])] = torch.from_numpy(histories[user])
                lengths = torch.tensor([len(histories[user]) for user in ids])
                batch = Interaction({"user_id": torch.tensor(ids), "item_id_list": sequences, "item_length": lengths})
                vectors = model.base.represent_users(batch)
            else:
                vectors = torch.cat(list(model.profile_vectors(concept, side, inter, seed)))
            z.append(model.sae.encode_pre(vectors).detach().double())
        d = cohens_d(z[0].mean(0), z[0].std(0, correction=0), z[1].mean(0), z[1].std(0, correction=0))
        torch.testing.assert_close(model.neurons_of(row)[:, EFFECT], d, atol=1e-4, rtol=1e-3)
    assert torch.equal(model.concept_weight[0].double(), concepts[0].weight)
    genders = model.neurons_of(3)[:, EFFECT] + model.neurons_of(4)[:, EFFECT]
    assert float(genders.abs().max()) < 1e-9  # one's other side is the other


def test_a_step_is_the_papers_shift_with_the_other_sign_in_deviations_over_real_users(
    steered: dict[str, Any], in_tmp: Path
) -> None:
    model = load_data_and_model(steered["checkpoint"])[1]
    model.set_strengths(steer=None, alpha_pop=2.0, alpha_unpop=2.0, steer_sigma="real")
    away = model.steering_shift()
    for same in (2, "+2", "C=2", "genre:c = 2"):
        model.set_strengths(steer=same)
        torch.testing.assert_close(model.steering_shift(), -away)
    model.set_strengths(steer="A=1.5")
    only = model.steering_shift()
    model.set_strengths(steer="C=2, A=1.5")
    torch.testing.assert_close(model.steering_shift(), only - away)
    model.set_strengths(steer="C=1", steer_mode="dense")
    means = model.concept_means[0, 0] - model.concept_means[0, 1]
    torch.testing.assert_close(model.dense_step(), means / means.norm())
    with pytest.raises(FairError, match="'Western' is no concept of this fit, which knows C, A, B, gender=F"):
        model.set_strengths(steer="Western=1")


def test_the_share_stands_beside_before_and_after(steered: dict[str, Any], in_tmp: Path) -> None:
    test, base = steered["test_result"], steered["base_test_result"]
    assert test["conceptshare@5"] != base["conceptshare@5"]
    again = evaluate_checkpoint(steered["checkpoint"], {"steer": 0})
    assert again["test_result"] == again["base_test_result"]
    away, towards = (evaluate_checkpoint(steered["checkpoint"], {"steer": s})["test_result"] for s in (-2, 2))
    assert away["conceptshare@5"] < base["conceptshare@5"] < towards["conceptshare@5"]
    with pytest.raises(FairError, match=r"concept='genre:A' cannot take effect"):
        evaluate_checkpoint(steered["checkpoint"], {"concept": "genre:A"})


def test_sweep_over_steps(steered: dict[str, Any], in_tmp: Path) -> None:
    swept = sweep_checkpoint(steered["checkpoint"], ["steer=-2:2:2"], "ConceptShare@5", "NDCG@5")
    zero = next(row for row in swept["settings"] if row["steer"] == 0)
    assert zero["test ndcg@5"] == swept["base"]["test"]["ndcg@5"]


def test_recommend_away_from_the_data(steered: dict[str, Any], in_tmp: Path) -> None:
    recommender = Recommender.load(steered["checkpoint"], {"data_path": "nowhere"})
    histories = {"one": ["i1", "i2", "i4"], "two": ["i5", "i9"]}
    plain = recommender.recommend(histories, 5, strengths={"steer": "A=0"})
    moved = recommender.recommend(histories, 5, strengths={"steer": "A=+2"})
    # Lists hold more of the genre A, in which are all items but those of a number i with i % 3 == 2.
    share = [np.mean([int(item[1:]) % 3 != 2 for row in found.items for item in row]) for found in (plain, moved)]
    assert share[1] > share[0]
    note = next(note for note in moved.notes if note.startswith("A:"))
    assert f"{share[0]:.1%}".replace("%", " %") in note
    assert f"{share[1]:.1%}".replace("%", " %") in note
    with pytest.raises(FairError, match="no concept of this fit"):
        recommender.recommend(histories, 5, strengths={"steer": "Z=1"})


def test_strengths_are_chosen_for_the_concept(settings: dict[str, Any], in_tmp: Path) -> None:
    more = {"concept": "genre:C", "strength_budget": 0.9}
    result = run_recbole_fair("PopSteerSASRec", "small", config_dict={**settings, **more})
    choice = result["chosen_strengths"]
    assert choice["goal"] == "conceptshare@5"
    best = max([choice["base"], *choice["tried"]], key=lambda row: row["conceptshare@5"])
    assert choice["values"]["conceptshare@5"] == best["conceptshare@5"]


@pytest.mark.parametrize("concept", ["genre:C", "user:gender=F"])
@pytest.mark.parametrize("model", ["PopSteerBPR", "SPREESASRec", "SPREEBPR"])
def test_every_kind_of_base(model: str, concept: str, settings: dict[str, Any], in_tmp: Path) -> None:
    more: dict[str, Any] = {"concept": concept, "concepts": "genre", "sae_epochs": 5, "profile_share": 0.3}
    if model.endswith("BPR"):
        more |= {"embedding_size": 8}
    if model.startswith("SPREE"):
        more |= {"spree_strength": 4.0, "bias_list_length": 10}
    result = run_recbole_fair(model, "small", config_dict={**settings, **more})
    assert {"conceptshare@5", "conceptgap@5"} <= set(result["test_result"])
    away, towards = (
        evaluate_checkpoint(result["checkpoint"], {"steer": s})["test_result"]["conceptshare@5"] for s in (-2, 2)
    )
    assert away < towards
    none = evaluate_checkpoint(result["checkpoint"], {"steer": "B=0"})
    assert none["test_result"] == none["base_test_result"]


def test_a_concept_that_is_not_there_ends_before_training(settings: dict[str, Any], in_tmp: Path) -> None:
    with pytest.raises(FairError, match="nobody has 'Documentary'"):
        run_recbole_fair(
            "PopSteerSASRec", "small", config_dict={**settings, "concept": "genre:Documentary", "checkpoint_dir": "new"}
        )
    assert not list(Path("new").glob("*"))


def test_the_metric_without_a_steered_model(settings: dict[str, Any], in_tmp: Path) -> None:
    more = {"metrics": ["NDCG", "ConceptShare"], "concept": "genre:B", "result_file": "out.json"}
    result = run_recbole_fair("Pop", "small", config_dict={**settings, **more})
    assert 0 < result["test_result"]["conceptshare@5"] < 1
    assert "conceptshare@5" in json.loads(Path("out.json").read_text())["test_result"]


def test_information_on_a_group_before_and_after_it_is_erased(settings: dict[str, Any], in_tmp: Path) -> None:
    more = {"concept": "user:gender=F", "strengths": "fixed", "steer": 1}
    result = run_recbole_fair("PopSteerSASRec", "small", config_dict={**settings, **more})
    options = Options(synthetic_users=50, strongest=1, map="none", permutations=9, alphas=(0.0, 1.0), controls=False)
    document = explain_checkpoint(result["checkpoint"], "dossier", options=options)
    rows = {(row["mode"], row["share"]): row for row in document["information"]}
    assert set(rows) == {("base", 0.0), ("erase", 0.5), ("erase", 1.0), ("erase_dense", 0.5), ("erase_dense", 1.0)}
    base, erased = rows["base", 0.0], rows["erase_dense", 1.0]
    assert base["majority"] == 0.5
    assert base["auc"] > 0.55  # planted: women like one genre
    assert erased["auc"] < base["auc"]
    for row in rows.values():
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
        both = (row["ndcg with"] + row["ndcg without"]) / 2  # as many women as men
        assert both == pytest.approx(row["ndcg@5"], abs=1e-9)
        assert row["ndcg with change"] == pytest.approx(row["ndcg with"] - base["ndcg with"], abs=1e-9)
    page = Path(write_report([Path("dossier/explain.json")], "page.html")).read_text()
    assert "A probe tells gender=F users from the others" in page
    steered = evaluate_checkpoint(result["checkpoint"], {"steer": None, "steer_mode": "erase_dense"})
    assert steered["test_result"] != steered["base_test_result"]


def test_a_frontier_of_a_concept(settings: dict[str, Any], in_tmp: Path) -> None:
    base = run_recbole_fair("SASRec", "small", config_dict={**settings, "epochs": 5})
    found = frontier_checkpoint(
        base["checkpoint"], ["ConceptShare@5"], "NDCG@5", [0.5], ["PopSteerSASRec", "Penalty"], fit=["PopSteerSASRec"],
        config_dict={"concept": "genre:C", **{key: SMALL[key] for key in SMALL if key.startswith("sae_")}},
    )  # fmt: skip
    steps = {row["setting"]["steer"] for row in found["settings"] if "steer" in row["setting"]}
    assert {-2.0, 2.0} <= steps
