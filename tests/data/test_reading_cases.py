"""Small files that once gave wrong numbers without a word: each is read rightly, or is one sentence."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from recbole.data.dataset import Dataset

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.facts.groups import load_item_groups
from recbole_fair.data.reading.prepare import load_data
from recbole_fair.data.reading.titles import item_titles
from recbole_fair.errors import FairError

HEAD = "user_id:token\titem_id:token\trating:float\ttimestamp:float"


def rows(users: int = 6, items: int = 7) -> list[str]:
    return [f"u{user}\ti{(user + step) % items}\t{1 + step % 5}\t{step}" for user in range(users) for step in range(4)]


def write(folder: Path, lines: list[str], kind: str = "inter", name: str = "own") -> Path:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / f"{name}.{kind}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def loaded(folder: Path, model: str = "BPR", **settings: Any) -> Dataset:
    given = {"data_path": str(folder), "state": "error", "topk": [3], **settings}
    train, *_ = load_data(FairConfig(model, "own", config_dict=given))
    return train._dataset


@pytest.fixture
def own(tmp_path: Path, in_tmp: Path) -> Path:
    return write(tmp_path, [HEAD, *rows()])


def comma(folder: Path, titles: list[str]) -> Path:
    write(folder, [line.replace("\t", ",") for line in [HEAD, *rows()]])
    items = [f"i{item},{title},{'Drama' if item % 2 else 'Action'}" for item, title in enumerate(titles)]
    return write(folder, ["item_id:token,title:token_seq,genre:token_seq", *items], "item")


def test_the_item_file_is_read_once_by_one_rule(own: Path) -> None:
    plain = [f"Film {item}" for item in range(7)]
    quoted = [*plain[:3], '"Film 3, The ""Third"""', '"Film\n4"', *plain[5:]]
    groups = []
    for titles in (plain, quoted):
        comma(own, titles)
        load_col = {"inter": ["user_id", "item_id"], "item": ["item_id", "title", "genre"]}
        for settings in ({}, {"load_col": load_col}):
            dataset = loaded(own, field_separator=",", **settings)
            found = load_item_groups(dataset, "genre")
            groups.append((found.names, found.matrix.toarray().tolist()))
            by_id = dict(zip(dataset.field2id_token["item_id"], item_titles(dataset) or [], strict=True))
            assert by_id["i3"] == ('Film 3, The "Third"' if titles is quoted else "Film 3")
            assert by_id["i4"] == ("Film\n4" if titles is quoted else "Film 4")
    assert all(found == groups[0] for found in groups)
    comma(own, [*plain[:3], '"Film 3', *plain[4:6], "The last"])
    with pytest.raises(FairError, match=r"own.item, line 5: a quote that is opened there is never closed"):
        item_titles(dataset)


@pytest.mark.parametrize("kind", ["inter", "item", "user"])
def test_a_row_of_another_width(own: Path, kind: str) -> None:
    side = {"inter": HEAD, "item": "item_id:token\tgenre:token", "user": "user_id:token\tgender:token"}[kind]
    width = side.count("\t") + 1
    lines = rows() if kind == "inter" else [f"{kind[0]}{number}\tx" for number in range(7)]
    settings = {} if kind == "inter" else {"load_col": {"inter": ["user_id", "item_id"], kind: [side[:7], side[14:-6]]}}
    for change in (lambda line: line + "\t9", lambda line: line + "\t", lambda line: line.rpartition("\t")[0]):
        write(own, [side, *lines[:2], change(lines[2]), *lines[3:]], kind)
        with pytest.raises(FairError, match=rf"own.{kind}, line 4: \d cells where the header names {width} columns"):
            loaded(own, **settings)
    write(own, [side, *(line + "\t" for line in lines)], kind)
    with pytest.raises(FairError, match=rf"own.{kind}, line 2"):
        loaded(own, **settings)


def test_ids_that_pandas_takes_for_missing(own: Path) -> None:
    names = {"u0": "NA", "u1": "null", "i0": "nan", "i1": "None", "i2": "007", "u2": "N/A"}
    text = (own / "own" / "own.inter").read_text()
    for old, new in names.items():
        text = text.replace(f"{old}\t", f"{new}\t")
    (own / "own" / "own.inter").write_text(text)
    write(own, ["item_id:token\tgenre:token", "nan\tA", "None\tB", "007\tNA"], "item")
    dataset = loaded(own, eval_args={"split": {"LS": "test_only"}, "order": "TO", "mode": "full"})
    assert set(dataset.field2id_token["user_id"]) == {"[PAD]", "NA", "null", "N/A", "u3", "u4", "u5"}
    assert {"nan", "None", "007"} < set(dataset.field2id_token["item_id"])
    assert dataset.user_num == 7
    assert set(load_item_groups(dataset, "genre").names) == {"A", "B", "NA"}


@pytest.mark.parametrize(("kind", "field"), [("inter", "item_id"), ("inter", "user_id"), ("item", "item_id")])
def test_an_empty_id(own: Path, kind: str, field: str) -> None:
    lines = (
        [HEAD, *rows(), "u1\t\t3\t9" if field == "item_id" else "\ti1\t3\t9"]
        if kind == "inter"
        else ["item_id:token\tgenre:token", "i0\tA", "\tB"]
    )
    write(own, lines, kind)
    settings: dict[str, Any] = {}
    if kind == "item":
        settings["load_col"] = {"inter": ["user_id", "item_id"], "item": ["item_id", "genre"]}
    with pytest.raises(FairError, match=rf"own.{kind}, line {len(lines)}: the cell of '{field}' is empty"):
        loaded(own, **settings)


def test_a_quote_does_not_swallow_rows(own: Path) -> None:
    lines = [line + "\tfine" for line in rows()]
    lines[4] = rows()[4] + '\t"great'
    lines[9] = rows()[9] + '\treally"'
    write(own, [HEAD + "\treview:token_seq", *lines])
    with pytest.raises(FairError, match=r"own.inter, line 6: a quote that is opened there is closed in line 11 only"):
        loaded(own)
    lines[9] = rows()[9] + "\treally"
    write(own, [HEAD + "\treview:token_seq", *lines])
    with pytest.raises(FairError, match=r"own.inter, line 6: a quote that is opened there is never closed"):
        loaded(own)
    lines[4] = rows()[4] + '\t"great\nand long, ""very"""'
    write(own, [HEAD + "\treview:token_seq", *lines])
    assert loaded(own, eval_args={"split": {"LS": "test_only"}, "order": "TO", "mode": "full"}).user_num == 7


def test_finished_splits_without_times(tmp_path: Path, in_tmp: Path) -> None:
    head = "session_id:token\titem_id_list:token_seq\titem_id:token"
    for part, length in (("train", 1), ("valid", 2), ("test", 3)):
        past = [" ".join(f"i{(user + step) % 7}" for step in range(length)) for user in range(6)]
        lines = [f"u{user}\t{listed}\ti{(user + length) % 7}" for user, listed in enumerate(past)]
        write(tmp_path, [head, *lines], f"{part}.inter")
    settings: dict[str, Any] = {"USER_ID_FIELD": "session_id", "load_col": None, "topk": [3]}
    dataset = loaded(tmp_path, "GRU4Rec", benchmark_filename=["train", "valid", "test"], **settings)
    assert (dataset.user_num, dataset.item_num, len(dataset)) == (7, 8, 6)
    by_name = {"train": "own.train.inter", "test": "own.test.inter", "valid": "own.valid.inter"}
    again = loaded(tmp_path, "GRU4Rec", benchmark_filename=by_name, **settings)
    assert again.config["benchmark_filename"] == ["train", "valid", "test"]
    for field in ("item_id", "item_id_list", "item_length"):
        assert again.inter_feat[field].tolist() == dataset.inter_feat[field].tolist()


def test_a_context_column_that_ranked_items_do_not_have(own: Path) -> None:
    write(own, [HEAD + "\tweather:token", *(line + "\tsun" for line in rows())])
    settings: dict[str, Any] = {"load_col": {"inter": ["user_id", "item_id", "weather"]}, "epochs": 1}
    with pytest.raises(FairError, match="load_col: FM would read 'weather' of the interactions"):
        loaded(own, "FM", **settings)
    assert "weather" in loaded(own, "BPR", **settings).inter_feat
    assert "weather" in loaded(own, "FM", **settings, metrics=["AUC"], valid_metric="AUC").inter_feat


def test_labels_of_zero(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(own, [HEAD + "\tclick:float", *(f"{line}\t{number % 3 and 1}" for number, line in enumerate(rows()))])
    settings: dict[str, Any] = {"load_col": {"inter": ["user_id", "item_id", "click"]}, "LABEL_FIELD": "click"}
    with pytest.raises(FairError, match=r"LABEL_FIELD='click': 8 of 24 interactions have the label 0"):
        loaded(own, **settings)
    kept = loaded(own, **settings, val_interval={"click": "(0,inf)"})
    assert kept.inter_feat["click"].min() == 1
    by_label: dict[str, Any] = {"train_neg_sample_args": None, "eval_args": {"mode": "full"}}
    with caplog.at_level(logging.WARNING):
        loaded(own, "FM", **settings, **by_label)
    assert "rankings do not look at labels" in caplog.text
    values: dict[str, Any] = {"metrics": ["AUC"], "valid_metric": "AUC", "eval_args": {"mode": "labeled"}}
    assert len(loaded(own, "FM", **settings, **values).inter_feat) > 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"load_col": {"inter": ["user_id", "item_id"], "item": ["item_id", "gener"]}},
            "'gener' is not a column.*'genre'",
        ),
        ({"load_col": {"inter": ["user_id", "item_id"], "items": ["item_id"]}}, "'items' is no kind of file.*'item'"),
        (
            {"load_col": {"inter": ["user_id", "item_id"], "item": "genre"}},
            "item='genre' is not allowed",
        ),
        ({"load_col": {"inter": ["user_id", "item_id"], "user": ["user_id"]}}, "there is no file .*own.user"),
        ({"load_col": None, "unload_col": {"inter": ["item_id"]}}, "unload_col must not name 'item_id'"),
        ({"unload_col": {"inter": ["rating"]}}, r"unload_col and load_col both name columns of inter"),
        ({"load_col": None, "unload_col": {"inter": ["ratng"]}}, "unload_col: 'ratng' is not a column"),
        ({"unused_col": {"inter": ["item_id"]}}, "unused_col must not name 'item_id'"),
        ({"unused_col": {"itme": ["genre"]}}, "unused_col: 'itme' is no kind of file"),
        ({"additional_feat_suffix": ["emb"]}, "additional_feat_suffix='emb': there is no file .*own.emb"),
        ({"field_separator": ""}, "field_separator=''"),
    ],
    ids=str,
)
def test_columns_that_are_not_there(own: Path, settings: dict[str, Any], says: str) -> None:
    write(own, ["item_id:token\tgenre:token", *(f"i{item}\tA" for item in range(7))], "item")
    with pytest.raises(FairError, match=says):
        loaded(own, "FM", **settings)


def test_headers_with_a_byte_order_mark(own: Path) -> None:
    write(own, ["\ufeffitem_id:token\tgenre:token", *(f"i{item}\tA" for item in range(7))], "item")
    dataset = loaded(own, "FM", load_col={"inter": ["user_id", "item_id"], "item": ["item_id", "genre"]})
    assert list(dataset.item_feat.columns) == ["item_id", "genre"]
    write(own, ["\ufeffitem_id:token\tgenre", *(f"i{item}\tA" for item in range(7))], "item")
    with pytest.raises(FairError, match=r"own.item: the column 'genre' is not name:type"):
        loaded(own, "FM", load_col={"inter": ["user_id", "item_id"], "item": ["item_id", "genre"]})


def test_vectors_whose_ids_are_nobodys(own: Path) -> None:
    write(own, ["iid:token\temb:float_seq", *(f"i{item}\t{item} 0.5" for item in range(7))], "itememb")
    settings: dict[str, Any] = {
        "additional_feat_suffix": ["itememb"],
        "load_col": {"inter": ["user_id", "item_id"], "itememb": ["iid", "emb"]},
        "preload_weight": {"iid": "emb"},
    }
    with pytest.raises(FairError, match=r"The column 'iid' of .*own.itememb holds ids.*alias_of_item_id"):
        loaded(own, **settings)
    weights = loaded(own, **settings, alias_of_item_id=["iid"]).get_preload_weight("iid")
    assert weights.shape == (8, 2)
    write(own, ["iid:token\temb:float_seq", "i0\t1 2", "i1\t1 two"], "itememb")
    with pytest.raises(FairError, match=r"own.itememb, line 3: the column 'emb' holds something"):
        loaded(own, **settings, alias_of_item_id=["iid"])


def test_an_interval_of_a_knowledge_graph(own: Path) -> None:
    write(own, ["item_id:token\tentity_id:token", *(f"i{item}\te{item}" for item in range(7))], "link")
    triples = [f"e{head}\tr{head % 2}\te{(head + 1) % 7}" for head in range(7)]
    write(own, ["head_id:token\trelation_id:token\ttail_id:token", *triples, "e1\tr2\te3"], "kg")
    with pytest.raises(FairError, match=r"relation_kg_num_interval='\[2,inf' is not allowed: it must be an interval"):
        loaded(own, "CKE", relation_kg_num_interval="[2,inf")
    assert len(loaded(own, "CKE", relation_kg_num_interval="[2,inf)").kg_feat) == 7
    assert len(loaded(own, "CKE").kg_feat) == 8
    write(own, ["head_id:token\trelation_id:token\ttail_id:token", *triples, "e1\t\te3"], "kg")
    with pytest.raises(FairError, match=r"own.kg, line 9: the cell of 'relation_id' is empty"):
        loaded(own, "CKE")


@pytest.mark.parametrize("model", ["SASRecF", "GRU4RecF", "FDSA"])
def test_a_feature_of_numbers(own: Path, model: str) -> None:
    write(own, ["item_id:token\tprice:float\tgenre:token", *(f"i{item}\t{item}.5\tA" for item in range(7))], "item")
    load_col = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "price", "genre"]}
    for features in (["price"], ["genre", "price"]):
        with pytest.raises(FairError, match="selected_features: 'price' holds numbers"):
            loaded(own, model, load_col=load_col, selected_features=features)
    assert loaded(own, model, load_col=load_col, selected_features=["genre"]).item_num == 8


def test_val_interval_loads_the_column_that_it_chooses_rows_by(own: Path) -> None:
    every: dict[str, Any] = {"eval_args": {"split": {"LS": "test_only"}, "order": "TO", "mode": "full"}}
    dataset = loaded(own, val_interval={"rating": "[3,inf)"}, **every)  # as the sentence on threshold advises
    assert dataset.inter_feat["rating"].min() == 3
    with pytest.raises(FairError, match="load_col must name 'rating' under inter: val_interval chooses rows by it"):
        loaded(own, val_interval={"rating": "[3,inf)"}, load_col={"inter": ["user_id", "item_id", "timestamp"]})


def test_the_table_of_the_data_holds_no_colours(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        loaded(own, state="info")
    assert "The number of users: 7" in caplog.text
