"""What DecRS takes from training histories: the prior of the confounder and the users' weights from interest drift.

Source: Wang et al., "Deconfounded Recommendation for Alleviating Bias Amplification", KDD 2021, Eq. 3, 5 and 10-12.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recbole_fair.data.facts.groups import Floats, ItemGroups
from recbole_fair.data.facts.histories import Histories

PRIORS = ("interactions", "catalogue", "uniform")


def confounder_prior(histories: Histories, groups: ItemGroups, kind: str = "interactions") -> Floats:
    """Expected distribution of a user's history over item groups, ``d-bar`` of Eq. 5.

    Args:
        histories: Training histories.
        groups: Item groups with weights q.
        kind: ``interactions``: Eq. 3, the mean of ``d_u`` with ``P(d_u) = |H_u| / sum |H_v|``, which is the mean of q
            over all interactions; ``catalogue``: the mean of q over all items, which is what the authors' released
            file holds; ``uniform``: the same for every group.

    Returns:
        float64 ``[G]``; the sum is 1 where every item has a group, else below.
    """
    n_groups = len(groups.names)
    if kind == "uniform":
        return np.full(n_groups, 1.0 / n_groups)
    counts = np.bincount(histories.items, minlength=histories.n_items).astype(np.float64)
    if kind == "catalogue":
        counts = np.ones_like(counts)
    counts[0] = 0.0
    prior: Floats = np.asarray(groups.matrix.T @ counts).ravel() / max(counts.sum(), 1.0)
    return prior


def normalized_drift(drift: Tensor) -> Tensor:
    """Interest drift on the scale from the least drifting user, 0, to the most drifting one, 1 (Eq. 12 with alpha 1).

    Args:
        drift: Symmetric divergence of each user ``[n]``, NaN where it is not known.

    Returns:
        ``[n]`` in [0, 1]; 0 for users whose drift is not known, and for all if it is the same for all.
    """
    known = drift[~drift.isnan()]
    if not len(known):
        return torch.zeros_like(drift)
    low, high = known.min(), known.max()
    span = high - low
    scaled = (drift - low) / torch.where(span > 0, span, torch.ones_like(span))
    return scaled.nan_to_num(nan=0.0)
