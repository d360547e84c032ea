"""Tables of results as Markdown, and the pages that hold them."""

from __future__ import annotations

from pathlib import Path

import pytest
from doc_generators import doc_generator

from recbole_fair.config.results import tables
from recbole_fair.errors import FairError
from recbole_fair.report.result_tables import cell, filled, markdown

CATALOGUE = """\
paper: A paper
tables:
  shown:
    metrics: [ndcg@10, aggregatediversity@10]
    heads: [NDCG, distinct items]
    also: [epochs]
    change: plain
    model: BPR
    dataset: small
    tolerance: [0.01, 2]
    minutes: 1
    rows:
      plain: {label: BPR, seeds: [1, 2], ours: [0.2, 1780.4], sd: [0.004, 50], paper: [0.25, ~], also: [3]}
      other: {label: ILE, seeds: [1], ours: [0.19, ~]}
      theirs: {label: theirs, paper: [-0.5, ~]}
"""


def test_a_table_holds_ours_and_the_papers(tmp_path: Path) -> None:
    (tmp_path / "paper.yaml").write_text(CATALOGUE)
    assert markdown(tables(tmp_path)["shown"]).splitlines() == [
        "|  | seeds | NDCG | distinct items | paper: NDCG | epochs |",
        "|---|---|---|---|---|---|",
        "| BPR | 2 | 0.2000 ± 0.0040 | 1780 ± 50 | 0.2500 | 3 |",
        "| ILE | 1 | 0.1900 (-5.0 %) |  |  |  |",
        "| theirs |  |  |  | -0.5000 |  |",
    ]


def test_numbers_are_printed_by_their_size() -> None:
    assert [cell(None), cell(0.12345), cell(-0.12345), cell(1.5), cell(225.84), cell(790.0, 12.4, whole=True)] == [
        "",
        f"{0.12345:.4f}",
        f"{-0.12345:.4f}",
        "1.5000",
        "225.8",
        "790 ± 12",
    ]


def test_places_are_filled_and_odd_ones_named(tmp_path: Path) -> None:
    (tmp_path / "paper.yaml").write_text(CATALOGUE)
    known = tables(tmp_path)
    page = "before\n<!-- results shown -->\nold\n<!-- end of shown -->\nafter\n"
    assert filled(page, known) == page.replace("old", f"\n{markdown(known['shown'])}\n")
    assert filled(filled(page, known), known) == filled(page, known)
    with pytest.raises(FairError, match="holds no table 'absent'"):
        filled(page.replace("shown", "absent"), known)
    with pytest.raises(FairError, match="place of the table shown does not begin and end"):
        filled("<!-- results shown -->\nold\n", known)


def test_pages_are_up_to_date() -> None:
    pages = doc_generator("generate_results").pages()
    assert {"ile.md", "tall.md", "decrs.md", "spree.md", "popsteer.md", "benchmarks.md", "papers.md"} <= {
        page.name for page in pages
    }
    for page, text in pages.items():
        assert page.read_text(encoding="utf-8") == text, "run python docs/generate_results.py"
