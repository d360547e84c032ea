"""``data_path`` may name tables: the data set is what ``convert`` makes of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from recbole_fair.config.data_tables import data_tables
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair

pytest.importorskip("pyarrow")
SETTINGS = {"epochs": 1, "show_progress": False, "topk": [5], "valid_metric": "NDCG@5", "metrics": ["NDCG"]}


@pytest.fixture
def frame(small_data: Path) -> pd.DataFrame:
    found = pd.read_csv(small_data / "small" / "small.inter", sep="\t", dtype=str)
    found.columns = [name.partition(":")[0] for name in found.columns]
    return found.assign(timestamp=found["timestamp"].astype(float))


def test_a_parquet_file_or_folder_is_the_data_set(frame: pd.DataFrame, small_data: Path, in_tmp: Path) -> None:
    expected = run_recbole_fair("BPR", "small", config_dict={**SETTINGS, "data_path": str(small_data)})["test_result"]
    (in_tmp / "parts").mkdir()
    frame[:100].to_parquet("parts/part-0.parquet", index=False)
    frame[100:].to_parquet("parts/part-1.parquet", index=False)
    frame.to_parquet("clicks.parquet", index=False)
    shutil.copytree("parts", "data/small")
    for place in ("parts", "clicks.parquet", "data"):
        result = run_recbole_fair("BPR", "small", config_dict={**SETTINGS, "data_path": place})
        assert result["test_result"] == expected, place
        assert result["config"]["data_path"] == place
    assert evaluate_checkpoint(result["checkpoint"])["test_result"] == expected, "found again without being named"


def test_tables_that_changed_are_converted_anew(frame: pd.DataFrame, in_tmp: Path) -> None:
    frame.to_parquet("clicks.parquet", index=False)
    before = data_tables("clicks.parquet", "small")
    run_recbole_fair("BPR", "small", config_dict={**SETTINGS, "data_path": "clicks.parquet"})
    assert before is not None
    stamp = (before.folder / "small.inter").stat().st_mtime_ns
    run_recbole_fair("BPR", "small", config_dict={**SETTINGS, "data_path": "clicks.parquet"})
    assert (before.folder / "small.inter").stat().st_mtime_ns == stamp, "taken from where it was kept"
    frame[:-5].to_parquet("clicks.parquet", index=False)
    after = data_tables("clicks.parquet", "small")
    assert after is not None
    assert after.folder != before.folder


def test_what_is_a_table_and_what_is_not(frame: pd.DataFrame, small_data: Path, in_tmp: Path) -> None:
    assert data_tables(small_data, "small") is None, "atomic files are there"
    assert data_tables(in_tmp / "nowhere", "small") is None
    frame.to_parquet("small.parquet", index=False)
    pd.DataFrame({"item": ["i1"], "genre": ["a"]}).to_parquet("items.parquet", index=False)
    found = data_tables(in_tmp, "small")
    assert found is not None
    assert found.interactions == in_tmp / "small.parquet"
    (in_tmp / "small.parquet").rename(in_tmp / "clicks.parquet")
    found = data_tables(in_tmp, "small")
    assert found is not None
    assert (found.interactions.name, found.items and found.items.name, found.users) == (
        "clicks.parquet", "items.parquet", None,
    )  # fmt: skip
    (in_tmp / "ml-1m").mkdir()
    assert data_tables(in_tmp, "ml-1m") is None, "a folder of data sets is no table"
    config = FairConfig("BPR", "ml-1m", config_dict={"data_path": str(in_tmp)})
    assert config["data_path"] == str(in_tmp / "ml-1m")
