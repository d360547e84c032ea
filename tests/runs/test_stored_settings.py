"""What a checkpoint says acts on nothing but the evaluation: no import, no folder, no download; and odd ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import load_checkpoint, save_checkpoint
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair

ODD: list[Any] = [None, 7, -1, 1e400, "text", [1], {"a": 1}, torch.ones(2), True, 10**12]


@pytest.fixture
def content(small_data: Path, in_tmp: Path) -> dict[str, Any]:
    settings = {
        "data_path": str(small_data),
        "epochs": 1,
        "embedding_size": 4,
        "show_progress": False,
        "metrics": ["NDCG"],
        "topk": [5],
        "valid_metric": "NDCG@5",
    }
    return load_checkpoint(run_recbole_fair("BPR", "small", config_dict=settings)["checkpoint"])


def changed(content: dict[str, Any], **settings: Any) -> str:
    """A checkpoint whose stored settings were rewritten, digest and all."""
    return save_checkpoint(
        "changed.pth",
        {
            **content,
            "config": {**content["config"], **settings},
            "user_settings": {**content["user_settings"], **settings},
        },
    )


def test_nothing_is_written_where_a_file_says(content: dict[str, Any]) -> None:
    names = ("result_file", "recommendations_file", "per_user_file", "per_item_file")
    stored = {name: f"elsewhere/{name}" for name in names}
    before = evaluate_checkpoint(changed(content))["test_result"]
    path = changed(content, checkpoint_dir="elsewhere/saved", log_wandb=True, dataset_save_path="elsewhere/x", **stored)
    assert evaluate_checkpoint(path)["test_result"] == before
    assert not Path("elsewhere").exists()


@pytest.mark.parametrize("settings", [{"reranker": "evil:ReRanker"}, {"trainer": "evil:T"}, {"metrics": ["evil:M"]}])
def test_nothing_is_imported_because_a_file_says_so(content: dict[str, Any], settings: dict[str, Any]) -> None:
    Path("evil.py").write_text("open('imported', 'w').close()\nclass ReRanker: pass\nT = M = ReRanker\n")
    with pytest.raises(FairError):
        evaluate_checkpoint(changed(content, **settings))
    for name in ("evil:ReRanker", "../BPR", ""):
        with pytest.raises(FairError, match="is not a name"):
            evaluate_checkpoint(save_checkpoint("changed.pth", {**content, "model": name}))
    assert not Path("imported").exists()


def test_nothing_is_downloaded_to_where_a_file_says(
    content: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(FairError, match="there is no file"):
        evaluate_checkpoint(changed(content, data_path=str(tmp_path / "elsewhere")))
    assert not (tmp_path / "elsewhere").exists()


def test_odd_settings_and_entries_are_one_sentence(content: dict[str, Any]) -> None:
    """Every entry and a share of the settings, each as something else: refused, or evaluated as if nothing was."""
    tried = refused = 0
    settings = ["seed", "metrics", "topk", "eval_args", "embedding_size", "mask_seen", "reranker", "valid_metric"]
    odd = [{**content, "config": {**content["config"], name: value}} for name in settings for value in ODD]
    odd += [{**content, "user_settings": {**content["user_settings"], n: v}} for n in settings for v in ODD]
    odd += [{**content, name: value} for name in ("state_dict", "other_parameter", "config") for value in ODD]
    odd += [{**content, "other_parameter": {"full_sort_predict": "text"}}]
    name = next(iter(content["state_dict"]))
    odd += [{**content, "state_dict": {**content["state_dict"], name: value}} for value in ODD]
    for entries in odd[::5]:
        tried += 1
        sentence = None
        try:
            evaluate_checkpoint(save_checkpoint("odd.pth", entries))
        except FairError as error:
            sentence = str(error)
        refused += sentence is not None
        assert "\n" not in (sentence or "")
    assert refused > tried / 4


def sentence_of(function: Callable[..., Any], *given: Any, **named: Any) -> str | None:
    """The sentence of what was refused, or None where it went through; any other exception is a failure of the test."""
    said = None
    try:
        function(*given, **named)
    except FairError as error:
        said = str(error)
    assert "\n" not in (said or "")
    return said


@pytest.mark.slow
def test_every_entry_and_setting_as_something_else(
    content: dict[str, Any], small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = [{**content, name: value} for name in content for value in ODD]
    odd += [{key: value for key, value in content.items() if key != name} for name in content]
    for part in ("config", "user_settings"):
        odd += [{**content, part: {**content[part], name: value}} for name in content[part] for value in ODD]
    told = [sentence_of(evaluate_checkpoint, save_checkpoint("odd.pth", entries)) for entries in odd]
    settings = {"data_path": str(small_data), "epochs": 2, "embedding_size": 4, "show_progress": False}
    settings |= {"metrics": ["NDCG"], "topk": [5], "valid_metric": "NDCG@5", "state": "ERROR"}
    training = content["training"]
    halves = [{**content, "training": {**training, name: value}} for name in training for value in ODD]
    halves += [{**content, "training": {k: v for k, v in training.items() if k != name}} for name in training]
    halves += [{**content, "training": value} for value in ODD]
    halves += [{**content, "training": {**training, "progress": {"update": value}}} for value in ODD]
    resumed = []
    for entries in halves:
        given = {**settings, "resume": save_checkpoint("odd.pth", entries)}
        resumed.append(sentence_of(run_recbole_fair, "BPR", "small", config_dict=given))
    with capsys.disabled():
        for name, found in (("evaluated", told), ("resumed", resumed)):
            print(f"\n{len(found)} crafted checkpoints {name}: {len(found) - found.count(None)} refused in a sentence")


def test_stored_sampling_that_no_run_writes(content: dict[str, Any]) -> None:
    path = save_checkpoint("odd.pth", {**content, "config": {**content["config"], "train_neg_sample_args": None}})
    with pytest.raises(FairError, match="train_neg_sample_args=None is not usable"):
        evaluate_checkpoint(path)


@pytest.mark.parametrize("name", ["progress", "optimizers", "optimizer_in_use"])
@pytest.mark.parametrize("value", [float("inf"), 7, [1], {"update": 1}])
def test_training_that_others_wrote_is_not_gone_on_from(
    name: str, value: Any, content: dict[str, Any], small_data: Path
) -> None:
    path = save_checkpoint("odd.pth", {**content, "training": {**content["training"], name: value}})
    settings = {"data_path": str(small_data), "epochs": 2, "embedding_size": 4, "show_progress": False, "resume": path}
    assert sentence_of(run_recbole_fair, "BPR", "small", config_dict=settings)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(content: dict[str, Any], value: float) -> None:
    name = next(name for name, weights in content["state_dict"].items() if weights.is_floating_point())
    weights = content["state_dict"][name].clone()
    weights[-1, -1] = value
    path = save_checkpoint("odd.pth", {**content, "state_dict": {**content["state_dict"], name: weights}})
    with pytest.raises(FairError, match="no finite numbers"):
        evaluate_checkpoint(path)


def test_odd_files_in_the_folder_of_checkpoints_stop_no_run(content: dict[str, Any], small_data: Path) -> None:
    Path("saved/BPR-Jan-01-2026_00-00-00.pth").symlink_to("nowhere")
    Path("saved/BPR-Jan-02-2026_00-00-00.pth").mkdir()
    Path("saved/BPR-Jan-03-2026_00-00-00.pth").write_bytes(b"PK\x05\x06")
    Path("saved/BPR-Jan-04-2026_00-00-00.pth").touch()
    save_checkpoint("saved/BPR-Jan-05-2026_00-00-00.pth", {**content, "training": {"epoch": "one"}})
    settings = {"data_path": str(small_data), "epochs": 1, "embedding_size": 4, "show_progress": False}
    fast = {"synthetic_users": 100, "sae_epochs": 1, "topk": [5], "metrics": ["NDCG"], "valid_metric": "NDCG@5"}
    result = run_recbole_fair("PopSteerBPR", "small", config_dict={**settings, **fast})
    assert result["base"]["source"] == "checkpoint_dir"
