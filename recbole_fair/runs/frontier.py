"""Which intervention is best on these data: every post-hoc method that applies, from one pass, chosen on validation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from recbole_fair.analysis.frontier import Point, front_by_method, hypervolume
from recbole_fair.analysis.refining import between
from recbole_fair.config.catalogue import method_keys
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.keys import did_you_mean
from recbole_fair.errors import FairError
from recbole_fair.evaluator.csv_files import write_table
from recbole_fair.io.checkpoint import load_checkpoint, plain_config
from recbole_fair.io.imported import open_checkpoint
from recbole_fair.io.latest import named_checkpoint
from recbole_fair.io.processes import apart, current
from recbole_fair.report.documents import write_document
from recbole_fair.report.frontier import frontier_figure, frontier_lines
from recbole_fair.report.frontier_document import FrontierDocument
from recbole_fair.report.style import save_figure
from recbole_fair.runs.frontier_methods import (
    Bench,
    ListMethods,
    Try,
    default_grids,
    fitted_beside,
    grid_of_model,
    score_gaps,
    steps_of,
)
from recbole_fair.runs.frontier_winners import save_winner, winner_rows
from recbole_fair.runs.journal import Journal, digest_of, file_digest, journal_of_each, settings_of_numbers
from recbole_fair.runs.loading import (
    FILE_KEYS,
    both_splits,
    check_changes,
    config_of,
    load_trainer,
    new_trainer,
    refuse,
)
from recbole_fair.runs.logs import begin_together, show_table
from recbole_fair.runs.outputs import beside, claim, named, study_files, versions, write_each
from recbole_fair.runs.shares import shared_out
from recbole_fair.runs.sweep import metric_name, with_metrics

logger = logging.getLogger(__name__)

_ALWAYS = ("ndcg@{k}", "giniindex@{k}", "itemcoverage@{k}", "pce@{k}")


def frontier_checkpoint(
    model_file: str | Path,
    x: Sequence[str] = ("GiniIndex@10",),
    y: str = "NDCG@10",
    loss: Sequence[float] = (0.05, 0.1),
    methods: Sequence[str] | None = None,
    fitted: Sequence[str | Path] = (),
    fit: Sequence[str] = (),
    output: str | Path | None = None,
    save: str | Path | None = None,
    config_dict: Mapping[str, Any] | None = None,
    refine: int = 2,
) -> FrontierDocument:
    """Try every post-hoc method that applies to a checkpoint, and say which is best within a budget of accuracy.

    Args:
        model_file: checkpoint of the base model.
        x: metrics to better, ``name@k``; each has winners of its own.
        y: the metric that may lose.
        loss: budgets, as shares of the base's ``y``.
        methods: names of the methods to try; None: all.
        fitted: checkpoints of models that were fitted on this base (PopSteer, SPREE); those that lie beside the base's
            are found without being named.
        fit: names of models to fit on this base first, where there is no checkpoint of them.
        output: where files go, without suffix: ``.csv``, ``.json``, ``.png`` and ``.svg``; ``.partial.jsonl`` while it
            runs, from which the same call goes on. None: no files.
        save: where to write the winner of the first ``x`` and the first budget as a checkpoint.
        config_dict: settings to change, such as ``data_path`` or ``group_field``; keys of a method that is fitted
            (``sae_scale``) are for its fit.
        refine: rounds of further settings, from 0: each lies between a method's best within a budget and the next
            stronger one (:func:`~recbole_fair.analysis.refining.between`).

    Returns:
        The document: ``base``, ``settings`` (a row each), ``methods`` (with hypervolumes), ``winners`` (a row a metric,
        budget and method, with intervals and differences for the first ones), ``skipped``, and what names the run.

    Raises:
        FairError: for a checkpoint or settings that cannot be used, budgets out of (0, 1), or ``refine`` below 0.
    """
    start = time.perf_counter()
    x, y, budgets = [metric_name(name) for name in dict.fromkeys(x)], metric_name(y), _checked(loss, refine)
    model_file = named_checkpoint(model_file, config_dict)
    content = open_checkpoint(model_file)
    given = dict(config_dict or {})
    of_fit = {key: given.pop(key) for key in list(given) if fit and key in method_keys()}
    config, changes = _config(content, given, [*x, y])
    begin_together(config)
    trainer, loaders = load_trainer(config, content, model_file)
    splits = both_splits(loaders, "A frontier")
    files = _fitted_files(model_file, content, fitted, fit, {**config.user_settings, **of_fit})
    with ExitStack() as stack:
        bench = Bench(stack.enter_context(ListMethods(trainer, splits)))
        base = {split: dict(trainer.evaluator.evaluate(bench.lists.structs[split])) for split in splits}
        _open_fitted(bench, files, changes, stack)
        tries, skipped = _tries(bench, methods)
        depends_on = _what_numbers_depend_on(config, [model_file, *files.values()])
        journal = None if output is None else _journal(f"{output}.partial.jsonl", depends_on)
        points, tries, resumed = _all_rounds(bench, tries, journal, base["valid"], (x, y, budgets), refine)
        rows, chosen = winner_rows(bench, points, base, x, y, budgets, int(config["bootstrap"] or 200))
        result = FrontierDocument(
            checkpoint=str(model_file),
            key=digest_of([depends_on, x, y, budgets, refine, [one.__dict__ for one in tries]]),
            x=x,
            y=y,
            loss=budgets,
            base=base,
            settings=_rows(points, x, y),
            methods=_methods(points, base, x, y, max(budgets)),
            winners=rows,
            skipped=skipped,
            resumed=resumed,
            seconds=time.perf_counter() - start,
            cpu_seconds=time.process_time(),
            **named(config),
        )
        show_table(frontier_lines(result, int(config["metric_decimal_place"] or 4)))
        if save is not None and current().writes:
            with apart():
                save_winner(save, model_file, content, bench, chosen.get((x[0], budgets[0])), result)
    return result if journal is None else _written(result, str(output), journal, tries)


def _written(result: FrontierDocument, output: str | Path, journal: Journal, tries: Sequence[Try]) -> FrontierDocument:
    """Write document, table and figure under a free name; the journal goes once all of them stand."""
    if not current().writes:
        journal.close()
    current().wait()
    if not current().writes:
        return result
    stem = beside(output, claim(lambda number: study_files(output, number), str(result.key)))
    table = pd.json_normalize(list(result["settings"]))
    writers: dict[str, Callable[[], object]] = {
        f"{stem}.json": lambda: write_document(f"{stem}.json", result),
        f"{stem}.csv": lambda: write_table(table, f"{stem}.csv"),
        f"{stem}.png": lambda: save_figure(frontier_figure(result), stem),
    }
    failed = write_each(writers)
    if failed:
        return replace(result, failed_files=failed)
    journal.finish([{"method": one.method, **one.setting} for one in tries])
    logger.info("Written: %s.csv, .json, .png, .svg", stem)
    return result


def _config(
    content: Mapping[str, Any], given: Mapping[str, Any], wanted: Sequence[str]
) -> tuple[FairConfig, dict[str, Any]]:
    """The configuration of a frontier, and what it changes of the checkpoint's."""
    refuse(given, (*FILE_KEYS, "reranker"), "is not for a frontier, which tries all methods and writes its own files")
    changes = _settings(content["config"], {**given, "reranker": None}, wanted)
    config = config_of(content, changes)
    check_changes(content, config, changes)
    return config, changes


def _what_numbers_depend_on(config: FairConfig, files: Sequence[str | Path]) -> dict[str, Any]:
    digests = [file_digest(file) for file in files]
    return {"checkpoints": digests, "settings": settings_of_numbers(plain_config(config))}


def _journal(path: str, depends_on: Mapping[str, Any]) -> Journal:
    return journal_of_each(path, {**depends_on, "version": versions()})


def _checked(loss: Sequence[float], refine: int) -> list[float]:
    if refine < 0:
        raise FairError(f"refine={refine} is not allowed: give a number of rounds, from 0.")
    budgets = sorted(dict.fromkeys(float(share) for share in loss))
    for share in budgets:
        if not 0 < share < 1:
            raise FairError(f"loss={share:g} is not allowed: give the share of accuracy to lose, such as 0.05.")
    if not budgets:
        raise FairError("A frontier needs at least one budget, such as --loss 0.05.")
    return budgets


def _settings(stored: Mapping[str, Any], changes: dict[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """Changes with the metrics that a frontier looks at; others cost time at every setting."""
    cutoffs = {int(name.partition("@")[2]) for name in wanted if "@" in name} or {10}
    longest = max(cutoffs)
    names = [*wanted, *(name.format(k=longest) for name in _ALWAYS)]
    if "topk" not in changes:
        changes = {**changes, "topk": sorted(cutoffs)}
    if "metrics" not in changes:
        changes = {**changes, "metrics": ["NDCG"]}
    return with_metrics(stored, changes, names)


def _fitted_files(
    model_file: str | Path,
    content: Mapping[str, Any],
    fitted: Sequence[str | Path],
    fit: Sequence[str],
    settings: Mapping[str, Any],
) -> dict[str, Path]:
    """Checkpoints fitted on the base, by the names of their models."""
    beside = current().made_by_first(lambda: {k: str(v) for k, v in fitted_beside(model_file, content).items()})
    files = {name: Path(path) for name, path in beside.items()}
    for path in (named_checkpoint(file, settings) for file in fitted):
        files[str(load_checkpoint(path)["model"])] = Path(path)
    for name in fit:
        if name in files:
            continue
        own = {key: value for key, value in settings.items() if not key.startswith("reranker") and key != "metrics"}
        own |= {"base_model_file": str(model_file), "checkpoint_dir": str(Path(model_file).parent)}
        trainer, loaders = new_trainer(FairConfig(name, content["dataset"], config_dict=own))
        trainer.fit(loaders[0], loaders[1])
        files[name] = Path(trainer.saved_model_file)
    return files


def _open_fitted(bench: Bench, files: Mapping[str, Path], changes: Mapping[str, Any], stack: ExitStack) -> None:
    for name, path in files.items():
        content = open_checkpoint(path)
        config = config_of(content, changes)
        trainer, loaders = load_trainer(config, content, path)
        splits = {"valid": loaders[1], "test": loaders[2]}
        trainer.model.eval()
        stack.enter_context(trainer.contract.encoded_once())
        stack.enter_context(trainer.remembered_batches())
        bench.fitted[name] = trainer, splits, path


def _tries(bench: Bench, methods: Sequence[str] | None) -> tuple[list[Try], list[dict[str, str]]]:
    """Everything to measure, and which methods do not apply and why."""
    of_lists, of_models = default_grids(score_gaps(bench.lists.structs["valid"]))
    of_fitted = {
        name: steps_of(trainer.model) or grid_of_model(name, trainer.contract.strength_keys, of_models)
        for name, (trainer, _, _) in bench.fitted.items()
    }
    grids = {**of_fitted, **of_lists}
    wanted = list(grids) if methods is None else list(methods)
    for name in wanted:
        if name not in grids:
            raise FairError(f"methods: there is nothing to try under {name!r}{did_you_mean(name, grids)}")
    tries, skipped = [], []
    for name in wanted:
        own = [Try(name, setting) for setting in grids[name]]
        try:
            for one in own:
                bench.check(one)
        except FairError as error:
            skipped.append({"method": name, "reason": str(error)})
            continue
        tries += own
    if not tries:
        reasons = " ".join(one["reason"] for one in skipped)
        raise FairError(f"No method applies to this checkpoint. {reasons}".strip())
    return tries, skipped


def _all_rounds(
    bench: Bench,
    tries: Sequence[Try],
    journal: Journal | None,
    base: Mapping[str, float],
    goal: tuple[Sequence[str], str, Sequence[float]],
    refine: int,
) -> tuple[list[Point], list[Try], int]:
    """The grids' points and those of further rounds; what was tried, and how much an earlier call had measured."""
    show = bool(bench.lists.trainer.config["show_progress"])
    points, resumed = _measure_all(bench, tries, journal, show, "Frontier")
    everything = list(tries)
    for number in range(refine):
        further = _allowed(bench, between(points, base, *goal))
        found, known = _measure_all(bench, further, journal, show, f"Frontier, between settings {number + 1}")
        points, everything, resumed = [*points, *found], [*everything, *further], resumed + known
    return points, everything, resumed


def _allowed(bench: Bench, settings: Sequence[tuple[str, dict[str, Any]]]) -> list[Try]:
    """Those of the settings that their methods take."""
    allowed = []
    for one in (Try(method, setting) for method, setting in settings):
        try:
            bench.check(one)
        except FairError as error:
            logger.debug("Not tried: %s", error)
            continue
        allowed.append(one)
    return allowed


def _measure_all(
    bench: Bench, tries: Sequence[Try], journal: Journal | None, show: bool, title: str
) -> tuple[list[Point], int]:
    """All points in their order, and how many of them an earlier call had measured."""
    names = [{"method": one.method, **one.setting} for one in tries]
    known: list[Any] = current().of_first([None if journal is None else journal.get(name) for name in names])
    missing = [[index] for index, one in enumerate(known) if one is None]

    def measured(index: int) -> dict[str, dict[str, float]]:
        found = bench.measure(tries[index])
        if journal is not None:
            journal.add(names[index], found)
        return found

    now = shared_out(missing, measured, title, show)
    points = []
    for index, one in enumerate(tries):
        found = now[index] if known[index] is None else known[index]
        points.append(Point(one.method, one.setting, found["valid"], found["test"]))
    return points, len(tries) - len(missing)


def _rows(points: Sequence[Point], x: Sequence[str], y: str) -> list[dict[str, Any]]:
    """One row a point, with the metrics for which it is on its method's front."""
    fronts = {name: {i for front in front_by_method(points, name, y).values() for i in front} for name in x}
    return [
        {
            "method": point.method,
            "setting": dict(point.setting),
            "front": [name for name in x if index in fronts[name]],
            **{f"valid {name}": value for name, value in point.valid.items()},
            **{f"test {name}": value for name, value in point.test.items()},
        }
        for index, point in enumerate(points)
    ]


def _methods(
    points: Sequence[Point], base: Mapping[str, Mapping[str, float]], x: Sequence[str], y: str, loss: float
) -> list[dict[str, Any]]:
    """One row a method: settings tried, and the hypervolume on test of its validation front, by metric."""
    rows = []
    for method in dict.fromkeys(point.method for point in points):
        row: dict[str, Any] = {"method": method, "settings": sum(point.method == method for point in points)}
        for name in x:
            front = front_by_method(points, name, y)[method]
            row[f"hypervolume {name}"] = hypervolume([points[i].test for i in front], base["test"], name, y, loss)
        rows.append(row)
    return sorted(rows, key=lambda row: -row[f"hypervolume {x[0]}"])
