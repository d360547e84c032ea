"""Seconds and memory of the evaluation after the lists exist, against RecBole's own metric classes.

    python benchmarks/evaluation.py                 # all metrics on 40,550 users x 31,095 items x K = 100
    python benchmarks/evaluation.py --recbole       # and RecBole's classes on the same lists
    python benchmarks/evaluation.py --bootstrap     # and 1,000 resamples of the list-level metrics at ml-1m's size
    python benchmarks/evaluation.py --mainstream ml-1m.inter   # and mainstreamness of the users of a data set

Lists and histories are drawn at random with a long-tailed popularity; every metric takes the time that its sizes make
it take, whatever model the lists come from.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.evaluator import metrics as recbole_metrics
from recbole.evaluator.collector import DataStruct
from scipy import sparse

from recbole_fair.data.facts.groups import ItemGroups, UserFacts, mainstream_scores
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.interactions import Interactions
from recbole_fair.data.facts.popularity import Popularity
from recbole_fair.evaluator.bootstrap import interval, per_item_resamples
from recbole_fair.evaluator.inputs import EvalInputs
from recbole_fair.evaluator.metrics import values_of
from recbole_fair.evaluator.options import MetricOptions
from recbole_fair.evaluator.specs import SPECS

SHARED = ("ItemCoverage", "GiniIndex", "ShannonEntropy", "AveragePopularity", "Recall", "MRR", "NDCG", "MAP")


def made_up(n_users: int, n_items: int, k: int, n_interactions: int, topk: tuple[int, ...]) -> EvalInputs:
    """Random lists and histories in which popularity falls off as a power law."""
    rng = np.random.default_rng(0)
    weights = np.arange(1, n_items + 1) ** -0.8
    item = rng.choice(n_items, n_interactions, p=weights / weights.sum()) + 1
    user = np.sort(rng.integers(1, n_users + 1, n_interactions))
    inter = Interactions(user, item.astype(np.int64), np.arange(n_interactions, dtype=float), n_users + 1, n_items + 1)
    start = rng.integers(0, n_items, (n_users, 1))
    step = rng.integers(1, 50, (n_users, 1))
    lists = (start + step * np.arange(k)) ** 2 % n_items + 1  # cheap, distinct enough, reaching all of the catalogue
    hits = rng.random((n_users, k)) < 0.02
    hits[:, 0] |= ~hits.any(1)
    row, rank = np.nonzero(hits)
    bounds = np.concatenate([[0], np.cumsum(hits.sum(1))])
    genres = sparse.random(n_items + 1, 19, density=0.1, random_state=0, format="csr")
    genres.data[:] = 1
    sizes = np.maximum(np.asarray(genres.sum(1)).ravel(), 1)
    groups = ItemGroups(sparse.diags(1 / sizes) @ genres, tuple(map(str, range(19))), "genre")
    histories = Histories.from_interactions(inter)
    return EvalInputs(
        items=torch.from_numpy(lists),
        hits=torch.from_numpy(hits),
        n_positives=torch.from_numpy(hits.sum(1)),
        users=torch.arange(1, n_users + 1),
        positives=(torch.from_numpy(bounds), torch.from_numpy(lists[row, rank])),
        n_items=n_items + 1,
        options=MetricOptions(topk=topk, coverage_min_count=(1, 5)),
        popularity=Popularity.from_interactions(inter),
        histories=histories,
        groups=groups,
        facts=UserFacts(histories, groups),
    )


def memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def ours(inputs: EvalInputs) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for spec in SPECS:
        start = time.perf_counter()
        values_of(spec, inputs)
        seconds[spec.name] = time.perf_counter() - start
    return seconds


def recboles(inputs: EvalInputs, names: tuple[str, ...]) -> dict[str, float]:
    for name, alias in {"float": np.float64, "bool": np.bool_, "int": np.int64}.items():
        setattr(np, name, alias)
    config: dict[str, Any] = {"topk": list(inputs.topk), "metric_decimal_place": 15, "tail_ratio": 0.1}
    struct = DataStruct()
    struct["rec.items"] = inputs.items
    struct["rec.topk"] = torch.cat([inputs.hits.long(), inputs.n_positives.unsqueeze(1)], dim=1)
    struct["data.num_items"] = inputs.n_items
    struct["data.count_items"] = Counter({i: c for i, c in enumerate(inputs.counts.tolist()) if c})
    seconds = {}
    for name in names:
        start = time.perf_counter()
        getattr(recbole_metrics, name)(config).calculate_metric(struct)
        seconds[name] = time.perf_counter() - start
    return seconds


def mainstream(file: str) -> None:
    """Time the mainstream scores of the users of an ``.inter`` file; first in a process, so that its peak shows."""
    ids = pd.read_csv(file, sep="\t", header=0, usecols=[0, 1], dtype=str)
    user, item = (pd.factorize(ids[name])[0].astype(np.int64) + 1 for name in ids)
    histories = Histories.from_interactions(Interactions(user, item, None, int(user.max()) + 1, int(item.max()) + 1))
    del ids
    before, start = memory_mb(), time.perf_counter()
    mainstream_scores(histories)
    took, more = time.perf_counter() - start, memory_mb() - before
    print(
        f"mainstream: {user.max()} users, {len(user)} interactions: {took:.1f} s, {more:.0f} MB beyond the input's peak"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=40_550)
    parser.add_argument("--items", type=int, default=31_095)
    parser.add_argument("--interactions", type=int, default=1_500_000)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--recbole", action="store_true", help="run RecBole's classes as well")
    parser.add_argument("--bootstrap", action="store_true", help="resample list-level metrics at ml-1m's size")
    parser.add_argument("--mainstream", metavar="FILE", help="an .inter file: time the mainstream scores of its users")
    args = parser.parse_args()

    if args.mainstream:
        mainstream(args.mainstream)
    inputs = made_up(args.users, args.items, args.k, args.interactions, (10, args.k))
    before = memory_mb()
    mine = ours(inputs)
    print(f"{args.users} users, {args.items} items, K = {args.k}, cutoffs {inputs.topk}")
    for name, seconds in mine.items():
        print(f"  {name:<26}{seconds:8.3f} s")
    total = sum(mine.values())
    print(f"  {'all ' + str(len(mine)):<26}{total:8.3f} s, peak memory {memory_mb():.0f} MB ({before:.0f} before)")
    if args.recbole:
        # TailPercentage looks every place up in a Python list: timed on a few users, its time is proportional to them.
        few = min(40, args.users)
        part = replace(inputs, items=inputs.items[:few], hits=inputs.hits[:few], n_positives=inputs.n_positives[:few])
        slow = recboles(part, ("TailPercentage",))["TailPercentage"] * args.users / few
        names = (*SHARED, "TailPercentage")
        theirs = {**recboles(inputs, SHARED), "TailPercentage": slow}
        print(f"RecBole's classes on the same lists (TailPercentage scaled up from {few} users)")
        for name in names:
            print(f"  {name:<26}{theirs[name]:8.3f} s   {theirs[name] / mine[name]:8.1f} times ours")
    if args.bootstrap:
        small = made_up(6_040, 3_416, args.k, 900_000, (10, args.k))
        start = time.perf_counter()
        resampled = per_item_resamples(small, list(SPECS), 1_000, 0)
        bounds = {key: interval(float(values.mean()), values) for key, values in resampled.items()}
        print(f"bootstrap: 1,000 resamples, {len(bounds)} list-level values: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
