"""PCT: targets of exposure for every user that add up to the system's, and lists that meet them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from scipy.optimize import linprog
from torch import Tensor

from recbole_fair.config.keys import Key
from recbole_fair.data.facts.popularity import SEGMENT_NAMES, TAIL
from recbole_fair.errors import FairError
from recbole_fair.rerank.base import Candidates, Facts, ReRanker
from recbole_fair.rerank.facts import one_hot
from recbole_fair.rerank.queues import GroupQueues, best_group, gather_heads

Floats = npt.NDArray[np.float64]
_SLACK = 1e-9  # a target that is met up to rounding is met


def proportional_targets(wanted: Tensor, system: Tensor) -> Tensor:
    """Targets that take from every user the same fraction of each group that the system has too much of.

    What is taken goes to the groups that are short, in proportion to what they lack. The total move is the least
    possible. For two groups this is ``q_u = p_u - kappa * lim_u * g``: every user moves by the same fraction kappa of
    the way to the bound.

    Args:
        wanted: The users' own distributions p_u, ``[U, Q]``.
        system: The system's target q-hat ``[Q]``, sums to 1.

    Returns:
        float64 ``[U, Q]`` in [0, 1], rows sum to 1, their mean is ``system``.
    """
    mean = wanted.mean(0)
    surplus, lack = (mean - system).clamp(min=0), (system - mean).clamp(min=0)
    if float(lack.sum()) <= _SLACK:
        return wanted
    taken = wanted * torch.where(mean > 0, surplus / mean, 0.0)
    return wanted - taken + taken.sum(1, keepdim=True) * (lack / lack.sum())


def linear_programme_targets(wanted: Tensor, system: Tensor) -> Tensor:
    """Targets by linear programming (HiGHS): the least total move and, among these, the least largest move of a user.

    The paper moves all users in one direction, the system's gap, by different amounts. With more than two groups that
    has no solution as soon as enough users have nothing of a group that must shrink, and the total is the same for all
    solutions, so that the solver may move some users fully and others not at all. Here a user may give up any of the
    groups that shrink, none gives up more than the least possible maximum, and what is given up goes to the others in
    proportion to what they lack.

    Args:
        wanted: As :func:`proportional_targets`.
        system: As :func:`proportional_targets`.

    Returns:
        float64 ``[U, Q]`` in [0, 1], rows sum to 1, their mean is ``system``.

    Raises:
        FairError: if the solver gives up.
    """
    p, target = wanted.cpu().numpy(), system.cpu().numpy()
    n = len(p)
    # Only groups with a surplus shrink and only the others grow: anything else would lengthen the total move. What a
    # user gives up always fits into the growing groups, in any proportion; so only the giving has to be found.
    gives = np.flatnonzero(p.mean(0) - target > _SLACK)
    lack = np.clip(target - p.mean(0), 0.0, None)
    if not len(gives):
        return wanted
    owed, have, m = n * (p.mean(0) - target)[gives], p[:, gives], len(gives)
    cap = max(_water_level(have[:, s].sum(1), owed[s].sum()) for s in _subsets(m))
    found = linprog(
        c=np.zeros(n * m),  # every solution has the least total move and the least largest one
        A_ub=sparse.kron(sparse.eye(n), np.ones((1, m))),
        b_ub=np.full(n, cap + 1e-6),  # more than the solver's tolerance, lest it find no solution
        A_eq=sparse.kron(np.ones((1, n)), sparse.eye(m)),
        b_eq=owed,
        bounds=np.column_stack([np.zeros(n * m), have.ravel()]),
        method="highs",
    )
    if found.x is None:
        raise FairError(f"reranker=PCT: no targets were found ({found.message}); set reranker_solver=proportional.")
    given = found.x.reshape(n, m)
    moved = p + given.sum(1, keepdims=True) * (lack / lack.sum())
    moved[:, gives] -= given
    return torch.from_numpy(moved.clip(0.0, 1.0)).to(wanted.device)


def _subsets(n: int) -> list[list[int]]:
    """All non-empty subsets of ``0 ... n - 1``."""
    return [list(s) for size in range(1, n + 1) for s in combinations(range(n), size)]


def _water_level(have: Floats, total: float) -> float:
    """The smallest t such that ``sum(min(have, t))`` reaches ``total``, which is at most ``sum(have)``."""
    ordered = np.sort(have)
    left = np.arange(len(ordered), 0, -1)
    below = np.cumsum(ordered) - ordered
    at = min(int(np.searchsorted(below + ordered * left, total)), len(ordered) - 1)
    return float((total - below[at]) / left[at])


@dataclass(frozen=True)
class PCT(ReRanker):
    """Personalized Calibration Targets: users' targets that add up to the system's, then lists that meet them.

    (1) A user's own distribution p_u over groups is that of the history. The users' targets q_u lie as close to p_u as
    possible while their mean is the system's target. (2) Place r of a list is worth ``1 / log2(r + 1)`` of exposure; a
    user's target exposure is q_u times the sum of these. First pass: each place takes the best item whose group stays
    within its target, or stays empty. Second pass: empty places take the item that maximises
    ``lambda / rank - (1 - lambda) * ||exposure - target||^2 / 2``.

    Source: Wang et al., RecSys 2023. Readings: groups are tail and the rest, as in the PopSteer paper, or head, mid
    and tail. With two groups all feasible moves cost the same, and a linear programme moves some users fully and
    others not at all; so each user moves by the same fraction of the way (:func:`proportional_targets`). Beyond two
    groups: :func:`linear_programme_targets`. There is no strength that leaves the ranking unchanged.

    Attributes:
        target: The system's target: ``equal`` (1/Q each), ``items`` (each group's share of the items), or a number in
            [0, 1], the share of the tail (the other groups then keep their proportions).
        lambda_: Weight of relevance in the second pass, in [0, 1].
        groups: ``tail`` (tail and rest) or ``segments`` (head, mid, tail).
        solver: ``proportional``, ``lp``, or ``auto``: the former for two groups, the latter for three.
    """

    limits: ClassVar[dict[str, Key]] = {
        "target": Key("float|str", low=0, high=1, choices=("equal", "items")),
        "lambda_": Key("float", low=0, high=1),
        "groups": Key("str", choices=("tail", "segments")),
        "solver": Key("str", choices=("auto", "proportional", "lp")),
    }
    needs = ("segments",)

    target: float | str
    lambda_: float
    groups: str
    solver: str

    def describe(self, k: int) -> dict[str, Any]:
        """Settings, with the solver that ``auto`` stands for."""
        return {**super().describe(k), "reranker_solver": self._solver}

    @property
    def _solver(self) -> str:
        if self.solver != "auto":
            return self.solver
        return "proportional" if self.groups == "tail" else "lp"

    def labels(self, facts: Facts) -> Tensor:
        """Group of each item, long ``[n_items]``, -1 for the padding; the last group is the tail."""
        segments = facts.segments
        return segments if self.groups == "segments" else (segments == TAIL).long().masked_fill(segments < 0, -1)

    def targets(self, users: Tensor, facts: Facts) -> tuple[Tensor, Tensor]:
        """Targets of the users ``[U, Q]`` and of the system ``[Q]``."""
        n_groups = len(SEGMENT_NAMES) if self.groups == "segments" else 2
        weights = one_hot(self.labels(facts), n_groups)
        wanted = facts.history_shares(users, weights)
        if self.target == "equal":
            system = torch.full((n_groups,), 1 / n_groups, dtype=torch.double)
        elif self.target == "items":
            system = weights.sum(0) / weights.sum()
        else:
            tail, others = float(self.target), wanted.mean(0)[:-1].cpu()
            others = others / others.sum() if float(others.sum()) > 0 else torch.full_like(others, 1 / len(others))
            system = torch.cat([(1 - tail) * others, torch.tensor([tail], dtype=torch.double)])
        system = system.to(wanted.device)
        solve = proportional_targets if self._solver == "proportional" else linear_programme_targets
        return solve(wanted, system), system

    def places(self, candidates: Candidates, facts: Facts, k: int) -> Tensor:
        """Fill the places in two passes."""
        device = candidates.items.device
        targets, _ = self.targets(candidates.users, facts)
        labels = self.labels(facts).to(device)[candidates.items].masked_fill(~candidates.valid, -1)
        n_groups = targets.shape[1]
        queues, steps = GroupQueues(labels, n_groups), torch.eye(n_groups, dtype=torch.double, device=device)
        worth = 1 / torch.arange(2, k + 2, dtype=torch.double, device=device).log2()
        targets = targets * worth.sum()
        exposure = torch.zeros_like(targets)
        chosen = torch.full((len(labels), k), -1, dtype=torch.long, device=device)
        # Ranks of the candidates stand for relevance: the best has the largest value.
        relevance = 1 / torch.arange(1, queues.none + 1, dtype=torch.double, device=device).expand(len(labels), -1)
        for second in (False, True):
            for place in range(k):
                heads = queues.heads()
                value, after = gather_heads(relevance, heads, -torch.inf), exposure + worth[place]
                if second:
                    others = exposure.unsqueeze(1) + worth[place] * steps - targets.unsqueeze(1)
                    value = self.lambda_ * value.clamp(min=0) - (1 - self.lambda_) * others.square().sum(-1) / 2
                    value = value.masked_fill((heads >= queues.none) | (chosen[:, place] >= 0).unsqueeze(1), -torch.inf)
                else:
                    value = value.masked_fill(after > targets + _SLACK, -torch.inf)
                group = best_group(value, heads)
                column = queues.take(group)
                chosen[:, place] = torch.where(group >= 0, column, chosen[:, place])
                exposure += worth[place] * steps[group.clamp(min=0)] * (group >= 0).unsqueeze(1)
        return chosen
