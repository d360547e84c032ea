"""The post-hoc trainer from the command's entry point: base reuse, variants, checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_fair.data.reading.titles import item_titles
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import load_checkpoint
from recbole_fair.quick_start import evaluate_checkpoint, load_data_and_model, run_recbole_fair
from recbole_fair.trainer.posthoc_trainer import differing_settings

MODEL = "PopSteerSASRec"


def write_data(folder: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(60):
        popularity = np.arange(1, 41) ** -rng.uniform(0.3, 1.2)
        chosen = rng.choice(40, size=rng.integers(6, 25), p=popularity / popularity.sum(), replace=True)
        rows += [f"u{user}\ti{item}\t{time}" for time, item in enumerate(chosen)]
    folder.mkdir(parents=True)
    (folder / "toy.inter").write_text("\n".join(rows) + "\n")
    titles = "\n".join(f"i{item}\tFilm {item}" for item in range(40))
    (folder / "toy.item").write_text(f"item_id:token\tmovie_title:token_seq\n{titles}\n")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("posthoc")
    write_data(folder / "data" / "toy")
    return folder


def settings(place: Path, **changes: Any) -> dict[str, Any]:
    return {
        "data_path": str(place / "data"),
        "checkpoint_dir": str(place / "saved"),
        "epochs": 2,
        "hidden_size": 16,
        "inner_size": 16,
        "MAX_ITEM_LIST_LENGTH": 10,
        "train_batch_size": 128,
        "metrics": ["NDCG", "AveragePopularity"],
        "sae_scale": 4,
        "sae_k": 8,
        "sae_epochs": 5,
        "synthetic_users": 300,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "show_progress": False,
        **changes,
    }


@pytest.fixture(scope="module")
def first(place: Path, monkeypatch_module: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch_module.chdir(place)
    return run_recbole_fair(MODEL, "toy", config_dict=settings(place, result_file=str(place / "result.json")))


@pytest.fixture(scope="module")
def monkeypatch_module() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_a_run_reports_base_and_every_variant(first: dict[str, Any], place: Path) -> None:
    assert list(first["variants"]) == ["base", "reconstructed", "steered"]
    assert first["test_result"] == first["variants"]["steered"]
    assert first["base_test_result"] == first["variants"]["base"]
    assert first["best_valid_score"] == first["best_valid_result"]["ndcg@10"]
    assert first["base"]["source"] == "trained"
    quality = first["intervention"]["sae"]["users"]
    assert 0 < quality["cosine"] <= 1
    titles = first["intervention"]["neurons"]["popular"][0]["titles"]
    assert all(title.startswith("Film ") for title in titles)
    assert set(first["timings"]) >= {"base", "intervention", "evaluation"}
    on_disk = json.loads((place / "result.json").read_text())
    assert on_disk["variants"] == first["variants"]
    assert on_disk["intervention"] == first["intervention"]


def test_base_equals_the_same_model_run_alone(first: dict[str, Any], place: Path) -> None:
    own = {key: value for key, value in settings(place).items() if not key.startswith(("sae_", "synthetic"))}
    alone = run_recbole_fair("SASRec", "toy", config_dict={**own, "checkpoint_dir": str(place / "alone")})
    assert alone["test_result"] == first["base_test_result"]
    # and a post-hoc run finds it by its fingerprint
    reused = run_recbole_fair(MODEL, "toy", config_dict=settings(place, checkpoint_dir=str(place / "alone")))
    assert reused["base"]["source"] == "checkpoint_dir"
    assert reused["base"]["file"] == alone["checkpoint"]
    assert reused["variants"] == first["variants"]


def test_other_base_settings_are_not_reused(first: dict[str, Any], place: Path) -> None:
    # A folder of its own, with the finished base in it: RecBole names files by the second, and these runs are quick.
    folder = place / "others"
    folder.mkdir()
    copied = shutil.copy(first["base"]["file"], folder)
    assert run_recbole_fair(MODEL, "toy", config_dict=settings(place, checkpoint_dir=str(folder), sae_epochs=1))[
        "base"
    ]["file"] == str(copied)
    changed = settings(place, checkpoint_dir=str(folder), learning_rate=0.01, epochs=1, sae_epochs=1)
    assert run_recbole_fair(MODEL, "toy", config_dict=changed)["base"]["source"] == "trained"
    saved = load_checkpoint(first["base"]["file"])["config"]
    assert differing_settings(saved, {**saved, "metrics": ["MRR"], "n_layers": 5}) == {"n_layers": (2, 5)}


def test_base_model_file(first: dict[str, Any], place: Path) -> None:
    given = run_recbole_fair(
        MODEL, "toy", config_dict=settings(place, base_model_file=first["base"]["file"], alpha_pop=0.0), saved=False
    )
    assert given["base"]["source"] == "base_model_file"
    assert given["base_test_result"] == first["base_test_result"]
    for file, message in (
        (first["checkpoint"], "is a checkpoint of PopSteerSASRec"),
        (str(place / "nothing.pth"), "no checkpoint file"),
    ):
        with pytest.raises(FairError, match=message):
            run_recbole_fair(MODEL, "toy", config_dict=settings(place, base_model_file=file))
    with pytest.raises(FairError, match="does not fit"):
        run_recbole_fair(
            MODEL, "toy", config_dict=settings(place, base_model_file=first["base"]["file"], hidden_size=32)
        )


def test_what_chose_the_epoch_of_a_base_holds_for_what_stands_on_it(place: Path) -> None:
    """A metric and a bound that are no default ones, of lists that are not the default ones."""
    bound = {"valid_constraint": "ShannonEntropy@4 >= 0.01", "metrics": ["NDCG", "ShannonEntropy"], "topk": [4]}
    metric = {
        "valid_metric": "ItemCoverage_min2@4",
        "coverage_min_count": [1, 2],
        "checkpoint_dir": str(place / "bound"),
    }
    base = run_recbole_fair("SASRec", "toy", config_dict=settings(place, **{**bound, **metric}))
    own = settings(place, base_model_file=base["checkpoint"], checkpoint_dir=str(place / "bound"), sae_epochs=1)
    del own["metrics"]
    steered = run_recbole_fair(MODEL, "toy", config_dict=own, saved=False)
    assert steered["config"]["valid_constraint"] == base["config"]["valid_constraint"]
    assert steered["base_test_result"] == base["test_result"]
    free = run_recbole_fair(MODEL, "toy", config_dict={**own, "topk": [6]})
    found = load_checkpoint(free["checkpoint"])["config"]
    assert (found["valid_constraint"], found["valid_metric"]) == (None, "NDCG@6")


def test_checkpoint_round_trip_and_new_strengths(first: dict[str, Any], place: Path) -> None:
    again = evaluate_checkpoint(first["checkpoint"])
    assert again["variants"] == first["variants"]
    assert again["intervention"] == first["intervention"]
    nothing = {"alpha_pop": 0, "alpha_unpop": 0}
    off = evaluate_checkpoint(first["checkpoint"], {**nothing, "keep_reconstruction_error": False})
    assert off["variants"]["steered"] == first["variants"]["reconstructed"]
    same = evaluate_checkpoint(first["checkpoint"], nothing)
    assert same["test_result"] == first["base_test_result"]
    strong = evaluate_checkpoint(first["checkpoint"], {"alpha_pop": 5, "alpha_unpop": 5})
    key = "averagepopularity@10"
    assert strong["test_result"][key] < first["test_result"][key] < first["base_test_result"][key]


def test_resume_goes_on_with_an_interrupted_base(first: dict[str, Any], place: Path) -> None:
    own = {key: value for key, value in settings(place).items() if not key.startswith(("sae_", "synthetic"))}
    own["checkpoint_dir"] = str(place / "interrupted")
    half = run_recbole_fair("SASRec", "toy", config_dict={**own, "epochs": 1})["checkpoint"]
    changed = settings(place, resume=half, checkpoint_dir=own["checkpoint_dir"])
    assert run_recbole_fair(MODEL, "toy", config_dict=changed)["variants"] == first["variants"]
    with pytest.raises(FairError, match="is a finished PopSteerSASRec"):
        run_recbole_fair(MODEL, "toy", config_dict=settings(place, resume=first["checkpoint"]))


def test_titles_come_from_a_loaded_column_or_from_the_file(first: dict[str, Any]) -> None:
    _, _, dataset, *_ = load_data_and_model(first["checkpoint"])
    from_file = item_titles(dataset)
    _, _, dataset, *_ = load_data_and_model(
        first["checkpoint"],
        {"load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "movie_title"]}},
    )
    assert dataset.item_feat is not None
    assert item_titles(dataset) == from_file
    tokens = dataset.field2id_token["item_id"]
    assert from_file is not None
    assert all(title == f"Film {token[1:]}" for token, title in zip(tokens[1:], from_file[1:], strict=True))
    assert from_file[0] == ""


def test_the_base_is_frozen(first: dict[str, Any]) -> None:
    saved = load_checkpoint(first["checkpoint"])["state_dict"]
    base = load_checkpoint(first["base"]["file"])["state_dict"]
    for name, value in base.items():
        assert torch.equal(saved[f"base.{name}"], value)


def test_the_score_of_a_metric_that_is_best_at_zero_and_a_constraint(place: Path) -> None:
    changes = {"metrics": ["NDCG", "PopularityLift"], "valid_metric": "PopularityLift@10", "topk": [10]}
    document = run_recbole_fair(
        MODEL, "toy", config_dict=settings(place, **changes, valid_constraint="NDCG@10 >= 0.99", result_file=None)
    )
    assert document["best_valid_score"] == abs(document["best_valid_result"]["popularitylift@10"])
    assert "The variant steered does not keep valid_constraint (ndcg@10 >= 0.99)." in document["notes"]
