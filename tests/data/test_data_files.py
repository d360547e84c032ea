"""Data that cannot be used end in one sentence; data that can be used are left alone."""

from __future__ import annotations

import logging
import urllib.error
import zipfile
from pathlib import Path
from typing import Any

import pytest
from recbole.data.dataset import Dataset
from recbole.utils import url as recbole_url

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.reading.atomic_files import ensure_atomic_files
from recbole_fair.data.reading.checks import check_dataset, filtering_errors
from recbole_fair.data.reading.prepare import create_dataset, load_data
from recbole_fair.data.reading.table import form_of, read_header
from recbole_fair.data.reading.times import why_time
from recbole_fair.errors import FairError

HEADER = "user_id:token\titem_id:token\ttimestamp:float"


def data(folder: Path, rows: list[str], header: str = HEADER, name: str = "own") -> Path:
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    (target / f"{name}.inter").write_text("\n".join([header, *rows]) + "\n" if header else "")
    return folder


def config_for(folder: Path, model: str = "BPR", **settings: Any) -> FairConfig:
    name = settings.pop("name", "own")
    return FairConfig(model, name, config_dict={"data_path": str(folder), **settings})


def load(config: FairConfig) -> Dataset:
    ensure_atomic_files(config)
    with filtering_errors(config):
        dataset = create_dataset(config)
    check_dataset(config, dataset)
    return dataset


def some_rows(users: int = 12, items: int = 15) -> list[str]:
    return [f"u{u}\ti{(u + step * 2) % items}\t{step}" for u in range(users) for step in range(6)]


def test_missing_file_without_known_download_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "ml-own").mkdir()
    with pytest.raises(FairError, match=r"dataset='ml-owm'.*ml-owm\.inter; set --data_path.*did you mean 'ml-own'"):
        ensure_atomic_files(config_for(tmp_path, name="ml-owm"))


def test_missing_file_without_network_names_path_and_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(recbole_url.ur, "urlopen", no_network)
    with pytest.raises(FairError, match=r"yelp\.inter and the download from https://\S+ failed .*no route to host"):
        ensure_atomic_files(config_for(tmp_path, name="yelp"))
    assert list(tmp_path.iterdir()) == []


def test_known_data_set_is_downloaded_and_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "served.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("yelp.inter", "\n".join([HEADER, *some_rows()]) + "\n")

    def served(address: str, folder: str) -> str:
        target = Path(folder) / address.rpartition("/")[2]
        target.write_bytes(archive.read_bytes())
        return str(target)

    monkeypatch.setattr(recbole_url, "decide_download", lambda _: True)
    monkeypatch.setattr(recbole_url, "download_url", served)
    root = tmp_path / "data"
    assert load(config_for(root, name="yelp")).inter_num == len(some_rows())
    assert [file.name for file in (root / "yelp").iterdir()] == ["yelp.inter"]
    assert [folder.name for folder in root.iterdir()] == ["yelp"]


@pytest.mark.parametrize(
    ("rows", "header", "model", "says"),
    [
        ([], "", "BPR", "is empty; its first line must name the columns"),
        ([], HEADER, "BPR", "has a header but no interactions"),
        ([], HEADER, "GRU4Rec", "has a header but no interactions"),
        (["a,b,1"], "user_id:token,item_id:token,timestamp:float", "BPR", "is not name:type"),
        (["a\tb"], "user_id:token\titem_id:word", "BPR", "'item_id:word' is not name:type"),
        (["1.0\tb"], "user_id:float\titem_id:token", "BPR", "holds ids and must be user_id:token, not user_id:float"),
        (["a\tb"], "user_id:token\titm_id:token", "BPR", r"ITEM_ID_FIELD='item_id' is not a column.*'itm_id'"),
        (
            ["a\tb"],
            "user_id:token\titem_id:token",
            "GRU4Rec",
            "no column 'timestamp' and GRU4Rec reads histories in time",
        ),
        (["a\tb\t1"], HEADER.replace("float", "token"), "GRU4Rec", "must be timestamp:float to be ordered"),
        (["a\tb\t1", "a\tc\t", "a\td\t"], HEADER, "GRU4Rec", r"2 of 3 interactions have no timestamp.*line 3\)"),
        (["a\tb\t1", "a\tc\tnan"], HEADER, "GRU4Rec", r"1 of 2 interactions have no timestamp"),
        (["a\tb\t1", "a\tc\tinf"], HEADER, "GRU4Rec", r"1 of 2 interactions have no timestamp"),
        (["a\tb\t1", "a\tc\tyesterday"], HEADER, "GRU4Rec", "something that is not a number"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, rows: list[str], header: str, model: str, says: str) -> None:
    with pytest.raises(FairError, match=says) as caught:
        load(config_for(data(tmp_path, rows, header), model))
    assert "own.inter" in str(caught.value)


def test_other_names_of_users_and_items_are_loaded(tmp_path: Path) -> None:
    folder = data(tmp_path, some_rows(), HEADER.replace("user_id", "uid").replace("item_id", "iid"))
    config = config_for(folder, USER_ID_FIELD="uid", ITEM_ID_FIELD="iid", topk=[5])
    assert load(config).inter_num == len(some_rows())


@pytest.mark.parametrize("model", ["BPR", "SASRec"])
def test_files_in_another_encoding(model: str, tmp_path: Path, in_tmp: Path) -> None:
    data(tmp_path, some_rows())
    (tmp_path / "own" / "own.inter").write_bytes(
        "\n".join([HEADER, *some_rows(), "u1\ti\xe9\t9", ""]).encode("latin-1")
    )
    with pytest.raises(FairError, match=r"(?i)set encoding"):
        load_data(config_for(tmp_path, model, topk=[5], state="error"))
    load_data(config_for(tmp_path, model, topk=[5], state="error", encoding="latin-1"))


def test_a_byte_order_mark(tmp_path: Path) -> None:
    data(tmp_path, some_rows(), "\ufeff" + HEADER)
    assert load(config_for(tmp_path)).inter_num == len(some_rows())


def test_what_recbole_cannot_read_is_a_sentence(tmp_path: Path, in_tmp: Path) -> None:
    data(tmp_path, some_rows())
    with pytest.raises(FairError, match=r"dataset='own' cannot be read: \[own.kg\] not found"):
        load_data(config_for(tmp_path, "CKE", topk=[5], state="error"))


def test_a_threshold_needs_its_column(tmp_path: Path) -> None:
    config = config_for(data(tmp_path, some_rows()), "FM", threshold={"ratng": 4}, metrics=["AUC"])
    with pytest.raises(FairError, match=r"threshold: 'ratng' is not a column"):
        ensure_atomic_files(config)


def parts(folder: Path, header: str, lists: int) -> Path:
    """Finished splits, a row each with the past items where there is a column for them."""
    target = folder / "own"
    target.mkdir(parents=True)
    for part, users in (("train", range(9)), ("valid", range(9, 11)), ("test", range(11, 13))):
        past = " ".join(f"i{item}" for item in reversed(range(lists)))
        rows = [f"u{user}\ti{user}\t{user}" + (f"\t{past}\tw{user}" if "list" in header else "") for user in users]
        (target / f"own.{part}.inter").write_text("\n".join([header, *rows]) + "\n")
    return folder


def test_past_items_of_finished_splits(tmp_path: Path, in_tmp: Path) -> None:
    settings: dict[str, Any] = {"benchmark_filename": ["train", "valid", "test"], "topk": [3], "state": "error"}
    listed = HEADER + "\titem_id_list:token_seq\twish_list:token"
    config = config_for(parts(tmp_path / "short", listed, 4), "SASRec", **settings, MAX_ITEM_LIST_LENGTH=8)
    train, *_ = load_data(config)
    dataset = train._dataset
    named = [dataset.id2token("item_id", item) for item in dataset.inter_feat["item_id_list"][0].tolist()[:4]]
    assert named == ["i3", "i2", "i1", "i0"]  # the list has the items' ids, not its own
    config = config_for(parts(tmp_path / "long", listed, 9), "SASRec", **settings, MAX_ITEM_LIST_LENGTH=6)
    config["load_col"] = {"inter": ["user_id", "item_id", "timestamp", "item_id_list", "wish_list"]}
    train, *_ = load_data(config)
    feat = train._dataset.inter_feat
    named = [train._dataset.id2token("item_id", item) for item in feat["item_id_list"][0].tolist()]
    assert named == ["i5", "i4", "i3", "i2", "i1", "i0"]  # the last ones
    assert feat["item_length"].tolist() == [6] * len(feat)
    with pytest.raises(FairError, match=r"no column 'item_id_list': with benchmark_filename"):
        load_data(config_for(parts(tmp_path / "none", HEADER, 4), "SASRec", **settings))


@pytest.mark.parametrize(("model", "key"), [("GRU4RecF", "selected_features"), ("S3Rec", "item_attribute")])
def test_item_features_that_are_not_there(model: str, key: str, small_data: Path, in_tmp: Path) -> None:
    stage = {"train_stage": "pretrain"} if model == "S3Rec" else {}
    config = config_for(small_data, model, name="small", state="error", **stage)
    with pytest.raises(FairError, match=f"{key}: 'class' is not a loaded column of the items"):
        load_data(config)


def test_missing_timestamps_do_not_matter_where_time_does_not(tmp_path: Path) -> None:
    rows = [row.rpartition("\t")[0] + "\t" for row in some_rows()]
    assert load(config_for(data(tmp_path, rows))).inter_num == len(rows)
    by_time = {"eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "mode": "full"}}
    assert why_time(config_for(tmp_path, **by_time))
    with pytest.raises(FairError, match="eval_args order=TO splits by time"):
        load(config_for(tmp_path, **by_time))


def test_timestamps_are_loaded_without_being_asked_for(tmp_path: Path) -> None:
    data(tmp_path, some_rows())
    config = config_for(tmp_path, "GRU4Rec")
    assert "timestamp" not in config["load_col"]["inter"]
    ensure_atomic_files(config)
    assert config["load_col"]["inter"] == ["user_id", "item_id", "timestamp"]
    with pytest.raises(FairError, match="load_col must name 'timestamp' under inter"):
        ensure_atomic_files(config_for(tmp_path, "GRU4Rec", load_col={"inter": ["user_id", "item_id"]}))
    every_column = config_for(tmp_path, "GRU4Rec", load_col=None)
    ensure_atomic_files(every_column)
    assert every_column["load_col"] is None


@pytest.mark.parametrize(
    ("inter", "says"),
    [
        (["user_id", "item_idd"], "'item_idd' is not a column of .*did you mean 'item_id'"),
        (["user_id", "timestamp"], "load_col must name 'item_id'"),
        (None, "load_col must have an entry inter"),
    ],
)
def test_load_col_is_held_against_the_file(tmp_path: Path, inter: list[str] | None, says: str) -> None:
    data(tmp_path, some_rows())
    with pytest.raises(FairError, match=says):
        ensure_atomic_files(config_for(tmp_path, load_col={"inter": inter} if inter else {"user": ["user_id"]}))


def test_filters_that_leave_nothing(tmp_path: Path) -> None:
    config = config_for(data(tmp_path, some_rows()), user_inter_num_interval="[50,inf)")
    with pytest.raises(
        FairError, match=r"no interaction is left after filtering \(user_inter_num_interval=\[50,inf\)\)"
    ):
        load(config)


def test_catalogue_shorter_than_the_lists(tmp_path: Path) -> None:
    rows = [f"u{u}\ti{i}\t{i}" for u in range(5) for i in range(4)]
    with pytest.raises(FairError, match=r"topk=10 is longer than the catalogue: only 4 items"):
        load(config_for(data(tmp_path, rows)))
    assert load(config_for(tmp_path, topk=[4])).item_num == 5  # the padding item counts in RecBole


def test_a_user_with_one_interaction(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data(tmp_path, [*some_rows(), "lonely\ti0\t3"])
    with caplog.at_level(logging.WARNING):
        assert load(config_for(tmp_path)).user_num == 14
    assert "1 of 13 users have fewer than 3 interactions" in caplog.text
    data(tmp_path, [f"u{u}\ti{u}\t1" for u in range(20)], name="ones")
    with pytest.raises(FairError, match=r"longest history has 1 interaction.*at least 3"):
        load(config_for(tmp_path, name="ones"))
    two = [f"u{u}\ti{(u + step) % 20}\t{step}" for u in range(20) for step in range(2)]
    data(tmp_path, two, name="twos")
    test_only = {"split": {"LS": "test_only"}, "order": "TO", "mode": "full"}
    assert load(config_for(tmp_path, name="twos", eval_args=test_only)).inter_num == 40


def test_duplicate_rows_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = some_rows()
    data(tmp_path, [*rows, *rows[:3]])
    with caplog.at_level(logging.WARNING):
        load(config_for(tmp_path))
    assert f"3 of {len(rows) + 3} interactions repeat an earlier user-item pair" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert load(config_for(tmp_path, rm_dup_inter="first")).inter_num == len(rows)
    assert "repeat" not in caplog.text


def test_other_errors_of_recbole_pass_through(tmp_path: Path) -> None:
    config = config_for(data(tmp_path, some_rows()))
    with pytest.raises(ValueError, match="something else"), filtering_errors(config):
        raise ValueError("something else")


def test_benchmark_files_are_looked_for_by_name(tmp_path: Path) -> None:
    data(tmp_path, some_rows())
    for part in ("train", "valid"):
        (tmp_path / "own" / f"own.{part}.inter").write_text("\n".join([HEADER, *some_rows()]) + "\n")
    with pytest.raises(FairError, match=r"own\.test\.inter"):
        ensure_atomic_files(config_for(tmp_path, benchmark_filename=["train", "valid", "test"]))


def test_header_keeps_order_and_types(small_data: Path) -> None:
    header = read_header(small_data / "small" / "small.inter", form_of(config_for(small_data, name="small")))
    assert list(header.items()) == [
        ("user_id", "token"),
        ("item_id", "token"),
        ("rating", "float"),
        ("timestamp", "float"),
    ]
