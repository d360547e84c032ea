"""The catalogue of measured results: the papers' tables with our values beside theirs, from ``properties/results``.

A file is a paper. It holds ``paper``, ``link`` and ``tables``; a table has metrics, what its rows share, and rows. What
a row leaves out it takes from its table. A row says how its numbers are made (model, data set, presets, settings, what
is changed at scoring time, variant, seeds), our means and deviations over these seeds, the paper's numbers, how far a
repetition may be off, and the minutes that it takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from recbole_fair.config.keys import did_you_mean
from recbole_fair.config.kinds import is_number, shown
from recbole_fair.config.layers import properties_dir, read_yaml
from recbole_fair.errors import FairError

_OF_ROW = (
    "model",
    "dataset",
    "presets",
    "settings",
    "scoring",
    "variant",
    "seeds",
    "split_seed",
    "tolerance",
    "minutes",
    "script",
)
_ROW_ONLY = ("label", "ours", "sd", "paper", "quick", "also")
_OF_TABLE = ("title", "metrics", "heads", "also", "change", "rows", *_OF_ROW)
_OF_FILE = ("paper", "link", "tables")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table: how it is made, and what came out.

    Attributes:
        name: what ``verify`` calls it.
        table: name of its table.
        label: what the row is called in the table.
        model: name of the model.
        dataset: name of the data set.
        presets: files of settings, first ones first.
        settings: of the training.
        scoring: changed when the trained model is evaluated; a re-ranker among them.
        variant: whose metrics count; None for those that the run is about.
        seeds: one training each.
        split_seed: of a random split that all seeds share; None: each seed splits anew.
        ours: mean over the seeds by metric, ``name@k`` or ``name@k[grouping=group]``; empty where nothing was measured.
        sd: standard deviation over the seeds by metric.
        paper: what the paper prints, by metric.
        tolerance: how far a repetition may be off, by metric, in the metric's unit.
        minutes: of two cores, for one seed; rows of one training share it.
        script: the command of the script that makes it, where no single command of the package does.
        quick: whether ``verify --quick`` repeats it.
        also: further cells, as they are printed.
    """

    name: str
    table: str
    label: str
    model: str
    dataset: str
    presets: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    scoring: Mapping[str, Any] = field(default_factory=dict)
    variant: str | None = None
    seeds: tuple[int, ...] = ()
    split_seed: int | None = None
    ours: Mapping[str, float]
    sd: Mapping[str, float]
    paper: Mapping[str, float]
    tolerance: Mapping[str, float]
    minutes: float | None = None
    script: str | None = None
    quick: bool = False
    also: tuple[str, ...] = ()

    @property
    def repeatable(self) -> bool:
        """Whether there is something of ours that ``verify`` can make again."""
        return bool(self.ours) and self.script is None

    @property
    def command(self) -> str:
        """The command that makes it, for its first seed; empty where nothing of ours stands."""
        if self.script is not None or not self.ours:
            return self.script or ""
        words = ["recbole-fair", "run", "-m", self.model, "-d", self.dataset]
        for preset in self.presets:
            words += ["-c", preset]
        settings = {**self.settings, **self.scoring, "seed": self.seeds[0]}
        return " ".join([*words, *(f"--{key}={_spoken(value)}" for key, value in settings.items())])


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of results.

    Attributes:
        name: what documents call it.
        title: where it stands in the paper, and what it is about.
        paper: the paper.
        metrics: its columns.
        heads: what the columns are called.
        also: heads of further columns.
        change: name of the row that percentages of the first metric are counted from; None for none.
        rows: its rows.
    """

    name: str
    title: str
    paper: str
    metrics: tuple[str, ...]
    heads: tuple[str, ...]
    also: tuple[str, ...]
    change: str | None
    rows: tuple[Row, ...]


def _spoken(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false"}.get(value, "null")  # type: ignore[arg-type]
    text = str(value)
    return f'"{text}"' if isinstance(value, (list, dict)) or set(text) & set(" ,()[]") else text


@cache
def tables(folder: Path | None = None) -> dict[str, Table]:
    """All tables by name, paper by paper.

    Args:
        folder: of the yaml files; the package's when left out.

    Raises:
        FairError: naming file and row, for a file that is no such catalogue.
    """
    found: dict[str, Table] = {}
    for file in sorted((folder or properties_dir() / "results").glob("*.yaml")):
        content = read_yaml(file)
        _known(content, _OF_FILE, file.name)
        for name, entries in content.get("tables", {}).items():
            if name in found:
                raise FairError(f"{file.name}: there are two tables {name}.")
            found[name] = _table(name, str(content.get("paper", "")), entries, f"{file.name}: {name}")
    names = [row.name for table in found.values() for row in table.rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FairError(f"results: there are two rows {twice[0]}.")
    return found


def rows(folder: Path | None = None) -> dict[str, Row]:
    """All rows by name, in the order of the tables; see :func:`tables`."""
    return {row.name: row for table in tables(folder).values() for row in table.rows}


def rows_named(names: Sequence[str], folder: Path | None = None) -> list[Row]:
    """Rows by their names; the name of a table stands for all its rows that can be repeated.

    Raises:
        FairError: for a name that is neither, or a row of which we have no numbers.
    """
    all_tables, all_rows, found = tables(folder), rows(folder), []
    for name in names:
        if name in all_tables:
            found += [row for row in all_tables[name].rows if row.repeatable]
        elif name not in all_rows:
            near = did_you_mean(name, [*all_rows, *all_tables])
            raise FairError(f"No row or table of results is called {name!r}{near}")
        elif not all_rows[name].ours:
            raise FairError(f"{name} holds the paper's numbers alone: there is nothing of ours to repeat.")
        elif not all_rows[name].repeatable:
            raise FairError(f"{name} needs several trainings at once; make it again by: {all_rows[name].script}")
        else:
            found.append(all_rows[name])
    return list({row.name: row for row in found}.values())


def _known(entries: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    for name in entries:
        if name not in names:
            raise FairError(f"{where}: {name} is no entry{did_you_mean(name, names)}")


def _table(name: str, paper: str, entries: Mapping[str, Any], where: str) -> Table:
    _known(entries, _OF_TABLE, where)
    metrics = tuple(entries["metrics"])
    heads = tuple(map(str, entries.get("heads", metrics)))
    if len(heads) != len(metrics):
        raise FairError(f"{where}: heads={list(heads)} are not as many as metrics={list(metrics)}.")
    shared = {key: entries[key] for key in _OF_ROW if key in entries}
    made = tuple(
        _row(row, name, metrics, shared, own, f"{where}: {row}") for row, own in entries.get("rows", {}).items()
    )
    also = tuple(map(str, entries.get("also", ())))
    for row in made:
        if row.also and len(row.also) != len(also):
            raise FairError(f"{where}: {row.name} has {len(row.also)} further cells, the table {len(also)}.")
    change = entries.get("change")
    if change is not None and change not in {row.name for row in made}:
        raise FairError(f"{where}: change={change} is no row of it.")
    return Table(
        name=name,
        title=str(entries.get("title", "")),
        paper=paper,
        metrics=metrics,
        heads=heads,
        also=also,
        change=change,
        rows=made,
    )


def _row(
    name: str, table: str, metrics: Sequence[str], shared: Mapping[str, Any], own: Mapping[str, Any], where: str
) -> Row:
    _known(own, (*_OF_ROW, *_ROW_ONLY), where)
    merged = {**shared, **own}
    for key in ("settings", "scoring"):
        merged[key] = {**shared.get(key, {}), **own.get(key, {})}
    ours, tolerance = _by_metric(metrics, merged, "ours", where), _by_metric(metrics, merged, "tolerance", where)
    if set(ours) - set(tolerance) and not merged.get("script"):
        raise FairError(f"{where}: no tolerance is given for {sorted(set(ours) - set(tolerance))[0]}.")
    if merged.get("variant") and {"reranker"} & ({*merged["settings"]} | {*merged["scoring"]}):
        raise FairError(f"{where}: variant={merged['variant']} cannot be set: a re-ranker takes the final one.")
    for key in ("model", "dataset", "seeds", "minutes") if ours and not merged.get("script") else ():
        if not merged.get(key):
            raise FairError(f"{where}: no {key} is given.")
    return Row(
        name=name,
        table=table,
        label=str(merged.get("label", name)),
        model=str(merged.get("model", "")),
        dataset=str(merged.get("dataset", "")),
        presets=tuple(map(str, merged.get("presets", ()))),
        settings=merged["settings"],
        scoring=merged["scoring"],
        variant=merged.get("variant"),
        seeds=tuple(merged.get("seeds", ())),
        split_seed=merged.get("split_seed"),
        ours=ours,
        sd=_by_metric(metrics, merged, "sd", where),
        paper=_by_metric(metrics, merged, "paper", where),
        tolerance=tolerance,
        minutes=merged.get("minutes"),
        script=merged.get("script"),
        quick=bool(merged.get("quick", False)),
        also=tuple("" if cell is None else str(cell) for cell in merged.get("also", ())),
    )


def _by_metric(metrics: Sequence[str], entries: Mapping[str, Any], key: str, where: str) -> dict[str, float]:
    """Numbers in the order of the metrics, by metric; what is not known is left out."""
    values = entries.get(key) or []
    if len(values) not in (0, len(metrics)):
        raise FairError(f"{where}: {key} has {len(values)} numbers for {len(metrics)} metrics.")
    for value in values:
        if value is not None and not (is_number(value) and math.isfinite(value)):
            raise FairError(f"{where}: {key} holds {shown(value)}, which is no number.")
    return {metric: float(value) for metric, value in zip(metrics, values, strict=False) if value is not None}
