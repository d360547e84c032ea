"""Score adjusters in evaluations and sweeps of real checkpoints: the same lists whichever way they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_fair.io.checkpoint import load_checkpoint
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair, sweep_checkpoint
from recbole_fair.rerank.settings import make_reranker
from recbole_fair.runs.adjusting import collect_pool, learn, pool_of
from recbole_fair.runs.loading import config_of, load_trainer
from recbole_fair.runs.reranking import evaluate_reranked, facts_of_split

METRICS = {"metrics": ["NDCG", "GiniIndex", "PCE", "GAUC"], "topk": [3, 5], "valid_metric": "NDCG@5", "seed": 1}
LORENZ = {"reranker": "Lorenz", "reranker_lambda": 0.8}
TILT = {"reranker": "Tilt", "reranker_strength": 0.7}
SHARP = {**LORENZ, "reranker_score": "softmax", "reranker_pool": 12}
BOTH = {"reranker": "LorenzTilt", "reranker_lambda": 0.8, "reranker_strength": 0.7}


@pytest.fixture(scope="module")
def trained(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Checkpoints of SASRec, which masks nothing, and BPR, which masks what users have seen."""
    folder, found = tmp_path_factory.mktemp("saved"), {}
    small = {"hidden_size": 8, "inner_size": 16, "n_layers": 1, "MAX_ITEM_LIST_LENGTH": 8, "embedding_size": 8}
    for model in ("SASRec", "BPR"):
        settings = {
            "data_path": str(small_data), "checkpoint_dir": str(folder / model), "epochs": 3, "learning_rate": 0.02,
            "show_progress": False, **small, **METRICS,
        }  # fmt: skip
        found[model] = run_recbole_fair(model, "small", config_dict=settings)["checkpoint"]
    return found


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
@pytest.mark.parametrize(
    "nothing", [{**LORENZ, "reranker_lambda": 0.0}, {**TILT, "reranker_strength": 0.0}], ids=["Lorenz", "Tilt"]
)
def test_without_strength_the_results_are_those_of_the_base(
    model: str, nothing: dict[str, Any], trained: dict[str, str], in_tmp: Path
) -> None:
    plain = evaluate_checkpoint(trained[model], {"recommendations_file": "plain.csv"})
    result = evaluate_checkpoint(trained[model], {**nothing, "recommendations_file": "adjusted.csv"})
    assert result["test_result"] == plain["test_result"] == result["base_test_result"]
    assert Path("plain.csv").read_text() == Path("adjusted.csv").read_text()


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
@pytest.mark.parametrize("settings", [LORENZ, TILT, BOTH, {**LORENZ, "reranker_score": "standard"}, SHARP], ids=str)
@pytest.mark.parametrize("gauc", [False, True], ids=["pool", "all"])
def test_a_sweep_out_of_the_best_items_gives_what_all_items_give(
    model: str, settings: dict[str, Any], gauc: bool, trained: dict[str, str], in_tmp: Path
) -> None:
    metrics = [*METRICS["metrics"]][: 4 if gauc else 3]  # type: ignore[misc]
    key = "reranker_strength" if "reranker_strength" in settings else "reranker_lambda"
    common = {**settings, "metrics": metrics}
    del common[key]
    result = sweep_checkpoint(trained[model], {key: [0.0, 0.4, 1.0]}, "GiniIndex@5", "NDCG@5", config_dict=common)
    seen = set()
    for row in result["settings"]:
        single = evaluate_checkpoint(trained[model], {**common, key: row[key]})["test_result"]
        assert {name: row[f"test {name}"] for name in single} == pytest.approx(single, abs=1e-12)
        seen.add(single["giniindex@5"])
    assert len(seen) >= 2  # a model this small may be as even as it gets at .4 already


def test_what_the_pool_cannot_settle_is_settled_among_all_items(trained: dict[str, str], in_tmp: Path) -> None:
    """A pool as short as the lists: hardly any list is certain, and the sweep scores all items."""
    common = {**LORENZ, "reranker_pool": 5, "metrics": ["NDCG", "GiniIndex"]}
    del common["reranker_lambda"]
    result = sweep_checkpoint(trained["BPR"], {"reranker_lambda": [3.0]}, "GiniIndex@5", "NDCG@5", config_dict=common)
    row = result["settings"][0]
    single = evaluate_checkpoint(trained["BPR"], {**common, "reranker_lambda": 3.0})
    assert row["test giniindex@5"] == pytest.approx(single["test_result"]["giniindex@5"], abs=1e-12)
    assert "too few" in " ".join(single["notes"])


def trainer_of(checkpoint: str, settings: dict[str, Any]) -> tuple[Any, Any]:
    content = load_checkpoint(checkpoint)
    config = config_of(content, settings)
    return load_trainer(config, content, checkpoint)


def test_biases_are_learnt_on_validation_users_and_no_label_is_looked_at(trained: dict[str, str], in_tmp: Path) -> None:
    trainer, (_, valid, test) = trainer_of(trained["BPR"], LORENZ)
    adjuster = make_reranker(trainer.config)
    facts = facts_of_split(trainer)
    found = learn(trainer, test, adjuster, facts, 5)
    pool = collect_pool(trainer, valid, adjuster, 5)
    by_hand = adjuster.learn(pool_of(pool), facts, 5)
    assert torch.equal(found.bias, by_hand.bias)
    assert found.bias.max() > 0
    for struct_key in ("rec.positives", "rec.topk"):  # the labels that the pool came with
        del pool._data_dict[struct_key]
    assert torch.equal(adjuster.learn(pool_of(pool), facts, 5).bias, found.bias)
    own, _ = trainer_of(trained["BPR"], {**LORENZ, "reranker_learn_on": "own"})
    other = learn(own, own._test_data, make_reranker(own.config), facts_of_split(own), 5)
    assert not torch.equal(other.bias, found.bias)


def test_the_result_says_how_learning_went(trained: dict[str, str], in_tmp: Path) -> None:
    trainer, (_, _, test) = trainer_of(trained["SASRec"], LORENZ)
    _, result = evaluate_reranked(trainer, test, make_reranker(trainer.config))
    report = result.curves["equilibrium"]
    assert report["residuals"][-1] < report["residuals"][0]
    assert report["welfare"][-1] > report["welfare"][0]
    assert any("learnt on" in note and "validation users" in note for note in result.notes)
    whole = evaluate_checkpoint(trained["SASRec"], LORENZ)
    assert whole["curves"]["equilibrium"] == report
