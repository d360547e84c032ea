"""How far apart groups of users are, whether steering moved them, and a map of them (PopSteer Figure 5, Table 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from recbole_fair.errors import FairError

Floats = npt.NDArray[np.float64]

#: What to do when umap-learn is missing.
NO_UMAP = "umap-learn is not installed: pip install 'recbole_fair[viz]', or use --map=pca."


def wasserstein(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Wasserstein-1 distance of two clouds of equally many points: the mean distance of the best one-to-one matching.

    Points of equal weight and number have an optimal transport that is a matching, so that this is exact in any number
    of dimensions; cost grows with the cube of the number of points.

    Args:
        a: ``[n, d]``.
        b: ``[n, d]``.

    Raises:
        ValueError: for clouds of different sizes.
    """
    return _matched(cdist(a, b))


def _matched(cost: Floats) -> float:
    if cost.shape[0] != cost.shape[1]:
        raise ValueError(f"The clouds must hold equally many points, not {cost.shape[0]} and {cost.shape[1]}.")
    return float(cost[linear_sum_assignment(cost)].mean())


def paired_permutation(
    before: npt.NDArray[Any],
    after: npt.NDArray[Any],
    target: npt.NDArray[Any],
    permutations: int,
    seed: int,
    show: Callable[[range], Any] = iter,
) -> tuple[float, float]:
    """Whether users moved away from a group: a permutation test on the change of their Wasserstein distance to it.

    If the change of each user were nothing but chance, a user's two points could as well be swapped. Each permutation
    swaps them for a random half of the users and measures the change anew.

    Args:
        before: the users' points before ``[n, d]``.
        after: the same users' points afterwards.
        target: points ``[n, d]`` of the group.
        permutations: how many; the smallest possible p-value is 1 over one more.
        seed: of the swaps.
        show: wraps the permutations, for a progress bar.

    Returns:
        The change of the distance (positive: farther away), and the two-sided p-value: the share of permutations,
        the observed order among them, whose change is at least as large in magnitude.
    """
    costs = np.stack([cdist(before, target), cdist(after, target)])
    rng = np.random.default_rng(seed)
    users = np.arange(len(before))

    def change(swapped: npt.NDArray[np.int64]) -> float:
        return _matched(costs[1 - swapped, users]) - _matched(costs[swapped, users])

    observed = change(np.zeros(len(users), dtype=np.int64))
    # Equal changes may differ in the last bits when costs are added in another order.
    bound = abs(observed) * (1 - 1e-9)
    extreme = sum(abs(change(rng.integers(0, 2, len(users)))) >= bound for _ in show(range(permutations)))
    return observed, (1 + extreme) / (1 + permutations)


def distance_frame(
    clouds: Mapping[str, npt.NDArray[Any]],
    plane: Mapping[str, npt.NDArray[Any]] | None,
    permutations: int,
    seed: int,
    show: Callable[[range], Any] = iter,
) -> pd.DataFrame:
    """Distances of real and steered users from users of popular and of unpopular items (PopSteer Table 4).

    Args:
        clouds: ``popular``, ``unpopular``, ``real`` and ``steered`` representations ``[n, d]``, equally many; row i of
            ``steered`` is the user of row i of ``real``.
        plane: their places on a map ``[n, 2]``, if there is one.
        permutations: of the test, which is made on the representations, not on the map.
        seed: of the test.
        show: wraps the permutations, for a progress bar.

    Returns:
        One row a group: ``to``, ``real`` and ``steered`` (Wasserstein distances between representations),
        ``change``, ``p_value``, and with a map ``real_on_map`` and ``steered_on_map``.
    """
    rows = []
    for number, group in enumerate(("popular", "unpopular")):
        change, p = paired_permutation(
            clouds["real"], clouds["steered"], clouds[group], permutations, seed + number, show
        )
        real = wasserstein(clouds["real"], clouds[group])
        row: dict[str, Any] = {"to": group, "real": real, "steered": real + change, "change": change, "p_value": p}
        if plane is not None:
            row |= {f"{name}_on_map": wasserstein(plane[name], plane[group]) for name in ("real", "steered")}
        rows.append(row)
    return pd.DataFrame(rows)


def has_umap() -> bool:
    """Whether umap-learn is installed; it is not loaded, which takes seconds."""
    from importlib.util import find_spec

    return find_spec("umap") is not None


def project(points: npt.NDArray[Any], how: str, seed: int) -> Floats:
    """Points on a plane.

    Args:
        points: ``[n, d]``.
        how: ``umap`` (15 neighbours, Euclidean, seeded, so on one thread) or ``pca``, the first two principal
            components, whose signs are such that the largest loading is positive.
        seed: of UMAP.

    Returns:
        float64 ``[n, 2]``.

    Raises:
        FairError: ``umap`` without umap-learn.
    """
    x = np.asarray(points, dtype=np.float64)
    if how == "pca":
        centred = x - x.mean(axis=0)
        _, _, axes = np.linalg.svd(centred, full_matrices=False)
        axes = axes[:2]
        axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
        flat = np.zeros((len(x), 2))
        flat[:, : len(axes)] = centred @ axes.T
        return flat
    if not has_umap():
        raise FairError(NO_UMAP)
    from umap import UMAP

    neighbours = max(2, min(15, len(x) - 1))
    found: Floats = UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(x).astype(np.float64)
    return found
