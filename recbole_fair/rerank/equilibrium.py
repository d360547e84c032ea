"""Item biases at the equilibrium of scores and a concave welfare of exposure: the computation alone.

A system shows every user the k items with the largest ``s_ui - b_i``. With c_i the exposure that item i then gets, the
biases are at equilibrium when ``b_i = -lambda dW/dc_i`` at that very exposure: the lists then maximise the sum of
scores plus ``lambda W(c)`` (exactly so where lists may be mixed at random; whole lists come within a few places of it).

Exposure is measured against what an item is *due*: ``x_i = c_i / d_i``, the d_i adding up to all exposure there is.
Equal dues make ``x_i = c_i / mean c``.

Sources: Do, Corbett-Davies, Atif and Usunier, *Two-sided fairness in rankings via Lorenz dominance*, NeurIPS 2021;
Do and Usunier, *Optimizing generalized Gini indices for fairness in rankings*, SIGIR 2022. Their Frank-Wolfe algorithm
keeps a mixture of lists for every user; here only the dual side, a number an item, is kept, which holds for new users.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

WELFARES = ("entropy", "gini", "maxmin", "alpha")
STEPS = ("damped", "frank_wolfe")
ROUNDS = {"damped": 30, "frank_wolfe": 15}  # as many as change nothing more in Gini or NDCG on our data
RATE = 0.3
SMALL_STEPS = 60


@dataclass(frozen=True)
class Welfare:
    """A concave function W of the exposure of items (or groups of items), in units of exposure.

    ========== ==================================== ==========================
    kind       W(c), with x = c / d, T = sum d      dW/dc_i
    ========== ==================================== ==========================
    entropy    sum d (x - (1 + x) log(1 + x))       -log(1 + x_i)
    alpha      sum d ((1 + x)^(1-a) - 1) / (1 - a)  (1 + x_i)^-a
    gini       sum c (1 - F(x))                     1 - F(x_i)
    maxmin     -(T / s) log(sum d/T exp(-s x))      exp(-s x_i) / mean exp(-s x)
    ========== ==================================== ==========================

    F is the share of all dues held by those with less x, those with the same x counting half: with equal dues ``gini``
    is the generalised Gini welfare with evenly falling weights, ``T (1 - Gini index) / 2``. ``maxmin`` is the smooth
    minimum of x; ``alpha`` with a = 1 is proportional fairness, ``sum d log(1 + x)``.

    Attributes:
        kind: One of :data:`WELFARES`.
        alpha: The exponent a of ``alpha``, from 0.
        sharpness: The s of ``maxmin``, above 0: the larger, the nearer to the minimum itself.
    """

    kind: str = "entropy"
    alpha: float = 1.0
    sharpness: float = 1.0

    def gradient(self, exposure: Tensor, due: Tensor) -> Tensor:
        """What one more unit of exposure is worth, float64 ``[n]``, for each of n items.

        Args:
            exposure: Exposure ``[n]``, from 0.
            due: What each is due ``[n]``, above 0.
        """
        x = exposure.double() / due
        if self.kind == "entropy":
            return -torch.log1p(x)
        if self.kind == "alpha":
            return (1 + x) ** -self.alpha
        if self.kind == "maxmin":
            worth = torch.exp(-self.sharpness * (x - x.min()))
            return worth * due.sum() / (due @ worth)
        return 1 - _share_below(x, due)

    def value(self, exposure: Tensor, due: Tensor) -> float:
        """W of an exposure; arguments as for :meth:`gradient`."""
        x = exposure.double() / due
        if self.kind == "entropy":
            return float(due @ (x - (1 + x) * torch.log1p(x)))
        if self.kind == "alpha":
            a = self.alpha
            return float(due @ (torch.log1p(x) if a == 1 else ((1 + x) ** (1 - a) - 1) / (1 - a)))
        if self.kind == "maxmin":
            low, total = x.min(), due.sum()
            mean = (due / total) @ torch.exp(-self.sharpness * (x - low))
            return float(total * (low - mean.log() / self.sharpness))
        return float(exposure.double() @ (1 - _share_below(x, due)))

    def bias(self, exposure: Tensor, due: Tensor, strength: float) -> Tensor:
        """``strength`` times what exposure is worth less than at its dearest, float64 ``[n]``, the smallest being 0."""
        gradient = self.gradient(exposure, due)
        return strength * (gradient.max() - gradient)


def _share_below(x: Tensor, due: Tensor) -> Tensor:
    """Share of the dues of those with less x, equals counting half, float64 ``[n]`` in (0, 1)."""
    _, place = torch.unique(x, return_inverse=True)
    mass = torch.zeros(int(place.max()) + 1, dtype=torch.double, device=x.device).index_add_(0, place, due.double())
    return ((mass.cumsum(0) - mass / 2) / mass.sum())[place]


@dataclass(frozen=True)
class Equilibrium:
    """Biases and how near to equilibrium they are.

    Attributes:
        bias: float64 ``[n]``, the smallest being 0.
        exposure: float64 ``[n]``, the exposure under these biases.
        residual: Mean of ``|-lambda dW/dc - b|``, weighted by dues, in units of scores.
        largest_residual: The largest of these.
        objective: Sum of scores plus lambda W by round, the first without biases.
        welfare: W by round.
        residuals: The residual by round.
        rounds: Rounds that were made.
    """

    bias: Tensor
    exposure: Tensor
    residual: float
    largest_residual: float
    objective: list[float] = field(default_factory=list)
    welfare: list[float] = field(default_factory=list)
    residuals: list[float] = field(default_factory=list)
    rounds: int = 0

    def report(self) -> dict[str, Any]:
        """Plain values for the result document."""
        return {
            "rounds": self.rounds,
            "residual": self.residual,
            "largest_residual": self.largest_residual,
            "largest_bias": float(self.bias.max()),
            "objective": self.objective,
            "welfare": self.welfare,
            "residuals": self.residuals,
        }


def find_equilibrium(
    expose: Callable[[Tensor], tuple[Tensor, float]],
    welfare: Welfare,
    due: Tensor,
    strength: float,
    rounds: int | None = None,
    step: str | None = None,
) -> Equilibrium:
    """Biases at which lists and the worth of exposure agree.

    ``damped``: the bias moves .3 of the way to what it should be under its own lists; whenever that leads further away
    (the lists swing), the step shrinks by a quarter. ``frank_wolfe``: the exposure, not the bias, is averaged, round t
    with the weight ``2 / (t + 2)``: it needs half the rounds, but a smooth welfare, which ``gini`` is not. Of all
    rounds the biases are kept whose lists have the largest sum of scores plus lambda W; where none betters the lists
    without biases, since lambda is far above the scale of scores, :data:`SMALL_STEPS` rounds of small steps follow.
    Nothing is drawn at random.

    Args:
        expose: Exposure ``[n]`` of the lists under biases ``[n]``, and the sum of these lists' scores; NaN where lists
            follow something else as well, and the last round is the one to keep.
        welfare: The welfare W.
        due: What each is due ``[n]``, above 0.
        strength: lambda, from 0.
        rounds: Moves to make at most, from 1; each costs one ranking of all users. None: :data:`ROUNDS`.
        step: One of :data:`STEPS`; None: ``damped`` for ``gini``, else ``frank_wolfe``.

    Returns:
        The equilibrium; with ``strength`` 0 all biases are 0.
    """
    step = step or ("damped" if welfare.kind == "gini" else "frank_wolfe")
    rounds = rounds or ROUNDS[step]
    bias = torch.zeros_like(due, dtype=torch.double)
    exposure, scores = expose(bias)
    average, rate = exposure.clone(), RATE
    wanted = welfare.bias(exposure, due, strength)
    found = [_state(bias, exposure, wanted, scores, strength, welfare, due)]
    best, made = found[0], 0
    while made < rounds and found[-1].residual > 0:
        made += 1
        if step == "damped":
            if len(found) > 1 and found[-1].residual > found[-2].residual:
                rate *= 0.75
            bias = bias + rate * (wanted - bias)
            bias = bias - bias.min()
        else:
            if made > 1:
                average += 2 / (made + 1) * (exposure - average)
            bias = welfare.bias(average, due, strength)
        exposure, scores = expose(bias)
        wanted = welfare.bias(exposure, due, strength)
        found.append(_state(bias, exposure, wanted, scores, strength, welfare, due))
        if not found[-1].objective[0] < best.objective[0]:  # of equals the later one, which is nearer to equilibrium
            best = found[-1]
    if best is found[0] and best.residual > 0:
        small = _small_steps(expose, welfare, due, strength, found[0])
        found += small
        best, made = max(found, key=lambda one: one.objective[0]), made + len(small)
    return Equilibrium(
        best.bias,
        best.exposure,
        best.residual,
        best.largest_residual,
        [one.objective[0] for one in found],
        [one.welfare[0] for one in found],
        [one.residual for one in found],
        made,
    )


def _small_steps(
    expose: Callable[[Tensor], tuple[Tensor, float]], welfare: Welfare, due: Tensor, strength: float, start: Equilibrium
) -> list[Equilibrium]:
    """Rounds in which no bias moves further than a reach, which shrinks until the objective rises.

    For a strength far above the scale of scores: there whole steps throw everybody's lists from some items to others,
    and no round betters the lists without biases.
    """
    rounds: list[Equilibrium] = []
    best, wanted = start, welfare.bias(start.exposure, due, strength)
    reach, shrink = float(wanted.max()), 0.25
    for _ in range(SMALL_STEPS):
        bias = best.bias + (wanted - best.bias).clamp(-reach, reach)
        bias = bias - bias.min()
        exposure, scores = expose(bias)
        asked = welfare.bias(exposure, due, strength)
        rounds.append(_state(bias, exposure, asked, scores, strength, welfare, due))
        if rounds[-1].objective[0] > best.objective[0]:
            best, wanted, shrink = rounds[-1], asked, 0.5
        else:
            reach *= shrink
    return rounds


def _state(
    bias: Tensor, exposure: Tensor, wanted: Tensor, scores: float, strength: float, welfare: Welfare, due: Tensor
) -> Equilibrium:
    value = welfare.value(exposure, due)
    gap = (wanted - bias).abs()
    mean = float(due @ gap / due.sum())
    return Equilibrium(bias, exposure, mean, float(gap.max()), [scores + strength * value], [value])
