"""Concepts: how they are written, who has them, what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from recbole_fair.config.concepts import complaint_about, complaint_about_steps, parse_concept, parse_steps
from recbole_fair.data.facts.concepts import Concepts
from recbole_fair.data.facts.interactions import Interactions
from recbole_fair.errors import FairError

ITEMS = """item_id:token\tmovie_title:token_seq\tgenre:token_seq\tprice:float
a\tA\tDrama War\t1.5
b\tB\tDrama\t20
c\tC\tComedy\t7
d\tD\t\t
e\tE\tWar\t8
"""
USERS = "user_id:token\tgender:token\tage:float\nu1\tF\t18\nu2\tM\t30\nu3\tF\t45\nu4\tM\t50\nu5\t\t\n"
ROWS = [(1, 1), (1, 2), (2, 1), (2, 3), (3, 3), (3, 3), (4, 1), (5, 4)]


@pytest.fixture
def dataset(tmp_path: Path) -> Any:
    (tmp_path / "toy.item").write_text(ITEMS)
    (tmp_path / "toy.user").write_text(USERS)
    numbers = {
        "item_id": {token: n + 1 for n, token in enumerate("abcde")},
        "user_id": {f"u{n}": n for n in range(1, 6)},
    }
    config = {"field_separator": "\t", "seq_separator": " ", "encoding": "utf-8"}
    return SimpleNamespace(
        dataset_path=str(tmp_path), dataset_name="toy", uid_field="user_id", iid_field="item_id",
        config=type("C", (dict,), {"__getitem__": dict.get})(config), field2token_id=numbers,
        num=lambda field: 6,
    )  # fmt: skip


@pytest.fixture
def concepts(dataset: Any) -> Concepts:
    user, item = (np.array(column) for column in zip(*ROWS, strict=True))
    return Concepts(dataset, Interactions(user, item, None, 6, 6))


def test_items_with_an_attribute(concepts: Concepts) -> None:
    drama = concepts.read("genre:Drama")
    assert (drama.label, drama.other, drama.of) == ("Drama", "other items", "items")
    assert drama.positive.tolist() == [1, 2]
    assert drama.negative.tolist() == [3, 4]  # e has no interaction
    assert drama.weight.tolist() == [0, 1, 1, 0, 0, 0]
    assert concepts.read("price: 7..20").positive.tolist() == [2, 3]
    assert concepts.read("price:..2").positive.tolist() == [1]


def test_users_with_an_attribute(concepts: Concepts) -> None:
    women = concepts.read("user:gender=F")
    assert (women.label, women.of) == ("gender=F", "users")
    assert women.positive.tolist() == [1, 3]
    assert women.negative.tolist() == [2, 4]  # of u5 nothing is known
    # Shares of the interactions that are theirs: a 1 of 3, b 1 of 1, c 2 of 3, d 0 of 1; e as the average item.
    assert women.weight.tolist() == pytest.approx([0, 1 / 3, 1, 2 / 3, 0, 4 / 8])
    assert concepts.read("user:age=40..").positive.tolist() == [3, 4]


def test_items_of_a_list(concepts: Concepts, tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("c\nnobody\n\nd\n")
    mine = concepts.read(f"file:{file}")
    assert (mine.label, mine.positive.tolist(), mine.negative.tolist()) == ("mine", [3, 4], [1, 2])


def test_a_column_means_each_of_its_values(concepts: Concepts) -> None:
    wanted = ["popularity", "genre:Comedy", "genre:Drama", "genre:War", "user:gender=F", "user:gender=M"]
    assert concepts.expand(["popularity", "genre", "genre:War", "user:gender"]) == wanted
    assert concepts.expand(None) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("genre:Dram", "nobody has 'Dram' in 'genre'.*did you mean 'Drama'"),
        ("genra:Drama", "the column 'genra'"),
        ("genre:War,Drama", "nobody has"),
        ("price:cheap", "column of numbers; write a range"),
        ("price:1000..", "no item of the training data"),
        ("user:gender=X", "nobody has 'X'"),
        ("user:age=18..20", "1 users have it"),
        ("file:/nowhere/at/all", "cannot be read"),
    ],
)
def test_what_the_data_do_not_have(text: str, message: str, concepts: Concepts) -> None:
    with pytest.raises(FairError, match=message):
        concepts.read(text)


def test_a_column_of_numbers_has_too_many_values(concepts: Concepts) -> None:
    with pytest.raises(FairError, match=r"price:10\.\.20"):
        concepts.expand("price")


@pytest.mark.parametrize("text", ["", "user:gender", "user:", "file:", ":x", "popularity:x:", "genre"])
def test_what_is_no_single_concept(text: str) -> None:
    if text == "popularity:x:":  # a column of this name
        assert parse_concept(text).side == "item"
    else:
        assert complaint_about(text) is not None


@pytest.mark.parametrize(
    ("value", "steps"),
    [
        ("Documentary=+2", {"Documentary": 2.0}),
        ("Sci-Fi = 1.5 , popular=-1", {"Sci-Fi": 1.5, "popular": -1.0}),
        ("gender=F=-3", {"gender=F": -3.0}),
        ("genre:Children's=1e0;War=.5", {"genre:Children's": 1.0, "War": 0.5}),
        ("+2", {"": 2.0}), (2, {"": 2.0}), ({"War": 1}, {"War": 1.0}), (None, {}), ("", {}),
    ],
)  # fmt: skip
def test_steps(value: Any, steps: dict[str, float]) -> None:
    assert parse_steps(value) == steps
    assert complaint_about_steps(value) is None


@pytest.mark.parametrize("value", ["Documentary", "Documentary=much", {"War": "far"}, "War=1 Drama=2x", "War=1e99"])
def test_what_are_no_steps(value: Any) -> None:
    assert complaint_about_steps(value) is not None
