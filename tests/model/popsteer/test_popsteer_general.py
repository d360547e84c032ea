"""PopSteer on BPR and LightGCN: split scoring, which users are the profiles, runs and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.model.general_recommender import BPR, LightGCN
from recbole.utils import init_seed

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.facts.interactions import training_interactions
from recbole_fair.data.reading.prepare import load_data
from recbole_fair.errors import FairError
from recbole_fair.model.bases.split import split_class
from recbole_fair.model.popsteer.general import PopSteerGeneral
from recbole_fair.model.popsteer.popsteer import PopSteer
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair

PopSteerBPR = PopSteer.on(BPR)
KINDS = {"BPR": (BPR, split_class(BPR)), "LightGCN": (LightGCN, split_class(LightGCN))}


def settings(small_data: Path, **changes: Any) -> dict[str, Any]:
    return {
        "data_path": str(small_data), "epochs": 3, "embedding_size": 8, "train_batch_size": 128, "learning_rate": 0.01,
        "topk": [5], "valid_metric": "NDCG@5", "metrics": ["NDCG", "GiniIndex"], "show_progress": False,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, **changes,
    }  # fmt: skip


OWN = {"sae_k": 4, "sae_epochs": 40, "profile_share": 0.2, "head_share": 0.2, "tail_share": 0.2}


@pytest.fixture(scope="module")
def split(small_data: Path) -> tuple[Any, Any]:
    config = FairConfig("PopSteerBPR", "small", config_dict=settings(small_data, **OWN))
    init_seed(1, True)
    return config, load_data(config)[0]._dataset


@pytest.mark.parametrize("kind", KINDS)
def test_split_scores_are_recboles(kind: str, small_data: Path, split: tuple[Any, Any]) -> None:
    config, dataset = FairConfig(kind, "small", config_dict=settings(small_data)), split[1]
    theirs, ours = (cls(config, dataset).eval() for cls in KINDS[kind])
    ours.load_state_dict(theirs.state_dict())
    users = Interaction({"user_id": torch.arange(1, 9)})
    for _ in range(2):
        with torch.no_grad():
            scores = ours.represent_users(users) @ ours.item_representations().t()
            torch.testing.assert_close(scores.flatten(), theirs.full_sort_predict(users).flatten())
            # Other weights must not meet what was remembered of the old ones.
            for model in (ours, theirs):
                for weight in model.parameters():
                    weight.copy_(weight.flip(0))
                model.restore_user_e = None


@pytest.mark.parametrize("last", [None, 3])
def test_profile_users_by_loop(last: int | None, split: tuple[Any, Any]) -> None:
    config, dataset = split
    config["profile_history"] = last
    model = PopSteerBPR(config, dataset)
    inter = training_interactions(dataset)
    head, tail = (set(side.tolist()) for side in model.profile_items(inter))
    lean = {}
    for user in range(1, inter.n_users):
        history = [
            item for _, item in sorted(
                ((t, i) for u, i, t in zip(inter.user, inter.item, inter.time, strict=True) if u == user),
                key=lambda pair: pair[0],
            )
        ]  # fmt: skip
        history = history[-last:] if last else history
        if history:
            lean[user] = (sum(i in head for i in history) - sum(i in tail for i in history)) / len(history)
    n = int(len(lean) * 0.2)
    concept = model.read_concepts(dataset, inter)[0]
    popular, unpopular = model.profile_users(concept, inter)
    assert popular.tolist() == sorted(lean, key=lambda u: (-lean[u], u))[:n]
    assert unpopular.tolist() == sorted(lean, key=lambda u: (lean[u], u))[:n]
    of_head, of_tail = (torch.cat(list(model.profile_vectors(concept, side, inter, 0))) for side in (True, False))
    assert torch.equal(of_head, model.base.user_embedding.weight[popular])
    assert torch.equal(of_tail, model.base.user_embedding.weight[unpopular])
    config["profile_history"] = None


def test_too_few_users_a_side(split: tuple[Any, Any]) -> None:
    config, dataset = split
    config["profile_share"] = 0.001
    model: PopSteerGeneral = PopSteerBPR(config, dataset)
    inter = training_interactions(dataset)
    concept = model.read_concepts(dataset, inter)[0]
    with pytest.raises(FairError, match=r"profile_share=0.001 leaves 0 of"):
        model.profile_users(concept, inter)
    config["profile_share"] = 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_run_and_checkpoint_round_trip(kind: str, small_data: Path, in_tmp: Path) -> None:
    alone = run_recbole_fair(kind, "small", config_dict=settings(small_data))
    result = run_recbole_fair(f"PopSteer{kind}", "small", config_dict=settings(small_data, **OWN))
    assert result["base"]["file"] == alone["checkpoint"]
    assert result["base_test_result"] == alone["test_result"]
    assert list(result["variants"]) == ["base", "reconstructed", "steered"]
    assert result["intervention"]["profiles"]["users_a_side"] >= 2
    file = result["checkpoint"]
    assert evaluate_checkpoint(file)["variants"] == result["variants"]
    off = evaluate_checkpoint(file, {"alpha_pop": 0, "alpha_unpop": 0, "keep_reconstruction_error": False})
    assert off["test_result"] == result["variants"]["reconstructed"]
    kept = evaluate_checkpoint(file, {"alpha_pop": 0, "alpha_unpop": 0})
    assert kept["test_result"] == result["base_test_result"]
    strong = evaluate_checkpoint(file, {"alpha_pop": 5.0, "alpha_unpop": 5.0})
    assert strong["test_result"] != result["test_result"]
