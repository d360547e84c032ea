from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_fair.analysis.grid import parse_grid, setting_text, settings_of
from recbole_fair.analysis.pareto import bound_metric, choose, constraint_of, cost, front_of, pareto_front
from recbole_fair.errors import FairError
from recbole_fair.evaluator.constraint import Constraint
from recbole_fair.report.style import metric_label, save_figure
from recbole_fair.report.summary import sweep_lines
from recbole_fair.report.tradeoff import tradeoff_figure
from recbole_fair.runs.journal import Journal


def test_grids():
    assert parse_grid(["a=0:1:0.25", "b=3,1"]) == {"a": [0, 0.25, 0.5, 0.75, 1], "b": [3, 1]}
    assert parse_grid(["a=0:0.3:0.1"])["a"] == [0, 0.1, 0.2, 0.3]
    assert parse_grid(["steer-mode=popsteer,dense", "c=true,false,true"]) == {
        "steer_mode": ["popsteer", "dense"], "c": [True, False],
    }  # fmt: skip
    whole = parse_grid(["pool=10:30:10", "k=1,2.0"])
    assert [type(value) for values in whole.values() for value in values] == [int, int, int, int, float]
    assert settings_of({"a": [0, 1], "b": [2, 3]}) == [
        {"a": 0, "b": 2}, {"a": 0, "b": 3}, {"a": 1, "b": 2}, {"a": 1, "b": 3},
    ]  # fmt: skip
    assert setting_text({"a": 0.30000000000000004, "b": "dense", "c": 3}) == "a=0.3, b=dense, c=3"


@pytest.mark.parametrize(
    ("texts", "message"),
    [([], "empty"), (["a"], "once"), (["a=0:x:1"], "three numbers"), (["a=1:0:1"], "empty"), (["a=0:1:0"], "empty"),
     (["a=1", "a=2"], "once"), (["a="], "missing"), (["a=1,,2"], "missing"), (["a=0:1"], "three numbers"),
     (["a=.inf"], "finite"), (["a=0:1:1e-9"], "more than 100000"),
     (["a=1:1000:1", "b=1:1000:1"], "more than 100000 settings"), (["a=0:true:1"], "three numbers")],
)  # fmt: skip
def test_bad_grids(texts, message):
    with pytest.raises(FairError, match=message):
        parse_grid(texts)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_front_by_comparing_all_pairs(points):
    front = pareto_front([float(a) for a, _ in points], [float(b) for _, b in points])

    def beaten(point):
        return any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in points)

    assert {points[i] for i in front} == {point for point in points if not beaten(point)}
    assert len({points[i] for i in front}) == len(front)
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


def test_directions_of_better():
    assert cost("ndcg@10", 0.3) < cost("ndcg@10", 0.2)
    assert cost("giniindex@10", 0.3) > cost("giniindex@10", 0.2)
    assert cost("popularitylift@5", -0.1) < cost("popularitylift@5", 0.2)
    results = [{"ndcg@10": 1, "giniindex@10": 0.9}, {"ndcg@10": 2, "giniindex@10": 0.9}, {"ndcg@10": 3,
                "giniindex@10": math.nan}, {"ndcg@10": 1, "giniindex@10": 0.5}]  # fmt: skip
    assert front_of(results, "giniindex@10", "ndcg@10") == [3, 1]
    assert metric_label("ndcg@10") == "NDCG@10 (higher is better)"
    assert metric_label("giniindex@5", "valid") == "GiniIndex@5 on validation (lower is better)"
    assert metric_label("popularitylift@5") == "PopularityLift@5 (nearer to 0 is better)"


def test_choice_under_bounds():
    base = {"ndcg@10": 0.2, "giniindex@10": 0.9}
    results = [
        {"ndcg@10": 0.19, "giniindex@10": 0.8},
        {"ndcg@10": 0.18, "giniindex@10": 0.7},
        {"ndcg@10": 0.1, "giniindex@10": 0.5},
    ]
    bound = constraint_of("NDCG@10 >= 0.9*base", base)
    assert bound == Constraint("ndcg@10", ">=", pytest.approx(0.18))
    assert bound_metric("NDCG@10>=0.9 * base") == bound_metric("NDCG@10 > .1") == "ndcg@10"
    assert choose(results, "giniindex@10", [Constraint("ndcg@10", ">=", 0.18)]) == 1
    assert choose(results, "ndcg@10", [constraint_of("GiniIndex@10 <= 0.75", base)]) == 1
    assert choose(results, "ndcg@10", [constraint_of("GiniIndex@10 < 0.1", base)]) is None
    assert choose(results, "giniindex@10", []) == 2
    for text in ("Recall@10 >= 0.9*base", "NDCG@10 >= x*base", "NDCG@10", "NDCG@10 == 3"):
        with pytest.raises(FairError, match="subject-to="):
            constraint_of(text, base)


def test_a_journal_keeps_what_was_written_and_drops_a_torn_line(tmp_path):
    path = tmp_path / "j.jsonl"
    journal = Journal(path, {"file": 1})
    journal.add({"a": 0.1, "b": True}, {"valid": {"ndcg@10": 1 / 3}})
    journal.add({"a": 0.2, "b": False}, {"valid": {"ndcg@10": math.nan}})
    with open(path, "a") as file:
        file.write('{"setting": {"a": 3}, "resu')
    again = Journal(path, {"file": 1})
    assert again.found == 2
    assert again.get({"b": True, "a": 0.1}) == {"valid": {"ndcg@10": 1 / 3}}
    assert math.isnan(again.get({"a": 0.2, "b": False})["valid"]["ndcg@10"])
    assert again.get({"a": 3}) is None
    again.add({"a": 3}, 5)  # after the torn line was taken out
    assert Journal(path, {"file": 1}).get({"a": 3}) == 5


def test_journals_of_several_studies_keep_apart(tmp_path):
    path = tmp_path / "j.jsonl"
    one, two = (Journal(path, {"file": number}) for number in (1, 2))
    one.add({"a": 1}, 1)
    two.add({"a": 1}, 2)
    one.add({"a": 2}, 3)
    assert (one.path.name, two.path.name) == ("j.jsonl", "j-2.jsonl")
    for number, value in ((1, 1), (2, 2)):
        again = Journal(path, {"file": number})
        assert again.get({"a": 1}) == value
    one.finish([{"a": 1}])  # the other setting is of a study that was interrupted
    assert Journal(path, {"file": 1}).get({"a": 2}) == 3
    assert Journal(path, {"file": 1}).get({"a": 1}) is None
    two.finish([{"a": 1}])
    assert not two.path.exists()


@pytest.mark.parametrize("content", ["not json\n", "[]\n", '{"journal": 5}\n', "precious"])
def test_a_file_that_is_no_journal_of_ours_is_left_alone(content, tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_text(content)
    journal = Journal(path, {"file": 1})
    journal.add({"a": 1}, 1)
    assert path.read_text() == content
    assert Journal(path, {"file": 1}).get({"a": 1}) == 1
    os.mkfifo(tmp_path / "k.jsonl")
    assert Journal(tmp_path / "k.jsonl", {"file": 1}).path.name == "k-2.jsonl"


def test_a_journal_that_another_process_writes_is_left_alone(tmp_path):
    path = tmp_path / "j.jsonl"
    journal = Journal(path, {"file": 1})
    journal.add({"a": 1}, 1)
    code = f"from recbole_fair.runs.journal import Journal; print(Journal({str(path)!r}, {{'file': 1}}).path.name)"
    ask = [sys.executable, "-c", code]
    assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip() == "j-2.jsonl"
    journal.close()
    (tmp_path / "j-2.jsonl").unlink()
    assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip() == "j.jsonl"


@pytest.fixture
def document():
    rows = [
        {"a": a, "valid ndcg@10": 0.2 - a / 100, "valid giniindex@10": 0.9 - a / 20, "test ndcg@10": 0.19 - a / 90,
         "test giniindex@10": 0.91 - a / 20, "front": a != 2} for a in range(5)
    ]  # fmt: skip
    base = {"ndcg@10": 0.2, "giniindex@10": 0.9}
    return {
        "model": "M", "dataset": "d", "reranker": None, "x": "giniindex@10", "y": "ndcg@10", "grid": {"a": [0, 1, 2]},
        "base": {"valid": base, "test": base}, "settings": rows, "front": [row for row in rows if row["front"]],
        "chosen": rows[1], "subject_to": [{"metric": "ndcg@10", "sign": ">=", "bound": 0.18, "text": "x"},
                                          {"metric": "giniindex@10", "sign": "<=", "bound": 0.85, "text": "x"}],
    }  # fmt: skip


def test_the_figure_is_written_twice_and_its_svg_has_text(document, tmp_path):
    stem = tmp_path / "out" / "a.b"
    paths = save_figure(tradeoff_figure(document), stem)
    assert [path.name for path in paths] == ["a.b.png", "a.b.svg"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    svg = paths[1].read_text()
    for text in ("GiniIndex@10 (lower is better)", "NDCG@10 (higher is better)", "M on d", "chosen: a=1",
                 "NDCG@10 &gt;= 0.18", "numbers: a"):  # fmt: skip
        assert f"{text}" in svg, text
    assert "<text" in svg
    again = save_figure(tradeoff_figure(json.loads(json.dumps(document))), tmp_path / "again")
    assert again[1].read_text() == svg  # the same figure is the same file
    document["chosen"] = None
    document["settings"][4]["valid ndcg@10"] = None  # what JSON makes of NaN
    assert "chosen: " not in save_figure(tradeoff_figure(document), stem)[1].read_text()


def test_what_a_sweep_prints(document):
    lines = sweep_lines(document, 4)
    assert lines[1] == "Pareto front on validation, 4 of 5 settings"
    assert lines[2].split("  ")[0] == "a"
    assert any(line.split() == ["1", "0.8500", "0.1900", "0.8600", "0.1789"] for line in lines)
    assert "Chosen on validation, the best GiniIndex@10 with NDCG@10 >= 0.18 and GiniIndex@10 <= 0.85: a=1" in lines
    assert lines[-1].split() == ["GiniIndex@10", "0.9000", "0.8600", "-4.4", "%"]
    assert "2 of them shown" in sweep_lines(document, 4, most=2)[1]
    document["chosen"] = None
    assert sweep_lines(document, 4)[-1].startswith("No setting keeps the bounds on validation (NDCG@10 >= 0.18")
