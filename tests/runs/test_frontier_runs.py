"""Frontiers of real checkpoints: what is tried, chosen, written, saved and taken up again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import load_checkpoint
from recbole_fair.quick_start import Recommender, evaluate_checkpoint, frontier_checkpoint, run_recbole_fair
from recbole_fair.report.frontier_document import FrontierDocument
from recbole_fair.report.html import write_report
from recbole_fair.runs import frontier as module
from recbole_fair.runs.frontier_methods import default_grids

SMALL = {
    "epochs": 3, "hidden_size": 8, "inner_size": 16, "n_layers": 1, "MAX_ITEM_LIST_LENGTH": 8, "learning_rate": 0.02,
    "metrics": ["NDCG", "GiniIndex"], "topk": [5], "valid_metric": "NDCG@5", "show_progress": False, "seed": 1,
    "segment_by": "items",
}  # fmt: skip
STEERED = {"sae_scale": 4, "sae_k": 4, "sae_epochs": 2, "synthetic_users": 500, "head_share": 0.2, "tail_share": 0.2}
WHAT = {"x": ["GiniIndex@5", "PCE@5"], "y": "NDCG@5", "loss": [0.3, 0.9]}


@pytest.fixture(scope="module")
def base(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    settings = {**SMALL, "data_path": str(small_data), "checkpoint_dir": str(tmp_path_factory.mktemp("saved"))}
    checkpoint: str = run_recbole_fair("SASRec", "small", config_dict=settings)["checkpoint"]
    return checkpoint


@pytest.fixture(scope="module")
def whole(base: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[FrontierDocument, Path]:
    folder = tmp_path_factory.mktemp("frontier")
    found = frontier_checkpoint(base, **WHAT, output=folder / "f", save=folder / "winner")
    return found, folder


def test_all_methods_are_tried_or_the_reason_is_given(whole: tuple[FrontierDocument, Path]) -> None:
    result, _ = whole
    tried = {row["method"] for row in result["methods"]}
    assert {"Lorenz", "Tilt", "LorenzTilt", "Penalty", "IPR", "CP", "FAstarIR", "PMMF", "FairCo"} <= tried
    skipped = {row["method"]: row["reason"] for row in result["skipped"]}
    assert "reranker_models" in skipped["PUFR"]
    assert not tried & set(skipped)


def test_a_row_is_what_an_evaluation_of_its_own_gives(
    base: str, whole: tuple[FrontierDocument, Path], in_tmp: Path
) -> None:
    result, _ = whole
    plain = evaluate_checkpoint(base, {"metrics": ["NDCG", "GiniIndex", "PCE"], "topk": [5]})
    for name in ("ndcg@5", "giniindex@5", "pce@5"):
        assert result["base"]["test"][name] == pytest.approx(plain["test_result"][name], abs=1e-12)
    seen = set()
    for row in result["settings"]:
        if row["method"] in seen or row["method"] in ("Random", "RandomNeighbors", "PMMF"):
            continue
        seen.add(row["method"])
        changes = {"reranker": row["method"], "metrics": ["NDCG", "GiniIndex", "PCE"], "topk": [5], **row["setting"]}
        single = evaluate_checkpoint(base, changes)["test_result"]
        assert {name: row[f"test {name}"] for name in single} == pytest.approx(single, abs=1e-12), row["method"]


def test_winners_are_chosen_on_validation(whole: tuple[FrontierDocument, Path]) -> None:
    result, _ = whole
    for x in ("giniindex@5", "pce@5"):
        for loss in (0.3, 0.9):
            bound = (1 - loss) * result["base"]["valid"]["ndcg@5"]
            rows = [row for row in result["winners"] if row["x"] == x and row["loss"] == loss]
            kept = [row for row in result["settings"] if row["valid ndcg@5"] >= bound - 1e-12]
            best = min(row[f"valid {x}"] for row in kept)
            assert rows[0]["valid"][x] == best < result["base"]["valid"][x]
            values = [row["valid"][x] for row in rows]
            assert values == sorted(values)
            assert len({row["method"] for row in rows}) == len(rows)
            low, high = rows[0]["intervals"][x]
            assert low < rows[0]["test"][x] < high
            for row in rows[1:4]:
                difference = row["difference"]
                assert difference["value"] == pytest.approx(row["test"][x] - rows[0]["test"][x])
                low, high = difference["interval"]
                assert difference["significant"] == (not low <= 0 <= high)


def test_files_and_the_report(whole: tuple[FrontierDocument, Path], in_tmp: Path) -> None:
    result, folder = whole
    document = json.loads((folder / "f.json").read_text())
    assert document["kind"] == "frontier"
    assert document["winners"][0]["method"] == result["winners"][0]["method"]
    table = pd.read_csv(folder / "f.csv")
    assert len(table) == len(result["settings"])
    assert (folder / "f.png").stat().st_size > 20_000
    text = (folder / "f.svg").read_text()
    assert "Lorenz" in text
    assert "GiniIndex@5 (lower is better)" in text
    assert not (folder / "f.partial.jsonl").exists()
    page = write_report([folder / "f.json"], "page.html").read_text()
    assert "Hypervolume" in page
    assert result["winners"][0]["method"] in page


def test_the_saved_winner_evaluates_to_its_row(whole: tuple[FrontierDocument, Path], in_tmp: Path) -> None:
    result, folder = whole
    first = result["winners"][0]
    again = evaluate_checkpoint(folder / "winner.pth", {"metrics": ["NDCG", "GiniIndex"], "topk": [5]})
    assert again["test_result"]["giniindex@5"] == pytest.approx(first["test"]["giniindex@5"], abs=1e-12)
    assert again["reranker"]["reranker"] == first["method"]
    content = load_checkpoint(folder / "winner.pth")
    assert content["frontier"]["setting"] == first["setting"]


def test_the_bias_of_a_saved_winner_folds_into_the_scores(base: str, in_tmp: Path) -> None:
    from recbole_fair.runs.loading import config_of, load_trainer

    frontier_checkpoint(base, **WHAT, methods=["Lorenz"], save="lorenz.pth")
    content = load_checkpoint("lorenz.pth")
    bias = content["item_bias"]
    plain = load_checkpoint(base)
    trainer, loaders = load_trainer(config_of(plain, {"topk": [5]}), plain, base)
    struct = trainer.collect(loaders[2], adjust=lambda batch, scores: scores.double() - bias)
    folded = trainer.evaluator.evaluate(struct)
    row = evaluate_checkpoint("lorenz.pth", {"metrics": ["NDCG", "GiniIndex"], "topk": [5]})["test_result"]
    assert folded["giniindex@5"] == pytest.approx(row["giniindex@5"], abs=1e-12)
    served = Recommender.load("lorenz.pth")
    assert served.item_bias is not None
    assert torch.equal(served.item_bias, -bias)


def test_whole_numbers_of_a_grid_are_numbers_where_a_key_holds_any() -> None:
    """Then there is something to try between 1 and 2; numbers of items stay whole."""
    of_lists, of_models = default_grids({"of_gap": 1.0, "of_probability_gap": 1.0})
    assert {type(one["alpha_pop"]) for one in of_models["PopSteer"]} == {float}
    assert {type(one["reranker_lambda"]) for one in of_lists["FairCo"]} == {float}
    assert {type(one["reranker_pool"]) for one in of_lists["Random"]} == {int}
    assert {type(one["keep_reconstruction_error"]) for one in of_models["PopSteer"]} == {bool}


def test_refining_adds_settings_and_makes_no_winner_worse(base: str, in_tmp: Path) -> None:
    what: dict[str, Any] = {**WHAT, "loss": [0.1], "methods": ["Penalty", "Tilt", "FairCo"]}
    grid = frontier_checkpoint(base, **what, refine=0)
    refined = frontier_checkpoint(base, **what)
    n = len(grid["settings"])
    settings = [(row["method"], row["setting"]) for row in refined["settings"]]
    assert settings[:n] == [(row["method"], row["setting"]) for row in grid["settings"]]
    assert len(settings) > n
    assert all(setting not in settings[:place] for place, setting in enumerate(settings))
    best = {(row["x"], row["method"]): row["valid"] for row in refined["winners"]}
    for row in grid["winners"]:
        assert best[row["x"], row["method"]][row["x"]] <= row["valid"][row["x"]]
    least = 0.9 * grid["base"]["valid"]["ndcg@5"]
    assert all(row["valid"]["ndcg@5"] >= least for row in refined["winners"])


@pytest.mark.parametrize("stop", [5, 28])  # among the settings of the grid, and among those between them
def test_an_interrupted_frontier_goes_on(base: str, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    what: dict[str, Any] = {**WHAT, "methods": ["Penalty", "IPR"], "output": "out/f"}
    measured = []
    measure = module.Bench.measure

    def until_the_stop(bench: module.Bench, one: module.Try) -> Any:
        if len(measured) == stop:
            raise KeyboardInterrupt
        measured.append(one)
        return measure(bench, one)

    monkeypatch.setattr(module.Bench, "measure", until_the_stop)
    with pytest.raises(KeyboardInterrupt):
        frontier_checkpoint(base, **what)
    assert Path("out/f.partial.jsonl").exists()
    monkeypatch.setattr(module.Bench, "measure", measure)
    result = frontier_checkpoint(base, **what)
    assert result["resumed"] == stop
    fresh = frontier_checkpoint(base, **{**what, "output": None})
    assert [dict(row) for row in fresh["settings"]] == [dict(row) for row in result["settings"]]


def test_a_model_fitted_on_the_base_is_found_and_fitted_where_there_is_none(base: str, in_tmp: Path) -> None:
    import shutil

    alone = in_tmp / "alone"
    alone.mkdir()
    copy = shutil.copy(base, alone)
    result = frontier_checkpoint(
        copy, **WHAT, methods=["PopSteerSASRec", "Penalty"], fit=["PopSteerSASRec"], config_dict=STEERED, save="w.pth",
        refine=0,
    )  # fmt: skip
    rows = [row for row in result["settings"] if row["method"] == "PopSteerSASRec"]
    assert len(rows) == 50
    (fitted,) = alone.glob("PopSteerSASRec-*.pth")
    row = rows[-1]
    single = evaluate_checkpoint(fitted, {**row["setting"], "metrics": ["NDCG", "GiniIndex"], "topk": [5]})
    assert row["test giniindex@5"] == pytest.approx(single["test_result"]["giniindex@5"], abs=1e-12)
    again = frontier_checkpoint(copy, **WHAT, methods=["PopSteerSASRec"], refine=0)
    assert [one["test giniindex@5"] for one in again["settings"]] == [one["test giniindex@5"] for one in rows]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"loss": [1.5]}, "loss=1.5 is not allowed"),
        ({"loss": []}, "at least one budget"),
        ({"refine": -1}, "refine=-1 is not allowed"),
        ({"methods": ["Lorentz"]}, "did you mean 'Lorenz'"),
        ({"methods": ["PUFR"]}, "No method applies"),
        ({"x": ["Gini@5"]}, "no metric named 'Gini'"),
        ({"config_dict": {"reranker": "IPR"}}, "tries all methods"),
    ],
)
def test_slips(base: str, what: dict[str, Any], message: str, in_tmp: Path) -> None:
    with pytest.raises(FairError, match=message):
        frontier_checkpoint(base, **{**WHAT, **what})


def test_nothing_to_save_is_said(whole: tuple[FrontierDocument, Path], in_tmp: Path) -> None:
    from recbole_fair.runs.frontier_winners import save_winner

    with pytest.raises(FairError, match="the base model is the answer"):
        save_winner("w.pth", "base.pth", {}, None, None, whole[0])  # type: ignore[arg-type]
    assert not Path("w.pth").exists()
