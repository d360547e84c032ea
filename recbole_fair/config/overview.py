"""What there is, one line each: models, metrics, re-rankers, data sets and keys, found without importing any of them.

Names and first sentences are read from the sources, as the registry finds re-rankers: a list is there in a fraction of
the second that PyTorch alone takes to import.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from recbole_fair.config.catalogue import RERANKER_PREFIX, tables_of_methods
from recbole_fair.config.general_keys import KEYS, OF_NAMES
from recbole_fair.config.keys import Key
from recbole_fair.config.layers import properties_dir, read_yaml
from recbole_fair.config.recbole_keys import COMPUTED_KEYS, RECBOLE, RECBOLE_KEYS
from recbole_fair.config.registry import METHODS, MODELS, recbole_folder, recbole_models, rerankers

_PACKAGE = Path(__file__).resolve().parent.parent
_FAMILIES = {
    "general_recommender": "general",
    "sequential_recommender": "sequential",
    "context_aware_recommender": "context",
    "knowledge_aware_recommender": "knowledge",
    "exlib_recommender": "trees",
}
_DOC = r'class {}\b[^\n]*:\s*\n\s+r?"""(.*?)"""'
_TITLE = re.compile(r'["\u201c]([A-Z][^"\u201d]{15,}?)["\u201d]')
_HEAD = 1500  # characters of a module in which a paper may be named
_MOST = 110  # characters of a line
_BUNDLED = "ml-100k"
#: Whose defaults stand in the files for all models.
EVERY = "every model"
#: What each scope means for who sets the key.
SCOPES = {
    "file": "a file that is written; no number depends on it",
    "machine": "where and how fast a run works; no number depends on it",
    "start": "what training starts from",
    "protocol": "data, split, masks or the choice of the epoch; free when a checkpoint is evaluated",
    "evaluation": "what is measured; free when a checkpoint is evaluated",
    "strength": "read when scores are made: evaluate, sweep and recommend change it without training",
    "training": "what is learnt: another value trains anew",
}


@dataclass(frozen=True)
class Entry:
    """One line of a list.

    Attributes:
        name: what it is called in settings.
        kind: what sort it is, in a word or two.
        line: what it is.
    """

    name: str
    kind: str
    line: str


def first_sentence(text: str | None) -> str:
    """The first sentence of a docstring in one line, without RecBole's marks of reStructuredText."""
    words = " ".join((text or "").split())
    words = re.sub(r"`{1,2}|:math:|:\w+:`", "", words)
    words = re.sub(r"(\w)_(?=\s|$|\()", r"\1", words)
    end = re.search(r"[.;](\s|$)", words)
    return words[: end.start()] if end else words


def _docstring(file: Path, name: str) -> str:
    """First sentence of a class's docstring, by the text of its module; else the title of the paper named on top."""
    text = file.read_text(encoding="utf-8")
    found = re.search(_DOC.format(name), text, re.DOTALL)
    sentence = first_sentence(found.group(1)) if found else ""
    if not sentence:
        title = _TITLE.search(text[:_HEAD])
        sentence = " ".join(title.group(1).split()).rstrip(".") if title else ""
    return sentence if len(sentence) <= _MOST else sentence[: _MOST - 3] + "..."


def _of_target(target: str) -> str:
    module, _, name = target.partition(":")
    return _docstring(_PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py"), name)


def models() -> list[Entry]:
    """Methods and models of recbole_fair, then RecBole's."""
    found = [Entry(name, "method", f"{_of_target(METHODS[name])} (--base=MODEL)") for name in METHODS]
    found += [Entry(name, "model", _of_target(target)) for name, target in MODELS.items()]
    files = _recbole_files()
    for name in recbole_models():
        if name in MODELS:
            continue
        file = files.get(name.lower())
        family = "RecBole" if file is None else f"RecBole, {_FAMILIES.get(file.parent.name, file.parent.name)}"
        found.append(Entry(name, family, "" if file is None else _docstring(file, name)))
    return found


def _recbole_files() -> dict[str, Path]:
    folder = recbole_folder()
    return {} if folder is None else {file.stem: file for file in sorted((folder / "model").glob("*_recommender/*.py"))}


def reranker_entries() -> list[Entry]:
    """The re-rankers."""
    return [Entry(name, "re-ranker", _of_target(target)) for name, target in rerankers().items()]


def metrics() -> list[Entry]:
    """Metrics of recbole_fair, then those of RecBole that it takes over as they are."""
    found = {entry.name: entry for entry in _own_metrics()}
    folder = recbole_folder()
    if folder is None:
        return list(found.values())
    tree = ast.parse((folder / "evaluator" / "metrics.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name not in found:
            sort = "RecBole, by row" if any(_name_of(base) == "LossMetric" for base in node.bases) else "RecBole"
            line = first_sentence((ast.get_docstring(node) or "").partition(".. math")[0])
            found[node.name] = Entry(node.name, sort, line)
    return list(found.values())


def _own_metrics() -> Iterator[Entry]:
    """The declarations in ``evaluator/specs.py``: calls that begin with name and formula, and the table of ranking."""
    tree = ast.parse((_PACKAGE / "evaluator" / "specs.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple) and len(node.elts) == 3 and isinstance(node.elts[2], ast.Attribute):
            texts = [_text(part) for part in node.elts[:2]]
        elif isinstance(node, ast.Call) and _name_of(node.func) in ("MetricSpec", "_segment_ndcg"):
            texts = [_text(part) for part in node.args[:2]]
        else:
            continue
        name, formula = (*texts, None, None)[:2]
        if name is None or formula is None:
            continue
        marks = {word.arg: word.value for word in getattr(node, "keywords", ())}
        sort = "nearest 0" if "to_zero" in marks else "less is better" if "smaller" in marks else "more is better"
        yield Entry(name, sort, formula)


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _name_of(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def datasets(data_path: str | Path = "dataset") -> list[Entry]:
    """Data sets in a folder, and those that are downloaded when they are first used.

    Args:
        data_path: the folder.
    """
    found = {}
    for file in sorted(Path(data_path).glob("*/*.inter")):
        name = file.parent.name
        if file.name.startswith(f"{name}."):
            beside = [suffix for suffix in ("item", "user") if (file.parent / f"{name}.{suffix}").is_file()]
            size = file.stat().st_size / 2**20
            with_words = f" with {' and '.join(beside)} features" if beside else ""
            found[name] = Entry(name, "here", f"{file.parent}, {size:.1f} MB{with_words}")
    presets = {file.stem: file for file in sorted((properties_dir() / "dataset").glob("*.yaml"))}
    for name, file in presets.items():
        words = file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").rstrip(".")
        known = found.get(name)
        found[name] = Entry(name, known.kind if known else "preset", f"{known.line}; {words}" if known else words)
    found.setdefault(_BUNDLED, Entry(_BUNDLED, "bundled", "MovieLens 100K, comes with RecBole"))
    folder = recbole_folder()
    urls = {} if folder is None else _flat_yaml(folder / "properties" / "dataset" / "url.yaml")
    for name, url in urls.items():
        found.setdefault(name, Entry(name, "download", str(url)))
    return list(found.values())


def _flat_yaml(file: Path) -> dict[str, str]:
    """A file of ``name: text`` lines alone, for which a parser of YAML is slow."""
    lines = (line.partition(": ") for line in file.read_text(encoding="utf-8").splitlines())
    return {name.strip(): text.strip() for name, mark, text in lines if mark and not name.startswith("#")}


# -- keys --------------------------------------------------------------------------------------------------------------


def all_keys() -> list[Entry]:
    """All keys: general ones, those of methods and of re-rankers, then RecBole's."""
    found = {name: Entry(name, f"general, {key.scope}", _line(key)) for name, key in {**OF_NAMES, **KEYS}.items()}
    for name, table in tables_of_methods().items():
        method = name.partition(".")[0]
        for key_name, key in table.items():
            found.setdefault(key_name, Entry(key_name, f"{method}, {key.scope}", _line(key)))
    for name, of in reranker_keys().items():
        found.setdefault(name, Entry(name, "re-ranker", f"of {', '.join(of)}"))
    for name in sorted(RECBOLE_KEYS - COMPUTED_KEYS):
        declared = RECBOLE.get(name)
        scope = declared.scope if declared is not None else "training"
        line = "a key of RecBole" if declared is None else _line(declared)
        found.setdefault(name, Entry(name, f"RecBole, {scope}", line))
    return list(found.values())


def _line(key: Key) -> str:
    return key.what or key.allowed()


@cache
def reranker_keys() -> dict[str, list[str]]:
    """Re-rankers by the keys that belong to them."""
    found: dict[str, list[str]] = {}
    for file in sorted((properties_dir() / "rerank").glob("*.yaml")):
        for name in read_yaml(file):
            if name.startswith(RERANKER_PREFIX):
                found.setdefault(name, []).append(file.stem)
    return found


def methods_of(name: str) -> list[str]:
    """Names of the methods and models in whose folder a key is declared."""
    if name in OF_NAMES:
        return list(METHODS)
    folders = {table.partition(".")[0] for table, keys in tables_of_methods().items() if name in keys}
    targets = {**METHODS, **MODELS}
    return [one for one, target in targets.items() if target.split(".")[2] in folders]


def defaults_of(name: str) -> dict[str, Any]:
    """Values that yaml files of the two packages give a key, by what the file is of; those of every model first.

    Args:
        name: the key.
    """
    ours = properties_dir()
    found: dict[str, Any] = {}
    folder = recbole_folder()
    files = [(EVERY, file) for file in _general_files(folder)] + [(EVERY, ours / "overall.yaml")]
    if folder is not None:
        files += [(file.stem, file) for file in sorted((folder / "properties" / "model").glob("*.yaml"))]
    for part in ("method", "model", "rerank"):
        files += [(file.stem, file) for file in sorted((ours / part).glob("*.yaml"))]
    for who, file in files:
        text = file.read_text(encoding="utf-8")
        line = re.search(rf"^{re.escape(name)}\s*:.*(\n[ \t]+.*)*", text, re.MULTILINE)
        if line:
            content: Mapping[str, Any] = yaml.safe_load(line.group(0)) or {}
            found[who] = content.get(name)
    return found


def _general_files(folder: Path | None) -> list[Path]:
    return [] if folder is None else [folder / "properties" / "overall.yaml"]
