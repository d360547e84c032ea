"""The dossier of a steered model: what its neurons or probes say, as tables, figures and one document."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.errors import FairError
from recbole_fair.evaluator.csv_files import write_table
from recbole_fair.io.checkpoint import plain_config
from recbole_fair.io.imported import open_checkpoint
from recbole_fair.io.latest import named_checkpoint
from recbole_fair.report.documents import DossierDocument, write_document
from recbole_fair.report.style import save_figure
from recbole_fair.runs.alone import alone
from recbole_fair.runs.dossiers import dossier_class
from recbole_fair.runs.dossiers.base import Dossier, Options
from recbole_fair.runs.journal import digest_of, file_digest, settings_of_numbers
from recbole_fair.runs.loading import FILE_KEYS, check_changes, config_of, load_trainer, refuse
from recbole_fair.runs.logs import begin_log, show_table
from recbole_fair.runs.outputs import beside, claim, data_stamps, named, write_each
from recbole_fair.trainer.scorer import progress

logger = logging.getLogger(__name__)


@alone
def explain_checkpoint(
    model_file: str | Path,
    output_dir: str | Path | None = None,
    split: str = "valid",
    options: Options | None = None,
    config_dict: Mapping[str, Any] | None = None,
) -> DossierDocument:
    """Write the dossier of a steered model into a folder.

    Args:
        model_file: checkpoint of a PopSteer or SPREE model.
        output_dir: the folder; ``results/explain-NAME`` of the checkpoint's name when left out.
        split: ``valid`` or ``test``: whose users and metrics are looked at. Figures that may lead to a choice of
            strengths belong to validation.
        options: how much is looked at.
        config_dict: settings to change, such as strengths or ``data_path``.

    Returns:
        The document, which is also written as ``explain.json``.

    Raises:
        FairError: for a checkpoint of another model, a split that is not there, or settings that do not fit.
    """
    if split not in ("valid", "test"):
        raise FairError(f"split={split!r} is not allowed: it must be valid or test.")
    options = options or Options()
    model_file = named_checkpoint(model_file, config_dict)
    content = open_checkpoint(model_file)
    changes = dict(config_dict or {})
    refuse(changes, FILE_KEYS, "is for run and evaluate; a dossier writes files of its own")
    config = config_of(content, changes)
    kind = _kind(config, model_file)
    check_changes(content, config, changes)
    kind.check(config)
    folder = Path(output_dir) if output_dir is not None else Path("results", f"explain-{Path(model_file).stem}")
    _make(folder)
    _add_metrics(config, kind.metrics)
    begin_log(config)
    start = time.perf_counter()
    trainer, loaders = load_trainer(config, content, model_file)
    loaded = time.perf_counter() - start
    eval_data = loaders[1] if split == "valid" else loaders[2]
    if eval_data is None:
        raise FairError(f"There is no {split} split to explain; use eval_args with one, or the other --split.")
    if not trainer.model.fitted:
        raise FairError(f"{model_file} holds no fitted {config['model']}; train it to its end first.")

    def show(items: Sequence[Any], title: str) -> Any:
        return progress(items, len(items), title, bool(config["show_progress"]))

    metrics = [f"{name.lower()}@{max(config['topk'])}" for name in kind.metrics]
    dossier = kind(trainer, loaders[0], eval_data, options, show)
    strengths = trainer.contract.strengths
    tables, figures = dossier.tables(), dossier.figures(metrics, strengths)
    drawn = [f"{name}.{ending}" for name in figures for ending in ("png", "svg")]
    numbers = settings_of_numbers(plain_config(config))
    key = digest_of([file_digest(model_file), split, asdict(options), numbers, data_stamps(config)])
    document = dossier.document(
        checkpoint=str(model_file),
        key=key,
        split=split,
        metrics=metrics,
        strengths=strengths,
        tables=[f"{name}.csv" for name in tables],
        figures=drawn,
        timings={"loading": loaded, **dossier.clock.seconds},
        **named(config),
    )
    names = ["explain.json", *document.tables, *drawn]
    folder = beside(folder, claim(lambda number: [beside(folder, number) / name for name in names], key))
    failed = _write(folder, document, tables, figures)
    show_table([*dossier.lines(document), *document.notes])
    logger.info("Written: %d tables, %d figures, %s", len(tables), len(drawn), folder)
    return replace(document, failed_files=failed) if failed else document


def _kind(config: FairConfig, model_file: str | Path) -> type[Dossier]:
    kind = dossier_class(config.model_class)
    if kind is None:
        raise FairError(
            f"{model_file} is a {config['model']}, which has nothing to explain; use the checkpoint of a PopSteer or "
            "SPREE model."
        )
    return kind


def _write(
    folder: Path,
    document: DossierDocument,
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, Callable[[], Figure]],
) -> dict[str, str]:
    """Write everything; return the files that failed and why."""
    files: dict[str, Callable[[], object]] = {
        str(folder / "explain.json"): partial(write_document, folder / "explain.json", document),
        **{str(folder / f"{name}.csv"): partial(write_table, t, folder / f"{name}.csv") for name, t in tables.items()},
        **{str(folder / f"{name}.png"): partial(_draw, draw, folder / name) for name, draw in figures.items()},
    }
    return write_each(files)


def _draw(draw: Callable[[], Figure], stem: Path) -> None:
    save_figure(draw(), stem)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FairError(f"output-dir={folder} cannot be made: {error.strerror or error}.") from error


def _add_metrics(config: FairConfig, names: Sequence[str]) -> None:
    present = {str(metric).lower() for metric in config["metrics"]}
    config["metrics"] = [*config["metrics"], *(name for name in names if name.lower() not in present)]
