"""Re-rankers in runs and evaluations of checkpoints: what is reported, written, checked and left alone."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rerank_oracle import make

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.registry import get_reranker, get_trainer, rerankers
from recbole_fair.data.facts.interactions import split_interactions
from recbole_fair.errors import FairError
from recbole_fair.quick_start import evaluate_checkpoint, load_data_and_model, run_recbole_fair, sweep_checkpoint
from recbole_fair.rerank import Candidates, Facts, ReRanker
from recbole_fair.rerank.base import best_places
from recbole_fair.runs.reranking import evaluate_reranked, facts_of, new_ranks, reranked_struct, score_deviation


@pytest.fixture(scope="module")
def trained(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Checkpoints of SASRec (two seeds) and BPR."""
    folder = tmp_path_factory.mktemp("saved")
    settings = {
        "data_path": str(small_data),
        "checkpoint_dir": str(folder),
        "epochs": 2,
        "embedding_size": 8,
        "hidden_size": 8,
        "inner_size": 16,
        "n_layers": 1,
        "MAX_ITEM_LIST_LENGTH": 8,
        "show_progress": False,
        "metrics": ["NDCG", "Recall", "ItemCoverage", "GiniIndex", "TailPercentage", "UPD", "PCE", "GAUC", "CKL"],
        "topk": [3, 5],
        "valid_metric": "NDCG@5",
        "learning_rate": 0.01,
        "segment_by": "items",
        "group_field": "genre",
    }
    found = {}
    for name, model, seed in (("SASRec", "SASRec", 1), ("other", "SASRec", 2), ("BPR", "BPR", 1)):
        run = run_recbole_fair(
            model, "small", config_dict={**settings, "seed": seed, "checkpoint_dir": str(folder / name)}
        )
        found[name] = run["checkpoint"]
    return found


def extra(name: str, trained: dict[str, str]) -> dict[str, Any]:
    return {"Random": {"reranker_pool": 8}, "PUFR": {"reranker_models": [trained["other"]]}}.get(name, {})


@pytest.mark.parametrize("name", rerankers())
def test_every_reranker_runs_on_a_checkpoint_with_every_metric(
    name: str, trained: dict[str, str], in_tmp: Path
) -> None:
    plain = evaluate_checkpoint(trained["SASRec"])
    result = evaluate_checkpoint(
        trained["SASRec"], {"reranker": name, "reranker_candidates": None, **extra(name, trained)}
    )
    assert result["base_test_result"] == pytest.approx(plain["test_result"], abs=1e-12)
    assert result["variants"] == {"base": result["base_test_result"], name: result["test_result"]}
    assert set(result["test_result"]) == set(plain["test_result"])
    assert all(np.isfinite(value) for value in result["test_result"].values())
    assert result["reranker"]["reranker"] == name
    assert set(get_reranker(name).keys().values()) <= set(result["reranker"])
    assert "reranking" in result["timings"]


def recommended(path: str) -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            lists.setdefault(row["user_id"], []).append(row["item_id"])
    return lists


def test_a_run_validates_the_model_and_writes_the_reranked_lists(small_data: Path, in_tmp: Path) -> None:
    settings: dict[str, Any] = {
        "data_path": str(small_data),
        "epochs": 2,
        "embedding_size": 8,
        "metrics": ["NDCG", "GiniIndex"],
        "topk": 5,
        "valid_metric": "NDCG@5",
        "recommendations_file": "recs.csv",
        "segment_by": "items",
    }
    plain = run_recbole_fair("BPR", "small", config_dict=settings)
    base_lists = recommended("recs.csv")
    chosen = {"reranker": "FAstarIR", "reranker_p": 1.0, "reranker_candidates": 40}
    result = run_recbole_fair("BPR", "small", config_dict={**settings, **chosen})
    assert result["best_valid_result"] == plain["best_valid_result"]
    assert result["base_test_result"] == plain["test_result"]
    assert result["config"]["reranker_p"] == 1.0
    lists = recommended("recs.csv")
    assert lists != base_lists
    # Eight of forty items are tail, and they come first.
    assert len({items[0] for items in lists.values()}) <= 8 < len({items[0] for items in base_lists.values()})
    # The checkpoint remembers the re-ranker; another one, or none, can take its place.
    again = evaluate_checkpoint(result["checkpoint"])
    assert again["test_result"] == result["test_result"]
    without = evaluate_checkpoint(result["checkpoint"], {"reranker": None})
    assert without["test_result"] == plain["test_result"]
    assert "reranker" not in without
    other = evaluate_checkpoint(result["checkpoint"], {"reranker": "IPR"})
    assert other["reranker"] == {"reranker": "IPR", "reranker_candidates": 40, "reranker_alpha": 0.4}


def test_metrics_are_those_of_the_written_lists(trained: dict[str, str], in_tmp: Path) -> None:
    """NDCG and Gini of the file, by hand."""
    changes = {"reranker": "CP", "reranker_lambda": 0.9, "recommendations_file": "recs.csv", "topk": 5}
    changes["mask_seen"] = "none"
    result = evaluate_checkpoint(trained["SASRec"], {**changes, "metrics": ["NDCG", "GiniIndex"]})
    lists = recommended("recs.csv")
    _, _, dataset, _, _, test = load_data_and_model(trained["SASRec"])
    users = dataset.field2id_token["user_id"][test._dataset.inter_feat["user_id"].numpy()]
    items = dataset.field2id_token["item_id"][test._dataset.inter_feat["item_id"].numpy()]
    gain = [
        1 / np.log2(lists[user].index(item) + 2) if item in lists[user] else 0.0
        for user, item in zip(users, items, strict=True)
    ]
    assert result["test_result"]["ndcg@5"] == pytest.approx(np.mean(gain))
    counts = np.zeros(dataset.item_num - 1)
    for listed in lists.values():
        for item in listed:
            counts[dataset.field2token_id["item_id"][item] - 1] += 1
    n, c = len(counts), np.sort(counts)
    rank = np.arange(1, n + 1)
    gini = {m: ((2 * rank - n - 1) * c).sum() / (m * c.sum()) for m in (n, n - 1)}
    assert any(result["test_result"]["giniindex@5"] == pytest.approx(value) for value in gini.values())


def test_batches_change_nothing(trained: dict[str, str], in_tmp: Path) -> None:
    changes = {"reranker": "PMMF", "reranker_provider": "genre", "reranker_lambda": 0.3}
    whole = evaluate_checkpoint(trained["SASRec"], changes)
    parts = evaluate_checkpoint(trained["SASRec"], {**changes, "eval_batch_size": 7})
    assert parts["test_result"] == pytest.approx(whole["test_result"], abs=1e-9)
    assert whole["test_result"] != whole["base_test_result"]


def test_short_lists_are_said(trained: dict[str, str], in_tmp: Path) -> None:
    """With all seen items masked and lists as long as the catalogue, candidates run out."""
    changes = {
        "reranker": "IPR",
        "mask_seen": "all",
        "topk": 40,
        "reranker_candidates": None,
        "valid_metric": "NDCG@40",
    }
    result = evaluate_checkpoint(trained["SASRec"], changes)
    assert any("hold fewer than 40 items: the candidates ran out" in note for note in result["notes"])


def test_posthoc_models_are_reranked_in_their_final_variant(small_data: Path, in_tmp: Path) -> None:
    settings = {
        "data_path": str(small_data),
        "epochs": 1,
        "hidden_size": 8,
        "inner_size": 16,
        "n_layers": 1,
        "n_heads": 1,
        "MAX_ITEM_LIST_LENGTH": 8,
        "sae_epochs": 1,
        "sae_k": 4,
        "synthetic_users": 20,
        "metrics": ["NDCG", "GiniIndex"],
        "topk": 5,
        "valid_metric": "NDCG@5",
        "segment_by": "items",
        "head_tail_by": "items",
        "alpha_pop": 4.0,
        "alpha_unpop": 4.0,
        "beta": 0.0,
    }
    result = run_recbole_fair(
        "PopSteerSASRec",
        "small",
        config_dict={**settings, "reranker": "Random", "reranker_pool": 5, "reranker_order": "score"},
    )
    # Five of the first five in the model's order: the steered lists themselves.
    assert next(iter(result["variants"])) == "base"
    assert list(result["variants"])[-2:] == ["steered", "Random"]
    assert result["test_result"] == result["variants"]["Random"] == result["variants"]["steered"]
    assert result["base_test_result"] == result["variants"]["base"] != result["variants"]["steered"]


def test_a_base_model_is_found_whatever_the_reranker(small_data: Path) -> None:
    from recbole_fair.io.checkpoint import plain_config
    from recbole_fair.trainer.posthoc_trainer import differing_settings

    one = plain_config(FairConfig("SASRec", "small", config_dict={"data_path": str(small_data)}))
    two = plain_config(
        FairConfig(
            "SASRec", "small", config_dict={"data_path": str(small_data), "reranker": "CP", "reranker_lambda": 0.2}
        )
    )
    assert differing_settings(one, two) == {}


def test_gauc_counts_the_listed_items_first() -> None:
    made = make(30, 60, 20)
    places = torch.tensor([np.random.default_rng(u).permutation(20)[:6] for u in range(30)])
    places[3, 4:] = -1
    for row, found in zip(places.tolist(), new_ranks(places, 20).tolist(), strict=True):
        listed = [c for c in row if c >= 0]
        assert [found.index(r) for r in range(20)] == listed + [c for c in range(20) if c not in listed]
    assert len(made.items) == 30


def test_gauc_after_reranking_is_the_gauc_of_scores_in_that_order(trained: dict[str, str], in_tmp: Path) -> None:
    config, net, _, *loaders = load_data_and_model(trained["SASRec"], {"reranker": "IPR", "reranker_alpha": 5.0})
    trainer = get_trainer(config, config.model_class)(config, net)
    trainer.bind(*loaders)
    _, result = evaluate_reranked(trainer, loaders[2], get_reranker("IPR").from_config(config))
    assert result.lists is not None
    areas = []
    for interaction, scores, _, positive in trainer.scored_batches(loaders[2]):
        for row, (user, item) in enumerate(zip(interaction["user_id"].tolist(), positive.tolist(), strict=True)):
            order = scores[row].clone()
            listed = result.lists[result.user_ids.tolist().index(user)]
            order[listed] = order.max() + 1 + torch.arange(len(listed), 0, -1)
            others = order[(order > -torch.inf) & (torch.arange(len(order)) != item)]
            areas.append(float((others < order[item]).double().mean()))
    assert result.metrics["gauc"] == pytest.approx(np.mean(areas), abs=1e-6)


def test_pufrs_deviation_is_that_of_the_mean_scores(trained: dict[str, str], in_tmp: Path) -> None:
    means = []
    for name in ("SASRec", "other"):
        config, net, _, *loaders = load_data_and_model(trained[name])
        trainer = get_trainer(config, config.model_class)(config, net)
        trainer.bind(*loaders)
        scores = torch.cat([scores for _, scores, _, _ in trainer.scored_batches(loaders[2])])[:, 1:].double()
        means.append(scores.mean(0).numpy())
    found = score_deviation(trainer, loaders[2], [trained["SASRec"]])
    np.testing.assert_allclose(found[1:], np.std(means, axis=0), atol=1e-9)
    assert trainer.model is net


@pytest.mark.parametrize(("name", "said"), [("FairCo", True), ("IPR", False)])
def test_lists_made_as_a_whole_are_said(name: str, said: bool, trained: dict[str, str], in_tmp: Path) -> None:
    document = evaluate_checkpoint(trained["BPR"], {"reranker": name})
    note = f"{name} made lists of 5; metrics at 3 are of their first items. Set topk to one length"
    assert any(text.startswith(note) for text in document["notes"]) == said
    document = evaluate_checkpoint(trained["BPR"], {"reranker": name, "topk": [5]})
    assert not any("made lists" in text for text in document["notes"])


def test_a_pool_larger_than_the_catalogue_is_the_catalogue(trained: dict[str, str], in_tmp: Path) -> None:
    document = evaluate_checkpoint(trained["SASRec"], {"reranker": "Random", "reranker_pool": 300})
    assert document["reranker"]["reranker_pool"] == 300


def test_pufr_compares_seeds_not_strengths(small_data: Path, in_tmp: Path) -> None:
    settings = {
        "data_path": str(small_data),
        "epochs": 2,
        "embedding_size": 8,
        "sae_scale": 4,
        "sae_k": 4,
        "sae_epochs": 2,
        "head_share": 0.2,
        "tail_share": 0.2,
        "topk": [5],
        "valid_metric": "NDCG@5",
        "show_progress": False,
    }
    own, other = (
        run_recbole_fair("PopSteerBPR", "small", config_dict={**settings, "seed": seed})["checkpoint"]
        for seed in (1, 2)
    )
    result = sweep_checkpoint(
        own, ["alpha_pop=0.5,4"], "GiniIndex@5", "NDCG@5", config_dict={"reranker": "PUFR", "reranker_models": [other]}
    )
    for row in result["settings"]:
        changes = {"alpha_pop": row["alpha_pop"], "reranker": "PUFR", "reranker_models": [other]}
        single = evaluate_checkpoint(own, changes)["test_result"]
        assert row["test ndcg@5"] == pytest.approx(single["ndcg@5"], abs=1e-12)
    config, net, _, *loaders = load_data_and_model(own)
    trainer = get_trainer(config, config.model_class)(config, net)
    trainer.bind(*loaders)
    net.set_strengths(alpha_pop=4.0)
    assert float(score_deviation(trainer, loaders[2], [own]).max()) == 0.0


def test_a_mask_of_everything_holds_where_items_may_be_repeated(trained: dict[str, str], in_tmp: Path) -> None:
    lists = {}
    for mask in ("all", "none"):
        path = f"{mask}.csv"
        changes = {"repeatable": True, "mask_seen": mask, "recommendations_file": path}
        evaluate_checkpoint(trained["BPR"], changes)
        lists[mask] = recommended(path)
    _, _, _, train, valid, _ = load_data_and_model(trained["BPR"])
    seen: dict[str, set[str]] = {}
    for loader in (train, valid):
        inter, dataset = split_interactions(loader._dataset), loader._dataset
        for user, item in zip(inter.user, inter.item, strict=True):
            seen.setdefault(dataset.id2token("user_id", user), set()).add(dataset.id2token("item_id", item))
    shown = {mask: sum(len(seen[user] & set(items)) for user, items in found.items()) for mask, found in lists.items()}
    assert shown["all"] == 0 < shown["none"]


def test_facts_say_what_is_masked(trained: dict[str, str], in_tmp: Path) -> None:
    for name, mask, masked in (
        ("SASRec", "auto", False),
        ("BPR", "auto", True),
        ("BPR", "none", False),
        ("SASRec", "train", True),
    ):
        config, net, _, *loaders = load_data_and_model(trained[name], {"mask_seen": mask})
        trainer = get_trainer(config, config.model_class)(config, net)
        trainer.bind(*loaders)
        assert facts_of(trainer).masks_seen == masked


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reranker": "ipr"}, "reranker='ipr' is not a known re-ranker; did you mean 'IPR'"),
        (
            {"reranker": "IPR", "reranker_alfa": 1},
            "reranker_alfa=1 is not a key of reranker=IPR; did you mean 'reranker_alpha'",
        ),
        ({"reranker": "IPR", "reranker_p": 0.5}, "reranker_p=0.5 is not a key of reranker=IPR"),
        ({"reranker_alpha": 0.5}, "reranker_alpha=0.5 has no effect: choose a re-ranker"),
        ({"reranker": "IPR", "reranker_alpha": -1}, "reranker_alpha=-1 is not allowed"),
        ({"reranker": "no.such:Class"}, "there is no module .no. in"),
        ({"reranker": "collections:Counter"}, "not a class derived from"),
    ],
)
def test_configuration_names_slips(settings: dict[str, Any], message: str, in_tmp: Path) -> None:
    with pytest.raises(FairError, match=message):
        FairConfig("BPR", "ml-100k", config_dict=settings)


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ("SASRec", {"reranker": "PP", "reranker_alpha": 1.5}, "reranker_alpha=1.5 is not allowed for PP"),
        ("SASRec", {"reranker": "IPR", "reranker_candidates": 4}, "reranker_candidates=4 is too few"),
        (
            "SASRec",
            {"reranker": "Random", "reranker_pool": 30, "reranker_candidates": 20},
            "for lists of 5 items .* Random looks at the best 30; set reranker_candidates=30, or null",
        ),
        (
            "SASRec",
            {"reranker": "RandomNeighbors", "reranker_alpha": 2.0, "reranker_candidates": 14},
            "looks at the best 15",
        ),
        (
            "BPR",
            {"reranker": "Diversity", "reranker_pool_factor": 2, "reranker_candidates": 9},
            "looks at the best 10",
        ),
        ("SASRec", {"reranker": "Random", "reranker_pool": 4}, "reranker_pool=4 is not allowed"),
        ("BPR", {"reranker": "PP"}, "set mask_seen=none"),
        ("SASRec", {"reranker": "PMMF", "reranker_provider": "brand"}, "does not have"),
        ("SASRec", {"reranker": "PUFR"}, "set reranker_models"),
        ("SASRec", {"reranker": "PUFR", "reranker_models": "BPR"}, "is a checkpoint of BPR, not of SASRec"),
        ("BPR", {"reranker": "Calibration", "group_field": None, "metrics": ["NDCG"]}, "set group_field"),
    ],
)
def test_slips_are_found_before_anything_is_computed(
    model: str, changes: dict[str, Any], message: str, trained: dict[str, str], in_tmp: Path
) -> None:
    if changes.get("reranker_models") == "BPR":
        changes = {**changes, "reranker_models": trained["BPR"]}
    with pytest.raises(FairError, match=message):
        evaluate_checkpoint(trained[model], changes)


class Upside(ReRanker):
    """The model's candidates from the last to the first."""

    def places(self, candidates: Candidates, facts: Facts, k: int) -> torch.Tensor:
        return best_places(-candidates.scores, candidates.valid, k)


def test_ones_own_class_by_its_import_path(
    trained: dict[str, str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    result = evaluate_checkpoint(trained["SASRec"], {"reranker": "test_rerank_runs:Upside"})
    assert result["variants"].keys() == {"base", "test_rerank_runs:Upside"}
    assert result["test_result"] != result["base_test_result"]


def test_lists_that_were_measured_before_are_measured_anew(trained: dict[str, str], in_tmp: Path) -> None:
    config, net, _, *loaders = load_data_and_model(trained["SASRec"])
    trainer = get_trainer(config, config.model_class)(config, net)
    trainer.bind(*loaders)
    struct = trainer.collect(loaders[2], candidates=20)
    changed = trainer.evaluator.evaluate(reranked_struct(struct, Upside(), facts_of(trainer)))
    base = trainer.evaluator.evaluate(struct)
    assert changed != base
    assert trainer.evaluator.evaluate(reranked_struct(struct, Upside(), facts_of(trainer))) == changed
