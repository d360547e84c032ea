"""The sweep of a checkpoint: many settings of scoring time on validation and test, and which one to take."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from recbole.evaluator.register import metrics_dict

from recbole_fair.analysis.grid import Setting, parse_grid, setting_text, settings_of
from recbole_fair.analysis.pareto import bound_metric, choose, constraint_of, front_of
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.keys import did_you_mean
from recbole_fair.errors import FairError
from recbole_fair.evaluator.constraint import Constraint
from recbole_fair.evaluator.csv_files import write_table
from recbole_fair.evaluator.directions import display_name, spec_of
from recbole_fair.io.atomic import check_places
from recbole_fair.io.checkpoint import plain_config
from recbole_fair.io.imported import open_checkpoint
from recbole_fair.io.latest import named_checkpoint
from recbole_fair.io.processes import apart, current
from recbole_fair.report.documents import SweepDocument, write_document
from recbole_fair.report.style import save_figure
from recbole_fair.report.summary import sweep_lines
from recbole_fair.report.tradeoff import tradeoff_figure
from recbole_fair.runs.alone import alone
from recbole_fair.runs.journal import Journal, digest_of, file_digest, journal_of_each, settings_of_numbers
from recbole_fair.runs.loading import FILE_KEYS, both_splits, check_changes, config_of, load_trainer, refuse
from recbole_fair.runs.logs import begin_together, show_table
from recbole_fair.runs.outputs import beside, claim, data_stamps, files_read, named, study_files, versions, write_each
from recbole_fair.runs.served import save_served
from recbole_fair.runs.shares import shared_out
from recbole_fair.runs.sweeper import Sweeper, check_keys, sweep_table

logger = logging.getLogger(__name__)


@alone
def sweep_checkpoint(
    model_file: str | Path,
    grid: Sequence[str] | Mapping[str, Sequence[Any]],
    x: str = "GiniIndex@10",
    y: str = "NDCG@10",
    subject_to: Sequence[str] = (),
    output: str | Path | None = None,
    config_dict: Mapping[str, Any] | None = None,
    save_chosen: str | Path | None = None,
) -> SweepDocument:
    """Evaluate a model under many scoring-time settings on validation and test; users are encoded once a split.

    Args:
        model_file: checkpoint of a model with strengths that apply at scoring time, or of any model if ``config_dict``
            names a ``reranker``.
        grid: ``key=start:stop:step`` or ``key=a,b,c``, one a key; or values by key.
        x: metric to choose by, among the settings that keep the bounds.
        y: the metric that it is traded against.
        subject_to: bounds on validation, such as ``NDCG@10 >= 0.9*base``.
        output: where files go, without suffix: all settings to ``.csv``, the document to ``.json``, the figure to
            ``.png`` and ``.svg``. While it runs, ``.partial.jsonl`` holds what is measured, and the same call goes on
            from there. None: no files.
        config_dict: settings to change, such as ``data_path`` or ``reranker``.
        save_chosen: where to write a checkpoint of the setting that wins; it is evaluated, recommends and is exported
            under this setting.

    Returns:
        ``base`` (metrics of the plain model by split), ``settings`` (one row each), ``front`` (rows of the Pareto front
        of ``x`` and ``y`` on validation), ``chosen`` (the row that wins on validation, or None), ``grid``,
        ``subject_to`` (the bounds as numbers), ``resumed`` (how many settings were there already),
        ``seconds_a_setting`` (of the others), ``config``, ``versions`` and what names the run.

    Raises:
        FairError: for a checkpoint without strengths, an empty grid, an unknown metric or a value that is not allowed.
    """
    values, settings = _grid(grid)
    x, y = (metric_name(name) for name in (x, y))
    wanted = [x, y, *(metric_name(bound_metric(text)) for text in subject_to)]
    model_file = named_checkpoint(model_file, config_dict)
    content = open_checkpoint(model_file)
    config = _config(content, config_dict or {}, values, wanted)
    if save_chosen is not None:
        check_places({"save_chosen": save_chosen}, files_read(config, model_file))
    begin_together(config)
    trainer, loaders = load_trainer(config, content, model_file)
    splits = both_splits(loaders, "A sweep")
    journal = None
    numbers = settings_of_numbers(plain_config(config))
    depends_on = {"checkpoint": file_digest(model_file), "settings": numbers, "data": data_stamps(config)}
    with ExitStack() as stack:
        sweeper = stack.enter_context(Sweeper(trainer, splits, config["reranker"]))
        sweeper.check(settings)
        if output is not None:
            journal = journal_of_each(f"{output}.partial.jsonl", {**depends_on, "version": versions()})
            stack.callback(journal.close)
        base = _base(sweeper, journal)
        for name in (x, y):
            if name not in base["valid"]:
                raise FairError(f"{name} is not computed; there is {', '.join(base['valid'])}.")
        bounds = [constraint_of(text, base["valid"]) for text in subject_to]
        measured, seconds = _measure_all(sweeper, settings, journal, bool(config["show_progress"]))
    result = SweepDocument(
        reranker=config["reranker"],
        checkpoint=str(model_file),
        key=digest_of([depends_on, x, y, values, list(subject_to)]),
        x=x,
        y=y,
        grid=values,
        base=base,
        subject_to=bounds_as_rows(subject_to, bounds),
        **_choice(settings, measured, x, y, bounds),
        resumed=len(settings) - len(seconds),
        seconds_a_setting=sum(seconds) / len(seconds) if seconds else None,
        **named(config),
    )
    show_table(sweep_lines(result, int(config["metric_decimal_place"] or 4)))
    current().wait()  # until the others have let go of their journals
    if output is not None and journal is not None and current().writes:
        result = _written(result, output, journal, settings)
    return result if save_chosen is None else _saved(result, model_file, save_chosen, config_dict or {})


def _saved(
    result: SweepDocument, model_file: str | Path, target: str | Path, changes: Mapping[str, Any]
) -> SweepDocument:
    """Write the checkpoint of the setting that was chosen; where none was, that is what failed."""
    if not current().writes:
        return result
    failed = dict(result.failed_files or {})
    if result.chosen is None:
        failed[f"save_chosen={target}"] = "no setting keeps the bounds"
    else:
        setting = {key: result.chosen[key] for key in result.grid}
        with apart():
            save_served(model_file, target, {**changes, **setting})
        logger.info("Written: %s, with %s", target, setting_text(setting))
    return replace(result, failed_files=failed) if failed else result


def _grid(grid: Sequence[str] | Mapping[str, Sequence[Any]]) -> tuple[dict[str, list[Any]], list[Setting]]:
    """Values by key, and the settings that they make up."""
    values = parse_grid(grid) if not isinstance(grid, Mapping) else {key: list(grid[key]) for key in grid}
    settings = settings_of(values) if values else []
    if not settings:
        raise FairError("The grid is empty: give at least one key with values.")
    return values, settings


def _config(
    content: Mapping[str, Any], settings: Mapping[str, Any], grid: Collection[str], wanted: Sequence[str]
) -> FairConfig:
    changes = dict(settings)
    refuse(changes, FILE_KEYS, "is for run and evaluate; a sweep writes files of its own")
    for name in grid:
        if name in changes:
            raise FairError(f"{name}={changes[name]!r} has no effect: its values are those of the grid.")
    changes = with_metrics(content["config"], changes, wanted)
    config = config_of(content, changes)
    check_changes(content, config, changes)
    check_keys(config["model"], config.model_class, config["reranker"], list(grid))
    return config


def bounds_as_rows(texts: Sequence[str], bounds: Sequence[Constraint]) -> list[dict[str, Any]]:
    """The bounds of a choice as they stand in documents: as given and as numbers."""
    return [
        {"text": text, "metric": bound.metric, "sign": bound.sign, "bound": bound.bound}
        for text, bound in zip(texts, bounds, strict=True)
    ]


def _written(result: SweepDocument, output: str | Path, journal: Journal, settings: Sequence[Setting]) -> SweepDocument:
    """Write document, table and figure under a free name; the journal goes once all of them stand."""
    number = claim(lambda number: study_files(output, number), str(result.key))
    document, table, *figures = study_files(output, number)
    files = {
        str(document): lambda: write_document(document, result),
        str(table): lambda: write_table(pd.DataFrame(result.settings), table),
        str(figures[0]): lambda: save_figure(tradeoff_figure(result), beside(output, number)),
    }
    failed = write_each(files)
    if failed:
        return replace(result, failed_files=failed)
    journal.finish(settings)
    logger.info("Written: %s.csv, .json, .png, .svg", beside(output, number))
    return result


def _base(sweeper: Sweeper, journal: Journal | None) -> dict[str, dict[str, float]]:
    base = current().of_first(None if journal is None else journal.get({}))
    if base is None:
        base = sweeper.base()
        if journal is not None and current().writes:
            journal.add({}, base)
    known: dict[str, dict[str, float]] = base
    return known


def _measure_all(
    sweeper: Sweeper, settings: Sequence[Setting], journal: Journal | None, show: bool
) -> tuple[list[dict[str, Any]], list[float]]:
    """All settings in their order, and the seconds of those that were measured now."""
    found: list[Any] = current().of_first([None if journal is None else journal.get(setting) for setting in settings])
    pieces = sweeper.pieces(settings, [index for index, one in enumerate(found) if one is None])
    missing = sum(map(len, pieces))
    if missing < len(settings):
        logger.info("Going on: %d of %d settings are there already.", len(settings) - missing, len(settings))

    def measured(index: int) -> tuple[dict[str, dict[str, float]], float]:
        start = time.perf_counter()
        result = sweeper.measure(settings[index])
        if journal is not None:
            journal.add(settings[index], result)
        return result, time.perf_counter() - start

    now = shared_out(pieces, measured, "Sweep", show)
    return [now[index][0] if one is None else one for index, one in enumerate(found)], [one[1] for one in now.values()]


def _choice(
    settings: Sequence[Setting],
    found: Sequence[Mapping[str, Mapping[str, float]]],
    x: str,
    y: str,
    bounds: Sequence[Constraint],
) -> dict[str, Any]:
    valid = [splits["valid"] for splits in found]
    front, winner = front_of(valid, x, y), choose(valid, x, bounds)
    rows = sweep_table(settings, found, front).to_dict("records")
    return {
        "settings": rows,
        "front": [rows[index] for index in front],
        "chosen": None if winner is None else rows[winner],
    }


def metric_name(text: str) -> str:
    """``name@k`` in lower case.

    Raises:
        FairError: if there is no such metric or no cutoff.
    """
    name, _, cutoff = text.strip().partition("@")
    if spec_of(name) is None and name.lower() not in metrics_dict:
        known = [cls.__name__ for cls in metrics_dict.values()]
        raise FairError(f"{text!r}: there is no metric named {name!r}{did_you_mean(name, known)}")
    if spec_of(name) is None and not cutoff:
        return name.lower()  # RecBole's GAUC has none
    if not cutoff.isdigit() or int(cutoff) < 1:
        raise FairError(f"{text!r} needs a list length after the name, as in {display_name(name)}@10.")
    return f"{name.lower()}@{int(cutoff)}"


def with_metrics(stored: Mapping[str, Any], changes: dict[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """Changes with the metrics and list lengths that the sweep needs, beside those that are computed anyway."""
    metrics, topk = (changes.get(key, stored.get(key)) or [] for key in ("metrics", "topk"))
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    topk = [topk] if isinstance(topk, int) else list(topk)
    for name in wanted:
        metric, _, cutoff = name.partition("@")
        spec = spec_of(metric)
        shown = metric if spec is None else spec.name
        if shown.lower() not in (str(m).lower() for m in metrics):
            metrics.append(shown)
        if cutoff and int(cutoff) not in topk:
            topk.append(int(cutoff))
    return {**changes, "metrics": metrics, "topk": topk}
