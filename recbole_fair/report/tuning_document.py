"""The result document of a search for settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from recbole_fair.report.documents import Document, Metrics, Row, of_model


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TuningDocument(Document):
    """A search for settings on validation.

    Attributes:
        model: name of the model.
        reranker: name of the re-ranker, or None.
        seed: of trainings and draws.
        objectives: ``metric`` and whether more of it is ``bigger`` (better), each.
        subject_to: bounds on validation as text and as numbers.
        space: what was searched, in words, by key.
        base: metrics on validation that ``base`` in a bound means.
        trials: a row a trial: its state, settings and metrics on validation.
        chosen: rows of what was chosen, with their metrics on test; several are a Pareto front.
        importance: how much each key accounts for the first objective.
        resumed: how many trials were there already.
        key: digest of what was asked for; the same search, gone on with, takes the place of its earlier document.
        config: settings that differ from the defaults.
    """

    kind: ClassVar[str] = "tuning"

    model: str
    reranker: str | None
    seed: int | None
    objectives: Sequence[Row]
    subject_to: Sequence[Row]
    space: Mapping[str, str]
    base: Mapping[str, Metrics]
    trials: Sequence[Row]
    chosen: Sequence[Row]
    importance: Mapping[str, float] = field(default_factory=dict)
    resumed: int = 0
    key: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Model, re-ranker and data set."""
        return of_model(self.model, self.reranker, self.dataset)
