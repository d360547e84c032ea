"""The report: what it says follows from the numbers, what it shows is valid, what it holds is harmless."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_cases import (
    HOSTILE,
    comparison_document,
    dossier_document,
    probe_document,
    run_document,
    sweep_document,
)

from recbole_fair.cli import main
from recbole_fair.errors import FairError
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair
from recbole_fair.report.comparison_plots import comparison_sentences
from recbole_fair.report.documents import document_of
from recbole_fair.report.html import embedded, page, sections_of, write_report
from recbole_fair.report.sources import Source, Sources, read_sources
from recbole_fair.report.words import (
    dossier_sentences,
    exposure_of_head,
    lorenz_at,
    run_sentences,
    short,
    signed,
    sweep_sentences,
    verdict,
)

ALL = {
    "runs": [run_document()],
    "sweeps": [sweep_document()],
    "comparisons": [comparison_document()],
    "dossiers": [dossier_document(), probe_document()],
}


def documents(**groups: list[dict[str, Any]]) -> Sources:
    return Sources(
        **{
            name: [Source(document_of(content, name), f"{name}.json") for content in group]
            for name, group in groups.items()
        }
    )


class Page(HTMLParser):
    """Collects the elements of a page."""

    VOID = frozenset({"meta", "link", "br", "wbr", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: dict[str, str] = {}
        self.visible: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            key = self.elements[-1][1].get("id") or self.open[-1]
            self.text[key] = self.text.get(key, "") + data
        else:
            self.visible.append(data)


@pytest.fixture(scope="module")
def whole() -> Page:
    return Page(page(documents(**ALL)))


# -- words -------------------------------------------------------------------------------------------------------------


def test_sentences_of_a_run() -> None:
    said = run_sentences(run_document())
    assert said[0] == (
        "PopSteerSASRec was evaluated on the test part of toy, seed 7: lists of 10 for 1,234 users out of 40 items. "
        "Items of a user's training history are not recommended again."
    )
    assert said[1] == (
        "Steered against base: accuracy falls by 25 % (NDCG@10 0.2000 → 0.1500), items are shown more evenly "
        "(GiniIndex@10 0.8000 → 0.6000), more items are shown at all (ItemCoverage@10 0.2500 → 0.5000) and what is "
        "shown gets less popular by 50 % (AveragePopularity@10 200 → 100)."
    )
    # The last tenth of curves that are straight from (.5, 0) and (.5, .25) to (1, 1).
    assert said[2] == "The most shown tenth of the items fills 15 % of all places instead of 20 %."
    assert said[3] == (
        "An item of the most popular tenth gets 3.0 times the exposure of the average item instead of 8.0 times."
    )
    assert said[4] == (
        "The 95 % interval of steered leaves out base's value for GiniIndex@10; it holds it for NDCG@10, which these "
        "intervals alone do not tell apart."
    )
    plain = {"model": "BPR", "dataset": "toy", "test_result": {"ndcg@10": 0.1}}
    assert run_sentences(plain) == ["BPR was evaluated on the test part of toy: lists of 10."]
    assert run_sentences({"test_result": None}) == ["There is no test data, so that there are no test results."]


def test_sentences_of_a_sweep() -> None:
    said = sweep_sentences(sweep_document())
    assert said[0].startswith("4 settings of alpha_pop were tried; on validation, 3 of them are not beaten")
    assert said[1] == "alpha_pop=1 is chosen: the best GiniIndex@10 on validation with NDCG@10 ≥ 0.1800."
    assert said[2].endswith("NDCG@10 0.2000 → 0.1900 (-5.0 %); GiniIndex@10 0.8000 → 0.7000 (-12.5 %).")
    assert "No setting keeps the bounds" in sweep_sentences(sweep_document(chosen=None))[1]


def test_sentences_of_dossiers_and_comparisons() -> None:
    said = dossier_sentences(dossier_document())
    assert said[0].startswith("30 of 32 neurons fire at all; 5 answer clearly")
    assert "have 80 % popular items in their histories (all users: median 40 %)" in said[1]
    assert "farther from users of popular items: Wasserstein distance 1.000 → 1.500" in said[3]
    assert "nearer to users of unpopular items" in said[4]
    assert "p = 0.250" in said[4]
    assert "0.100 (base), -0.100 (vanilla) and +0.020 (adaptive)" in dossier_sentences(probe_document())[1]
    said = comparison_sentences(comparison_document())
    assert said[1] == "NDCG@10 is best in BPR (0.2000 ± 0.0100)."
    assert said[3] == "BPR + IPR against BPR: NDCG@10 -0.0100 (not clearly) and GiniIndex@10 -0.1000."
    assert said[4].startswith("1 of the runs gave no result")


def test_verdicts() -> None:
    assert verdict("ndcg@10", 0.1, 0.2) == "better"
    assert verdict("giniindex@10", 0.1, 0.2) == "worse"
    assert verdict("popularitylift@10", -0.3, 0.1) == "better"  # best at zero
    assert verdict("ndcg@10", 0.1, 0.1) == "same"


def test_numbers_for_people() -> None:
    values = [0.06637, 0.5, 1.0, 5.0, 202.84, 1682, 12345.6, 0.00001234, None, float("nan"), 0, True, "x"]
    shown = ["0.0664", "0.5000", "1.000", "5.000", "202.8", "1,682", "12,346", "1.2e-05", "–", "–", "0", "True", "x"]
    assert [short(value) for value in values] == shown
    assert [signed(value) for value in (0.12345, -2.0, None)] == ["+0.1235", "-2.000", "–"]


@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=8), st.floats(0, 1))
def test_height_of_a_lorenz_curve(exposure: list[float], share: float) -> None:
    y = np.concatenate([[0], np.cumsum(sorted(exposure)) / sum(exposure)])
    x = np.linspace(0, 1, len(y))
    assert lorenz_at(x.tolist(), y.tolist(), share) == pytest.approx(np.interp(share, x, y))


def test_exposure_of_the_most_popular_items() -> None:
    curve = {"items": [2, 2, 1], "exposure": {"5": [4.0, 0.5, 0.0], "10": [1.0, 1.0, 1.0]}}
    assert exposure_of_head(curve, 0.4) == 4.0
    assert exposure_of_head(curve, 0.5) == pytest.approx((4 * 2 + 0.5 * 2) / 4)  # whole groups


# -- documents ---------------------------------------------------------------------------------------------------------


def test_documents_are_found_by_what_they_hold(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    files = {"a.json": run_document(), "deep/s.json": sweep_document(), "deep/er/e.json": dossier_document(),
             "c.json": comparison_document(), "other.json": {"x": 1}, "list.json": [1],
             "number.json": {"test_result": 5}, "named.json": {"kind": "sweep"}}  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "broken.json").write_text("{")
    found = read_sources([tmp_path / "a.json", tmp_path])
    assert [Path(source.path).name for source in found.all] == ["a.json", "s.json", "c.json", "e.json"]
    assert found.runs[0].content.name == "PopSteerSASRec on toy"


def test_what_cannot_be_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.json").write_text('{"x": 1}')
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "empty").mkdir()
    cases = {
        tmp_path / "none.json": "does not exist",
        tmp_path / "other.json": "is no result of recbole_fair",
        tmp_path / "broken.json": "is not a JSON file",
        tmp_path / "empty": "There is no result document",
    }
    for path, message in cases.items():
        with pytest.raises(FairError, match=message):
            write_report([path])
    with pytest.raises(FairError, match="at least one"):
        write_report([])
    (tmp_path / "run.json").write_text(json.dumps(run_document()))
    (tmp_path / "file").write_text("")
    with pytest.raises(FairError, match="Cannot write the report"):
        write_report([tmp_path / "run.json"], tmp_path / "file" / "r.html")
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path / "none.json")])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_where_the_report_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text(json.dumps(run_document()))
    assert write_report([tmp_path]) == tmp_path / "report.html"
    assert write_report([tmp_path / "run.json"]) == tmp_path / "run.html"
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path / "run.json"), "--output", str(tmp_path / "x.html")])
    assert stop.value.code == 0
    assert "x.html" in capsys.readouterr().out
    assert (tmp_path / "x.html").stat().st_size > 1_000_000


# -- the page ----------------------------------------------------------------------------------------------------------


def test_nothing_is_loaded_from_anywhere(whole: Page) -> None:
    assert not whole.open
    for tag, attributes in whole.elements:
        assert tag not in ("img", "iframe", "object", "embed", "base", "form")
        assert "src" not in attributes
        if "href" in attributes:
            assert attributes["href"].startswith("#") or attributes["href"] == "data:,"  # type: ignore[union-attr]
    policy = next(a["content"] for t, a in whole.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "@import" not in whole.text["style"]
    assert "url(" not in whole.text["style"]


def test_every_anchor_and_label(whole: Page) -> None:
    ids = [attributes["id"] for _, attributes in whole.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for _, a in whole.elements if (a.get("href") or "").startswith("#")}  # type: ignore[index]
    assert targets <= set(ids)
    plots = [attributes for _, attributes in whole.elements if attributes.get("class") == "plot"]
    figures = json.loads(whole.text["figures"])
    assert {attributes["id"] for attributes in plots} == set(figures)
    assert all(len(attributes["aria-label"] or "") > 30 for attributes in plots)
    assert ("html", {"lang": "en"}) in whole.elements
    text = " ".join(whole.visible)
    for word in ("0.1500", "-25.0 % worse", "by gender", "NDCG@10 ≥ 0.1800", "no solver", "1.2.1", "One note."):
        assert word in text, word


def test_plotly_knows_every_figure(whole: Page) -> None:
    figures = json.loads(whole.text["figures"])
    assert len(figures) == 3 + 1 + 1 + 9 + 5
    for name, figure in figures.items():
        try:
            go.Figure(figure)
        except ValueError as error:
            pytest.fail(f"{name}: {error}")


def test_several_runs_share_a_plane() -> None:
    other = run_document(model="BPR", variants=None, base_test_result=None)
    plots = sections_of(documents(runs=[run_document(), other]))[0].plots
    assert plots[0].title == "All runs on one plane"
    assert sum(len(trace["x"]) for trace in plots[0].data) == 4  # three variants and a plain model


def test_hostile_text_stays_text() -> None:
    run = run_document(model=HOSTILE, dataset=HOSTILE, notes=[HOSTILE], config={HOSTILE: HOSTILE})
    run["variants"] = {"base": run["base_test_result"], HOSTILE: run["test_result"]}
    run["lorenz_curves"][HOSTILE] = run["lorenz_curves"].pop("steered")
    sweep = sweep_document(model=HOSTILE, grid={HOSTILE: [0]})
    for row in sweep["settings"]:
        row[HOSTILE] = row.pop("alpha_pop")
    dossier = dossier_document(title=HOSTILE)
    dossier["strongest"]["popular"][0]["users"] = [HOSTILE]
    found = Page(page(documents(runs=[run], sweeps=[sweep], dossiers=[dossier])))
    plain = Page(page(documents(runs=[run_document()], sweeps=[sweep_document()], dossiers=[dossier_document()])))
    assert [tag for tag, _ in found.elements if tag in ("script", "img")] == ["script"] * 3
    assert {name for _, a in found.elements for name in a} == {name for _, a in plain.elements for name in a}
    assert "49" not in "".join(text for text in found.visible if "7 * 7" in text)
    # plotly reads some HTML in labels: none of the page's own may come from the data.
    labels = json.dumps(json.loads(found.text["figures"]), ensure_ascii=False)
    assert "<script" not in labels
    assert "<img" not in labels


@settings(max_examples=40)
@given(st.text(), st.dictionaries(st.text(), st.text(), max_size=3))
def test_embedded_json_comes_back_and_cannot_leave_its_element(text: str, more: dict[str, str]) -> None:
    value = {"text": text + HOSTILE, "more": more}
    inside = embedded(value)
    assert json.loads(inside) == value
    assert not re.search("[<>&\u2028\u2029]", inside)


# -- real documents ----------------------------------------------------------------------------------------------------


def test_documents_of_real_runs(small_data: Path, in_tmp: Path) -> None:
    config = {
        "data_path": str(small_data), "epochs": 1, "metrics": ["NDCG", "GiniIndex", "ItemCoverage", "PCE"],
        "topk": [5, 10], "bootstrap": 20, "valid_metric": "NDCG@5", "state": "WARNING", "segment_by": "items",
        "group_metrics": {"popularity_taste": {"metrics": ["NDCG"]}}, "result_file": "results/bpr.json",
    }  # fmt: skip
    checkpoint = run_recbole_fair("BPR", "small", config_dict=config)["checkpoint"]
    evaluate_checkpoint(checkpoint, {"reranker": "IPR", "result_file": "results/ipr.json"})
    result = json.loads(Path("results/ipr.json").read_text())
    assert set(result["lorenz_curves"]) == set(result["exposure_curves"]) == {"base", "IPR"}
    found = Page(write_report(["results"]).read_text())
    text = " ".join(found.visible)
    assert f"{result['test_result']['ndcg@5']:.4f}" in text
    assert "60 users" in text
    assert "BPR with IPR on small" in text
    for figure in json.loads(found.text["figures"]).values():
        go.Figure(figure)
