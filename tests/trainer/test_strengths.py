"""Strengths chosen on validation: what wins, what is kept, what the checkpoint remembers, when nothing is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recbole_fair.errors import FairError
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair, sweep_checkpoint

SMALL: dict[str, Any] = {
    "epochs": 3, "hidden_size": 8, "inner_size": 16, "n_layers": 2, "MAX_ITEM_LIST_LENGTH": 8, "learning_rate": 0.02,
    "metrics": ["NDCG", "GiniIndex"], "topk": [5], "valid_metric": "NDCG@5", "show_progress": False, "seed": 1,
    "sae_scale": 4, "sae_k": 4, "sae_epochs": 2, "synthetic_users": 500, "head_share": 0.2, "tail_share": 0.2,
}  # fmt: skip


@pytest.fixture(scope="module")
def settings(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {**SMALL, "data_path": str(small_data), "checkpoint_dir": str(tmp_path_factory.mktemp("saved"))}


@pytest.fixture(scope="module")
def chosen(settings: dict[str, Any]) -> dict[str, Any]:
    return dict(run_recbole_fair("PopSteerSASRec", "small", config_dict={**settings, "strength_budget": 0.5}))


def test_the_choice_is_the_best_of_a_sweep_over_the_same_settings(chosen: dict[str, Any], in_tmp: Path) -> None:
    choice = chosen["chosen_strengths"]
    assert len(choice["tried"]) == 24
    grid = {"alpha_pop": [0.0, 0.5, 1.0, 2.0, 3.0], "alpha_unpop": [0.0, 0.5, 1.0, 2.0, 3.0]}
    swept = sweep_checkpoint(chosen["checkpoint"], grid, "GiniIndex@5", "NDCG@5", ["NDCG@5 >= 0.5*base"])
    rows = {(row["alpha_pop"], row["alpha_unpop"]): row for row in swept["settings"]}
    for row in choice["tried"]:
        found = rows[row["alpha_pop"], row["alpha_unpop"]]
        assert row["giniindex@5"] == pytest.approx(found["valid giniindex@5"], abs=1e-12)
    best = swept["chosen"]["valid giniindex@5"]
    base = swept["base"]["valid"]["giniindex@5"]
    expected = min(best, base)
    assert choice["values"]["giniindex@5"] == pytest.approx(expected, abs=1e-12)
    assert any("chosen on validation" in note or "Strength 0 was kept" in note for note in chosen["notes"])


def test_the_checkpoint_remembers_the_choice(chosen: dict[str, Any], in_tmp: Path) -> None:
    again = evaluate_checkpoint(chosen["checkpoint"])
    assert again["test_result"] == chosen["test_result"]
    explicit = evaluate_checkpoint(chosen["checkpoint"], chosen["chosen_strengths"]["chosen"])
    assert explicit["test_result"] == chosen["test_result"]


def test_without_a_setting_that_keeps_the_budget_the_lists_are_the_base_s(
    settings: dict[str, Any], in_tmp: Path
) -> None:
    result = run_recbole_fair(
        "PopSteerSASRec", "small", config_dict={**settings, "strength_goal": "NDCG", "strength_budget": 0.0}
    )
    base = result["base_test_result"]
    choice = result["chosen_strengths"]
    if any(choice["chosen"].values()):  # then it betters the goal itself
        assert choice["values"]["ndcg@5"] > choice["base"]["ndcg@5"]
    else:
        assert result["test_result"] == pytest.approx(base)
        assert any("Strength 0 was kept" in note for note in result["notes"])
    assert result["best_valid_result"]["ndcg@5"] >= choice["base"]["ndcg@5"]


@pytest.mark.parametrize("given", [{"strengths": "fixed"}, {"alpha_pop": 1.5}, {"beta": 0.2}], ids=str)
def test_given_strengths_are_left_alone(given: dict[str, Any], settings: dict[str, Any], in_tmp: Path) -> None:
    result = run_recbole_fair("PopSteerSASRec", "small", config_dict={**settings, **given})
    assert "chosen_strengths" not in result
    strengths = {"alpha_pop": given.get("alpha_pop", 2.0), "alpha_unpop": 2.0, "beta": given.get("beta", 0.0)}
    assert evaluate_checkpoint(result["checkpoint"], strengths)["test_result"] == result["test_result"]


def test_spree_chooses_by_calibration(settings: dict[str, Any], in_tmp: Path) -> None:
    own = {key: value for key, value in settings.items() if not key.startswith("sae_")}
    result = run_recbole_fair("SPREESASRec", "small", config_dict={**own, "bias_list_length": 10})
    choice = result["chosen_strengths"]
    assert choice["goal"] == "pce@5"
    assert choice["values"]["pce@5"] <= choice["base"]["pce@5"]
    assert [row["spree_strength"] for row in choice["tried"]] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]


def test_a_goal_has_to_be_a_metric_of_lists(settings: dict[str, Any], in_tmp: Path) -> None:
    with pytest.raises(FairError, match="strength_goal='Ginny' is not a metric of lists"):
        run_recbole_fair("PopSteerSASRec", "small", config_dict={**settings, "strength_goal": "Ginny"})
