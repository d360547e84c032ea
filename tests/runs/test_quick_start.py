from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_fair import quick_start
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import load_checkpoint, save_checkpoint
from recbole_fair.model.bases.sasrec import SASRec
from recbole_fair.quick_start import evaluate_checkpoint, load_data_and_model, objective_function, run_recbole_fair
from recbole_fair.trainer.trainer import FairTrainerMixin


class KilledError(Exception):
    pass


@pytest.fixture
def settings(small_data, in_tmp):
    return {
        "data_path": str(small_data),
        "epochs": 4,
        "train_batch_size": 64,
        "embedding_size": 8,
        "hidden_size": 8,
        "inner_size": 16,
        "n_layers": 1,
        "MAX_ITEM_LIST_LENGTH": 8,
        "show_progress": False,
        "metrics": ["NDCG", "Recall", "ItemCoverage", "GiniIndex", "TailPercentage"],
        "topk": [5],
        "valid_metric": "NDCG@5",
        "learning_rate": 0.01,
    }


@pytest.mark.parametrize(
    "model", ["BPR", "LightGCN", "Pop", "ItemKNN", "EASE", "MultiVAE", "FM", "GRU4Rec", "SASRec", "BERT4Rec"]
)
def test_any_model_runs_and_reloads_with_the_same_numbers(model, settings):
    result = run_recbole_fair(model, "small", config_dict={**settings, "epochs": 2})
    for key in ("best_valid_score", "valid_score_bigger", "best_valid_result", "test_result"):
        assert key in result
    assert set(result["test_result"]) == {"ndcg@5", "recall@5", "itemcoverage@5", "giniindex@5", "tailpercentage@5"}
    content = torch.load(result["checkpoint"], weights_only=True)
    assert content["model"] == model
    again = evaluate_checkpoint(result["checkpoint"])
    assert again["test_result"] == result["test_result"]


@pytest.mark.parametrize("model", ["SASRecF", "GRU4RecF", "FDSA", "DIN"])
def test_models_that_read_features_of_items_run_and_reload(model, settings):
    kept = {key: settings[key] for key in ("data_path", "show_progress")}
    columns = {"inter": ["user_id", "item_id", "rating", "timestamp"], "item": ["item_id", "genre"]}
    own = {"threshold": {"rating": 4}} if model == "DIN" else {"selected_features": ["genre"], "topk": [5]}
    result = run_recbole_fair(model, "small", config_dict={**kept, **own, "load_col": columns, "epochs": 1})
    assert evaluate_checkpoint(result["checkpoint"])["test_result"] == pytest.approx(result["test_result"], abs=1e-12)


def kill_after(monkeypatch, epoch):
    original = FairTrainerMixin._train_epoch

    def train(self, train_data, epoch_idx, *args, **kwargs):
        if epoch_idx == epoch:
            raise KilledError
        return original(self, train_data, epoch_idx, *args, **kwargs)

    monkeypatch.setattr(FairTrainerMixin, "_train_epoch", train)


@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize("model", ["BPR", "SASRec", "GRU4Rec"])
def test_a_resumed_run_ends_with_the_numbers_of_an_uninterrupted_one(model, epoch, settings, monkeypatch):
    settings |= {"learning_rate_schedule": "linear", "epochs": 5}
    whole = run_recbole_fair(model, "small", config_dict={**settings, "checkpoint_dir": "whole"})
    with monkeypatch.context() as patch:
        kill_after(patch, epoch)
        with pytest.raises(KilledError):
            run_recbole_fair(model, "small", config_dict=settings)
    (path,) = Path("saved").glob("*.pth")
    torch.rand(7), np.random.rand(3)  # a new process starts from other random states
    resumed = run_recbole_fair(model, "small", config_dict={**settings, "resume": str(path)})
    for key in ("best_valid_score", "best_valid_result", "test_result"):
        assert resumed[key] == whole[key], key
    a, b = load_checkpoint(path), load_checkpoint(whole["checkpoint"])
    for name, value in b["state_dict"].items():
        assert torch.equal(a["state_dict"][name], value), name


def test_resuming_a_run_that_stopped_early_trains_no_further(settings, monkeypatch):
    settings |= {"epochs": 50, "stopping_step": 0, "learning_rate": 0.05}
    first = run_recbole_fair("BPR", "small", config_dict=settings)
    kill_after(monkeypatch, load_checkpoint(first["checkpoint"])["training"]["epoch"] + 1)
    again = run_recbole_fair("BPR", "small", config_dict={**settings, "resume": first["checkpoint"]})
    assert again["test_result"] == first["test_result"]


def test_resuming_a_run_after_its_last_epoch_keeps_the_best_one(settings):
    settings |= {"epochs": 6, "learning_rate": 0.3, "metrics": ["NDCG"]}
    first = run_recbole_fair("BPR", "small", config_dict=settings)
    before = load_checkpoint(first["checkpoint"])
    assert before["training"]["cur_step"] > 0  # otherwise the last epoch is the best one and nothing could be lost
    again = run_recbole_fair("BPR", "small", config_dict={**settings, "resume": first["checkpoint"]})
    assert again["test_result"] == first["test_result"]
    assert again["best_valid_score"] == first["best_valid_score"]
    after = load_checkpoint(first["checkpoint"])
    assert after["training"]["epoch"] == before["training"]["epoch"] == 5
    assert all(torch.equal(after["state_dict"][name], value) for name, value in before["state_dict"].items())


def test_resume_refuses_another_model_and_other_data(settings):
    path = run_recbole_fair("BPR", "small", config_dict={**settings, "epochs": 1})["checkpoint"]
    with pytest.raises(FairError, match="checkpoint of BPR, not LightGCN"):
        run_recbole_fair("LightGCN", "small", config_dict={**settings, "resume": path})
    with pytest.raises(FairError, match="other data or another split"):
        run_recbole_fair(
            "BPR", "small", config_dict={**settings, "resume": path, "user_inter_num_interval": "[10,inf)"}
        )


def test_resume_names_the_settings_that_differ(settings, caplog):
    path = run_recbole_fair("BPR", "small", config_dict={**settings, "epochs": 1})["checkpoint"]
    changed = {**settings, "epochs": 1, "resume": path, "learning_rate": 0.02, "topk": [7], "valid_metric": "NDCG@7"}
    with caplog.at_level("WARNING"):
        run_recbole_fair("BPR", "small", config_dict=changed)
    said = [
        record.getMessage() for record in caplog.records if "was trained with other settings" in record.getMessage()
    ]
    assert len(said) == 1
    assert "learning_rate=0.01 (now 0.02)" in said[0]
    assert "topk" not in said[0]


def test_evaluating_refuses_what_only_training_can_change(settings):
    path = run_recbole_fair("BPR", "small", config_dict={**settings, "epochs": 1})["checkpoint"]
    for key, value in (("embedding_size", 16), ("learning_rate", 0.5), ("epochs", 9)):
        with pytest.raises(FairError, match=f"{key}={value} cannot take effect: the checkpoint was trained with"):
            evaluate_checkpoint(path, {key: value})
    with pytest.raises(FairError, match="does not fit the settings"):
        load_data_and_model(path, {"embedding_size": 16})
    same = {"embedding_size": 8, "mask_seen": "none", "topk": [3], "valid_metric": "NDCG@3", "seed": 2020}
    assert set(evaluate_checkpoint(path, same)["test_result"]) == {
        f"{name}@3" for name in ("ndcg", "recall", "itemcoverage", "giniindex", "tailpercentage")
    }


def test_a_checkpoint_folder_that_cannot_be_made_is_an_error(settings):
    Path("taken").write_text("a file")
    with pytest.raises(FairError, match="checkpoint_dir=taken/deeper cannot be made"):
        run_recbole_fair("BPR", "small", config_dict={**settings, "checkpoint_dir": "taken/deeper"})


def test_settings_that_a_model_cannot_be_built_with(settings):
    kept = {key: value for key, value in settings.items() if key in ("data_path", "topk", "valid_metric")}
    with pytest.raises(FairError, match=r"mf_embedding_size=8.5 is not allowed: it must be a whole number"):
        run_recbole_fair("NeuMF", "small", config_dict={**kept, "mf_embedding_size": 8.5})


def test_files_of_lists_need_lists(settings):
    rated = {"metrics": ["AUC"], "valid_metric": "AUC", "eval_args": {"mode": "uni5"}, "per_user_file": "u.csv"}
    with pytest.raises(FairError, match=r"per_user_file=u.csv is of lists; metrics=\['AUC'\] rate single rows"):
        run_recbole_fair("BPR", "small", config_dict={**settings, **rated})


def test_what_chose_the_epoch_follows_the_metrics_of_now(settings):
    stored = {**settings, "valid_metric": "NDCG@5", "topk": [5], "valid_constraint": "NDCG@5 >= 0"}
    path = run_recbole_fair("BPR", "small", config_dict={**stored, "epochs": 1})["checkpoint"]
    config = load_data_and_model(path)[0]
    assert (config["valid_metric"], config["valid_constraint"]) == ("NDCG@5", "NDCG@5 >= 0")
    config = load_data_and_model(path, {"topk": [3]})[0]
    assert (config["valid_metric"].rpartition("@")[2], config["valid_constraint"]) == ("3", None)
    config = load_data_and_model(path, {"metrics": ["GiniIndex"], "valid_metric": "GiniIndex@5"})[0]
    assert (config["valid_metric"], config["valid_metric_bigger"]) == ("GiniIndex@5", False)


def test_a_checkpoint_whose_metrics_are_others_now(settings):
    stored = {**settings, "metrics": ["NDCG", "ItemCoverage"], "coverage_min_count": [1, 3], "epochs": 1}
    path = run_recbole_fair("BPR", "small", config_dict={**stored, "valid_metric": "ItemCoverage_min3@5"})["checkpoint"]
    assert evaluate_checkpoint(path, {"coverage_min_count": 1})["test_result"]["itemcoverage@5"] > 0
    assert "recall@5" in evaluate_checkpoint(path, {"metrics": ["Recall"]})["test_result"]
    content = load_checkpoint(path)
    content["user_settings"]["threshold"] = content["config"]["threshold"] = {"rating": 4}  # as it was allowed once
    save_checkpoint(path, content)
    assert evaluate_checkpoint(path)["test_result"]


def test_load_data_and_model_gives_the_trained_model(settings):
    path = run_recbole_fair("SASRec", "small", config_dict=settings)["checkpoint"]
    config, model, dataset, train, valid, test = load_data_and_model(path)
    assert not model.training
    assert config["hidden_size"] == 8
    state = load_checkpoint(path)["state_dict"]
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert dataset is train._dataset
    assert len(valid._dataset) == len(test._dataset) == 60


def test_load_refuses_changed_data(settings, tmp_path):
    path = run_recbole_fair("BPR", "small", config_dict={**settings, "epochs": 1})["checkpoint"]
    with pytest.raises(FairError, match="not those that"):
        load_data_and_model(path, {"user_inter_num_interval": "[10,inf)"})
    with pytest.raises(FairError, match="model cannot be changed"):
        load_data_and_model(path, {"model": "LightGCN"})


def test_checkpoint_settings_outlive_changed_defaults(settings):
    path = run_recbole_fair("SASRec", "small", config_dict=settings)["checkpoint"]
    content = load_checkpoint(path)
    content["config"]["hidden_dropout_prob"] = 0.125  # as if the default had been another one in those days
    save_checkpoint(path, content)
    config, model, *_ = load_data_and_model(path)
    assert config["hidden_dropout_prob"] == model.hidden_dropout_prob == 0.125


def lists_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lists = {}
    for row in rows:
        lists.setdefault(row["user_id"], []).append(row)
    return lists


def history(small_data):
    seen = {}
    for line in (small_data / "small" / "small.inter").read_text().splitlines()[1:]:
        user, item, _, stamp = line.split("\t")
        seen.setdefault(user, []).append((float(stamp), item))
    return {user: [item for _, item in sorted(rows)] for user, rows in seen.items()}


@pytest.mark.parametrize("mask", ["auto", "none", "train", "all"])
@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_files_and_what_is_masked(model, mask, settings, small_data):
    settings |= {"epochs": 1, "mask_seen": mask, "result_file": "out/r.json", "recommendations_file": "out/recs.csv"}
    settings |= {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO"}}
    result = run_recbole_fair(model, "small", config_dict=settings)
    document = json.loads(Path("out/r.json").read_text())
    assert document["test_result"] == result["test_result"]
    auto = {"SASRec": "none", "BPR": "all"}[model]  # RecBole's rule
    assert document["mask_seen"] == (auto if mask == "auto" else mask)
    assert document["config"]["epochs"] == 1
    assert "seed" not in document["config"]
    lists, past = lists_of("out/recs.csv"), history(small_data)
    assert set(lists) == set(past)
    ranked = [[float(row["score"]) for row in rows] for rows in lists.values()]
    assert all(scores == sorted(scores, reverse=True) for scores in ranked)
    assert all([int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1)) for rows in lists.values())
    shown = {user: {row["item_id"] for row in rows} for user, rows in lists.items()}
    train_seen = any(shown[user] & set(items[:-2]) for user, items in past.items())
    valid_seen = any(items[-2] in shown[user] for user, items in past.items())
    masks_all = mask in ("all", "auto")  # lists leave out what users have had unless somebody has chosen
    assert train_seen == (not masks_all and mask != "train")
    assert valid_seen == (not masks_all)
    said = [note for note in result["notes"] if "ones that their user has had" in note]
    assert len(said) == (document["mask_seen"] == "none")
    if said:  # nobody in these data meets an item twice
        assert "though nobody meets an item twice" in said[0]
        assert ("leaves them out" in said[0]) == (mask == "auto")


def test_written_lists_are_those_that_a_mask_of_everything_rates(settings, small_data):
    settings |= {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO"}, "epochs": 1, "topk": [5]}
    settings |= {"valid_metric": "NDCG@5"}
    checkpoint = run_recbole_fair("SASRec", "small", config_dict=settings)["checkpoint"]
    plain = evaluate_checkpoint(checkpoint)
    for reranker in (None, "CP", "PP"):
        for mask in ("auto", "none", "all"):
            if (reranker, mask) != ("PP", "all"):  # which PP refuses
                changes = {"reranker": reranker, "mask_seen": mask, "recommendations_file": f"{mask}.csv"}
                result = evaluate_checkpoint(checkpoint, changes)
                if reranker is None and mask != "all":  # metrics rate the same lists whatever is written
                    assert result["test_result"] == plain["test_result"]
        texts = {mask: Path(f"{mask}.csv").read_text() for mask in ("auto", "none", "all")}
        assert texts["auto"] == texts["none" if reranker == "PP" else "all"]
        assert texts["none"] != texts["all"]


def test_masking_never_hides_the_held_out_item(settings, tmp_path):
    folder = tmp_path / "data" / "again"
    folder.mkdir(parents=True)
    rows = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(12):  # everybody comes back to the first item at the end
        rows += [f"{user}\t{item}\t{step}" for step, item in enumerate([0, *range(1, 9), 0])]
    (folder / "again.inter").write_text("\n".join(rows) + "\n")
    settings |= {"data_path": str(tmp_path / "data"), "mask_seen": "all", "topk": [9], "valid_metric": "NDCG@9"}
    result = run_recbole_fair("SASRec", "again", config_dict={**settings, "metrics": ["NDCG", "Hit"]})
    assert result["test_result"]["hit@9"] == 1.0  # the other eight items are seen and masked


def test_evaluating_twice_gives_the_same_numbers(settings):
    path = run_recbole_fair("SASRec", "small", config_dict={**settings, "epochs": 1})["checkpoint"]
    changed = {"metrics": ["GiniIndex", "NDCG"], "topk": [3, 10], "valid_metric": "NDCG@10"}
    first = evaluate_checkpoint(path, changed)["test_result"]
    assert list(first) == ["giniindex@3", "giniindex@10", "ndcg@3", "ndcg@10"]
    assert evaluate_checkpoint(path, changed)["test_result"] == first


def test_batch_size_of_evaluation_changes_nothing(settings):
    path = run_recbole_fair("BPR", "small", config_dict={**settings, "epochs": 1})["checkpoint"]
    whole = evaluate_checkpoint(path)["test_result"]
    assert evaluate_checkpoint(path, {"eval_batch_size": 1})["test_result"] == pytest.approx(whole, abs=1e-12)


def test_files_that_cannot_be_written_are_named_before_training(settings):
    Path("here").mkdir()
    with pytest.raises(FairError, match="result_file=here is a directory"):
        run_recbole_fair("BPR", "small", config_dict={**settings, "result_file": "here"})


def test_nan_loss_is_one_sentence(settings, monkeypatch):
    loss = SASRec.calculate_loss
    monkeypatch.setattr(SASRec, "calculate_loss", lambda self, batch: loss(self, batch) * float("nan"))
    with pytest.raises(FairError, match="lower learning_rate"):
        run_recbole_fair("SASRec", "small", config_dict=settings)


def test_objective_function_reports_validation(settings):
    result = objective_function({**settings, "model": "BPR", "dataset": "small", "epochs": 1}, saved=False)
    assert set(result) == {"model", "best_valid_score", "valid_score_bigger", "best_valid_result", "test_result"}
    assert not Path("saved").exists() or not list(Path("saved").glob("*.pth"))


def test_neurons_of_a_model_without_any_are_refused_before_training(settings):
    with pytest.raises(FairError, match="BPR has no neurons"):
        run_recbole_fair("BPR", "small", config_dict={**settings, "neurons_file": "n.csv"})
    assert not list(Path().glob("saved/*.pth"))


def test_per_user_and_per_item_files(settings):
    settings |= {"epochs": 1, "per_user_file": "u.csv", "per_item_file": "i.csv"}
    result = run_recbole_fair("BPR", "small", config_dict=settings)
    with open("u.csv", newline="") as file:
        users = list(csv.DictReader(file))
    assert np.mean([float(row["ndcg@5"]) for row in users]) == pytest.approx(result["test_result"]["ndcg@5"], abs=1e-12)
    with open("i.csv", newline="") as file:
        items = list(csv.DictReader(file))
    shown = next(column for column in items[0] if column.startswith("recommended"))
    assert sum(int(row[shown]) for row in items) == 5 * len(users)


def test_constraint_keeps_the_best_epoch_that_satisfies_it(settings, monkeypatch):
    epochs = [(0.1, 0.9), (0.5, 0.9), (0.2, 0.7), (0.3, 0.8), (0.25, 0.6), (0.9, 0.81)]
    seen = iter(epochs)

    def validate(self, valid_data, show_progress=False):
        ndcg, gini = next(seen)
        return ndcg, {"ndcg@5": ndcg, "giniindex@5": gini}

    monkeypatch.setattr("recbole.trainer.trainer.Trainer._valid_epoch", validate)
    settings |= {"epochs": 6, "valid_constraint": "GiniIndex@5 <= 0.8"}
    result = run_recbole_fair("BPR", "small", config_dict=settings)
    assert result["best_valid_score"] == 0.3
    assert result["best_valid_result"] == {"ndcg@5": 0.3, "giniindex@5": 0.8}
    assert not any("valid_constraint" in note for note in result["notes"])
    seen = iter(epochs)
    result = run_recbole_fair("BPR", "small", config_dict={**settings, "valid_constraint": "GiniIndex@5 <= 0.5"})
    assert result["best_valid_result"] == {"ndcg@5": 0.25, "giniindex@5": 0.6}  # the one that missed it least
    assert result["best_valid_score"] == 0.25
    assert any("No epoch kept valid_constraint" in note for note in result["notes"])


def test_constraint_on_a_metric_that_is_not_computed(settings):
    with pytest.raises(FairError, match="not computed"):
        run_recbole_fair("BPR", "small", config_dict={**settings, "valid_constraint": "UPD@5 <= 0.5"})


def test_two_runs_within_one_second_keep_both_checkpoints(settings, monkeypatch):
    monkeypatch.setattr("recbole.trainer.trainer.get_local_time", lambda: "Nov-22-2026_08-30-15")
    files = [run_recbole_fair("BPR", "small", config_dict={**settings, "epochs": 1})["checkpoint"] for _ in range(2)]
    assert [file.rpartition("-")[2] for file in files] == ["15.pth", "2.pth"]


def test_a_run_does_not_load_what_only_studies_draw_with():
    code = (
        "import sys, recbole_fair.quick_start as q; assert 'matplotlib' not in sys.modules; "
        "assert callable(q.compare) and callable(q.sweep_checkpoint) and callable(q.explain_checkpoint)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'compere'"):
        _ = quick_start.compere
