"""The argument CHECKPOINT of the commands: a file, or ``latest``."""

from __future__ import annotations

from pathlib import Path

import click

from recbole_fair.errors import FairError

_FOLDER = Path("saved")
LATEST = "latest"


def checkpoint_argument(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """The checkpoint, which comes before the settings.

    Raises:
        FairError: a setting stands in its place, or there is no latest one.
    """
    if value.startswith("-"):
        raise FairError(f"Name the checkpoint before the settings: {ctx.command.name} CHECKPOINT {value}")
    if value != LATEST or Path(value).exists():
        return value
    path = str(latest_checkpoint())
    click.echo(f"Checkpoint: {path}", err=True)
    return path


def latest_checkpoint(folder: Path = _FOLDER) -> Path:
    """The checkpoint in a folder that was written last.

    Args:
        folder: where runs put them, unless ``checkpoint_dir`` says otherwise.

    Raises:
        FairError: there is none.
    """
    found = [path for path in folder.glob("*.pth") if path.is_file()]
    if not found:
        raise FairError(f"There is no latest checkpoint: {folder}/ holds no .pth file. Name the file instead.")
    return max(found, key=lambda path: path.stat().st_mtime_ns)
