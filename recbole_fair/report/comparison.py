"""The tables of a comparison: for the terminal, for Markdown and for LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recbole_fair.analysis.systems import ALL_PAIRS, differs
from recbole_fair.evaluator.directions import best_at_zero, display_name, smaller_is_better
from recbole_fair.report.summary import number, text_table

_P_COLUMNS = ("holm_t", "holm_wilcoxon", "holm_permutation")
#: Which way a metric is better, in LaTeX.
LATEX_ARROWS = {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "→0": r"$\rightarrow 0$"}
_LATEX = {"\\": r"\textbackslash{}", "_": r"\_", "&": r"\&", "%": r"\%", "#": r"\#", "$": r"\$", "{": r"\{",
          "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}  # fmt: skip


def arrow(metric: str) -> str:
    """Which way a metric is better, in one sign."""
    return "→0" if best_at_zero(metric) else "↓" if smaller_is_better(metric) else "↑"


def p_text(value: float | None) -> str:
    """A p-value for people: three digits, a dash where there is none."""
    if value is None or value != value:
        return "-"
    return "<.001" if value < 0.001 else f"{value:.3f}".lstrip("0") if value < 1 else "1"


def text(result: Mapping[str, Any], decimals: int) -> list[str]:
    """Lines for the terminal: the systems, what failed, and how to read the marks.

    Args:
        result: what :func:`recbole_fair.runs.compare.compare` returns.
        decimals: digits after the point.
    """
    grid = _Grid(result, decimals)
    rows = [[system, *(grid.plain(system, metric) for metric in grid.metrics)] for system in grid.systems]
    header = ["test", *(f"{display_name(metric)} {arrow(metric)}" for metric in grid.metrics)]
    return ["", *text_table(header, rows), "", *_failures(result), caption(result)]


def markdown(result: Mapping[str, Any], decimals: int) -> list[str]:
    """Lines of a Markdown file: systems, tests, protocol.

    Args:
        result: what :func:`recbole_fair.runs.compare.compare` returns.
        decimals: digits after the point.
    """
    grid = _Grid(result, decimals)

    def cell(system: str, metric: str) -> str:
        mean, spread, mark, best = grid.parts(system, metric)
        return (f"**{mean}**" if best else mean) + (f" ± {spread}" if spread else "") + ("\\*" if mark else "")

    lines = [f"# Comparison on {result['dataset']}", "", caption(result), ""]
    header = ["system", *(f"{display_name(metric)} {arrow(metric)}" for metric in grid.metrics)]
    rows = [[system, *(cell(system, metric) for metric in grid.metrics)] for system in grid.systems]
    lines += [*markdown_table(header, rows), "", *_failures(result)]
    if result["comparisons"]:
        lines += ["## Differences", "", _how_to_read(result), ""]
        header = ["system", "against", "metric", "difference", "95 % interval", "t", "Wilcoxon", "permutation", "seeds"]
        lines += markdown_table(header, [_difference(row, decimals) for row in result["comparisons"]])
    protocol = [f"- {key}: `{value}`" for key, value in result["protocol"].items()]
    seeds = ", ".join(map(str, result["seeds"]))
    return [*lines, "", "## Protocol", "", f"- seeds: {seeds}", *protocol, *(f"- {note}" for note in result["notes"])]


def latex(result: Mapping[str, Any], decimals: int) -> list[str]:
    """Lines of a LaTeX table of the systems, for the package ``booktabs``.

    Args:
        result: what :func:`recbole_fair.runs.compare.compare` returns.
        decimals: digits after the point.
    """
    grid = _Grid(result, decimals)

    def cell(system: str, metric: str) -> str:
        mean, spread, mark, best = grid.parts(system, metric)
        shown = rf"\textbf{{{mean}}}" if best else mean
        return shown + (rf" {{\scriptsize $\pm$ {spread}}}" if spread else "") + (r"$^{*}$" if mark else "")

    header = ["System", *(f"{escaped(display_name(m))} {LATEX_ARROWS[arrow(m)]}" for m in grid.metrics)]
    rows = [[escaped(system), *(cell(system, metric) for metric in grid.metrics)] for system in grid.systems]
    return [
        r"\begin{table}[t]",
        r"\centering\small",
        rf"\caption{{{escaped(caption(result))}}}",
        rf"\label{{tab:compare-{''.join(sign if sign.isalnum() else '-' for sign in result['dataset'])}}}",
        rf"\begin{{tabular}}{{l{'r' * len(grid.metrics)}}}",
        r"\toprule",
        " & ".join(header) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def caption(result: Mapping[str, Any]) -> str:
    """What the table shows and what its marks mean, in a sentence or two."""
    seeds = result["seeds"]
    what = f"Test results on {result['dataset']}"
    if len(seeds) == 1:
        what += f", seed {seeds[0]}"
    elif result["spread"] == "seeds":
        what += f", mean ± standard deviation over {len(seeds)} seeds"
    else:
        what += f", mean over {len(seeds)} seeds"
    if not result["comparisons"] or result["reference"] == ALL_PAIRS:
        return what + "."
    return (
        f"{what}. *: differs from {result['reference']} (metrics by user: permutation test, Holm's correction over all "
        "comparisons, p < .05; metrics of all lists: 95 % interval without 0)."
    )


class _Grid:
    """The values of the table of systems."""

    def __init__(self, result: Mapping[str, Any], decimals: int) -> None:
        rows = result["systems"]
        self.systems = list(dict.fromkeys(row["system"] for row in rows))
        self.metrics = list(dict.fromkeys(row["metric"] for row in rows))
        self._rows = {(row["system"], row["metric"]): row for row in rows}
        self._spread, self._decimals = result["spread"] == "seeds", decimals
        marked = result["comparisons"] if result["reference"] != ALL_PAIRS else ()
        self._marks = {(row["system"], row["metric"]) for row in marked if differs(row)}

    def parts(self, system: str, metric: str) -> tuple[str, str, bool, bool]:
        """Mean, spread (empty if not wanted), whether marked, whether the best."""
        row = self._rows[system, metric]
        spread = number(row["std"], self._decimals) if self._spread else ""
        mark, best = (system, metric) in self._marks, bool(row["best"]) and len(self.systems) > 1
        return number(row["mean"], self._decimals), spread, mark, best

    def plain(self, system: str, metric: str) -> str:
        mean, spread, mark, _ = self.parts(system, metric)
        return mean + (f" ± {spread}" if spread else "") + ("*" if mark else " ")


def _difference(row: Mapping[str, Any], decimals: int) -> list[str]:
    def signed(value: float | None) -> str:
        return "-" if value is None or value != value else f"{value:+.{decimals}f}"

    interval = f"[{signed(row['low'])}, {signed(row['high'])}]" if row["kind"] != "other" else "-"
    return [
        row["system"],
        row["reference"],
        display_name(row["metric"]),
        signed(row["difference"]),
        interval,
        *(p_text(row[column]) for column in _P_COLUMNS),
        f"{row['seeds_better']} of {row['seeds']}",
    ]


def _how_to_read(result: Mapping[str, Any]) -> str:
    protocol = result["protocol"]
    return (
        "p-values are two-sided and corrected by Holm's procedure over all rows of a column. The unit is the user: a "
        "user's difference is averaged over the seeds, so that the tests speak about other users, not about other "
        "seeds; the last column says in how many seeds the system is the better one. Metrics of all lists together "
        f"have no value by user: their intervals come from {protocol['bootstrap']} resamples of users, the same for "
        f"both systems. Intervals are not corrected. Permutation tests draw {protocol['permutations']} patterns of "
        "signs."
    )


def _failures(result: Mapping[str, Any]) -> list[str]:
    lines = [f"No result for {row['system']}, seed {row['seed']}: {row['error']}" for row in result["failed"]]
    return [*lines, ""] if lines else []


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    rule = "|" + "---|" * len(header)
    return [f"| {' | '.join(header)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]


def escaped(text: str) -> str:
    """Text for LaTeX, its signs with a meaning there made harmless."""
    words = "".join(_LATEX.get(sign, sign) for sign in text)
    return words.replace("±", r"$\pm$").replace("<", "$<$")
