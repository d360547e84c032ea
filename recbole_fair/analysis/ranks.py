"""Systems over several data sets: ranks, Friedman's test and the critical difference of Nemenyi.

Source: J. Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, 2006.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from recbole_fair.analysis.pareto import cost

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """Systems ranked on several data sets by one metric.

    Attributes:
        metric: ``name@k``.
        systems: names, the best mean rank first.
        mean_ranks: of each, 1 being the best.
        p: Friedman's p-value that all systems are alike; NaN with fewer than three systems or two data sets.
        critical_difference: mean ranks that differ by less cannot be told apart at 5 % (Nemenyi); NaN likewise.
        groups: runs of systems that cannot be told apart, each as long as can be; those of one system are left out.
    """

    metric: str
    systems: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    p: float
    critical_difference: float
    groups: tuple[tuple[str, ...], ...]


def ranks_by_dataset(metric: str, values: Floats) -> Floats:
    """Ranks of systems on each data set, 1 the best; equal values share the mean of their ranks.

    Args:
        metric: ``name@k``, which says whether more is better.
        values: ``[D, S]``.

    Returns:
        ``[D, S]``.
    """
    costs = np.array([[cost(metric, float(value)) for value in row] for row in values])
    return np.stack([stats.rankdata(row) for row in costs])


def critical_difference(systems: int, datasets: int, level: float = 0.05) -> float:
    """Nemenyi's critical difference of mean ranks: ``q * sqrt(S * (S + 1) / (6 * D))``.

    Args:
        systems: how many, at least 2.
        datasets: how many.
        level: of the test; ``q`` is the studentised range's quantile over the square root of 2.
    """
    q = stats.studentized_range.ppf(1 - level, systems, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(systems * (systems + 1) / (6 * datasets)))


def ranking(metric: str, systems: Sequence[str], values: Floats) -> Ranking:
    """Rank systems over data sets.

    Args:
        metric: ``name@k``.
        systems: names of the columns.
        values: ``[D, S]``, without NaN.
    """
    ranks = ranks_by_dataset(metric, values)
    mean = ranks.mean(axis=0)
    order = np.argsort(mean, kind="stable")
    n_datasets, n_systems = values.shape
    tested = n_systems >= 3 and n_datasets >= 2
    p = apart = float("nan")
    if tested:
        # Friedman's statistic does not exist where all systems tie on all data sets.
        p = 1.0 if np.all(ranks == ranks[:, :1]) else float(stats.friedmanchisquare(*ranks.T).pvalue)
        apart = critical_difference(n_systems, n_datasets)
    names, means = tuple(systems[i] for i in order), tuple(float(mean[i]) for i in order)
    return Ranking(metric, names, means, p, apart, _groups(names, means, apart) if tested else ())


def _groups(names: Sequence[str], means: Sequence[float], apart: float) -> tuple[tuple[str, ...], ...]:
    """Maximal runs of neighbours whose ends are closer than the critical difference."""
    found: list[tuple[int, int]] = []
    for start in range(len(names)):
        end = max(i for i in range(start, len(names)) if means[i] - means[start] <= apart)
        if end > start and not (found and found[-1][1] >= end):
            found.append((start, end))
    return tuple(tuple(names[start : end + 1]) for start, end in found)


def limits(systems: int, datasets: int) -> list[str]:
    """Sentences on what ranks over so few data sets can and cannot say.

    Args:
        systems: how many.
        datasets: how many.
    """
    if systems < 3 or datasets < 2:
        return ["Friedman's test needs at least three systems and two data sets: ranks are shown without it."]
    found = [
        f"Data sets are the unit: {datasets} of them, each counted once whatever its size and however clear its "
        "differences are; the tests by user within each data set are in its own comparison."
    ]
    apart = critical_difference(systems, datasets)
    if apart > systems - 1:
        least = next(n for n in range(datasets, 10_000) if critical_difference(systems, n) <= systems - 1)
        found.append(
            f"With {systems} systems on {datasets} data sets no difference of mean ranks can reach Nemenyi's critical "
            f"difference ({apart:.2f} of at most {systems - 1}): it would take at least {least} data sets."
        )
    if datasets < 10:
        found.append("Friedman's p-value is an approximation that is rough below some ten data sets.")
    return found
