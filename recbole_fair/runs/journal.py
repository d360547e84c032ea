"""What a long study has measured so far, so that an interrupted one goes on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recbole_fair.config.catalogue import scope_of
from recbole_fair.errors import FairError
from recbole_fair.io.atomic import atomic_file

logger = logging.getLogger(__name__)


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

    The first line says what all results depend on besides the setting. A file that says something else is started
    anew; a last line that a kill cut short is passed over.

    Args:
        path: the file.
        key: what the results depend on, as plain values.

    Attributes:
        found: number of results that were there already.
    """

    def __init__(self, path: str | Path, key: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self._header = {"journal": digest_of(key)}
        self._known = self._read()
        self.found = len(self._known)
        self._write()

    def _write(self) -> None:
        lines = [self._header, *({"setting": json.loads(name), "result": r} for name, r in self._known.items())]
        with atomic_file(self.path, mode="w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    def _read(self) -> dict[str, Any]:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise FairError(f"{self.path} cannot be read: {error}; delete it to start anew.") from error
        known: dict[str, Any] = {}
        for number, line in enumerate(lines):
            try:
                entry = json.loads(line)
            except ValueError:
                break
            if number == 0 and entry != self._header:
                logger.info("%s is of another checkpoint or of other settings: started anew.", self.path)
                return {}
            if number:
                known[_name(entry["setting"])] = entry["result"]
        return known

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
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"setting": dict(setting), "result": result}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FairError(f"Cannot write {self.path}: {error.strerror or error}.") from error

    def finish(self, settings: Iterable[Mapping[str, Any]]) -> None:
        """Forget the results of a finished study; the file stays while those of another, interrupted one are in it."""
        done = {_name(setting) for setting in settings}
        left = {name: result for name, result in self._known.items() if name not in done}
        if set(left) <= {_name({})}:
            self.path.unlink(missing_ok=True)
            return
        self._known = left
        self._write()


def _name(setting: Mapping[str, Any]) -> str:
    return json.dumps(setting, sort_keys=True)
