"""Result documents: one class a kind, written to JSON and read from it here.

A document behaves as a read-only mapping with the keys of its JSON file, so that ``result["test_result"]`` is what
users of RecBole expect, and its entries are attributes. Every file says its ``kind`` and its ``schema_version``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from recbole_fair.errors import FairError
from recbole_fair.evaluator.group_result import GroupResult
from recbole_fair.evaluator.result import plain
from recbole_fair.io.atomic import atomic_file
from recbole_fair.report.notebook import InNotebook

Metrics = Mapping[str, float]
Row = Mapping[str, Any]

#: Version of the form of all documents: it grows when a key moves or changes its meaning, not when one is added.
SCHEMA_VERSION = 1

_KINDS: dict[str, type[Document]] = {}
# Of a field whose key is left out where there is nothing to say.
_OPTIONAL = {"optional": True}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Document(InNotebook):
    """What all documents hold; each concrete class sets ``kind``.

    Attributes:
        kind: what the document is about; the value of the key ``kind``.
        dataset: name of the data set.
        notes: sentences for whoever reads the numbers.
        versions: versions of what the numbers depend on, by package.
        failed_files: files that could not be written, with the reason; never in the document's own file.
        extra: further entries, which stand beside the others in the mapping and in the file: what a method reports
            about its fit, or what a later version of recbole_fair has written.
    """

    kind: ClassVar[str]

    dataset: str
    notes: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    failed_files: Mapping[str, str] | None = field(default=None, metadata=_OPTIONAL)

    def __init_subclass__(cls) -> None:
        """Make the kind known to :func:`document_of`."""
        if "kind" in vars(cls):
            _KINDS[cls.kind] = cls

    def __post_init__(self) -> None:
        content: dict[str, Any] = {"kind": self.kind, "schema_version": SCHEMA_VERSION}
        for one in dataclasses.fields(self):
            value = self._in_mapping(one.name)
            if one.name != "extra" and not (value is None and one.metadata):
                content[one.name] = value
        object.__setattr__(self, "_content", {**content, **self.extra})

    def _in_mapping(self, name: str) -> Any:
        """The value of a field as the mapping gives it."""
        return getattr(self, name)

    @classmethod
    def _of_entries(cls, entries: dict[str, Any]) -> Document:
        """The document of the parsed entries of a JSON file."""
        return cls(**entries)

    def __getitem__(self, key: str) -> Any:
        """The entry of a key of the JSON file."""
        content: dict[str, Any] = self.__dict__["_content"]
        return content[key]

    def __iter__(self) -> Iterator[str]:
        """The keys."""
        return iter(self.__dict__["_content"])

    def __len__(self) -> int:
        """Number of keys."""
        return len(self.__dict__["_content"])

    def __repr__(self) -> str:
        """One line: a notebook must not be flooded by curves and tables."""
        return f"<{self.kind} of {self.name}; keys: {', '.join(self)}>"

    @property
    def name(self) -> str:
        """What it is about, such as ``PopSteerSASRec with IPR on ml-100k``."""
        return f"{self.kind.capitalize()} on {self.dataset}"

    def to_plain(self) -> dict[str, Any]:
        """The content of the JSON file: texts, numbers, lists and dictionaries; numbers that do not exist are None."""
        values: dict[str, Any] = plain(dict(self))
        return values


def _plain_groups(groups: Mapping[str, GroupResult]) -> dict[str, Any]:
    return {name: result.to_plain() for name, result in groups.items()}


def _groups_of(groups: Mapping[str, Any]) -> dict[str, GroupResult]:
    return {name: GroupResult.from_plain(content) for name, content in groups.items()}


def of_model(model: str, reranker: str | None, dataset: str) -> str:
    """What a document of a model is about, in words."""
    return (f"{model} with {reranker}" if reranker else model) + f" on {dataset}"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class EvaluationDocument(Document):
    """An evaluation on test, of a checkpoint or at the end of a run.

    Attributes:
        model: name of the model.
        seed: of the training.
        test_result: metrics of what the run is about, ``name@k`` to value; None without a test part.
        base_test_result: those of the plain model, for models with variants or a re-ranker.
        variants: metrics by variant, the base first.
        variant_groups: the same by variant; as ``groups`` plain in the mapping, objects as an attribute.
        reranker: name, candidates and settings of the re-ranker.
        n_users: number of evaluated users; one may have several lists.
        intervals: ``name@k`` to the bounds of its 95 % interval.
        groups: metrics by user group, by name of the grouping; plain values in the mapping and objects
            (:class:`~recbole_fair.evaluator.group_result.GroupResult`) as an attribute.
        curves: curves of the final lists by kind.
        calibration_curves: calibration curves by variant.
        lorenz_curves: Lorenz curves by variant.
        exposure_curves: exposure against popularity by variant.
        config: settings that differ from the defaults.
        mask_seen: the rule about items that a user has seen.
        popularity: the definition of popularity in use.
        timings: seconds by stage.
        checkpoint: file of the model, None if it was not saved.
        key: digest of what was asked for: equal keys mean equal numbers.
    """

    kind: ClassVar[str] = "evaluation"

    model: str
    seed: int | None
    test_result: Metrics | None
    base_test_result: Metrics | None = field(default=None, metadata=_OPTIONAL)
    variants: Mapping[str, Metrics] | None = field(default=None, metadata=_OPTIONAL)
    variant_groups: Mapping[str, Mapping[str, GroupResult]] | None = field(default=None, metadata=_OPTIONAL)
    reranker: Row | None = field(default=None, metadata=_OPTIONAL)
    n_users: int | None = field(default=None, metadata=_OPTIONAL)
    intervals: Mapping[str, Sequence[float | None]] | None = field(default=None, metadata=_OPTIONAL)
    groups: Mapping[str, GroupResult] | None = field(default=None, metadata=_OPTIONAL)
    curves: Mapping[str, Any] | None = field(default=None, metadata=_OPTIONAL)
    calibration_curves: Mapping[str, Any] | None = field(default=None, metadata=_OPTIONAL)
    lorenz_curves: Mapping[str, Any] | None = field(default=None, metadata=_OPTIONAL)
    exposure_curves: Mapping[str, Any] | None = field(default=None, metadata=_OPTIONAL)
    config: Mapping[str, Any] = field(default_factory=dict)
    mask_seen: str | None = None
    popularity: Row | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    checkpoint: str | None = None
    key: str | None = None

    def _in_mapping(self, name: str) -> Any:
        value = super()._in_mapping(name)
        if name == "groups" and value is not None:
            return _plain_groups(value)
        if name == "variant_groups" and value is not None:
            return {variant: _plain_groups(groups) for variant, groups in value.items()}
        return value

    @classmethod
    def _of_entries(cls, entries: dict[str, Any]) -> EvaluationDocument:
        if entries.get("groups") is not None:
            entries["groups"] = _groups_of(entries["groups"])
        if entries.get("variant_groups") is not None:
            variants = entries["variant_groups"].items()
            entries["variant_groups"] = {variant: _groups_of(groups) for variant, groups in variants}
        return cls(**entries)

    @property
    def name(self) -> str:
        """Model, re-ranker and data set."""
        reranker = None if self.reranker is None else str(self.reranker.get("reranker"))
        return of_model(self.model, reranker, self.dataset)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RunDocument(EvaluationDocument):
    """A training and its evaluation: RecBole's four keys and ours.

    Attributes:
        best_valid_score: the best value of ``valid_metric`` on validation.
        valid_score_bigger: whether more of it is better.
        best_valid_result: all metrics on validation at that point; None without validation.
    """

    kind: ClassVar[str] = "run"

    best_valid_score: float | None = None
    valid_score_bigger: bool | None = None
    best_valid_result: Metrics | None = None


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SweepDocument(Document):
    """Many settings of scoring time on validation and test.

    Attributes:
        model: name of the model.
        reranker: name of the re-ranker, or None.
        seed: of the training.
        checkpoint: file of the model.
        key: digest of what was asked for and of whom: equal keys mean equal numbers.
        x: metric to choose by, ``name@k``.
        y: metric that it is traded against.
        grid: values by key.
        base: metrics of the plain model by split.
        subject_to: bounds as text and as numbers.
        settings: one row a setting.
        front: rows of the Pareto front on validation.
        chosen: the row that wins on validation, or None.
        resumed: how many settings were measured by an earlier, interrupted sweep.
        seconds_a_setting: of the others.
        mask_seen: the rule about items that a user has seen.
        config: settings that differ from the defaults.
    """

    kind: ClassVar[str] = "sweep"

    model: str
    reranker: str | None
    seed: int | None
    checkpoint: str | None = None
    key: str | None = None
    x: str
    y: str
    grid: Mapping[str, Sequence[Any]]
    base: Mapping[str, Metrics]
    subject_to: Sequence[Row]
    settings: Sequence[Row]
    front: Sequence[Row]
    chosen: Row | None
    resumed: int = 0
    seconds_a_setting: float | None = None
    mask_seen: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Model, re-ranker and data set."""
        return of_model(self.model, self.reranker, self.dataset)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ComparisonDocument(Document):
    """Models, re-rankers and seeds under one protocol.

    Attributes:
        models: names in the order of the tables.
        rerankers: names.
        seeds: the seeds.
        reference: the system that the others are compared with, or ``all``.
        spread: ``seeds`` or ``none``.
        systems: a row a system and metric: mean and spread.
        comparisons: a row a pair and metric: difference, interval, p-values.
        cells: metrics by system and seed.
        failed: system, seed and reason of cells without a result.
        reused: how many cells were there already.
        tuned: what was found for each system on validation, with how many trials, where systems were tuned first.
        protocol: what holds for all systems.
        settings: the user's settings.
        seconds: of this call.
        key: digest of what was asked for.
    """

    kind: ClassVar[str] = "comparison"

    models: Sequence[str]
    rerankers: Sequence[str]
    seeds: Sequence[int]
    reference: str
    spread: str
    systems: Sequence[Row]
    comparisons: Sequence[Row]
    cells: Sequence[Row] = ()
    failed: Sequence[Row] = ()
    reused: int = 0
    tuned: Sequence[Row] = ()
    protocol: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    key: str | None = None


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DossierDocument(Document):
    """What is known about a steered model; a subclass a kind of dossier.

    Attributes:
        method: name of the method.
        model: name of the model.
        seed: of the training.
        checkpoint: file of the model.
        key: digest of what was asked for and of whom.
        split: whose users and metrics were looked at.
        metrics: the metrics that the dossier is about, ``name@k``, accuracy first.
        strengths: scoring-time settings in use.
        variants: a row a variant: its metrics.
        tables: names of the CSV files beside the document.
        figures: names of the figures beside it.
        mask_seen: the rule about items that a user has seen.
        config: settings that differ from the defaults.
        timings: seconds by stage.
    """

    method: str
    model: str
    seed: int | None
    checkpoint: str | None = None
    key: str | None = None
    split: str
    metrics: Sequence[str]
    strengths: Mapping[str, Any]
    variants: Sequence[Row]
    tables: Sequence[str] = ()
    figures: Sequence[str] = ()
    mask_seen: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Model and data set."""
        return of_model(self.model, None, self.dataset)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class NeuronsDocument(DossierDocument):
    """The dossier of neurons.

    Attributes:
        neurons: counts of neurons by effect.
        effect_sizes: their histogram.
        strongest: the strongest neurons of either side, each with its users and items.
        head_share: histogram and quantiles of users' shares of popular items.
        normality: shares of neurons that look normal, by population.
        reduction: metrics when the strongest neurons are lowered.
        surface: metrics over the grid of strengths.
        map: places of users on a plane by group, or None.
        distances: Wasserstein distances and their test.
        every: every neuron that fires: label, firing rate, effect on each concept, items, what turning it does.
        concepts: the concepts of the fit, the one that is steered first.
        controls: the autoencoder and its controls at the same accuracy, or None.
        information: how well representations tell who has a concept of users, before and after it is erased.
    """

    kind: ClassVar[str] = "neurons"

    neurons: Mapping[str, int]
    effect_sizes: Row
    strongest: Mapping[str, Sequence[Row]]
    head_share: Row
    normality: Sequence[Row]
    reduction: Sequence[Row]
    surface: Sequence[Row]
    map: Row | None
    distances: Sequence[Row]
    every: Sequence[Row] = ()
    concepts: Sequence[Row] = ()
    controls: Row | None = None
    information: Sequence[Row] = ()


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SitesDocument(DossierDocument):
    """The dossier of probed sites.

    Attributes:
        probe: accuracy of the probe by site.
        list_length: length of the lists behind calibration and bias.
        calibration: calibration curves by variant.
        bias: mean and histogram of the bias of users' lists by variant.
        strength_curve: metrics over the strength.
        concepts: the concepts of the fit, the one that is steered first.
    """

    kind: ClassVar[str] = "sites"

    probe: Sequence[Row]
    list_length: int
    calibration: Sequence[Row]
    bias: Mapping[str, Row]
    strength_curve: Sequence[Row]
    concepts: Sequence[Row] = ()


def rows_of(table: pd.DataFrame) -> list[Row]:
    """The rows of a table as a document holds them."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def is_document(content: Any) -> bool:
    """Whether a parsed JSON file says that it is one of our documents."""
    if not isinstance(content, dict) or "schema_version" not in content:
        return False
    return isinstance(content.get("kind"), str) and content["kind"] in _KINDS


def document_of(content: Mapping[str, Any], source: str | Path) -> Document:
    """The typed document of a parsed JSON file.

    Args:
        content: what the file holds.
        source: its path, for messages.

    Raises:
        FairError: if it is no document of ours, of a newer version, or lacks an entry.
    """
    if not is_document(content):
        raise FairError(
            f"{source} is no result of recbole_fair: name files that run --result_file, evaluate, sweep, compare, "
            "explain or audit have written."
        )
    version = content.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise FairError(
            f"{source} has schema_version {version!r}; this recbole_fair reads up to {SCHEMA_VERSION}: upgrade it, or "
            "write the file again."
        )
    cls = _KINDS[content["kind"]]
    own = {one.name: one for one in dataclasses.fields(cls) if one.name != "extra"}
    missing = [
        name
        for name, one in own.items()
        if name not in content and one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise FairError(f"{source} is not a whole {cls.kind} document: it lacks {', '.join(missing)}.")
    entries = {name: content[name] for name in own if name in content}
    extra = {key: value for key, value in content.items() if key not in own and key not in ("kind", "schema_version")}
    with named(source, cls.kind):
        return cls._of_entries({**entries, "extra": extra})


@contextmanager
def named(source: str | Path, kind: str) -> Iterator[None]:
    """Entries that are not what a document's kind promises end in a sentence that names the file.

    Raises:
        FairError: in place of whatever such an entry makes of the code that uses it.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError) as error:
        raise FairError(
            f"{source} is not what recbole_fair writes for a {kind} ({type(error).__name__}: {error}); write it "
            "again, or leave it out."
        ) from error


def key_of(path: str | Path) -> str | None:
    """The key in a document's file: equal keys mean the same question; None if there is no such file or it has none."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    key = content.get("key") if isinstance(content, dict) else None
    return key if isinstance(key, str) else None


def write_document(path: str | Path, document: Document) -> None:
    """Write a document as JSON, as a whole or not at all.

    A document of the same key that stands there is replaced; anything else is kept under another name.

    Raises:
        FairError: if it cannot be written.
    """
    key = document.get("key")
    keep = key is None or key_of(path) != key
    # A lone surrogate (a file name in another encoding) becomes the escape that JSON has for it.
    with atomic_file(path, "the result ", keep, mode="w", encoding="utf-8", errors="backslashreplace") as file:
        json.dump(document.to_plain(), file, indent=2, ensure_ascii=False, allow_nan=False)
