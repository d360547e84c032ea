"""Settings on the command line, ``--key=value`` or ``--key value``; values are read as YAML and never evaluated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from recbole_fair.config.layers import parse_value
from recbole_fair.config.recbole_keys import RECBOLE_KEYS
from recbole_fair.errors import FairError


def read_settings(words: Sequence[str]) -> dict[str, Any]:
    """Read ``--key=value`` and ``--key value`` words.

    Args:
        words: the words of the command line that no option took.

    Returns:
        Keys and values, values read as YAML. A dash inside a key is an underscore.

    Raises:
        FairError: for a word that is no setting, a key without a value, or a key given twice with different values.
    """
    settings: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "-c" or word.partition("=")[0] in ("--config_files", "--config-files"):
            raise FairError(
                f"{word}: files of settings are for run, compare, frontier and tune; give single ones as --key=value."
            )
        if not word.startswith("--") or len(word) == 2:
            raise FairError(f"'{word}' is not a setting; write --key=value.")
        key, equals, text = word[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise FairError(f"--{key} needs a value: write --{key}=VALUE (true or false for a switch).")
            text = rest.pop(0)
        key = key if key in RECBOLE_KEYS else key.replace("-", "_")
        value = parse_value(key, text)
        if key in settings and settings[key] != value:
            raise FairError(f"--{key} is given twice, as {settings[key]!r} and as {value!r}.")
        settings[key] = value
    return settings


def once(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> str | None:
    """The value of an option that may be given once; RecBole's scripts take ``-m=BPR`` as well.

    Raises:
        FairError: for two values.
    """
    given = list(dict.fromkeys(value.removeprefix("=") for value in values))
    if len(given) > 1:
        raise FairError(f"--{param.name} is given twice, as {given[0]!r} and as {given[1]!r}.")
    return given[0] if given else None


def names_in(text: str) -> list[str]:
    """Names joined by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def file_names(groups: Sequence[str]) -> list[str]:
    """The names in the values of ``-c``, each of which may hold several; RecBole's scripts take ``-c=a.yaml``, too."""
    found: list[str] = []
    for group in groups:
        words = re.split(r"(\s+)", group.removeprefix("=").strip())  # with the spaces between them
        while words:
            # A path may hold spaces: the longest run of words that is a file, else a word.
            longest = next((n for n in range(len(words), 1, -2) if Path("".join(words[:n])).is_file()), 1)
            found.append("".join(words[:longest]))
            words = words[longest + 1 :]
    return [name for name in found if name]
