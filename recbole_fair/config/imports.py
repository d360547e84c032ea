"""Classes by their import path, ``"module:Class"``: the one way in which a setting makes the package import a module.

A module is looked for in the working folder first, then among the installed packages. Only settings of the call itself
may name one; what a checkpoint stores never does (:func:`refuse_stored`).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recbole_fair.config.catalogue import keys_that_import
from recbole_fair.config.keys import did_you_mean
from recbole_fair.errors import FairError


def load(target: str) -> Any:
    """What ``"module:name"`` names in this package; the names of others go through :func:`load_named`."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def load_named(key: str, text: str) -> Any:
    """What a setting names by its import path.

    Args:
        key: the setting, for messages.
        text: ``"module:Class"``, as in ``"my_models:MyBPR"`` for the class MyBPR of ``my_models.py``.

    Returns:
        The object.

    Raises:
        FairError: when there is no such module or name, or the module itself fails.
    """
    module_name, _, name = text.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), name)):
        raise FairError(f"{key}={text!r} is not a class: write module:Class, as in my_module:MyClass.")
    with _working_folder_first():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise FairError(f"{key}={text!r}: {module_name} needs the package '{error.name}'.") from error
            raise FairError(
                f"{key}={text!r}: there is no module '{error.name}' in {Path.cwd()} or among the installed packages."
            ) from error
        except Exception as error:  # whatever somebody else's module does when it is imported
            raise FairError(
                f"{key}={text!r}: importing {module_name} failed: {type(error).__name__}: {error}."
            ) from error
    if name not in vars(module):
        raise FairError(f"{key}={text!r}: {module_name} holds no {name}{did_you_mean(name, vars(module))}")
    return vars(module)[name]


def load_class_named(key: str, text: str, ancestor: type[Any], described: str) -> type[Any]:
    """The class that a setting names by its import path; see :func:`load_named`.

    Args:
        key: the setting, for messages.
        text: ``"module:Class"``.
        ancestor: what the class must derive from.
        described: how messages call the ancestor.

    Raises:
        FairError: when it cannot be imported, or is something else.
    """
    found = load_named(key, text)
    if not (isinstance(found, type) and issubclass(found, ancestor)):
        raise FairError(f"{key}={text!r} is not a class derived from {described}.")
    return found


@contextmanager
def _working_folder_first() -> Iterator[None]:
    folder = str(Path.cwd())
    if folder in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _named(value: Any) -> Iterator[str]:
    if isinstance(value, str) and ":" in value:
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _named(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _named(inner)


def refuse_stored(stored: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """See that nothing is imported because a file says so.

    Args:
        stored: settings out of a checkpoint.
        changes: the settings of this call, which replace them.

    Raises:
        FairError: for a stored import path that this call does not say again.
    """
    for key in keys_that_import():
        for text in _named(stored.get(key)):
            if key not in changes:
                raise FairError(
                    f"{key}={text!r} is stored in the checkpoint, and nothing is imported because a file says so: "
                    f"give --{key}={text} again if you trust that module, or another {key}."
                )
