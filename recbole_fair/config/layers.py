"""Where the yaml files of ``properties/`` are, and how yaml text is read.

A checkout keeps them in ``properties/`` beside the package, an installed wheel in ``recbole_fair/properties``.
"""

from __future__ import annotations

import copy
import functools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from recbole_fair.config.catalogue import key_named
from recbole_fair.config.kinds import MOST_CHARACTERS, shown
from recbole_fair.errors import FairError

MOST_BYTES = 1_000_000  # of a file of settings
MOST_VALUES = 100_000  # in it
MOST_DEPTH = 30


class FairLoader(yaml.SafeLoader):
    """YAML's safe loader that also reads ``1e-3`` as a number, leaves dates text and refuses a key given twice.

    RecBole changes ``yaml.FullLoader`` for the whole process to the first end; this is a class of our own.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node; what nests too deeply is not read to its end."""
        self._depth += 1
        if self._depth > MOST_DEPTH:
            said = f"it nests lists or mappings deeper than any setting does ({MOST_DEPTH})"
            raise yaml.MarkedYAMLError(problem=said, problem_mark=self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A dictionary, in which no key may stand twice."""
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    said = f"the key {shown(key.value)} is given twice"
                    raise yaml.MarkedYAMLError(problem=said, problem_mark=key.start_mark)
                seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _date(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    """``2020-01-02`` is text, as on the command line; ``2020-13-45`` is neither a date nor what somebody meant."""
    try:
        loader.construct_yaml_timestamp(node)
    except ValueError as error:
        said = f"{node.value} is no date ({error}); put it into quotes if it is text"
        raise yaml.MarkedYAMLError(problem=said, problem_mark=node.start_mark) from error
    return str(node.value)


FairLoader.add_constructor("tag:yaml.org,2002:timestamp", _date)
FairLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
        |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)
        |[-+]?\.[0-9_]+(?:[eE][-+]?[0-9]+)?
        |[-+]?\.(?:inf|Inf|INF)
        |\.(?:nan|NaN|NAN))$""",
        re.VERBOSE,
    ),
    list("-+0123456789."),
)


def properties_dir() -> Path:
    """The folder that holds ``overall.yaml``.

    Returns:
        ``recbole_fair/properties`` of an installed package, else ``properties`` of the checkout.

    Raises:
        FairError: when neither exists (a damaged installation).
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "properties", package.parent / "properties"):
        if (folder / "overall.yaml").is_file():
            return folder
    raise FairError(f"The installation is damaged: no overall.yaml in {package / 'properties'}; install it again.")


def find_config_file(name: str | Path) -> Path:
    """The configuration file that a user names.

    Args:
        name: a path, or a file of the package's ``properties`` such as ``paper/popsteer-ml-1m.yaml`` (with or
            without ``properties/`` in front). A file at the path itself goes first.

    Returns:
        The path of an existing file.

    Raises:
        FairError: when there is no such file.
    """
    path = Path(name)
    if path.is_file():
        return path
    parts = path.parts[1:] if path.parts and path.parts[0] == "properties" else path.parts
    packaged = properties_dir().joinpath(*parts)
    if not path.is_absolute() and packaged.is_file():
        return packaged
    raise FairError(f"config_files: there is no file '{name}' (looked in {Path.cwd()} and among the packaged presets).")


def files_of(given: str | Path | Sequence[str | Path] | None) -> list[str | Path]:
    """Files of settings as a list, of which a caller may have given none, one or several.

    Raises:
        FairError: for anything else.
    """
    if isinstance(given, (str, os.PathLike)):
        return [given]
    if given is None:
        return []
    if not isinstance(given, (list, tuple)) or not all(isinstance(file, (str, os.PathLike)) for file in given):
        raise FairError(f"config_file_list={shown(given)} is neither a path nor a list of paths.")
    return list(given)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one yaml file of settings.

    Args:
        path: the file.

    Returns:
        Its keys and values; empty for an empty file.

    Raises:
        FairError: when the file cannot be read, is not yaml, or is not a mapping of keys to values.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise FairError(f"{path} has {path.stat().st_size:,} bytes; a file of settings has at most {MOST_BYTES:,}.")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise FairError(f"{path} cannot be read: {error}.") from error
    loaded = load_yaml(text, str(path))
    if loaded is None:
        return {}
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise FairError(f"{path} must hold 'key: value' lines, one setting each.")
    return loaded


@functools.cache
def _packaged(path: Path) -> dict[str, Any]:
    return read_yaml(path)


def read_packaged(path: Path) -> dict[str, Any]:
    """A file of settings that belongs to an installed package, read once a process: such files do not change."""
    return copy.deepcopy(_packaged(path))


def load_yaml(text: str, where: str) -> Any:
    """Read yaml text of bounded size and depth; what is no number, truth value, list or mapping stays text.

    Args:
        text: the yaml.
        where: what it is, for messages.

    Raises:
        FairError: for text that is not yaml, holds itself, nests or multiplies beyond all settings, or names a key
            twice.
    """
    loader = None
    where = " ".join(where.split())
    try:
        loader = FairLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _bounded(node)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
        said = " ".join(str(getattr(error, "problem", None) or error).split())
        raise FairError(f"{where} is not valid YAML{place}: {said}.") from error
    except RecursionError as error:
        raise FairError(f"{where} nests lists or mappings deeper than any setting does ({MOST_DEPTH}).") from error
    except (ValueError, OverflowError) as error:
        raise FairError(f"{where} holds a value that cannot be read: {error}.") from error
    finally:
        if loader is not None:
            loader.dispose()


def _bounded(root: yaml.Node) -> None:
    """See that a document ends, by counting what its nodes hold without making any of it."""
    sizes: dict[int, tuple[int, int]] = {}
    open_nodes: set[int] = set()

    def measure(node: yaml.Node) -> tuple[int, int]:
        key = id(node)
        if key in open_nodes:
            raise yaml.MarkedYAMLError(problem="it holds itself", problem_mark=node.start_mark)
        if key not in sizes:
            open_nodes.add(key)
            inner: list[yaml.Node] = []
            if isinstance(node, yaml.SequenceNode):
                inner = list(node.value)
            elif isinstance(node, yaml.MappingNode):
                inner = [one for pair in node.value for one in pair]
            found = [measure(one) for one in inner]
            sizes[key] = 1 + sum(size for size, _ in found), 1 + max((depth for _, depth in found), default=0)
            open_nodes.discard(key)
        size, depth = sizes[key]
        if size > MOST_VALUES:
            said = f"it multiplies into more than {MOST_VALUES:,} values"
            raise yaml.MarkedYAMLError(problem=said, problem_mark=node.start_mark)
        if depth > MOST_DEPTH:
            said = f"it nests lists or mappings deeper than {MOST_DEPTH}"
            raise yaml.MarkedYAMLError(problem=said, problem_mark=node.start_mark)
        return size, depth

    measure(root)


_NULLS = frozenset(("~", "null", "Null", "NULL", "None"))


def parse_value(key: str, text: str) -> Any:
    """Read the text of ``--key=text`` as YAML. Nothing is evaluated.

    Python spellings that YAML lacks are understood as well: ``None`` is null, ``['NDCG','Hit']`` and
    ``{'LS':'valid_and_test'}`` are YAML's flow style already. Keys that hold text (paths, field names, intervals,
    separators) keep it: ``--dataset=2015`` and ``--item_inter_num_interval=[5,10]`` stay text.

    Args:
        key: the key, which decides whether text stays text.
        text: what stands after the equals sign.

    Returns:
        The value.

    Raises:
        FairError: when the text starts a list or a mapping but is not one.
    """
    known = key_named(key)
    if known is not None and known.is_text:
        return None if text in _NULLS else text
    if text.strip() == "":
        return text or None
    try:
        return tidy(load_yaml(text, f"{key}={text[:MOST_CHARACTERS]}"))
    except FairError:
        if text.lstrip()[0] in "[{&*":
            raise
        return text


def tidy(value: Any, where: str = "a setting") -> Any:
    """A deep copy of settings as plain values: text, numbers, truth values, null, lists, mappings.

    The text ``None`` is null; tuples and arrays are lists, NumPy's numbers Python's, paths text.

    Args:
        value: a value out of a yaml file, a command line or a caller's dictionary.
        where: the key, for messages.

    Returns:
        The copy; objects of other kinds are returned as they are.

    Raises:
        FairError: for a value that holds itself.
    """
    try:
        return _tidy(value)
    except RecursionError as error:
        raise FairError(f"{where} holds itself, or nests deeper than any setting does.") from error


def _tidy(value: Any) -> Any:
    if type(value).__module__ == "numpy":  # which is not imported for this: --help and doctor do without
        value = value.tolist()
    if isinstance(value, str):
        return None if value == "None" else str(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {_tidy(key): _tidy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [_tidy(item) for item in value]
    return value
