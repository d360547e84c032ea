"""DDC against a straightforward version: directions, loss, scores; runs and checkpoints."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.data.interaction import Interaction
from recbole.model.general_recommender import BPR
from recbole.utils import init_seed

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.facts.interactions import training_interactions
from recbole_fair.data.reading.prepare import load_data
from recbole_fair.errors import FairError
from recbole_fair.model.ddc.ddc import DDC, sample_unmet
from recbole_fair.model.ddc.directions import mean_ndcg, popularity_direction, preference_directions
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair
from recbole_fair.report.tables import ddc_lines

OWN = {"ddc_epochs": 4, "ddc_batch_size": 64, "head_share": 0.2, "tail_share": 0.2}


def run_settings(small_data: Path, **changes: Any) -> dict[str, Any]:
    return {
        "data_path": str(small_data), "epochs": 3, "embedding_size": 8, "train_batch_size": 128, "learning_rate": 0.01,
        "topk": [5], "valid_metric": "NDCG@5", "metrics": ["NDCG", "GiniIndex"], "show_progress": False,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, **changes,
    }  # fmt: skip


# -- directions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_pca_is_the_first_component_of_all_paired_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    head, tail = rng.normal(size=(7, 5)) + np.array([2, 0, 1, 0, 0]), rng.normal(size=(11, 5))
    pairs = np.array([p - q for p in head for q in tail])
    expected = np.linalg.svd(pairs, full_matrices=False)[2][0]
    expected *= np.sign(expected @ (head.mean(0) - tail.mean(0)))
    found = popularity_direction(torch.from_numpy(head).float(), torch.from_numpy(tail).float(), "pca")
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    difference = head.mean(0) - tail.mean(0)
    found = popularity_direction(torch.from_numpy(head), torch.from_numpy(tail), "mean")
    np.testing.assert_allclose(found.numpy(), difference / np.linalg.norm(difference), atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.3, 0.5, 1.0]), st.booleans())
def test_preference_by_loop(seed: int, share: float, with_bias: bool) -> None:
    rng = np.random.default_rng(seed)
    users, items = rng.normal(size=(6, 4)), rng.normal(size=(9, 4))
    bias = rng.normal(size=9) if with_bias else None
    histories = [rng.choice(9, size=rng.integers(0, 8), replace=False) for _ in range(6)]
    expected = np.zeros((6, 4))
    for u, history in enumerate(histories):
        by_score = sorted(history, key=lambda i: -(users[u] @ items[i] + (bias[i] if with_bias else 0.0)))
        best = by_score[: math.ceil(share * len(history) - 1e-9)]
        for i in best:
            expected[u] += items[i] / np.linalg.norm(items[i])
        if best:
            expected[u] /= np.linalg.norm(expected[u])
    indptr = torch.tensor([0, *np.cumsum([len(h) for h in histories])])
    found = preference_directions(
        torch.from_numpy(users), torch.from_numpy(items), torch.from_numpy(bias) if with_bias else None, indptr,
        torch.from_numpy(np.concatenate(histories).astype(np.int64)), share,
    )  # fmt: skip
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_ndcg_by_hand() -> None:
    scores = torch.tensor([[0.0, 5.0, 4.0, 3.0], [0.0, 1.0, 2.0, 3.0]])
    row, item = torch.tensor([0, 0, 1]), torch.tensor([1, 3, 1])
    found = mean_ndcg(scores, row, item, 2)
    np.testing.assert_allclose(found.numpy(), [1.0 / (1.0 + 1 / math.log2(3)), 0.0], rtol=1e-6)


def test_sampled_items_are_unmet_and_uniform() -> None:
    users = np.repeat([1, 2], 6000)
    met = np.array([1 * 6 + 1, 1 * 6 + 2, 2 * 6 + 5])
    drawn = sample_unmet(users, 6, met, np.random.default_rng(0))
    of_first = np.bincount(drawn[:6000], minlength=6)
    assert of_first[[0, 1, 2]].sum() == 0
    assert np.abs(of_first[3:] - 2000).max() < 200
    assert np.bincount(drawn[6000:], minlength=6)[5] == 0


# -- loss and scores ---------------------------------------------------------------------------------------------------


@pytest.fixture
def model(small_data: Path) -> Any:
    config = FairConfig("DDC", "small", config_dict={**run_settings(small_data, **OWN), "base": "BPR"})
    init_seed(1, True)
    dataset = load_data(config)[0]._dataset
    made = config.model_class(config, dataset)
    with torch.no_grad():
        for parameter in made.base.parameters():
            parameter.mul_(5)
    made.freeze_base()
    made.fit_intervention(SimpleNamespace(_dataset=dataset), None)
    return made


def plain_score(model: Any, u: int, i: int, alpha: float, beta: float) -> float:
    user = model.base.user_embedding.weight[u].double()
    length = user.norm()
    moved = user + alpha * length * model.popular.double() + beta * length * model.preferred[u].double()
    return float(moved @ model.base.item_embedding.weight[i].double())


@pytest.mark.parametrize("terms", ["b_a", "a_a", "b_b", "ab_ab"])
def test_loss_by_loop(terms: str, model: Any) -> None:
    model._config["ddc_terms"], model._config["ddc_regularization"] = terms, 0.03
    users, items = model.base.user_embedding.weight, model.base.item_embedding.weight
    triples = [(3, 5, 9), (3, 6, 2), (8, 1, 30), (20, 11, 4)]
    expected = 0.0
    for u, i, j in triples:
        a, b = float(model.alpha[u]), float(model.beta[u])
        sides = [(a if "a" in side else 0.0, b if "b" in side else 0.0) for side in terms.split("_")]
        difference = plain_score(model, u, i, *sides[0]) - plain_score(model, u, j, *sides[1])
        expected += math.log1p(math.exp(-difference)) + 0.03 * (a * a + b * b)
    pairs = tuple(torch.tensor(column) for column in zip(*triples, strict=True))
    numbers = (model.alpha.clone().requires_grad_(True), model.beta.clone().requires_grad_(True))
    loss = model.pair_loss(users, items, None, numbers, pairs)
    assert float(loss) == pytest.approx(expected / len(triples), rel=1e-5)
    loss.backward()
    for gradient in (n.grad for n in numbers):
        assert bool(gradient[[3, 8, 20]].any())
        assert not bool(gradient[[1, 2, 4]].any())


def test_scores_by_loop_and_strengths(model: Any) -> None:
    batch = Interaction({"user_id": torch.arange(1, 12)})
    scales = {"popularity": (1, 0), "preference": (0, 1), "corrected": (1, 1)}
    for popularity, preference in ((1.0, 1.0), (0.5, 2.0)):
        model.set_strengths(ddc_popularity=popularity, ddc_preference=preference)
        for variant, (p, q) in scales.items():
            with model.use_variant(variant):
                scores = model.full_sort_predict(batch)
            for u, i in ((1, 4), (5, 30), (11, 2)):
                a, b = popularity * p * float(model.alpha[u]), preference * q * float(model.beta[u])
                assert float(scores[u - 1, i]) == pytest.approx(plain_score(model, u, i, a, b), rel=1e-4, abs=1e-5)
    model.set_strengths(ddc_popularity=0.0, ddc_preference=0.0)
    base = model.base.full_sort_predict(batch).view(11, -1)
    assert torch.equal(model.full_sort_predict(batch), base)
    assert float(model.alpha[0]) == float(model.beta[0]) == 0.0  # nobody's id


def test_learning_lowers_the_loss(model: Any) -> None:
    config = model._config
    config["ddc_epochs"], config["ddc_learning_rate"] = 30, 0.05
    dataset = model_dataset(model)
    report = model.fit_intervention(SimpleNamespace(_dataset=dataset), None)
    losses = report["ddc"]["losses"]
    assert len(losses) == report["ddc"]["best_epoch"] == 30
    assert losses[-1] < 0.95 * losses[0]


def model_dataset(model: Any) -> Any:
    return load_data(model._config)[0]._dataset


def test_items_by_number_of_interactions(model: Any) -> None:
    inter = training_interactions(model_dataset(model))
    counts = np.bincount(inter.item, minlength=inter.n_items)
    most, least = int(np.sort(counts)[-6]), int(np.sort(counts[1:])[5])
    model._config["ddc_head_at_least"], model._config["ddc_tail_at_most"] = most, least
    head, tail = model._sides(inter)
    assert head.tolist() == [i for i in range(1, len(counts)) if counts[i] >= most]
    assert tail.tolist() == [i for i in range(1, len(counts)) if 0 < counts[i] <= least]
    model._config["ddc_head_at_least"] = 10_000
    with pytest.raises(FairError, match="ddc_head_at_least=10000 leaves no popular item"):
        model._sides(inter)


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["BPR", "LightGCN", "MultiVAE"])
def test_run_and_checkpoint(base: str, small_data: Path, in_tmp: Path) -> None:
    own = run_settings(small_data, **OWN)
    if base == "MultiVAE":
        own.pop("embedding_size")
    result = run_recbole_fair(f"DDC{base}", "small", config_dict=own)
    assert list(result["variants"]) == ["base", "popularity", "preference", "corrected"]
    report = result["intervention"]["ddc"]
    # What stops learning is the metric by which the run is judged.
    best = report["validation_ndcg"][report["best_epoch"] - 1]
    assert best == pytest.approx(result["best_valid_result"]["ndcg@5"], abs=1e-6)
    assert best == max(report["validation_ndcg"])
    lines = "\n".join(ddc_lines(report))
    assert f"{report['alpha']['median']:.4f}" in lines
    assert f"epoch {report['best_epoch']} of {report['epochs']}" in lines
    assert evaluate_checkpoint(result["checkpoint"])["variants"] == result["variants"]
    off = evaluate_checkpoint(result["checkpoint"], {"ddc_popularity": 0, "ddc_preference": 0})
    assert off["test_result"] == result["base_test_result"]


def test_a_sequential_base_is_refused() -> None:
    with pytest.raises(FairError, match="base=GRU4Rec reads sequences; DDC learns two numbers"):
        FairConfig("DDC", "small", config_dict={"base": "GRU4Rec"})
    assert DDC.on(BPR) is DDC.on(BPR)
