"""Evaluation among sampled candidates: the same ones for every model and at every pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.batches.loaders import same_batches
from recbole_fair.errors import FairError
from recbole_fair.quick_start import evaluate_checkpoint, load_data_and_model, run_recbole_fair
from recbole_fair.runs.loading import new_trainer
from recbole_fair.runs.reranking import facts_of, score_deviation

LAST = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "uni10"}


@pytest.fixture
def settings(small_data: Path, in_tmp: Path) -> dict[str, Any]:
    return {
        "data_path": str(small_data),
        "epochs": 2,
        "embedding_size": 8,
        "learning_rate": 0.01,
        "metrics": ["NDCG"],
        "topk": [5],
        "valid_metric": "NDCG@5",
        "eval_args": {"mode": "uni10"},
        "show_progress": False,
        "state": "error",
    }


def sae(**changes: Any) -> dict[str, Any]:
    return {"sae_scale": 4, "sae_k": 4, "sae_epochs": 2, "head_share": 0.2, "tail_share": 0.2, **changes}


def items_of(batches: Any) -> list[list[int]]:
    return [batch[0]["item_id"].tolist() for batch in batches]


def test_the_same_candidates_at_every_pass_and_the_global_generator_untouched(settings: dict[str, Any]) -> None:
    _, (_, _, test) = new_trainer(FairConfig("BPR", "small", config_dict={**settings, "eval_batch_size": 100}))
    np.random.seed(5)
    first = items_of(same_batches(test, 1))
    assert np.random.rand() == np.random.RandomState(5).rand()
    assert len(first) > 1
    assert items_of(same_batches(test, 1)) == first
    assert items_of(same_batches(test, 2)) != first
    assert items_of(test) != items_of(test)  # RecBole's own behaviour


def test_a_model_is_evaluated_alike_twice_and_from_its_checkpoint(settings: dict[str, Any]) -> None:
    document = run_recbole_fair("BPR", "small", config_dict=settings)
    for _ in range(2):
        assert evaluate_checkpoint(document["checkpoint"])["test_result"] == document["test_result"]


def test_strength_0_is_the_base_and_models_of_one_kind_do_not_deviate(settings: dict[str, Any]) -> None:
    still = {"alpha_pop": 0.0, "alpha_unpop": 0.0, "keep_reconstruction_error": True}
    document = run_recbole_fair("PopSteerBPR", "small", config_dict={**settings, **sae(**still)})
    assert document["variants"]["steered"] == document["variants"]["base"]
    config, net, _, *loaders = load_data_and_model(document["checkpoint"])
    trainer, _ = new_trainer(config)
    trainer.model = net
    trainer.bind(*loaders)
    assert float(score_deviation(trainer, loaders[2], [document["checkpoint"]]).max()) == 0.0


def test_a_users_noise_is_one_over_all_candidates(settings: dict[str, Any]) -> None:
    noisy = sae(steer_mode="noise", noise_std=3.0, beta=0.0)
    path = run_recbole_fair("PopSteerBPR", "small", config_dict={**settings, **noisy})["checkpoint"]
    _, net, *_ = load_data_and_model(path)
    users, items = torch.tensor([3, 3, 7, 3, 7, 1]), torch.tensor([1, 2, 3, 4, 5, 6])
    with net.use_variant("steered"):
        everything = net.full_sort_predict(Interaction({"user_id": torch.tensor([1, 3, 7])}))
    with net.use_variant("steered"):
        scores = net.predict(Interaction({"user_id": users, "item_id": items}))
    row = {1: 0, 3: 1, 7: 2}
    torch.testing.assert_close(scores, everything[[row[int(u)] for u in users], items])


@pytest.mark.parametrize(
    ("model", "changes", "masked"),
    [
        ("BPR", {}, True),
        ("BPR", {"repeatable": True}, False),
        ("SASRec", {"n_layers": 1, "hidden_size": 8, "inner_size": 8, "eval_args": LAST}, False),
        ("BPR", {"eval_args": {"mode": "full"}, "repeatable": True}, False),
    ],
)
def test_what_sampled_candidates_leave_out(
    model: str, changes: dict[str, Any], masked: bool, settings: dict[str, Any]
) -> None:
    kept = {key: value for key, value in settings.items() if model == "BPR" or key != "embedding_size"}
    trainer, loaders = new_trainer(FairConfig(model, "small", config_dict={**kept, **changes}))
    trainer.bind(*loaders)
    assert facts_of(trainer).masks_seen == masked


def test_pp_and_spree_say_what_they_need_before_training(settings: dict[str, Any]) -> None:
    with pytest.raises(FairError, match="set mask_seen=none, with mode: full"):
        run_recbole_fair("BPR", "small", config_dict={**settings, "reranker": "PP"})
    kept = {key: value for key, value in settings.items() if key != "embedding_size"}
    with pytest.raises(FairError, match="full rankings of validation users"):
        run_recbole_fair("SPREESASRec", "small", config_dict={**kept, "epochs": 10_000, "eval_args": LAST})
    assert not list(Path("saved").glob("*"))
