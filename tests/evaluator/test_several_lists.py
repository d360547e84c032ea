"""Sequential models under splits by ratio: a user has one list for each held-out item and is one user all the same."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_fair.evaluator.result import numbers_within
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair

LENGTHS = {"u1": 8, "u2": 12, "u3": 16, "u4": 8, "u5": 20}
GENDER = {"u1": "F", "u2": "M", "u3": "F", "u4": "", "u5": "M"}
N_TEST = {user: (length - 1) // 4 for user, length in LENGTHS.items()}  # the first item has no history


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("lists")
    (folder / "own").mkdir()
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user, length in LENGTHS.items():
        lines += [f"{user}\ti{(step * 3 + length) % 23}\t{step}" for step in range(length)]
    (folder / "own" / "own.inter").write_text("\n".join(lines) + "\n")
    users = ["user_id:token\tgender:token", *(f"{user}\t{gender}" for user, gender in GENDER.items())]
    (folder / "own" / "own.user").write_text("\n".join(users) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = run_recbole_fair(
            "GRU4Rec",
            "own",
            config_dict={
                "data_path": str(folder), "epochs": 1, "topk": [3], "metrics": ["NDCG", "NDCGHead"], "state": "ERROR",
                "eval_args": {"split": {"RS": [0.5, 0.25, 0.25]}, "order": "TO", "group_by": "user", "mode": "full"},
                "group_metrics": {
                    "gender": {"metrics": ["NDCG"]},
                    "mainstream": {"metrics": ["NDCG"], "bins": 5},
                    "popularity_taste": {"metrics": ["NDCG"]},
                },
                "embedding_size": 4, "hidden_size": 4, "MAX_ITEM_LIST_LENGTH": 6, "show_progress": False,
                "bootstrap": 20, "valid_metric": "NDCG@3", "result_file": "r.json", "per_user_file": "users.csv",
                "recommendations_file": "recs.csv",
            },
        )  # fmt: skip
    return folder, result


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_users_are_counted_as_users(ran: tuple[Path, Any]) -> None:
    folder, result = ran
    document = json.loads((folder / "r.json").read_text())
    assert document["n_users"] == len(LENGTHS) == 5
    n_lists = sum(N_TEST.values())
    assert n_lists == 11
    (note,) = [note for note in result["notes"] if "lists of" in note]
    assert note.startswith(f"{n_lists} lists of 5 users")
    (note,) = [note for note in result["notes"] if note.startswith("NDCGHead")]
    assert f"of {n_lists} lists with" in note
    groups = document["groups"]
    assert {group["group"]: group["size"] for group in groups["gender"]["groups"]} == {"F": 2, "M": 2}
    assert groups["gender"]["left_out"] == 1  # u4, of whom nothing is known
    # Five groups of five users: each user is in one of them, whatever the number of his lists.
    assert [group["size"] for group in groups["mainstream"]["groups"]] == [1] * 5
    assert [group["size"] for group in groups["popularity_taste"]["groups"]] == [1, 3, 1]


def test_lists_of_a_user_are_told_apart(ran: tuple[Path, Any]) -> None:
    folder, result = ran
    found = defaultdict(list)
    for row in table(folder / "users.csv"):
        found[row["user_id"]].append(int(row["list"]))
    assert found == {user: list(range(1, n + 1)) for user, n in N_TEST.items()}
    listed = table(folder / "recs.csv")
    assert list(listed[0]) == ["user_id", "list", "item_id", "rank", "score"]
    places = [(row["user_id"], int(row["list"]), int(row["rank"])) for row in listed]
    assert len(set(places)) == len(places) == 3 * sum(N_TEST.values())
    # Values of groups are means over their lists, as those of all are.
    values = defaultdict(list)
    for row in table(folder / "users.csv"):
        values[GENDER[row["user_id"]]].append(float(row["ndcg@3"]))
    for group in json.loads((folder / "r.json").read_text())["groups"]["gender"]["groups"]:
        own = values[group["group"]]
        assert group["values"]["ndcg@3"] == pytest.approx(sum(own) / len(own), rel=1e-12)
    every = [value for some in values.values() for value in some]
    assert result["test_result"]["ndcg@3"] == pytest.approx(sum(every) / len(every), rel=1e-12)


def test_evaluation_again_counts_the_same(ran: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, result = ran
    monkeypatch.chdir(folder)
    again = evaluate_checkpoint(result["checkpoint"])
    assert again["n_users"] == 5
    assert again["test_result"] == result["test_result"]


def test_numbers_within_equal_the_loop() -> None:
    generator = torch.Generator().manual_seed(3)
    for size in (1, 2, 7, 40):
        users = torch.randint(0, 5, (size,), generator=generator)
        met: dict[int, int] = defaultdict(int)
        expected = []
        for user in users.tolist():
            met[user] += 1
            expected.append(met[user])
        found = numbers_within(users)
        assert (found is None) == (set(expected) == {1})
        assert found is None or found.tolist() == expected
    assert numbers_within(torch.tensor([], dtype=torch.long)) is None
