"""What a long study has measured so far, so that an interrupted one goes on."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from recbole_fair.config.catalogue import scope_of
from recbole_fair.errors import FairError
from recbole_fair.io.atomic import atomic_file, numbered
from recbole_fair.io.locks import try_lock
from recbole_fair.io.processes import current


def digest_of(value: Any) -> str:
    """Hexadecimal digest of plain values, the same for the same content."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_digest(path: str | Path) -> str:
    """Hexadecimal digest of a file's bytes."""
    with open(path, "rb") as file:
        digest = hashlib.blake2b(digest_size=16)
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def settings_of_numbers(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, of a configuration as plain values, on which measured numbers depend."""
    return {key: value for key, value in config.items() if scope_of(key) not in ("file", "machine", "start")}


class Journal:
    """Results by setting in a file of JSON lines, one a line, written as they come.

    The first line says what all results depend on besides the setting. A file that says something else, or that another
    process is writing, is left alone: the next of ``path``, ``path-2``, ... is taken. A last line that a kill cut short
    is passed over. What several processes have left in files of their own, one goes on from, and the other way round.

    Args:
        path: the file to begin with.
        key: what the results depend on, as plain values.
        beside: whether to know what is in the other files of this key that nobody is writing.

    Attributes:
        path: the file.
        found: number of results that were there already.
    """

    def __init__(self, path: str | Path, key: Mapping[str, Any], beside: bool = True) -> None:
        self._header = {"journal": digest_of(key)}
        self._known: dict[str, Any] = {}
        self._first = path
        try:
            self.path, self._file = next(opened for name in numbered(path) if (opened := self._opened(name)))
            for _, file in self._beside() if beside else ():
                file.close()
        except OSError as error:
            raise FairError(f"Cannot write {path}: {error.strerror or error}.") from error
        self.found = len(self._known)

    def _beside(self) -> Iterator[tuple[Path, IO[bytes]]]:
        """The other journals of this key that nobody is writing, locked and read."""
        for name in itertools.takewhile(os.path.lexists, numbered(self._first)):
            if name != self.path and (opened := self._opened(name)):
                yield opened

    def _opened(self, path: Path) -> tuple[Path, IO[bytes]] | None:
        """A journal of this key, locked and read; None if it is of another key or in use."""
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+b")  # noqa: SIM115
        if not try_lock(file):
            file.close()
            return None
        file.seek(0)
        content = file.read()
        lines, kept = content.split(b"\n")[:-1], 0
        for number, line in enumerate(lines):
            try:
                entry = json.loads(line)
                if number == 0 and entry != self._header:
                    file.close()
                    return None
                if number:
                    self._known[_name(entry["setting"])] = entry["result"]
            except (ValueError, KeyError, TypeError):
                break
            kept += len(line) + 1
        if content and not kept:  # no journal at all
            file.close()
            return None
        file.truncate(kept)
        if not kept:
            _append(file, self._header)
        return path, file

    def get(self, setting: Mapping[str, Any]) -> Any:
        """The result of a setting, or None if it is not there."""
        return self._known.get(_name(setting))

    def add(self, setting: Mapping[str, Any], result: Any) -> None:
        """Keep a result; it is on the disk when this returns.

        Raises:
            FairError: if it cannot be written.
        """
        self._known[_name(setting)] = result
        try:
            _append(self._file, {"setting": dict(setting), "result": result})
        except OSError as error:
            raise FairError(f"Cannot write {self.path}: {error.strerror or error}.") from error

    def close(self) -> None:
        """Let other processes have the file; everything is on the disk already."""
        self._file.close()

    def finish(self, settings: Iterable[Mapping[str, Any]]) -> None:
        """Forget the results of a finished study; the file stays while those of another, interrupted one are in it."""
        for path, other in self._beside():
            path.unlink()
            other.close()
        done = {_name(setting) for setting in settings}
        left = {name: result for name, result in self._known.items() if name not in done}
        if set(left) <= {_name({})}:
            self.path.unlink(missing_ok=True)
        else:
            lines = [self._header, *({"setting": json.loads(name), "result": r} for name, r in left.items())]
            with atomic_file(self.path, mode="w", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
        self.close()


def journal_of_each(path: str | Path, key: Mapping[str, Any]) -> Journal:
    """A journal for each process; the first one's knows what others have left."""
    with current().first_before_others():
        return Journal(path, key, beside=current().writes)


def _append(file: IO[bytes], entry: Any) -> None:
    file.write(json.dumps(entry).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())


def _name(setting: Mapping[str, Any]) -> str:
    return json.dumps(setting, sort_keys=True)
