"""What the neurons of PopSteer respond to, and what turning some of them does (PopSteer sections 3 and 5.3).

Everything returns data frames; :mod:`recbole_fair.report.neuron_figures` draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse, stats

from recbole_fair.analysis.populations import NAMES, Floats, Ids, Populations, activations, blocks
from recbole_fair.model.popsteer.neurons import COLUMNS, strongest_neurons

#: Bounds of Table 1: a distribution is taken as nearly normal inside both.
MAX_SKEW, MAX_KURTOSIS = 0.5, 1.0
#: Level of D'Agostino and Pearson's test.
LEVEL = 0.05
#: Users of average activation added to each item before items are ranked by their users' activation.
SMOOTHING = 10
#: Quantiles that describe the activations of a neuron.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

Show = Callable[[Sequence[Any]], Iterable[Any]]


def neuron_frame(model: Any) -> pd.DataFrame:
    """One row a neuron: its statistics, effect size, and the direction, weight and shift of steering as it is set.

    Args:
        model: a fitted PopSteer model.

    Returns:
        ``neuron``, the columns of :data:`recbole_fair.model.popsteer.neurons.COLUMNS`, ``direction`` (-1 lowered, 1
        raised, 0 left alone), ``weight`` (Eq. 5) and ``shift``, which is added to the pre-activation (Eq. 4).
    """
    table = model.neurons.cpu()
    frame = pd.DataFrame(table.numpy(), columns=list(COLUMNS))
    frame.insert(0, "neuron", np.arange(len(frame)))
    frame["alive"] = frame["alive"] > 0
    weight, shift = (moves.double().cpu() for moves in model.steering_moves())
    frame["direction"] = shift.sign().long().numpy()
    frame["weight"] = weight.numpy()
    frame["shift"] = shift.numpy()
    return frame


def strongest(model: Any, n: int) -> dict[str, list[int]]:
    """The ``n`` neurons of either sign with the largest effect size, strongest first."""
    return strongest_neurons(model.neurons.cpu(), n)


def activation_frame(model: Any, populations: Populations, neurons: Sequence[int]) -> pd.DataFrame:
    """How some neurons respond to each kind of users.

    Returns:
        One row a neuron and population: ``neuron``, ``population``, ``users``, ``mean``, ``std``, and the quantiles of
        :data:`QUANTILES` as ``q05`` ... ``q95``, of pre-activations.
    """
    rows = []
    for name in NAMES:
        z = activations(model, populations[name], np.asarray(neurons))
        points = np.quantile(z, QUANTILES, axis=0)
        for column, neuron in enumerate(neurons):
            quantiles = {f"q{round(100 * q):02d}": points[row, column] for row, q in enumerate(QUANTILES)}
            rows.append(
                {"neuron": neuron, "population": name, "users": len(z), "mean": z[:, column].mean(),
                 "std": z[:, column].std(), **quantiles}
            )  # fmt: skip
    return pd.DataFrame(rows)


# -- normality (Table 1) -----------------------------------------------------------------------------------------------


def normality_frame(model: Any, populations: Populations) -> pd.DataFrame:
    """How normal each neuron's pre-activations are under each kind of users.

    Returns:
        One row a neuron: ``neuron`` and for each population ``skew_*``, ``kurtosis_*`` (excess, both biased: moments
        over n) and ``p_*``, the p-value of D'Agostino and Pearson's test; NaN without variance.
    """
    n = len(model.neurons)
    found: dict[str, list[Floats]] = {}
    for name in NAMES:
        vectors = populations[name]
        for block in blocks(n, len(vectors)):
            z = activations(model, vectors, block)
            flat = z.std(axis=0) <= 1e-6 * (1.0 + np.abs(z).max(axis=0))
            z[:, flat] = np.nan
            with np.errstate(invalid="ignore"):
                values = {
                    "skew": stats.skew(z, axis=0),
                    "kurtosis": stats.kurtosis(z, axis=0),
                    "p": stats.normaltest(z, axis=0).pvalue if len(z) >= 20 else np.full(z.shape[1], np.nan),
                }
            for key, part in values.items():
                found.setdefault(f"{key}_{name}", []).append(np.asarray(part, dtype=np.float64))
    columns = {key: np.concatenate(parts) for key, parts in found.items()}
    return pd.DataFrame({"neuron": np.arange(n), **columns})


def normality_summary(normality: pd.DataFrame, alive: pd.Series[bool]) -> pd.DataFrame:
    """Shares of neurons that look normal (PopSteer Table 1), for all neurons and for those that ever fire.

    Args:
        normality: what :func:`normality_frame` returned.
        alive: whether each neuron fires for some training vector.

    Returns:
        ``population``, ``neurons`` (``all`` or ``alive``), ``count``, ``skew`` and ``kurtosis`` (shares inside the
        bounds), ``both``, and ``test`` (share that the test does not reject at 5 %). A neuron without variance passes
        nothing.
    """
    rows = []
    for name in NAMES:
        for which, kept in (("all", np.ones(len(normality), dtype=bool)), ("alive", np.asarray(alive, dtype=bool))):
            part = normality[kept]
            skew, kurtosis = part[f"skew_{name}"].abs() < MAX_SKEW, part[f"kurtosis_{name}"].abs() < MAX_KURTOSIS
            test = part[f"p_{name}"] >= LEVEL
            shares = {"skew": skew, "kurtosis": kurtosis, "both": skew & kurtosis, "test": test}
            means = {key: float(value.mean()) if len(part) else np.nan for key, value in shares.items()}
            rows.append({"population": name, "neurons": which, "count": len(part), **means})
    return pd.DataFrame(rows)


# -- users and items of a neuron (Figure 3) ----------------------------------------------------------------------------


def top_users(model: Any, populations: Populations, n: int = 10) -> pd.DataFrame:
    """The real users who activate each neuron most.

    Returns:
        One row a neuron and place: ``neuron``, ``rank`` (from 1), ``user`` (inner id), ``activation``, ``head_share``.
        Of equal activations the user with the smaller id comes first.
    """
    share, frames = populations.head_share, []
    n = min(n, len(populations.users))
    for block in blocks(len(model.neurons), len(populations.real)):
        z = activations(model, populations.real, block)
        order = _largest(z, n)
        frames.append(
            pd.DataFrame(
                {
                    "neuron": np.repeat(block, n),
                    "rank": np.tile(np.arange(1, n + 1), len(block)),
                    "user": populations.users[order].T.ravel(),
                    "activation": np.take_along_axis(z, order, axis=0).T.ravel(),
                    "head_share": share[order].T.ravel(),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def head_share_of_top_users(users: pd.DataFrame) -> pd.Series[float]:
    """Mean share of head items of each neuron's top users (the circles of PopSteer Figure 3), by neuron."""
    return users.groupby("neuron")["head_share"].mean()


def top_items(model: Any, populations: Populations, n: int = 10) -> pd.DataFrame:
    """The items that belong to each neuron, in two senses.

    ``history``: items whose users activate the neuron most: the mean standardised activation of the real users who
    have the item in training, shrunk towards the average by :data:`SMOOTHING` further users.
    ``promoted``: items whose score rises most when the neuron fires: the product of its decoder row with the items'
    representations.

    Returns:
        One row a neuron, sense and place: ``neuron``, ``kind``, ``rank`` (from 1), ``item`` (inner id), ``score``.
    """
    shown = sparse_histories(populations)
    per_item = np.asarray(shown.sum(axis=1)).ravel() + SMOOTHING
    items = model.item_representations().detach()
    n = min(n, len(items) - 1)
    frames = []
    for block in blocks(len(model.neurons), max(len(populations.real), len(items))):
        z = activations(model, populations.real, block)
        z = (z - z.mean(axis=0)) / np.maximum(z.std(axis=0), np.finfo(np.float64).tiny)
        liked = (shown @ z) / per_item[:, None]
        rows = torch.from_numpy(block).to(items.device)
        promoted = (items @ model.sae.W_dec.detach()[rows].t()).double().cpu().numpy()
        for kind, score in (("history", liked), ("promoted", promoted)):
            order = _largest(score[1:], n)  # id 0 is the padding
            frames.append(
                pd.DataFrame(
                    {
                        "neuron": np.repeat(block, n),
                        "kind": kind,
                        "rank": np.tile(np.arange(1, n + 1), len(block)),
                        "item": (order + 1).T.ravel(),
                        "score": np.take_along_axis(score[1:], order, axis=0).T.ravel(),
                    }
                )
            )
    return pd.concat(frames, ignore_index=True).sort_values(["neuron", "kind", "rank"], ignore_index=True)


def sparse_histories(populations: Populations) -> Any:
    """Sparse ``[n_items, U]``: how often each real user has each item in training."""
    inter = populations.inter
    row = np.full(inter.n_users, -1)
    row[populations.users] = np.arange(len(populations.users))
    column = row[inter.user]
    known = column >= 0
    shape = (inter.n_items, len(populations.users))
    return sparse.csr_matrix((np.ones(int(known.sum())), (inter.item[known], column[known])), shape=shape)


def _largest(values: Floats, n: int) -> Ids:
    """Rows ``[n, m]`` of the ``n`` largest values of each column of ``[rows, m]``, largest first, ties by row."""
    if n < len(values):
        # Everything at least as large as the n-th largest takes part in the sort: ties must not be cut at random.
        least = np.partition(values, len(values) - n, axis=0)[len(values) - n]
        result = np.empty((n, values.shape[1]), dtype=np.int64)
        for column in range(values.shape[1]):
            rows = np.flatnonzero(values[:, column] >= least[column])
            result[:, column] = rows[np.argsort(-values[rows, column], kind="stable")[:n]]
        return result
    return np.argsort(-values, axis=0, kind="stable")


# -- turning neurons (Figures 4 and 6) ---------------------------------------------------------------------------------


def reduced_neurons(model: Any, side: str) -> list[int]:
    """Neurons that fire and have an effect above 1 (``popular``) or below -1 (``unpopular``), strongest first."""
    table = model.neurons.cpu()
    d = table[:, COLUMNS.index("effect_size")] * (1.0 if side == "popular" else -1.0)
    able = (d > 1) & (table[:, COLUMNS.index("alive")] > 0)
    order = torch.argsort(d, descending=True, stable=True)
    return [int(j) for j in order.tolist() if able[j]]


def doubling(n: int) -> list[int]:
    """0, 1, 2, 4, 8, ... and ``n``."""
    steps = [0]
    while steps[-1] < n:
        steps.append(min(max(1, 2 * steps[-1]), n))
    return steps
