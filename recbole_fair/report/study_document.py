"""The result document of a study over several data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from recbole_fair.report.documents import Document, Row


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class StudyDocument(Document):
    """Systems on several data sets under one protocol.

    Attributes:
        study: ``compare`` or ``frontier``.
        datasets: names, in the order of the tables.
        rows: a row a data set, system and metric: ``value``, ``best`` on that data set, and, of comparisons, ``std``
            and whether it is ``marked`` as different from the reference.
        ranks: a row a metric: systems and mean ranks, the best first, Friedman's ``p``, ``critical_difference`` and
            ``groups`` that cannot be told apart.
        failed: data set, system and reason of what has no result.
        parts: file of each data set's own document.
        protocol: what holds on all data sets.
        reference: the system that marks are about.
        key: digest of what was asked for.
        seconds: of this call.
    """

    kind: ClassVar[str] = "study"

    study: str
    datasets: Sequence[str]
    rows: Sequence[Row]
    ranks: Sequence[Row]
    failed: Sequence[Row] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    reference: str | None = None
    key: str | None = None
    seconds: float | None = None

    @property
    def name(self) -> str:
        """The data sets."""
        return f"{'Comparison' if self.study == 'compare' else 'Frontiers'} on {self.dataset}"
