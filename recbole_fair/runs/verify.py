"""Rows of the catalogue of results made again, and compared with what stands there."""

from __future__ import annotations

import logging
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from recbole_fair.config.results import Row
from recbole_fair.errors import FairError
from recbole_fair.evaluator import EvaluationResult
from recbole_fair.io.imported import open_checkpoint
from recbole_fair.report.verdicts import Difference, Verdict
from recbole_fair.rerank.settings import make_reranker
from recbole_fair.runs.alone import alone
from recbole_fair.runs.journal import digest_of
from recbole_fair.runs.loading import config_of, config_on_base, load_trainer, new_trainer
from recbole_fair.runs.reranking import check_reranker, evaluate_reranked

_METRIC = re.compile(r"(?P<metric>[^\[]+)(?:\[(?P<grouping>[^=]+)=(?P<group>[^\]]+)\])?")


@alone
def verify(
    rows: Sequence[Row],
    seeds: int | None = None,
    data_path: str | None = None,
    folder: str | Path | None = None,
    report: Callable[[Verdict], None] | None = None,
) -> list[Verdict]:
    """Make rows again, one after the other; rows of one training share it.

    Args:
        rows: of the catalogue, with numbers of ours.
        seeds: run so many of each row's seeds; all of them when left out.
        data_path: where the data sets are; RecBole's default when left out.
        folder: where checkpoints are kept, and bases of post-hoc models found again; a folder that is removed at the
            end when left out.
        report: is called with each verdict as it comes.

    Returns:
        One verdict a row.

    Raises:
        FairError: for data or settings that cannot be used.
    """
    if seeds is not None and seeds < 1:
        raise FairError(f"seeds={seeds} is no number of seeds to run; at least one is needed.")
    verdicts = []
    with ExitStack() as stack:
        place = folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="recbole_fair-verify-"))
        stack.enter_context(_quietly())
        trainings = _Trainings(Path(place), data_path)
        for row in rows:
            verdicts.append(_verdict(row, row.seeds[:seeds], trainings))
            if report is not None:
                report(verdicts[-1])
    return verdicts


@contextmanager
def _quietly() -> Iterator[None]:
    """Leaves the log to errors: a row is one of many."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


def _verdict(row: Row, seeds: tuple[int, ...], trainings: _Trainings) -> Verdict:
    start = time.perf_counter()
    by_seed = [value_of_all(trainings.evaluated(row, seed), row) for seed in seeds]
    differences = tuple(
        Difference(
            metric,
            ours,
            statistics.fmean(values[metric] for values in by_seed),
            row.tolerance[metric],
            row.paper.get(metric),
        )
        for metric, ours in row.ours.items()
    )
    return Verdict(row, seeds, differences, time.perf_counter() - start)


def value_of_all(result: EvaluationResult, row: Row) -> dict[str, float]:
    """The metrics of a row in an evaluation.

    Raises:
        FairError: for a metric or group that the evaluation does not have.
    """
    return {metric: _value(result, metric, row.name) for metric in row.ours}


def _value(result: EvaluationResult, name: str, row: str) -> float:
    parts = _METRIC.fullmatch(name)
    assert parts is not None
    metric, grouping, group = parts["metric"], parts["grouping"], parts["group"]
    if grouping is None:
        if metric in result.metrics:
            return float(result.metrics[metric])
    elif grouping in (result.groups or {}):
        frame = result.groups[grouping].by_group
        if group in frame.index and metric in frame.columns:
            return float(frame[metric].to_dict()[group])
    raise FairError(f"{row}: its settings do not give the metric {name}.")


class _Trainings:
    """Trains what rows need, each training once, and evaluates its checkpoint."""

    def __init__(self, folder: Path, data_path: str | None) -> None:
        self._folder, self._data_path = folder, data_path
        self._checkpoints: dict[str, str] = {}

    def evaluated(self, row: Row, seed: int) -> EvaluationResult:
        """The test evaluation of a row's variant, with what the row changes at scoring time."""
        file = self._trained(row, seed)
        content = open_checkpoint(file)
        config = config_of(content, {**self._machine(), **row.scoring})
        trainer, loaders = load_trainer(config, content, file, row.split_seed)
        test = loaders[2]
        if test is None:
            raise FairError(f"{row.name}: its settings leave no test part.")
        reranker = make_reranker(config)
        model = trainer.contract
        name = row.variant or model.final_variant
        if reranker is None:
            result: EvaluationResult = trainer.evaluate_variants(test, False, [name])[name]
            return result
        check_reranker(trainer, reranker)
        with model.use_variant(name):
            return evaluate_reranked(trainer, test, reranker, False)[1]

    def _machine(self) -> Mapping[str, Any]:
        """What this call decides for all rows."""
        paths = {} if self._data_path is None else {"data_path": self._data_path}
        return {"show_progress": False, "state": "error", "checkpoint_dir": str(self._folder), **paths}

    def _trained(self, row: Row, seed: int) -> str:
        """The checkpoint of a row's training."""
        settings = {**row.settings, "seed": seed}
        asked = [row.model, row.dataset, list(row.presets), settings, row.split_seed]
        key = digest_of(asked)
        if key not in self._checkpoints:
            config = config_on_base(row.model, row.dataset, row.presets, {**settings, **self._machine()})
            trainer, (train, valid, _) = new_trainer(config, row.split_seed)
            trainer.fit(train, valid, saved=True, show_progress=False)
            self._checkpoints[key] = str(trainer.saved_model_file)
        return self._checkpoints[key]
