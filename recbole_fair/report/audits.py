"""The audit of lists that any system has made: its document, what it says, and its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from recbole_fair.evaluator.directions import display_name
from recbole_fair.report.comparison import p_text
from recbole_fair.report.comparison_plots import clear, headline_metrics
from recbole_fair.report.documents import EvaluationDocument, Metrics, Row
from recbole_fair.report.summary import number, text_table
from recbole_fair.report.words import Values, joined, run_sentences, short, signed

_TESTS = ("t", "wilcoxon", "permutation")
_KINDS_OF_CURVES = ("lorenz_curves", "exposure_curves", "calibration_curves")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AuditDocument(EvaluationDocument):
    """Lists of one system, or of several, measured on one test part.

    ``variants`` are the systems, if there are several: the first is the reference and ``base_test_result``, the last
    one has ``test_result``, ``intervals`` and ``groups``.

    Attributes:
        files: file of each system's lists.
        lists: what was found in each file: rows, users, unknown and repeated items, gaps.
        system_intervals: ``intervals`` of every system.
        comparisons: a row a system and metric against the first: difference, interval, p-values.
        data: users, items and interactions that the lists are measured on.
    """

    kind: ClassVar[str] = "audit"

    files: Mapping[str, str]
    lists: Mapping[str, Row] = field(default_factory=dict)
    system_intervals: Mapping[str, Mapping[str, Sequence[float | None]]] = field(default_factory=dict)
    comparisons: Sequence[Row] = ()
    data: Row = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Systems and data set."""
        return f"Lists of {joined(list(self.files))} on {self.dataset}"


def results_of(audit: Values) -> Mapping[str, Metrics]:
    """Metrics by system."""
    alone: Mapping[str, Metrics] = {str(audit["model"]): audit["test_result"]}
    return audit.get("variants") or alone


def audit_sentences(audit: Values) -> list[str]:
    """What lists show, and how those of several systems differ from the first ones'."""
    results = results_of(audit)
    cutoffs = sorted({int(key.partition("@")[2]) for key in audit["test_result"] if key.partition("@")[2].isdigit()})
    found = [
        f"Lists of {joined(list(results))} were measured for {short(audit['n_users'])} users of {audit['dataset']}, "
        f"out of {short(audit['data']['items'])} items, at lengths of {' and '.join(map(str, cutoffs))}."
    ]
    reference = next(iter(results))
    for name in list(results)[1:] or [reference]:
        found += run_sentences(_pair(audit, reference, name))[1:]
        if name != reference:
            found += _significance(audit, name)
    return found


def _pair(audit: Values, reference: str, name: str) -> dict[str, Any]:
    """One system against the reference, as a run with two variants."""
    results = results_of(audit)
    names = list(dict.fromkeys((reference, name)))
    pair = {**audit, "model": name, "test_result": results[name], "seed": None}
    pair["intervals"] = (audit.get("system_intervals") or {}).get(name)
    if len(names) == 1:
        return pair
    pair |= {"base_test_result": results[reference], "variants": {one: results[one] for one in names}}
    for kind in _KINDS_OF_CURVES:
        curves = audit.get(kind) or {}
        pair[kind] = {one: curves[one] for one in names if one in curves}
    return pair


def _significance(audit: Values, name: str) -> list[str]:
    rows = {row["metric"]: row for row in audit["comparisons"] if row["system"] == name}
    wanted = headline_metrics({"systems": list(rows.values())})
    sure = [display_name(metric) for metric in wanted if clear(rows[metric])]
    unsure = [display_name(metric) for metric in wanted if not clear(rows[metric])]
    parts = []
    if sure:
        parts.append(f"more than chance in {joined(sure)}")
    if unsure:
        parts.append(f"not clearly so in {joined(unsure)}")
    return [f"Over users, {name} differs from {rows[wanted[0]]['reference']} {', '.join(parts)}."] if parts else []


def tests_table(audit: Values) -> tuple[str, list[str], list[list[Any]], str]:
    """Caption, header, rows and note of the differences from the first system."""
    rows: list[list[Any]] = [
        [
            row["system"],
            display_name(row["metric"]),
            signed(row["difference"]),
            f"{signed(row['low'])} to {signed(row['high'])}" if row.get("low") is not None else "–",
            *(p_text(row.get(f"holm_{test}")) for test in _TESTS),
        ]
        for row in audit["comparisons"]
    ]
    reference = audit["comparisons"][0]["reference"] if rows else ""
    note = (
        "p-values are two-sided, of paired tests over users, corrected by Holm's procedure over all rows of a column. "
        "Metrics of all lists together have no value by user: there the interval of resampled users counts."
    )
    header = ["system", "metric", "difference", "95 % interval", "p (t)", "p (Wilcoxon)", "p (permutation)"]
    return f"Differences from {reference}", header, rows, note


def audit_lines(audit: Values, decimals: int) -> list[str]:
    """Lines for the terminal: the tests of several systems.

    Args:
        audit: the document.
        decimals: digits after the point.

    Returns:
        The lines, none with one system.
    """
    rows = []
    for row in audit["comparisons"]:
        bounds = f"[{number(row.get('low'), decimals)}, {number(row.get('high'), decimals)}]"
        tests = [p_text(row.get(f"holm_{test}")) for test in _TESTS]
        rows.append([
            row["system"], display_name(row["metric"]), number(row["difference"], decimals),
            bounds if row["kind"] != "other" else "-", *tests,
        ])  # fmt: skip
    if not rows:
        return []
    header = ["differs from " + audit["comparisons"][0]["reference"], "metric", "by", "95 % interval", "p (t)",
              "p (Wilcoxon)", "p (permutation)"]  # fmt: skip
    return ["", *text_table(header, rows), "", "p-values after Holm's correction, paired over users."]
