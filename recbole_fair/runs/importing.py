"""``recbole-fair import``: a checkpoint of plain RecBole becomes one of ours, checked on its data."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole.utils import calculate_valid_score

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.facts.interactions import split_interactions
from recbole_fair.data.facts.stored import DATA
from recbole_fair.data.reading.prepare import load_data
from recbole_fair.errors import FairError
from recbole_fair.io.atomic import check_places
from recbole_fair.io.checkpoint import save_checkpoint
from recbole_fair.io.imported import IMPORTED, open_checkpoint
from recbole_fair.io.latest import named_checkpoint
from recbole_fair.runs.alone import alone
from recbole_fair.runs.loading import config_of, load_trainer
from recbole_fair.runs.logs import begin_log, show_table
from recbole_fair.runs.outputs import files_read

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4  # RecBole rounds the score that it stores to four decimals


@alone
def import_checkpoint(
    model_file: str | Path, output: str | Path | None = None, config_dict: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write a checkpoint of plain RecBole as one of ours, and evaluate it where its data are there.

    Args:
        model_file: the file that RecBole wrote.
        output: the new checkpoint; ``checkpoint_dir/NAME-imported.pth`` when left out.
        config_dict: settings to change, such as ``data_path``.

    Returns:
        ``checkpoint``, ``model``, ``dataset``, ``unknown`` keys, ``stored`` and ``validation`` score with
        ``valid_metric``, ``agrees`` (None where they cannot be compared), ``test_result``, ``notes``.

    Raises:
        FairError: for a file that is none of RecBole's, cannot be read or would run code, and for data whose users or
            items are not as many as the model's.
    """
    model_file = named_checkpoint(model_file, config_dict)
    content = open_checkpoint(model_file)
    if IMPORTED not in content or content["fingerprint"] is not None:
        raise FairError(f"{model_file} is a checkpoint of recbole_fair already; use it as it is.")
    changes = dict(config_dict or {})
    config = config_of(content, changes)
    begin_log(config)
    facts: dict[str, Any] = content[IMPORTED]
    result: dict[str, Any] = {
        "model": content["model"],
        "dataset": content["dataset"],
        "unknown": dict(facts["unknown"]),
        "valid_metric": facts["valid_metric"],
        "stored": facts["best_valid_score"],
        "validation": None,
        "agrees": None,
        "test_result": None,
        "notes": [],
    }
    _check_on_data(config, content, model_file, result)
    target = Path(output or Path(config["checkpoint_dir"], f"{Path(model_file).stem}-imported.pth"))
    if output is not None:
        check_places({"output": output}, files_read(config, model_file))
    content["user_settings"] |= {key: value for key, value in changes.items() if key in ("data_path",)}
    result["checkpoint"] = save_checkpoint(target, content, fresh=True)
    show_table(report_lines(result))
    return result


def _check_on_data(config: FairConfig, content: dict[str, Any], model_file: str | Path, result: dict[str, Any]) -> None:
    """Evaluate on validation and test; the data's fingerprint goes into ``content`` once the score is that stored."""
    notes: list[str] = result["notes"]
    try:
        trainer, (_, valid_data, test_data) = load_trainer(config, content, model_file)
    except FairError as error:
        if "does not fit the settings" in str(error):
            raise FairError(
                f"{model_file} was trained on another number of users or items than the data under "
                f"data_path={config['data_path']} have: {error}"
            ) from error
        notes.append(f"Not evaluated, the data could not be used: {error}")
        return
    if valid_data is not None:
        metrics = trainer.evaluate(valid_data, load_best_model=False)
        result["validation"] = float(calculate_valid_score(metrics, config["valid_metric"].lower()))
        result["agrees"] = _agrees(config, content[IMPORTED], result, notes)
    if test_data is not None:
        result["test_result"] = dict(trainer.evaluate(test_data, load_best_model=False))
    if result["agrees"] is False:
        notes.append(
            "The data are not those that it was trained on, or read in another order: no fingerprint was written, and "
            "ids may stand for other items."
        )
        return
    content["fingerprint"] = trainer.fingerprint
    content[DATA] = trainer.stored_data()
    note = _other_order(config)
    if note:
        notes.append(note)


def _agrees(config: FairConfig, facts: Mapping[str, Any], result: Mapping[str, Any], notes: list[str]) -> bool | None:
    stored, here = result["stored"], result["validation"]
    if stored is None or not math.isfinite(stored) or result["valid_metric"] != config["valid_metric"]:
        notes.append("The file holds no validation score to compare with.")
        return None
    if config["eval_args"]["mode"]["valid"] not in ("full", "labeled"):
        notes.append("RecBole drew the candidates of its validation at random, so that its score cannot be repeated.")
        return None
    decimals = facts["decimals"]
    return bool(abs(here - stored) <= max(TOLERANCE, 0.5 * 10.0 ** -int(decimals or 4)) + 1e-9)


def _other_order(config: FairConfig) -> str | None:
    """Say how many held-out items would be others under exact times; None where there are none, or no order."""
    if config["time_order"] != "recbole" or config["eval_args"]["order"] != "TO":
        return None
    held_out = []
    for order in ("recbole", "exact"):
        twin = FairConfig(config["model"], config["dataset"], config_dict={**config.user_settings, "time_order": order})
        _, *parts = load_data(twin)
        pairs = [split_interactions(part._dataset) for part in parts if part is not None]
        held_out.append([{(int(u), int(i)) for u, i in zip(p.user, p.item, strict=True)} for p in pairs])
    moved = {user for one, other in zip(*held_out, strict=True) for user, _ in one ^ other}
    if not moved:
        return None
    users = {user for part in held_out[0] for user, _ in part}
    return (
        f"{len(moved)} of {len(users)} users would have other held-out items under exact times: RecBole keeps times in "
        "single precision and orders what becomes equal by the line in the file. The checkpoint keeps RecBole's order "
        "(time_order: recbole), by which it was trained; time_order: exact would test it on items that it has seen."
    )


def report_lines(result: Mapping[str, Any]) -> list[str]:
    """What was imported, the scores beside each other, and the metrics on test."""
    lines = [f"Imported {result['model']} on {result['dataset']}: {result['checkpoint']}"]
    if result["unknown"]:
        listed = ", ".join(f"{key}={value}" for key, value in result["unknown"].items())
        lines.append(f"Keys that nothing here reads: {listed}")
    if result["validation"] is not None:
        verdict = {True: "equal", False: "NOT EQUAL", None: "not comparable"}[result["agrees"]]
        stored = "none" if result["stored"] is None else f"{result['stored']:.4f}"
        lines.append(
            f"{result['valid_metric']} on validation: {result['validation']:.6f}, "
            f"stored in the file: {stored} ({verdict})"
        )
    if result["test_result"]:
        shown = ", ".join(f"{name} {value:.4f}" for name, value in result["test_result"].items())
        lines.append(f"Test: {shown}")
    return [*lines, *result["notes"]]
