"""What neurons respond to, in words: tf-idf of item attributes on the users and items that activate them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from recbole_fair.analysis.populations import Floats, Populations, blocks
from recbole_fair.data.contract import DataSet
from recbole_fair.data.facts.concepts import attribute_columns
from recbole_fair.data.facts.groups import column_weights, group_distribution, read_column
from recbole_fair.model.popsteer.neurons import COLUMNS, strongest_neurons

#: Items whose scores a neuron raises most, whose attributes are looked at.
TOP_ITEMS = 50
_MOST_VALUES = 200  # of a column that describes items; more are names
_ROWS = 4096


@dataclass(frozen=True)
class Attributes:
    """Attributes of the items.

    Attributes:
        names: of the A attributes: the value, after its column where there are several columns.
        matrix: ``[n_items, A]``, rows of each column sum to 1, or to 0 without a value.
    """

    names: tuple[str, ...]
    matrix: sparse.csr_matrix


def read_attributes(dataset: DataSet, field: str | None = None) -> Attributes | None:
    """The attributes of a data set's items.

    Args:
        dataset: any split.
        field: the column that describes items (``group_field``); all token columns of few values when left out.

    Returns:
        The attributes, None without any.
    """
    fields = [field] if field else attribute_columns(dataset)
    parts, names = [], list[tuple[str, str]]()
    for name in fields:
        matrix, values = column_weights(read_column(dataset, "item", name, "group_field"), _separator(dataset))
        if 0 < len(values) <= _MOST_VALUES:
            parts.append(matrix)
            names += [(name, value) for value in values]
    if not parts:
        return None
    several = len(parts) > 1
    texts = tuple(f"{name}={value}" if several else value for name, value in names)
    return Attributes(texts, sparse.csr_matrix(sparse.hstack(parts, format="csr")))


def _separator(dataset: DataSet) -> str | None:
    separator: str | None = dataset.config["seq_separator"]
    return separator


def label_scores(model: Any, populations: Populations, attributes: Attributes) -> Floats:
    """Tf-idf of every attribute for every neuron, float64 ``[N, A]``.

    ``tf``: the mean of two shares of the attribute. In the histories of the real users for whom the neuron fires,
    weighted by their activations; and among the :data:`TOP_ITEMS` items whose scores it raises most. A neuron that
    fires for nobody has the second one alone. ``idf``: ``log(n / n_a)`` with ``n_a`` of ``n`` items that have it.

    Args:
        model: a fitted PopSteer model.
        populations: the users.
        attributes: the items' attributes.
    """
    by_user = _user_shares(populations, attributes)
    fired = fired_activations(model, populations)
    weight = np.asarray(fired.sum(axis=0)).ravel()
    of_users = np.asarray(fired.T @ by_user) / np.maximum(weight, np.finfo(np.float64).tiny)[:, None]
    of_items = _item_shares(model, attributes)
    tf = np.where(weight[:, None] > 0, (of_users + of_items) / 2, of_items)
    having = np.asarray((attributes.matrix > 0).sum(axis=0)).ravel()
    idf = np.log((attributes.matrix.shape[0] - 1) / np.maximum(having, 1))
    return tf * idf


@torch.no_grad()
def fired_activations(model: Any, populations: Populations) -> sparse.csr_matrix:
    """Sparse ``[U, N]`` activations of the real users after selection, in magnitude."""
    parts = []
    n = model.sae.n_latents
    for vectors in torch.split(populations.real, _ROWS):
        values, indices = model.sae.encode_sparse(vectors)
        rows = np.repeat(np.arange(len(vectors)), values.shape[1])
        shape = (len(vectors), n)
        cells = values.abs().double().cpu().numpy().ravel()
        parts.append(sparse.csr_matrix((cells, (rows, indices.cpu().numpy().ravel())), shape=shape))
    return sparse.vstack(parts, format="csr")


def _user_shares(populations: Populations, attributes: Attributes) -> Floats:
    """Shares of the attributes in the real users' histories ``[U, A]``, 0 without any."""
    inter = populations.inter
    rows = np.full(inter.n_users, -1)
    rows[populations.users] = np.arange(len(populations.users))
    own = rows[inter.user] >= 0
    n = len(populations.users)
    shares = group_distribution(inter.item[own], rows[inter.user][own], n, attributes.matrix)
    found: Floats = np.nan_to_num(shares)
    return found


@torch.no_grad()
def _item_shares(model: Any, attributes: Attributes) -> Floats:
    """Shares of the attributes among the items that each neuron promotes most ``[N, A]``."""
    items = model.item_representations()[1:]
    top = min(TOP_ITEMS, len(items))
    matrix = attributes.matrix[1:]
    found = np.zeros((model.sae.n_latents, matrix.shape[1]))
    for block in blocks(model.sae.n_latents, len(items)):
        rows = torch.from_numpy(block).to(items.device)
        best = (model.sae.W_dec[rows] @ items.t()).topk(top, dim=1).indices.cpu().numpy()
        chosen = sparse.csr_matrix(
            (np.ones(best.size), (np.repeat(np.arange(len(block)), top), best.ravel())), shape=(len(block), len(items))
        )
        shares = np.asarray((chosen @ matrix).todense())
        found[block] = shares / np.maximum(shares.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return found


def labels_of(scores: Floats, names: tuple[str, ...], most: int = 3) -> list[list[str]]:
    """The attributes of each neuron with the largest scores above 0, best first, ``most`` at most."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :most]
    return [[names[a] for a in row if scores[j, a] > 0] for j, row in enumerate(order)]


def concept_effects(model: Any) -> pd.DataFrame:
    """Effect size of every neuron for every concept of the fit: a column a label, a row a neuron."""
    effect = COLUMNS.index("effect_size")
    known = model.known_concepts
    return pd.DataFrame(
        {str(one["label"]): model.neurons_of(row)[:, effect].cpu().numpy() for row, one in enumerate(known)}
    )


def strongest_by_concept(model: Any, n: int = 1) -> dict[str, list[int]]:
    """The ``n`` neurons that lean most to each concept, by effect size times firing rate."""
    return {
        str(one["label"]): strongest_neurons(model.neurons_of(row).cpu(), n)["popular"]
        for row, one in enumerate(model.known_concepts)
    }
