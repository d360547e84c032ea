"""Each re-ranker against a plain loop over users, at several strengths, on short and long candidate lists."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rerank_oracle as oracle
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rerank_oracle import Made, lists_of, make

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.facts.popularity import HEAD, TAIL, select_head_tail
from recbole_fair.errors import FairError
from recbole_fair.rerank import Candidates, ReRanker
from recbole_fair.rerank.calibration import Calibration
from recbole_fair.rerank.cp import CP, jensen_shannon
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
from recbole_fair.rerank.settings import make_reranker

K = 10
MADE = make()
BASE = [items[:K] for items in MADE.items]
AS_THEY_ARE: dict[str, ReRanker] = {
    "IPR": IPR(0.0),
    "PP": PP(0.0, "minmax"),
    "Random": Random(K, "score", 1),
    "RandomNeighbors": RandomNeighbors(0.0, "score", 1),
    "FAstarIR": FAstarIR(0.0, 0.1, "exact"),
    "PMMF": PMMF(0.0, "group", "minmax", False, 1),
    "CP": CP(0.0, "minmax"),
    "Calibration": Calibration(0.0, "sigmoid", 0.01),
    "Diversity": Diversity(0.0, 5),
    "FairCo": FairCo(0.0, "group", "raw"),
    "PUFR": PUFR(0.0, ["a"]),
}
STRONG: dict[str, ReRanker] = {
    "IPR": IPR(1.0),
    "PP": PP(0.7, "minmax"),
    "Random": Random(25, "random", 1),
    "RandomNeighbors": RandomNeighbors(1.0, "random", 1),
    "FAstarIR": FAstarIR(0.8, 0.1, "exact"),
    "PMMF": PMMF(0.3, "item", "minmax", True, 1),
    "PCT": PCT("equal", 0.5, "segments", "auto"),
    "DUOR": DUOR(0.2, "items", None, "soft"),
    "CP": CP(0.9, "minmax"),
    "Calibration": Calibration(0.9, "sigmoid", 0.01),
    "Diversity": Diversity(0.5, 3),
    "FairCo": FairCo(50.0, "genre", "raw"),
    "PUFR": PUFR(5.0, ["a"]),
}


def run(reranker: ReRanker, made: Made = MADE, k: int = K) -> list[list[int]]:
    made.facts.deviation = torch.linspace(0, 1, made.facts.n_items, dtype=torch.double)
    return lists_of(reranker.rerank(made.candidates, made.facts, k))


@pytest.mark.parametrize("name", AS_THEY_ARE)
def test_strength_0_leaves_the_ranking_as_it_is(name: str) -> None:
    assert run(AS_THEY_ARE[name]) == BASE


@pytest.mark.parametrize("reranker", [*STRONG.values(), Random(25, "score", 1)], ids=repr)
def test_a_reranker_says_whether_short_lists_are_the_beginnings_of_long_ones(reranker: ReRanker) -> None:
    if isinstance(reranker, FAstarIR):  # its table of 10 is the beginning of another one of 100
        assert not reranker.builds_in_order
        long, short = (minimum_protected(k, 0.6, 0.1, "exact")[0] for k in (100, K))
        assert long[:K] != short
        return
    first, longer = (run(reranker, k=k) for k in (4, K))
    assert (first == [items[:4] for items in longer]) == reranker.builds_in_order


@pytest.mark.parametrize("name", STRONG)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 12), n_candidates=st.integers(1, 25))
def test_lists_hold_distinct_candidates_and_end_only_where_these_run_out(
    name: str, seed: int, k: int, n_candidates: int
) -> None:
    made = make(25, 40, n_candidates, seed)
    reranker = STRONG[name]
    if name == "Diversity":
        reranker = replace(reranker, pool_factor=1)  # type: ignore[type-var]
    lists = reranker.rerank(made.candidates, with_deviation(made), k)
    assert lists.items.shape == lists.scores.shape == (25, k)
    for row, (listed, scores, own) in enumerate(
        zip(lists.items.tolist(), lists.scores.tolist(), made.items, strict=True)
    ):
        shown = [i for i in listed if i]
        assert listed[: len(shown)] == shown  # nothing after the end
        assert len(shown) == min(k, len(own))
        assert len(set(shown)) == len(shown)
        assert set(shown) <= set(own)
        assert scores[: len(shown)] == [made.scores[row][own.index(i)] for i in shown]
        assert all(s == -np.inf for s in scores[len(shown) :])


def with_deviation(made: Made) -> oracle.Facts:
    made.facts.deviation = torch.linspace(0, 1, made.facts.n_items, dtype=torch.double)
    return made.facts


@pytest.mark.parametrize("alpha", [0.1, 1.0, 5.0])
def test_ipr(alpha: float) -> None:
    assert any(s < 0 for s in MADE.scores[-1])
    assert run(IPR(alpha)) == oracle.ipr(MADE, K, alpha)


def test_ipr_lowers_a_popular_item_whatever_the_sign_of_its_score() -> None:
    made = make(5, 30, 3, short=False)
    popular = int(made.facts.popularity.counts.argmax())
    rare = [i for i in range(1, 31) if made.counts[i] < made.counts[popular] / 2][:2]
    for scores in ([2.0, 1.9, -1.0], [-1.0, -1.1, -5.0]):
        candidates = Candidates(torch.tensor([[popular, *rare]]), torch.tensor([scores]), torch.tensor([1]))
        lists = IPR(1.0).rerank(candidates, made.facts, 2)
        assert lists.items.tolist() == [[rare[0], popular]]


@pytest.mark.parametrize("alpha", [0.3, 0.9, 1.0])
def test_pp(alpha: float) -> None:
    assert run(PP(alpha, "minmax")) == oracle.pp(MADE, K, alpha)


def test_pp_at_1_ranks_by_own_counts_and_then_by_the_model() -> None:
    for past, items, listed in zip(MADE.histories, MADE.items, run(PP(1.0, "raw")), strict=True):
        assert listed == sorted(items, key=lambda i: (-past.count(i), items.index(i)))[:K]


def test_pp_needs_seen_items() -> None:
    facts = replace(MADE.facts, masks_seen=True)
    with pytest.raises(FairError, match="mask_seen=none"):
        PP(0.5, "minmax").rerank(MADE.candidates, facts, K)


def test_random_draws_every_pool_item_equally_often() -> None:
    made = make(3000, 40, 30, short=False)
    lists = Random(20, "random", 3).rerank(made.candidates, made.facts, 5)
    counts = np.bincount(lists.places.ravel().numpy(), minlength=30)
    assert counts[20:].sum() == 0
    # 15,000 draws over 20 places: 750 each, standard deviation 27 or less; position by position as well.
    assert np.abs(counts[:20] - 750).max() < 110
    assert abs(lists.places[:, 0].double().mean() - 9.5) < 0.5
    again = Random(20, "random", 3).rerank(made.candidates, made.facts, 5)
    assert torch.equal(lists.items, again.items)
    other = Random(20, "random", 4).rerank(made.candidates, made.facts, 5)
    assert not torch.equal(lists.items, other.items)


def test_random_in_the_models_order() -> None:
    lists = Random(20, "score", 3).rerank(MADE.candidates, MADE.facts, 5)
    full = lists.places[(lists.places >= 0).all(1)]
    assert bool((full.diff(dim=1) > 0).all())


def test_random_needs_a_pool() -> None:
    with pytest.raises(FairError, match="reranker_pool=5"):
        Random(5, "random", 0).rerank(MADE.candidates, MADE.facts, 10)


@pytest.mark.parametrize(("alpha", "pool"), [(0.0, 10), (0.1, 11), (0.55, 16), (1.0, 20)])
def test_random_neighbours_come_from_the_nearest(alpha: float, pool: int) -> None:
    made = make(500, 40, 30, short=False)
    places = RandomNeighbors(alpha, "random", 0).rerank(made.candidates, made.facts, K).places
    assert places.max() == pool - 1
    assert len(places.unique()) == pool
    assert not torch.equal(places, places.sort(1).values)


@pytest.mark.parametrize("p", [0.4, 0.6, 1.0])
@pytest.mark.parametrize("correction", ["exact", "sidak", "none"])
def test_fa_star_ir_merges_as_two_lists_would(p: float, correction: str) -> None:
    table, _ = minimum_protected(K, p, 0.1, correction)
    assert run(FAstarIR(p, 0.1, correction)) == oracle.fa_star_ir(MADE, K, table)


@pytest.mark.parametrize("lam", [0.2, 0.6, 0.95, 1.0])
def test_cp(lam: float) -> None:
    assert run(CP(lam, "minmax")) == oracle.cp(MADE, K, lam)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=4))
def test_jensen_shannon(pairs: list[tuple[int, int]]) -> None:
    p, q = (np.array(column, dtype=float) + (0 if sum(column) else 1) for column in zip(*pairs, strict=True))
    p, q = p / p.sum(), q / q.sum()
    found = float(jensen_shannon(torch.from_numpy(p), torch.from_numpy(q)))
    assert found == pytest.approx(oracle.jsd(p.tolist(), q.tolist()), abs=1e-12)


def test_users_without_a_history_have_everybodys_whoever_else_is_asked_about() -> None:
    made = make(20, 40, 30, seed=3, short=False)
    weights = one_hot(made.facts.segments, 3)
    users = made.candidates.users
    stranger = max(
        range(made.facts.histories.n_users), key=lambda u: len(made.facts.histories.rows(np.array([u])).items) == 0
    )
    assert len(made.facts.histories.rows(np.array([stranger])).items) == 0
    everybody = np.bincount([made.segments[i] for i in made.facts.histories.items], minlength=3)
    alone = made.facts.history_shares(torch.tensor([stranger]), weights)[0]
    beside = made.facts.history_shares(torch.cat([torch.tensor([stranger]), users[:3]]), weights)[0]
    np.testing.assert_allclose(alone, everybody / everybody.sum())
    assert torch.equal(alone, beside)


def test_cp_at_1_matches_the_history_as_well_as_ten_items_can() -> None:
    """Every split of ten items over three segments is tried: none is closer, where all segments have enough items."""
    made = make(40, 90, 80, seed=2, short=False)
    wanted = made.facts.history_shares(made.candidates.users, one_hot(made.facts.segments, 3))
    found = []
    for listed, target, items in zip(run(CP(1.0, "minmax"), made), wanted.tolist(), made.items, strict=True):
        room = np.bincount([made.segments[i] for i in items], minlength=3)
        splits = [(a, b, 10 - a - b) for a in range(11) for b in range(11 - a)]
        best = min(oracle.jsd(target, [n / 10 for n in s]) for s in splits if all(np.array(s) <= room))
        mine = np.bincount([made.segments[i] for i in listed], minlength=3) / 10
        found.append(oracle.jsd(target, mine.tolist()) - best)
    assert np.mean(found) < 0.01  # greedy, so not always the very best


@pytest.mark.parametrize(("share", "by"), [(0.2, "items"), (0.8, "interactions"), (0.2, "interactions")])
@pytest.mark.parametrize("last", [None, 4])
def test_duor(share: float, by: str, last: int | None) -> None:
    popular = set(select_head_tail(MADE.facts.popularity.counts, share, 1 - share, by)[0].tolist())
    assert run(DUOR(share, by, last, "soft")) == oracle.duor(MADE, K, popular, last)
    forced = run(DUOR(share, by, last, "hard"))
    assert forced == oracle.duor_hard(MADE, K, popular, last)
    assert forced != run(DUOR(share, by, last, "soft"))


def provider_weights(provider: str) -> list[list[float]]:
    n = MADE.facts.n_items
    by_item = one_hot(torch.arange(n), n)[:, 1:]
    return {"group": one_hot(MADE.facts.segments, 3).tolist(), "genre": MADE.genres, "item": by_item.tolist()}[provider]


@pytest.mark.parametrize("provider", ["group", "item", "genre"])
@pytest.mark.parametrize(
    ("lam", "score", "hard"), [(0.05, "minmax", False), (0.5, "sigmoid", True), (2, "minmax", True)]
)
def test_pmmf(provider: str, lam: float, score: str, hard: bool) -> None:
    order = np.random.default_rng(7).permutation(len(MADE.items)).tolist()
    expected = oracle.pmmf(MADE, K, lam, provider_weights(provider), score, hard, order)
    assert run(PMMF(lam, provider, score, hard, 7)) == expected


@pytest.mark.parametrize("provider", ["group", "item"])
def test_pmmf_keeps_hard_budgets(provider: str) -> None:
    """The model offers everybody the most popular items: without budgets the same ten are shown to all."""
    made = make(200, 60, 60)
    order = made.facts.popularity.counts[1:].argsort(descending=True, stable=True) + 1
    candidates = Candidates(order.expand(200, 60), torch.linspace(4, -1, 60).expand(200, 60), made.candidates.users)
    weights = one_hot(torch.arange(61), 61) if provider == "item" else one_hot(made.facts.segments, 3)
    weights = weights[1:, 1:] if provider == "item" else weights[1:]
    budget = 200 * K * (1 + 1 / weights.shape[1]) * weights.sum(0) / 60
    exposure = {}
    for hard in (False, True):
        lists = PMMF(0.0, provider, "minmax", hard, 0).rerank(candidates, made.facts, K)
        exposure[hard] = weights.T @ torch.bincount(lists.items.ravel(), minlength=61)[1:].double()
    # Budgets are checked between users: one more list may run over.
    assert bool((exposure[True] <= budget + (1 if provider == "item" else K)).all())
    assert (
        exposure[False].max() > 2 * budget.max() if provider == "item" else bool((exposure[False] > budget + K).any())
    )


def test_pmmf_raises_the_exposure_of_the_worst_off() -> None:
    made = make(300, 60, 40, short=False)
    least = []
    for lam in (0.0, 0.02, 0.2):
        counts = np.bincount(np.ravel(run(PMMF(lam, "item", "minmax", False, 0), made)), minlength=61)[1:]
        least.append(np.sort(counts)[:10].sum())
    assert least[0] < least[1] < least[2]


@pytest.mark.parametrize("lam", [0.05, 0.3, 0.9])
def test_calibration(lam: float) -> None:
    assert run(Calibration(lam, "sigmoid", 0.01)) == oracle.calibration(MADE, K, lam, 0.01)


@pytest.mark.parametrize(
    ("model", "scale"), [("BPR", "minmax"), ("SASRec", "minmax"), ("FM", "raw"), ("DecFM", "sigmoid")]
)
def test_calibration_takes_probabilities_where_scores_are_some(model: str, scale: str) -> None:
    settings = {"reranker": "Calibration", "group_field": "class", "data_path": "data"}
    made = make_reranker(FairConfig(model, "ml-100k", config_dict=settings))
    assert isinstance(made, Calibration)
    assert made.score == scale
    given = make_reranker(FairConfig(model, "ml-100k", config_dict={**settings, "reranker_score": "raw"}))
    assert isinstance(given, Calibration)
    assert given.score == "raw"


def test_calibration_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(Calibration(0.5, "sigmoid", 0.01)), run(Diversity(0.3, 3))
    monkeypatch.setattr("recbole_fair.rerank.calibration._CELLS", 700)
    monkeypatch.setattr("recbole_fair.rerank.diversity._CELLS", 2000)
    assert (run(Calibration(0.5, "sigmoid", 0.01)), run(Diversity(0.3, 3))) == whole


@pytest.mark.parametrize(("theta", "factor"), [(0.1, 5), (0.4, 2), (1.0, 3)])
def test_diversity(theta: float, factor: int) -> None:
    assert run(Diversity(theta, factor), k=6) == oracle.diversity(MADE, 6, theta, factor)


@pytest.mark.parametrize("provider", ["group", "genre", "item"])
@pytest.mark.parametrize("lam", [1.0, 30.0])
def test_fairco(provider: str, lam: float) -> None:
    assert run(FairCo(lam, provider, "raw")) == oracle.fairco(MADE, K, lam, provider_weights(provider))


def test_pufr_moves_head_down_and_tail_up() -> None:
    deviation = torch.rand(MADE.facts.n_items, generator=torch.Generator().manual_seed(0)).double()
    facts = replace(MADE.facts, deviation=deviation)
    lists = lists_of(PUFR(2.0, ["a"]).rerank(MADE.candidates, facts, K))
    sign = {HEAD: -1, TAIL: 1}
    for items, scores, listed in zip(MADE.items, MADE.scores, lists, strict=True):
        moved = [
            s + 2.0 * sign.get(MADE.segments[i], 0) * float(deviation[i]) for i, s in zip(items, scores, strict=True)
        ]
        assert listed == oracle.by_value(items, moved, K)


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: IPR(-0.1), "reranker_alpha=-0.1 is not allowed for IPR"),
        (lambda: PP(1.5, "minmax"), "reranker_alpha=1.5 is not allowed for PP"),
        (lambda: FAstarIR(0.5, 1.0, "exact"), "reranker_alpha=1.0 is not allowed for FAstarIR"),
        (lambda: CP(1.1, "raw"), "reranker_lambda=1.1"),
        (lambda: PMMF(0.1, "group", "logit", False, 0), "reranker_score='logit'"),
        (lambda: PUFR(1.0, None).files, "reranker_models"),
    ],
)
def test_settings_out_of_range_are_named(make_it, message: str) -> None:
    with pytest.raises(FairError, match=message):
        make_it()


def test_a_reranker_that_repeats_an_item_is_found_out() -> None:
    class Repeats(ReRanker):
        def places(self, candidates: Candidates, facts: oracle.Facts, k: int) -> torch.Tensor:
            return torch.zeros(len(candidates.items), k, dtype=torch.long)

    with pytest.raises(ValueError, match="twice"):
        Repeats().rerank(MADE.candidates, MADE.facts, 3)
