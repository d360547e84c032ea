"""Item groups, user groups and metrics by group, against loops and hand-made files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from metric_cases import collect, config, evaluate, interactions, item_groups, make
from metric_oracle import ckl, genre_shares, jaccard_to_others, ndcg, random_case, segments, shares, taste_labels

from recbole_fair.data.facts.groups import (
    interest_drift,
    load_item_groups,
    mainstream_scores,
    read_column,
    taste_groups,
)
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.reading.titles import item_titles
from recbole_fair.errors import FairError
from recbole_fair.evaluator import FairCollector, FairEvaluator
from recbole_fair.evaluator import collector as collector_module
from recbole_fair.evaluator.options import MetricOptions


@pytest.mark.parametrize("cells", [1, 40, 10_000])
def test_mainstream_scores_equal_the_loop(cells: int) -> None:
    for seed in range(4):
        case = random_case(seed)
        found = mainstream_scores(Histories.from_interactions(interactions(case)), cells)
        for user in range(case.n_users):
            if case.history(user):
                assert found[user] == pytest.approx(jaccard_to_others(case, user), rel=1e-6)
            else:
                assert math.isnan(found[user])


@pytest.mark.parametrize("cells", [1, 10_000])
def test_drift_equals_the_loop_and_its_extremes(cells: int) -> None:
    for seed in range(4):
        case = random_case(seed)
        found = interest_drift(Histories.from_interactions(interactions(case)), item_groups(case), 0.01, cells)
        for user in range(case.n_users):
            history = case.history(user)
            first, second = history[: len(history) // 2], history[len(history) // 2 :]
            there, back = ckl(second, first, case.genres), ckl(first, second, case.genres)
            if there is None or back is None:
                assert math.isnan(found[user])
            else:
                assert found[user] == pytest.approx(there + back, rel=1e-12, abs=1e-12)
                assert -1e-12 <= found[user] <= 2 * math.log(100) + 1e-9
    case = random_case(0)
    case.genres = [[], ["a"], ["b"]] + [[]] * (case.n_items - 3)
    case.interactions = [(1, 1), (1, 1), (1, 1), (1, 1), (2, 1), (2, 2)]
    found = interest_drift(Histories.from_interactions(interactions(case)), item_groups(case))
    assert found[1] == pytest.approx(0, abs=1e-15)
    assert found[2] == pytest.approx(2 * math.log(100))


def test_taste_groups_are_a_fifth_three_fifths_and_a_fifth() -> None:
    share = torch.tensor([0.5, 0.1, math.nan, 0.9, 0.3, 0.3])
    assert taste_groups(share).tolist() == [1, 0, -1, 2, 1, 1]


# -- metrics by group -------------------------------------------------------------------------------------------------

GROUPINGS: dict[str, Any] = {
    "mainstream": {"metrics": ["NDCG", "UPD"], "bins": 3},
    "drift": {"metrics": ["Recall"], "thresholds": [0, 0.5, 100]},
    "popularity_taste": {"metrics": ["NDCG"]},
}


def test_groups_are_means_over_their_members(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(7)
    result = evaluate(case, monkeypatch, metrics=["NDCG", "GiniIndex"], group_metrics=GROUPINGS, group_field="genre")
    rows = list(zip(case.users, case.lists, case.positives, strict=True))
    known = [row for row in rows if case.history(row[0])]
    ranked = sorted(known, key=lambda row: jaccard_to_others(case, row[0]))
    table = result.groups["mainstream"].to_plain()
    for part, row in zip(np.array_split(np.arange(len(ranked)), 3), table["groups"], strict=True):
        assert row["size"] == len(part)
        wanted = [ndcg(ranked[r][1], ranked[r][2], 3) for r in part]
        assert row["values"]["ndcg@3"] == pytest.approx(np.mean(wanted), rel=1e-12)
    values = [row["values"]["ndcg@3"] for row in table["groups"]]
    assert table["summary"]["ndcg@3"] == pytest.approx(
        {
            "min": min(values),
            "max": max(values),
            "difference": max(values) - min(values),
            "ratio": min(values) / max(values),
        }
    )
    assert table["left_out"] == len(rows) - len(known)

    taste = taste_labels(case, segments(case.counts()))
    for row in result.groups["popularity_taste"].to_plain()["groups"]:
        members = [r for r in rows if taste.get(r[0]) == row["group"]]
        assert row["size"] == len(members)
        assert row["values"]["ndcg@8"] == pytest.approx(np.mean([ndcg(r[1], r[2], 8) for r in members]), rel=1e-12)
    niche, _, blockbuster = ([u for u, t in taste.items() if t == name] for name in ("niche", "diverse", "blockbuster"))
    labels = segments(case.counts())
    assert max(shares(case.history(u), labels)[0] for u in niche) <= min(
        shares(case.history(u), labels)[0] for u in blockbuster
    )

    drift = result.groups["drift"].to_plain()["groups"]
    assert [row["group"] for row in drift] == ["> 0", "> 0.5", "> 100"]
    assert drift[0]["size"] >= drift[1]["size"] > drift[2]["size"] == 0
    assert math.isnan(drift[2]["values"]["recall@3"])
    assert all(genre_shares(case.history(u), case.genres) for u, _, _ in known)


def test_groups_that_partition_users_average_back_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(8)
    case.interactions += [(case.n_users - 1, item) for item in (1, 2, 3)]  # now everybody has a history
    result = evaluate(case, monkeypatch, metrics=["NDCG"], group_metrics={"mainstream": {"metrics": ["NDCG"]}})
    rows = result.groups["mainstream"].to_plain()["groups"]
    assert [row["group"] for row in rows] == ["low", "med-low", "medium", "med-high", "high"]
    assert max(row["size"] for row in rows) - min(row["size"] for row in rows) <= 1
    total = sum(row["size"] * row["values"]["ndcg@8"] for row in rows) / sum(row["size"] for row in rows)
    assert total == pytest.approx(result.metrics["ndcg@8"], rel=1e-12)


# -- columns of the data set ----------------------------------------------------------------------------------------


class FakeDataset:
    """What the readers ask of a RecBole data set, over hand-written atomic files."""

    uid_field, iid_field, dataset_name = "user_id", "item_id", "toy"

    def __init__(self, path: Path, n_users: int, n_items: int) -> None:
        self.dataset_path = str(path)
        self.config = {"field_separator": "\t", "seq_separator": " ", "encoding": "utf-8"}
        # Inner ids are not the file's order: u3 is 1, u2 is 2 ...
        self.tokens = {
            "user_id": ["[PAD]", *[f"u{n_users - n}" for n in range(1, n_users)]],
            "item_id": ["[PAD]", *[f"i{n_items - n}" for n in range(1, n_items)]],
        }
        self.field2id_token = {field: np.array(tokens) for field, tokens in self.tokens.items()}
        self.field2token_id = {f: {t: n for n, t in enumerate(tokens)} for f, tokens in self.tokens.items()}

    def num(self, field: str) -> int:
        return len(self.tokens[field])

    def id2token(self, field: str, ids: Any) -> Any:
        return np.array(self.tokens[field])[np.asarray(ids)]


@pytest.fixture
def toy(tmp_path: Path) -> FakeDataset:
    (tmp_path / "toy.user").write_text(
        "user_id:token\tage:token\tgender:token\tzip:token\theight:float\n"
        "u1\t31\tF\tx\t1.5\nu2\t9\tM\ty\t1.6\nu3\t20\t\tz\t1.7\nu9\t99\tM\tq\t1\n"
    )
    (tmp_path / "toy.item").write_text(
        "item_id:token\tmovie_title:token_seq\tclass:token_seq\tyear:float\n"
        'i1\t"Half ""a"" quote"\tA B\t1999\ni2\tTwo\t\t2000\ni3\tThree\tB B\t2001\nunknown\tX\tC\t1\n'
    )
    return FakeDataset(tmp_path, 4, 5)


def test_columns_follow_inner_ids(toy: FakeDataset) -> None:
    assert read_column(toy, "user", "gender", "x").values.tolist() == ["", "", "M", "F"]
    assert item_titles(toy) == ["", "", "Three", "Two", 'Half "a" quote']
    groups = load_item_groups(toy, "class")
    assert groups.names == ("B", "A")  # C belongs to no item of the data set
    assert groups.matrix.toarray().tolist() == [[0, 0], [0, 0], [1, 0], [0, 0], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: read_column(d, "user", "sex", "group_metrics.sex"), "group_metrics.sex needs the column 'sex'.*age"),
        (lambda d: load_item_groups(d, "genre"), "group_field needs the column 'genre'.*class"),
        (lambda d: load_item_groups(d, "year"), "column of numbers"),
        (lambda d: load_item_groups(d, None, "CKL"), "CKL needs item groups: set group_field.*movie_title, class"),
        (lambda d: read_column(FakeDataset(Path("nowhere"), 4, 4), "user", "age", "k"), "no file nowhere"),
    ],
)
def test_missing_columns_are_named(toy: FakeDataset, call: Any, message: str) -> None:
    with pytest.raises(FairError, match=message):
        call(toy)


def prepared(toy: FakeDataset, monkeypatch: pytest.MonkeyPatch, **given: Any) -> FairCollector:
    from recbole_fair.data.facts.interactions import Interactions

    user, item = np.array([1, 1, 2, 2, 3]), np.array([1, 2, 2, 3, 4])
    time = None if given.pop("untimed", False) else np.arange(5.0)
    monkeypatch.setattr(collector_module, "training_interactions", lambda d: Interactions(user, item, time, 4, 5))
    collector = FairCollector(config(**{"metrics": ["NDCG"], **given}))
    collector.data_collect(toy)
    return collector


def test_any_user_column_groups_users(toy: FakeDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole.data.interaction import Interaction

    groupings = {"gender": {"metrics": ["Hit"]}, "age": {"metrics": ["Hit"], "bins": 2}, "height": {"metrics": ["Hit"]}}
    collector = prepared(toy, monkeypatch, group_metrics=groupings, topk=[1])
    scores = torch.tensor([[-math.inf, 4.0, 3.0, 2.0, 1.0]]).repeat(3, 1)
    users = Interaction({"user_id": torch.tensor([1, 2, 3])})
    collector.eval_batch_collect(scores, users, torch.tensor([0, 1, 2]), torch.tensor([1, 1, 2]))
    result = FairEvaluator(collector.config).result(collector.get_data_struct())
    gender = result.groups["gender"].to_plain()
    found = {row["group"]: (row["size"], row["values"]["hit@1"]) for row in gender["groups"]}
    assert found == {"F": (1, 0.0), "M": (1, 1.0)}
    assert gender["left_out"] == 1
    # Ages by inner id: 20, 9, 31. Two bins: {9, 20} and {31}.
    ages = result.groups["age"].to_plain()["groups"]
    assert [(row["size"], row["values"]["hit@1"]) for row in ages] == [
        (2, 1.0),
        (1, 0.0),
    ]
    assert [row["group"] for row in result.groups["height"].to_plain()["groups"]] == ["1.5", "1.6", "1.7"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"group_metrics": {"sex": {"metrics": ["NDCG"]}}}, "needs the column 'sex'"),
        ({"group_metrics": {"gender": {"metrics": ["NDCG"], "bins": 2}}}, "holds text"),
        ({"group_metrics": {"gender": {"metrics": ["GiniIndex"]}}}, "no values by user"),
        ({"group_metrics": {"gender": {"metrics": ["NDGC"]}}}, "did you mean NDCG"),
        ({"group_metrics": {"drift": {"metrics": ["NDCG"]}}}, "group_metrics.drift needs item groups"),
        ({"group_metrics": {"drift": {"metrics": ["NDCG"]}}, "group_field": "class", "untimed": True}, "timestamps"),
        ({"metrics": ["CKL"]}, "CKL needs item groups"),
        ({"metrics": ["CKL"], "group_field": "genre"}, "'genre'"),
        ({"metrics": ["UPD"]}, "at least 20 items"),
    ],
)
def test_slips_are_told_before_training(
    toy: FakeDataset, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(FairError, match=message):
        prepared(toy, monkeypatch, **given)


def test_too_many_groups_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = 150
    (tmp_path / "toy.user").write_text("user_id:token\tzip:token\n" + "".join(f"u{n}\t{n}\n" for n in range(1, many)))
    with pytest.raises(FairError, match="149 different values"):
        prepared(FakeDataset(tmp_path, many, 5), monkeypatch, group_metrics={"zip": {"metrics": ["NDCG"]}})


def test_names_alone_mean_ndcg_by_these_groups() -> None:
    short = MetricOptions.from_config({"group_metrics": ["mainstream", "gender"]})
    long = MetricOptions.from_config(
        {"group_metrics": {"mainstream": {"metrics": ["NDCG"]}, "gender": {"metrics": ["NDCG"]}}}
    )
    assert short == long
    assert MetricOptions.from_config({"group_metrics": "gender"}).group_metrics == long.group_metrics[1:]


def test_group_metrics_without_training_data_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(1)
    collector, evaluator = make(
        case, monkeypatch, metrics=["NDCG"], group_metrics={"mainstream": {"metrics": ["NDCG"]}}
    )
    collector.facts = None
    collect(collector, case)
    with pytest.raises(FairError, match="training data"):
        evaluator.result(collector.get_data_struct())


def test_files_hold_own_ids_and_add_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import pandas as pd

    from recbole_fair.evaluator.csv_files import write_per_item, write_per_user

    case = random_case(2)
    result = evaluate(case, monkeypatch)
    (tmp_path / "toy.item").write_text("item_id:token\ttitle:token_seq\n" + f"i{case.n_items - 1}\tFirst, of all\n")
    dataset = FakeDataset(tmp_path, case.n_users, case.n_items)
    write_per_user(tmp_path / "out" / "users.csv", result, dataset)
    write_per_item(tmp_path / "items.csv", result, dataset)
    users, items = pd.read_csv(tmp_path / "out" / "users.csv"), pd.read_csv(tmp_path / "items.csv")
    assert users["user_id"].tolist() == [f"u{case.n_users - u}" for u in case.users]
    assert users["ndcg@8"].mean() == pytest.approx(result.metrics["ndcg@8"])
    assert users["pce@8"].mean() == pytest.approx(result.metrics["pce@8"])  # empty cells are left out
    assert users["pce@8"].isna().sum() == 1
    assert items["item_id"].tolist() == [f"i{case.n_items - i}" for i in range(1, case.n_items)]
    assert items["popularity"].tolist() == case.counts()[1:]
    assert items["recommended@8"].sum() == sum(len(ranked) for ranked in case.lists)
    assert (items["recommended@3"] > 0).sum() == result.metrics["aggregatediversity@3"]
    assert items["segment"].tolist() == segments(case.counts())[1:]
    assert items["title"].dropna().tolist() == ["First, of all"]
    assert not list(tmp_path.rglob("*.tmp"))
