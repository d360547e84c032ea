"""Studies over several data sets: each data set by itself under one protocol, then one table, ranks and their test."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_fair.analysis.pareto import cost
from recbole_fair.analysis.ranks import limits, ranking
from recbole_fair.analysis.systems import ALL_PAIRS, differs
from recbole_fair.config.keys import did_you_mean
from recbole_fair.errors import FairError, PeerError
from recbole_fair.evaluator.csv_files import write_table
from recbole_fair.io.imported import open_checkpoint
from recbole_fair.io.latest import named_checkpoint
from recbole_fair.io.processes import current
from recbole_fair.report.documents import ComparisonDocument, Row, write_document
from recbole_fair.report.frontier_document import FrontierDocument
from recbole_fair.report.study import ranks_figure, study_latex, study_lines, study_markdown
from recbole_fair.report.study_document import StudyDocument
from recbole_fair.report.style import save_figure
from recbole_fair.runs.alone import alone
from recbole_fair.runs.compare import compare, protocol_of
from recbole_fair.runs.frontier import frontier_checkpoint
from recbole_fair.runs.journal import digest_of
from recbole_fair.runs.logs import show_table
from recbole_fair.runs.outputs import claim, numbered, versions, write_each, write_lines
from recbole_fair.runs.plan import make_plan
from recbole_fair.runs.trained import check_protocols, distinct

logger = logging.getLogger(__name__)

_DECIMALS = 4


@alone
def compare_datasets(
    models: Sequence[str],
    datasets: Sequence[str],
    rerankers: Sequence[str] = (),
    seeds: int | Sequence[int] = 3,
    reference: str | None = None,
    output: str | Path | None = None,
    config_file_list: str | Path | Sequence[str | Path] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    **options: Any,
) -> StudyDocument:
    """Compare models on several data sets under one protocol.

    Each data set has a comparison of its own, with everything that :func:`~recbole_fair.runs.compare.compare` writes,
    in a folder of its own. Then come one table and, for each metric, mean ranks over the data sets with Friedman's test
    and Nemenyi's critical difference.

    Args:
        models: names of models; the first is the reference.
        datasets: names of data sets, at least two.
        rerankers: names of re-rankers.
        seeds: how many, or the seeds themselves.
        reference: system that the others are compared with on each data set, or ``all``.
        output: the folder; ``results/compare-A-B`` if None.
        config_file_list: yaml files, or one of them; later ones win.
        config_dict: settings for all runs.
        options: further arguments of ``compare``, such as ``spread``, ``permutations`` or ``tune``.

    Returns:
        The study. Also written: ``study.json``, ``.md``, ``.tex``, ``.csv`` and ``ranks.png``, ``.svg``.

    Raises:
        FairError: for names or settings that are not allowed, protocols that differ, or fewer than two results.
    """
    start = time.perf_counter()
    names = _several(datasets)
    if options.get("lists"):
        raise FairError("lists belong to one data set: compare them there, by itself.")
    protocols = {}
    for name in names:
        plan = make_plan(models, rerankers, name, seeds, config_file_list, config_dict)
        protocols[name] = protocol_of(plan.config(plan.models[0], None, plan.seeds[0], "saved"))
        if reference not in (None, ALL_PAIRS, *plan.names()):
            raise FairError(f"reference={reference!r} is not compared here{did_you_mean(str(reference), plan.names())}")
    check_protocols(protocols)
    folder = Path(output) if output is not None else Path("results", f"compare-{'-'.join(names)}")
    found: dict[str, ComparisonDocument] = {}
    failed: list[Row] = []
    for name in names:
        try:
            found[name] = compare(
                models, rerankers, name, seeds, reference, output=folder / name, config_file_list=config_file_list,
                config_dict=config_dict, **options,
            )  # fmt: skip
        except FairError as error:
            failed.append(_without_result(name, error))
    _check_results(found, failed)
    rows = [row for name, result in found.items() for row in _rows_of_comparison(name, result)]
    failed += [
        {"dataset": name, "system": f"{row['system']}, seed {row['seed']}", "error": row["error"]}
        for name, result in found.items()
        for row in result.failed
    ]
    first = next(iter(found.values()))
    study = StudyDocument(
        dataset=", ".join(found),
        study="compare",
        datasets=list(found),
        rows=rows,
        failed=failed,
        parts={name: str(folder / name) for name in found},
        protocol=dict(first.protocol),
        reference=None if first.reference == ALL_PAIRS else first.reference,
        key=digest_of([names, [result.key for result in found.values()]]),
        seconds=time.perf_counter() - start,
        versions=versions(),
        **_ranked(rows, list(found)),
    )
    return _written(study, folder, [result.failed_files for result in found.values()])


@alone
def frontier_datasets(
    model_files: Sequence[str | Path],
    x: Sequence[str] = ("GiniIndex@10",),
    y: str = "NDCG@10",
    loss: Sequence[float] = (0.05, 0.1),
    methods: Sequence[str] | None = None,
    output: str | Path | None = None,
    config_dict: Mapping[str, Any] | None = None,
    **options: Any,
) -> StudyDocument:
    """Frontiers of checkpoints on several data sets, and which method serves best over all of them.

    Args:
        model_files: a checkpoint a data set, such as :func:`~recbole_fair.runs.trained.trained_checkpoints` gives.
        x: metrics to better.
        y: the metric that may lose.
        loss: budgets, as shares of the base's ``y``.
        methods: names of the methods to try; None: all.
        output: the folder; ``results/frontier-A-B`` if None.
        config_dict: settings to change.
        options: further arguments of :func:`~recbole_fair.runs.frontier.frontier_checkpoint`, such as ``fit``.

    Returns:
        The study: by metric and budget the test value of each method's setting that is best on validation; the base
        model's value where a method betters nothing within the budget, since that is what one would then use.

    Raises:
        FairError: for checkpoints of one data set, or as ``frontier_checkpoint``.
    """
    start = time.perf_counter()
    if options.get("save") or options.get("fitted"):
        raise FairError("save and fitted belong to one checkpoint: call frontier for it by itself.")
    files = _by_dataset([named_checkpoint(file, config_dict) for file in model_files])
    folder = Path(output) if output is not None else Path("results", f"frontier-{'-'.join(files)}")
    found: dict[str, FrontierDocument] = {}
    for name, file in files.items():
        stem = folder / name / "frontier"
        found[name] = frontier_checkpoint(file, x, y, loss, methods, output=stem, config_dict=config_dict, **options)
    check_protocols({name: {"mask_seen": result.mask_seen} for name, result in found.items()})
    results = list(found.values())
    rows = [row for name, result in found.items() for row in _rows_of_frontier(name, result)]
    study = StudyDocument(
        dataset=", ".join(found),
        study="frontier",
        datasets=list(found),
        rows=_with_best(rows),
        failed=[
            {"dataset": name, "system": row["method"], "error": row["reason"]}
            for name, result in found.items()
            for row in result.skipped
        ],
        parts={name: str(result.checkpoint) for name, result in found.items()},
        protocol={"x": list(x), "y": y, "loss": list(loss), "mask_seen": results[0].mask_seen},
        key=digest_of([result.key for result in results]),
        seconds=time.perf_counter() - start,
        versions=versions(),
        **_ranked(rows, list(found)),
    )
    return _written(study, folder, [result.failed_files for result in results])


def _without_result(name: str, error: FairError) -> Row:
    """What stands for a data set that failed; where other processes wait for this one, it ends them all."""
    if isinstance(error, PeerError):
        raise error
    logger.error("%s has no result: %s", name, error)
    return {"dataset": name, "system": "all systems", "error": str(error)}


def _several(datasets: Sequence[str]) -> list[str]:
    names = [name for name in datasets if name.strip()]
    if len(names) < 2:
        raise FairError("A study needs at least two data sets, as in --dataset=ml-100k,my-data.")
    return distinct(names)


def _by_dataset(files: Sequence[str | Path]) -> dict[str, str | Path]:
    """The files by name of their data set, once it is seen that these differ and are split alike."""
    if len(set(map(str, files))) < 2:
        raise FairError("A study needs the checkpoints of at least two data sets.")
    found: dict[str, str | Path] = {}
    splits = {}
    for file in files:
        content = open_checkpoint(file)
        name = content["dataset"]
        if name in found:
            raise FairError(f"{file} is of {name}, as another checkpoint: name one a data set.")
        found[name], splits[name] = file, {"eval_args": content["config"].get("eval_args")}
    check_protocols(splits)
    return found


def _check_results(found: Mapping[str, Any], failed: Sequence[Row]) -> None:
    if len(found) < 2:
        first = f"{failed[0]['dataset']}: {failed[0]['error']}" if failed else ""
        raise FairError(f"Fewer than two data sets have results; {first}")


def _rows_of_comparison(dataset: str, result: ComparisonDocument) -> Iterable[dict[str, Any]]:
    against = result.comparisons if result.reference != ALL_PAIRS else ()
    marked = {(row["system"], row["metric"]) for row in against if differs(row)}
    for row in result.systems:
        if row["mean"] is None or row["mean"] != row["mean"]:
            continue
        about = {"dataset": dataset, "system": row["system"], "metric": row["metric"], "value": row["mean"]}
        std = row["std"] if result.spread == "seeds" else None
        yield {**about, "std": std, "best": row["best"], "marked": (row["system"], row["metric"]) in marked}


def _rows_of_frontier(dataset: str, result: FrontierDocument) -> Iterable[dict[str, Any]]:
    won = {(row["x"], row["loss"], row["method"]): row["test"] for row in result.winners}
    base = result.base["test"]
    for x in result.x:
        for loss in result.loss:
            metric = f"{x} within {100 * loss:g} %"
            yield {"dataset": dataset, "system": "base", "metric": metric, "value": base[x]}
            for method in (row["method"] for row in result.methods):
                value = won.get((x, loss, method), base)[x]
                yield {"dataset": dataset, "system": method, "metric": metric, "value": value}


def _with_best(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    costs = [cost(row["metric"].partition(" ")[0], row["value"]) for row in rows]
    least: dict[tuple[str, str], float] = {}
    for row, price in zip(rows, costs, strict=True):
        place = row["dataset"], row["metric"]
        least[place] = min(price, least.get(place, price))
    best = [price == least[row["dataset"], row["metric"]] for row, price in zip(rows, costs, strict=True)]
    return [{**row, "best": one} for row, one in zip(rows, best, strict=True)]


def _ranked(rows: Sequence[Mapping[str, Any]], datasets: Sequence[str]) -> dict[str, Any]:
    """Ranks by metric over the systems that have a value on all data sets, and notes on what they can say."""
    values = {(row["metric"], row["dataset"], row["system"]): row["value"] for row in rows}
    found, left_out, most = [], dict[str, None](), 0
    for metric in dict.fromkeys(row["metric"] for row in rows):
        systems = list(dict.fromkeys(row["system"] for row in rows if row["metric"] == metric))
        whole = [one for one in systems if all((metric, dataset, one) in values for dataset in datasets)]
        left_out.update(dict.fromkeys(one for one in systems if one not in whole))
        if not whole:
            continue
        most = max(most, len(whole))
        table = np.array([[values[metric, dataset, one] for one in whole] for dataset in datasets])
        ranks = ranking(metric.partition(" ")[0], whole, table)
        found.append(
            {
                "metric": metric,
                "systems": list(ranks.systems),
                "mean_ranks": list(ranks.mean_ranks),
                "p": ranks.p,
                "critical_difference": ranks.critical_difference,
                "groups": [list(group) for group in ranks.groups],
            }
        )
    notes = limits(most, len(datasets))
    if left_out:
        notes.append(f"Not ranked, without a value on every data set: {', '.join(left_out)}.")
    return {"ranks": found, "notes": notes}


def _written(study: StudyDocument, folder: Path, earlier: Sequence[Mapping[str, str] | None]) -> StudyDocument:
    """Write document, tables and figure under names that no other study has; the first process does."""
    if not current().writes:
        return study
    names = ("study.json", "study.md", "study.tex", "study.csv", "ranks.png", "ranks.svg")
    files = numbered(folder, names)
    document, of_text, of_latex, table, picture, _ = files(claim(files, str(study.key)))
    writers: dict[Path, Callable[[], None]] = {
        document: lambda: write_document(document, study),
        table: lambda: write_table(pd.DataFrame(list(study.rows)), table),
        of_text: lambda: write_lines(of_text, study_markdown(study, _DECIMALS)),
        of_latex: lambda: write_lines(of_latex, study_latex(study, _DECIMALS)),
        picture: lambda: _draw(study, picture),
    }
    failed = write_each({str(path): write for path, write in writers.items()})
    for files_of_one in earlier:
        failed = {**failed, **(files_of_one or {})}
    show_table(study_lines(study, _DECIMALS))
    logger.info("Written: %s in %s", ", ".join(path.name for path in writers), folder)
    return replace(study, failed_files=failed) if failed else study


def _draw(study: StudyDocument, picture: Path) -> None:
    save_figure(ranks_figure(study), picture.with_suffix(""))
