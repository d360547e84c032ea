"""Which neurons carry popularity, and how far steering moves them (PopSteer sections 3.2 and 3.3)."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

#: Columns of the neuron table, as kept in the model's buffer ``neurons`` ``[N, len(COLUMNS)]``.
COLUMNS = (
    "mean_popular",
    "std_popular",
    "mean_unpopular",
    "std_unpopular",
    "mean_real",
    "std_real",
    "effect_size",
    "alive",
    "frequency",
)

#: The columns that depend on the concept, in the order of the buffer ``concept_neurons``.
BY_CONCEPT = ("mean_popular", "std_popular", "mean_unpopular", "std_unpopular", "effect_size")


def cohens_d(mean_a: Tensor, std_a: Tensor, mean_b: Tensor, std_b: Tensor) -> Tensor:
    """Effect size ``(mean_a - mean_b) / sqrt((std_a^2 + std_b^2) / 2)`` (PopSteer Eq. 3).

    Without variance in either group it is undefined and taken as 0: such a neuron is never steered.
    """
    pooled = ((std_a.square() + std_b.square()) / 2).sqrt()
    d = (mean_a - mean_b) / pooled
    return torch.where(pooled > 0, d, torch.zeros_like(d))


def effect_size_error(d: Tensor, n_a: int, n_b: int) -> Tensor:
    """Standard error of Cohen's d: ``sqrt((n_a + n_b) / (n_a n_b) + d^2 / (2 (n_a + n_b)))``.

    The large-sample formula of Hedges and Olkin (Statistical Methods for Meta-Analysis, 1985, p. 86).

    Args:
        d: effect sizes, any shape.
        n_a: size of one group.
        n_b: size of the other group.

    Returns:
        Standard errors, in the shape of ``d``; infinite where a group is empty.
    """
    if min(n_a, n_b) < 1:
        return torch.full_like(d, torch.inf)
    return ((n_a + n_b) / (n_a * n_b) + d.square() / (2 * (n_a + n_b))).sqrt()


def choose_sigma(table: Tensor, which: str) -> Tensor:
    """``[N]`` the deviation by which a neuron moves.

    Args:
        table: the neuron table ``[N, len(COLUMNS)]``.
        which: ``group``: of the synthetic group that the neuron leans to (popular users for d > 0); ``crossed``: of
            the other group, as in the authors' first code; ``pooled``: the denominator of Cohen's d; ``real``: over
            real users.
    """
    popular, unpopular = table[:, COLUMNS.index("std_popular")], table[:, COLUMNS.index("std_unpopular")]
    leans_popular = table[:, COLUMNS.index("effect_size")] > 0
    if which == "group":
        return torch.where(leans_popular, popular, unpopular)
    if which == "crossed":
        return torch.where(leans_popular, unpopular, popular)
    if which == "pooled":
        return ((popular.square() + unpopular.square()) / 2).sqrt()
    return table[:, COLUMNS.index("std_real")]


def steering_weights(d: Tensor, alpha_pop: float, alpha_unpop: float, beta: float, by_side: bool = False) -> Tensor:
    """``[N]`` weights ``alpha * |d| / max |d|`` (PopSteer Eq. 5), 0 where ``|d| <= beta``.

    The largest ``|d|`` is taken over all neurons or, ``by_side``, over those that lean to the neuron's own side, as in
    the authors' later code. With ``beta=0`` every neuron with a nonzero effect is steered.
    """
    size = d.abs()
    alpha = torch.where(d > 0, torch.full_like(d, alpha_pop), torch.full_like(d, alpha_unpop))
    largest = size.max()
    if by_side:
        largest = torch.where(d > 0, d.clamp_min(0.0).max(), (-d).clamp_min(0.0).max())
    largest = largest.clamp_min(torch.finfo(d.dtype).tiny)
    return torch.where((size > beta) & (size > 0), alpha * size / largest, torch.zeros_like(d))


def steering_moves(
    table: Tensor,
    alpha_pop: float,
    alpha_unpop: float,
    beta: float,
    sigma: str,
    shuffle_seed: int | None = None,
    by_side: bool = False,
) -> tuple[Tensor, Tensor]:
    """How far neurons move: weights (PopSteer Eq. 5), and what is added to the pre-activations (Eq. 4).

    That is minus ``w sigma`` for d > 0, plus for d < 0.

    Args:
        table: the neuron table.
        alpha_pop: strength on neurons that lean to popular users.
        alpha_unpop: strength on neurons that lean to unpopular users.
        beta: smallest effect size that is steered, exclusive.
        sigma: see :func:`choose_sigma`.
        shuffle_seed: hands the same moves to as many randomly chosen neurons instead (the paper's RandomSelect).
        by_side: see :func:`steering_weights`.

    Returns:
        Two ``[N]``: weight and shift of each neuron; a shuffled move keeps its weight.
    """
    d = table[:, COLUMNS.index("effect_size")]
    weights = steering_weights(d, alpha_pop, alpha_unpop, beta, by_side)
    shift = -d.sign() * weights * choose_sigma(table, sigma)
    if shuffle_seed is None:
        return weights, shift
    moved = d.abs() > beta
    target = torch.randperm(len(d), generator=torch.Generator().manual_seed(shuffle_seed))[: int(moved.sum())]
    target = target.to(shift.device)
    nothing = torch.zeros_like(shift)
    return nothing.index_copy(0, target, weights[moved]), nothing.index_copy(0, target, shift[moved])


def selected_neurons(table: Tensor, beta: float) -> Tensor:
    """``[N]`` bool: the neurons with ``|d| > beta``."""
    return table[:, COLUMNS.index("effect_size")].abs() > beta


def write_neuron_table(file: IO[str], table: Tensor, weights: Tensor, shift: Tensor) -> None:
    """Write the table as CSV with a header, one row a neuron.

    Args:
        file: an open text file.
        table: the neuron table ``[N, len(COLUMNS)]``.
        weights: ``[N]`` steering weights in use (Eq. 5).
        shift: ``[N]`` what they add to the pre-activations (Eq. 4); its sign is the direction.
    """
    rows = csv.writer(file)
    rows.writerow(["neuron", *COLUMNS, "direction", "weight"])
    direction = shift.sign()
    alive = COLUMNS.index("alive")
    for neuron, (values, sign, weight) in enumerate(
        zip(table.tolist(), direction.tolist(), weights.tolist(), strict=True)
    ):
        cells: list[Any] = [int(v) if column == alive else v for column, v in enumerate(values)]
        rows.writerow([neuron, *cells, int(sign), weight])


def strongest_neurons(table: Tensor, n: int = 10) -> dict[str, list[int]]:
    """The ``n`` neurons of each side that matter most: by effect size times the share of users for whom they fire.

    An effect size alone puts neurons in front that hardly ever fire, and whose steering hardly anybody notices. Where
    no neuron fires, and among equals, the larger effect size goes first.
    """
    d = table[:, COLUMNS.index("effect_size")]
    felt = d * table[:, COLUMNS.index("frequency")]

    def first(sign: float) -> list[int]:
        order = np.lexsort((-sign * d.numpy(), -sign * felt.numpy()))
        return [int(j) for j in order if sign * d[j] > 0][:n]

    return {"popular": first(1.0), "unpopular": first(-1.0)}


def neuron_row(table: Tensor, neuron: int) -> Mapping[str, float]:
    """One row of the table by column name."""
    return dict(zip(COLUMNS, table[neuron].tolist(), strict=True))
