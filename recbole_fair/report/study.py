"""Studies over several data sets: one table for the terminal, Markdown and LaTeX, and the diagram of mean ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from recbole_fair.evaluator.directions import display_name
from recbole_fair.report.comparison import LATEX_ARROWS, arrow, escaped, markdown_table, p_text
from recbole_fair.report.style import BASE, MUTED, house_style, new_figure
from recbole_fair.report.summary import number, text_table


class _Values:
    """The values of a study by metric, system and data set."""

    def __init__(self, result: Mapping[str, Any], decimals: int) -> None:
        rows = result["rows"]
        self.datasets = list(result["datasets"])
        self.metrics = list(dict.fromkeys(row["metric"] for row in rows))
        self._rows = {(row["metric"], row["system"], row["dataset"]): row for row in rows}
        self._ranks = {row["metric"]: row for row in result["ranks"]}
        self._decimals = decimals

    def systems(self, metric: str) -> list[str]:
        """Systems with a value of a metric, in the order of the table."""
        return list(dict.fromkeys(system for name, system, _ in self._rows if name == metric))

    def cell(self, metric: str, system: str, dataset: str) -> tuple[str, str, bool, bool]:
        """Value, spread (empty if there is none), whether marked, whether the best; a dash where nothing is known."""
        row = self._rows.get((metric, system, dataset))
        if row is None:
            return "-", "", False, False
        std = row.get("std")
        spread = "" if std is None or std != std else number(std, self._decimals)
        return number(row["value"], self._decimals), spread, bool(row.get("marked")), bool(row["best"])

    def mean_rank(self, metric: str, system: str) -> str:
        """Mean rank of a system, a dash where it is not ranked."""
        ranks = self._ranks.get(metric)
        if ranks is None or system not in ranks["systems"]:
            return "-"
        return f"{ranks['mean_ranks'][ranks['systems'].index(system)]:.2f}"


def _plain_cell(text: str, spread: str, mark: bool, best: bool) -> str:
    return text + (f" ± {spread}" if spread else "") + ("*" if mark else " ")


def metric_title(metric: str) -> str:
    """A metric with its direction; of frontiers ``giniindex@10 within 5 %`` as well."""
    name, _, rest = metric.partition(" ")
    return f"{display_name(name)} {arrow(name)}{f' {rest}' if rest else ''}"


def study_lines(result: Mapping[str, Any], decimals: int) -> list[str]:
    """Lines for the terminal: a block a metric, a row a system, a column a data set, and the mean rank.

    Args:
        result: a document of the kind ``study``.
        decimals: digits after the point.
    """
    values, lines = _Values(result, decimals), [""]
    for metric in values.metrics:
        rows = []
        for system in values.systems(metric):
            cells = [values.cell(metric, system, dataset) for dataset in values.datasets]
            shown = [_plain_cell(*cell) for cell in cells]
            rows.append([system, *shown, values.mean_rank(metric, system)])
        lines += [*text_table([metric_title(metric), *values.datasets, "mean rank"], rows), ""]
    return [*lines, *rank_sentences(result), *_failures(result), *result["notes"]]


def study_markdown(result: Mapping[str, Any], decimals: int) -> list[str]:
    """Lines of a Markdown file."""
    values, lines = _Values(result, decimals), [f"# {_title(result)}", "", study_caption(result), ""]
    for metric in values.metrics:
        rows = []
        for system in values.systems(metric):
            shown = []
            for dataset in values.datasets:
                text, spread, mark, best = values.cell(metric, system, dataset)
                shown.append(
                    (f"**{text}**" if best else text) + (f" ± {spread}" if spread else "") + ("\\*" if mark else "")
                )
            rows.append([system, *shown, values.mean_rank(metric, system)])
        lines += [*markdown_table([metric_title(metric), *values.datasets, "mean rank"], rows), ""]
    lines += ["## Ranks", "", *(f"- {text}" for text in rank_sentences(result)), "", *_failures(result)]
    protocol = [f"- {key}: `{value}`" for key, value in result["protocol"].items()]
    return [*lines, "## Protocol", "", *protocol, *(f"- {note}" for note in result["notes"])]


def study_latex(result: Mapping[str, Any], decimals: int) -> list[str]:
    """Lines of one LaTeX table for the package ``booktabs``: a block a metric."""
    values = _Values(result, decimals)
    width = len(values.datasets) + 2
    lines = [
        r"\begin{table}[t]",
        r"\centering\small",
        rf"\caption{{{escaped(study_caption(result))}}}",
        rf"\label{{tab:{result['study']}-{'-'.join(_plain_label(name) for name in values.datasets)}}}",
        rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}",
        r"\toprule",
        " & ".join(["System", *map(escaped, values.datasets), "Mean rank"]) + r" \\",
    ]
    for metric in values.metrics:
        name, _, rest = metric.partition(" ")
        title = f"{escaped(display_name(name))} {LATEX_ARROWS[arrow(name)]}{f' {escaped(rest)}' if rest else ''}"
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\emph{{{title}}}}} \\"]
        for system in values.systems(metric):
            shown = []
            for dataset in values.datasets:
                text, spread, mark, best = values.cell(metric, system, dataset)
                shown.append(
                    (rf"\textbf{{{text}}}" if best else text)
                    + (rf" {{\scriptsize $\pm$ {spread}}}" if spread else "")
                    + (r"$^{*}$" if mark else "")
                )
            lines.append(" & ".join([escaped(system), *shown, values.mean_rank(metric, system)]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]


def _plain_label(text: str) -> str:
    return "".join(sign if sign.isascii() and (sign.isalnum() or sign == "-") else "-" for sign in text)


def _title(result: Mapping[str, Any]) -> str:
    return f"{'Comparison' if result['study'] == 'compare' else 'Frontiers'} on {', '.join(result['datasets'])}"


def study_caption(result: Mapping[str, Any]) -> str:
    """What the table shows and what its marks mean."""
    words = f"Test results on {len(result['datasets'])} data sets under one protocol; bold: the best of a data set"
    if result["study"] == "frontier":
        words += ", each method's setting chosen on validation within the budget"
    if result["reference"]:
        words += f"; *: differs from {result['reference']} on that data set (corrected test by user, p < .05)"
    return f"{words}. Ranks are means over the data sets, 1 being the best."


def rank_sentences(result: Mapping[str, Any]) -> list[str]:
    """What the ranks say, a sentence a metric."""
    found = []
    for row in result["ranks"]:
        order = ", ".join(f"{name} {rank:.2f}" for name, rank in zip(row["systems"], row["mean_ranks"], strict=True))
        text = f"{metric_title(row['metric'])}: mean ranks {order}"
        apart = row["critical_difference"]
        if apart is not None and apart == apart:
            p = p_text(row["p"])
            sign = "" if p.startswith("<") else "= "
            text += f"; Friedman p {sign}{p}, critical difference {apart:.2f} (Nemenyi, 5 %)"
        found.append(f"{text}.")
    return found


def _failures(result: Mapping[str, Any]) -> list[str]:
    return [f"No result on {row['dataset']} for {row['system']}: {row['error']}" for row in result["failed"]]


@house_style()
def ranks_figure(result: Mapping[str, Any]) -> Figure:
    """Mean ranks, a panel a metric; bars join systems that cannot be told apart.

    Args:
        result: a document of the kind ``study``, or its JSON.
    """
    rows = [row for row in result["ranks"] if len(row["systems"]) > 1]
    most = max((len(row["systems"]) for row in rows), default=1)
    figure, panels = new_figure(max(len(rows), 1), 1, 6.4, max(len(rows), 1) * (1.0 + 0.24 * most), squeeze=False)
    for axes, row in zip(panels[:, 0], rows, strict=False):
        places = range(len(row["systems"]))
        axes.plot(row["mean_ranks"], places, "o", color=BASE, clip_on=False)
        axes.set_yticks(list(places), row["systems"])
        axes.invert_yaxis()
        axes.set_xlim(0.8, most + 0.2)
        axes.set_title(metric_title(row["metric"]))
        for group in row["groups"]:
            at = [row["systems"].index(name) for name in group]
            axes.plot([row["mean_ranks"][i] for i in (at[0], at[-1])], [at[0], at[-1]], color=MUTED, linewidth=5,
                      alpha=0.5, solid_capstyle="round", zorder=0)  # fmt: skip
    panels[-1, 0].set_xlabel("mean rank over the data sets (1 is the best; joined: no difference at 5 %)")
    return figure


def study_tables(result: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, header and rows of a table a metric, for the page."""
    values, tables = _Values(result, 4), []
    for metric in values.metrics:
        rows: list[list[str]] = []
        for system in values.systems(metric):
            cells = [values.cell(metric, system, dataset) for dataset in values.datasets]
            shown = [_plain_cell(*cell).rstrip() for cell in cells]
            rows.append([system, *shown, values.mean_rank(metric, system)])
        tables.append((metric_title(metric), ["system", *values.datasets, "mean rank"], rows))
    return tables


def study_sentences(result: Mapping[str, Any]) -> list[str]:
    """What a study found, for the page."""
    return [study_caption(result), *rank_sentences(result), *_failures(result)]
