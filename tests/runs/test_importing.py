from __future__ import annotations

import logging
import shutil

import pytest
import torch
from click.testing import CliRunner
from conftest import write_atomic
from plain_recbole import train_apart

from recbole_fair.cli import cli
from recbole_fair.config.translation import translate
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import load_checkpoint
from recbole_fair.io.imported import open_checkpoint
from recbole_fair.quick_start import evaluate_checkpoint, import_checkpoint, run_recbole_fair, sweep_checkpoint

MODELS = ["SASRec", "BPR", "LightGCN", "GRU4Rec", "MultiVAE", "ItemKNN", "EASE"]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory, small_data):
    """Score and file of each model, trained by plain RecBole in a process of its own."""
    return train_apart(MODELS, "small", small_data, tmp_path_factory.mktemp("plain"))


@pytest.fixture
def here(small_data, in_tmp):
    return {"data_path": str(small_data), "show_progress": False}


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_of_plain_recbole_scores_what_it_says(model, foreign, here):
    score, file = foreign[model]
    result = import_checkpoint(file, "new.pth", here)
    assert result["model"] == model
    assert result["stored"] == pytest.approx(score)
    assert result["validation"] == pytest.approx(score, abs=1e-4)
    assert result["agrees"] is True
    assert result["unknown"] == {}
    content = torch.load("new.pth", weights_only=True)
    assert content["fingerprint"]
    assert content["user_settings"]["MAX_ITEM_LIST_LENGTH" if model in ("SASRec", "GRU4Rec") else "topk"]
    again = evaluate_checkpoint("new.pth", {"show_progress": False})
    assert again["test_result"] == pytest.approx(result["test_result"], abs=1e-12)


def test_weights_are_those_of_the_file(foreign):
    file = foreign["SASRec"][1]
    expected = torch.load(file, weights_only=False)["state_dict"]
    found = open_checkpoint(file)["state_dict"]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_commands_take_the_old_file_and_say_so(foreign, here, caplog):
    file = foreign["SASRec"][1]
    with caplog.at_level(logging.WARNING):
        result = evaluate_checkpoint(file, here)
    assert "was imported, nothing in the file was run" in caplog.text
    assert set(result["test_result"]) >= {"ndcg@5", "giniindex@5"}
    swept = sweep_checkpoint(
        file, ["reranker_alpha=0,1"], "GiniIndex@5", "NDCG@5", (), None, {**here, "reranker": "IPR"}
    )
    assert len(swept["settings"]) == 2


@pytest.mark.parametrize(
    ("given", "shown", "chosen_by"),
    [
        ({}, 5, "NDCG@5"),
        ({"topk": [5, 7]}, 5, "NDCG@5"),
        ({"topk": [7]}, 7, "NDCG@7"),
        ({"valid_metric": "NDCG@10"}, 10, "NDCG@10"),
        ({"valid_metric": "NDCG@7", "topk": [7]}, 7, "NDCG@7"),
    ],
)
def test_an_old_file_is_steered(foreign, here, given, shown, chosen_by):
    """Its epoch was chosen by NDCG@5: the lists of the run on it are as long, unless the call says otherwise."""
    sizes = {"synthetic_users": 60, "synthetic_length": 5, "sae_epochs": 1, "sae_scale": 2, "sae_k": 4}
    file = foreign["SASRec"][1]
    settings = {**here, **sizes, **given, "base_model_file": str(file)}
    result = run_recbole_fair("PopSteerSASRec", "small", config_dict=settings)
    assert result["base"]["source"] == "base_model_file"
    assert load_checkpoint(result["checkpoint"])["config"]["valid_metric"] == chosen_by
    base = evaluate_checkpoint(file, {**here, "topk": [shown]})
    ndcg = f"ndcg@{shown}"
    assert result["base_test_result"][ndcg] == pytest.approx(base["test_result"][ndcg], abs=1e-12)


def test_other_data_are_told_apart(foreign, in_tmp):
    folder = write_atomic(in_tmp / "more", "small", n_items=50, lengths=(6, 31))
    with pytest.raises(FairError, match="another number of users or items"):
        import_checkpoint(foreign["BPR"][1], None, {"data_path": str(folder)})
    folder = write_atomic(in_tmp / "others", "small", seed=3, lengths=(6, 31))
    result = import_checkpoint(foreign["LightGCN"][1], "x.pth", {"data_path": str(folder)})
    assert result["agrees"] is False
    assert "are not those" in result["notes"][0]
    assert load_checkpoint("x.pth")["fingerprint"] is None


def test_without_data_it_is_written_and_says_so(foreign, in_tmp):
    result = import_checkpoint(foreign["BPR"][1], None, {"data_path": "nowhere"})
    assert result["agrees"] is None
    assert "Not evaluated" in result["notes"][0]
    assert load_checkpoint(result["checkpoint"])["imported"]["best_valid_score"] == result["stored"]


def test_equal_times_in_single_precision_are_counted(tmp_path_factory, in_tmp):
    """Times of our days: float32 holds them to 64 and more seconds, so that held-out items differ."""
    folder = tmp_path_factory.mktemp("times")
    write_atomic(folder, "small", lengths=(6, 31))
    path = folder / "small" / "small.inter"
    head, *rows = path.read_text().splitlines()
    moved = [row.rpartition("\t") for row in rows]
    path.write_text("\n".join([head, *(f"{a}\t{1_500_000_000 + int(t)}" for a, _, t in moved)]) + "\n")
    score, file = train_apart(["GRU4Rec"], "small", folder, in_tmp)["GRU4Rec"]
    result = import_checkpoint(file, "new.pth", {"data_path": str(folder), "show_progress": False})
    assert result["validation"] == pytest.approx(score, abs=1e-4)
    assert "users would have other held-out items under exact times" in result["notes"][0]
    assert int(result["notes"][0].split()[0]) > 30


def test_settings_of_older_versions_and_unknown_keys():
    old = {
        "neg_sampling": {"uniform": 1},
        "embedding_size": 16,
        "multi_gpus": True,
        "my_own_key": 3,
        "MODEL_TYPE": object(),
        "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": "user", "order": "RO", "mode": "full"},
    }
    found = translate(old, "BPR", "ml-1m")
    assert found.settings["embedding_size"] == 16
    assert found.unknown == {"my_own_key": "3"}
    assert "multi_gpus" not in found.settings
    assert "train_neg_sample_args" not in found.settings, "the same as the default"


def test_the_command(foreign, here, monkeypatch):
    file = foreign["BPR"][1]
    shutil.copy(file, "old.pth")
    done = CliRunner().invoke(cli, ["import", "old.pth", "--output=new.pth", f"--data_path={here['data_path']}"])
    assert done.exit_code == 0, done.output
    assert load_checkpoint("new.pth")["model"] == "BPR"
    with pytest.raises(FairError, match="is a checkpoint of recbole_fair already"):
        import_checkpoint("new.pth")
