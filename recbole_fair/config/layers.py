"""Where the yaml files of ``properties/`` are, and how yaml text is read.

A checkout keeps them in ``properties/`` beside the package, an installed wheel in ``recbole_fair/properties``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from recbole_fair.config.catalogue import key_named
from recbole_fair.errors import FairError


class FairLoader(yaml.SafeLoader):
    """YAML's safe loader that also reads ``1e-3`` as a number.

    RecBole changes ``yaml.FullLoader`` for the whole process to the same end; this is a class of our own.
    """


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
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=FairLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
        raise FairError(f"{path} is not valid YAML{where}: {getattr(error, 'problem', None) or error}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise FairError(f"{path} cannot be read: {error}.") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise FairError(f"{path} must hold 'key: value' lines, one setting each.")
    return loaded


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
    if _is_text(key):
        return None if text in _NULLS else text
    if text.strip() == "":
        return text or None
    try:
        value = yaml.load(text, Loader=FairLoader)
    except yaml.YAMLError as error:
        if text.lstrip()[0] in "[{":
            problem = getattr(error, "problem", None) or "not valid YAML"
            raise FairError(f"{key}={text} cannot be read: {problem}.") from error
        return text
    except ValueError:
        return text  # a text that YAML takes for an impossible date, such as 2020-13-45
    if not isinstance(value, (str, bool, int, float, list, dict, type(None))):
        return text  # dates and the like stay text
    return tidy(value)


def _is_text(key: str) -> bool:
    known = key_named(key)
    return known is not None and known.is_text


def tidy(value: Any) -> Any:
    """A deep copy of plain settings in which the text ``None`` is null and tuples are lists.

    Args:
        value: a value out of a yaml file, a command line or a caller's dictionary.

    Returns:
        The copy; other objects are returned as they are.
    """
    if isinstance(value, str):
        return None if value == "None" else value
    if isinstance(value, dict):
        return {key: tidy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [tidy(item) for item in value]
    return value
