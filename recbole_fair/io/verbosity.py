"""How much the commands and functions of this process say on the terminal."""

from __future__ import annotations

from enum import IntEnum

#: Attribute of a log record that says where it goes besides the file: ``table`` or ``file``.
PLACE = "recbole_fair_place"
#: ``extra`` of a record for the file alone, and the terminal when all is to be seen.
FOR_THE_FILE = {PLACE: "file"}


class Verbosity(IntEnum):
    """How much is shown on the terminal; the log file has all of it."""

    QUIET = 0
    """Tables and warnings."""
    NORMAL = 1
    """Stages, results and where they are."""
    VERBOSE = 2
    """Whatever RecBole logs as well: every epoch, every setting."""


_verbosity = Verbosity.NORMAL


def set_verbosity(verbosity: Verbosity) -> None:
    """Say how much the runs of this process show from now on; ``NORMAL`` unless somebody says otherwise."""
    global _verbosity
    _verbosity = verbosity


def verbosity() -> Verbosity:
    """How much is shown now."""
    return _verbosity
