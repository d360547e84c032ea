"""Settings that do not fit together, and splits at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.facts.interactions import split_interactions
from recbole_fair.data.reading.prepare import load_data
from recbole_fair.errors import FairError
from recbole_fair.quick_start import run_recbole_fair
from recbole_fair.runs.loading import new_trainer


@pytest.mark.parametrize(
    ("model", "settings", "says"),
    [
        ("BPR", {"eval_args": {"split": {"RS": [0.8, 0.2]}}}, r"RS=\[0.8, 0.2\] must be three shares"),
        ("BPR", {"eval_args": {"split": {"TS": [0.8, 0.2]}, "order": "TO"}}, r"TS=\[0.8, 0.2\] must be three shares"),
        ("BPR", {"eval_args": {"split": {"TS": [8, 1, 1]}, "order": "RO"}}, "needs order: TO and group_by: user"),
        ("BPR", {"eval_args": {"split": {"TS": [8, 1, 1]}, "order": "TO", "group_by": "none"}}, "group_by: user"),
        ("BPR", {"benchmark_filename": ["part1", "part2"]}, "benchmark_filename=.* must name three parts"),
        ("BPR", {"train_neg_sample_args": None}, "BPR compares items with sampled ones"),
        ("ILEBPR", {"train_neg_sample_args": {"distribution": "none"}}, "ILEBPR compares items with sampled ones"),
        ("GRU4Rec", {"loss_type": "BPR", "train_neg_sample_args": None}, "GRU4Rec compares"),
        (
            "MultVAE",
            {"train_neg_sample_args": {"dynamic": True, "candidate_num": 2}},
            "dynamic has no meaning for MultVAE",
        ),
        ("LOCA", {"train_neg_sample_args": {"dynamic": True, "candidate_num": 2}}, "dynamic has no meaning for LOCA"),
        ("BPR", {"threshold": {"rating": 4}}, r"val_interval=\{rating: \"\[4,inf\)\"\}"),
        ("BPR", {"eval_args": {"mode": "labeled"}}, "mode=labeled rates single rows, and metrics=.* rank items"),
        (
            "FM",
            {"metrics": ["AUC"], "eval_args": {"mode": {"valid": "labeled", "test": "uni5"}}},
            "cannot sample for test after labelled validation rows",
        ),
        (
            "BPR",
            {"metrics": ["ItemCoverage"], "valid_metric": "ItemCoverage_min7@10"},
            "coverage_min_count=.* must hold 7",
        ),
        ("BPR", {"transform": "mask_itemseq"}, "transform=mask_itemseq changes sequences, and BPR reads none"),
        (
            "GRU4Rec",
            {"transform": "crop_itemseq"},
            "transform=crop_itemseq needs eta, which GRU4Rec has",
        ),
        ("RaCT", {"train_stage": "finetun"}, "train_stage='finetun' must be one of .*did you mean 'finetune'"),
        ("S3Rec", {"train_stage": "actor_pretrain"}, "must be one of pretrain, finetune"),
        ("BPR", {"learner": "sparse_adam"}, "learner=sparse_adam needs sparse gradients"),
    ],
)
def test_mistakes_are_one_sentence(model: str, settings: dict[str, Any], says: str):
    with pytest.raises(FairError, match=says) as caught:
        FairConfig(model, "ml-100k", config_dict=settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("named", ["GAUC", "gauc@10"])
def test_a_metric_without_a_list_length(named: str, small_data: Path, in_tmp: Path):
    settings = {"data_path": str(small_data), "valid_metric": named, "epochs": 2, "state": "error", "embedding_size": 8}
    document = run_recbole_fair("BPR", "small", config_dict={**settings, "show_progress": False})
    assert document["best_valid_score"] == document["best_valid_result"]["gauc"]


def test_a_constraint_on_a_coverage_that_is_not_computed(small_data: Path, in_tmp: Path):
    settings = {"data_path": str(small_data), "metrics": ["NDCG", "ItemCoverage"], "state": "error"}
    config = FairConfig("BPR", "small", config_dict={**settings, "valid_constraint": "ItemCoverage_min3@10 >= 0.1"})
    with pytest.raises(FairError, match="add it to coverage_min_count"):
        new_trainer(config)


def test_labels_for_training_alone_are_warned_of(caplog: pytest.LogCaptureFixture):
    settings = {"threshold": {"rating": 4}, "train_neg_sample_args": None, "metrics": ["NDCG"]}
    FairConfig("FM", "ml-100k", config_dict=settings)
    assert "count as interactions and as hits there" in caplog.text


@pytest.mark.parametrize("model", ["MultiVAE", "Pop", "EASE", "MultVAE", "SASRec", "DecFM"])
def test_models_without_sampled_items_may_do_without(model: str):
    changes = {"group_field": "class"} if model == "DecFM" else {}
    config = FairConfig(model, "ml-100k", config_dict={"train_neg_sample_args": None, **changes})
    assert config["train_neg_sample_args"]["distribution"] == "none"


def test_split_at_a_time(small_data: Path, in_tmp: Path):
    settings = {
        "data_path": str(small_data),
        "eval_args": {"split": {"TS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": "user", "mode": "full"},
        "state": "error",
    }
    train, valid, test = (
        split_interactions(loader._dataset) for loader in load_data(FairConfig("BPR", "small", config_dict=settings))
    )
    times = np.concatenate([part.time for part in (train, valid, test)])
    boundary = np.percentile(times, 90)
    assert max(train.time.max(), valid.time.max()) <= boundary < test.time.min()
    for user in np.unique(valid.user):
        assert train.time[train.user == user].max() <= valid.time[valid.user == user].min()
