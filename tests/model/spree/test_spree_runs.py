"""SPREE from the entry point: runs, checkpoints, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recbole_fair.errors import FairError
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair


def run_settings(small_data: Path, **changes: Any) -> dict[str, Any]:
    return {
        "data_path": str(small_data), "epochs": 2, "hidden_size": 16, "inner_size": 16, "MAX_ITEM_LIST_LENGTH": 10,
        "train_batch_size": 128, "topk": [5, 10], "valid_metric": "NDCG@5", "show_progress": False,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, **changes,
    }  # fmt: skip


OWN = {"synthetic_users": 100, "bias_list_length": 10, "bias_regularization": 0.002}


@pytest.mark.parametrize("model", ["SPREESASRec", "SPREEBERT4Rec"])
def test_run_and_checkpoint_round_trip(small_data: Path, in_tmp: Path, model: str) -> None:
    alone = run_recbole_fair(model[5:], "small", config_dict=run_settings(small_data))
    result = run_recbole_fair(model, "small", config_dict=run_settings(small_data, strengths="fixed", **OWN))
    assert result["base"]["source"] == "checkpoint_dir"
    assert result["base"]["file"] == alone["checkpoint"]
    assert result["base_test_result"]["ndcg@5"] == alone["test_result"]["ndcg@5"]
    assert list(result["variants"]) == ["base", "vanilla", "adaptive"]
    assert result["test_result"] == result["variants"]["adaptive"]
    wanted = ("ndcg", "pce", "pcesum", "upd", "averagelogpopularity", "giniindex")
    assert set(result["test_result"]) == {f"{name}@{k}" for name in wanted for k in (5, 10)}
    for name, curve in result["calibration_curves"].items():
        assert len(curve["levels"]) == len(curve["tau_hat"]["10"]) == 11, name
        assert curve["tau_hat"]["10"] == sorted(curve["tau_hat"]["10"])
    estimator = result["intervention"]["estimator"]
    assert len(estimator["coefficients"]) == len(result["intervention"]["direction"]["vector"]) == 16
    assert estimator["held_out_r2"] <= 1

    file = result["checkpoint"]
    again = evaluate_checkpoint(file)
    assert again["variants"] == result["variants"]
    assert again["intervention"] == result["intervention"]
    off = evaluate_checkpoint(file, {"spree_strength": 0})
    assert off["test_result"] == off["variants"]["vanilla"] == result["base_test_result"]
    other = evaluate_checkpoint(file, {"spree_strength": -20.0})
    assert other["test_result"] != result["test_result"]
    vanilla = evaluate_checkpoint(file, {"spree_strength": 8.0 * estimator["mean_step"], "spree_adaptive": False})
    assert vanilla["test_result"] == vanilla["variants"]["vanilla"]
    for key, value in vanilla["test_result"].items():
        assert value == pytest.approx(result["variants"]["vanilla"][key], abs=1e-3)


def test_sampled_validation_is_refused(small_data: Path, in_tmp: Path) -> None:
    args = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "uni20"}
    with pytest.raises(FairError, match="full rankings"):
        run_recbole_fair("SPREESASRec", "small", config_dict=run_settings(small_data, epochs=1, eval_args=args, **OWN))
