"""Locks between processes, which end with the process that holds them, however it ends."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows has none; there two processes at once do the same work twice
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)


def try_lock(file: IO[Any]) -> bool:
    """Lock an open, writable file for this process; False if another process holds it."""
    if fcntl is None:
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


@contextmanager
def locked(path: str | Path, what: str) -> Iterator[None]:
    """Inside the block no other process is in a block of the same path; waits for its turn.

    Args:
        path: the lock's file, made if it is missing and left behind.
        what: what is being done, for the log of who has to wait.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        if not try_lock(file):
            logger.info("Another process is at work on %s: waiting for it.", what)
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield
