"""Is a difference between two systems more than chance? Paired tests over users, and resampling of users.

The unit of every test here is the user: both systems serve the same users, so that their values are compared user by
user. What is drawn at random is which users are looked at; the systems are taken as they are. A small p-value therefore
speaks about other users, not about other training seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse, stats

from recbole_fair.evaluator.bootstrap import CELLS, draws, interval
from recbole_fair.evaluator.options import MetricOptions
from recbole_fair.evaluator.specs import MetricSpec

Floats = npt.NDArray[np.float64]

TESTS = ("t", "wilcoxon", "permutation")


def holm(p: npt.ArrayLike) -> Floats:
    """Holm's step-down correction: the family-wise error rate stays below the level at which the results are read.

    Source: S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6,
    1979.

    Args:
        p: p-values of one family ``[C]``; NaN ones are not counted and stay NaN.

    Returns:
        Corrected p-values ``[C]``, at most 1, in the order given.
    """
    p = np.asarray(p, dtype=np.float64)
    corrected = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def t_test(differences: Floats) -> float:
    """Two-sided p-value of the paired t-test (:func:`scipy.stats.ttest_rel` of the pairs).

    Args:
        differences: one a user ``[U]``, without NaN.

    Returns:
        The p-value; 1 where all differences are zero, 0 where they are another constant, NaN with fewer than two users.
    """
    if len(differences) < 2:
        return float("nan")
    if np.ptp(differences) == 0:  # no spread to measure a difference by
        return 0.0 if differences[0] else 1.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def wilcoxon_test(differences: Floats) -> float:
    """Two-sided p-value of the signed-rank test; users without a difference drop out.

    Exact up to 13 users, and up to 50 without ties; else the normal approximation (:func:`scipy.stats.wilcoxon`).

    Args:
        differences: one a user ``[U]``, without NaN.

    Returns:
        The p-value; 1 where all differences are zero, NaN without users.
    """
    if not len(differences):
        return float("nan")
    changed = differences[differences != 0]
    if not len(changed):
        return 1.0
    if len(changed) <= 13:  # all patterns of signs, which ties cannot disturb
        ranks = np.sign(changed) * stats.rankdata(np.abs(changed))
        return float(permutation_tests(ranks[:, None], 2**13)[0])
    # The exact distribution is that of ranks without ties.
    exact = len(changed) <= 50 and len(np.unique(np.abs(changed))) == len(changed)
    return float(stats.wilcoxon(changed, method="exact" if exact else "approx").pvalue)


def permutation_tests(differences: Floats, resamples: int = 10_000, seed: int = 0) -> Floats:
    """Two-sided p-values of the paired randomisation test of means (Fisher's): under it a user's two values may swap.

    All comparisons share their random signs, so that they cost one matrix product. Up to 2^U <= ``resamples`` all
    patterns of signs are gone through and the p-value is exact; beyond, it is ``(1 + b) / (1 + resamples)`` with b
    patterns whose mean is at least as far from 0, so never 0.

    Args:
        differences: ``[U, C]``, a column a comparison; NaN where a user has no value in it.
        resamples: random patterns.
        seed: of the patterns.

    Returns:
        ``[C]``; NaN for columns without users.
    """
    given = np.isnan(differences)
    d = np.where(given, 0.0, differences)
    users = int((~given.all(axis=1)).sum())
    d = d[~given.all(axis=1)]
    observed = np.abs(d.sum(axis=0))
    # Sums of the same numbers in another order differ in the last digits.
    reached = observed - 1e-12 * np.abs(d).sum(axis=0)
    exact = users <= 40 and 2**users <= resamples
    count = np.zeros(d.shape[1])
    total = 2**users if exact else resamples
    generator = np.random.default_rng(seed)
    step = max(1, CELLS // (4 * max(users, 1)))
    for start in range(0, total, step):
        size = min(step, total - start)
        if exact:
            patterns = (np.arange(start, start + size)[:, None] >> np.arange(users)) & 1
        else:
            patterns = generator.integers(0, 2, (size, users), dtype=np.int8)
        count += (np.abs((2.0 * patterns - 1.0) @ d) >= reached).sum(axis=0)
    p = count / total if exact else (count + 1) / (total + 1)
    return np.where(given.all(axis=0), np.nan, p)


def bootstrap_means(
    differences: Floats, values: Sequence[float], resamples: int, seed: int
) -> list[tuple[float, float]]:
    """95 % intervals of mean differences, by drawing users with replacement; all columns share the draws.

    Args:
        differences: ``[U, C]``; NaN where a user has no value.
        values: the differences of the systems ``[C]``, which the intervals are about.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        Low and high bound of each column.
    """
    users = torch.arange(len(differences))
    known = ~np.isnan(differences)
    filled, weight = np.where(known, differences, 0.0), known.astype(np.float64)
    parts = []
    for block in draws(users, resamples, seed):
        times = block.numpy()
        with np.errstate(divide="ignore", invalid="ignore"):
            parts.append((times @ filled) / (times @ weight))
    drawn = torch.from_numpy(np.concatenate(parts)) if parts else torch.zeros(0, len(values))
    return [interval(value, drawn[:, column]) for column, value in enumerate(values)]


@dataclass(frozen=True)
class UserLists:
    """The lists of one evaluation, with users numbered alike in all evaluations that are compared.

    Attributes:
        users: user of each list, long ``[R]``; a user may have several.
        items: item ids ``[R, K]``, best first, 0 = no item.
        n_items: number of item ids including the padding id 0.
    """

    users: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    n_items: int

    def shown(self, k: int, exposure: bool) -> sparse.csr_matrix:
        """Sparse ``[n_items - 1, R]``: which items, or how much of their exposure, each list gives."""
        row, rank = np.nonzero(self.items[:, :k])
        weight = 1 / np.log2(rank + 2.0) if exposure else np.ones(len(row))
        column = self.items[row, rank] - 1
        return sparse.csr_matrix((weight, (column, row)), shape=(self.n_items - 1, len(self.items)))


def list_resamples(
    lists: UserLists, specs: Sequence[MetricSpec], options: MetricOptions, n_users: int, resamples: int, seed: int
) -> dict[str, Floats]:
    """Metrics of item counts, such as Gini or coverage, in resamples of users.

    Two evaluations of the same users get the same draws from the same seed, so that the differences of their values
    are paired.

    Args:
        lists: the lists.
        specs: metrics; those without ``per_item`` functions are passed over.
        options: options of the metrics, the cutoffs among them.
        n_users: number of users that are drawn from: users of all evaluations compared.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        ``name@k`` to ``[resamples]``.
    """
    parts: dict[str, list[torch.Tensor]] = {}
    chosen = [spec for spec in specs if spec.per_item is not None]
    step = max(1, CELLS // max(1, len(lists.items), lists.n_items - 1, n_users))
    for k in options.topk if chosen else ():
        for exposure in sorted({spec.exposure for spec in chosen}):
            shown = lists.shown(k, exposure)
            functions = _functions(chosen, options, exposure)
            for block in draws(torch.arange(n_users), resamples, seed, step):
                times = block.numpy()[:, lists.users]
                counts = torch.from_numpy(np.ascontiguousarray((shown @ times.T).T))
                for name, function in functions.items():
                    parts.setdefault(f"{name}@{k}", []).append(function(counts))
    return {name: torch.cat(part).double().numpy() for name, part in parts.items()}


def _functions(specs: Sequence[MetricSpec], options: MetricOptions, exposure: bool) -> Mapping[str, Callable[..., Any]]:
    found = {}
    for spec in specs:
        if spec.exposure == exposure and spec.per_item is not None:
            found.update({spec.key + suffix: function for suffix, function in spec.per_item(options).items()})
    return found


def difference_interval(value: float, one: Sequence[Floats], other: Sequence[Floats]) -> tuple[float, float]:
    """95 % interval of the difference of a list-level metric between two systems, averaged over seeds.

    Args:
        value: the difference in the sample.
        one: resampled values of the first system, an array a seed.
        other: those of the second system under the same draws.

    Returns:
        The bounds, moved as those of :func:`recbole_fair.evaluator.bootstrap.interval` are.
    """
    drawn = np.mean([a - b for a, b in zip(one, other, strict=True)], axis=0)
    return interval(value, torch.from_numpy(drawn))
