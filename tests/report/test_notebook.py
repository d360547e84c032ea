"""Result documents in a notebook: tables, figures, a short view, and still mappings."""

from __future__ import annotations

from html import escape
from typing import Any

import pytest
from report_cases import (
    HOSTILE,
    comparison_document,
    dossier_document,
    probe_document,
    run_document,
    sweep_document,
)

from recbole_fair.errors import FairError
from recbole_fair.report.documents import Document, document_of

CASES = {
    "run": run_document, "sweep": sweep_document, "comparison": comparison_document, "neurons": dossier_document,
    "sites": probe_document,
}  # fmt: skip


def made(content: dict[str, Any]) -> Document:
    return document_of(content, "result.json")


def test_a_run_is_a_table_of_metrics_and_variants() -> None:
    frame = made(run_document()).to_frame()
    assert list(frame.columns) == ["base", "reconstructed", "steered", "low", "high"]
    assert frame.index.name == "metric"
    assert frame.at["ndcg@10", "steered"] == 0.15
    assert frame.at["ndcg@10", "low"] == 0.12
    assert frame.loc["averagepopularity@10", ["low", "high"]].isna().all()
    alone = run_document(base_test_result=None, variants=None, intervals=None)
    assert list(made(alone).to_frame().columns) == ["PopSteerSASRec"]


def test_rows_of_the_others_are_flat() -> None:
    content = sweep_document()
    frame = made(content).to_frame()
    assert len(frame) == len(content["settings"])
    assert any(name.startswith("test ") for name in frame.columns)
    assert len(made(comparison_document()).to_frame()) == len(comparison_document()["systems"])


@pytest.mark.parametrize("kind", list(CASES))
def test_every_kind_has_a_view_and_figures_that_plotly_takes(kind: str) -> None:
    document = made(CASES[kind]())
    view = document._repr_html_()
    assert document.name in view
    assert len(view) < 20_000
    assert document.figure_titles
    for title in document.figure_titles:
        figure = document.figure(title)
        assert figure.data
        assert figure.layout.title.text
        assert escape(title) in view
    assert dict(document)["kind"] == kind


def test_a_figure_is_found_by_a_part_of_its_title() -> None:
    document = made(run_document())
    assert document.figure("PLACES").layout.title.text == "Who gets the places"
    assert document.figure("lorenz").layout.title.text == "Who gets the places"
    assert document.figure("calibration").layout.title.text.startswith("Calibration")
    assert document.figure().data
    with pytest.raises(FairError, match=r"There is no figure 'lorens'.*there are: "):
        document.figure("lorens")
    with pytest.raises(FairError, match="no figures"):
        made(run_document(lorenz_curves=None, exposure_curves=None, calibration_curves=None)).figure()


def test_texts_of_the_data_are_no_html() -> None:
    view = made(run_document(notes=[HOSTILE], model=HOSTILE))._repr_html_()
    assert "<script" not in view
    assert "<img" not in view
    title = made(dossier_document(title=HOSTILE)).figure().layout.title.text
    assert "<script" not in title


def test_groups_are_objects() -> None:
    groups = made(run_document()).groups["gender"]  # type: ignore[attr-defined]
    assert groups.by_group.at["F", "NDCG@10"] == pytest.approx(0.1)
