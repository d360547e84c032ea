"""The result document of a frontier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from recbole_fair.report.documents import Document, Metrics, Row


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FrontierDocument(Document):
    """Every post-hoc method that applies to a model, under many settings, on validation and test.

    Attributes:
        model: name of the base model.
        seed: of the training.
        checkpoint: file of the base model.
        key: digest of what was asked for and of whom.
        x: metrics to better, ``name@k``.
        y: the metric that may lose.
        loss: budgets, as shares of the base's ``y``.
        base: metrics of the base by split.
        settings: a row a method and setting; ``front`` names the metrics for which it is on its method's front.
        methods: a row a method, with its hypervolumes on test.
        winners: a row a metric, budget and method that keeps it, the best on validation first.
        skipped: methods that do not apply, and why.
        resumed: how many settings were measured by an earlier, interrupted call.
        seconds: of this call.
        cpu_seconds: processor seconds of the process so far.
        mask_seen: the rule about items that a user has seen.
        config: settings that differ from the defaults.
    """

    kind: ClassVar[str] = "frontier"

    model: str
    seed: int | None
    checkpoint: str | None = None
    key: str | None = None
    x: Sequence[str]
    y: str
    loss: Sequence[float]
    base: Mapping[str, Metrics]
    settings: Sequence[Row]
    methods: Sequence[Row]
    winners: Sequence[Row]
    skipped: Sequence[Row] = ()
    resumed: int = 0
    seconds: float | None = None
    cpu_seconds: float | None = None
    mask_seen: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Model and data set."""
        return f"{self.model} on {self.dataset}"
