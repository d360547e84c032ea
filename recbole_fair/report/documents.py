"""The JSON documents that a report is made of: found, read, sorted by kind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbole_fair.errors import FairError

#: What a document can be: a run or an evaluation, a sweep, a comparison of several models, a dossier.
KINDS = ("run", "sweep", "comparison", "explain")


@dataclass(frozen=True)
class Document:
    """One result document.

    Attributes:
        kind: one of :data:`KINDS`.
        source: path as it was given or found.
        content: what the file holds.
    """

    kind: str
    source: str
    content: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What it is about, such as ``PopSteerSASRec with IPR on ml-100k``."""
        content = self.content
        if self.kind == "comparison":
            return f"Comparison on {content['dataset']}"
        reranker = content.get("reranker")
        if isinstance(reranker, Mapping):
            reranker = reranker.get("reranker")
        words = str(content.get("model"))
        if reranker:
            words += f" with {reranker}"
        return f"{words} on {content['dataset']}" if content.get("dataset") else words


@dataclass(frozen=True)
class Documents:
    """All documents of a report, by kind, in the order in which they were named."""

    runs: list[Document] = field(default_factory=list)
    sweeps: list[Document] = field(default_factory=list)
    comparisons: list[Document] = field(default_factory=list)
    dossiers: list[Document] = field(default_factory=list)

    @property
    def all(self) -> list[Document]:
        """Every document."""
        return [*self.runs, *self.sweeps, *self.comparisons, *self.dossiers]


def kind_of(content: Any) -> str | None:
    """The kind of a parsed JSON document, None if it is not one of ours."""
    if not isinstance(content, dict):
        return None
    kind = content.get("kind")
    is_sweep = {"settings", "front", "x", "y"} <= set(content)
    if kind in KINDS and (kind != "sweep" or is_sweep):
        return str(kind)
    if isinstance(content.get("test_result", 0), dict | None):
        return "run"
    if is_sweep:
        return "sweep"
    return None


def read_documents(paths: Sequence[str | Path]) -> Documents:
    """Read result documents.

    Args:
        paths: JSON files of ``run``, ``evaluate``, ``sweep``, ``compare`` and ``explain``, and folders, which are
            searched with what is below them; other JSON files in a folder are passed over.

    Raises:
        FairError: for a path that does not exist or cannot be read, a named file that is no such document, or when
            there is none at all.
    """
    if not paths:
        raise FairError("Name at least one result file or folder: recbole-fair report results")
    found = Documents()
    places = {"run": found.runs, "sweep": found.sweeps, "comparison": found.comparisons, "explain": found.dossiers}
    seen: set[Path] = set()
    for given in paths:
        path = Path(given)
        if not path.exists():
            raise FairError(f"{path} does not exist.")
        files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        for file in files:
            if file.resolve() in seen:
                continue
            seen.add(file.resolve())
            content = _read(file, lenient=path.is_dir())
            kind = kind_of(content)
            if kind is not None:
                places[kind].append(Document(kind, str(file), content))
            elif not path.is_dir():
                raise FairError(
                    f"{file} is no result of recbole_fair: name files that run --result_file, evaluate, sweep, "
                    "compare or explain have written."
                )
    if not found.all:
        raise FairError(f"There is no result document in {', '.join(map(str, paths))}.")
    return found


def _read(file: Path, lenient: bool) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise FairError(f"{file} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:  # UnicodeDecodeError among them
        if lenient:
            return None
        raise FairError(f"{file} is not a JSON file: {error}.") from error
