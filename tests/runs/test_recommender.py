from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from recbole_fair.cli import cli
from recbole_fair.errors import FairError
from recbole_fair.quick_start import (
    Recommender,
    evaluate_checkpoint,
    load_data_and_model,
    run_recbole_fair,
    save_served,
)

STEERING = {"synthetic_users": 60, "synthetic_length": 5, "sae_epochs": 1, "sae_scale": 2, "sae_k": 4}
GENERAL = ["BPR", "LightGCN", "MultiVAE", "PopSteerBPR", "EASE", "ItemKNN", "FM", "MultVAE", "ILEBPR"]
SEQUENTIAL = ["SASRec", "GRU4Rec", "BERT4Rec", "PopSteerSASRec", "SPREESASRec", "Caser"]


@pytest.fixture(scope="module")
def trained(small_data, tmp_path_factory):
    """Checkpoints by model, and the settings, trained when first asked for."""
    folder = tmp_path_factory.mktemp("trained")
    known: dict[str, str] = {}

    def checkpoint(model: str) -> str:
        settings = {
            "data_path": str(small_data),
            "checkpoint_dir": str(folder),
            "epochs": 2,
            "train_batch_size": 64,
            "embedding_size": 8,
            "hidden_size": 8,
            "inner_size": 16,
            "n_layers": 1,
            "MAX_ITEM_LIST_LENGTH": 8,
            "show_progress": False,
            "topk": [5],
            "valid_metric": "NDCG@5",
            "learning_rate": 0.01,
        }
        if model not in known:
            own = STEERING if model.startswith("PopSteer") else {}
            own = {"synthetic_users": 60, "synthetic_length": 5} if model.startswith("SPREE") else own
            known[model] = run_recbole_fair(model, "small", config_dict={**settings, **own})["checkpoint"]
        return known[model]

    return checkpoint


def lists_of(file, **changes):
    """Lists that evaluating gives to the test users: by user's name."""
    evaluate_checkpoint(file, {"recommendations_file": "lists.csv", "show_progress": False, **changes})
    frame = pd.read_csv("lists.csv", dtype={"user_id": str, "item_id": str})
    return {user: rows["item_id"].tolist() for user, rows in frame.groupby("user_id")}


def histories_of(file):
    """What each user did before the test item, in the data's own ids."""
    _, _, dataset, train, *_ = load_data_and_model(file, {"show_progress": False})
    users, items = dataset.field2id_token[dataset.uid_field], dataset.field2id_token[dataset.iid_field]
    flat = {field: values.numpy() for field, values in train._dataset.flat.items()}
    found = {}
    for user in np.unique(flat[dataset.uid_field]):
        rows = flat[dataset.iid_field][flat[dataset.uid_field] == user]
        found[str(users[user])] = [str(items[item]) for item in rows[:-1]]
    return found


@pytest.mark.parametrize("model", SEQUENTIAL)
@pytest.mark.parametrize("mask", ["none", "all"])
def test_lists_are_those_of_evaluate_for_sequences(model, mask, trained, in_tmp):
    file = trained(model)
    expected = lists_of(file, mask_seen=mask)
    histories = histories_of(file)
    found = Recommender.load(file).recommend(histories, k=5, exclude_seen=mask == "all")
    by_user = dict(zip(found.users, found.items, strict=True))
    assert len(expected) > 40
    assert {user: by_user[user] for user in expected} == expected


@pytest.mark.parametrize("model", GENERAL)
def test_lists_are_those_of_evaluate_for_known_users(model, trained, in_tmp):
    file = trained(model)
    expected = lists_of(file)
    found = Recommender.load(file).recommend(users=list(expected), k=5)
    assert dict(zip(found.users, found.items, strict=True)) == expected
    assert found.notes == []


def test_strengths_and_variants_apply_for_one_call(trained, in_tmp):
    file = trained("PopSteerSASRec")
    histories = histories_of(file)
    rec = Recommender.load(file)
    before = rec.recommend(histories, k=5, exclude_seen=False)
    strong = rec.recommend(histories, k=5, exclude_seen=False, strengths={"alpha_pop": 9.0, "alpha_unpop": 9.0})
    base = rec.recommend(histories, k=5, exclude_seen=False, variant="base")
    expected = lists_of(file, alpha_pop=9.0, alpha_unpop=9.0, mask_seen="none")
    by_user = dict(zip(strong.users, strong.items, strict=True))
    assert {user: by_user[user] for user in expected} == expected
    assert strong.items != before.items
    assert base.items != strong.items
    assert rec.recommend(histories, k=5, exclude_seen=False).items == before.items
    with pytest.raises(FairError, match="beta_pop is no strength of PopSteerSASRec, which has: alpha_pop"):
        rec.recommend(histories, strengths={"beta_pop": 1})


def test_new_rows_of_an_autoencoder_equal_those_of_its_users(trained, in_tmp):
    file = trained("MultiVAE")
    rec = Recommender.load(file)
    _, _, dataset, train, *_ = load_data_and_model(file, {"show_progress": False})
    users, items = dataset.field2id_token[dataset.uid_field], dataset.field2id_token[dataset.iid_field]
    inter = train._dataset.inter_feat
    rows = {str(users[u]): [] for u in np.unique(inter[dataset.uid_field].numpy())}
    for user, item in zip(inter[dataset.uid_field].tolist(), inter[dataset.iid_field].tolist(), strict=True):
        rows[str(users[user])].append(str(items[item]))
    by_name = rec.recommend(users=list(rows), k=5, exclude_seen=False)
    by_row = rec.recommend(list(rows.values()), k=5, exclude_seen=False)
    assert by_row.items == by_name.items
    assert torch.allclose(by_row.scores, by_name.scores, atol=1e-6)


def test_seen_excluded_and_allowed_items(trained, in_tmp):
    rec = Recommender.load(trained("SASRec"))
    history = ["i1", "i2", "i3"]
    everything = rec.recommend([history], k=40, exclude_seen=False).items[0]
    assert len(everything) == len(rec.item_ids) - 1
    fresh = rec.recommend([history], k=40).items[0]
    assert fresh == [item for item in everything if item not in history]
    without = rec.recommend([history], k=40, exclude=["i7", "i8"]).items[0]
    assert without == [item for item in fresh if item not in ("i7", "i8")]
    only = rec.recommend([history], k=5, allowed=["i1", "i5", "i6"])
    assert sorted(only.items[0]) == ["i5", "i6"]
    assert only.ids[0, 2:].tolist() == [0, 0, 0]
    with pytest.raises(FairError, match="allowed: the model knows no item 'x'"):
        rec.recommend([history], allowed=["x"])
    with pytest.raises(FairError, match="Nobody to recommend to"):
        rec.recommend()


def test_unknown_items_empty_histories_and_long_ones(trained, in_tmp):
    rec = Recommender.load(trained("SASRec"))
    found = rec.recommend([["i1", "nothing", "i2"], [], ["what"], ["i3"] * 30], k=3)
    assert found.unknown_items == 2
    assert found.popular == 2
    assert found.items[0] == rec.recommend([["i1", "i2"]], k=3).items[0]
    assert found.items[3] == rec.recommend([["i3"] * 8], k=3).items[0]
    most = sorted(range(1, len(rec.item_ids)), key=lambda i: -int(rec.popularity[i]))[:3]
    assert [int(rec.popularity[rec.item_ids.index(item)]) for item in found.items[1]] == [
        int(rec.popularity[i]) for i in most
    ]
    assert any("the model does not know, skipped: 2." in note for note in found.notes)
    assert any("most popular items (without a known item in their history): 2." in note for note in found.notes)


def test_users_who_are_not_known(trained, in_tmp):
    rec = Recommender.load(trained("BPR"))
    found = rec.recommend(users=["u1", "stranger"], k=3)
    assert found.unknown_users == 1
    assert any("unknown users" in note for note in found.notes)
    with pytest.raises(FairError, match="knows users by name, not by history"):
        rec.recommend([["i1"]])


def test_a_bias_and_adjustments_plug_in(trained, in_tmp):
    rec = Recommender.load(trained("SASRec"))
    rec.item_bias = torch.zeros(len(rec.item_ids))
    rec.item_bias[rec.item_ids.index("i39")] = 1e6
    assert rec.recommend([["i1"]], k=1).items == [["i39"]]
    rec.item_bias = None

    def turn(scores, rows):
        assert rows.lengths.tolist() == [2]
        return torch.where(scores.isinf(), scores, -scores)

    straight = rec.recommend([["i1", "i2"]], k=40).items[0]
    rec.adjustments.append(turn)
    assert rec.recommend([["i1", "i2"]], k=40).items[0] == straight[::-1]


def test_the_command_in_a_folder_without_data(trained, in_tmp):
    pytest.importorskip("pyarrow")
    file = trained("PopSteerSASRec")
    done = CliRunner().invoke(cli, ["recommend", file, "--history", "i1 i2 i3", "-k", "4"])
    assert done.exit_code == 0, done.output
    listed = [line.split()[1] for line in done.output.splitlines() if line.strip()[:1].isdigit()]
    assert listed == Recommender.load(file).recommend([["i1", "i2", "i3"]], k=4).items[0]
    rows = "user,item,time\nb,i2,2020-01-02\na,i5,7\nb,i1,2020-01-01\nb,i3,2020-01-03\n"
    (in_tmp / "users.csv").write_text(rows.replace("a,i5,7", "a,i5,2021-01-01"))
    for ending in ("csv", "parquet", "jsonl"):
        done = CliRunner().invoke(
            cli,
            ["recommend", file, "--histories", "users.csv", "-k", "4", "--output", f"recs.{ending}", "--alpha_pop=1"],
        )
        assert done.exit_code == 0, done.output
    table = pd.read_csv("recs.csv")
    assert table.columns.tolist() == ["user", "item", "rank", "score", "title"]
    expected = Recommender.load(file).recommend({"b": ["i1", "i2", "i3"], "a": ["i5"]}, k=4, strengths={"alpha_pop": 1})
    assert table["item"].tolist() == [item for row in expected.items for item in row]
    assert pd.read_parquet("recs.parquet")["item"].tolist() == table["item"].tolist()
    lines = [json.loads(line) for line in (in_tmp / "recs.jsonl").read_text().splitlines()]
    assert [line["item"] for line in lines] == table["item"].tolist()
    done = CliRunner().invoke(cli, ["recommend", trained("BPR"), "--users", "u1 u2", "-k", "2"])
    assert done.exit_code == 0, done.output
    assert done.output.count("i") >= 4


def test_what_a_checkpoint_carries(trained):
    content = torch.load(trained("SASRec"), weights_only=True)
    assert content["data"]["titles"][1].startswith("Title")
    assert content["data"]["interactions"] == {}
    assert set(torch.load(trained("BPR"), weights_only=True)["data"]["interactions"]) == {"train", "valid"}


@pytest.mark.parametrize("reranker", ["Lorenz", "Tilt", "LorenzTilt", "Penalty", "Penalty on probabilities"])
@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_adjusted_lists_are_those_of_evaluate(reranker, model, trained, in_tmp):
    file = trained(model)
    settings = {"reranker": reranker.split()[0], "metric_history": "train_valid" if model == "SASRec" else "train"}
    if "Penalty" in reranker:
        settings |= {"reranker_alpha": 1.0}
    if "probabilities" in reranker:
        settings |= {"reranker_alpha": 0.01, "reranker_score": "softmax"}
    if "Lorenz" in reranker:
        settings |= {"reranker_lambda": 1.0}
        with pytest.raises(FairError, match="learns its biases on validation users"):
            Recommender.load(file, settings)
    if "Tilt" in reranker:
        settings |= {"reranker_strength": 0.7}
    save_served(file, "served.pth", {**settings, "show_progress": False})
    expected = lists_of("served.pth", mask_seen="none" if model == "SASRec" else "auto")
    rec = Recommender.load("served.pth")
    if model == "SASRec":
        found = rec.recommend(histories_of(file), k=5, exclude_seen=False)
    else:
        found = rec.recommend(users=list(expected), k=5)
    by_user = dict(zip(found.users, found.items, strict=True))
    assert {user: by_user[user] for user in expected} == expected
    plain = lists_of(file, reranker=None)
    assert plain != expected


def test_other_rerankers_are_named_in_a_note(trained, in_tmp):
    rec = Recommender.load(trained("SASRec"), {"reranker": "IPR"})
    assert rec.recommend([["i1"]]).notes == [
        "reranker=IPR orders the lists of an evaluation together; these lists are the model's own."
    ]
