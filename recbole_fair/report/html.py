"""One HTML file that shows results: it opens from the disk, needs no network, and says in words what figures show."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from recbole_fair import __version__
from recbole_fair.evaluator.directions import display_name
from recbole_fair.io.atomic import atomic_file
from recbole_fair.report.audits import audit_sentences, tests_table
from recbole_fair.report.comparison_plots import comparison_plots, comparison_sentences, comparison_tables
from recbole_fair.report.concept_words import said_of
from recbole_fair.report.documents import Document, EvaluationDocument, named
from recbole_fair.report.dossier_plots import dossier_plots
from recbole_fair.report.frontier_page import frontier_plots, frontier_sentences, frontier_tables
from recbole_fair.report.group_tables import MOST, group_tables
from recbole_fair.report.neurons_page import (
    control_tables,
    information_table,
    leading_table,
    neuron_sentences,
    neurons_table,
    site_sentences,
)
from recbole_fair.report.plots import Plot, run_plots, runs_plot, tradeoff
from recbole_fair.report.sources import Source, Sources, read_sources
from recbole_fair.report.study import study_sentences, study_tables
from recbole_fair.report.tuning_page import tuning_plots, tuning_sentences, tuning_tables
from recbole_fair.report.words import (
    Headline,
    Values,
    base_name,
    direction,
    final_name,
    headlines,
    relative,
    run_sentences,
    short,
    signed_percent,
    sweep_sentences,
    verdict,
)

# plotly.js 4.1.1 with the flat kinds of figures alone: a third of the whole (npm: plotly.js-cartesian-dist-min).
_PLOTLY = "plotly-cartesian.min.js"
_SIDES = {"popular": "Neurons that lean to popular users", "unpopular": "Neurons that lean to unpopular users"}


@dataclass
class Table:
    """A table of the page: the first column names the rows.

    Attributes:
        caption: what it shows.
        header: of every column.
        rows: cells as text; a cell ``("better", text)`` is marked as such.
        note: a sentence below it.
        search: whether a field above it finds rows.
    """

    caption: str
    header: list[str]
    rows: list[list[Any]]
    note: str = ""
    search: bool = False


@dataclass
class Section:
    """A part of the page, of one document.

    Attributes:
        id: anchor.
        title: heading.
        short: name in the navigation.
        source: file that it comes from.
        tables: shown in front of the figures.
        more: tables behind them, by user group.
        plots: figures.
        neurons: strongest neurons by title of their side.
        notes: sentences of the document.
        settings: configuration and versions.
    """

    id: str
    title: str
    short: str
    source: str
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    more: list[Table] = field(default_factory=list)
    neurons: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    settings: list[Table] = field(default_factory=list)


def write_report(paths: Sequence[str | Path], output: str | Path | None = None) -> Path:
    """Write the report of result documents.

    Args:
        paths: JSON files of run, evaluate, sweep, compare, explain and audit, or folders with them.
        output: the HTML file; when left out ``report.html`` in the first folder named, or beside the first file with
            its name.

    Returns:
        Where it was written.

    Raises:
        FairError: if there is nothing to report, or the file cannot be written.
    """
    sources = read_sources(paths)
    first = Path(paths[0])
    target = (
        Path(output) if output is not None else first / "report.html" if first.is_dir() else first.with_suffix(".html")
    )
    text = page(sources)
    with atomic_file(target, "the report ", mode="w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return target


def page(sources: Sources) -> str:
    """The page as text.

    Args:
        sources: what to show; all text in them is escaped.

    Raises:
        FairError: for a document whose entries are not what its kind says.
    """
    from jinja2 import Environment

    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_asset("report.html"))
    sections = sections_of(sources)
    plots = {f"{section.id}-{number}": plot.spec for section in sections for number, plot in enumerate(section.plots)}
    return template.render(
        title=_title(sources),
        lede=_lede(sources),
        cards=_cards(sources),
        findings=_findings(sources),
        sections=sections,
        navigation=_navigation(sections),
        sources=[source.path for source in sources.all],
        version=__version__,
        style=_asset("style.css"),
        script=_asset("script.js"),
        plotly=_asset(_PLOTLY),
        figures=embedded(plots),
        short=short,
        percent=signed_percent,
    )


def _asset(name: str) -> str:
    return files("recbole_fair.report").joinpath("page", name).read_text(encoding="utf-8")


def embedded(value: Any) -> str:
    """JSON that may stand inside a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _title(sources: Sources) -> str:
    names = list(dict.fromkeys(source.content.name for source in sources.all))
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


_PLURALS = {"study": "studies", "search": "searches"}


def _navigation(sections: Sequence[Section]) -> list[tuple[str, str]]:
    """Anchor and label of each kind of section; one entry, with their number, for those that share a label."""
    counts = Counter(section.short for section in sections)
    first: dict[str, str] = {}
    for section in sections:
        first.setdefault(section.short, section.id)
    return [(anchor, label if counts[label] == 1 else f"{label} ({counts[label]})") for label, anchor in first.items()]


def _lede(sources: Sources) -> str:
    words = Counter(_FORMS[source.content.kind].word for source in sources.all)
    parts = [f"{count} {word if count == 1 else _PLURALS.get(word, word + 's')}" for word, count in words.items()]
    return "Results of " + (", ".join(parts[:-1]) + " and " if len(parts) > 1 else "") + parts[-1] + "."


def _cards(sources: Sources) -> list[Headline]:
    return headlines(sources.runs[0].content) if sources.runs else []


def _findings(sources: Sources) -> list[tuple[str, str, list[str]]]:
    """Anchor, name and sentences of every document."""
    found = []
    for anchor, source in _anchored(sources):
        with named(source.path, source.content.kind):
            found.append((anchor, _heading(source), _FORMS[source.content.kind].sentences(source.content)))
    return found


def _anchored(sources: Sources) -> Iterable[tuple[str, Source]]:
    for number, source in enumerate(sources.all, start=1):
        yield f"{source.content.kind}-{number}", source


def _heading(source: Source) -> str:
    return _FORMS[source.content.kind].before_name + source.content.name


def sections_of(sources: Sources) -> list[Section]:
    """One section a document.

    Raises:
        FairError: for a document whose entries are not what its kind says.
    """
    sections = []
    for anchor, source in _anchored(sources):
        with named(source.path, source.content.kind):
            sections.append(_FORMS[source.content.kind].section(anchor, source))
    together = runs_plot([source.content for source in sources.runs], *_plane(sources))
    if together is not None:
        sections[0].plots.insert(0, together)
    return sections


def section_of(document: Document) -> Section:
    """The section of one document.

    Args:
        document: a result document.
    """
    return _FORMS[document.kind].section(document.kind, Source(document, ""))


def sentences_of(document: Document) -> list[str]:
    """What one document says in words.

    Args:
        document: a result document.
    """
    return _FORMS[document.kind].sentences(document)


def _plane(sources: Sources) -> tuple[str, str]:
    """The two metrics by which runs are put side by side."""
    keys = [key for source in sources.runs[:1] for key in source.content.get("test_result") or {}]
    names = {key.partition("@")[0]: key for key in reversed(keys)}
    return names.get("giniindex", "giniindex@10"), names.get("ndcg", "ndcg@10")


def _common(anchor: str, source: Source, name: str) -> Section:
    content = source.content
    section = Section(anchor, _heading(source), name, source.path, notes=list(content.notes))
    tables = (_settings(content), _popularity(content), _seconds(content), _versions(content))
    section.settings = [table for table in tables if table.rows]
    return section


# -- runs --------------------------------------------------------------------------------------------------------------


def _run_section(anchor: str, source: Source) -> Section:
    run = source.content
    assert isinstance(run, EvaluationDocument)
    section = _common(anchor, source, run.model)
    if run.get("test_result"):
        section.tables = [_metrics(run)]
        section.more = _groups(run)
        section.plots = run_plots(run)
    return section


def _audit_section(anchor: str, source: Source) -> Section:
    section = _run_section(anchor, source)
    if source.content["comparisons"]:
        section.tables.append(Table(*tests_table(source.content)))
    return section


def _metrics(run: Values) -> Table:
    test = run["test_result"]
    variants: Mapping[str, Mapping[str, Any]] = run.get("variants") or {str(run.get("model")): test}
    before = run.get("base_test_result")
    intervals = run.get("intervals") or {}
    # What is compared stands side by side, in sight of small screens too; other variants follow.
    compared = [name for name in variants if name in (base_name(run), final_name(run))]
    others = [name for name in variants if name not in compared]
    header = ["metric", *compared]
    header += ["change"] * (before is not None) + ["95 % interval"] * bool(intervals) + others
    rows = []
    for name, after in test.items():
        cells: list[Any] = [f"{display_name(name)} {direction(name)}"]
        cells += [short(variants[variant].get(name)) for variant in compared]
        if before is not None:
            cells.append(_change_cell(name, before.get(name), after))
        if intervals:
            low, high = intervals.get(name, (None, None))
            cells.append(f"{short(low)} to {short(high)}" if None not in (low, high) else "–")
        rows.append([*cells, *(short(variants[variant].get(name)) for variant in others)])
    note = "↑ higher is better, ↓ lower is better, → 0 nearer to zero is better."
    if before is not None:
        note += " The change is that of the final variant against the base."
    return Table("Metrics on test", header, rows, note)


def _change_cell(name: str, before: float | None, after: float | None) -> Any:
    change = relative(before, after)
    if change is None or before is None or after is None:
        return "–"
    word = verdict(name, before, after)
    return (word, f"{signed_percent(change)} {word}") if word != "same" else "0 %"


def _groups(run: EvaluationDocument) -> list[Table]:
    tables = []
    for name, metric, variants in group_tables(run):
        groups = next(iter(variants.values()))
        rows: list[list[Any]] = []
        for place, label in enumerate(groups.labels[:MOST]):
            values = [result.by_group[metric].iat[place] for result in variants.values()]
            rows.append([label, short(groups.sizes[label]), *map(short, values)])
        for word, apart in (
            ("largest - smallest", [result.difference()[metric] for result in variants.values()]),
            ("smallest / largest", [result.ratio()[metric] for result in variants.values()]),
        ):
            rows.append([word, "", *map(short, apart)])
        note = f"Groups: {groups.definition}."
        if groups.left_out:
            note += f" {short(groups.left_out)} users without a value are left out."
        if len(groups.labels) > MOST:
            note += f" {len(groups.labels) - MOST} more groups stand in the result file."
        caption = f"{display_name(metric)} {direction(metric)} by {name}"
        tables.append(Table(caption, [name, "users", *variants], rows, note))
    return tables


# -- the others --------------------------------------------------------------------------------------------------------


def _sweep_section(anchor: str, source: Source) -> Section:
    section = _common(anchor, source, "Trade-off")
    section.plots = [tradeoff(source.content)]
    return section


def _frontier_section(anchor: str, source: Source) -> Section:
    section = _common(anchor, source, "Frontier")
    section.tables = [Table(*table) for table in frontier_tables(source.content)]
    section.plots = frontier_plots(source.content)
    return section


def _comparison_section(anchor: str, source: Source) -> Section:
    section = _common(anchor, source, "Comparison")
    section.tables = [Table(*table) for table in comparison_tables(source.content)]
    section.plots = comparison_plots(source.content)
    return section


def _tuning_section(anchor: str, source: Source) -> Section:
    section = _common(anchor, source, "Search")
    section.tables = [Table(*table) for table in tuning_tables(source.content)]
    section.plots = tuning_plots(source.content)
    return section


def _study_section(anchor: str, source: Source) -> Section:
    section = _common(anchor, source, "Data sets")
    section.tables = [Table(*table) for table in study_tables(source.content)]
    return section


def _dossier_section(anchor: str, source: Source) -> Section:
    dossier = source.content
    section = _common(anchor, source, "Neurons" if dossier.get("strongest") else "Probes")
    concepts = dossier.get("concepts") or ()
    section.plots = [replace(plot, **said_of(vars(plot), concepts)) for plot in dossier_plots(dossier)]
    section.neurons = {
        said_of(_SIDES[side], concepts): entries
        for side, entries in (dossier.get("strongest") or {}).items()
        if entries
    }
    section.tables += [
        Table(*table)
        for table in (leading_table(dossier), information_table(dossier), *control_tables(dossier))
        if table
    ]
    if dossier.get("every"):
        section.tables.append(Table(*neurons_table(dossier), search=True))
    if dossier.get("normality"):
        rows: list[list[Any]] = []
        for row in dossier["normality"]:
            shares = [_share(row[key]) for key in ("skew", "kurtosis", "both", "test")]
            rows.append([f"{row['population']} users, {row['neurons']} neurons", *shares])
        section.tables.append(
            Table(
                "How normal activations are",
                ["share of neurons with", "|skew| < 0.5", "|excess kurtosis| < 1", "both", "test not rejected"],
                rows,
                "The test is D'Agostino and Pearson's at 5 %; with thousands of users it finds the least deviation.",
            )
        )
    return section


@dataclass(frozen=True)
class _Form:
    """How documents of one kind are shown.

    Attributes:
        word: what one is called.
        before_name: words of its heading in front of its name.
        sentences: what it says.
        section: its part of the page, from anchor and source.
    """

    word: str
    before_name: str
    sentences: Callable[[Values], list[str]]
    section: Callable[[str, Source], Section]


_FORMS = {
    "audit": _Form("audit", "", audit_sentences, _audit_section),
    "run": _Form("evaluation", "", run_sentences, _run_section),
    "evaluation": _Form("evaluation", "", run_sentences, _run_section),
    "sweep": _Form("sweep", "Trade-off of ", sweep_sentences, _sweep_section),
    "frontier": _Form("frontier", "Frontier of ", frontier_sentences, _frontier_section),
    "tuning": _Form("search", "Search for ", tuning_sentences, _tuning_section),
    "comparison": _Form("comparison", "", comparison_sentences, _comparison_section),
    "study": _Form("study", "", study_sentences, _study_section),
    "neurons": _Form("dossier", "Inside ", neuron_sentences, _dossier_section),
    "sites": _Form("dossier", "Inside ", site_sentences, _dossier_section),
}


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


# -- how it was made ---------------------------------------------------------------------------------------------------


def _settings(content: Values) -> Table:
    plain = {key: content.get(key) for key in ("model", "dataset", "seed", "mask_seen", "checkpoint", "split")}
    plain |= {f"{key} (strength)": value for key, value in (content.get("strengths") or {}).items()}
    plain |= {key: content.get(key) for key in ("seeds", "reference")}
    settings = {**plain, **(content.get("protocol") or {}), **(content.get("config") or {})}
    if isinstance(content.get("settings"), Mapping):  # of a comparison; those of a sweep or frontier are its rows
        settings |= content["settings"]
    rows: list[list[Any]] = [[key, _plain(value)] for key, value in settings.items() if value is not None]
    return Table("Settings that differ from the defaults", ["key", "value"], rows)


def _popularity(content: Values) -> Table:
    rows: list[list[Any]] = [[key, _plain(value)] for key, value in (content.get("popularity") or {}).items()]
    return Table("Popularity, as defined here", ["", ""], rows)


def _seconds(content: Values) -> Table:
    rows: list[list[Any]] = [[key, f"{value:.1f}"] for key, value in (content.get("timings") or {}).items()]
    return Table("Seconds", ["stage", "seconds"], rows)


def _versions(content: Values) -> Table:
    rows: list[list[Any]] = [[key, str(value)] for key, value in (content.get("versions") or {}).items()]
    return Table("Versions", ["package", "version"], rows)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
