"""An evaluation with all metrics over a large catalogue, against the bare products and top-k.

    python benchmarks/large_catalogue.py --items 100000 --users 20000
    python benchmarks/large_catalogue.py --items 1000000 --users 100000 --rows 4096

A split model with random vectors stands for any: every user has one held-out item and a training history, and lists are
masked, collected, and measured by every metric of the package that needs no further columns. ``--rows`` scores and
collects only so many users and scales both sides' times up; the metrics are then computed on lists of all users. The
bare side multiplies batches of the same size and takes ``torch.topk``.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from typing import Any

import numpy as np
import torch

from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.interactions import Interactions
from recbole_fair.data.facts.popularity import Popularity
from recbole_fair.evaluator.collector import are_among
from recbole_fair.evaluator.functional.best import best_of_rows
from recbole_fair.evaluator.inputs import EvalInputs
from recbole_fair.evaluator.metrics import values_of
from recbole_fair.evaluator.options import MetricOptions
from recbole_fair.evaluator.specs import GROUPS, SPECS
from recbole_fair.trainer.scorer import mask_seen


def memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def histories(n_users: int, n_items: int, length: int) -> Interactions:
    """Interactions with a long tail, in order of users."""
    rng = np.random.default_rng(0)
    item = 1 + (n_items * rng.random(n_users * length) ** 3).astype(np.int64)
    user = np.repeat(np.arange(1, n_users + 1), length)
    return Interactions(user, item, np.arange(len(item), dtype=np.float64), n_users + 1, n_items + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--rows", type=int, help="users that are scored; all when left out")
    parser.add_argument("--length", type=int, default=30, help="items of a history")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--megabytes", type=int, default=256, help="eval_memory_mb")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    inter = histories(args.users, args.items, args.length)
    seen = Histories.from_interactions(inter)
    items = torch.randn(args.items + 1, args.size)
    held_out = torch.randint(1, args.items + 1, (args.users,))
    rows = min(args.rows or args.users, args.users)
    step = max(1, args.megabytes * 2**20 // (4 * 2 * (args.items + 1)))
    users = torch.randn(rows, args.size)
    before = memory_mb()
    ours, lists, hits = timed(lambda: evaluated(users, items, held_out, seen, step, args.k))
    ours *= args.users / rows
    metrics, _ = timed(lambda: measured(inter, seen, lists, hits, held_out, args))
    peak = memory_mb()
    bare, _ = timed(lambda: bare_lists(users, items, step, args.k))
    bare *= args.users / rows
    scaled = "" if rows == args.users else f" (scaled up from {rows} users)"
    print(
        f"{args.items} items, {args.users} users, batches of {step}: scores, masks and lists {ours:.1f} s, metrics "
        f"{metrics:.1f} s, bare products and top-k {bare:.1f} s{scaled}: {(ours + metrics) / bare:.2f} times; peak "
        f"{peak:.0f} MB, {before:.0f} of them before the evaluation"
    )


def timed(work: Any) -> Any:
    start = time.perf_counter()
    found = work()
    seconds = time.perf_counter() - start
    return (seconds, *found) if isinstance(found, tuple) else (seconds, found)


def evaluated(
    users: torch.Tensor, items: torch.Tensor, held_out: torch.Tensor, seen: Histories, step: int, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lists and hits, as the trainer and the collector make them."""
    lists, hits = [], []
    for start in range(0, len(users), step):
        batch = users[start : start + step]
        scores = batch @ items.t()
        scores[:, 0] = -torch.inf
        row, own = torch.arange(len(batch)), held_out[start : start + len(batch)]
        ids = torch.arange(start + 1, start + len(batch) + 1)
        mask_seen(scores, seen, ids, row, own)
        values, best = best_of_rows(scores, k)
        assert bool((values[:, 0] < torch.inf).all())
        keys = torch.unique(row * len(items) + own)
        lists.append(best)
        hits.append(are_among(keys, row.unsqueeze(1) * len(items) + best))
    return torch.cat(lists), torch.cat(hits)


def bare_lists(users: torch.Tensor, items: torch.Tensor, step: int, k: int) -> int:
    for start in range(0, len(users), step):
        torch.topk(users[start : start + step] @ items.t(), k, dim=1)
    return len(users)


def measured(
    inter: Interactions, seen: Histories, lists: torch.Tensor, hits: torch.Tensor, held_out: torch.Tensor, args: Any
) -> int:
    """Every metric that needs lists, popularity and histories, of all users."""
    times = -(-args.users // len(lists))
    options = MetricOptions(metrics=(), topk=(args.k,))
    inputs = EvalInputs(
        items=lists.repeat(times, 1)[: args.users],
        hits=hits.repeat(times, 1)[: args.users],
        n_positives=torch.ones(args.users, dtype=torch.long),
        users=torch.arange(1, args.users + 1),
        positives=(torch.arange(args.users + 1), held_out),
        n_items=args.items + 1,
        options=options,
        popularity=Popularity.from_interactions(inter),
        histories=seen,
    )
    wanted = [spec for spec in SPECS if GROUPS not in spec.needs]
    for spec in wanted:
        values_of(spec, inputs)
    return len(wanted)


if __name__ == "__main__":
    main()
