"""Put the tables of the catalogue of results into the pages that have a place for them.

    python docs/generate_results.py

A place is ``<!-- results NAME -->`` and ``<!-- end of NAME -->``. A test compares the pages with what this writes.
"""

from __future__ import annotations

from pathlib import Path

from recbole_fair.config.results import tables
from recbole_fair.report.result_tables import filled

DOCS = Path(__file__).parent


def pages() -> dict[Path, str]:
    """What each page that has a place should be."""
    texts = {page: page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))}
    return {page: filled(text, tables()) for page, text in texts.items() if "<!-- results " in text}


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
        print(f"wrote {page}")
