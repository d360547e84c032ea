"""What Python callers hand over: paths and NumPy's values as well as text, one file of settings as well as several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recbole.model.general_recommender import BPR

from recbole_fair.errors import FairError
from recbole_fair.quick_start import run_recbole_fair
from recbole_fair.runs.audit import audit
from recbole_fair.runs.plan import make_plan

QUICK: dict[str, Any] = {
    "epochs": 1, "topk": [3], "metrics": ["NDCG"], "valid_metric": "NDCG@3", "state": "ERROR", "show_progress": False,
}  # fmt: skip


@pytest.mark.parametrize("form", [str, Path, lambda path: [path], lambda path: [Path(path)]])
def test_files_of_settings(form: Any, small_data: Path, in_tmp: Path) -> None:
    Path("own.yaml").write_text("embedding_size: 6\n")
    given = form("own.yaml")
    result = run_recbole_fair("BPR", "small", given, {**QUICK, "data_path": small_data})
    assert result["config"]["embedding_size"] == 6
    plan = make_plan(["BPR"], [], "small", 1, given, {"data_path": str(small_data)})
    assert plan.settings["embedding_size"] == 6
    with pytest.raises(FairError, match=r"[Tt]here is no file .*lists\.csv"):  # behind the settings
        audit(["lists.csv"], dataset="small", config_file_list=given, config_dict={"data_path": str(small_data)})


def test_numpy_values_and_paths(small_data: Path, in_tmp: Path) -> None:
    plain = {**QUICK, "learning_rate": 0.0625, "embedding_size": 4}
    odd = {
        **plain, "topk": np.array([3]), "epochs": np.int64(1), "learning_rate": np.float32(0.0625),
        "metrics": np.array(["NDCG"]), "show_progress": np.bool_(False), "result_file": Path("r.json"),
    }  # fmt: skip
    results = [
        run_recbole_fair("BPR", "small", config_dict={**settings, "data_path": path})["test_result"]
        for settings, path in ((plain, str(small_data)), (odd, small_data))
    ]
    assert results[0] == results[1]
    assert Path("r.json").is_file()


def test_a_comparison_of_classes_and_of_numpys_seeds(small_data: Path) -> None:
    data = {"data_path": str(small_data)}
    for models in ([BPR], BPR):
        with pytest.raises(FairError, match=r"models holds .*BPR.*module:Class"):
            make_plan(models, [], "small", 1, None, data)  # type: ignore[arg-type]
    assert make_plan(["BPR"], [], "small", np.int64(2), None, data).seeds == [2020, 2021]  # type: ignore[arg-type]
    assert make_plan(["BPR"], [], "small", np.array([4, 9]), None, data).seeds == [4, 9]  # type: ignore[arg-type]
    with pytest.raises(FairError, match="seeds"):
        make_plan(["BPR"], [], "small", 1.5, None, data)  # type: ignore[arg-type]
