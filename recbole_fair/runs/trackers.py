"""Final values, variants and trials sent to TensorBoard, Weights & Biases and MLflow.

RecBole sends the losses and validation scores of a training to TensorBoard and, with ``log_wandb``, to Weights &
Biases; what a run is about is added here. With ``log_mlflow`` a run is one run of MLflow, a search one with a nested
run a trial. A tracker that fails costs a warning, never a result.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from recbole.utils import WandbLogger
from torch.utils.tensorboard import SummaryWriter

from recbole_fair.config.contract import Settings
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.report.documents import EvaluationDocument, RunDocument
from recbole_fair.trainer.tracking import LazyWriter

logger = logging.getLogger(__name__)

_LONGEST = 500  # signs of a parameter that every version of MLflow takes


class Sink(Protocol):
    """Where values go."""

    def final(self, head: str, metrics: Mapping[str, float]) -> None:
        """Values that stand at the end, under a heading such as ``test`` or ``test-base``."""

    def trial(self, number: int, settings: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """One trial of a search with its values on validation."""


class TensorBoard:
    """Values as scalars: final ones at step 0, those of trials at the trial's number."""

    def __init__(self, writer: LazyWriter) -> None:
        self._writer = writer

    def final(self, head: str, metrics: Mapping[str, float]) -> None:
        """``head/name``."""
        for name, value in metrics.items():
            self._writer.add_scalar(f"{head}/{name}", value, 0)

    def trial(self, number: int, settings: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """``trial/name``, and ``setting/key`` where a setting is a number."""
        for name, value in metrics.items():
            self._writer.add_scalar(f"trial/{name}", value, number)
        for key, value in settings.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(f"setting/{key}", float(value), number)


class WeightsAndBiases:
    """Values in the run of RecBole's own logger: final ones in its summary, trials as steps."""

    def __init__(self, of_recbole: WandbLogger) -> None:
        self._logger = of_recbole

    def final(self, head: str, metrics: Mapping[str, float]) -> None:
        """``head/name`` in the summary."""
        self._logger.log_eval_metrics(dict(metrics), head=head)

    def trial(self, number: int, settings: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """``trial/name`` and ``setting/key`` beside ``trial_step``."""
        self._logger.log_metrics({"trial_step": number, **metrics}, head="trial", commit=False)
        self._logger.log_metrics(dict(settings), head="setting")


class MLflow:
    """Values in the run of MLflow that is active; its names know no ``@``, so that ``ndcg@10`` is ``ndcg_at_10``."""

    def __init__(self, mlflow: Any) -> None:
        self._mlflow = mlflow

    def final(self, head: str, metrics: Mapping[str, float]) -> None:
        """``head/name``."""
        self._mlflow.log_metrics({f"{head}/{_plain(name)}": value for name, value in _finite(metrics).items()})

    def trial(self, number: int, settings: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """A nested run."""
        with self._mlflow.start_run(run_name=f"trial-{number}", nested=True):
            self._mlflow.log_params(_texts(settings))
            self._mlflow.log_metrics({f"valid/{_plain(name)}": value for name, value in _finite(metrics).items()})


class Trackers:
    """All places where the values of a run or search go."""

    def __init__(self, sinks: Mapping[str, Sink]) -> None:
        self._sinks = dict(sinks)

    def final(self, head: str, metrics: Mapping[str, float]) -> None:
        """Values that stand at the end, under a heading."""
        self._each(lambda sink: sink.final(head, metrics))

    def trial(self, number: int, settings: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """One trial of a search."""
        self._each(lambda sink: sink.trial(number, settings, metrics))

    def _each(self, send: Callable[[Sink], None]) -> None:
        for name, sink in list(self._sinks.items()):
            try:
                send(sink)
            except Exception as error:  # whatever a service answers, the numbers are here
                logger.warning("Nothing more is sent to %s: %s", name, str(error) or type(error).__name__)
                del self._sinks[name]


@contextmanager
def tracked(config: FairConfig, before: str, tensorboard: LazyWriter | None) -> Iterator[Trackers]:
    """Inside the block values go to the trackers that the settings name.

    Args:
        config: the settings.
        before: of the model's name and the data set's, which name the run in MLflow.
        tensorboard: writer of TensorBoard, which is closed at the end; None for none.
    """
    sinks: dict[str, Sink] = {}
    ends: list[Callable[[], None]] = []
    if tensorboard is not None:
        sinks["TensorBoard"] = TensorBoard(tensorboard)
        ends.append(tensorboard.close)
    try:
        if config["log_wandb"]:
            sinks["Weights & Biases"] = WeightsAndBiases(WandbLogger(config))
        if config["log_mlflow"]:
            title = f"{before}{config['model']}-{config['dataset']}"
            mlflow = _begun(config, title, config.differences())
            sinks["MLflow"] = MLflow(mlflow)
            ends.append(mlflow.end_run)
    except Exception as error:  # a service that does not answer must not cost the run
        logger.warning("A tracker could not be reached, nothing is sent there: %s", str(error) or type(error).__name__)
    try:
        yield Trackers(sinks)
    finally:
        for end in ends:
            end()


def _begun(config: Settings, title: str, differences: Mapping[str, Any]) -> Any:
    mlflow = importlib.import_module("mlflow")
    if config["mlflow_uri"]:
        mlflow.set_tracking_uri(config["mlflow_uri"])
    mlflow.set_experiment(config["mlflow_experiment"])
    mlflow.start_run(run_name=title)
    named = {key: config[key] for key in ("model", "dataset", "seed")}
    mlflow.log_params(_texts({**differences, **named}))
    return mlflow


def track_result(config: FairConfig, result: EvaluationDocument, tensorboard: LazyWriter) -> None:
    """Send the final values of a run or evaluation: test, each variant's, validation.

    Args:
        config: the settings.
        result: the document.
        tensorboard: the trainer's writer; evaluations, which train nothing, leave no file of TensorBoard.
    """
    of_run = isinstance(result, RunDocument)
    if not (of_run or config["log_wandb"] or config["log_mlflow"]):
        return
    with tracked(config, "", tensorboard if of_run else None) as trackers:
        trackers.final("test", result.test_result or {})
        for name, metrics in (result.get("variants") or {}).items():
            trackers.final(f"test-{name}", metrics)
        trackers.final("best_valid", result.get("best_valid_result") or {})


def writer_in(folder: Path) -> LazyWriter:
    """A writer of TensorBoard that makes its file when the first value comes."""
    return LazyWriter(lambda: SummaryWriter(str(folder)))


def _plain(name: str) -> str:
    return name.replace("@", "_at_")


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Numbers that services take."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def _texts(settings: Mapping[str, Any]) -> dict[str, str]:
    words = {
        key: value if isinstance(value, str) else json.dumps(value, default=str) for key, value in settings.items()
    }
    return {key: word[:_LONGEST] for key, word in words.items()}
