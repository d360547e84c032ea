"""A model of plain RecBole on its whole way: imported, then steered, swept, explained, saved, served and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from plain_recbole import train_apart

from recbole_fair.errors import FairError
from recbole_fair.io.latest import named_checkpoint
from recbole_fair.quick_start import (
    Recommender,
    evaluate_checkpoint,
    explain_checkpoint,
    export_checkpoint,
    import_checkpoint,
    run_recbole_fair,
    save_served,
    sweep_checkpoint,
)
from recbole_fair.runs.dossiers.base import Options
from recbole_fair.runs.exporting import exports_graphs, made_up_histories

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
needs_graphs = pytest.mark.skipif(not exports_graphs(), reason="this PyTorch exports no graph of any length")

MODELS = ("GRU4Rec", "SASRec", "BPR", "LightGCN", "MultiVAE")
PARTS = {"sae_epochs": 2, "sae_scale": 4, "sae_k": 4, "head_share": 0.2, "tail_share": 0.2, "topk": [5]}
SEQUENTIAL = ("GRU4Rec", "SASRec")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> dict[str, tuple[float, Path]]:
    return train_apart(list(MODELS), "small", small_data, tmp_path_factory.mktemp("plain"))


@needs_graphs
@pytest.mark.parametrize("model", [MODELS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS[1:])])
def test_from_a_file_of_recbole_to_a_steered_export(
    model: str, foreign: dict[str, tuple[float, Path]], small_data: Path, in_tmp: Path
) -> None:
    here: dict[str, Any] = {"data_path": str(small_data), "show_progress": False}
    score, file = foreign[model]
    imported = import_checkpoint(file, "imported.pth", here)
    assert imported["validation"] == pytest.approx(score, abs=1e-4)
    users = {"synthetic_users": 60, "synthetic_length": 5} if model in SEQUENTIAL else {"profile_share": 0.3}
    settings = {**here, **PARTS, **users, "base": model, "base_model_file": "imported.pth"}
    steered = run_recbole_fair("PopSteer", "small", config_dict=settings)
    own = evaluate_checkpoint("imported.pth", here)["test_result"]
    assert steered["base_test_result"]["ndcg@5"] == pytest.approx(own["ndcg@5"], abs=1e-12)

    swept = sweep_checkpoint(
        steered["checkpoint"], ["alpha_pop=0,4", "alpha_unpop=6"], "GiniIndex@5", "NDCG@5", ["NDCG@5 >= 0*base"],
        None, here, "chosen.pth",
    )  # fmt: skip
    chosen = evaluate_checkpoint("chosen.pth", here)["test_result"]
    assert {name: swept["chosen"][f"test {name}"] for name in chosen} == pytest.approx(chosen, abs=1e-12)

    explained = explain_checkpoint(
        "chosen.pth", "dossier", "valid", Options(map="none", strongest=2, permutations=19), here
    )
    assert explained["strengths"]["alpha_unpop"] == 6
    assert (in_tmp / "dossier" / "explain.json").is_file()

    result = export_checkpoint("chosen.pth", "model.onnx", check=1000)
    assert result["differ"] == 0
    base = export_checkpoint("chosen.pth", "base.onnx", variant="base", check=100)
    assert base["differ"] == 0
    rec = Recommender.load("chosen.pth")
    if model in ("BPR", "LightGCN"):
        steered_ids = rec.recommend(users=rec.user_ids[1:], exclude_seen=False).ids
        assert (steered_ids != rec.recommend(users=rec.user_ids[1:], variant="base", exclude_seen=False).ids).any()
        return
    histories = made_up_histories(rec, 1000)
    assert {len(history) for history in histories} >= set(range(1, rec.window + 1))
    steered_ids = rec.recommend(histories, exclude_seen=False).ids
    assert (steered_ids != rec.recommend(histories, variant="base", exclude_seen=False).ids).any()


@needs_graphs
@pytest.mark.parametrize("model", ["GRU4Rec", "MultiVAE"])
def test_an_imported_model_is_exported_with_lorenz_s_bias(
    model: str, foreign: dict[str, tuple[float, Path]], small_data: Path, in_tmp: Path
) -> None:
    lorenz = {"reranker": "Lorenz", "reranker_lambda": 0.5, "reranker_welfare": "entropy"}
    save_served(foreign[model][1], "served.pth", {**lorenz, "data_path": str(small_data), "show_progress": False})
    result = export_checkpoint("served.pth", "model.onnx", check=1000)
    assert (result["checked"], result["differ"]) == (1000, 0)
    rec = Recommender.load("served.pth")
    assert rec.item_bias is not None
    assert float(rec.item_bias.abs().max()) > 0


def test_the_newest_checkpoint_is_latest(in_tmp: Path) -> None:
    import os

    with pytest.raises(FairError, match=r"There is no latest checkpoint: saved/ holds no \.pth file"):
        named_checkpoint("latest")
    (in_tmp / "saved").mkdir()
    for age, name in enumerate(("b.pth", "a.pth", ".hidden.pth", "c.txt")):
        (in_tmp / "saved" / name).touch()
        os.utime(in_tmp / "saved" / name, (1000 + age, 1000 + age))
    assert named_checkpoint("latest") == Path("saved/a.pth")
    assert named_checkpoint("latest", {"checkpoint_dir": str(in_tmp / "saved")}) == in_tmp / "saved" / "a.pth"
    assert named_checkpoint("saved/b.pth") == "saved/b.pth"
    (in_tmp / "latest").touch()
    assert named_checkpoint("latest") == "latest", "a file of that name goes first"


def test_latest_wherever_a_checkpoint_is_named(
    foreign: dict[str, tuple[float, Path]], small_data: Path, in_tmp: Path
) -> None:
    from click.testing import CliRunner

    from recbole_fair.cli import cli

    def call(*words: str) -> str:
        done = CliRunner().invoke(cli, list(words), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert "Checkpoint: saved/" in done.output, "it is said which one that is"
        return "".join(line for line in done.output.splitlines(True) if not line.startswith("Checkpoint: "))

    here = [f"--data_path={small_data}", "--show_progress=false"]
    import_checkpoint(foreign["GRU4Rec"][1], "saved/first.pth", {"data_path": str(small_data)})
    call("evaluate", "latest", *here)
    items = " ".join(Recommender.load("latest").item_ids[1:4])
    assert len(call("recommend", "latest", "--history", items, "-k", "3").splitlines()) == 3
    # A score adjuster that needs nothing but the history goes with any checkpoint.
    tilted = call("recommend", "latest", "--history", items, "--reranker=Tilt", "--reranker_strength=0.9")
    assert tilted != call("recommend", "latest", "--history", items)
    grid = ["--grid", "reranker_alpha=0,1", "--reranker=IPR", "--x", "GiniIndex@5", "--y", "NDCG@5"]
    call("sweep", "latest", *grid, *here)
    assert (in_tmp / "results" / "sweep-first-IPR.json").is_file(), "named by the file, not by latest"
    sizes = {**PARTS, "synthetic_users": 60, "synthetic_length": 5, "base": "GRU4Rec", "data_path": str(small_data)}
    run = run_recbole_fair("PopSteer", "small", config_dict={**sizes, "base_model_file": "latest"})
    assert run["base"]["file"] == "saved/first.pth"
    assert run["config"]["base_model_file"] == "saved/first.pth"
