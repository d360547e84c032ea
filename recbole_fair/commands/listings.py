"""What there is, on the command line: ``models``, ``metrics``, ``rerankers``, ``datasets``, ``keys``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from recbole_fair.config import overview
from recbole_fair.config.catalogue import declared, key_named
from recbole_fair.config.general_keys import OF_NAMES
from recbole_fair.config.imports import load_named
from recbole_fair.config.keys import did_you_mean
from recbole_fair.config.overview import EVERY, Entry, first_sentence
from recbole_fair.config.registry import get_model, get_reranker
from recbole_fair.errors import FairError
from recbole_fair.io.text import visible

_HELP = {"help_option_names": ["-h", "--help"]}
_MOST_DEFAULTS = 12


def lines_of(entries: Sequence[Entry], word: str | None, what: str) -> list[str]:
    """The entries that a word is in, one a line.

    Args:
        entries: all there are.
        word: part of a name, a kind or a line, capitals aside; None for all.
        what: what they are called, for messages.

    Raises:
        FairError: if there is none.
    """
    wanted = (word or "").lower()
    chosen = [one for one in entries if wanted in f"{one.name} {one.kind} {one.line}".lower()]
    if not chosen:
        raise FairError(
            f"No {what} has {word!r} in its name or line{did_you_mean(str(word), [e.name for e in entries])}"
        )
    widths = [max(len(text) for text in column) for column in zip(*((e.name, e.kind) for e in chosen), strict=True)]
    return [f"{one.name:<{widths[0]}}  {one.kind:<{widths[1]}}  {one.line}".rstrip() for one in chosen]


def _show(word: str | None, what: str, entries: Callable[[], list[Entry]], own: Callable[[str], Entry]) -> None:
    """Print a list, or the line of a class of the user's own."""
    named = word is not None and ":" in word
    for line in lines_of([own(str(word))] if named else entries(), None if named else word, what):
        click.echo(visible(line))


def _own_model(text: str) -> Entry:
    cls = get_model(text)
    names = ", ".join(declared(cls))
    said = first_sentence(cls.__doc__) + (f" (keys of its own: {names})" if names else "")
    return Entry(text, "your own", said)


def _own_reranker(text: str) -> Entry:
    cls = get_reranker(text)
    return Entry(text, "your own", f"{first_sentence(cls.__doc__)} (keys: {', '.join(cls.keys().values()) or 'none'})")


def _own_metric(text: str) -> Entry:
    from recbole_fair.evaluator.metrics import CLASSES, adopt

    found = load_named("metrics", text)
    name = adopt("metrics", text, found)
    spec = CLASSES[name.lower()].spec if name.lower() in CLASSES else None
    return Entry(name, "your own", spec.formula if spec is not None else first_sentence(found.__doc__))


@click.command("models", context_settings=_HELP)
@click.argument("word", required=False)
def models_command(word: str | None) -> None:
    """List models, all or those with WORD in name or line; module:Class looks at one of your own."""
    _show(word, "model", overview.models, _own_model)


@click.command("rerankers", context_settings=_HELP)
@click.argument("word", required=False)
def rerankers_command(word: str | None) -> None:
    """List re-rankers, all or those with WORD in name or line; module:Class looks at one of your own."""
    _show(word, "re-ranker", overview.reranker_entries, _own_reranker)


@click.command("metrics", context_settings=_HELP)
@click.argument("word", required=False)
def metrics_command(word: str | None) -> None:
    """List metrics, all or those with WORD in name or line; module:Class looks at one of your own."""
    _show(word, "metric", overview.metrics, _own_metric)


@click.command("datasets", context_settings=_HELP)
@click.argument("word", required=False)
@click.option("--data_path", "--data-path", default="dataset", show_default=True, help="Folder with data sets.")
def datasets_command(word: str | None, data_path: str) -> None:
    """List data sets: those in a folder, and those that are downloaded by name."""
    for line in lines_of(overview.datasets(data_path), word, "data set"):
        click.echo(visible(line))


@click.command("keys", context_settings=_HELP)
@click.argument("word", required=False)
@click.option("-m", "--model", help="A model of your own, module:Class, whose keys are listed.")
def keys_command(word: str | None, model: str | None) -> None:
    """List keys, or explain one: what it may hold, its default, what depends on it, who reads it."""
    for line in key_lines(word, model):
        click.echo(visible(line))


def key_lines(word: str | None, model: str | None = None) -> list[str]:
    """The list of keys, or what is known about one.

    Args:
        word: a key, part of one, or None for all.
        model: a model whose own keys are looked at.

    Raises:
        FairError: if there is none.
    """
    entries = overview.all_keys()
    cls = get_model(model) if model is not None else None
    if cls is not None:
        entries = [Entry(name, key.scope, key.what or key.allowed()) for name, key in declared(cls).items()]
        if not entries:
            raise FairError(f"model={model} declares no keys of its own.")
    name = (word or "").removeprefix("--")
    if name in {entry.name for entry in entries}:
        return explanation(name, cls)
    return lines_of(entries, None if word is None else name, "key")


def explanation(name: str, model_class: type[Any] | None = None) -> list[str]:
    """What a key is: what it does, what it may hold, its default, what depends on it, who reads it.

    Args:
        name: the key.
        model_class: a model of one's own that may declare it.
    """
    of_rerankers = overview.reranker_keys().get(name, [])
    key = key_named(name, model_class) or OF_NAMES.get(name)
    scope = "evaluation" if of_rerankers else key.scope if key is not None else "training"
    defaults = overview.defaults_of(name)
    if key is not None and key.default is not None:
        defaults = {EVERY: key.default, **defaults}
    of_methods = overview.methods_of(name)
    general = EVERY in defaults and not of_methods
    readers = [] if general else [*of_methods, *(of_rerankers or (who for who in defaults if who != EVERY))]
    if of_methods:
        readers = of_methods
    if model_class is not None:
        readers = [model_class.__name__]
    lines = [f"{name}: {key.what}" if key is not None and key.what else name]
    if of_rerankers:
        lines += _table("may be", {who: _of_reranker(name, who) for who in of_rerankers})
    else:
        lines.append(f"  {'may be':<9}{key.allowed() if key is not None else 'what RecBole makes of it'}")
    lines += _table("default", {who: _value(value) for who, value in defaults.items()})
    lines.append(f"  {'scope':<9}{scope}: {overview.SCOPES[scope]}")
    lines.append(f"  {'read by':<9}{_some(readers) if readers else EVERY + ', or those that RecBole reads it for'}")
    return lines


def _table(title: str, by_name: Mapping[str, str]) -> list[str]:
    """A line a value, with the names that it is of."""
    names: dict[str, list[str]] = {}
    for who, value in by_name.items():
        names.setdefault(value, []).append(who)
    found = []
    for value, whose in names.items():
        of = "" if whose == [EVERY] else f"  ({_some(whose)})"
        found.append(f"  {title:<9}{value}{of}")
    return found


def _of_reranker(name: str, reranker: str) -> str:
    """What a re-ranker lets a key of its own hold."""
    cls = get_reranker(reranker)
    field = next(field for field, key in cls.keys().items() if key == name)
    return cls.limits[field].allowed() if field in cls.limits else "anything"


def _value(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_DEFAULTS
    return ", ".join(names[:_MOST_DEFAULTS]) + (f" and {more} more" if more > 0 else "")


#: The commands of this module.
LISTINGS = (models_command, metrics_command, rerankers_command, datasets_command, keys_command)
