"""What a fit of PopSteer says of its autoencoder and of its strongest neurons, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recbole_fair.data.contract import DataSet
from recbole_fair.data.facts.concepts import Concept
from recbole_fair.data.facts.interactions import Interactions
from recbole_fair.data.reading.titles import item_titles
from recbole_fair.model.popsteer.neurons import COLUMNS, neuron_row, strongest_neurons
from recbole_fair.model.popsteer.quality import SAEQuality
from recbole_fair.model.popsteer.sae import SAEFit, TopKSAE

_SMOOTHING = 10  # users of average activation added to each item before items are ranked by their users' activation
_N_STRONGEST = 10
_N_ITEMS = 5


class Neurons(Protocol):
    """A model with an autoencoder and a neuron table."""

    @property
    def sae(self) -> TopKSAE:
        """The autoencoder."""

    neurons: Tensor


def describe_sae(sae: TopKSAE, fits: Sequence[SAEFit], users: SAEQuality, n_vectors: int) -> dict[str, Any]:
    """How an autoencoder came to be and how good it is, as plain values; the last one counts of several fits."""
    fit = fits[-1]
    return {
        "latents": sae.n_latents,
        "k": sae.k,
        "vectors": n_vectors,
        "training_vectors": fit.n_train,
        "validation_vectors": fit.n_valid,
        "inputs_seen": fit.inputs,
        "fits": len(fits),
        "epochs": fit.epochs,
        "best_epoch": fit.best_epoch,
        "validation": fit.quality.as_dict(),
        "users": users.as_dict(),
    }


@torch.no_grad()
def describe_neurons(
    model: Neurons, last: Tensor, users: Tensor, inter: Interactions, dataset: DataSet, concept: Concept
) -> dict[str, Any]:
    """The strongest neurons of each side, with the items and the head share of the users who activate them."""
    table = model.neurons.cpu()
    d = table[:, COLUMNS.index("effect_size")]
    strongest = strongest_neurons(table, _N_STRONGEST)
    titles = item_titles(dataset)
    tokens = dataset.field2id_token[dataset.iid_field]
    chosen = [j for side in strongest.values() for j in side]
    pre = torch.addmm(model.sae.b_enc[chosen], last - model.sae.b_dec, model.sae.W_enc[chosen].t())
    activation = pre.double().cpu().numpy()
    activation -= activation.mean(axis=0)
    activation /= np.maximum(activation.std(axis=0), np.finfo(np.float64).tiny)
    rows = np.full(inter.n_users, -1)
    rows[users.numpy()] = np.arange(len(users))
    head_share = _mean_by(rows[inter.user], concept.weight.numpy()[inter.item], len(users), 0)
    found: dict[str, Any] = {
        "alive": int(table[:, COLUMNS.index("alive")].sum()),
        "largest_effect": float(d.abs().max()),
        "leaning_popular": int((d > 0).sum()),
        "leaning_unpopular": int((d < 0).sum()),
        "median_head_share": float(np.median(head_share)),
    }
    for side, numbers in strongest.items():
        entries = []
        for j in numbers:
            z = activation[:, chosen.index(j)]
            liked = _mean_by(inter.item, z[rows[inter.user]], inter.n_items, _SMOOTHING)
            liked[0] = -np.inf
            items = np.argsort(-liked, kind="stable")[:_N_ITEMS].tolist()
            top_users = np.argsort(-z, kind="stable")[:10]
            entries.append(
                {
                    "neuron": j,
                    **neuron_row(table, j),
                    "head_share_of_top_users": float(head_share[top_users].mean()),
                    "items": [str(tokens[i]) for i in items],
                    "titles": [titles[i] for i in items] if titles is not None else None,
                }
            )
        found[side] = entries
    return found


def _mean_by(
    group: npt.NDArray[np.int64], values: npt.NDArray[np.float64], n: int, smoothing: float
) -> npt.NDArray[np.float64]:
    """Mean of ``values`` by ``group`` ``[n]``, ``smoothing`` zeros added to each."""
    total = np.bincount(group, weights=values, minlength=n)
    return total / np.maximum(np.bincount(group, minlength=n) + smoothing, 1)
