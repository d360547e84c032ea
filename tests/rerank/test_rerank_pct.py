"""PCT: the users' targets, and the lists made for them."""

from __future__ import annotations

import numpy as np
import pytest
import rerank_oracle as oracle
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rerank_oracle import lists_of, make

from recbole_fair.data.facts.popularity import TAIL
from recbole_fair.rerank.pct import PCT, linear_programme_targets, proportional_targets

MADE = make()
SOLVERS = {"proportional": proportional_targets, "lp": linear_programme_targets}


@st.composite
def shares(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    n, q = draw(st.integers(1, 25)), draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    wanted = rng.dirichlet(np.full(q, draw(st.sampled_from([0.05, 0.5, 5]))), n)  # .05: users of one group alone
    system = np.eye(q)[0] if draw(st.booleans()) and draw(st.booleans()) else rng.dirichlet(np.ones(q))
    return torch.from_numpy(wanted), torch.from_numpy(system)


@pytest.mark.parametrize("solver", SOLVERS)
@settings(max_examples=20, deadline=None)
@given(case=shares())
def test_targets_are_distributions_that_add_up_to_the_systems_at_the_least_move(
    solver: str, case: tuple[torch.Tensor, torch.Tensor]
) -> None:
    wanted, system = case
    targets = SOLVERS[solver](wanted, system)
    assert bool((targets >= -1e-9).all())
    assert bool((targets <= 1 + 1e-9).all())
    np.testing.assert_allclose(targets.sum(1), 1.0, atol=1e-6)
    np.testing.assert_allclose(targets.mean(0), system, atol=1e-6)
    # No set of targets with that mean can move less in all: the mean's own move is a lower bound.
    moved = (targets - wanted).abs().sum()
    assert float(moved) == pytest.approx(float(len(wanted) * (system - wanted.mean(0)).abs().sum()), abs=1e-5)


@settings(max_examples=15, deadline=None)
@given(case=shares())
def test_the_linear_programme_moves_no_user_further_than_the_proportional_rule_does(
    case: tuple[torch.Tensor, torch.Tensor],
) -> None:
    furthest = [float((solve(*case) - case[0]).abs().sum(1).max()) for solve in SOLVERS.values()]
    assert furthest[1] <= furthest[0] + 1e-5


def test_two_groups_move_by_the_same_fraction_of_the_way() -> None:
    wanted = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.0, 1.0]]).double()
    targets = proportional_targets(wanted, torch.tensor([0.35, 0.65]).double())
    # The first group has 1.4 / 3 and shall have .35: every user gives a quarter of it.
    np.testing.assert_allclose(targets[:, 0], wanted[:, 0] * 0.75)


@pytest.mark.parametrize("groups", ["tail", "segments"])
@pytest.mark.parametrize("target", ["equal", "items", 0.4, 0.0])
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_lists_as_two_plain_passes_make_them(groups: str, target: float | str, lam: float) -> None:
    reranker = PCT(target, lam, groups, "auto")
    targets, system = reranker.targets(MADE.candidates.users, MADE.facts)
    n_items = len(MADE.segments) - 1
    n_groups = 2 if groups == "tail" else 3
    if target == "equal":
        assert system.tolist() == [1 / n_groups] * n_groups
    elif target == "items":
        assert float(system[-1]) == pytest.approx(MADE.segments.count(TAIL) / n_items)
    else:
        assert float(system[-1]) == pytest.approx(target)
    label = (lambda i: int(MADE.segments[i] == TAIL)) if groups == "tail" else MADE.segments.__getitem__
    expected = oracle.pct(MADE, 10, targets.numpy(), lam, label)
    assert lists_of(reranker.rerank(MADE.candidates, MADE.facts, 10)) == expected


def test_exposure_meets_the_targets() -> None:
    made = make(200, 90, 90, short=False)
    worth = 1 / torch.arange(2, 12).double().log2()
    mean = {}
    for tail in (0.1, 0.5, 0.9):
        reranker = PCT(tail, 0.0, "tail", "auto")
        lists = reranker.rerank(made.candidates, made.facts, 10)
        shown = (made.facts.segments[lists.items] == TAIL).double() @ worth / worth.sum()
        targets, _ = reranker.targets(made.candidates.users, made.facts)
        assert float((shown - targets[:, 1]).abs().max()) < 0.12  # half of the first place's share, or less
        mean[tail] = float(shown.mean())
    assert mean == pytest.approx({0.1: 0.1, 0.5: 0.5, 0.9: 0.9}, abs=0.03)
