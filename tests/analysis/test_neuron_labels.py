"""Labels of neurons by tf-idf, what turning neurons does, controls: against loops, and inside a dossier."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from recbole_fair.analysis import neuron_labels
from recbole_fair.analysis.neuron_labels import Attributes, label_scores, labels_of
from recbole_fair.analysis.populations import Populations
from recbole_fair.data.facts.interactions import Interactions
from recbole_fair.model.popsteer.controls import (
    Sides,
    dense_move,
    overlap,
    principal_components,
    random_sae,
    sae_move,
)
from recbole_fair.model.popsteer.neurons import COLUMNS, steering_moves
from recbole_fair.model.popsteer.sae import TopKSAE
from recbole_fair.quick_start import explain_checkpoint, run_recbole_fair
from recbole_fair.report.concept_words import said_of
from recbole_fair.report.dossiers import leading_neurons
from recbole_fair.report.html import write_report
from recbole_fair.report.neurons_page import leading_table
from recbole_fair.runs.dossiers.base import Options


def test_labels_by_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neuron_labels, "TOP_ITEMS", 3)
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    n_items, n_users, names = 12, 9, ("Drama", "War", "Comedy")
    genres = [[]] + [
        [names[g] for g in sorted(rng.choice(3, size=rng.integers(1, 3), replace=False))] for _ in range(11)
    ]
    genres[4] = []
    matrix = np.zeros((n_items, 3))
    for item, own in enumerate(genres):
        for genre in own:
            matrix[item, names.index(genre)] = 1 / len(own)
    users = np.repeat(np.arange(1, n_users), 4)
    items = rng.integers(1, n_items, len(users))
    sae = TopKSAE(5, 20, 3).eval()
    table = torch.randn(n_items, 5)
    model = SimpleNamespace(sae=sae, item_representations=lambda: table)
    real = torch.randn(n_users - 1, 5)
    people = Populations(
        real, real, real, np.arange(1, n_users), Interactions(users, items, None, n_users, n_items), matrix[:, 0]
    )
    found = label_scores(model, people, Attributes(names, sparse.csr_matrix(matrix)))
    fired = sae.encode(real).detach().numpy()
    for neuron in range(20):
        rank = sorted(range(1, n_items), key=lambda i: -float(sae.W_dec[neuron] @ table[i]))[:3]
        of_items = [sum(matrix[i, a] for i in rank) for a in range(3)]
        of_items = [value / max(sum(of_items), 1e-300) for value in of_items]
        for a in range(3):
            weights = [fired[row, neuron] for row in range(n_users - 1)]
            shares = []
            for row in range(n_users - 1):
                own = [i for u, i in zip(users, items, strict=True) if u == row + 1 and genres[i]]
                shares.append(sum(matrix[i, a] for i in own) / len(own) if own else 0.0)
            tf = of_items[a]
            if sum(weights) > 0:
                tf = (tf + sum(w * s for w, s in zip(weights, shares, strict=True)) / sum(weights)) / 2
            having = sum(names[a] in own for own in genres)
            assert found[neuron, a] == pytest.approx(tf * math.log((n_items - 1) / having), abs=1e-6)
    best = labels_of(found, names, 2)
    assert best[0] == [names[a] for a in sorted(range(3), key=lambda a: -found[0, a])[:2] if found[0, a] > 0]


def test_controls_move_users_as_they_say() -> None:
    torch.manual_seed(1)
    sae = TopKSAE(6, 24, 4).eval()
    positive, negative, users = torch.randn(80, 6) + 1.0, torch.randn(70, 6), torch.randn(11, 6)
    sides = Sides(positive, negative, users)
    table = sides.table(sae)
    z = sae.encode_pre(positive).detach().double(), sae.encode_pre(negative).detach().double()
    pooled = ((z[0].var(0, correction=0) + z[1].var(0, correction=0)) / 2).sqrt()
    torch.testing.assert_close(
        table[:, COLUMNS.index("effect_size")], (z[0].mean(0) - z[1].mean(0)) / pooled, rtol=1e-4, atol=1e-4
    )
    shift = steering_moves(table, 1.5, 1.5, 0.0, "group")[1].float()
    wanted = users + sae(users, shift).reconstruction - sae(users).reconstruction
    torch.testing.assert_close(sae_move(sae, sides)(users, 1.5), wanted)
    torch.testing.assert_close(sae_move(sae, sides)(users, 0.0), users)
    real = steering_moves(table, -1.5, -1.5, 0.0, "real")[1].float()
    z_real = sae.encode_pre(users).detach()
    assert float(real.abs().max()) == pytest.approx(
        float((1.5 * table[:, 6].abs() / table[:, 6].abs().max() * z_real.std(0, correction=0)).max()), rel=1e-3
    )
    towards = sae_move(sae, Sides(positive, negative, users, towards=True))(users, 1.5)
    torch.testing.assert_close(towards, users + sae(users, real).reconstruction - sae(users).reconstruction)
    step = dense_move(sides)(users, 2.0) - users
    assert float(step[0].norm()) == pytest.approx(2.0, rel=1e-5)
    assert float(step[0] @ (negative.mean(0) - positive.mean(0))) > 0
    axes = principal_components(sae, users)
    torch.testing.assert_close(axes(users).reconstruction, users, atol=5.0, rtol=1.0)
    full = principal_components(TopKSAE(6, 24, 6), users)  # all components: nothing is lost
    torch.testing.assert_close(full(users).reconstruction, users, atol=1e-4, rtol=1e-4)
    frozen = random_sae(sae, users, 5)
    assert torch.equal(frozen.W_enc, frozen.W_dec)
    assert not torch.equal(frozen.W_dec, sae.W_dec)
    assert overlap(sae.W_dec[:3], sae.W_dec) == pytest.approx(1.0, abs=1e-5)


SETTINGS: dict[str, Any] = {
    "epochs": 3, "hidden_size": 8, "inner_size": 16, "n_layers": 2, "MAX_ITEM_LIST_LENGTH": 8, "learning_rate": 0.02,
    "metrics": ["NDCG", "GiniIndex"], "topk": [5], "valid_metric": "NDCG@5", "show_progress": False, "seed": 1,
    "sae_scale": 4, "sae_k": 4, "sae_epochs": 2, "synthetic_users": 300, "head_share": 0.2, "tail_share": 0.2,
    "strengths": "fixed", "concepts": "genre", "group_metrics": {"popularity_taste": {"metrics": ["NDCG"]}},
}  # fmt: skip


@pytest.mark.parametrize("concept", ["popularity", "genre:C"])
def test_a_dossier_with_labels_and_controls(concept: str, small_data: Path, in_tmp: Path) -> None:
    settings = {**SETTINGS, "data_path": str(small_data), "concept": concept}
    settings |= {"steer": 1.0} if concept != "popularity" else {}
    result = run_recbole_fair("PopSteerSASRec", "small", config_dict=settings)
    options = Options(synthetic_users=200, strongest=2, map="none", permutations=9, alphas=(0.0, 1.0), reseeds=1)
    document = explain_checkpoint(result["checkpoint"], "dossier", options=options)
    found = document["controls"]
    assert found["goal"] == ("giniindex@5" if concept == "popularity" else "conceptshare@5")
    names = [arm["name"] for arm in found["arms"]]
    assert names[0] == "the trained autoencoder"
    assert len(names) == 6
    for arm in found["arms"][1:]:
        assert arm["low"] <= arm["goal_difference"] <= arm["high"]
        assert arm["goal_difference"] == pytest.approx(found["arms"][0]["goal"] - arm["goal"], abs=1e-12)
    # At its own strength the trained arm is the steered variant itself.
    steered = next(row for row in document["variants"] if row["variant"] == "steered")
    assert found["arms"][0]["metric"] == pytest.approx(steered["ndcg@5"], abs=1e-9)
    assert {"d A", "d B", "d C"} <= set(document["every"][0])
    labels = {part for row in document["every"] for part in row["label"].split(", ")}
    assert labels & {"A", "B", "C"}
    turned = [row for row in document["every"] if "ndcg@5" in row]
    assert turned
    assert any("of popularity_taste=" in key for key in turned[0])
    page = Path(write_report([Path("dossier/explain.json")], "page.html")).read_text()
    assert "All neurons that fire" in page
    assert "The trained autoencoder and its controls" in page
    assert json.loads(Path("dossier/explain.json").read_text())["concepts"][0]["concept"] == concept
    if concept != "popularity":
        assert "Neurons that lean to C users" in page
    plain = explain_checkpoint(
        result["checkpoint"], "plain", options=Options(strongest=1, map="none", permutations=9, controls=False)
    )
    assert plain["controls"] is None


def test_popularity_said_of_other_concepts() -> None:
    genre = [{"label": "War", "of": "items"}]
    gender = [{"label": "gender=F", "of": "users"}]
    text = "users of popular items, users of unpopular items, popular items, leaning to unpopular users"
    assert said_of(text, genre) == "users of War items, users of other items, War items, leaning to other users"
    assert said_of([text], gender) == ["gender=F users, other users, items of gender=F users, leaning to other users"]
    assert said_of({"a": (text, 3)}, [{"label": "popular", "of": "items"}]) == {"a": (text, 3)}
    assert said_of("popularity stays", genre) == "popularity stays"


def test_the_strongest_neuron_of_every_concept_in_either_sense() -> None:
    every = [
        {"neuron": 3, "label": "War", "frequency": 0.02, "d War": 4.0, "d Drama": -1.0},
        {"neuron": 5, "label": "Thriller", "frequency": 0.5, "d War": 1.0, "d Drama": 0.5},
        {"neuron": 8, "label": "", "frequency": 0.25, "d War": -2.0, "d Drama": 0.75},
    ]
    dossier = {"every": every, "concepts": [{"label": "War"}, {"label": "Drama"}]}
    found = {row["concept"]: (row["by_effect"]["neuron"], row["by_both"]["neuron"]) for row in leading_neurons(dossier)}
    assert found == {"War": (3, 5), "Drama": (8, 5)}
    table = leading_table(dossier)
    assert table is not None
    assert table[2][0] == ["War", "3", "+4.00", "2.0 %", "War", "5", "+1.00", "50 %", "Thriller"]
    assert table[2][1][4] == "–"
    assert leading_table({"every": every, "concepts": [{"label": "War"}]}) is None
    assert leading_table({"concepts": dossier["concepts"]}) is None
