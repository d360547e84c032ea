"""A search on the terminal and on the page: base and bounds beside the trials, test only where it was looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from recbole_fair.report.html import write_report
from recbole_fair.report.tuning import tuning_lines
from recbole_fair.report.tuning_document import TuningDocument
from recbole_fair.report.tuning_page import tuning_plots, tuning_sentences, tuning_tables


def trial(number: int, gini: float, ndcg: float, keeps: bool = True, **more: Any) -> dict[str, Any]:
    about = {"trial": number, "state": "complete", "reason": None, "keeps bounds": keeps, "alpha_pop": number / 2}
    return {**about, "valid giniindex@5": gini, "valid ndcg@5": ndcg, **more}


def document(**changes: Any) -> TuningDocument:
    trials = [trial(0, 0.8, 0.10), trial(1, 0.6, 0.05, keeps=False), trial(2, 0.7, 0.09)]
    entries: dict[str, Any] = {
        "model": "PopSteerBPR", "reranker": None, "dataset": "small", "seed": 3, "trials": trials,
        "objectives": [{"metric": "giniindex@5", "bigger": False}], "space": {"alpha_pop": "0 to 4"},
        "subject_to": [{"text": "NDCG@5 >= 0.8*base", "metric": "ndcg@5", "sign": ">=", "bound": 0.08}],
        "base": {"valid": {"giniindex@5": 0.85, "ndcg@5": 0.1}},
        "chosen": [{**trials[2], "test giniindex@5": 0.71, "test ndcg@5": 0.085}],
    }  # fmt: skip
    return TuningDocument(**{**entries, **changes})


def test_the_terminal_shows_base_bounds_and_all_metrics_of_the_choice() -> None:
    lines = tuning_lines(document(), 4)
    assert "The best on validation with NDCG@5 >= 0.08:" in lines[1]
    table = [line.split() for line in lines[4:8]]
    assert table[0] == ["base", "0.8500", "0.1000"]
    assert [row[0] for row in table[1:]] == ["2", "0", "1"]  # those that keep the bound first
    assert ["NDCG@5", "0.1000", "0.0900", "0.0850"] in [line.split() for line in lines]
    # A base that is one of the trials is not shown twice.
    same = document(base={"valid": {"giniindex@5": 0.8, "ndcg@5": 0.1}})
    assert not any(line.startswith("base") for line in tuning_lines(same, 4))


def test_where_test_was_not_looked_at_nothing_is_said_of_it() -> None:
    unseen = document(chosen=[trial(2, 0.7, 0.09)])
    assert "test" not in " ".join(tuning_sentences(unseen))
    assert [title for title, _, _ in tuning_tables(unseen)] == ["The best trials with NDCG@5 >= 0.08"]
    assert "0.0850 on test" in " ".join(tuning_sentences(document()))


@pytest.mark.parametrize("bound", ["ndcg@5", "giniindex@5"])
def test_trials_base_choice_and_bound_are_on_the_plane(bound: str) -> None:
    subject_to = [{"text": "", "metric": bound, "sign": ">=", "bound": 0.08}]
    objectives = [{"metric": "giniindex@5", "bigger": False}, {"metric": "ndcg@5", "bigger": True}]
    (plot,) = tuning_plots(document(subject_to=subject_to, objectives=objectives))
    go.Figure(plot.spec)  # plotly checks every key
    traces = {trace["name"]: trace for trace in plot.data}
    assert traces["trials"]["x"] == [0.8, 0.7]
    assert traces["miss the bounds"]["y"] == [0.05]
    assert (traces["base"]["x"], traces["chosen"]["x"]) == ([0.85], [0.7])
    (line,) = plot.layout["shapes"]
    assert line["y0" if bound == "ndcg@5" else "x0"] == 0.08
    assert plot.table is not None
    assert plot.table[1][0] == ["0", "0.8000", "0.1000"]


def test_one_objective_alone_is_shown_trial_by_trial() -> None:
    (plot,) = tuning_plots(document(subject_to=[]))
    assert {trace["name"]: trace["x"] for trace in plot.data} == {
        "miss the bounds": [1],
        "trials": [0, 2],
        "chosen": [2],
    }
    assert tuning_plots(document(trials=[trial(0, 0.8, 0.1)])) == []


def test_many_searches_share_an_entry_of_the_navigation(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.json").write_text(json.dumps(document(seed=number).to_plain()))
    text = write_report([tmp_path]).read_text(encoding="utf-8")
    assert "Results of 3 searches." in text
    assert text.count(">Search (3)</a>") == 1
