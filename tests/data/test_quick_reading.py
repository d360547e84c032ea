"""Data sets from our reading are those from RecBole's own, column by column and split by split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from recbole.data.dataset import Dataset, KnowledgeBasedDataset, SequentialDataset
from recbole.data.interaction import Interaction
from recbole.utils import init_seed

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.reading.quick import QuickReading, quick

SETTINGS = ("field2type", "field2source", "field2seqlen", "field2bucketnum")


def same_table(ours: Any, theirs: Any) -> None:
    if theirs is None:
        assert ours is None
        return
    assert list(ours.columns) == list(theirs.columns)
    assert len(ours) == len(theirs)
    for name in theirs.columns:
        left, right = ours[name], theirs[name]
        if isinstance(theirs, Interaction):
            assert left.dtype == right.dtype, name
            np.testing.assert_array_equal(left.numpy(), right.numpy(), err_msg=name)
        elif right.dtype == object:
            for one, other in zip(left, right, strict=True):
                np.testing.assert_array_equal(one, other, err_msg=name)
        else:
            # pandas' Python engine reads decimals to the last bit but one.
            assert left.dtype == right.dtype, name
            np.testing.assert_allclose(left.to_numpy(), right.to_numpy(), rtol=5e-16, err_msg=name)


def same_dataset(ours: Dataset, theirs: Dataset) -> None:
    for name in SETTINGS:
        assert dict(getattr(ours, name)) == dict(getattr(theirs, name)), name
    assert ours.field2id_token.keys() == theirs.field2id_token.keys()
    for field, tokens in theirs.field2id_token.items():
        assert ours.field2id_token[field].dtype == tokens.dtype, field
        assert ours.field2id_token[field].tolist() == tokens.tolist(), field
        assert ours.field2token_id[field] == theirs.field2token_id[field], field
    assert ours.feat_name_list == theirs.feat_name_list
    for name in theirs.feat_name_list:
        same_table(getattr(ours, name), getattr(theirs, name))
    for field, weights in theirs._preloaded_weight.items():
        np.testing.assert_array_equal(ours._preloaded_weight[field], weights)


def compare(model: str, name: str, kind: type[Dataset] = Dataset, built: bool = True, **settings: Any) -> Dataset:
    """Read a data set both ways and compare what comes out, before and after the split."""

    def made(own: type[Dataset]) -> Dataset:
        return own(FairConfig(model, name, config_dict={"state": "error", **settings}))

    ours, theirs = made(quick(kind)), made(kind)
    assert isinstance(ours, QuickReading)
    assert not isinstance(theirs, QuickReading)
    same_dataset(ours, theirs)
    assert str(ours) == str(theirs)
    if built:
        splits = []
        for dataset in (ours, theirs):
            init_seed(1, True)
            splits.append(dataset.build())
        for left, right in zip(*splits, strict=True):
            same_dataset(left, right)
    return ours


EVERY = {
    "inter": ["user_id", "item_id", "rating", "timestamp"],
    "user": ["user_id", "age", "gender", "occupation", "zip_code"],
    "item": ["item_id", "movie_title", "release_year", "class"],
}


def eval_args(split: dict[str, Any], order: str = "TO", group_by: str | None = "user") -> dict[str, Any]:
    return {"split": split, "order": order, "group_by": group_by, "mode": "full"}


@pytest.mark.parametrize(
    "settings",
    [
        {"load_col": EVERY},
        {"load_col": EVERY, "user_inter_num_interval": "[40,inf)", "item_inter_num_interval": "[30,200]"},
        {"load_col": EVERY, "item_inter_num_interval": "[20,100);[300,inf)", "rm_dup_inter": "first"},
        {"load_col": EVERY, "val_interval": {"rating": "[4,5]", "gender": ["F"]}, "item_inter_num_interval": "[3,inf)"},
        {"load_col": EVERY, "filter_inter_by_user_or_item": False, "seq_len": {"movie_title": 2, "class": 1}},
        {"eval_args": eval_args({"RS": [0.7, 0.2, 0.1]}, "RO")},
        {"eval_args": eval_args({"RS": [0.8, 0.1, 0.1]}, "TO", None)},
        {"eval_args": eval_args({"LS": "valid_only"})},
        {"eval_args": eval_args({"LS": "test_only"}, "RO")},
        {"eval_args": eval_args({"TS": [0.8, 0.1, 0.1]}), "load_col": EVERY},
    ],
    ids=lambda settings: " ".join(settings) + f" {settings.get('eval_args', '')}",
)
def test_ml_100k_is_what_recbole_reads(settings: dict[str, Any]) -> None:
    loaded = {"load_col": {"inter": EVERY["inter"]}, **settings}
    compare("BPR", "ml-100k", **loaded)


def test_knowledge_graphs() -> None:
    dataset = compare("CKE", "ml-100k", KnowledgeBasedDataset, load_col=None, entity_kg_num_interval="[5,inf)")
    assert dataset.entity_num > dataset.item_num


def test_numerical_features() -> None:
    settings: dict[str, Any] = {"numerical_features": ["rating"], "discretization": None}
    compare("FM", "ml-100k", load_col={"inter": ["user_id", "item_id", "rating"]}, **settings)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A small data set with missing features, users and items without interactions, vectors, and rows for one id."""
    folder = tmp_path / "own"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = [f"u{rng.integers(9)}\ti{rng.integers(12)}\t{rng.integers(1, 6)}\t{time}" for time in range(120)]
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    (folder / "own.inter").write_text("\n".join([head, *rows]) + "\n")
    users = [
        f"u{user}\t{'' if user % 3 == 0 else 'MF'[user % 2]}\t{'' if user == 4 else user / 7}" for user in range(14)
    ]
    (folder / "own.user").write_text("\n".join(["user_id:token\tgender:token\tage:float", *users, users[0]]) + "\n")
    items = [f"i{item}\t{' '.join('ABC'[: item % 4])}\t{item} {item / 3}" for item in range(3, 15)]
    (folder / "own.item").write_text("\n".join(["item_id:token\tgenre:token_seq\tprices:float_seq", *items]) + "\n")
    vectors = [f"i{item}\t{item}.5 {item / 9}" for item in range(14)]
    (folder / "own.emb").write_text("\n".join(["iid:token\tvector:float_seq", *vectors]) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"user_inter_num_interval": "[8,inf)", "item_inter_num_interval": "[5,inf)"},
        {"user_inter_num_interval": "[0,inf)"},
        {"user_inter_num_interval": "[15,20];[0,12]"},
        {"item_inter_num_interval": "(8,11)"},
        {"filter_inter_by_user_or_item": False, "item_inter_num_interval": "[0,11]"},
        {
            "additional_feat_suffix": ["emb"],
            "alias_of_item_id": ["iid"],
            "preload_weight": {"iid": "vector"},
            "val_interval": {"age": "[0,inf)"},
        },
        {"threshold": {"rating": 3}, "metrics": ["AUC"], "normalize_field": ["age"]},
    ],
    ids=str,
)
def test_a_hostile_data_set_is_what_recbole_reads(hostile: Path, settings: dict[str, Any]) -> None:
    dataset = compare("FM", "own", data_path=str(hostile), load_col=None, topk=[3], **settings)
    assert isinstance(dataset.inter_feat, Interaction)


def test_lists_of_finished_splits(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for part, users in (("train", range(6)), ("valid", range(6, 9)), ("test", range(9, 12))):
        rows = [f"s{user}\ti{user} i{user + 1}{' i3' * (user % 3)}\ti{user + 2}" for user in users]
        head = "user_id:token\titem_id_list:token_seq\titem_id:token"
        (folder / f"own.{part}.inter").write_text("\n".join([head, *rows]) + "\n")
    compare(
        "SASRec",
        "own",
        SequentialDataset,
        data_path=str(tmp_path),
        load_col=None,
        benchmark_filename=["train", "valid", "test"],
        alias_of_item_id=["item_id_list"],
    )


def test_sequences_as_recbole_makes_them(hostile: Path) -> None:
    compare("SASRec", "own", SequentialDataset, data_path=str(hostile), load_col=None, MAX_ITEM_LIST_LENGTH=5)


def test_a_data_set_that_reads_its_files_itself_is_left_alone() -> None:
    class Own(Dataset):
        def _load_feat(self, filepath: str, source: Any) -> pd.DataFrame:
            raise NotImplementedError

    assert quick(Own) is Own


@pytest.mark.parametrize("seed", range(8))
def test_filters_by_number_of_interactions(tmp_path: Path, seed: int) -> None:
    """Random data, files of features and intervals: the same rows stay, or nothing does."""
    rng = np.random.default_rng(seed)
    folder = tmp_path / "own"
    folder.mkdir()
    rows = [f"u{rng.integers(12)}\ti{int(rng.exponential(4))}" for _ in range(90)]
    (folder / "own.inter").write_text("\n".join(["user_id:token\titem_id:token", *rows]) + "\n")
    for side, size in (("user", 14), ("item", 20)):
        ids = rng.permutation(size)[: size - 2]
        lines = [f"{side}_id:token\tx:float", *(f"{side[0]}{number}\t1" for number in ids)]
        (folder / f"own.{side}").write_text("\n".join(lines) + "\n")
    choices = [None, "[0,inf)", "[3,inf)", "[5,12]", "(2,9);[12,inf)", "[6,inf);[1,2]"]
    settings: dict[str, Any] = {
        "data_path": str(tmp_path),
        "load_col": {"inter": ["user_id", "item_id"], "user": ["user_id", "x"], "item": ["item_id", "x"]},
        "user_inter_num_interval": choices[rng.integers(len(choices))],
        "item_inter_num_interval": choices[rng.integers(len(choices))],
        "filter_inter_by_user_or_item": bool(rng.integers(2)),
        "topk": [1],
    }
    try:
        Dataset(FairConfig("BPR", "own", config_dict={"state": "error", **settings}))
    except ValueError as error:
        with pytest.raises(ValueError, match=str(error)):
            quick(Dataset)(FairConfig("BPR", "own", config_dict={"state": "error", **settings}))
    else:
        compare("BPR", "own", built=False, **settings)
