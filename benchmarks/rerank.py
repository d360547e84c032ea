"""Processor seconds of every re-ranker at ml-1m's size, against a straightforward loop over users.

    python benchmarks/rerank.py                  # 6,040 users x 250 candidates, lists of 10
    python benchmarks/rerank.py --loop-users 50  # the loops run on so many users; their time is scaled to all of them

Candidates, scores and histories are drawn at random with a long-tailed popularity. Every re-ranker's lists are compared
with those of the loop on the loop's users, where a user's list does not depend on the other users.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import rerank_oracle as oracle

from recbole_fair.data.facts.popularity import TAIL, select_head_tail
from recbole_fair.rerank import Candidates
from recbole_fair.rerank.calibration import Calibration
from recbole_fair.rerank.cp import CP
from recbole_fair.rerank.diversity import Diversity
from recbole_fair.rerank.duor import DUOR
from recbole_fair.rerank.fa_star_ir import FAstarIR, minimum_protected
from recbole_fair.rerank.facts import one_hot
from recbole_fair.rerank.fairco import FairCo
from recbole_fair.rerank.ipr import IPR
from recbole_fair.rerank.pct import PCT
from recbole_fair.rerank.pmmf import PMMF
from recbole_fair.rerank.pp import PP
from recbole_fair.rerank.pufr import PUFR
from recbole_fair.rerank.random_items import Random
from recbole_fair.rerank.random_neighbors import RandomNeighbors

K = 10


def first(made: oracle.Made, n: int) -> oracle.Made:
    """The first n users, with the facts of all."""
    c = made.candidates
    part = Candidates(c.items[:n], c.scores[:n], c.users[:n])
    return replace(made, candidates=part, items=made.items[:n], scores=made.scores[:n], histories=made.histories[:n])


def random_loop(made: oracle.Made, pool: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.choice(items[:pool], K, replace=False).tolist() for items in made.items]


def pufr_loop(made: oracle.Made) -> list[list[int]]:
    sign, deviation = {0: -1, 2: 1}, made.facts.deviation.tolist()
    return [
        oracle.by_value(
            items,
            [s + 5.5 * sign.get(made.segments[i], 0) * deviation[i] for i, s in zip(items, scores, strict=True)],
            K,
        )
        for items, scores in zip(made.items, made.scores, strict=True)
    ]


def cases(made: oracle.Made) -> list[tuple[str, Any, Callable[[oracle.Made], Any], bool]]:
    """Name, re-ranker, loop, and whether the loop must give the same lists."""
    facts = made.facts
    popular = set(select_head_tail(facts.popularity.counts, 0.2, 0.8, "items")[0].tolist())
    table, _ = minimum_protected(K, 0.6, 0.1, "exact")
    segments = one_hot(facts.segments, 3).tolist()
    pct = PCT("equal", 0.5, "tail", "auto")

    def pct_loop(part: oracle.Made) -> list[list[int]]:
        targets, _ = pct.targets(made.candidates.users, facts)
        return oracle.pct(part, K, targets[: len(part.items)].numpy(), 0.5, lambda i: int(made.segments[i] == TAIL))

    def pmmf_loop(part: oracle.Made) -> list[list[int]]:
        return oracle.pmmf(part, K, 0.05, segments, "minmax", False, list(range(len(part.items))))

    return [
        ("IPR", IPR(0.4), lambda m: oracle.ipr(m, K, 0.4), True),
        ("PP", PP(0.4, "minmax"), lambda m: oracle.pp(m, K, 0.4), True),
        ("Random", Random(50, "random", 0), lambda m: random_loop(m, 50), False),
        ("RandomNeighbors", RandomNeighbors(0.5, "random", 0), lambda m: random_loop(m, 15), False),
        ("FAstarIR", FAstarIR(0.6, 0.1, "exact"), lambda m: oracle.fa_star_ir(m, K, table), True),
        ("CP", CP(0.5, "minmax"), lambda m: oracle.cp(m, K, 0.5), True),
        ("PCT, tail", pct, pct_loop, True),
        ("PCT, three segments", PCT("equal", 0.5, "segments", "auto"), pct_loop, False),
        ("DUOR", DUOR(0.2, "items", None, "soft"), lambda m: oracle.duor(m, K, popular), True),
        ("PMMF, group", PMMF(0.05, "group", "minmax", False, 0), pmmf_loop, False),
        ("PMMF, item", PMMF(0.05, "item", "minmax", False, 0), pmmf_loop, False),
        ("Calibration", Calibration(0.1, "sigmoid", 0.01), lambda m: oracle.calibration(m, K, 0.1, 0.01), True),
        ("Diversity", Diversity(0.1, 5), lambda m: oracle.diversity(m, K, 0.1, 5), True),
        ("FairCo", FairCo(0.1, "group", "raw"), lambda m: oracle.fairco(m, K, 0.1, segments), False),
        ("PUFR", PUFR(5.5, ["-"]), pufr_loop, True),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=6040)
    parser.add_argument("--items", type=int, default=3416)
    parser.add_argument("--candidates", type=int, default=250)
    parser.add_argument("--loop-users", type=int, default=60)
    args = parser.parse_args()
    made = oracle.make(args.users, args.items, args.candidates, short=False, n_interactions=165 * args.users)
    made.facts.deviation = torch.rand(made.facts.n_items, generator=torch.Generator().manual_seed(0)).double()
    part = first(made, args.loop_users)
    print(f"{args.users} users x {args.candidates} candidates, {torch.get_num_threads()} thread(s)")
    print(f"{'':22}{'seconds':>9}{'loop':>10}{'ratio':>8}  lists")
    for name, reranker, loop, comparable in cases(made):
        start = time.process_time()
        lists = reranker.rerank(made.candidates, made.facts, K)
        seconds = time.process_time() - start
        start = time.process_time()
        expected = loop(part)
        scaled = (time.process_time() - start) * args.users / args.loop_users
        same = ""
        if comparable:
            agree = np.mean([a == b for a, b in zip(oracle.lists_of(lists), expected, strict=False)])
            same = f"{agree:.0%} equal"
        print(f"{name:22}{seconds:9.2f}{scaled:10.1f}{scaled / seconds:8.0f}  {same}", flush=True)


if __name__ == "__main__":
    main()
