"""Every metric again, as loops over users and items in plain Python, to compare the package against.

Nothing here uses the package: a case is plain lists, and each function follows the definition word by word.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from fractions import Fraction


@dataclass
class Case:
    n_items: int  # with the padding id 0
    interactions: list[tuple[int, int]]  # (user, item), in order of time
    n_users: int  # with the padding id 0
    users: list[int]  # one a list
    lists: list[list[int]]  # ragged, best first
    positives: list[set[int]]
    kmax: int
    topk: list[int]
    genres: list[list[str]]  # of each item id

    def history(self, user: int) -> list[int]:
        return [i for u, i in self.interactions if u == user]

    def counts(self) -> list[int]:
        counts = [0] * self.n_items
        for _, item in self.interactions:
            counts[item] += 1
        return counts


def random_case(seed: int, kmax: int = 8, topk: tuple[int, ...] = (1, 3, 8)) -> Case:
    rng = random.Random(seed)
    n_items, n_users = rng.randint(22, 45), rng.randint(6, 15)
    interactions = []
    for _ in range(rng.randint(60, 200)):
        user = rng.randint(1, n_users - 2)  # the last user has no history
        interactions.append((user, 1 + int(rng.expovariate(0.08)) % (n_items - 3)))  # ties, repeats, unseen items
    users = [u for u in range(1, n_users)]
    rng.shuffle(users)
    lists = [rng.sample(range(1, n_items), kmax) for _ in users]
    lists[0] = lists[0][: kmax - 3]  # candidates ran out
    positives = [set(rng.sample(range(1, n_items), rng.randint(1, 12))) for _ in users]
    names = ["a", "b", "c", "d"]
    genres = [[]] + [rng.sample(names, rng.choice([0, 1, 1, 2, 3])) for _ in range(n_items - 1)]
    return Case(n_items, interactions, n_users, users, lists, positives, kmax, list(topk), genres)


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def mean_of_users(values: list[float | None]) -> float:
    return mean([v for v in values if v is not None])


# -- accuracy ---------------------------------------------------------------------------------------------------


def recall(ranked: list[int], positives: set[int], k: int) -> float:
    return len([i for i in ranked[:k] if i in positives]) / len(positives)


def precision(ranked: list[int], positives: set[int], k: int) -> float:
    return len([i for i in ranked[:k] if i in positives]) / k


def hit(ranked: list[int], positives: set[int], k: int) -> float:
    return float(any(i in positives for i in ranked[:k]))


def mrr(ranked: list[int], positives: set[int], k: int) -> float:
    for rank, item in enumerate(ranked[:k], start=1):
        if item in positives:
            return 1 / rank
    return 0.0


def average_precision(ranked: list[int], positives: set[int], k: int) -> float:
    total, found = 0.0, 0
    for rank, item in enumerate(ranked[:k], start=1):
        if item in positives:
            found += 1
            total += found / rank
    return total / min(k, len(positives))


def ndcg(ranked: list[int], positives: set[int], k: int) -> float | None:
    if not positives:
        return None
    gained = sum(1 / math.log2(rank + 1) for rank, item in enumerate(ranked[:k], start=1) if item in positives)
    return gained / sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(positives)) + 1))


# -- segments ---------------------------------------------------------------------------------------------------


def segments(counts: list[int], head_share: float = 0.2, tail_share: float = 0.2) -> list[str]:
    """Head and tail by share of interactions."""
    items = list(range(1, len(counts)))
    total = sum(counts)
    label = ["mid"] * len(counts)
    running = Fraction(0)
    for item in sorted(items, key=lambda i: (-counts[i], i)):
        if running < Fraction(head_share).limit_denominator(1000) * total:
            label[item] = "head"
        running += counts[item]
    running = Fraction(0)
    for item in sorted([i for i in items if label[i] != "head"], key=lambda i: (counts[i], i)):
        if running < Fraction(tail_share).limit_denominator(1000) * total or counts[item] == 0:
            label[item] = "tail"
        running += counts[item]
    label[0] = "pad"
    return label


def shares(items: list[int], labels: list[str]) -> list[float]:
    return [len([i for i in items if labels[i] == s]) / len(items) for s in ("head", "mid", "tail")]


# -- exposure ---------------------------------------------------------------------------------------------------


def list_counts(case: Case, k: int) -> list[float]:
    """Counts of items 1 ... n."""
    counts = [0.0] * (case.n_items - 1)
    for ranked in case.lists:
        for item in ranked[:k]:
            counts[item - 1] += 1
    return counts


def list_exposure(case: Case, k: int) -> list[float]:
    exposure = [0.0] * (case.n_items - 1)
    for ranked in case.lists:
        for rank, item in enumerate(ranked[:k], start=1):
            exposure[item - 1] += 1 / math.log2(rank + 1)
    return exposure


def gini(values: list[float]) -> float:
    """Mean absolute difference over twice the mean: a different formula from the package's."""
    n, total = len(values), sum(values)
    return sum(abs(a - b) for a in values for b in values) / (2 * n * total)


def entropy(values: list[float]) -> float:
    total = sum(values)
    return -sum(v / total * math.log(v / total) for v in values if v > 0)


def herfindahl(values: list[float]) -> float:
    total = sum(values)
    return sum((v / total) ** 2 for v in values)


# -- alignment --------------------------------------------------------------------------------------------------


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def js(p: list[float], q: list[float], base: float = 2.0) -> float:
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return (kl(p, middle) + kl(q, middle)) / 2 / math.log(base)


def tau_hat(ranked: list[int], history: list[int], counts: list[int], tau: Fraction) -> float:
    """Share of the history at or below ``inf{s: tau <= F(s)}``."""
    n = len(ranked)
    threshold = None
    for s in sorted(counts[i] for i in ranked):
        at_most = len([i for i in ranked if counts[i] <= s])
        if tau <= Fraction(at_most, n):
            threshold = s
            break
    return len([i for i in history if counts[i] <= threshold]) / len(history)


def pce(ranked: list[int], history: list[int], counts: list[int], m: int = 11) -> float:
    taus = [Fraction(j, m - 1) for j in range(m)]
    return sum((float(t) - tau_hat(ranked, history, counts, t)) ** 2 for t in taus) / m


def genre_shares(items: list[int], genres: list[list[str]]) -> dict[str, float] | None:
    shares: dict[str, float] = {}
    with_genre = [i for i in items if genres[i]]
    if not with_genre:
        return None
    for item in with_genre:
        for genre in genres[item]:
            shares[genre] = shares.get(genre, 0.0) + 1 / len(genres[item]) / len(with_genre)
    return shares


def ckl(ranked: list[int], history: list[int], genres: list[list[str]], a: float = 0.01) -> float | None:
    p, q = genre_shares(history, genres), genre_shares(ranked, genres)
    if p is None or q is None:
        return None
    return sum(pg * math.log(pg / ((1 - a) * q.get(g, 0.0) + a * pg)) for g, pg in p.items())


def jaccard_to_others(case: Case, user: int) -> float:
    """Mean Jaccard similarity of a user's item set to those of all other users with a history."""
    mine = set(case.history(user))
    others = [u for u in range(1, case.n_users) if u != user and case.history(u)]
    return mean([len(mine & set(case.history(o))) / len(mine | set(case.history(o))) for o in others])


def concept_of(case: Case) -> str:
    return sorted({g for genres in case.genres for g in genres})[0]


def has_concept(item: int, case: Case) -> float:
    return float(concept_of(case) in case.genres[item])


# -- all metrics of a case ---------------------------------------------------------------------------------------


def taste_labels(case: Case, labels: list[str]) -> dict[int, str]:
    known = [u for u in case.users if case.history(u)]
    ranked = sorted(known, key=lambda u: shares(case.history(u), labels)[0])  # stable: ties keep the order of the rows
    low, high = math.floor(0.2 * len(known) + 0.5), math.floor(0.8 * len(known) + 0.5)
    return {u: "niche" if r < low else "diverse" if r < high else "blockbuster" for r, u in enumerate(ranked)}


def taste_fifths(case: Case, labels: list[str]) -> dict[int, str]:
    known = [u for u in case.users if case.history(u)]
    ranked = sorted(known, key=lambda u: shares(case.history(u), labels)[0])
    cuts = [math.floor(part * len(known) / 5 + 0.5) for part in range(1, 5)]
    return {u: str(sum(r >= cut for cut in cuts)) for r, u in enumerate(ranked)}


def all_metrics(
    case: Case, coverage_counts: tuple[int, ...] = (1, 2), upd_groups: bool = False, upd_fifths: bool = False
) -> dict[str, float]:
    counts = case.counts()
    labels = segments(counts)
    found: dict[str, float] = {}
    rows = list(zip(case.users, case.lists, case.positives, strict=True))
    for k in case.topk:
        accuracy = {
            "recall": recall, "precision": precision, "hit": hit, "mrr": mrr, "map": average_precision, "ndcg": ndcg,
        }  # fmt: skip
        for name, function in accuracy.items():
            found[f"{name}@{k}"] = mean([function(ranked, positives, k) for _, ranked, positives in rows])
        for label in ("head", "mid", "tail"):
            found[f"ndcg{label}@{k}"] = mean_of_users(
                [ndcg(ranked, {i for i in positives if labels[i] == label}, k) for _, ranked, positives in rows]
            )
            only = [[i if labels[i] == label else 0 for i in ranked] for _, ranked, _ in rows]  # others are no hits
            parts = [ndcg(listed, positives, k) for listed, (_, _, positives) in zip(only, rows, strict=True)]
            found[f"ndcgfrom{label}@{k}"] = mean(parts)
        shown, exposure = list_counts(case, k), list_exposure(case, k)
        for count in coverage_counts:
            suffix = "" if count == 1 else f"_min{count}"
            found[f"itemcoverage{suffix}@{k}"] = len([c for c in shown if c >= count]) / (case.n_items - 1)
        found[f"aggregatediversity@{k}"] = len({i for ranked in case.lists for i in ranked[:k]})
        found[f"giniindex@{k}"] = gini(shown)
        found[f"exposuregini@{k}"] = gini(exposure)
        found[f"shannonentropy@{k}"] = entropy(shown)
        found[f"herfindahlindex@{k}"] = herfindahl(shown)
        places = [i for ranked in case.lists for i in ranked[:k]]
        found[f"averagepopularity@{k}"] = mean([counts[i] for i in places])
        found[f"averagelogpopularity@{k}"] = mean([math.log(max(counts[i], 1)) for i in places])
        found[f"tailpercentage@{k}"] = mean([float(labels[i] == "tail") for i in places])
        lift, log_difference, upd, error, genre = [], [], [], [], []
        taste: dict[str, list[float]] = {}
        groups = taste_fifths(case, labels) if upd_fifths else taste_labels(case, labels)
        for user, ranked, _ in rows:
            history = case.history(user)
            if not history:
                continue
            before, after = mean([counts[i] for i in history]), mean([counts[i] for i in ranked[:k]])
            lift.append((after - before) / before)
            log_difference.append(
                mean([math.log(max(counts[i], 1)) for i in ranked[:k]]) - mean([math.log(counts[i]) for i in history])
            )
            upd.append(js(shares(history, labels), shares(ranked[:k], labels)))
            taste.setdefault(groups[user], []).append(upd[-1])
            error.append(pce(ranked[:k], history, counts))
            genre.append(ckl(ranked[:k], history, case.genres))
        found[f"popularitylift@{k}"] = mean(lift)
        found[f"logpopularitydifference@{k}"] = mean(log_difference)
        found[f"upd@{k}"] = mean([mean(v) for v in taste.values()]) if upd_groups or upd_fifths else mean(upd)
        found[f"pce@{k}"] = mean(error)
        found[f"pcesum@{k}"] = 11 * mean(error)
        found[f"ckl@{k}"] = mean_of_users(genre)
        found[f"conceptshare@{k}"] = mean([has_concept(i, case) for i in places])
        found[f"conceptgap@{k}"] = mean(
            [
                abs(mean([has_concept(i, case) for i in ranked[:k]]) - mean([has_concept(i, case) for i in history]))
                for user, ranked, _ in rows
                if (history := case.history(user))
            ]
        )
    return found
