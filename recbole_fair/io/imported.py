"""Checkpoints of plain RecBole as checkpoints of ours: weights, settings and the score that chose them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recbole_fair.config.translation import check_translation, is_plain, translate
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import load_checkpoint, pack_arrays, plain_config
from recbole_fair.io.foreign import finished, read_foreign
from recbole_fair.io.pickles import DamagedFileError, Name, Record

logger = logging.getLogger(__name__)

IMPORTED = "imported"
_WHAT_A_FILE_HOLDS = ("config", "state_dict")


def open_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """The content of a checkpoint of ours, or of one that plain RecBole wrote, which is translated and reported.

    Args:
        path: the file.
        device: where the tensors go.

    Returns:
        What :func:`~recbole_fair.io.checkpoint.load_checkpoint` returns. Of a file of RecBole's it holds no
        fingerprint and no training state, and under ``imported`` the score and the keys that were not understood.

    Raises:
        FairError: for a file that cannot be read, or that would run code if it were read in the ordinary way.
    """
    try:
        return load_checkpoint(path, device)
    except FairError as refusal:
        try:
            content = read_foreign(path)
        except DamagedFileError:
            raise refusal from None
        if not _is_of_recbole(content):
            raise
    found = import_content(content, path, device)
    facts = found[IMPORTED]
    left_out = f"; keys that nothing here reads: {', '.join(facts['unknown'])}" if facts["unknown"] else ""
    logger.warning(
        "%s is a checkpoint of plain RecBole: %s on %s was imported, nothing in the file was run%s.",
        path,
        found["model"],
        found["dataset"],
        left_out,
    )
    return found


def _is_of_recbole(content: object) -> bool:
    return isinstance(content, dict) and all(key in content for key in _WHAT_A_FILE_HOLDS)


def import_content(content: Mapping[str, Any], path: str | Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """The content of a checkpoint of ours from what a file of plain RecBole holds.

    Args:
        content: what :func:`~recbole_fair.io.foreign.read_foreign` returned.
        path: the file, for messages.
        device: where the tensors go.

    Raises:
        FairError: if the file lacks its settings or weights, or its model is not one of RecBole's.
    """
    record = content["config"]
    attributes = record.attributes if isinstance(record, Record) else {}
    foreign = finished(attributes.get("final_config_dict"))
    if not isinstance(foreign, dict):
        raise FairError(f"{path} holds no settings of RecBole, so that its model cannot be built.")
    model, dataset = (_word(attributes, foreign, key, path) for key in ("model", "dataset"))
    found = translate(foreign, model, dataset)
    config = check_translation(found, {})
    score = content.get("best_valid_score")
    return {
        "model": model,
        "dataset": dataset,
        "config": plain_config(config),
        "user_settings": dict(found.settings),
        "fingerprint": None,
        "state_dict": _weights(content["state_dict"], path, device),
        "other_parameter": pack_arrays(_other_parameters(content.get("other_parameter"))),
        "training": None,
        IMPORTED: {
            "file": str(path),
            "epoch": content.get("epoch") if isinstance(content.get("epoch"), int) else None,
            "valid_metric": foreign.get("valid_metric"),
            "best_valid_score": float(score) if isinstance(score, int | float) else None,
            "decimals": foreign.get("metric_decimal_place"),
            "data_path": foreign["data_path"] if isinstance(foreign.get("data_path"), str) else None,
            "unknown": found.unknown,
        },
    }


def _word(attributes: Mapping[str, Any], foreign: Mapping[str, Any], key: str, path: str | Path) -> str:
    value = attributes.get(key, foreign.get(key))
    if not isinstance(value, str):
        raise FairError(f"{path} does not say which {key} it is of.")
    return value


def _weights(state: object, path: str | Path, device: str | torch.device) -> dict[str, Tensor]:
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise FairError(f"{path} holds no weights of a model (state_dict), or more than weights.")
    return {str(name): value.detach().clone().to(device) for name, value in state.items()}


def _other_parameters(found: object) -> dict[str, Any]:
    """What a model is beside its weights; parts of the network, which stand in the ``state_dict``, are left out."""
    if not isinstance(found, dict):
        return {}
    kept = {}
    for name, value in finished(found).items():
        if isinstance(value, Record | Name):
            continue
        if isinstance(value, Tensor):
            kept[str(name)] = value.detach().clone()
        elif isinstance(value, np.ndarray) or sparse.issparse(value) or is_plain(value):
            kept[str(name)] = value
    return kept
