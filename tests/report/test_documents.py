"""Result documents: what is written is what is read, and what is no document is one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from report_cases import comparison_document, dossier_document, probe_document, run_document, sweep_document

from recbole_fair.errors import FairError
from recbole_fair.report.documents import (
    SCHEMA_VERSION,
    EvaluationDocument,
    RunDocument,
    document_of,
    write_document,
)
from recbole_fair.report.html import write_report

ALL = [run_document(), sweep_document(), comparison_document(), dossier_document(), probe_document()]


@pytest.mark.parametrize("content", ALL, ids=lambda content: content["kind"])
def test_what_is_read_is_written_again(content: dict[str, Any], tmp_path: Path) -> None:
    document = document_of({**content, "of_a_later_version": [1]}, "x.json")
    assert document.kind == content["kind"]
    assert document["of_a_later_version"] == [1]
    write_document(tmp_path / "x.json", document)
    written = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert written.items() >= content.items()
    assert document_of(written, "x.json").to_plain() == document.to_plain()


def test_a_document_is_a_mapping_and_its_entries_are_attributes() -> None:
    document = RunDocument(
        model="BPR", dataset="toy", seed=1, test_result={"ndcg@10": 0.5}, best_valid_score=0.25,
        valid_score_bigger=True, best_valid_result={"ndcg@10": 0.25}, extra={"decrs": 3},
    )  # fmt: skip
    assert isinstance(document, Mapping)
    assert document["test_result"] == document.test_result == {"ndcg@10": 0.5}
    assert {"best_valid_score", "valid_score_bigger", "best_valid_result", "test_result"} <= set(document)
    assert (document["kind"], document["schema_version"], document["decrs"]) == ("run", SCHEMA_VERSION, 3)
    # What was not asked for has no key; what was asked for and is not there is None.
    assert "intervals" not in document
    assert document.get("groups") is None
    assert document["checkpoint"] is None
    assert {**document}["model"] == "BPR"
    with pytest.raises(KeyError):
        document["nothing"]
    with pytest.raises(AttributeError):
        document.model = "other"  # type: ignore[misc]
    assert len(repr(document)) < 600


def test_numbers_and_texts_that_json_does_not_know(tmp_path: Path) -> None:
    numbers = {"a@1": math.nan, "b@1": math.inf}
    document = EvaluationDocument(
        model="BPR", dataset="b\udc80d", seed=1, test_result=numbers, notes=["\ud800 \x1b[2J"]
    )
    write_document(tmp_path / "x.json", document)
    written = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert written["test_result"] == {"a@1": None, "b@1": None}
    assert (written["dataset"], written["notes"]) == ("b\udc80d", ["\ud800 \x1b[2J"])
    write_report([tmp_path / "x.json"])


def test_what_is_no_document() -> None:
    for content in (
        [1],
        {},
        {"kind": "run"},
        {"kind": "novel", "schema_version": 1},
        {"kind": ["run"], "schema_version": 1},
    ):
        with pytest.raises(FairError, match=r"x\.json is no result of recbole_fair"):
            document_of(content, "x.json")  # type: ignore[arg-type]
    with pytest.raises(FairError, match="reads up to 1"):
        document_of({**run_document(), "schema_version": SCHEMA_VERSION + 1}, "x.json")
    with pytest.raises(FairError, match="reads up to 1"):
        document_of({**run_document(), "schema_version": "one"}, "x.json")
    lacking = sweep_document()
    del lacking["front"], lacking["grid"]
    with pytest.raises(FairError, match="not a whole sweep document: it lacks grid, front"):
        document_of(lacking, "x.json")


@pytest.mark.parametrize("content", ALL, ids=lambda content: content["kind"])
@pytest.mark.parametrize("value", [5, "text", [], [[1]], {"a": "b"}, None], ids=str)
def test_odd_entries_are_shown_or_named(content: dict[str, Any], value: Any, tmp_path: Path) -> None:
    for key in content:
        if key in ("kind", "schema_version"):
            continue
        path = tmp_path / "x.json"
        path.write_text(json.dumps({**content, key: value}))
        try:
            write_report([path])
        except FairError as error:
            message = str(error)
        else:
            continue
        assert str(path) in message
