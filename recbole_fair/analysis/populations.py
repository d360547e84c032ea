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

from recbole_fair.data.contract import EvaluationLoader, TrainingLoader
from recbole_fair.data.facts.interactions import Interactions, training_interactions
from recbole_fair.errors import FairError

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
        head: inner ids of the popular items.
        tail: inner ids of the unpopular items.
    """

    popular: Tensor
    unpopular: Tensor
    real: Tensor
    users: Ids
    inter: Interactions
    head: Ids
    tail: Ids

    def __getitem__(self, name: str) -> Tensor:
        """The representations of one of :data:`NAMES`."""
        if name not in NAMES:
            raise KeyError(name)
        vectors: Tensor = getattr(self, name)
        return vectors

    @property
    def head_share(self) -> Floats:
        """Share of popular items in each real user's training history ``[U]`` (PopSteer's H), NaN without one."""
        return head_share(self.inter, self.head)[self.users]


def head_share(inter: Interactions, head: Ids) -> Floats:
    """Share of head items among each user's training interactions, float64 ``[n_users]``; NaN without any.

    Args:
        inter: training interactions.
        head: ids of the head items.
    """
    in_head = np.isin(inter.item, head)
    total = np.bincount(inter.user, minlength=inter.n_users)
    with np.errstate(invalid="ignore"):
        share: Floats = np.bincount(inter.user, weights=in_head, minlength=inter.n_users) / total
    return share


@torch.no_grad()
def real_vectors(model: Any, eval_data: EvaluationLoader) -> tuple[Tensor, Ids]:
    """Base representations ``[U, d]`` of the users of a split, and their inner ids; each user's first row counts.

    Args:
        model: a post-hoc model.
        eval_data: a full-ranking loader.

    Raises:
        FairError: if the loader does not rank all items.
    """
    # Sampled evaluation has a row a candidate, not a row a user.
    from recbole.data.dataloader import FullSortEvalDataLoader

    if not isinstance(eval_data, FullSortEvalDataLoader):
        raise FairError("Explaining needs a validation or test split with full ranking: eval_args with mode: full.")
    base = model.base
    device = base.item_representations().device
    vectors, users = [], []
    for batch in eval_data:
        interaction = batch[0]
        vectors.append(base.represent_users(interaction.to(device)))
        users.append(interaction[base.USER_ID].cpu().numpy())
    ids, first = np.unique(np.concatenate(users), return_index=True)
    return torch.cat(vectors)[torch.from_numpy(first).to(device)], ids


def collect(
    model: Any, train_data: TrainingLoader, eval_data: EvaluationLoader, n_synthetic: int, seed: int
) -> Populations:
    """Represent all three kinds of users with the base model.

    Args:
        model: a fitted PopSteer model.
        train_data: the training loader.
        eval_data: the loader whose users are the real ones: with validation, their histories are the training ones.
        n_synthetic: users a side, at most.
        seed: of the synthetic users; those that the neurons were measured on have the model's seed plus 1 and 2.

    Raises:
        FairError: for a split without full ranking, or a model that cannot say how such users are represented.
    """
    inter = training_interactions(train_data._dataset)
    head, tail = model.profile_items(inter)
    model.base.eval()
    real, users = real_vectors(model, eval_data)
    try:
        sides = [_first(model.profile_vectors(items, inter, seed + side, n_synthetic), n_synthetic)
                 for side, items in ((1, head), (2, tail))]  # fmt: skip
    except NotImplementedError:
        raise FairError(f"{type(model).__name__} does not say how users of popular items are represented.") from None
    return Populations(sides[0], sides[1], real, users, inter, head.numpy(), tail.numpy())


def _first(batches: Iterator[Tensor], n: int) -> Tensor:
    kept, size = [], 0
    for batch in batches:
        kept.append(batch)
        size += len(batch)
        if size >= n:
            break
    return torch.cat(kept)[:n]


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
