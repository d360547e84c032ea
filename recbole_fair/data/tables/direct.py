"""Atomic files of the tables that ``data_path`` names, made when they are first read."""

from __future__ import annotations

import logging

from recbole_fair.config.contract import KnowsTables, Settings
from recbole_fair.data.tables.conversion import Request, convert
from recbole_fair.io.locks import locked

logger = logging.getLogger(__name__)


def convert_tables(config: Settings) -> None:
    """Convert the tables in the place of a data set, unless that was done before.

    Args:
        config: the settings; ``data_path`` is the folder where the atomic files are kept.

    Raises:
        FairError: for tables that cannot be read; see :func:`~recbole_fair.data.tables.conversion.convert`.
    """
    tables = config.data_tables if isinstance(config, KnowsTables) else None
    if tables is None:
        return
    done = tables.folder / "converted"
    with locked(tables.folder.parent / ".lock", str(tables.interactions)):
        if done.is_file():
            logger.info("%s: atomic files taken from %s.", tables.interactions, tables.folder)
            return
        request = Request(tables.interactions, tables.folder, tables.items, tables.users, overwrite=True)
        for report in convert(request):
            for line in report.lines():
                logger.info(line)
        done.touch()
