"""All keys that there are, found where they are declared, and the lists that follow from their scopes."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_fair.config.general_keys import KEYS
from recbole_fair.config.keys import Key
from recbole_fair.config.recbole_keys import COMPUTED_KEYS, RECBOLE
from recbole_fair.config.recbole_models import OF_MODELS, OF_ONE_MODEL
from recbole_fair.config.traits import trained_class
from recbole_fair.errors import FairError

_MODELS = Path(__file__).resolve().parent.parent / "model"
#: Every key that starts so belongs to a re-ranker, whose class declares it.
RERANKER_PREFIX = "reranker_"
_UNTRAINED = ("file", "machine", "start", "evaluation")


@functools.cache
def tables_of_methods() -> dict[str, Mapping[str, Key]]:
    """The tables of keys that stand beside the methods: ``popsteer.POPSTEER_KEYS`` to its keys.

    They are found by looking for ``keys.py`` in the folders of ``model/``; no model is imported.
    """
    found: dict[str, Mapping[str, Key]] = {}
    for file in sorted(_MODELS.glob("*/keys.py")):
        module = importlib.import_module(f"recbole_fair.model.{file.parent.name}.keys")
        for name, table in vars(module).items():
            if name.endswith("_KEYS"):
                found[f"{file.parent.name}.{name}"] = table
    return found


@functools.cache
def method_keys() -> dict[str, Key]:
    """Keys that belong to methods of the package: name to what it may hold."""
    return {name: key for table in tables_of_methods().values() for name, key in table.items() if name not in KEYS}


@functools.cache
def own_keys() -> dict[str, Key]:
    """All keys of recbole_fair but those of re-rankers."""
    return {**method_keys(), **KEYS}


def declared(cls: type[Any]) -> dict[str, Key]:
    """The keys that a model class and its ancestors declare in their attribute ``keys``.

    Args:
        cls: the class.

    Returns:
        Name to what the key may hold; a derived class's word goes before its ancestor's.
    """
    found: dict[str, Key] = {}
    for ancestor in reversed(cls.__mro__):
        table = vars(ancestor).get("keys")
        if isinstance(table, Mapping):
            found.update(table)
    return found


def says_its_keys(cls: type[Any]) -> bool:
    """Whether all keys that a model class reads are known: one of the packages', or one that declares ``keys``."""
    return cls.__module__.startswith(("recbole.", "recbole_fair.")) or "keys" in vars(cls)


def strengths_of(cls: type[Any]) -> tuple[str, ...]:
    """The keys of a model class that are read when scores are made and never need a new fit."""
    return tuple(name for name, key in declared(cls).items() if key.scope == "strength")


def key_named(name: str, model_class: type[Any] | None = None) -> Key | None:
    """What a key may hold: by the model's declaration, then ours, then RecBole's; None for an unknown key.

    Args:
        name: the key.
        model_class: the model that reads it.
    """
    if model_class is not None and name in (own := declared(model_class)):
        return own[name]
    if model_class is not None and name in OF_MODELS:
        for cls in trained_class(model_class).__mro__:
            if name in OF_ONE_MODEL.get(cls.__name__, ()):
                return OF_ONE_MODEL[cls.__name__][name]
    if name in KEYS:
        return KEYS[name]
    if name in RECBOLE:
        return RECBOLE[name]
    return method_keys().get(name)


def scope_of(name: str, model_class: type[Any] | None = None) -> str:
    """What depends on a key, one of :data:`~recbole_fair.config.keys.SCOPES`; ``training`` for an unknown one.

    Args:
        name: the key.
        model_class: the model that reads it.
    """
    if name.startswith(RERANKER_PREFIX):
        return "evaluation"
    key = key_named(name, model_class)
    return "training" if key is None else key.scope


# Modules of RecBole that read settings for several models.
_SHARED = ("recbole.data.transform", "recbole.data.dataset.dataset", "recbole.model.layers", "recbole.trainer.trainer")


@functools.cache
def _source(module: str) -> str:
    """The text of a module; all keys at once where it cannot be had."""
    try:
        return inspect.getsource(importlib.import_module(module))
    except (OSError, TypeError, ImportError):
        return " ".join(f'"{key}"' for key in RECBOLE)


def mentions(model_class: type[Any], key: str) -> bool:
    """Whether the source of a model, of its ancestors or of its base, names a key of RecBole's models.

    Not every key that RecBole's models read stands in their yaml files.

    Args:
        model_class: the model's class.
        key: the key.
    """
    classes = (*model_class.__mro__, *trained_class(model_class).__mro__)
    modules = {
        *_SHARED,
        *(cls.__module__ for cls in classes if cls.__module__ not in ("builtins", "torch.nn.modules.module")),
    }
    return any(f"{quote}{key}{quote}" in _source(module) for module in modules for quote in "\"'")


@functools.cache
def keys_of(*scopes: str) -> tuple[str, ...]:
    """All keys of these scopes, ours and RecBole's."""
    tables = (KEYS, method_keys(), RECBOLE)
    return tuple(dict.fromkeys(name for table in tables for name, key in table.items() if key.scope in scopes))


@functools.cache
def keys_that_import() -> tuple[str, ...]:
    """The keys whose values may name a class by its import path, ``module:Class``."""
    return tuple(name for table in (KEYS, method_keys(), RECBOLE) for name, key in table.items() if key.imports)


def matters_for_training(name: str, model_class: type[Any] | None = None) -> bool:
    """Whether the trained weights of a model may depend on a key.

    Args:
        name: the key.
        model_class: the model that is trained.
    """
    return name not in COMPUTED_KEYS and scope_of(name, model_class) not in _UNTRAINED


def settings_of_base(settings: Mapping[str, Any], method_class: type[Any], base_class: type[Any]) -> dict[str, Any]:
    """A post-hoc run's settings as its base model alone would be given them.

    One preset may serve several methods on the same base: what belongs to any method, and not to the base, is left
    out.

    Args:
        settings: what the user set.
        method_class: the post-hoc model's class.
        base_class: the base model's class.
    """
    of_method, of_base = declared(method_class), declared(base_class)
    others = method_keys().keys() - RECBOLE.keys()
    return {
        key: value
        for key, value in settings.items()
        if (key in of_base or not (key in of_method or key in others)) and scope_of(key) != "start" and key != "trainer"
    }


def check_values(
    settings: Mapping[str, Any], defaults: Mapping[str, Any], model_class: type[Any] | None = None
) -> None:
    """Check the user's values against what is declared and, for keys without a kind, against that of the default.

    Args:
        settings: the user's keys and values.
        defaults: the values that stand when the user says nothing.
        model_class: the model, whose own declarations go first.

    Raises:
        FairError: for the first value that is not allowed; names key, value and what is allowed.
    """
    for name, value in settings.items():
        key = key_named(name, model_class)
        if key is None:
            key = _key_like(defaults.get(name))
        said = key.complaint(name, value) if key is not None else None
        if said is not None:
            raise FairError(said)


def _key_like(default: Any) -> Key | None:
    """The loosest key that ``default`` itself fits, for RecBole keys without an entry of their own."""
    if isinstance(default, bool):
        return Key("bool")
    if isinstance(default, (int, float)):
        return Key("float")
    if isinstance(default, (list, tuple)):
        return Key("list", optional=True)
    if isinstance(default, dict):
        return Key("dict", optional=True)
    return None
