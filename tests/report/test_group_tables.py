"""The printed tables by user group."""

from __future__ import annotations

from typing import Any

from report_cases import run_document

from recbole_fair.report.documents import EvaluationDocument, document_of
from recbole_fair.report.group_tables import MOST, group_lines


def grouping(values: list[float], left_out: int = 0) -> dict[str, Any]:
    groups = [{"group": f"g{i}", "size": 3 + i, "values": {"ndcg@10": value}} for i, value in enumerate(values)]
    low, high = min(values), max(values)
    summary = {"ndcg@10": {"min": low, "max": high, "difference": high - low, "ratio": low / high}}
    return {"definition": "by some rule", "left_out": left_out, "groups": groups, "summary": summary}


def run(**entries: Any) -> EvaluationDocument:
    document = document_of({**run_document(groups=None, variant_groups=None), "model": "BPR", **entries}, "run.json")
    assert isinstance(document, EvaluationDocument)
    return document


def test_a_run_without_groups_prints_nothing() -> None:
    assert group_lines(run(), 4) == []


def test_one_table_a_grouping_with_all_variants_and_the_distance_between_groups() -> None:
    result = run(
        **{
            "model": "SPREESASRec",
            "groups": {"taste": grouping([0.4, 0.1], left_out=2)},
            "variant_groups": {"base": {"taste": grouping([0.5, 0.2])}, "adaptive": {"taste": grouping([0.4, 0.1])}},
        }
    )
    assert group_lines(result, 2) == [
        "",
        "by taste: by some rule; 2 users without a value left out",
        "NDCG@10             users  base  adaptive",
        "------------------  -----  ----  --------",
        "g0                      3  0.50      0.40",
        "g1                      4  0.20      0.10",
        "largest - smallest         0.30      0.30",
        "smallest / largest         0.40      0.25",
    ]


def test_a_column_with_thousands_of_values_is_cut_and_says_so() -> None:
    lines = group_lines(run(**{"groups": {"zip": grouping([0.1] * (MOST + 7))}}), 4)
    assert len(lines) == 2 + 2 + MOST + 2 + 1
    assert lines[-1] == "7 more groups: a result file (result_file) has them all."
