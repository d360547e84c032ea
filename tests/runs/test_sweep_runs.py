"""Sweeps of real checkpoints: the same numbers as single evaluations, going on after an interruption, bad input."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from recbole.model.general_recommender import BPR

from recbole_fair.analysis.grid import settings_of
from recbole_fair.cli import main
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.keys import Key
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import load_checkpoint
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair, sweep_checkpoint
from recbole_fair.runs.loading import config_of, load_trainer, new_trainer
from recbole_fair.runs.sweeper import Sweeper

METRICS = {"metrics": ["NDCG", "GiniIndex"], "topk": [5], "valid_metric": "NDCG@5", "show_progress": False}
SASREC = {"epochs": 2, "hidden_size": 8, "inner_size": 16, "n_layers": 2, "MAX_ITEM_LIST_LENGTH": 8, **METRICS}
NAMES = ("GiniIndex@5", "NDCG@5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def steered(small_data, folder):
    settings = {
        **SASREC, "data_path": str(small_data), "checkpoint_dir": str(folder), "sae_scale": 4, "sae_k": 4,
        "sae_epochs": 2, "synthetic_users": 500, "head_share": 0.2, "tail_share": 0.2,
    }  # fmt: skip
    return run_recbole_fair("PopSteerSASRec", "small", config_dict=settings)["checkpoint"]


@pytest.fixture(scope="module")
def plain(small_data, folder):
    settings = {**METRICS, "data_path": str(small_data), "checkpoint_dir": str(folder), "epochs": 1}
    return run_recbole_fair("BPR", "small", config_dict=settings)["checkpoint"]


def assert_as_evaluated(result, checkpoint, **changes):
    """Every setting of a sweep against an evaluation of its own."""
    for row in result["settings"]:
        setting = {key: row[key] for key in result["grid"]}
        single = evaluate_checkpoint(checkpoint, {**setting, **changes})["test_result"]
        assert {name: row[f"test {name}"] for name in single} == pytest.approx(single, abs=1e-12), setting


def test_a_sweep_gives_what_single_evaluations_give(steered, in_tmp):
    result = sweep_checkpoint(steered, ["alpha_pop=0,3", "alpha_unpop=1"], *NAMES, ["NDCG@5 >= 0*base"], "out/s")
    assert [row["alpha_pop"] for row in result["settings"]] == [0, 3]
    assert_as_evaluated(result, steered)
    single = evaluate_checkpoint(steered)
    assert result["base"]["test"] == pytest.approx(single["base_test_result"], abs=1e-12)
    table = pd.read_csv("out/s.csv")
    assert list(table["valid ndcg@5"]) == pytest.approx([row["valid ndcg@5"] for row in result["settings"]])
    document = json.loads((in_tmp / "out" / "s.json").read_text())
    assert document["chosen"]["alpha_unpop"] == 1
    assert document["grid"] == {"alpha_pop": [0, 3], "alpha_unpop": [1]}
    assert result["chosen"]["valid giniindex@5"] == min(row["valid giniindex@5"] for row in result["settings"])
    assert "GiniIndex@5 (lower is better)" in (in_tmp / "out" / "s.svg").read_text()
    assert (in_tmp / "out" / "s.png").stat().st_size > 10_000
    assert not (in_tmp / "out" / "s.partial.jsonl").exists()


def test_a_re_ranker_is_swept_over_any_checkpoint(plain, in_tmp):
    result = sweep_checkpoint(plain, ["reranker_alpha=0,0.5,1"], *NAMES, config_dict={"reranker": "IPR"})
    assert_as_evaluated(result, plain, reranker="IPR")
    base = evaluate_checkpoint(plain)["test_result"]
    assert result["base"]["test"] == base == {name: result["settings"][0][f"test {name}"] for name in base}
    assert result["settings"][2]["test giniindex@5"] != base["giniindex@5"]


def test_strengths_and_a_re_ranker_are_swept_together(steered, in_tmp):
    grid = {"reranker_alpha": [0.2, 0.8], "alpha_pop": [0, 4]}
    result = sweep_checkpoint(steered, grid, *NAMES, config_dict={"reranker": "IPR"})
    assert_as_evaluated(result, steered, reranker="IPR")


@pytest.mark.parametrize("model", ["SPREESASRec", "SPREEBERT4Rec"])
def test_a_site_inside_the_base_is_swept_from_memory(model, small_data, folder, in_tmp):
    settings = {
        **SASREC, "data_path": str(small_data), "checkpoint_dir": str(folder), "synthetic_users": 100,
        "bias_list_length": 10, "bias_regularization": 0.002, "head_share": 0.2, "tail_share": 0.2,
        "spree_sites": [[1, -1]],
    }  # fmt: skip
    checkpoint = run_recbole_fair(model, "small", config_dict=settings)["checkpoint"]
    result = sweep_checkpoint(checkpoint, ["spree_strength=0,-30,30", "spree_adaptive=true,false"], *NAMES)
    assert len({row["test giniindex@5"] for row in result["settings"]}) > 2
    assert_as_evaluated(result, checkpoint)


def test_a_fusion_of_models_is_swept(small_data, folder, in_tmp):
    settings = {**METRICS, "data_path": str(small_data), "checkpoint_dir": str(folder), "group_field": "genre"}
    checkpoint = run_recbole_fair("DecFM", "small", config_dict={**settings, "epochs": 1})["checkpoint"]
    result = sweep_checkpoint(checkpoint, ["fusion_alpha=0,0.5,4", "inference=fused,deconfounded"], *NAMES)
    assert_as_evaluated(result, checkpoint)
    assert result["base"]["test"] == evaluate_checkpoint(checkpoint)["variants"]["backbone"]


def test_users_are_encoded_once_and_strengths_come_back(steered):
    content = load_checkpoint(steered)
    config = config_of(content, {})
    trainer, loaders = load_trainer(config, content, steered)
    base, before, calls = trainer.model.base, trainer.model.strengths, []
    encode = type(base).represent_users
    base.represent_users = lambda interaction: calls.append(1) or encode(base, interaction)
    with Sweeper(trainer, {"valid": loaders[1], "test": loaders[2]}) as sweeper:
        sweeper.base()
        for setting in settings_of({"alpha_pop": [0, 1, 2]}):
            sweeper.measure(setting)
    assert len(calls) == len(loaders[1]) + len(loaders[2])
    assert trainer.model.strengths == before


class Shifted(BPR):
    """Scores less a multiple of the item's id: a model with strengths that knows nothing of our classes."""

    keys = {"shift": Key("float", scope="strength", default=0.0)}  # noqa: RUF012
    shift = 0.0

    def full_sort_predict(self, interaction):
        scores = super().full_sort_predict(interaction).view(-1, self.n_items)
        return scores - self.shift * scores.new_tensor(range(self.n_items))


def test_any_model_with_strengths_is_swept(small_data, in_tmp):
    config = FairConfig(Shifted, "small", config_dict={**METRICS, "data_path": str(small_data)})
    trainer, (_, valid, test) = new_trainer(config)
    with Sweeper(trainer, {"valid": valid, "test": test}) as sweeper:
        settings = settings_of({"shift": [0.0, 100.0]})
        sweeper.check(settings)
        base, same, shifted = sweeper.base(), *map(sweeper.measure, settings)
    assert base == same
    assert shifted["test"]["giniindex@5"] > base["test"]["giniindex@5"]  # the first unseen items for everybody
    assert trainer.model.shift == 0.0


def test_an_interrupted_sweep_goes_on(steered, in_tmp, monkeypatch):
    grid = ["alpha_pop=0:3:1", "beta=0,1"]
    whole = sweep_checkpoint(steered, grid, *NAMES)
    measure, calls = Sweeper.measure, []

    def counted(self, setting):
        if len(calls) == 3 and "stop" not in calls:
            calls.append("stop")
            raise KeyboardInterrupt
        calls.append(setting)
        return measure(self, setting)

    monkeypatch.setattr(Sweeper, "measure", counted)
    words = ["sweep", steered, "--grid", grid[0], "--grid", grid[1], "--x", NAMES[0], "--y", NAMES[1], "--output", "s"]
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 130
    assert (in_tmp / "s.partial.jsonl").exists()
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    done = [call for call in calls if call != "stop"]
    assert len(done) == len({json.dumps(setting) for setting in done}) == 8
    document = json.loads((in_tmp / "s.json").read_text())
    assert document["resumed"] == 3
    assert document["settings"] == whole["settings"]
    # Other metrics are another sweep, which does not write over the first.
    sweep_checkpoint(steered, ["alpha_pop=0"], *NAMES, output="s", config_dict={"topk": [5, 3]})
    assert len(calls) == 10
    assert json.loads((in_tmp / "s.json").read_text()) == document
    assert json.loads((in_tmp / "s-2.json").read_text())["grid"] == {"alpha_pop": [0]}
    # The same one, shown in another way, is not.
    sweep_checkpoint(steered, grid, *NAMES, output="s", config_dict={"eval_memory_mb": 100, "state": "error"})
    assert not (in_tmp / "s-3.json").exists()


def test_a_sweep_leaves_what_another_interrupted_one_has_measured(steered, in_tmp, monkeypatch):
    measure, calls = Sweeper.measure, []

    def stopped_at_the_third(self, setting):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(setting)
        return measure(self, setting)

    with monkeypatch.context() as patch:
        patch.setattr(Sweeper, "measure", stopped_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            sweep_checkpoint(steered, ["alpha_pop=0,1,2,3"], *NAMES, output="s")
    sweep_checkpoint(steered, ["alpha_pop=7"], *NAMES, output="s")
    assert (in_tmp / "s.partial.jsonl").exists()
    assert sweep_checkpoint(steered, ["alpha_pop=0,1,2,3"], *NAMES, output="s")["resumed"] == 2
    assert not (in_tmp / "s.partial.jsonl").exists()
    assert {path.name for path in in_tmp.glob("s*.json")} == {"s.json", "s-2.json"}


@pytest.mark.parametrize(
    ("grid", "x", "changes", "message"),
    [(["sae_k=1,2"], "GiniIndex@5", {}, "sae_k is not a scoring-time setting of PopSteerSASRec"),
     (["alpha_pp=1"], "GiniIndex@5", {}, "did you mean 'alpha_pop'"),
     (["alpha_pop=-1"], "GiniIndex@5", {}, "alpha_pop=-1 is not allowed"),
     (["alpha_pop=1"], "Gini@5", {}, "no metric named 'Gini'; did you mean 'GiniIndex'"),
     (["alpha_pop=1"], "GiniIndex", {}, "needs a list length"),
     (["alpha_pop=1"], "ItemCoverage_min7@5", {}, "itemcoverage_min7@5 is not computed"),
     (["reranker_alpha=1"], "GiniIndex@5", {}, "choose a re-ranker"),
     (["reranker_alpha=0,-1"], "GiniIndex@5", {"reranker": "IPR"}, "reranker_alpha=-1 is not allowed for IPR"),
     (["alpha_pop=1"], "GiniIndex@5", {"sae_k": 2}, "sae_k=2 cannot take effect"),
     (["alpha_pop=1"], "GiniIndex@5", {"alpha_pop": 2}, "alpha_pop=2 has no effect: its values are those of the grid"),
     (["alpha_pop=1"], "GiniIndex@5", {"result_file": "r"}, "result_file='r' is for run and evaluate; a sweep writes"),
     (["alpha_pop=1"], "GiniIndex@5", {"resume": "r"}, "resume='r' is for training"),
     ({}, "GiniIndex@5", {}, "The grid is empty")],
)  # fmt: skip
def test_what_cannot_be_swept(steered, in_tmp, grid, x, changes, message):
    with pytest.raises(FairError, match=message):
        sweep_checkpoint(steered, grid, x, "NDCG@5", config_dict=changes)


def test_a_checkpoint_without_strengths(plain, in_tmp, capfd):
    with pytest.raises(SystemExit) as ended:
        main(["sweep", plain, "--grid", "alpha_pop=1"])
    assert ended.value.code == 2
    assert "BPR has no strengths to sweep" in capfd.readouterr().err


def test_metrics_that_the_sweep_names_are_computed(plain, in_tmp):
    result = sweep_checkpoint(plain, ["reranker_alpha=1"], "UPD@7", "NDCG@5", config_dict={"reranker": "IPR"})
    assert {"upd@7", "ndcg@5"} <= set(result["base"]["test"])
