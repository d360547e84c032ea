"""The last lines of a run: its files by name, and the command to go on with."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from recbole.utils import EvaluatorType

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.traits import Traits
from recbole_fair.report.documents import EvaluationDocument
from recbole_fair.runs.loading import FILE_KEYS

_NAMES = {
    "result_file": "Result",
    "recommendations_file": "Lists",
    "per_user_file": "Values by user",
    "per_item_file": "Values by item",
    "neurons_file": "Neurons",
}


def closing_lines(config: FairConfig, result: EvaluationDocument, trained: bool) -> Iterator[str]:
    """Lines that name what the run has written and what may come next.

    Args:
        config: of the run.
        result: its document.
        trained: whether a model was trained; an evaluation proposes nothing.

    Yields:
        Lines; a command stands alone on its line, ready to be pasted.
    """
    failed = set(result.failed_files or {})
    if trained and result.checkpoint:
        yield f"Checkpoint: {result.checkpoint}"
    for key in FILE_KEYS:
        if config[key] and f"{key}={config[key]}" not in failed:
            yield f"{_NAMES.get(key, key)}: {config[key]}"
    if trained and result.checkpoint:
        command, purpose = next_command(config)
        yield f"{purpose}:"
        yield f"  recbole-fair {command} {shlex.quote(result.checkpoint)}"


def next_command(config: FairConfig) -> tuple[str, str]:
    """The command that fits a trained model best, and what it is for.

    Args:
        config: of the run that has ended.
    """
    if Traits.of(config.model_class).dossier is not None:
        return "explain", "See what it has found"
    if config["eval_type"] == EvaluatorType.RANKING:
        return "frontier", "Find what trades accuracy for exposure best on this model"
    return "evaluate", "Evaluate it again"
