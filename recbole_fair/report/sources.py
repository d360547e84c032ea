"""The result documents that a report is made of: found, read, sorted by what they are about."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbole_fair.errors import FairError
from recbole_fair.report import audits  # noqa: F401  (makes its kind of document known)
from recbole_fair.report.documents import (
    ComparisonDocument,
    Document,
    DossierDocument,
    EvaluationDocument,
    SweepDocument,
    document_of,
    is_document,
)
from recbole_fair.report.frontier_document import FrontierDocument
from recbole_fair.report.study_document import StudyDocument
from recbole_fair.report.tuning_document import TuningDocument


@dataclass(frozen=True)
class Source:
    """A document and the file that it stands in.

    Attributes:
        content: the document.
        path: as it was given or found.
    """

    content: Document
    path: str


@dataclass(frozen=True)
class Sources:
    """All documents of a report, by what they are about, in the order in which they were named."""

    runs: list[Source] = field(default_factory=list)
    sweeps: list[Source] = field(default_factory=list)
    frontiers: list[Source] = field(default_factory=list)
    comparisons: list[Source] = field(default_factory=list)
    dossiers: list[Source] = field(default_factory=list)
    searches: list[Source] = field(default_factory=list)
    studies: list[Source] = field(default_factory=list)

    @property
    def all(self) -> list[Source]:
        """Every document."""
        of_one = [*self.runs, *self.sweeps, *self.searches, *self.frontiers, *self.comparisons, *self.dossiers]
        return [*self.studies, *of_one]

    def add(self, source: Source) -> bool:
        """Put a document where it belongs; False for a kind that a report does not show."""
        places = (
            (EvaluationDocument, self.runs),
            (SweepDocument, self.sweeps),
            (FrontierDocument, self.frontiers),
            (TuningDocument, self.searches),
            (ComparisonDocument, self.comparisons),
            (DossierDocument, self.dossiers),
            (StudyDocument, self.studies),
        )
        for cls, place in places:
            if isinstance(source.content, cls):
                place.append(source)
                return True
        return False


def read_sources(paths: Sequence[str | Path]) -> Sources:
    """Read result documents.

    Args:
        paths: JSON files of ``run``, ``evaluate``, ``sweep``, ``compare`` and ``explain``, and folders, which are
            searched with what is below them; other JSON files in a folder are passed over, and so is all that is no
            regular file.

    Raises:
        FairError: for a path that does not exist or cannot be read, a named file that is no such document, or when
            there is none at all.
    """
    if not paths:
        raise FairError("Name at least one result file or folder: recbole-fair report results")
    sources = Sources()
    seen: set[Path] = set()
    for given in map(Path, paths):
        in_folder = given.is_dir()
        for file in _json_files(given):
            if file.resolve() in seen:
                continue
            seen.add(file.resolve())
            content = _parsed(file, lenient=in_folder)
            if in_folder and not is_document(content):
                continue
            if not sources.add(Source(document_of(content, file), str(file))) and not in_folder:
                raise FairError(f"{file}: a report does not show documents of the kind {content['kind']!r}.")
    if not sources.all:
        raise FairError(f"There is no result document in {', '.join(map(str, paths))}.")
    return sources


def _json_files(path: Path) -> Iterator[Path]:
    """The file itself, or all JSON files below a folder."""
    if path.is_dir():
        yield from (file for file in sorted(path.rglob("*.json")) if _is_regular(file))
        return
    if not path.exists():
        raise FairError(f"{path} does not exist.")
    if not _is_regular(path):
        raise FairError(f"{path} is no regular file.")
    yield path


def _is_regular(path: Path) -> bool:
    """Whether reading ends: a pipe named ``x.json`` would wait for somebody to write."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _not_a_number(text: str) -> Any:
    raise ValueError(f"it holds {text}, which is no JSON")


def _parsed(file: Path, lenient: bool) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"), parse_constant=_not_a_number)
    except OSError as error:
        raise FairError(f"{file} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError among them
        if lenient:
            return None
        raise FairError(f"{file} is not a JSON file: {error}.") from error
