"""``-q`` and ``-v``, which every command takes, before its name or anywhere after it."""

from __future__ import annotations

from collections.abc import Sequence

import click

from recbole_fair.errors import FairError
from recbole_fair.io.verbosity import Verbosity, set_verbosity, verbosity

_WORDS = ("-q", "--quiet", "-v", "--verbose")
_SAID = "recbole_fair.verbosity"


def _choose(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value:
        return
    if ctx.meta.setdefault(_SAID, param.name) != param.name:
        raise FairError("-q and -v contradict each other: give one of them.")
    set_verbosity(Verbosity.QUIET if param.name == "quiet" else Verbosity.VERBOSE)


def verbosity_options() -> list[click.Option]:
    """The two options, new ones for each command."""
    common = {"is_flag": True, "expose_value": False, "callback": _choose}
    return [
        click.Option(["-q", "--quiet", "quiet"], help="Show tables and warnings only.", **common),  # type: ignore[arg-type]
        # The long form is a word of its own, since --verbose=1 is a setting of RecBole's decision trees.
        click.Option(["-v", "loud"], help="Show everything that the log file gets. Also --verbose.", **common),  # type: ignore[arg-type]
    ]


def words_said() -> list[str]:
    """The options that say the verbosity of this process, for another one."""
    return {Verbosity.QUIET: ["-q"], Verbosity.NORMAL: [], Verbosity.VERBOSE: ["-v"]}[verbosity()]


def arranged(args: Sequence[str]) -> list[str]:
    """The words of a call with ``-q`` and ``-v`` behind the command's name, and ``--verbose`` as ``-v``.

    Args:
        args: the words after the program's name.
    """
    words = list(args)
    for place, word in enumerate(words):
        following = words[place + 1] if place + 1 < len(words) else "-"
        if word == "--verbose" and following.startswith("-"):
            words[place] = "-v"
    leading = next((place for place, word in enumerate(words) if word not in _WORDS), len(words))
    said, rest = words[:leading], words[leading:]
    return [rest[0], *said, *rest[1:]] if rest and not rest[0].startswith("-") else [*said, *rest]
