"""The users of a dossier, represented by the base model: those of popular items, of unpopular items, and real ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from torch import Tensor

from recbole_fair.analysis.populations import Ids, Populations
from recbole_fair.data.contract import EvaluationLoader, Loader
from recbole_fair.data.facts.concepts import Concept
from recbole_fair.data.facts.interactions import Interactions, training_interactions
from recbole_fair.errors import FairError
from recbole_fair.model.popsteer.popsteer import PopSteer


@runtime_checkable
class TrainingProfiles(Protocol):
    """A model whose users of either side are training users, for want of a way to represent synthetic ones."""

    def profile_users(self, concept: Concept, inter: Interactions) -> tuple[Tensor, Tensor]:
        """Users who stand for a concept, and those who stand for what is without."""


@torch.no_grad()
def real_vectors(model: PopSteer, eval_data: EvaluationLoader) -> tuple[Tensor, Ids]:
    """Base representations ``[U, d]`` of the users of a split, and their inner ids; each user's first row counts.

    Args:
        model: a fitted PopSteer model.
        eval_data: a full-ranking loader.

    Raises:
        FairError: if the loader does not rank all items.
    """
    # Sampled evaluation has a row a candidate, not a row a user.
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
    model: PopSteer, train_data: Loader, eval_data: EvaluationLoader, n_synthetic: int, seed: int
) -> Populations:
    """Represent all three kinds of users with the base model.

    Args:
        model: a fitted PopSteer model.
        train_data: the training loader.
        eval_data: the loader whose users are the real ones: with validation, their histories are the training ones.
        n_synthetic: users a side, at most.
        seed: of the synthetic users; those that the neurons were measured on have the model's seed plus 1 and 2.

    Raises:
        FairError: for a split without full ranking.
    """
    inter = training_interactions(train_data._dataset)
    concept = model.read_concepts(train_data._dataset, inter)[0]
    model.base.eval()
    real, users = real_vectors(model, eval_data)
    positive, negative = (
        _first(model.profile_vectors(concept, side, inter, seed + number), n_synthetic)
        for number, side in ((1, True), (2, False))
    )
    return Populations(positive, negative, real, users, inter, concept.weight.numpy())


def _first(batches: Iterator[Tensor], n: int) -> Tensor:
    kept, size = [], 0
    for batch in batches:
        kept.append(batch)
        size += len(batch)
        if size >= n:
            break
    return torch.cat(kept)[:n]
