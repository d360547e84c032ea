"""Audit lists that any system has made: metrics, groups, intervals, curves, tests between systems, and the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.evaluator.collector import DataStruct
from recbole.evaluator.register import metrics_dict

from recbole_fair.analysis.systems import Cell, comparisons_table
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.layers import files_of, find_config_file, parse_value, read_yaml, tidy
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.tables.lists import Lists, read_lists
from recbole_fair.errors import FairError
from recbole_fair.evaluator import EvaluationResult, FairCollector, FairEvaluator
from recbole_fair.evaluator.csv_files import write_per_item, write_per_user, write_table
from recbole_fair.evaluator.specs import BY_KEY, HELD_OUT
from recbole_fair.io.timing import Stages
from recbole_fair.report.audits import AuditDocument, audit_lines
from recbole_fair.report.documents import rows_of, write_document
from recbole_fair.report.group_tables import group_lines
from recbole_fair.report.html import write_report
from recbole_fair.report.summary import metrics_table
from recbole_fair.runs.audited import Reference, Tables, reference_of_data, reference_of_tables, settings_of_run
from recbole_fair.runs.cells import cell_of
from recbole_fair.runs.outputs import versions

_BOOTSTRAP = 1000  # draws of the intervals of differences
_SCORES = ("rec.meanrank", "rec.score", "data.label")
_OWN_NOTE = "the candidates ran out"


@dataclass(frozen=True)
class System:
    """One system's lists, measured.

    Attributes:
        name: what it is called.
        path: file of its lists.
        lists: the lists, and what was found in the file.
        result: the evaluation.
        cell: the same for tests against other systems.
    """

    name: str
    path: str
    lists: Lists
    result: EvaluationResult
    cell: Cell


def audit(
    lists: Sequence[str | Path],
    tables: Tables | None = None,
    *,
    run: str | Path | None = None,
    model: str | None = None,
    dataset: str | None = None,
    names: Sequence[str] = (),
    columns: Mapping[str, str | None] | None = None,
    permutations: int = 10_000,
    output: str | Path | None = None,
    config_file_list: str | Path | Sequence[str | Path] | None = None,
    config_dict: Mapping[str, Any] | None = None,
) -> AuditDocument:
    """Measure lists as if a model of ours had made them.

    They are measured on tables of training and test, or on a data set of RecBole that is split as a run splits it:
    named by ``dataset`` (with ``model`` for its defaults), or taken over with all settings from the result document of
    a run. In the second case lists that the run wrote itself give its metrics again.

    Args:
        lists: csv, parquet or jsonl files of user, item and rank or score; the first is what others are compared with.
        tables: training, test and features in tables.
        run: the result document of a run, in place of tables.
        model: a model's name, for the split that it takes by default; ``Pop`` (random shares) when left out.
        dataset: name of a data set below ``data_path``.
        names: of the systems; the files' when left out.
        columns: columns of the files, by role: user, item, time, rank, score.
        permutations: random patterns of signs of the permutation test.
        output: folder of the results; ``results/audit-DATASET`` if None.
        config_file_list: yaml files, or one of them; later ones win.
        config_dict: metrics, cutoffs, groups and, with a data set, split and filters.

    Returns:
        The result document, which is also written to the folder with ``report.html``, values by user and by item, and
        the tests.

    Raises:
        FairError: for anything that the user can mend.
    """
    stages = Stages()
    if not lists:
        raise FairError("Name at least one file of lists.")
    if sum(given is not None for given in (tables, run, dataset)) != 1:
        raise FairError("Say what to measure on: give --train (and --test), or --data NAME, or --run RESULT.json.")
    settings: dict[str, Any] = {}
    for file in files_of(config_file_list):
        settings |= tidy(read_yaml(find_config_file(file)))
    for key, value in (config_dict or {}).items():
        settings[key] = parse_value(key, value) if isinstance(value, str) else tidy(value)
    if run is not None:
        stored_model, dataset, stored = settings_of_run(run, settings)
        settings, model = {**stored, **settings}, model or stored_model
    called = _names(lists, names)
    with _reference(tables, model, dataset, lists, settings, columns or {}) as reference:
        with stages("lists and metrics"):
            systems = measured(reference, called, columns or {})
        document = _document(reference, systems, permutations, stages)
        _write(folder_of(output, document.dataset), document, systems, reference)
    return document


def folder_of(output: str | Path | None, dataset: str) -> Path:
    """Folder of an audit's results."""
    return Path(output) if output is not None else Path("results", f"audit-{dataset}")


def shown(document: AuditDocument) -> list[str]:
    """Lines of an audit for the terminal: metrics, groups, tests, notes."""
    decimals = int(document.config.get("metric_decimal_place") or 4)
    return [
        *metrics_table(document, decimals),
        *group_lines(document, decimals),
        *audit_lines(document, decimals),
    ]


def _names(lists: Sequence[str | Path], names: Sequence[str]) -> dict[str, str]:
    """Path by name of the system."""
    if names and len(names) != len(lists):
        raise FairError(f"names={','.join(names)} names {len(names)} systems, and there are {len(lists)} files.")
    stems = [Path(path).stem for path in lists]
    chosen = list(names) or (stems if len(set(stems)) == len(stems) else [str(path) for path in lists])
    found = dict(zip(chosen, map(str, lists), strict=True))
    if len(found) < len(lists):
        twice = next(name for name in chosen if chosen.count(name) > 1)
        raise FairError(f"Two systems are named {twice!r}; name them by --names=a,b.")
    return found


@contextmanager
def _reference(
    tables: Tables | None,
    model: str | None,
    dataset: str | None,
    lists: Sequence[str | Path],
    settings: Mapping[str, Any],
    columns: Mapping[str, str | None],
) -> Iterator[Reference]:
    if tables is not None:
        with reference_of_tables(tables, lists, settings, columns) as reference:
            yield reference
        return
    assert dataset is not None
    yield reference_of_data(model or "Pop", dataset, settings)


def measured(reference: Reference, systems: Mapping[str, str], columns: Mapping[str, str | None]) -> list[System]:
    """Measure the lists of systems.

    Args:
        reference: who is evaluated, on what.
        systems: file by name of the system.
        columns: columns that the user named, by role.

    Raises:
        FairError: for lists that cannot be read, and metrics that need more than lists.
    """
    config = reference.config
    _check_metrics(config, reference.has_test)
    evaluator, collector = FairEvaluator(config), FairCollector(config)
    collector.data_collect(reference.train)
    collector.use_validation_history(reference.valid)
    rows, items, found = reference.row_of, reference.item_ids, []
    for name, path in systems.items():
        lists = read_lists(path, rows, items, collector.options.kmax, columns)
        result = evaluator.result(_struct(reference, collector, lists))
        seen = _seen_places(lists, collector, reference)
        if seen:
            lists.notes.append(f"{seen:,} places hold items of their user's training history.")
        result.notes = [note for note in result.notes if _OWN_NOTE not in note]
        found.append(System(name, path, lists, result, cell_of(name, None, 0, result, reference.train, {})))
    return found


def _check_metrics(config: FairConfig, has_test: bool) -> None:
    """Lists alone do not say how items that are not listed were ranked.

    Raises:
        FairError: for a metric that needs more than lists.
    """
    for name in list(config["metrics"]):
        needs = metrics_dict[name.lower()].metric_need
        if any(need in needs for need in _SCORES):
            raise FairError(f"metrics: {name} needs the scores of all items, which lists do not have; leave it out.")
        spec = BY_KEY.get(name.lower())
        if not has_test and spec is not None and HELD_OUT in spec.needs:
            config["metrics"].remove(name)
    if not config["metrics"]:
        raise FairError("Without --test there are no held-out items, which all of these metrics need.")
    if not has_test and config["group_metrics"]:
        raise FairError("group_metrics need held-out items: give --test.")


def _struct(reference: Reference, collector: FairCollector, lists: Lists) -> DataStruct:
    items = torch.from_numpy(lists.items)
    places = -torch.arange(1, items.shape[1] + 1, dtype=torch.float32)
    values = places.expand(items.shape).masked_fill(items == 0, -torch.inf)
    collector.take_lists(
        items, values, reference.users, reference.positive_rows, reference.positive_items, reference.train.item_num
    )
    return collector.get_data_struct()


def _seen_places(lists: Lists, collector: FairCollector, reference: Reference) -> int:
    """How many places hold items of their user's training history."""
    histories: Histories | None = collector.histories
    assert histories is not None
    past = np.unique(histories.users * histories.n_items + histories.items)
    wanted = reference.users.numpy()[:, None] * histories.n_items + lists.items
    return int((np.isin(wanted, past) & (lists.items > 0)).sum())


def _document(reference: Reference, systems: Sequence[System], permutations: int, stages: Stages) -> AuditDocument:
    config, last = reference.config, systems[-1].result
    several = len(systems) > 1
    rows: list[Mapping[str, Any]] = []
    if several:
        cells = [system.cell for system in systems]
        draws = int(config["bootstrap"] or _BOOTSTRAP)
        options = FairEvaluator(config).options
        with stages("tests"):
            rows = rows_of(
                comparisons_table(cells, systems[0].name, options, permutations, draws, int(config["seed"] or 0))
            )

    def curves(kind: str) -> dict[str, Any] | None:
        return {one.name: one.result.curves[kind] for one in systems if kind in one.result.curves} or None

    notes = [f"{one.name}: {note}" if several else note for one in systems for note in one.lists.notes]
    notes += [f"{one.name}: {note}" if several else note for one in systems for note in one.result.notes]
    popularity = last.popularity
    return AuditDocument(
        dataset=config["dataset"],
        model=systems[-1].name,
        seed=None,
        test_result=dict(last.metrics),
        base_test_result=dict(systems[0].result.metrics) if several else None,
        variants={one.name: dict(one.result.metrics) for one in systems} if several else None,
        variant_groups={one.name: one.result.groups for one in systems} if several and last.groups else None,
        n_users=last.n_users,
        intervals=last.intervals or None,
        groups=last.groups or None,
        curves=last.curves or None,
        config=config.differences(),
        popularity=popularity.describe() if popularity is not None else None,
        timings=stages.seconds,
        versions=versions(),
        notes=[*reference.notes, *notes],
        files={one.name: one.path for one in systems},
        lists={one.name: one.lists.counts for one in systems},
        system_intervals={one.name: one.result.intervals for one in systems if one.result.intervals},
        comparisons=rows,
        data=reference.facts,
        calibration_curves=curves("calibration"),
        lorenz_curves=curves("lorenz"),
        exposure_curves=curves("exposure"),
    )


def _write(folder: Path, document: AuditDocument, systems: Sequence[System], reference: Reference) -> None:
    write_document(folder / "audit.json", document)
    for one in systems:
        suffix = "".join(mark if mark.isalnum() or mark in "-_." else "_" for mark in one.name)
        write_per_user(folder / f"users-{suffix}.csv", one.result, reference.train)
        write_per_item(folder / f"items-{suffix}.csv", one.result, reference.train)
    if document.comparisons:
        write_table(pd.DataFrame(document.comparisons), folder / "tests.csv")
    write_report([folder / "audit.json"], folder / "report.html")
