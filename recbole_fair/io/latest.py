"""``latest`` as the name of a checkpoint: the one that was written last."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_fair.errors import FairError

logger = logging.getLogger(__name__)

LATEST = "latest"
_FOLDER = "saved"


def named_checkpoint(name: str | Path, settings: Mapping[str, Any] | None = None) -> str | Path:
    """The file that a checkpoint's name stands for.

    Args:
        name: a file, or ``latest`` for the newest ``.pth`` file of ``checkpoint_dir``.
        settings: of the call; ``checkpoint_dir`` is looked up here, ``saved`` if it is not set.

    Returns:
        ``name`` itself, unless it is ``latest`` and there is no file of that name.

    Raises:
        FairError: ``latest`` where there is no checkpoint.
    """
    if str(name) != LATEST or Path(name).is_file():
        return name
    folder = Path(str((settings or {}).get("checkpoint_dir") or _FOLDER))
    found = [file for file in folder.glob("*.pth") if file.is_file() and not file.name.startswith(".")]
    if not found:
        raise FairError(f"There is no latest checkpoint: {folder}/ holds no .pth file. Name the file instead.")
    newest = max(found, key=lambda file: (file.stat().st_mtime_ns, file.name))
    logger.info("latest is %s.", newest)
    return newest
