"""Files of runs: a finished result is not lost over a file beside it, and nothing is written over what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recbole_fair import quick_start
from recbole_fair.cli import main
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair
from recbole_fair.runs.outputs import data_stamps

QUICK = {
    "epochs": 1, "embedding_size": 4, "topk": [3], "metrics": ["NDCG", "GiniIndex"], "valid_metric": "NDCG@3",
    "show_progress": False, "state": "WARNING",
}  # fmt: skip
FILES = ("result_file", "recommendations_file", "per_user_file", "per_item_file")


def words(settings: dict[str, Any]) -> list[str]:
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]


def test_a_file_that_fails_does_not_take_the_others_along(
    small_data: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*args: object) -> None:
        raise UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "invalid continuation byte")

    settings = {**QUICK, "data_path": str(small_data), **{key: f"{key}.out" for key in FILES}}
    monkeypatch.setattr(quick_start, "write_recommendations", fails)
    result = run_recbole_fair("BPR", "small", config_dict=settings)
    assert list(result["failed_files"]) == ["recommendations_file=recommendations_file.out"]
    assert "UnicodeDecodeError" in result["failed_files"]["recommendations_file=recommendations_file.out"]
    written = json.loads(Path("result_file.out").read_text(encoding="utf-8"))
    assert written["test_result"] == dict(result["test_result"])
    assert Path("per_user_file.out").is_file()
    assert Path("per_item_file.out").is_file()
    with pytest.raises(SystemExit) as stop:
        main(["run", "-m", "BPR", "-d", "small", *words({**settings, "result_file": "other.json"})])
    assert stop.value.code == 1
    assert Path("other.json").is_file()
    assert "recommendations_file=recommendations_file.out was not written" in capsys.readouterr().err


def test_the_result_is_given_back_when_its_own_file_fails(
    small_data: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(quick_start, "write_document", full)
    settings = {**QUICK, "data_path": str(small_data), "result_file": "r.json", "per_user_file": "u.csv"}
    result = run_recbole_fair("BPR", "small", config_dict=settings)
    assert list(result["failed_files"]) == ["result_file=r.json"]
    assert result["test_result"]
    assert Path("u.csv").is_file()


def test_lists_with_items_that_users_have_had_are_said_to_hold_them(small_data: Path, in_tmp: Path) -> None:
    import csv

    small = {"hidden_size": 8, "inner_size": 16, "n_layers": 1, "MAX_ITEM_LIST_LENGTH": 8}
    settings = {**QUICK, **small, "data_path": str(small_data), "recommendations_file": "recs.csv"}
    settings.pop("embedding_size")
    result = run_recbole_fair("SASRec", "small", config_dict={**settings, "mask_seen": "none"})
    (note,) = [note for note in result["notes"] if "recs.csv" in note]
    had: dict[str, set[str]] = {}
    rows: dict[str, list[tuple[float, str]]] = {}
    for line in (small_data / "small" / "small.inter").read_text().splitlines()[1:]:
        user, item, *_, time = line.split("\t")
        rows.setdefault(user, []).append((float(time), item))
    for user, past in rows.items():
        had[user] = {item for _, item in sorted(past, key=lambda pair: pair[0])[:-2]}  # without validation and test
    with open("recs.csv", newline="", encoding="utf-8") as file:
        listed = [(row["user_id"], row["item_id"]) for row in csv.DictReader(file)]
    share = sum(item in had[user] for user, item in listed) / len(listed)
    assert note.startswith(f"{100 * share:.0f} % of the items")
    assert "so they are in recs.csv" in note
    hidden = run_recbole_fair("SASRec", "small", config_dict={**settings, "mask_seen": "all"})
    assert not any("recs.csv" in note for note in hidden["notes"])
    unasked = evaluate_checkpoint(result["checkpoint"], {"mask_seen": "auto", "recommendations_file": "auto.csv"})
    (said,) = [note for note in unasked["notes"] if "auto.csv" in note]
    assert said.startswith(f"{100 * share:.0f} % of the items")  # of the lists that the metrics rate
    assert "auto.csv leaves them out" in said
    assert unasked["test_result"] == result["test_result"]
    with open("auto.csv", newline="", encoding="utf-8") as file:
        assert not any(row["item_id"] in had[row["user_id"]] for row in csv.DictReader(file))


@pytest.mark.parametrize("name", ["a[1]", "a*", "m$x^^y$", "a?b"])
def test_changed_data_are_noticed_whatever_their_name(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.inter").write_text("user_id:token\n")
    (tmp_path / "a1.inter").write_text("another\n")
    config: Any = {"data_path": str(tmp_path), "dataset": name}
    before = data_stamps(config)
    assert [stamp[0] for stamp in before] == [f"{name}.inter"]
    (tmp_path / f"{name}.inter").write_text("user_id:token\nu1\n")
    assert data_stamps(config) != before
