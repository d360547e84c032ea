"""Comparisons and frontiers over several data sets, and comparisons whose systems are tuned first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from conftest import write_atomic
from other_labels import LAST_OF_EACH, write_with_other_labels

from recbole_fair.cli import cli
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import load_checkpoint
from recbole_fair.quick_start import (
    compare,
    compare_datasets,
    frontier_checkpoint,
    frontier_datasets,
    run_recbole_fair,
    trained_checkpoints,
)
from recbole_fair.report.html import write_report
from recbole_fair.runs.tuned import Tuning

SETTINGS = {
    "epochs": 1, "show_progress": False, "metrics": ["NDCG", "GiniIndex"], "topk": [5], "embedding_size": 8,
    "bootstrap": 20, "train_batch_size": 128,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets of different users and items."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(small_data / "small", folder / "small")
    write_atomic(folder, "other", n_items=30, lengths=(7, 20))
    return folder


@pytest.fixture
def given(data: Path, in_tmp: Path) -> dict[str, Any]:
    return {**SETTINGS, "data_path": str(data)}


def test_a_study_is_the_comparisons_side_by_side(given: dict[str, Any], in_tmp: Path) -> None:
    study = compare_datasets(
        ["BPR", "Pop"], ["small", "other"], ["IPR"], seeds=2, permutations=200, output="out", config_dict=given
    )
    assert study.datasets == ["small", "other"]
    alone = compare(["BPR", "Pop"], ["IPR"], "other", 2, permutations=200, output="out/other", config_dict=given)
    assert alone.reused == 8, "each data set's own comparison stands in a folder of its own"
    mine = {(row["system"], row["metric"]): row["value"] for row in study.rows if row["dataset"] == "other"}
    assert mine == {(row["system"], row["metric"]): row["mean"] for row in alone.systems}
    ranks = {row["metric"]: row for row in study.ranks}
    table = (
        pd.DataFrame(list(study.rows))
        .query("metric == 'ndcg@5'")
        .pivot(index="dataset", columns="system", values="value")
    )
    expected = table.rank(axis=1, ascending=False).mean()
    found = dict(zip(ranks["ndcg@5"]["systems"], ranks["ndcg@5"]["mean_ranks"], strict=True))
    assert found == pytest.approx(expected.to_dict())
    assert any("no difference of mean ranks can reach" in note for note in study.notes)
    latex = (in_tmp / "out" / "study.tex").read_text()
    assert r"\label{tab:compare-small-other}" in latex
    assert r"\toprule" in latex
    assert "resizebox" not in latex + (in_tmp / "out" / "other" / "comparison.tex").read_text()
    for name in ("study.json", "study.md", "study.csv", "ranks.png", "ranks.svg"):
        assert (in_tmp / "out" / name).stat().st_size, name
    page = Path(write_report(["out/study.json"], "page.html")).read_text()
    assert "mean rank" in page
    assert "Comparison on small, other" in page


def test_the_commands_take_several_names(given: dict[str, Any], data: Path, in_tmp: Path) -> None:
    words = [f"--{key}={value}" for key, value in given.items()]
    done = CliRunner().invoke(
        cli, ["compare", "-m", "BPR,Pop", "-d", "small,other", "--seeds=1", "--spread=none", *words]
    )
    assert done.exit_code == 0, done.output
    assert json.loads((in_tmp / "results/compare-small-other/study.json").read_text())["kind"] == "study"
    files = [run_recbole_fair("BPR", name, config_dict=given)["checkpoint"] for name in ("small", "other")]
    options = [
        "--x",
        "GiniIndex@5",
        "--y",
        "NDCG@5",
        "--loss",
        "0.2",
        "--methods",
        "Penalty,IPR",
        f"--data_path={data}",
    ]
    done = CliRunner().invoke(cli, ["frontier", ",".join(files), *options, "--bootstrap=20"])
    assert done.exit_code == 0, done.output
    document = json.loads((in_tmp / "results/frontier-small-other/study.json").read_text())
    assert {row["system"] for row in document["rows"]} == {"base", "Penalty", "IPR"}
    assert {row["metric"] for row in document["rows"]} == {"giniindex@5 within 20 %"}


def test_a_frontier_s_rows_are_the_winners_or_the_base(given: dict[str, Any], in_tmp: Path) -> None:
    from recbole_fair.quick_start import frontier_checkpoint

    files = [run_recbole_fair("BPR", name, config_dict=given)["checkpoint"] for name in ("small", "other")]
    asked: dict[str, Any] = {"x": ["GiniIndex@5"], "y": "NDCG@5", "loss": [0.2], "methods": ["Penalty"]}
    changes = {"data_path": given["data_path"], "bootstrap": 20}
    study = frontier_datasets(files, **asked, output="out", config_dict=changes)
    for file, name in zip(files, ("small", "other"), strict=True):
        one = frontier_checkpoint(file, **asked, output=None, config_dict=changes)
        won = one.winners[0]["test"] if one.winners else one.base["test"]
        value = next(row["value"] for row in study.rows if (row["dataset"], row["system"]) == (name, "Penalty"))
        assert value == won["giniindex@5"]
    with pytest.raises(FairError, match="of at least two data sets"):
        frontier_datasets([files[0], files[0]], **asked, config_dict=changes)


def test_each_system_gets_as_many_trials_and_no_test_label(given: dict[str, Any], in_tmp: Path) -> None:
    pytest.importorskip("optuna")
    tuning = Tuning(4, minimize=["GiniIndex@5"], subject_to=["NDCG@5 >= 0.5*base"], sampler="random")
    result = compare(
        ["BPR", "Pop"], ["IPR"], "small", 1, spread="none", permutations=200, output="out", config_dict=given,
        tuning=tuning,
    )  # fmt: skip
    trials = {row["system"]: row["trials"] for row in result.tuned}
    assert trials == {"BPR": 4, "BPR + IPR": 4, "Pop": 0, "Pop + IPR": 4}
    assert any(note.startswith("Pop was not tuned") for note in result.notes)
    tuned = {row["system"]: row["settings"] for row in result.tuned}
    cells = {cell["system"]: cell for cell in result.cells}
    alone = run_recbole_fair(
        "BPR", "small", config_dict={**given, **tuned["BPR"], "eval_args": result.protocol["eval_args"],
                                     "mask_seen": result.protocol["mask_seen"], "checkpoint_dir": "apart",
                                     "valid_metric": "NDCG@5", "bootstrap": 0},
    )  # fmt: skip
    assert cells["BPR"]["metrics"] == pytest.approx(alone["test_result"], abs=1e-12)
    for row in result.tuned:
        if row["trials"]:
            document = json.loads((in_tmp / "out/tune" / row["system"].replace(" + ", "+") / "tune.json").read_text())
            assert not [key for key in document["chosen"][0] if key.startswith("test ")], "test was not looked at"
    again = compare(
        ["BPR", "Pop"], ["IPR"], "small", 1, spread="none", permutations=200, output="out", config_dict=given,
        tuning=tuning,
    )  # fmt: skip
    assert again.reused == 4
    assert again.tuned == result.tuned


def test_test_labels_change_no_choice_of_a_tuned_comparison(
    given: dict[str, Any], small_data: Path, in_tmp: Path
) -> None:
    """Every user's held-out test item is another one: the same trials and settings, other test values."""
    pytest.importorskip("optuna")
    tuning = Tuning(4, subject_to=["GiniIndex@5 <= 1"])
    found = []
    for folder in write_with_other_labels(small_data, in_tmp):
        settings = {**given, "data_path": str(folder), "eval_args": LAST_OF_EACH}
        found.append(
            compare(
                ["BPR"], ["IPR"], "small", 1, spread="none", permutations=200, output=f"{folder.name}-found",
                config_dict=settings, tuning=tuning,
            )
        )  # fmt: skip
    one, two = found
    assert [row["trials"] for row in one.tuned] == [4, 4]
    assert one.tuned == two.tuned  # settings and validation metrics
    tested = [{cell["system"]: cell["metrics"]["ndcg@5"] for cell in result.cells} for result in found]
    assert all(tested[0][name] != tested[1][name] for name in tested[0])
    for name in ("BPR", "BPR+IPR"):
        files = [in_tmp / f"{which}-found/tune/{name}/tune.json" for which in ("one", "two")]
        trials = [json.loads(file.read_text())["trials"] for file in files]
        assert len(trials[0]) == 4
        assert trials[0] == trials[1]


def test_test_labels_change_no_choice_of_a_frontier(given: dict[str, Any], small_data: Path, in_tmp: Path) -> None:
    found = []
    for folder in write_with_other_labels(small_data, in_tmp):
        settings = {
            **given,
            "data_path": str(folder),
            "eval_args": LAST_OF_EACH,
            "checkpoint_dir": folder.name + "-saved",
        }
        (file,) = trained_checkpoints("BPR", ["small"], config_dict=settings)
        found.append(
            frontier_checkpoint(
                file, ["GiniIndex@5"], "NDCG@5", [0.5], ["Penalty", "IPR", "Tilt"],
                config_dict={"data_path": str(folder), "bootstrap": 20},
            )
        )  # fmt: skip
    one, two = found
    assert one.winners
    chosen = [[(row["method"], row["setting"], row["valid"]) for row in result.winners] for result in found]
    assert chosen[0] == chosen[1]
    assert one.base["valid"] == two.base["valid"]
    assert one.base["test"]["ndcg@5"] != two.base["test"]["ndcg@5"]


def test_a_frontier_of_a_model_on_several_data_sets(given: dict[str, Any], in_tmp: Path) -> None:
    words = [f"--{key}={value}" for key, value in given.items()]
    asked = ["--x=GiniIndex@5", "--y=NDCG@5", "--loss=0.2", "--methods=Penalty,PopSteerBPR", "--fit=PopSteerBPR"]
    of_fit = ["--sae_epochs=1", "--sae_scale=2", "--sae_k=4", "--profile_share=0.3"]
    call = ["frontier", "-m", "BPR", "-d", "small,other", *asked, *of_fit, *words]
    alone = run_recbole_fair("BPR", "small", config_dict=given)  # what a run has trained is found
    done = CliRunner().invoke(cli, call)
    assert done.exit_code == 0, done.output
    study = json.loads((in_tmp / "results/frontier-small-other/study.json").read_text())
    assert {row["system"] for row in study["rows"]} == {"base", "Penalty", "PopSteerBPR"}
    assert study["datasets"] == ["small", "other"]
    files = sorted((in_tmp / "saved").glob("BPR-*.pth"))
    assert len(files) == 2
    assert alone["checkpoint"] in [str(file.relative_to(in_tmp)) for file in files]
    before = len(list((in_tmp / "saved").glob("*.pth")))
    again = CliRunner().invoke(cli, ["frontier", "-m", "BPR", "-d", "small", *asked, *of_fit, *words])
    assert again.exit_code == 0, again.output
    assert len(list((in_tmp / "saved").glob("*.pth"))) == before
    one = json.loads(next((in_tmp / "results").glob("frontier-BPR-*.json")).read_text())
    mine = next(row["value"] for row in study["rows"] if row["system"] == "base" and row["dataset"] == "small")
    assert one["base"]["test"]["giniindex@5"] == mine


def test_a_training_that_was_cut_short_goes_on_in_a_frontier(
    given: dict[str, Any], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recbole_fair.trainer.trainer import FairTrainerMixin

    settings = {**given, "epochs": 4}
    (whole,) = trained_checkpoints("BPR", ["small"], config_dict={**settings, "checkpoint_dir": "whole"})
    usual, trained = FairTrainerMixin._train_epoch, []

    def interrupted(self: Any, data: Any, epoch: int, *words: Any, **named: Any) -> Any:
        trained.append(epoch)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return usual(self, data, epoch, *words, **named)

    monkeypatch.setattr(FairTrainerMixin, "_train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained_checkpoints("BPR", ["small"], config_dict=settings)
    (file,) = trained_checkpoints("BPR", ["small"], config_dict=settings)
    assert trained == [0, 1, 2, 2, 3]
    states = [load_checkpoint(path)["state_dict"] for path in (whole, file)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--epochs=1"], "Name the checkpoint before the settings"),
        (["-m", "BPR"], "dataset is not set"),
        (["-d", "small"], "model is not set"),
        (["a.pth", "-m", "BPR", "-d", "small"], "leave --model, --dataset and -c out"),
        (["-m", "BPR", "-d", "small,small"], "dataset names small twice"),
        (["-m", "BPR", "-d", "small", "--result_file=a.json"], "result_file='a.json' is for run and evaluate"),
        (["-m", "BPR", "-d", "small", "--resume=a.pth"], "resume='a.pth' is not for a study"),
        (["-m", "NoModel", "-d", "small"], "NoModel"),
    ],
)
def test_mistakes_of_a_frontier_are_a_sentence(
    given: dict[str, Any], words: list[str], says: str, in_tmp: Path
) -> None:
    done = CliRunner().invoke(cli, ["frontier", *words])
    assert isinstance(done.exception, FairError)
    assert says in str(done.exception)
    assert not (in_tmp / "saved").exists()


def test_checkpoints_of_different_splits_make_no_study(given: dict[str, Any]) -> None:
    files = [
        run_recbole_fair("BPR", name, config_dict={**given, **changed})["checkpoint"]
        for name, changed in (("small", {}), ("other", {"eval_args": LAST_OF_EACH}))
    ]
    with pytest.raises(FairError, match="a study has one protocol, set eval_args for all data sets"):
        frontier_datasets(files, config_dict={"data_path": given["data_path"]})


def test_mistakes_are_a_sentence(given: dict[str, Any], in_tmp: Path) -> None:
    with pytest.raises(FairError, match="names small twice"):
        compare_datasets(["BPR"], ["small", "small"], config_dict=given)
    with pytest.raises(FairError, match="at least two data sets"):
        compare_datasets(["BPR"], ["small"], config_dict=given)
    with pytest.raises(FairError, match="lists belong to one data set"):
        compare_datasets(["BPR"], ["small", "other"], config_dict=given, lists={"a": "b.csv"})
    with pytest.raises(FairError, match=r"reference='X' is not compared here"):
        compare_datasets(["BPR"], ["small", "other"], reference="X", config_dict=given)
    for tuning, says in [
        (Tuning(2, minimize=["GiniIndex@5"], maximize=["NDCG@5"]), "for one metric"),
        (Tuning(2, spaces={"X": "a.yaml"}), "space: X is not compared here"),
    ]:
        with pytest.raises(FairError, match=says):
            compare(["BPR"], (), "small", 1, spread="none", config_dict=given, tuning=tuning)
    done = CliRunner().invoke(cli, ["compare", "-m", "BPR", "-d", "small", "--minimize=GiniIndex@5"])
    assert "add --tune=TRIALS" in str(done.exception)
