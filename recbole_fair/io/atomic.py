"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from recbole_fair.errors import FairError


@contextmanager
def atomic_file(path: str | Path, what: str = "", **options: Any) -> Iterator[IO[Any]]:
    """Write a file beside its place, flush it to the disk and rename it: a kill leaves the old file or the new one.

    Args:
        path: the file; its folder is made if it is missing.
        what: words for the error message, such as ``"the checkpoint "``.
        options: those of :func:`open`, ``mode`` among them (binary when left out).

    Yields:
        The open file. Its permissions become those that the process's mask gives to any new file.

    Raises:
        FairError: if the file cannot be written.
    """
    target = Path(path)
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False, **options) as file:
            temporary = file.name
            yield file
            file.flush()
            os.fsync(file.fileno())
        # A temporary file is private; the file that a user asked for is not.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, target)
    except OSError as error:
        raise FairError(f"Cannot write {what}{target}: {error.strerror or error}.") from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
