"""Audits: lists of our own runs give the runs' metrics again, and each flaw of a list is counted or refused."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recbole_fair.cli import main
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.facts.interactions import split_interactions
from recbole_fair.data.reading.prepare import load_data
from recbole_fair.errors import FairError
from recbole_fair.quick_start import audit, run_recbole_fair
from recbole_fair.report.audits import AuditDocument
from recbole_fair.report.documents import document_of
from recbole_fair.runs.audited import Tables

ALL = ["NDCG", "Recall", "MRR", "GiniIndex", "ExposureGini", "ItemCoverage", "AveragePopularity", "PopularityLift",
       "UPD", "PCE", "TailPercentage", "NDCGTail", "CKL"]  # fmt: skip
SETTINGS: dict[str, Any] = {
    "metrics": ALL,
    "topk": [3, 7],
    "bootstrap": 40,
    "group_field": "genre",
    "group_metrics": ["mainstream", "popularity_taste"],
    "epochs": 1,
}


@pytest.fixture(scope="module", params=["BPR", "SASRec"])
def own_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> Any:
    """A run with its lists and its result document in files."""
    folder = tmp_path_factory.mktemp(request.param)
    files = {"recommendations_file": str(folder / "recs.csv"), "result_file": str(folder / "out.json")}
    settings = {**SETTINGS, "data_path": str(small_data), "checkpoint_dir": str(folder / "saved")}
    if request.param == "SASRec":
        settings["mask_seen"] = "none"  # the lists that the metrics rate are those that are written
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = run_recbole_fair(request.param, "small", config_dict={**settings, **files})
    return folder, result, settings


def same(one: Any, other: Any) -> None:
    assert list(one) == list(other)
    for key in one:
        assert one[key] == pytest.approx(other[key], abs=1e-9, nan_ok=True), key


def test_own_lists_give_the_run_s_metrics(own_run: Any, in_tmp: Path) -> None:
    folder, result, settings = own_run
    found = audit([folder / "recs.csv"], run=folder / "out.json")
    same(found["test_result"], result["test_result"])
    same(found["intervals"], result["intervals"])
    assert found["groups"] == result["groups"]
    assert found["lorenz_curves"]["recs"] == result["curves"]["lorenz"]
    assert found["popularity"] == result["popularity"]
    again = audit([folder / "recs.csv"], dataset="small", model=result["model"], config_dict=settings)
    same(again["test_result"], result["test_result"])


def test_tables_give_the_same_as_the_data_set(own_run: Any, in_tmp: Path, small_data: Path) -> None:
    """The parts of the split, written as csv by another road, with ids in another order."""
    folder, result, settings = own_run
    config = FairConfig(result["model"], "small", config_dict=settings)
    from recbole.utils import init_seed

    init_seed(config["seed"], config["reproducibility"])
    loaders = load_data(config)
    for part, loader in zip(("train", "valid", "test"), loaders, strict=True):
        inter = split_interactions(loader._dataset)
        ids = [loader._dataset.id2token(field, of) for field, of in (("user_id", inter.user), ("item_id", inter.item))]
        pd.DataFrame({"user": ids[0], "item": ids[1], "time": inter.time}).to_csv(f"{part}.csv", index=False)
    items = pd.read_csv(small_data / "small" / "small.item", sep="\t")
    items.columns = ["item", "title", "genre"]
    known = set(pd.concat([pd.read_csv(f"{part}.csv") for part in ("train", "valid", "test")])["item"])
    items["genre"] = items["genre"].str.replace(" ", "|")
    items[items["item"].isin(known)].to_csv("items.csv", index=False)
    tables = Tables("train.csv", "test.csv", items="items.csv")
    metrics = {key: settings[key] for key in ("topk", "group_field")}
    metrics["metrics"] = [name for name in ALL if name not in ("UPD", "TailPercentage", "NDCGTail")]  # ties go by id
    found = audit([folder / "recs.csv"], tables, config_dict=metrics)
    same(found["test_result"], {key: result["test_result"][key] for key in found["test_result"]})
    assert len(found["test_result"]) == 2 * len(metrics["metrics"])


TRAIN = [("u1", "a"), ("u1", "b"), ("u2", "a"), ("u3", "c"), ("u3", "a"), ("u2", "d")]
TEST = [("u1", "c"), ("u2", "b"), ("u3", "d"), ("u3", "b")]


def write(path: str, rows: list[Any], header: tuple[str, ...] = ("user", "item")) -> str:
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(header)
        out.writerows(rows)
    return path


def tables(**options: Any) -> Tables:
    return Tables(write("train.csv", TRAIN), write("test.csv", TEST), **options)


RANKED = ("user", "item", "rank")
SMALL = {"topk": [3], "metrics": ["NDCG", "Recall", "MRR", "ItemCoverage", "AveragePopularity"]}


def measured(rows: list[Any], header: tuple[str, ...] = RANKED, **options: Any) -> AuditDocument:
    return audit([write("lists.csv", rows, header)], tables(), config_dict={**SMALL, **options})


def test_places_stay_as_the_system_filled_them(in_tmp: Path) -> None:
    rows = [
        ("u1", "new", 1), ("u1", "c", 2), ("u1", "c", 3),  # an unknown item, then a hit, then the hit once more
        ("u2", "c", 1), ("u2", "b", 3),  # a gap in front of the hit
        ("stranger", "a", 1),
    ]  # fmt: skip
    found = measured(rows)
    discount = 1 / math.log2(3), 1 / math.log2(4)
    result = found.test_result
    assert result is not None
    assert result["ndcg@3"] == pytest.approx((discount[0] + discount[1] + 0) / 3)
    assert result["mrr@3"] == pytest.approx((1 / 2 + 1 / 3 + 0) / 3)
    assert result["recall@3"] == pytest.approx(2 / 3)
    assert result["itemcoverage@3"] == pytest.approx(2 / 4)
    assert result["averagepopularity@3"] == pytest.approx(1)  # over places: c and b have 1 each
    assert found.lists["lists"] == {
        "rows": 6, "users": 3, "users_without_list": 1, "other_users": 1, "unknown_items": 1, "repeated_items": 1,
        "lists_with_gaps": 1,
    }  # fmt: skip
    text = " ".join(found.notes)
    for said in ("1 of 3 users have no list", "1 of 3 users of the lists are not evaluated", "1 items that are not in",
                 "1 places repeat an item", "1 lists have gaps"):  # fmt: skip
        assert said in text, said


def test_scores_orders_and_whole_lists_mean_the_same(in_tmp: Path) -> None:
    ranked = measured([("u1", "c", 1), ("u1", "d", 2), ("u2", "d", 1), ("u2", "b", 2), ("u3", "a", 1), ("u3", "b", 2)])
    rows = [("u1", "d", 1), ("u1", "c", 0), ("u2", "d", 0), ("u2", "b", 1), ("u3", "a", 0), ("u3", "b", 1)]
    from_zero = measured(rows)
    by_score = measured(
        [("u1", "d", 0.5), ("u2", "d", 3), ("u1", "c", 0.7), ("u2", "b", -1), ("u3", "a", 9), ("u3", "b", 8)],
        ("user", "item", "score"),
    )
    pairs = [("u1", "c"), ("u2", "d"), ("u1", "d"), ("u2", "b"), ("u3", "a"), ("u3", "b")]
    as_they_stand = measured(pairs, ("user", "item"))
    whole = {"u1": ["c", "d"], "u2": ["d", "b"], "u3": ["a", "b"]}
    Path("wide.jsonl").write_text("\n".join(json.dumps({"user": u, "items": i}) for u, i in whole.items()))
    wide = audit(["wide.jsonl"], tables(), config_dict=SMALL)
    for other in (from_zero, by_score, as_they_stand, wide):
        assert other.test_result == ranked.test_result
    assert any("begin at 0" in note for note in from_zero.notes)
    assert any("neither ranks nor scores" in note for note in as_they_stand.notes)
    assert any("2 places hold items of their user's training history" in note for note in ranked.notes)  # d and a


@pytest.mark.parametrize(
    ("rows", "header", "says"),
    [
        ([("u1", "a", 1), ("u1", "c", 1)], RANKED, r"rows 1 and 2 are of one user and have the same rank, 1"),
        ([("u1", "a", 1.5)], RANKED, r"ranks are whole numbers from 1, but row 1 has 1.5"),
        ([("u1", "a", -1)], RANKED, r"row 1 has -1"),
        ([("u1", "a", "first")], RANKED, r"row 1 has the rank 'first', which is no number"),
        ([("u1", "a", "nan")], ("user", "item", "score"), r"which is no number"),
        ([("u1", "", 1)], RANKED, r"row 1 has no item"),
        ([("1", "a", 1), ("2", "b", 1)], RANKED, r"none of its 2 users is evaluated"),
        ([("u1", "A", 1), ("u2", "B", 1)], RANKED, r"none of its items is known, such as 'A'"),
        ([], RANKED, r"has columns but no rows"),
        ([("a", 1)], ("item", "rank"), r"which column holds the users"),
    ],
)
def test_lists_that_cannot_be_read(in_tmp: Path, rows: list[Any], header: tuple[str, ...], says: str) -> None:
    with pytest.raises(FairError, match=says):
        measured(rows, header)


def test_what_cannot_be_measured(in_tmp: Path) -> None:
    rows = [("u1", "c", 1)]
    with pytest.raises(FairError, match="GAUC needs the scores of all items"):
        measured(rows, metrics=["GAUC"])
    with pytest.raises(FairError, match=r"AUC.*rate single rows"):
        measured(rows, metrics=["AUC"])
    with pytest.raises(FairError, match=r"learning_rate=0\.1 has no effect"):
        measured(rows, learning_rate=0.1)
    with pytest.raises(FairError, match="Say what to measure on"):
        audit(["lists.csv"])
    with pytest.raises(FairError, match="names 1 systems, and there are 2 files"):
        audit(["lists.csv", "lists.csv"], tables(), names=["one"])


def test_exposure_alone_without_a_test_part(in_tmp: Path) -> None:
    lists = write("lists.csv", [("u1", "c", 1), ("u9", "d", 1), ("u9", "x", 2)], RANKED)
    train = Tables(write("train.csv", TRAIN))
    found = audit([lists], train, config_dict=SMALL)
    assert found.test_result == {"itemcoverage@3": pytest.approx(2 / 4), "averagepopularity@3": pytest.approx(1.0)}
    assert found.n_users == 2
    with pytest.raises(FairError, match="no held-out items"):
        audit([lists], train, config_dict={"metrics": ["NDCG"]})


def test_two_systems_are_tested_against_each_other(own_run: Any, in_tmp: Path) -> None:
    folder, result, _ = own_run
    lists = pd.read_csv(folder / "recs.csv")
    popular = lists.groupby("item_id").size().sort_values(ascending=False).index[:7]
    users = lists["user_id"].unique()
    worse = [(user, item, rank) for user in users for rank, item in enumerate(popular, start=1)]
    write("popular.csv", worse, RANKED)
    settings = {"bootstrap": 0, "group_metrics": ["mainstream"]}
    files = [folder / "recs.csv", "popular.csv"]
    found = audit(files, run=folder / "out.json", names=["ours", "most shown"], config_dict=settings)
    same(found["base_test_result"], result["test_result"])
    assert list(found["variants"]) == ["ours", "most shown"]
    rows = {row["metric"]: row for row in found.comparisons}
    assert set(rows) == set(result["test_result"])
    one, other = (pd.read_csv(f"results/audit-small/users-{name}.csv") for name in ("ours", "most_shown"))
    row = rows["ndcg@7"]
    assert row["difference"] == pytest.approx(other["ndcg@7"].mean() - one["ndcg@7"].mean(), abs=1e-9)
    from scipy.stats import ttest_rel

    assert row["p_t"] == pytest.approx(ttest_rel(other["ndcg@7"], one["ndcg@7"]).pvalue, nan_ok=True)
    assert rows["giniindex@7"]["low"] > 0  # seven items for everybody are shown less evenly
    stored = json.loads(Path("results/audit-small/audit.json").read_text())
    back = document_of(stored, "audit.json")
    assert isinstance(back, AuditDocument)
    assert back.to_plain() == found.to_plain()
    page = Path("results/audit-small/report.html").read_text()
    for said in ("Lists of ours and most shown on small", "Differences from ours", "items are shown less evenly",
                 "Over users, most shown differs from ours"):  # fmt: skip
        assert said in page, said


def test_groups_of_users_and_titles_from_tables(in_tmp: Path) -> None:
    users = write("users.csv", [("u1", "x"), ("u2", "y"), ("u3", "y")], ("user", "side"))
    items = write("items.csv", [(i, f"Title {i}") for i in "abcdef"], ("item", "title"))
    lists = write("lists.csv", [("u1", "c", 1), ("u2", "e", 1), ("u3", "b", 1)], RANKED)
    settings = {**SMALL, "group_metrics": {"side": {"metrics": ["Recall"]}}}
    found = audit([lists], tables(users=users, items=items), config_dict=settings)
    assert found.test_result is not None
    assert found.test_result["itemcoverage@3"] == pytest.approx(3 / 6)  # the catalogue is that of the items' table
    values = found["groups"]["side"]["groups"]
    assert [(row["group"], row["values"]["recall@3"]) for row in values] == [("x", 1.0), ("y", 0.25)]
    table = pd.read_csv("results/audit-train/items-lists.csv")
    assert dict(zip(table["item_id"], table["title"], strict=True))["e"] == "Title e"
    popularity = {"a": 3, "b": 1, "c": 1, "d": 1}
    np.testing.assert_array_equal(table["popularity"], [popularity.get(item, 0) for item in table["item_id"]])


def test_the_command(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables()
    write("lists.csv", [("u1", "c", 1), ("u2", "d", 1)], RANKED)
    with pytest.raises(SystemExit) as ended:
        main(["audit", "lists.csv", "--train", "train.csv", "--test=test.csv", "--topk=2", "--metrics=[NDCG]"])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert "ndcg@2" in out
    assert "results/audit-train" in out
    assert Path("results/audit-train/report.html").is_file()
    with pytest.raises(SystemExit) as ended:
        main(["audit", "--train", "train.csv"])
    assert ended.value.code == 2
    assert "Name at least one file of lists" in capsys.readouterr().err
