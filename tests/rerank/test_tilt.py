"""Tilt against every exponent at which a list can change, and its targets against plain loops."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rerank_oracle import Made, make

from recbole_fair.rerank.base import lists_at
from recbole_fair.rerank.lorenz import Lorenz
from recbole_fair.rerank.lorenz_tilt import LorenzTilt
from recbole_fair.rerank.tilt import Tilt
from recbole_fair.rerank.tilting import MATCHES, best_of_each_popularity, solve_exponents

HALF = Tilt(pool=500, strength=0.5, match="mean", shrinkage=0.0)
BIAS = {
    "lambda_": 0.5, "welfare": "entropy", "alpha": 1.0, "sharpness": 1.0, "provider": "item", "exposure": "count",
    "target": "equal", "gamma": 0.5, "score": "raw", "rounds": 10, "step": "auto", "learn_on": "valid",
    "users": None,
}  # fmt: skip


def middle(values: list[float], match: str) -> float:
    return float(np.mean(values)) if match == "mean" else sorted(values)[(len(values) - 1) // 2]


def reachable(scores: np.ndarray, log_pop: np.ndarray, k: int, match: str) -> list[float]:
    """What the list can be like at any exponent: between all those at which two items change places."""
    crossings = {0.0}
    for i in range(len(scores)):
        for j in range(i):
            if log_pop[i] != log_pop[j]:
                crossings.add((scores[i] - scores[j]) / (log_pop[i] - log_pop[j]))
    ends = sorted(crossings)
    exponents = [ends[0] - 1, *((a + b) / 2 for a, b in itertools.pairwise(ends)), ends[-1] + 1]
    return [middle(log_pop[np.argsort(-(scores - a * log_pop))[:k]].tolist(), match) for a in exponents if abs(a) < 32]


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(3, 12), k=st.integers(1, 4), aim=st.floats(-0.5, 6.0))
def test_no_exponent_comes_nearer_to_the_target(seed: int, n: int, k: int, aim: float) -> None:
    rng = np.random.default_rng(seed)
    k = min(k, n)
    scores, log_pop = rng.normal(0, 1, n), np.log(rng.integers(1, 200, n).astype(float))
    found = solve_exponents(
        torch.from_numpy(scores)[None], torch.from_numpy(log_pop)[None], torch.tensor([aim], dtype=torch.double), k
    )
    best = np.argsort(-(scores - float(found) * log_pop))[:k]
    nearest = min(abs(value - aim) for value in reachable(scores, log_pop, k, "mean"))
    assert abs(log_pop[best].mean() - aim) <= nearest + 1e-9


def test_a_list_between_those_of_the_ends_is_found_among_three_items() -> None:
    """The first item is left out up to an exponent of 0.1, the second up to 0.2, then the third."""
    scores, log_pop = torch.tensor([[0.0, 0.2, 0.8]]).double(), torch.tensor([[1.0, 3.0, 6.0]]).double()
    found = solve_exponents(scores, log_pop, torch.tensor([3.4]).double(), 2)
    assert 0.1 < float(found) < 0.2


def test_users_are_solved_for_one_by_one() -> None:
    """A user's exponent is the same alone and among others, whichever way round the target lies."""
    rng = np.random.default_rng(0)
    scores, log_pop = torch.from_numpy(rng.normal(0, 1, (40, 60))), torch.from_numpy(rng.uniform(0, 7, (40, 60)))
    target = torch.from_numpy(rng.uniform(1, 6, 40))
    target[3], scores[5, 20:] = math.nan, -math.inf
    together = solve_exponents(scores, log_pop, target, 10)
    one_by_one = [slice(u, u + 1) for u in range(40)]
    alone = torch.cat([solve_exponents(scores[u], log_pop[u], target[u], 10) for u in one_by_one])
    assert torch.equal(together, alone)
    assert together[3] == 0
    assert (together > 0).any()
    assert (together < 0).any()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), n_counts=st.integers(1, 30), k=st.integers(1, 12), match=st.sampled_from(MATCHES))
def test_the_best_of_each_popularity_are_enough(seed: int, n_counts: int, k: int, match: str) -> None:
    """The lists under any exponent, and under the ones solved for, are those of the whole catalogue."""
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.normal(0, 1, (20, 80)))
    scores[:5, rng.permutation(80)[:60]] = -math.inf
    counts = torch.from_numpy(rng.integers(1, 1 + n_counts, 80)).double().log()
    columns = best_of_each_popularity(scores, counts, k)
    few, log_pop = scores.gather(1, columns), counts[columns]
    for exponent in (-3.0, -0.2, 0.0, 0.7, 9.0):
        best = (few - exponent * log_pop).topk(k, dim=1).indices
        wanted = (scores - exponent * counts).topk(k, dim=1)
        assert torch.equal(few.gather(1, best), scores.gather(1, wanted.indices))
    target = torch.from_numpy(rng.uniform(0, 4, 20))
    found = solve_exponents(few, log_pop, target, k, match)
    of_all = solve_exponents(scores, counts.expand(20, -1), target, k, match)
    listed = [
        values.topk(k, dim=1).indices
        for values in (few - found.unsqueeze(1) * log_pop, few - of_all.unsqueeze(1) * log_pop)
    ]
    assert torch.equal(few.gather(1, listed[0]), few.gather(1, listed[1]))
    assert columns.shape[1] <= min(80, k * n_counts)


@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("match", ["mean", "median"])
def test_lists_are_as_popular_as_they_should_be(strength: float, match: str) -> None:
    made = many()
    tilt = replace(HALF, strength=strength, match=match)
    lists = tilt.rerank(made.candidates, made.facts, 10)
    overall = np.mean([math.log(max(made.counts[i], 1)) for past in made.histories for i in past])
    missed = []
    for row, user in enumerate(made.candidates.users.tolist()):
        own = [math.log(max(made.counts[i], 1)) for i in made.facts.histories.of(user)]
        past = middle(own, match) if own else overall
        base = middle([math.log(max(made.counts[i], 1)) for i in made.candidates.items[row, :10].tolist()], match)
        now = middle([math.log(max(made.counts[i], 1)) for i in lists.items[row].tolist()], match)
        missed.append(abs(now - (base + strength * (past - base))))
    # One swap of ten items moves a mean by a tenth of the difference of two; a median jumps further.
    assert np.mean(missed) < (0.08 if match == "mean" else 0.2)
    assert np.max(missed) < (0.35 if match == "mean" else 1.5)


def many() -> Made:
    made = make(150, 400, 400, 3, short=False, n_interactions=6000)
    rng = np.random.default_rng(1)
    liked = np.log(np.maximum(made.counts[1:], 1)) * 2.0 + rng.gumbel(0, 1, (150, 400))
    order = np.argsort(-liked, axis=1)
    candidates = replace(
        made.candidates,
        items=torch.from_numpy(order + 1),
        scores=torch.from_numpy(np.take_along_axis(liked, order, axis=1)),
    )
    return replace(made, candidates=candidates)


def test_strength_0_is_the_model_itself() -> None:
    made = many()
    none = replace(HALF, strength=0.0)
    lists = none.rerank(made.candidates, made.facts, 10)
    assert torch.equal(lists.items, made.candidates.items[:, :10])
    assert torch.equal(lists.scores, made.candidates.scores[:, :10])
    scores = torch.randn(3, 401)
    offsets = none.learn(made.candidates, made.facts, 10)
    assert none.adjusted(scores, torch.tensor([1, 2, 3]), made.facts, 10, offsets) is scores


def test_shrinkage_and_users_whom_training_has_not_seen() -> None:
    made = many()
    facts, log_pop = made.facts, [math.log(max(c, 1)) for c in made.counts]
    overall = float(np.mean([log_pop[i] for past in made.histories for i in past]))
    users = torch.tensor([150, 3, 3, 7])  # the first has no history
    for match in ("mean", "median"):
        found = facts.history_popularity(users, match, 2.5).tolist()
        for user, value in zip(users.tolist(), found, strict=True):
            past = [log_pop[i] for i in facts.histories.of(user)]
            center = middle(past, match) if past else 0.0
            expected = (len(past) * center + 2.5 * overall) / (len(past) + 2.5)
            assert value == pytest.approx(expected)
    assert facts.history_popularity(users)[0].item() == pytest.approx(overall)


def test_scores_of_all_items_give_the_lists_of_a_pool_that_is_large_enough() -> None:
    made = many()
    scores = torch.full((150, 401), -torch.inf, dtype=torch.double)
    scores.scatter_(1, made.candidates.items, made.candidates.scores)
    scores[4, 200:] = -torch.inf  # may not be shown
    whole = replace(HALF, pool=400)
    few = replace(HALF, pool=30)
    offsets = HALF.learn(made.candidates, made.facts, 10)
    lists = [
        t.adjusted(scores, made.candidates.users, made.facts, 10, offsets).topk(10, dim=1).indices for t in (whole, few)
    ]
    best = replace(made.candidates, items=made.candidates.items[:, :30], scores=made.candidates.scores[:, :30])
    certain = few.ranked(best, made.facts, 10, offsets).certain
    assert 0 < int(certain.sum()) < 150
    # Whoever is not certain among 30 is solved for among all.
    assert torch.equal(lists[0][~certain], lists[1][~certain])
    ours = whole.rerank(made.candidates, made.facts, 10).items
    rows = torch.arange(150) != 4
    assert torch.equal(lists[0][rows], ours[rows])


@pytest.mark.parametrize("tilt", [HALF, LorenzTilt(pool=500, strength=0.5, match="mean", shrinkage=0.0, **BIAS)])
def test_the_best_of_all_items_are_those_of_all_adjusted_scores(tilt: Tilt | LorenzTilt) -> None:
    """For users whom a pool does not settle, without all the scores."""
    made = many()
    scores = torch.full((150, 401), -math.inf, dtype=torch.double)
    scores.scatter_(1, made.candidates.items, made.candidates.scores.double())
    offsets = tilt.learn(made.candidates, made.facts, 10)
    wanted = tilt.adjusted(scores, made.candidates.users, made.facts, 10, offsets).topk(10, dim=1).indices
    assert torch.equal(tilt.best_of_all(scores, made.candidates.users, made.facts, 10, offsets), wanted)
    assert not torch.equal(wanted, made.candidates.items[:, :10])


def test_lorenz_and_tilt_are_the_ends_of_the_two_together() -> None:
    made = many()
    both = LorenzTilt(pool=500, strength=0.5, match="mean", shrinkage=0.0, **BIAS)

    def lists(reranker: Lorenz | Tilt | LorenzTilt) -> torch.Tensor:
        return reranker.rerank(made.candidates, made.facts, 10).items

    assert torch.equal(lists(replace(both, strength=0.0)), lists(Lorenz(pool=500, **BIAS)))
    assert torch.equal(lists(replace(both, lambda_=0.0)), lists(HALF))
    assert not torch.equal(lists(both), lists(HALF))
    assert torch.equal(lists(replace(both, lambda_=0.0, strength=0.0)), made.candidates.items[:, :10])


def test_together_lists_keep_the_user_s_popularity_and_even_exposure_out() -> None:
    from recbole_fair.evaluator.functional.exposure import gini, item_counts

    made = many()
    both = LorenzTilt(pool=500, strength=1.0, match="mean", shrinkage=0.0, **{**BIAS, "lambda_": 1.5})
    offsets = both.learn(made.candidates, made.facts, 10)
    assert offsets.report["residual"] < 0.35 * offsets.report["residuals"][0]
    found = lists_at(made.candidates, both.ranked(made.candidates, made.facts, 10, offsets).places, 10).items
    alone = replace(HALF, strength=1.0).rerank(made.candidates, made.facts, 10).items
    ginis = [float(gini(item_counts(items, 401))) for items in (made.candidates.items[:, :10], alone, found)]
    assert ginis[2] < min(ginis[:2]) - 0.01
    log_pop = made.facts.popularity.log_counts
    wanted = made.facts.history_popularity(made.candidates.users)
    missed = [(log_pop[items].mean(1) - wanted).abs().mean() for items in (made.candidates.items[:, :10], found)]
    assert missed[1] < 0.2 * missed[0]
