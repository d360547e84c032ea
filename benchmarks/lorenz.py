"""Biases of Lorenz for a large catalogue: seconds, memory, and how even the lists get.

    python benchmarks/lorenz.py                              # a million items, 100,000 users, 64 dimensions
    python benchmarks/lorenz.py --items 20000 --users 5000   # a quick look
    python benchmarks/lorenz.py --learn-on 20000             # learn on fewer users, look at all of them

User and item vectors are drawn at random; items have a long-tailed length, so that some are good for many users. The
steps are those of a real model's: the best items of every user, the equilibrium, the lists. Processor seconds count
all threads.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.interactions import Interactions
from recbole_fair.data.facts.popularity import Popularity
from recbole_fair.evaluator.functional.exposure import coverage, gini, item_counts
from recbole_fair.rerank import Candidates, Facts
from recbole_fair.rerank.base import lists_at
from recbole_fair.rerank.best_items import best_items
from recbole_fair.rerank.lorenz import Lorenz

T = TypeVar("T")


def timed(title: str, work: Callable[[], T]) -> T:
    """Do some work and print what it took."""
    start, spent = time.perf_counter(), time.process_time()
    result = work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{title}: {time.perf_counter() - start:.1f} s, {time.process_time() - spent:.1f} processor s, "
        f"peak so far {peak:.2f} GB",
        flush=True,
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=64, help="dimensions of the vectors")
    parser.add_argument("--pool", type=int, default=200, help="best items of each user")
    parser.add_argument("--learn-on", type=int, help="users to learn on; all if left out")
    parser.add_argument("--strength", type=float, default=0.5, help="lambda, in scores")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    n, k = options.items + 1, 10
    users = torch.randn(options.users, options.size, generator=generator)
    items = torch.randn(n, options.size, generator=generator) / options.size**0.5
    items *= 1 + 0.5 * torch.empty(n, 1).exponential_(1.0, generator=generator)
    none = Interactions(torch.zeros(0).long().numpy(), torch.zeros(0).long().numpy(), None, options.users + 1, n)
    facts = Facts(Popularity.from_interactions(none), Histories.from_interactions(none))
    pool = timed(f"the {options.pool} best of {options.items:,} items for {options.users:,} users",
                 lambda: best_items(users, items, options.pool))  # fmt: skip
    lorenz = Lorenz(
        pool=options.pool, lambda_=options.strength, welfare="entropy", alpha=1.0, sharpness=1.0, provider="item",
        exposure="count", target="equal", gamma=0.5, score="raw", rounds=None, step="auto", learn_on="valid",
        users=options.learn_on,
    )  # fmt: skip
    offsets = timed("biases at equilibrium", lambda: lorenz.learn(pool, facts, k))
    ranked = timed("lists", lambda: lorenz.ranked(pool, facts, k, offsets))
    report = offsets.report
    print(f"{report['rounds']} rounds, residual {report['residual']:.2g}, largest bias {report['largest_bias']:.2f}; "
          f"{float(ranked.certain.double().mean()):.2%} of the lists certain out of the pool")  # fmt: skip
    before = Candidates(pool.items[:, :k], pool.scores[:, :k], pool.users)
    for title, lists in (("before", before.items), ("after", lists_at(pool, ranked.places, k).items)):
        counts = item_counts(lists, n)
        print(f"{title}: Gini {float(gini(counts)):.4f}, coverage {float(coverage(counts)):.4f}")


if __name__ == "__main__":
    main()
