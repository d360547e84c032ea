"""Comparisons and frontiers over several data sets, and comparisons whose systems are tuned first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import write_atomic

from recbole_fair.cli import cli
from recbole_fair.errors import FairError
from recbole_fair.quick_start import compare, compare_datasets, frontier_datasets, run_recbole_fair
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
