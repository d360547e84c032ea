"""Files that are there as a whole or not at all, in places where nothing is lost."""

from __future__ import annotations

import filecmp
import logging
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from recbole_fair.errors import FairError

logger = logging.getLogger(__name__)

_ARCHIVE = b"PK\x03\x04"  # what a checkpoint begins with


@contextmanager
def atomic_file(path: str | Path, what: str = "", keep: bool = False, **options: Any) -> Iterator[IO[Any]]:
    """Write a file beside its place, flush it to the disk and rename it: a kill leaves the old file or the new one.

    Args:
        path: the file; its folder is made if it is missing.
        what: words for the error message, such as ``"the checkpoint "``.
        keep: whether a file of other content that stands there is kept under a new name, ``-2``, ``-3``, ... before its
            ending; else it is replaced.
        options: those of :func:`open`, ``mode`` among them (binary when left out).

    Yields:
        The open file. Its permissions become those that the process's mask gives to any new file.

    Raises:
        FairError: if the file cannot be written.
    """
    target = Path(path)
    with _written(target, what, options) as temporary:
        yield temporary.file
        temporary.finish()
        if keep:
            _keep_earlier(temporary.name, target)
        else:
            os.replace(temporary.name, target)


@dataclass
class FreshFile:
    """A file that replaces none.

    Attributes:
        file: to write to.
        path: its place; known when the ``with`` block has ended.
    """

    file: IO[Any]
    path: Path


@contextmanager
def fresh_file(path: str | Path, what: str = "", **options: Any) -> Iterator[FreshFile]:
    """Write a file as :func:`atomic_file` does, under the first free name: nothing is replaced, whoever writes at once.

    Args:
        path: the name to begin with; then ``-2``, ``-3``, ... before its ending.
        what: words for the error message.
        options: those of :func:`open`.

    Raises:
        FairError: if the file cannot be written.
    """
    target = Path(path)
    with _written(target, what, options) as temporary:
        fresh = FreshFile(temporary.file, target)
        yield fresh
        temporary.finish()
        fresh.path = next(name for name in numbered(target) if _put(temporary.name, name))


def numbered(path: str | Path) -> Iterator[Path]:
    """A name, then the same with ``-2``, ``-3``, ... before its ending."""
    first = Path(path)
    yield first
    number = 2
    while True:
        yield first.with_name(f"{first.stem}-{number}{first.suffix}")
        number += 1


def free_name(path: str | Path) -> str:
    """The first of the :func:`numbered` names that no file has; nothing keeps another process from taking it."""
    return str(next(name for name in numbered(path) if not os.path.lexists(name)))


@dataclass
class _Temporary:
    file: IO[Any]
    name: str

    def finish(self) -> None:
        """Bring all of it to the disk, with the permissions of a file that a user asked for."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(self.name, 0o666 & ~mask)


@contextmanager
def _written(target: Path, what: str, options: dict[str, Any]) -> Iterator[_Temporary]:
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A long name with the additions of a temporary one could be too long.
        prefix = f".{target.name}."[:100]
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=prefix, delete=False, **options) as file:
            temporary = file.name
            yield _Temporary(file, file.name)
    except OSError as error:
        raise FairError(f"Cannot write {what}{target}: {error.strerror or error}.") from error
    finally:
        if temporary is not None and os.path.lexists(temporary):
            os.unlink(temporary)


def _put(temporary: str, target: Path) -> bool:
    """Give a finished file its name, unless there is a file of that name: no other process can come between."""
    try:
        os.link(temporary, target)
        return True
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if not _reserve(target):
            return False
        os.replace(temporary, target)
        return True


def _keep_earlier(temporary: str, target: Path) -> None:
    """Give a finished file its name; what stood there before keeps its content under another name."""
    while not _put(temporary, target):
        try:
            if filecmp.cmp(temporary, target, shallow=False):
                return
        except FileNotFoundError:  # another process has moved it meanwhile
            continue
        kept = next(name for name in islice(numbered(target), 1, None) if _reserve(name))
        try:
            os.replace(target, kept)  # whatever stands there by now
        except FileNotFoundError:
            os.unlink(kept)
            continue
        logger.warning("%s held an earlier result, which is kept as %s.", target, kept)


def _reserve(path: Path) -> bool:
    """Make an empty file, unless there is a file of that name."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


# -- places that may be written to -------------------------------------------------------------------------------------


def check_places(files: Mapping[str, str | Path], inputs: Iterable[str | Path] = ()) -> None:
    """See, before hours of work, that files can be written where they are asked for, and that nothing is lost there.

    Args:
        files: path by the name of what asks for it, such as ``result_file``; folders are made.
        inputs: files that are read; those that do not exist are passed over.

    Raises:
        FairError: for a place that cannot be written to, that is read, that holds a checkpoint or is no regular file
            (a folder, a link, a pipe, a device), or that is asked for twice.
    """
    read = {_identity(path): path for path in inputs if os.path.lexists(path)}
    taken: dict[Any, str] = {}
    for name, path in files.items():
        try:
            _check_place(name, Path(path), read, taken)
        except FairError:
            raise
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise FairError(f"{name}={path} cannot be written: {reason}.") from error


def _check_place(name: str, path: Path, read: Mapping[Any, str | Path], taken: dict[Any, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise FairError(f"{name}={path} cannot be written: no permission in {path.parent}.")
    here = os.path.join(os.path.realpath(path.parent), path.name)
    if here in taken:
        raise FairError(f"{name}={path} is the file of {taken[here]} as well; give each a name of its own.")
    taken[here] = name
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise FairError(f"{name}={path} is a directory; give the name of a file.")
    if not stat.S_ISREG(mode):
        kind = "a link" if stat.S_ISLNK(mode) else "no regular file"
        raise FairError(f"{name}={path} is {kind}; give the name of a file that may be replaced.")
    identity = _identity(path)
    if identity in read:
        raise FairError(f"{name}={path} is read here ({read[identity]}); give another name.")
    if identity in taken:
        raise FairError(f"{name}={path} is the file of {taken[identity]} as well; give each a name of its own.")
    taken[identity] = name
    with open(path, "rb") as file:
        if file.read(len(_ARCHIVE)) == _ARCHIVE:
            raise FairError(f"{name}={path} holds a checkpoint or another archive; give another name.")


def _identity(path: str | Path) -> Any:
    """Device and number of a file: the same by whatever name, link or hard link it is called."""
    try:
        found = os.stat(path)
    except OSError:  # a link to nowhere
        return str(path)
    return found.st_dev, found.st_ino
