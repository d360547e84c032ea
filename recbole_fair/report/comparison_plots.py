"""What a comparison of several methods shows, on the page."""

from __future__ import annotations

from typing import Any

from recbole_fair.report.plots import Plot
from recbole_fair.report.words import Values


def comparison_sentences(comparison: Values) -> list[str]:
    """What a comparison found."""
    return []


def comparison_tables(comparison: Values) -> list[tuple[str, list[str], list[list[Any]], str]]:
    """Caption, header, rows and note of each table."""
    return []


def comparison_plots(comparison: Values) -> list[Plot]:
    """Figures of a comparison."""
    return []
