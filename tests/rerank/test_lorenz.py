"""Lorenz against the definitions of its welfares, the best of all possible lists, and its own symmetries."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rerank_oracle import Made, make

from recbole_fair.data.facts.groups import ItemGroups
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.interactions import Interactions
from recbole_fair.data.facts.popularity import Popularity
from recbole_fair.evaluator.functional.exposure import gini, item_counts
from recbole_fair.rerank import Candidates, Facts
from recbole_fair.rerank.adjuster import best_columns, spread_of
from recbole_fair.rerank.base import lists_at
from recbole_fair.rerank.equilibrium import SMALL_STEPS, Welfare, find_equilibrium
from recbole_fair.rerank.lorenz import Lorenz
from recbole_fair.runs.adjusting import learning_notes

WELFARES = [
    Welfare("entropy"), Welfare("alpha", alpha=0.5), Welfare("alpha", alpha=1.0), Welfare("alpha", alpha=3.0),
    Welfare("maxmin", sharpness=2.0), Welfare("gini"),
]  # fmt: skip
PLAIN = Lorenz(
    pool=500, lambda_=0.5, welfare="entropy", alpha=1.0, sharpness=1.0, provider="item", exposure="count",
    target="equal", gamma=0.5, score="raw", rounds=40, step="auto", learn_on="valid", users=None,
)  # fmt: skip


def by_hand(welfare: Welfare, c: list[float], d: list[float]) -> float:
    """W from its definition, one item after the other."""
    x, total = [ci / di for ci, di in zip(c, d, strict=True)], sum(d)
    if welfare.kind == "entropy":
        return sum(di * (xi - (1 + xi) * math.log(1 + xi)) for xi, di in zip(x, d, strict=True))
    if welfare.kind == "alpha":
        a = welfare.alpha
        one = (lambda y: math.log(1 + y)) if a == 1 else (lambda y: ((1 + y) ** (1 - a) - 1) / (1 - a))
        return sum(di * one(xi) for xi, di in zip(x, d, strict=True))
    if welfare.kind == "maxmin":
        s = welfare.sharpness
        return -total / s * math.log(sum(di / total * math.exp(-s * xi) for xi, di in zip(x, d, strict=True)))
    return sum(
        ci * (1 - sum(dj * ((xj < xi) + 0.5 * (xj == xi)) for xj, dj in zip(x, d, strict=True)) / total)
        for ci, xi in zip(c, x, strict=True)
    )


@pytest.mark.parametrize("welfare", WELFARES, ids=repr)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 9))
def test_a_welfare_is_its_definition_and_its_gradient_the_derivative(welfare: Welfare, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    c, d = rng.uniform(0.1, 5, n), rng.uniform(0.3, 2, n)
    exposure, due = torch.from_numpy(c), torch.from_numpy(d)
    assert welfare.value(exposure, due) == pytest.approx(by_hand(welfare, c.tolist(), d.tolist()), rel=1e-9)
    gradient = welfare.gradient(exposure, due)
    for i in range(n):
        up, down = c.copy(), c.copy()
        up[i] += 1e-6
        down[i] -= 1e-6
        slope = (by_hand(welfare, up.tolist(), d.tolist()) - by_hand(welfare, down.tolist(), d.tolist())) / 2e-6
        assert float(gradient[i]) == pytest.approx(slope, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("welfare", WELFARES, ids=repr)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_welfare_is_concave_and_best_where_everybody_has_what_is_due(welfare: Welfare, seed: int) -> None:
    rng = np.random.default_rng(seed)
    due = torch.from_numpy(rng.uniform(0.3, 2, 6))
    one, other = (torch.from_numpy(rng.dirichlet(np.ones(6))) * due.sum() for _ in range(2))
    middle = welfare.value((one + other) / 2, due)
    assert middle >= (welfare.value(one, due) + welfare.value(other, due)) / 2 - 1e-9
    assert welfare.value(due, due) >= welfare.value(one, due) - 1e-9


def test_the_gini_welfare_is_the_gini_index() -> None:
    counts = torch.tensor([0, 3, 3, 1, 9, 0])
    due = torch.full((6,), counts.double().mean())
    assert Welfare("gini").value(counts.double(), due) == pytest.approx(float(counts.sum() * (1 - gini(counts)) / 2))


# -- against all possible lists ----------------------------------------------------------------------------------------


def tiny(seed: int, n_users: int = 4, n_items: int = 5) -> tuple[Candidates, Facts]:
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.normal(0, 1, (n_users, n_items)), axis=1)[:, ::-1].copy()
    items = np.argsort(rng.random((n_users, n_items)), axis=1) + 1
    candidates = Candidates(torch.from_numpy(items), torch.from_numpy(scores), torch.arange(1, n_users + 1))
    inter = Interactions(np.array([1, 2]), np.array([1, 2]), None, n_users + 1, n_items + 1)
    popularity = Popularity.from_interactions(inter)
    return candidates, Facts(popularity, Histories.from_interactions(inter))


def best_of_all(welfare: Welfare, strength: float, scores: torch.Tensor, k: int) -> float:
    """The largest sum of scores plus strength times welfare that any lists of k items can have."""
    n_users, n = scores.shape
    rows = list(itertools.combinations(range(n), k))
    values = [[sum(float(scores[u, i]) for i in row) for row in rows] for u in range(n_users)]
    best_by_counts: dict[tuple[int, ...], float] = {(0,) * n: 0.0}
    for u in range(n_users):
        after: dict[tuple[int, ...], float] = {}
        for counts, so_far in best_by_counts.items():
            for row, value in zip(rows, values[u], strict=True):
                new = tuple(c + (i in row) for i, c in enumerate(counts))
                after[new] = max(after.get(new, -math.inf), so_far + value)
        best_by_counts = after
    due = [n_users * k / n] * n
    return max(
        total + strength * by_hand(welfare, [float(c) for c in counts], due) for counts, total in best_by_counts.items()
    )


@pytest.mark.parametrize("welfare", WELFARES, ids=repr)
@pytest.mark.parametrize("step", ["damped", "auto"])
def test_lists_are_near_the_best_of_all_lists(welfare: Welfare, step: str) -> None:
    k, gaps, base_gaps = 2, [], []
    for seed, strength in zip(range(24), itertools.cycle((0.2, 0.5, 1.0, 2.0)), strict=False):
        candidates, facts = tiny(seed)
        n_users, n = candidates.items.shape
        scores = torch.zeros(n_users, n, dtype=torch.double).scatter_(1, candidates.items - 1, candidates.scores)
        lorenz = replace(
            PLAIN, lambda_=strength, welfare=welfare.kind, alpha=welfare.alpha, sharpness=welfare.sharpness, step=step
        )
        due = torch.full((n,), n_users * k / n, dtype=torch.double)
        offsets = lorenz.learn(candidates, facts, k)

        def objective(items: torch.Tensor) -> float:
            c = item_counts(items, n + 1).double().tolist()  # noqa: B023
            total = float(scores.gather(1, items - 1).sum())  # noqa: B023
            return total + strength * by_hand(welfare, c, due.tolist())  # noqa: B023

        found = lists_at(candidates, lorenz.ranked(candidates, facts, k, offsets).places, k).items
        ours, best = objective(found), best_of_all(welfare, strength, scores, k)
        # Concavity bounds from above what any lists can reach, by those that the biases ask for.
        c = item_counts(found, n + 1).double()
        gradient = welfare.gradient(c, due)
        top = float((scores + strength * gradient).topk(k, dim=1).values.sum())
        bound = top + strength * (welfare.value(c, due) - float(gradient @ c))
        assert ours <= best + 1e-9 <= bound + 2e-9
        gaps.append((best - ours) / strength)
        base_gaps.append((best - objective(candidates.items[:, :k])) / strength)
    # Whole lists of four users cannot be mixed; what is left is small against what the biases gain.
    assert np.mean(gaps) < (0.05 if welfare.kind == "entropy" else 0.6) * np.mean(base_gaps)


def test_with_probabilities_lists_are_near_the_best_of_all_lists_by_expected_hits() -> None:
    """Scores of any size a user: what counts is ``exp(score - log_total)``, whatever else the total stands for."""
    k, gaps, base_gaps = 2, [], []
    for seed, strength in zip(range(24), itertools.cycle((0.02, 0.05, 0.1, 0.2)), strict=False):
        candidates, facts = tiny(seed)
        scores = 3 * candidates.scores + torch.tensor([[5.0], [0.0], [-7.0], [1.0]], dtype=torch.double)
        elsewhere = torch.tensor([1.2, 1.0, 3.0, 1.5], dtype=torch.double).log()
        candidates = replace(candidates, scores=scores, log_total=scores.logsumexp(1) + elsewhere)
        n_users, n = candidates.items.shape
        shares = (scores - scores.logsumexp(1, keepdim=True)).exp() / elsewhere.exp().unsqueeze(1)
        worth = torch.zeros(n_users, n, dtype=torch.double).scatter_(1, candidates.items - 1, shares)
        lorenz = replace(PLAIN, lambda_=strength, score="softmax")
        offsets = lorenz.learn(candidates, facts, k)
        found = lists_at(candidates, lorenz.ranked(candidates, facts, k, offsets).places, k).items
        due = [n_users * k / n] * n

        def objective(items: torch.Tensor) -> float:
            c = item_counts(items, n + 1).double().tolist()  # noqa: B023
            total = float(worth.gather(1, items - 1).sum())  # noqa: B023
            return total + strength * by_hand(Welfare("entropy"), c, due)  # noqa: B023

        best = best_of_all(Welfare("entropy"), strength, worth, k)
        assert objective(found) <= best + 1e-6
        gaps.append((best - objective(found)) / strength)
        base_gaps.append((best - objective(candidates.items[:, :k])) / strength)
    assert np.mean(gaps) < 0.1 * np.mean(base_gaps)


@pytest.mark.parametrize("score", ["raw", "softmax"])
def test_a_strength_far_above_the_scale_of_scores_still_evens_exposure_out(score: str) -> None:
    made = crowd()
    candidates = replace(made.candidates, log_total=made.candidates.scores.logsumexp(1))
    far = replace(PLAIN, lambda_=1e6, score=score, rounds=None)
    offsets = far.learn(candidates, made.facts, 10)
    assert offsets.bias.max() > 0
    lists = lists_at(candidates, far.ranked(candidates, made.facts, 10, offsets).places, 10)
    base = float(gini(item_counts(candidates.items[:, :10], 81)))
    assert float(gini(item_counts(lists.items, 81))) < 0.7 * base


def test_where_no_bias_betters_the_lists_that_is_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists that any bias makes worse: all exposure goes to one item, at lower scores."""

    def worse(expose: object, welfare: Welfare, due: torch.Tensor, *rest: Any) -> Any:
        n, total = len(due), float(due.sum())

        def shown(bias: torch.Tensor) -> tuple[torch.Tensor, float]:
            if not bias.any():
                return torch.linspace(0.5, 1.5, n, dtype=torch.double) * total / n, 1.0
            return total * torch.eye(n, dtype=torch.double)[int(bias.argmin())], 0.0

        return find_equilibrium(shown, welfare, due, *rest)

    monkeypatch.setattr("recbole_fair.rerank.lorenz.find_equilibrium", worse)
    candidates, facts = tiny(0)
    offsets = replace(PLAIN, lambda_=1e4, rounds=15).learn(candidates, facts, 2)
    assert not offsets.bias.any()
    assert offsets.report["rounds"] == 15 + SMALL_STEPS
    assert "reranker_lambda=10000: no biases were found" in caplog.text
    assert "no biases were found" in learning_notes(PLAIN, offsets, True)[0]


def test_more_users_leave_a_smaller_gap_to_the_bound() -> None:
    """The gap between whole lists and the best mixture of lists, a user, as in the papers' theory."""
    welfare, gaps = Welfare("entropy"), []
    for n_users in (20, 200, 2000):
        candidates, facts = tiny(3, n_users, 12)
        offsets = PLAIN.learn(candidates, facts, 3)
        lists = lists_at(candidates, PLAIN.ranked(candidates, facts, 3, offsets).places, 3)
        scores = torch.zeros(n_users, 12, dtype=torch.double).scatter_(1, candidates.items - 1, candidates.scores)
        due = torch.full((12,), n_users * 3 / 12, dtype=torch.double)
        c = item_counts(lists.items, 13).double()
        gradient = welfare.gradient(c, due)
        bound = float((scores + 0.5 * gradient).topk(3, dim=1).values.sum())
        bound += 0.5 * (welfare.value(c, due) - float(gradient @ c))
        gaps.append((bound - float(lists.scores.sum()) - 0.5 * welfare.value(c, due)) / n_users)
    assert gaps[2] < 0.001
    assert gaps[2] < gaps[0] / 5


# -- symmetries and trade-off ------------------------------------------------------------------------------------------


def crowd(seed: int = 0, n_users: int = 300) -> Made:
    """Users who agree on what is good, so that exposure is uneven."""
    made = make(n_users, 80, 80, seed, short=False)
    rng = np.random.default_rng(seed)
    liked = rng.gumbel(0, 1, (n_users, 81)) + np.linspace(3, 0, 81)
    order = np.argsort(-liked[:, 1:], axis=1) + 1
    values = np.take_along_axis(liked, order, axis=1)
    candidates = Candidates(torch.from_numpy(order), torch.from_numpy(values), made.candidates.users)
    return replace(made, candidates=candidates)


def shown(lorenz: Lorenz, made: Made, k: int = 10) -> tuple[torch.Tensor, float]:
    lists = lorenz.rerank(made.candidates, made.facts, k)
    return item_counts(lists.items, made.facts.n_items), float(lists.scores.sum())


@pytest.mark.parametrize("welfare", ["entropy", "gini", "maxmin", "alpha"])
def test_more_strength_evens_exposure_out_and_costs_scores(welfare: str) -> None:
    made = crowd()
    ginis, scores = [], []
    for strength in (0.0, 0.5, 1.0, 2.0, 4.0):
        counts, total = shown(replace(PLAIN, lambda_=strength, welfare=welfare), made)
        ginis.append(float(gini(counts)))
        scores.append(total)
    assert all(b < a + 0.01 for a, b in itertools.pairwise(ginis))
    assert all(b < a + 0.0005 * scores[0] for a, b in itertools.pairwise(scores))
    assert ginis[-1] < 0.6 * ginis[0]
    assert scores[-1] < scores[0] - 50


def test_strength_0_learns_no_bias_and_changes_no_score() -> None:
    made = crowd()
    none = replace(PLAIN, lambda_=0.0)
    offsets = none.learn(made.candidates, made.facts, 10)
    assert not offsets.bias.any()
    scores = torch.randn(5, 81)
    assert none.adjusted(scores, torch.arange(1, 6), made.facts, 10, offsets) is scores
    lists = none.rerank(made.candidates, made.facts, 10)
    assert torch.equal(lists.items, made.candidates.items[:, :10])
    assert torch.equal(lists.scores, made.candidates.scores[:, :10])


@pytest.mark.parametrize("step", ["damped", "frank_wolfe"])
def test_renaming_items_renames_their_biases(step: str) -> None:
    made, lorenz = crowd(), replace(PLAIN, step=step, exposure="discounted")
    bias = lorenz.learn(made.candidates, made.facts, 10).bias
    name = torch.cat([torch.zeros(1, dtype=torch.long), torch.randperm(80) + 1])
    renamed = replace(made.candidates, items=name[made.candidates.items])
    again = lorenz.learn(renamed, made.facts, 10).bias
    torch.testing.assert_close(again[name], bias, rtol=0, atol=1e-9)
    assert len(bias.unique()) > 20


@pytest.mark.parametrize("step", ["damped", "frank_wolfe"])
def test_the_reported_residual_is_how_far_the_biases_are_from_their_own_lists(step: str) -> None:
    made, lorenz = crowd(n_users=2000), replace(PLAIN, step=step)
    offsets = lorenz.learn(made.candidates, made.facts, 10)
    lists = lists_at(made.candidates, lorenz.ranked(made.candidates, made.facts, 10, offsets).places, 10)
    counts = item_counts(lists.items, 81).double()
    wanted = 0.5 * (1 + counts / counts.mean()).log()
    wanted -= wanted.min()
    missed = (wanted - offsets.bias[1:]).abs()
    assert offsets.report["residual"] == pytest.approx(float(missed.mean()), abs=2e-3)
    assert offsets.report["residual"] < 0.02 * float(offsets.bias.max())
    assert offsets.report["residuals"][0] == pytest.approx(float((0.5 * _first(made)).mean()), rel=1e-6)
    assert offsets.report["welfare"][-1] > offsets.report["welfare"][0]


def _first(made: Made) -> torch.Tensor:
    counts = item_counts(made.candidates.items[:, :10], 81).double()
    worth = (1 + counts / counts.mean()).log()
    return worth - worth.min()


def test_swings_are_damped() -> None:
    """Two items and one place: whoever has the larger bias loses everything."""
    due = torch.tensor([50.0, 50.0], dtype=torch.double)

    def expose(bias: torch.Tensor) -> tuple[torch.Tensor, float]:
        first = float(bias[0] <= bias[1])
        return torch.tensor([100 * first, 100 - 100 * first], dtype=torch.double), 0.0

    found = find_equilibrium(expose, Welfare("entropy"), due, 1.0, 200, "damped")
    assert float(found.bias.max()) < 0.5 * math.log(3)
    assert found.rounds == 200


def test_a_bias_learnt_on_some_users_serves_others() -> None:
    made = crowd(n_users=2000)
    lorenz = replace(PLAIN, lambda_=1.5)
    half = Candidates(made.candidates.items[:1000], made.candidates.scores[:1000], made.candidates.users[:1000])
    rest = Candidates(made.candidates.items[1000:], made.candidates.scores[1000:], made.candidates.users[1000:])
    offsets = lorenz.learn(half, made.facts, 10)
    lists = lists_at(rest, lorenz.ranked(rest, made.facts, 10, offsets).places, 10)
    own, _ = shown(lorenz, replace(made, candidates=rest))
    base = gini(item_counts(rest.items[:, :10], 81))
    assert float(gini(item_counts(lists.items, 81))) == pytest.approx(float(gini(own)), abs=0.02)
    assert float(gini(own)) < float(base) - 0.1
    few = replace(lorenz, users=250).learn(half, made.facts, 10)
    assert few.report["users"] == 250
    assert float(np.corrcoef(few.bias[1:], offsets.bias[1:])[0, 1]) > 0.98


# -- providers, targets, scales ----------------------------------------------------------------------------------------


def test_providers_share_one_bias_and_approach_their_due() -> None:
    made = crowd()
    owner = torch.arange(81) % 4
    matrix = torch.nn.functional.one_hot(owner, 4).double()
    matrix[0] = 0
    matrix[1:20] = torch.tensor([0.0, 0.0, 0.0, 1.0])  # the well liked ones are of one provider
    from scipy import sparse

    made.facts.known_groups["maker"] = ItemGroups(sparse.csr_matrix(matrix.numpy()), tuple("abcd"), "maker")
    lorenz = replace(PLAIN, provider="maker", lambda_=8.0)
    bias = lorenz.learn(made.candidates, made.facts, 10).bias
    whose = matrix[1:].argmax(1)
    assert all(len(bias[1:][whose == g].unique()) == 1 for g in range(4))
    counts, _ = shown(lorenz, made)
    before = item_counts(made.candidates.items[:, :10], 81)
    due = matrix.sum(0) / 80
    shares = [(matrix[1:].T @ c.double()) / c.sum() for c in (before, counts)]
    assert float((shares[1] - due).abs().max()) < 0.3 * float((shares[0] - due).abs().max())


def test_dues_follow_popularity_or_merit() -> None:
    made, lorenz = crowd(n_users=2000), replace(PLAIN, lambda_=6.0)
    popularity = 1 + made.facts.popularity.counts[1:].double()
    for target, due in (("popularity", popularity**0.7), ("merit", _merit(made)), ("equal", torch.ones(80))):
        counts, _ = shown(replace(lorenz, target=target, gamma=0.7), made)
        shares, due = counts / counts.sum(), due / due.sum()
        before = item_counts(made.candidates.items[:, :10], 81).double()
        assert float((shares - due).abs().sum()) < 0.35 * float((before / before.sum() - due).abs().sum()), target


def _merit(made: Made) -> torch.Tensor:
    merit = torch.zeros(81, dtype=torch.double)
    for items, scores in zip(made.candidates.items, made.candidates.scores, strict=True):
        weights = scores.exp() / scores.exp().sum()
        for item, weight in zip(items.tolist(), weights.tolist(), strict=True):
            merit[item] += weight
    return merit[1:]


def test_the_logarithm_of_the_softmax_gives_the_lists_of_raw_scores() -> None:
    made = crowd()
    raw = PLAIN.rerank(made.candidates, made.facts, 10)
    logs = replace(made.candidates, scores=made.candidates.scores.log_softmax(1))
    again = replace(PLAIN, score="logsoftmax").rerank(logs, made.facts, 10)
    assert torch.equal(raw.items, again.items)


def test_standardised_scores_do_not_depend_on_a_user_s_scale() -> None:
    made, lorenz = crowd(), replace(PLAIN, score="standard")
    scale = torch.linspace(0.2, 5, 300, dtype=torch.double).unsqueeze(1)
    lists = []
    for scores in (made.candidates.scores, made.candidates.scores * scale - 3):
        candidates = replace(made.candidates, scores=scores, spread=spread_of(scores))
        lists.append(lorenz.rerank(candidates, made.facts, 10).items)
    assert torch.equal(*lists)
    assert float(spread_of(torch.tensor([[1.0, 3.0, -torch.inf]]))) == 1.0
    assert float(spread_of(torch.tensor([[2.0, 2.0]]))) == 1.0  # nothing to divide by


# -- a pool of the best items ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_a_list_that_is_certain_is_that_of_all_items(seed: int) -> None:
    made = crowd(seed)
    offsets = replace(PLAIN, lambda_=1.5).learn(made.candidates, made.facts, 10)
    whole = lists_at(made.candidates, PLAIN.ranked(made.candidates, made.facts, 10, offsets).places, 10).items
    few = replace(made.candidates, items=made.candidates.items[:, :15], scores=made.candidates.scores[:, :15])
    ranked = PLAIN.ranked(few, made.facts, 10, offsets)
    lists = lists_at(few, ranked.places, 10).items
    assert 0 < int(ranked.certain.sum()) < 300
    assert torch.equal(lists[ranked.certain], whole[ranked.certain])
    assert not torch.equal(lists, whole)


def test_adjusted_scores_of_all_items_rank_as_the_candidates_do() -> None:
    made = crowd()
    offsets = PLAIN.learn(made.candidates, made.facts, 10)
    scores = torch.full((300, 81), -torch.inf, dtype=torch.double)
    scores.scatter_(1, made.candidates.items, made.candidates.scores)
    adjusted = PLAIN.adjusted(scores, made.candidates.users, made.facts, 10, offsets)
    lists = lists_at(made.candidates, PLAIN.ranked(made.candidates, made.facts, 10, offsets).places, 10).items
    assert torch.equal(adjusted.topk(10, dim=1).indices, lists)
    assert (adjusted[:, 0] == -torch.inf).all()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 8), width=st.integers(1, 8))
def test_best_columns_are_those_of_a_stable_sort(seed: int, k: int, width: int) -> None:
    values = torch.from_numpy(np.random.default_rng(seed).integers(0, 4, (6, width)).astype(float))
    values[0] = -torch.inf
    expected = values.argsort(dim=1, descending=True, stable=True)[:, :k]
    assert torch.equal(best_columns(values, k), expected)
