"""Comparisons from training to tables: shared bases, what is kept, what fails, what goes on."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from recbole_fair.cli import main
from recbole_fair.errors import FairError
from recbole_fair.quick_start import compare, run_recbole_fair
from recbole_fair.runs import compare as module
from recbole_fair.trainer.trainer import FairTrainerMixin

MODELS, RERANKERS = ["PopSteerSASRec", "SASRec", "BPR"], ["IPR"]
SETTINGS = {
    "epochs": 2, "hidden_size": 8, "inner_size": 16, "n_layers": 1, "MAX_ITEM_LIST_LENGTH": 8, "sae_scale": 4,
    "sae_k": 4, "sae_epochs": 1, "synthetic_users": 200, "head_share": 0.2, "tail_share": 0.2, "topk": [5],
    "metrics": ["NDCG", "GiniIndex", "ItemCoverage", "AveragePopularity"], "show_progress": False, "bootstrap": 100,
}  # fmt: skip


@pytest.fixture(scope="module")
def settings(small_data):
    return {**SETTINGS, "data_path": str(small_data)}


@pytest.fixture(scope="module")
def done(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    result = compare(
        MODELS, RERANKERS, "small", 2, reference="SASRec", permutations=500, output=folder, config_dict=settings
    )
    return folder, result


def metrics_of(result):
    return {(cell["system"], cell["seed"]): cell["metrics"] for cell in result["cells"]}


def test_the_base_is_trained_once_a_seed_and_shared(done):
    folder, result = done
    assert result["failed"] == []
    assert [cell["system"] for cell in result["cells"][::2]] == [
        name for model in MODELS for name in (model, f"{model} + IPR")
    ]
    for seed in (2020, 2021):
        files = list((folder / "checkpoints" / f"seed-{seed}").glob("SASRec-*.pth"))
        assert len(files) == 1
        bases = {c["base"]["file"] for c in result["cells"] if c["model"] == "PopSteerSASRec" and c["seed"] == seed}
        assert bases == {str(files[0])}


def test_cells_are_what_single_runs_give(done, settings, in_tmp):
    _, result = done
    found = metrics_of(result)
    protocol = {key: result["protocol"][key] for key in ("eval_args", "mask_seen")}
    for model in ("BPR", "PopSteerSASRec"):
        keys = {key: value for key, value in settings.items() if model != "BPR" or not key.startswith(("sae", "syn"))}
        for key in () if model != "BPR" else ("head_share", "tail_share"):
            keys.pop(key)
        own = {**keys, **protocol, "seed": 2021, "valid_metric": "NDCG@5", "reranker": "IPR", "bootstrap": 0}
        single = run_recbole_fair(model, "small", config_dict=own)
        assert found[f"{model} + IPR", 2021] == single["test_result"], model
        base = single["variants"]["base" if model == "BPR" else "steered"]
        assert found[model, 2021] == base, model


def test_tests_are_scipys_of_users_averaged_over_seeds(done):
    folder, result = done
    values = {}
    for system in ("BPR+IPR", "SASRec"):
        by_seed = []
        for seed in (2020, 2021):
            with np.load(folder / "cells" / f"{system}-seed-{seed}.npz") as cell:
                by_seed.append(dict(zip(cell["users"].tolist(), cell["per_user/ndcg@5"].tolist(), strict=True)))
        values[system] = by_seed
    users = sorted(values["SASRec"][0])
    d = [np.mean([values["BPR+IPR"][s][u] - values["SASRec"][s][u] for s in range(2)]) for u in users]
    row = next(r for r in result["comparisons"] if (r["system"], r["metric"]) == ("BPR + IPR", "ndcg@5"))
    assert row["users"] == len(users) == 60
    assert row["p_t"] == pytest.approx(stats.ttest_1samp(d, 0).pvalue)
    assert row["p_wilcoxon"] == pytest.approx(stats.wilcoxon([x for x in d if x]).pvalue, abs=0.02)
    assert row["difference"] == pytest.approx(np.mean(d))
    of_users = [r for r in result["comparisons"] if r["kind"] == "users"]
    assert len(of_users) == 5 * 2  # five systems against SASRec, NDCG and AveragePopularity
    assert all(r["holm_t"] >= r["p_t"] for r in of_users)
    gini = [r for r in result["comparisons"] if r["metric"] == "giniindex@5"]
    assert all(r["low"] <= r["difference"] <= r["high"] for r in gini)


def test_files(done):
    folder, result = done
    document = json.loads((folder / "comparison.json").read_text())
    assert document["kind"] == "comparison"
    assert document["cells"] == json.loads(json.dumps(result["cells"]))
    with open(folder / "cells.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert float(rows[0]["ndcg@5"]) == result["cells"][0]["metrics"]["ndcg@5"]
    with open(folder / "systems.csv") as file:
        mean = {(r["system"], r["metric"]): (float(r["mean"]), float(r["std"])) for r in csv.DictReader(file)}
    two = [metrics_of(result)["BPR", seed]["giniindex@5"] for seed in (2020, 2021)]
    assert mean["BPR", "giniindex@5"] == pytest.approx((np.mean(two), np.std(two, ddof=1)))
    assert len((folder / "tests.csv").read_text().splitlines()) == 1 + 5 * 4
    assert (folder / "comparison.md").read_text().startswith("# Comparison on small")
    assert r"\begin{tabular}{lrrrr}" in (folder / "comparison.tex").read_text()


def forbid(*_args, **_options):
    raise AssertionError("nothing is to be trained")


def test_finished_cells_are_not_measured_again(done, settings, monkeypatch):
    folder, result = done
    monkeypatch.setattr(module, "new_trainer", forbid)
    monkeypatch.setattr(module, "load_trainer", forbid)
    again = compare(
        MODELS, RERANKERS, "small", 2, reference="SASRec", permutations=500, output=folder, config_dict=settings
    )
    assert again["reused"] == 12
    assert again["systems"] == result["systems"]


def test_a_re_ranker_that_is_added_needs_no_training(done, settings, in_tmp, monkeypatch):
    folder, result = done
    monkeypatch.setattr(FairTrainerMixin, "fit", forbid)
    more = compare(["BPR"], ["IPR", "Random"], "small", 2, output=folder, config_dict={
        **settings, "mask_seen": "all", "eval_args": result["protocol"]["eval_args"]})  # fmt: skip
    assert more["failed"] == []
    assert more["reused"] == 4
    assert {cell["system"] for cell in more["cells"]} == {"BPR", "BPR + IPR", "BPR + Random"}
    assert metrics_of(more)["BPR", 2020] == metrics_of(result)["BPR", 2020]


def test_an_interrupted_comparison_goes_on_to_the_same_numbers(done, settings, in_tmp, monkeypatch, caplog):
    _, result = done
    words = ["compare", "--models", ",".join(MODELS), "--rerankers=IPR", "--dataset=small", "--seeds=2020,",
             "--spread=none", "--reference=SASRec", "--output=out", "--permutations=500"]  # fmt: skip
    words += [f"--{key}={json.dumps(value)}" for key, value in settings.items() if key != "data_path"]
    words.append(f"--data_path={settings['data_path']}")
    write, calls = FairTrainerMixin._write_checkpoint, []

    def stop_at_the_third(self, epoch, path=None):
        write(self, epoch, path)
        calls.append((self.config["model"], epoch))
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(FairTrainerMixin, "_write_checkpoint", stop_at_the_third)
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 130
    assert calls[:3] == [("SASRec", 0), ("SASRec", 1), ("BPR", 0)]
    kept = sorted(path.name for path in Path("out/cells").iterdir())
    assert kept == ["SASRec+IPR-seed-2020.npz", "SASRec-seed-2020.npz"]
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    assert any("Going on from epoch 1" in record.getMessage() for record in caplog.records)
    document = json.loads(Path("out/comparison.json").read_text())
    assert document["reused"] == 2
    assert metrics_of(document) == {key: value for key, value in metrics_of(result).items() if key[1] == 2020}
    assert ("BPR", 0) not in calls[3:5]  # the first epoch of BPR was not trained again


def test_what_fails_does_not_take_the_others_along(settings, in_tmp, monkeypatch):
    measured = module._Run._trained

    def broken(self, model, seed):
        if model == "Pop":
            raise ZeroDivisionError("a mistake of ours")
        return measured(self, model, seed)

    monkeypatch.setattr(module._Run, "_trained", broken)
    words = ["compare", "--models=BPR,Pop", "--rerankers=PUFR,IPR", "-d", "small", "--seeds=3,4", "--output=out"]
    words += [f"--data_path={settings['data_path']}", "--epochs=1", "--show_progress=false", "--permutations=200"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 1
    document = json.loads(Path("out/comparison.json").read_text())
    assert {cell["system"] for cell in document["cells"]} == {"BPR", "BPR + IPR"}
    failed = {(row["system"], row["seed"]): row["error"] for row in document["failed"]}
    assert set(failed) == {(name, seed) for name in ("BPR + PUFR", "Pop", "Pop + PUFR", "Pop + IPR") for seed in (3, 4)}
    assert failed["Pop", 3] == "ZeroDivisionError: a mistake of ours"
    assert "reranker_models" in failed["BPR + PUFR", 4]
    assert "No result for Pop, seed 4: ZeroDivisionError" in Path("out/comparison.md").read_text()
    with pytest.raises(FairError, match="No cell has a result; the first failed with: ZeroDivisionError"):
        compare(["Pop"], (), "small", 2, output="none", config_dict={"data_path": settings["data_path"]})


def test_systems_that_are_tested_on_other_items_are_not_compared(settings, in_tmp, monkeypatch):
    digests = iter(["one", "other"])
    monkeypatch.setattr(module, "_held_out", lambda struct, dataset: next(digests))
    result = compare(["BPR", "Pop"], (), "small", [9], spread="none", output="out", permutations=100, config_dict={
        "data_path": settings["data_path"], "epochs": 1, "show_progress": False})  # fmt: skip
    assert [cell["system"] for cell in result["cells"]] == ["BPR"]
    assert "Pop is tested on other users or other held-out items than BPR" in result["failed"][0]["error"]


def test_lists_of_another_system_take_part(settings, in_tmp):
    files = {"recommendations_file": "recs.csv"}
    protocol = {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"}}
    run = run_recbole_fair("BPR", "small", config_dict={**settings, **protocol, **files, "seed": 2020})
    result = compare(
        ["SASRec"], [], "small", 2, permutations=500, lists={"ours": "recs.csv"}, config_dict={**settings, **protocol}
    )
    found = metrics_of(result)
    for seed in (2020, 2021):  # the split of the last interactions is the same under every seed
        assert found["ours", seed] == pytest.approx(dict(run["test_result"]), abs=1e-9)
    assert {row["system"] for row in result.comparisons} == {"ours"}
    with pytest.raises(FairError, match="lists names SASRec, as another system"):
        compare(["SASRec"], [], "small", 2, lists={"SASRec": "recs.csv"}, config_dict=settings)
    Path("wrong.csv").write_text("user,item\nnobody,i1\n")
    result = compare(
        ["SASRec"], [], "small", 2, permutations=500, lists={"bad": "wrong.csv"}, config_dict={**settings, **protocol}
    )
    assert [row["system"] for row in result["failed"]] == ["bad", "bad"]
    assert "none of its 1 users is evaluated" in result["failed"][0]["error"]
