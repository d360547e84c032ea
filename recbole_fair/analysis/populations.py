"""Who is compared when neurons are explained: users of popular and of unpopular items, and all users of the data.

Users of either side are synthetic where the base model can be shown any history (SASRec), else the training users who
lean most to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recbole_fair.data.facts.interactions import Interactions

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

#: Names of the populations, in the order in which they are shown.
NAMES = ("popular", "unpopular", "real")
_ROWS = 4096


@dataclass(frozen=True)
class Populations:
    """Base representations of three kinds of users.

    Attributes:
        popular: ``[n, d]`` users of popular items.
        unpopular: ``[m, d]`` users of unpopular items.
        real: ``[U, d]`` the data set's users, as validation meets them.
        users: inner ids ``[U]`` of the real users.
        inter: training interactions.
        weight: float64 ``[n_items]``, how much an item counts for the concept: 1 for the popular ones.
    """

    popular: Tensor
    unpopular: Tensor
    real: Tensor
    users: Ids
    inter: Interactions
    weight: Floats

    def __getitem__(self, name: str) -> Tensor:
        """The representations of one of :data:`NAMES`."""
        if name not in NAMES:
            raise KeyError(name)
        vectors: Tensor = getattr(self, name)
        return vectors

    @property
    def head_share(self) -> Floats:
        """Share of the concept in each real user's training history ``[U]`` (PopSteer's H), NaN without one."""
        return history_share(self.inter, self.weight)[self.users]


def history_share(inter: Interactions, weight: Floats) -> Floats:
    """Mean weight of each user's training interactions, float64 ``[n_users]``; NaN without any.

    Args:
        inter: training interactions.
        weight: ``[n_items]``; 1 for head items and 0 for others gives the share of head items.
    """
    total = np.bincount(inter.user, minlength=inter.n_users)
    with np.errstate(invalid="ignore"):
        share: Floats = np.bincount(inter.user, weights=weight[inter.item], minlength=inter.n_users) / total
    return share


@torch.no_grad()
def activations(model: Any, vectors: Tensor, neurons: Ids) -> Floats:
    """Pre-activations ``z`` of some neurons, float64 ``[n, len(neurons)]``.

    Args:
        model: a fitted PopSteer model.
        vectors: base representations ``[n, d]``.
        neurons: their numbers.
    """
    sae = model.sae
    chosen = torch.from_numpy(np.asarray(neurons, dtype=np.int64)).to(sae.W_enc.device)
    weight, bias = sae.W_enc[chosen].t(), sae.b_enc[chosen]
    parts = [torch.addmm(bias, part - sae.b_dec, weight) for part in torch.split(vectors, _ROWS)]
    z: Floats = torch.cat(parts).double().cpu().numpy()
    return z


def blocks(n_neurons: int, n_rows: int, cells: int = 8_000_000) -> Iterator[Ids]:
    """Cut the neurons into blocks whose activations of ``n_rows`` users fit into ``cells`` numbers."""
    size = max(1, cells // max(n_rows, 1))
    for begin in range(0, n_neurons, size):
        yield np.arange(begin, min(begin + size, n_neurons))
