"""What ``verify`` prints: a row's numbers now, those in the catalogue, how far they are apart, and the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recbole_fair.config.results import Row
from recbole_fair.report.summary import text_table


@dataclass(frozen=True)
class Difference:
    """One metric of a row: what stands in the catalogue and what came out now.

    Attributes:
        metric: its name.
        ours: what stands in the catalogue.
        found: mean over the seeds that were run.
        tolerance: how far they may be apart.
        paper: what the paper prints, or None.
    """

    metric: str
    ours: float
    found: float
    tolerance: float
    paper: float | None = None

    @property
    def off(self) -> float:
        """What came out less what stands there."""
        return self.found - self.ours

    @property
    def within(self) -> bool:
        """Whether they agree; a number that does not exist agrees with nothing."""
        return abs(self.off) <= self.tolerance


@dataclass(frozen=True)
class Verdict:
    """A row that was made again.

    Attributes:
        row: the row.
        seeds: those that were run.
        differences: one a metric.
        seconds: what it took; a training that an earlier row has made is not in it.
    """

    row: Row
    seeds: tuple[int, ...]
    differences: tuple[Difference, ...]
    seconds: float

    @property
    def within(self) -> bool:
        """Whether all metrics are within their tolerance."""
        return all(difference.within for difference in self.differences)


def verdict_lines(verdict: Verdict) -> list[str]:
    """One row: a headline, and a line a metric."""
    row = verdict.row
    seeds = ("seed " if len(verdict.seeds) == 1 else "seeds ") + ", ".join(map(str, verdict.seeds))
    if len(verdict.seeds) < len(row.seeds):
        seeds += f" of {len(row.seeds)}"
    outside = [difference.metric for difference in verdict.differences if not difference.within]
    said = f"outside its tolerance ({', '.join(outside)})" if outside else "within its tolerance"
    head = ["", "now", "catalogue", "off by", "allowed", "paper"]
    cells = [
        [
            one.metric,
            _number(one.found),
            _number(one.ours),
            f"{one.off:+.4f}",
            _number(one.tolerance),
            _number(one.paper),
        ]
        for one in verdict.differences
    ]
    return [f"{row.name} ({row.label}; {seeds}; {verdict.seconds:.0f} s): {said}", *text_table(head, cells), ""]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def summary(verdicts: Sequence[Verdict]) -> list[str]:
    """The last lines: how many rows there were, and which are outside."""
    outside = [verdict.row.name for verdict in verdicts if not verdict.within]
    seconds = sum(verdict.seconds for verdict in verdicts)
    said = f"{len(verdicts) - len(outside)} of {len(verdicts)} rows within tolerance, {seconds:.0f} s."
    return [said] if not outside else [said, f"Outside: {', '.join(outside)}."]
