"""Re-rankers as plain loops over users and candidates, written from their definitions; and made-up evaluations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse

from recbole_fair.data.facts.groups import ItemGroups
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.interactions import Interactions
from recbole_fair.data.facts.popularity import Popularity
from recbole_fair.rerank import Candidates, Facts

HEAD, MID, TAIL = 0, 1, 2


@dataclass
class Made:
    """One user after the other: candidate items and scores (best first, no padding), and the history."""

    candidates: Candidates
    facts: Facts
    items: list[list[int]]
    scores: list[list[float]]
    histories: list[list[int]]
    counts: list[int]
    segments: list[int]
    genres: list[list[float]]


def make(
    n_users: int = 40,
    n_items: int = 60,
    n_candidates: int = 30,
    seed: int = 0,
    short: bool = True,
    n_interactions: int | None = None,
) -> Made:
    """Random candidates, scores from -1 on, and long-tailed histories; some rows are short, one user is new."""
    rng = np.random.default_rng(seed)
    weight = 1 / np.arange(1, n_items + 1) ** 0.7
    n_inter = n_interactions or n_users * 15
    user = np.sort(rng.integers(1, n_users, n_inter))  # the last user has no history
    item = rng.choice(n_items, n_inter, p=weight / weight.sum()) + 1
    inter = Interactions(user, item, np.arange(n_inter, dtype=float), n_users + 1, n_items + 1)
    histories = Histories.from_interactions(inter)
    popularity = Popularity.from_interactions(inter, 0.2, 0.2, "interactions")
    ids = np.argsort(rng.random((n_users, n_items)), axis=1)[:, :n_candidates] + 1
    scores = np.sort(rng.uniform(-1, 4, ids.shape).astype(np.float32), axis=1)[:, ::-1].copy()
    lengths = np.full(n_users, n_candidates)
    if short:
        lengths[: min(8, n_candidates)] = np.arange(min(8, n_candidates))
    there = np.arange(n_candidates) < lengths[:, None]
    ids, scores = np.where(there, ids, 0), np.where(there, scores, -np.inf)
    users = rng.permutation(n_users) + 1
    matrix = rng.random((n_items + 1, 5)) < 0.3
    matrix[0] = matrix[3] = False  # an item of no genre
    weights = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    groups = ItemGroups(sparse.csr_matrix(weights), tuple("abcde"), "genre")
    facts = Facts(popularity, histories, group_field="genre", known_groups={"genre": groups})
    candidates = Candidates(torch.from_numpy(ids), torch.from_numpy(scores), torch.from_numpy(users))
    return Made(
        candidates,
        facts,
        [row[row > 0].tolist() for row in ids],
        [row[row > -np.inf].astype(float).tolist() for row in scores],
        [histories.of(u).tolist() for u in users],
        popularity.counts.tolist(),
        popularity.segments.tolist(),
        weights.tolist(),
    )


def minmax(scores: list[float]) -> list[float]:
    if not scores:
        return []
    low, high = min(scores), max(scores)
    return [(s - low) / (high - low) if high > low else 0.0 for s in scores]


def sigmoid(s: float) -> float:
    return 1 / (1 + math.exp(-s))


def by_value(items: list[int], values: list[float], k: int) -> list[int]:
    order = sorted(range(len(items)), key=lambda c: (-values[c], c))
    return [items[c] for c in order[:k]]


def greedy(items: list[int], k: int, value: Callable[[list[int], int], float]) -> list[int]:
    """Add, k times, the candidate (a position) with the largest ``value(chosen, candidate)``, the first of equals."""
    chosen: list[int] = []
    while len(chosen) < min(k, len(items)):
        rest = [c for c in range(len(items)) if c not in chosen]
        values = {c: value(chosen, c) for c in rest}
        top = max(values.values())
        chosen.append(min(c for c in rest if values[c] >= top - 1e-12))
    return [items[c] for c in chosen]


def shares(history: list[int], group: Callable[[int], int], n: int, everyone: list[list[int]]) -> list[float]:
    bag = history or [item for past in everyone for item in past]
    found = Counter(group(item) for item in bag)
    return [found[g] / len(bag) for g in range(n)]


def ipr(made: Made, k: int, alpha: float) -> list[list[int]]:
    most = max(made.counts)
    out = []
    for items, scores in zip(made.items, made.scores, strict=True):
        factors = [1 + alpha * made.counts[i] / most for i in items]
        out.append(by_value(items, [s / f if s >= 0 else s * f for s, f in zip(scores, factors, strict=True)], k))
    return out


def pp(made: Made, k: int, alpha: float) -> list[list[int]]:
    out = []
    for items, scores, past in zip(made.items, made.scores, made.histories, strict=True):
        own = Counter(past)
        most = max(own.values(), default=1)
        mixed = [alpha * own[i] / most + (1 - alpha) * s for i, s in zip(items, minmax(scores), strict=True)]
        out.append(by_value(items, [round(m, 12) for m in mixed], k))
    return out


def fa_star_ir(made: Made, k: int, table: tuple[int, ...]) -> list[list[int]]:
    out = []
    for items in made.items:
        tail = [i for i in items if made.segments[i] == TAIL]
        rest = [i for i in items if made.segments[i] != TAIL]
        chosen: list[int] = []
        n_tail = 0
        for wanted in table[:k]:
            if not tail and not rest:
                break
            forced = n_tail < wanted and tail
            if tail and (forced or not rest or items.index(tail[0]) < items.index(rest[0])):
                chosen.append(tail.pop(0))
                n_tail += 1
            else:
                chosen.append(rest.pop(0))
        out.append(chosen)
    return out


def jsd(p: list[float], q: list[float]) -> float:
    total = 0.0
    for a, b in zip(p, q, strict=True):
        m = (a + b) / 2
        total += (a * math.log2(a / m) if a else 0) / 2 + (b * math.log2(b / m) if b else 0) / 2
    return total


def cp(made: Made, k: int, lam: float) -> list[list[int]]:
    out = []
    for items, scores, past in zip(made.items, made.scores, made.histories, strict=True):
        wanted = shares(past, made.segments.__getitem__, 3, made.histories)
        scaled = minmax(scores)

        def value(
            chosen: list[int],
            c: int,
            items: list[int] = items,
            wanted: list[float] = wanted,
            scaled: list[float] = scaled,
        ) -> float:
            found = Counter(made.segments[items[x]] for x in [*chosen, c])
            shown = [found[g] / (len(chosen) + 1) for g in range(3)]
            return (1 - lam) * sum(scaled[x] for x in [*chosen, c]) - lam * jsd(wanted, shown)

        out.append(greedy(items, k, value))
    return out


def duor(made: Made, k: int, popular: set[int], last: int | None = None) -> list[list[int]]:
    out = []
    everyone = [past[-last:] if last else past for past in made.histories]
    for items, scores, past in zip(made.items, made.scores, everyone, strict=True):
        wanted = shares(past, lambda i: int(i in popular), 2, everyone)[1]
        scaled = minmax(scores)

        def value(
            chosen: list[int], c: int, items: list[int] = items, wanted: float = wanted, scaled: list[float] = scaled
        ) -> float:
            delta = sum(items[x] in popular for x in chosen) / len(chosen) - wanted if chosen else 0.0
            return scaled[c] * (1 - delta if items[c] in popular else 1 + delta)

        out.append(greedy(items, k, value))
    return out


def duor_hard(made: Made, k: int, popular: set[int], last: int | None = None) -> list[list[int]]:
    """The class that is missing goes next while it lasts; the finished list is sorted by score."""
    out = []
    everyone = [past[-last:] if last else past for past in made.histories]
    for items, scores, past in zip(made.items, made.scores, everyone, strict=True):
        wanted = shares(past, lambda i: int(i in popular), 2, everyone)[1]
        left = sorted(zip(items, scores, strict=True), key=lambda pair: -pair[1])
        chosen: list[tuple[int, float]] = []
        while left and len(chosen) < k:
            delta = sum(item in popular for item, _ in chosen) / len(chosen) - wanted if chosen else 0.0
            fitting = [pair for pair in left if delta and (pair[0] in popular) == (delta < 0)] or left
            chosen.append(fitting[0])
            left.remove(fitting[0])
        out.append([item for item, _ in sorted(chosen, key=lambda pair: -pair[1])])
    return out


def pmmf(
    made: Made, k: int, lam: float, weights: list[list[float]], score: str, hard: bool, order: list[int]
) -> list[list[int]]:
    """``weights``: what part of each item id belongs to each provider."""
    n_items, t = len(made.counts) - 1, len(made.items)
    providers = range(len(weights[0]))
    size = [sum(row[g] for row in weights) for g in providers]
    rho = [(1 + 1 / len(providers)) * s / n_items for s in size]
    budget = [t * k * r for r in rho]
    out: list[list[int]] = [[] for _ in made.items]
    for u in order:
        items, scores = made.items[u], made.scores[u]
        scaled = minmax(scores) if score == "minmax" else [sigmoid(s) for s in scores]
        least = min(budget)
        values = []
        for i, s in zip(items, scaled, strict=True):
            x = s + sum(lam * weights[i][g] * (budget[g] - least) / (t * rho[g]) for g in providers)
            shut = hard and any(weights[i][g] > 0 and budget[g] <= 0 for g in providers)
            values.append(x - 1e4 if shut else x)
        chosen = by_value(items, [round(v, 9) for v in values], k)
        out[u] = sorted(chosen, key=items.index)
        for i in chosen:
            budget = [b - w for b, w in zip(budget, weights[i], strict=True)]
    return out


def pct(made: Made, k: int, targets: np.ndarray, lam: float, group: Callable[[int], int]) -> list[list[int]]:
    worth = [1 / math.log2(r + 1) for r in range(1, k + 1)]
    out = []
    for items, share in zip(made.items, targets, strict=True):
        target = share * sum(worth)
        exposure = np.zeros(len(share))
        places: list[int | None] = [None] * k
        for r in range(k):
            for c, item in enumerate(items):
                if c not in places and exposure[group(item)] + worth[r] <= target[group(item)] + 1e-9:
                    places[r] = c
                    exposure[group(item)] += worth[r]
                    break
        for r in range(k):
            rest = [c for c in range(len(items)) if c not in places]
            if places[r] is not None or not rest:
                continue
            first = {group(items[c]): c for c in reversed(rest)}
            values = {}
            for g, c in first.items():
                after = exposure.copy()
                after[g] += worth[r]
                values[c] = lam / (c + 1) - (1 - lam) * ((after - target) ** 2).sum() / 2
            best = min(values, key=lambda c: (-round(values[c], 12), c))
            places[r] = best
            exposure[group(items[best])] += worth[r]
        out.append([items[c] for c in places if c is not None])
    return out


def genre_mix(bag: list[int], genres: list[list[float]]) -> list[float]:
    sums = [sum(genres[i][g] for i in bag) for g in range(len(genres[0]))]
    total = sum(sums)
    return [s / total for s in sums] if total else sums


def calibration(made: Made, k: int, lam: float, smoothing: float) -> list[list[int]]:
    out = []
    for items, scores, past in zip(made.items, made.scores, made.histories, strict=True):
        wanted = genre_mix(past or [i for p in made.histories for i in p], made.genres)

        def value(
            chosen: list[int],
            c: int,
            items: list[int] = items,
            wanted: list[float] = wanted,
            scores: list[float] = scores,
        ) -> float:
            shown = genre_mix([items[x] for x in [*chosen, c]], made.genres)
            divergence = sum(
                p * math.log(p / ((1 - smoothing) * q + smoothing * p)) for p, q in zip(wanted, shown, strict=True) if p
            )
            return (1 - lam) * sum(sigmoid(scores[x]) for x in [*chosen, c]) - lam * divergence

        out.append(greedy(items, k, value))
    return out


def cosine(a: list[float], b: list[float]) -> float:
    norm = math.sqrt(sum(x * x for x in a) * sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norm if norm else 0.0


def diversity(made: Made, k: int, theta: float, factor: int) -> list[list[int]]:
    out = []
    for candidates in made.items:
        items = candidates[: factor * k]
        chosen: list[int] = []
        for place in range(min(k, len(items))):
            rest = [c for c in range(len(items)) if c not in chosen]
            like = {
                c: round(sum(cosine(made.genres[items[c]], made.genres[items[x]]) for x in chosen), 9) for c in rest
            }
            unlike = {c: rank for rank, c in enumerate(sorted(rest, key=lambda c: (like[c], c)))}
            merged = {c: (1 - theta) * c + theta * (unlike[c] if place else 0) for c in rest}
            chosen.append(min(rest, key=lambda c: (merged[c], c)))
        out.append([items[c] for c in chosen])
    return out


def fairco(made: Made, k: int, lam: float, weights: list[list[float]]) -> list[list[int]]:
    n = len(weights[0])
    exposure, relevance = [0.0] * n, [0.0] * n
    for items, scores in zip(made.items, made.scores, strict=True):
        for rank, (item, score) in enumerate(zip(items, scores, strict=True), 1):
            for g in range(n):
                exposure[g] += weights[item][g] / math.log2(1 + rank) if rank <= k else 0
                relevance[g] += weights[item][g] * sigmoid(score)
    ratio = [e / max(r, 1e-4) for e, r in zip(exposure, relevance, strict=True)]
    error = [max(ratio) - r for r in ratio]
    return [
        by_value(
            items,
            [
                s + lam * sum(w * e for w, e in zip(weights[i], error, strict=True))
                for i, s in zip(items, ss, strict=True)
            ],
            k,
        )
        for items, ss in zip(made.items, made.scores, strict=True)
    ]


def lists_of(result: Any) -> list[list[int]]:
    """Lists of a re-ranker without padding."""
    return [[i for i in row if i] for row in result.items.tolist()]
