"""The argument CHECKPOINT of the commands: a file, or ``latest``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from recbole_fair.errors import FairError
from recbole_fair.io.latest import named_checkpoint
from recbole_fair.io.text import visible


def checkpoint_argument(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """The checkpoint, which comes before the settings.

    Raises:
        FairError: a setting stands in its place.
    """
    if value.startswith("-"):
        raise FairError(f"Name the checkpoint before the settings: {ctx.command.name} CHECKPOINT {value}")
    return value


def found_checkpoint(name: str, settings: Mapping[str, Any]) -> str:
    """The file that the argument names; which one is ``latest`` is said.

    Args:
        name: a file, or ``latest``.
        settings: of the call, for ``checkpoint_dir``.

    Raises:
        FairError: there is no latest one.
    """
    path = str(named_checkpoint(name, settings))
    if path != name:
        click.echo(visible(f"Checkpoint: {path}"), err=True)
    return path
