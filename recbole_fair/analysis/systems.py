"""Systems side by side: mean and spread over seeds, and paired differences with tests and intervals."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from recbole_fair.analysis.pareto import cost
from recbole_fair.analysis.significance import (
    Floats,
    UserLists,
    bootstrap_means,
    difference_interval,
    holm,
    list_resamples,
    permutation_tests,
    t_test,
    wilcoxon_test,
)
from recbole_fair.evaluator.directions import spec_of
from recbole_fair.evaluator.options import MetricOptions

ALL_PAIRS = "all"


@dataclass(frozen=True)
class Cell:
    """One system under one seed, evaluated on test.

    Attributes:
        model: the model's name.
        reranker: the re-ranker's name, or None for the model's own lists.
        seed: of data splits by chance, training and sampling.
        metrics: ``name@k`` to value.
        users: original id of the user of each row ``[R]``.
        per_user: ``name@k`` to values ``[R]``, NaN where the metric leaves a row out.
        lists: item ids ``[R, K]``, best first, 0 = no item.
        n_items: number of item ids including the padding id 0.
        facts: whatever else is worth keeping, as plain values: checkpoint, seconds, notes.
    """

    model: str
    reranker: str | None
    seed: int
    metrics: dict[str, float]
    users: npt.NDArray[np.str_]
    per_user: dict[str, Floats]
    lists: npt.NDArray[np.int64]
    n_items: int
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def system(self) -> str:
        """The system's name: the model's, with that of the re-ranker."""
        return system_name(self.model, self.reranker)


def system_name(model: str, reranker: str | None) -> str:
    """Name of a model with its re-ranker."""
    return model if reranker is None else f"{model} + {reranker}"


def system_file(model: str, reranker: str | None) -> str:
    """The same as part of a file's name, without what a class named by its module would bring."""
    return (model if reranker is None else f"{model}+{reranker}").replace(":", ".").replace("/", ".")


def cells_table(cells: Sequence[Cell]) -> pd.DataFrame:
    """One row a cell: system, model, re-ranker, seed and every metric."""
    named = [{"system": c.system, "model": c.model, "reranker": c.reranker, "seed": c.seed} for c in cells]
    return pd.DataFrame([{**names, **cell.metrics} for names, cell in zip(named, cells, strict=True)])


def systems_table(cells: Sequence[Cell]) -> pd.DataFrame:
    """One row a system and metric: mean and standard deviation over seeds.

    Args:
        cells: the cells, in the order in which the systems are to stand.

    Returns:
        ``system``, ``metric``, ``mean``, ``std`` (of the sample, NaN with one seed), ``seeds`` (how many) and ``best``
        (whether no system has a better mean).
    """
    rows: list[dict[str, Any]] = []
    metrics = list(dict.fromkeys(name for cell in cells for name in cell.metrics))
    for system, group in _by_system(cells).items():
        for metric in metrics:
            values = [cell.metrics[metric] for cell in group.values() if metric in cell.metrics]
            mean = float(np.mean(values)) if values else float("nan")
            std = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
            rows.append({"system": system, "metric": metric, "mean": mean, "std": std, "seeds": len(values)})
    table = pd.DataFrame(rows)
    costs = [cost(row["metric"], row["mean"]) for row in rows]
    lowest = pd.Series(costs).groupby(table["metric"]).transform("min")
    table["best"] = [found == least for found, least in zip(costs, lowest, strict=True)]
    return table


def comparisons_table(
    cells: Sequence[Cell],
    reference: str,
    options: MetricOptions,
    permutations: int = 10_000,
    resamples: int = 1_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Each system against the reference, or all against all, metric by metric.

    Systems are compared within each seed, user by user; a user's differences are then averaged over the seeds, and the
    tests take one number a user. Metrics of all lists together (Gini, coverage, entropy) have no value by user and get
    an interval alone: users are drawn with replacement, the same ones for both systems and for all seeds.

    Args:
        cells: the cells.
        reference: a system's name, or ``all`` for all pairs.
        options: options of the metrics.
        permutations: random patterns of signs of the permutation test.
        resamples: draws of the intervals.
        seed: of both.

    Returns:
        One row a pair and metric: ``system``, ``reference``, ``metric``, ``kind`` (``users`` or ``lists``), their
        means over the common seeds (``value``, ``reference_value``), ``difference`` with its 95 % interval (``low``,
        ``high``), ``users``, ``seeds``, ``seeds_better`` (in how many of them the system is the better one), two-sided
        p-values ``p_t``, ``p_wilcoxon``, ``p_permutation`` and the same after Holm's correction over all rows,
        ``holm_t`` ...
    """
    systems = _by_system(cells)
    names = list(systems)
    pairs = list(itertools.combinations(names, 2)) if reference == ALL_PAIRS else [(reference, name) for name in names]
    universe = np.unique(np.concatenate([cell.users for cell in cells]))
    rows: list[dict[str, Any]] = []
    columns: list[Floats] = []
    for other, name in pairs:
        if name == other:
            continue
        shared = [s for s in systems[name] if s in systems[other]]
        for metric in systems[name][shared[0]].metrics if shared else ():
            row, differences = _compare(systems[name], systems[other], shared, metric, universe)
            rows.append({"system": name, "reference": other, **row})
            columns.append(differences)
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows)
    _add_user_tests(table, np.stack(columns, axis=1), permutations, resamples, seed)
    _add_list_intervals(table, systems, universe, options, resamples, seed)
    return table


def _by_system(cells: Sequence[Cell]) -> dict[str, dict[int, Cell]]:
    found: dict[str, dict[int, Cell]] = {}
    for cell in cells:
        found.setdefault(cell.system, {})[cell.seed] = cell
    return found


def _compare(
    one: Mapping[int, Cell], other: Mapping[int, Cell], seeds: Sequence[int], metric: str, universe: npt.NDArray[Any]
) -> tuple[dict[str, Any], Floats]:
    """What two systems' values are, and each user's difference averaged over seeds, NaN where there is none."""
    values, theirs = ([side[s].metrics.get(metric, float("nan")) for s in seeds] for side in (one, other))
    row = {
        "metric": metric,
        "kind": kind_of(metric, one[seeds[0]]),
        "value": float(np.mean(values)),
        "reference_value": float(np.mean(theirs)),
        "difference": float(np.mean(np.subtract(values, theirs))),
        "seeds": len(seeds),
        "seeds_better": sum(cost(metric, a) < cost(metric, b) for a, b in zip(values, theirs, strict=True)),
    }
    if row["kind"] != "users":
        return row, np.full(len(universe), np.nan)
    by_seed = np.stack([by_user(one[s], metric, universe) - by_user(other[s], metric, universe) for s in seeds])
    known = ~np.isnan(by_seed)
    with np.errstate(invalid="ignore"):
        return row, np.where(known, by_seed, 0.0).sum(axis=0) / known.sum(axis=0)


def kind_of(metric: str, cell: Cell) -> str:
    """``users`` for metrics with values by user, ``lists`` for those of all lists together, else ``other``."""
    spec = spec_of(metric)
    if metric in cell.per_user:
        return "users"
    return "lists" if spec is not None and spec.per_item is not None else "other"


def by_user(cell: Cell, metric: str, universe: npt.NDArray[Any]) -> Floats:
    """Values of one metric for every user of a sorted list of ids, NaN where there is none; rows of a user averaged."""
    values = cell.per_user[metric]
    known = ~np.isnan(values)
    at = np.searchsorted(universe, cell.users[known])
    total = np.bincount(at, weights=values[known], minlength=len(universe))
    with np.errstate(invalid="ignore"):
        mean: Floats = total / np.bincount(at, minlength=len(universe))
    return mean


def _add_user_tests(table: pd.DataFrame, differences: Floats, permutations: int, resamples: int, seed: int) -> None:
    kept = [differences[~np.isnan(differences[:, column]), column] for column in range(differences.shape[1])]
    of_users = table["kind"] == "users"
    table["users"] = [len(values) for values in kept]
    bounds = bootstrap_means(differences, table["difference"].tolist(), resamples, seed)
    for place, side in enumerate(("low", "high")):
        table[side] = np.where(of_users, [pair[place] for pair in bounds], np.nan)
    table["p_t"] = [t_test(values) for values in kept]
    table["p_wilcoxon"] = [wilcoxon_test(values) for values in kept]
    table["p_permutation"] = permutation_tests(differences, permutations, seed)
    for test in ("t", "wilcoxon", "permutation"):
        table[f"holm_{test}"] = holm(table[f"p_{test}"])


def _add_list_intervals(
    table: pd.DataFrame,
    systems: Mapping[str, Mapping[int, Cell]],
    universe: npt.NDArray[Any],
    options: MetricOptions,
    resamples: int,
    seed: int,
) -> None:
    specs = [spec for spec in dict.fromkeys(map(spec_of, table["metric"])) if spec is not None and spec.per_item]
    if not specs:
        return
    drawn = {}
    for name, by_seed in systems.items():
        for number, cell in by_seed.items():
            lists = UserLists(np.searchsorted(universe, cell.users), cell.lists, cell.n_items)
            drawn[name, number] = list_resamples(lists, specs, options, len(universe), resamples, seed)
    for at, row in table[table["kind"] == "lists"].iterrows():
        shared = [s for s in systems[row["system"]] if s in systems[row["reference"]]]
        sides = [[drawn[row[side], s][row["metric"]] for s in shared] for side in ("system", "reference")]
        table.loc[at, ["low", "high"]] = difference_interval(row["difference"], *sides)
        table.loc[at, "users"] = len(universe)


def differs(row: Mapping[str, Any], level: float = 0.05) -> bool:
    """Whether a difference is more than chance: Holm's permutation p-value, or an interval that leaves out 0."""
    if row["kind"] == "users":
        return bool(row["holm_permutation"] < level)
    return bool(row["low"] > 0 or row["high"] < 0)
