"""Metrics by group of users: each group's values, and how far the groups are apart.

The interface is that of fairlearn's ``MetricFrame``: ``by_group``, ``difference()``, ``ratio()``, ``minimum()``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True, eq=False)
class GroupResult:
    """Metrics of one evaluation by group of users.

    A group without a value (NaN) in a metric is left out of :meth:`minimum`, :meth:`difference` and the like.

    Attributes:
        definition: how the groups were made, in one sentence.
        left_out: users of the evaluation of whom no list is in a group.
        sizes: rows of each group, by its label; groups may overlap.
        by_group: values, float64: a row a group, a column a metric ``name@k``.
        low: lower bounds of the 95 % bootstrap intervals, shaped as ``by_group``; None without intervals.
        high: their upper bounds.

    Examples:
        >>> values = pd.DataFrame({"ndcg@10": [0.1, 0.2]}, index=["F", "M"])
        >>> result = GroupResult("column 'gender'", 0, {"F": 3, "M": 5}, values)
        >>> float(result.difference()["ndcg@10"]), float(result.ratio()["ndcg@10"])
        (0.1, 0.5)
        >>> result.worst("ndcg@10")
        'F'
    """

    definition: str
    left_out: int
    sizes: Mapping[str, int]
    by_group: pd.DataFrame
    low: pd.DataFrame | None = None
    high: pd.DataFrame | None = None

    @property
    def labels(self) -> list[str]:
        """Names of the groups, from the lowest score on or by value of the column."""
        return [str(label) for label in self.by_group.index]

    @property
    def metrics(self) -> list[str]:
        """The metrics ``name@k``."""
        return [str(name) for name in self.by_group.columns]

    def minimum(self) -> pd.Series[float]:
        """The smallest value of any group, by metric."""
        return self.by_group.min()

    def maximum(self) -> pd.Series[float]:
        """The largest value of any group, by metric."""
        return self.by_group.max()

    def difference(self) -> pd.Series[float]:
        """The largest value less the smallest one, by metric; 0 where all groups are served alike."""
        return self.maximum() - self.minimum()

    def ratio(self) -> pd.Series[float]:
        """The smallest value over the largest one, by metric; NaN unless the largest is above 0."""
        high = self.maximum()
        return self.minimum() / high.where(high > 0)

    def worst(self, metric: str) -> str:
        """Label of the group with the smallest value of a metric, the first of equals."""
        return str(self.by_group[metric].idxmin())

    def to_frame(self) -> pd.DataFrame:
        """One row a group: its size, every metric, and with intervals ``NAME low`` and ``NAME high``."""
        frame = self.by_group.copy()
        frame.insert(0, "users", list(self.sizes.values()))
        if self.low is not None and self.high is not None:
            for name in self.metrics:
                frame[f"{name} low"], frame[f"{name} high"] = self.low[name], self.high[name]
        return frame.rename_axis("group")

    def to_plain(self) -> dict[str, Any]:
        """As it stands in result documents.

        Returns:
            ``definition``, ``left_out``, ``groups`` (label, size, values by ``name@k``, intervals where there are any)
            and ``summary`` (by ``name@k``: min, max, difference, ratio).
        """
        groups: list[dict[str, Any]] = []
        for label, row in zip(self.labels, self.by_group.to_numpy(), strict=True):
            values = dict(zip(self.metrics, row.tolist(), strict=True))
            groups.append({"group": label, "size": self.sizes[label], "values": values})
        if self.low is not None and self.high is not None:
            for group, low, high in zip(groups, self.low.to_numpy(), self.high.to_numpy(), strict=True):
                bounds = zip(low.tolist(), high.tolist(), strict=True)
                group["intervals"] = dict(zip(self.metrics, bounds, strict=True))
        parts = {
            "min": self.minimum(),
            "max": self.maximum(),
            "difference": self.difference(),
            "ratio": self.ratio(),
        }
        summary = {name: {key: float(part[name]) for key, part in parts.items()} for name in self.metrics}
        return {"definition": self.definition, "left_out": self.left_out, "groups": groups, "summary": summary}

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> GroupResult:
        """Read what :meth:`to_plain` gave, also after it was a JSON file."""
        groups, metrics = content["groups"], list(content["summary"])
        labels = [str(group["group"]) for group in groups]

        def frame(rows: list[list[Any]]) -> pd.DataFrame:
            # None, JSON's word for a number that does not exist, becomes NaN.
            return pd.DataFrame(np.array(rows, dtype=np.float64).reshape(len(labels), len(metrics)), labels, metrics)

        low = high = None
        if groups and all("intervals" in group for group in groups):
            low = frame([[group["intervals"][name][0] for name in metrics] for group in groups])
            high = frame([[group["intervals"][name][1] for name in metrics] for group in groups])
        sizes = {label: int(group["size"]) for label, group in zip(labels, groups, strict=True)}
        values = frame([[group["values"].get(name) for name in metrics] for group in groups])
        return cls(str(content["definition"]), int(content["left_out"]), sizes, values, low, high)
