"""The log of a run: in a file of its own, and on the terminal as much as is asked for.

Tables go to standard output, everything else to standard error. RecBole's own ``init_logger`` sets handlers up once a
process, so that later runs would log into the first one's file, and wraps the standard streams each time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.io.processes import current
from recbole_fair.io.text import visible, without_colours
from recbole_fair.io.verbosity import FOR_THE_FILE, PLACE, Verbosity, verbosity
from recbole_fair.runs.alone import together

logger = logging.getLogger(__name__)

_FOLDER = Path("log")


def begin_log(config: FairConfig) -> None:
    """Begin the log of a run: a file ``log/MODEL/MODEL-DATASET-TIME-DIGEST.log``, and the terminal.

    Handlers of an earlier run are taken away; those of others, such as an application's own, stay, and are then the
    only ones besides the file. Where no file can be written the run goes on without.

    Args:
        config: gives ``state``, the level, and what names the file.
    """
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, (_LogFile, _Terminal))]:
        root.removeHandler(handler)
        handler.close()
    if not current().writes:  # the first process logs for all; only errors of others are to be seen
        root.addHandler(_Terminal(logging.ERROR))
        root.setLevel(logging.ERROR)
        return
    level = getattr(logging, str(config["state"] or "INFO").upper(), logging.INFO)
    if not root.handlers:
        root.setLevel(level)
        root.addHandler(_Terminal(level))
    try:
        root.addHandler(_LogFile(_log_path(config), level))
    except OSError as error:
        logger.warning("This run has no log file: %s.", error)


def begin_together(config: FairConfig) -> None:
    """Join the other processes, if the environment names some, and begin the log, which the first one writes."""
    together(config)
    begin_log(config)


def _log_path(config: FairConfig) -> Path:
    """A free name, in RecBole's form."""
    model, dataset = (str(config[key]).replace("/", "_") for key in ("model", "dataset"))
    folder = _FOLDER / model
    folder.mkdir(parents=True, exist_ok=True)
    content = "".join(map(str, config.final_config_dict.values()))
    digest = hashlib.md5(content.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()[:6]
    return folder / f"{model}-{dataset}-{time.strftime('%b-%d-%Y_%H-%M-%S')}-{digest}.log"


def show_table(lines: Iterable[str]) -> None:
    """Log lines that are a result: on standard output, without dates, whatever the verbosity."""
    for line in lines:
        logger.info("%s", line, extra={PLACE: "table"})


def log_details(*lines: object) -> None:
    """Log what belongs into the file, and on the terminal only when all is to be seen."""
    for line in lines:
        logger.info("%s", line, extra=FOR_THE_FILE)


class _LogFile(logging.FileHandler):
    """The file of one run; two runs within a second have two."""

    def __init__(self, path: Path, level: int) -> None:
        number = 1
        while True:
            name = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
            try:
                super().__init__(name, mode="x", encoding="utf-8", errors="backslashreplace")
                break
            except FileExistsError:
                number += 1
        self.setLevel(level)
        self.setFormatter(logging.Formatter("%(asctime)-15s %(levelname)s  %(message)s", "%a %d %b %Y %H:%M:%S"))

    def format(self, record: logging.LogRecord) -> str:
        """Without colours, control characters spelled out."""
        return visible(without_colours(super().format(record)), lines=True)


class _Terminal(logging.Handler):
    """Standard error, and for tables standard output, whatever these are by then."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._long = logging.Formatter("%(asctime)-15s %(levelname)s  %(message)s", "%d %b %H:%M")
        self._short = logging.Formatter("%(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, if it is to be seen."""
        place = getattr(record, PLACE, None)
        if not self._shown(record, place):
            return
        stream: IO[str] | None = sys.stdout if place == "table" else sys.stderr
        if stream is None:  # closed by who started the process
            return
        try:
            text = self._text(record, place, stream)
            stream.write(text + "\n")
            stream.flush()
        except (OSError, ValueError):  # the terminal is gone, or the stream was closed
            return

    @staticmethod
    def _shown(record: logging.LogRecord, place: str | None) -> bool:
        if place == "table" or record.levelno >= logging.WARNING:
            return True
        if verbosity() == Verbosity.VERBOSE:
            return True
        return verbosity() == Verbosity.NORMAL and place != "file" and record.name.startswith("recbole_fair")

    def _text(self, record: logging.LogRecord, place: str | None, stream: IO[str]) -> str:
        short = place == "table" or (verbosity() < Verbosity.VERBOSE and record.levelno < logging.WARNING)
        text = (self._short if short else self._long).format(record)
        own = record.name.startswith("recbole_fair") and place != "file"
        colours = not own and _is_terminal(stream)
        text = visible(text if own or colours else without_colours(text), lines=True, colours=colours)
        encoding = getattr(stream, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)


def _is_terminal(stream: IO[str]) -> bool:
    try:
        return os.isatty(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return False
