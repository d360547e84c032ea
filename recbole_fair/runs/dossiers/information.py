"""How well representations tell who belongs to a group, before and after it is erased, and what that costs whom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from recbole_fair.analysis.populations import Floats, Populations
from recbole_fair.analysis.significance import bootstrap_means
from recbole_fair.data.contract import EvaluationLoader
from recbole_fair.data.facts.concepts import Concept
from recbole_fair.evaluator.metrics import inputs_of, values_of
from recbole_fair.evaluator.specs import BY_KEY
from recbole_fair.model.popsteer.popsteer import PopSteer
from recbole_fair.trainer.trainer import FairTrainerMixin

_SHARES = (0.5, 1.0)
_MODES = ("erase", "erase_dense")
_RESAMPLES = 500
_GOALS = ("ndcg", "giniindex", "pce")


def probe(vectors: Floats, belongs: np.ndarray[Any, Any], seed: int) -> dict[str, float]:
    """Five-fold cross-validated logistic regression (L2, C = 1, standardised) from representations to a group.

    Args:
        vectors: ``[U, d]``.
        belongs: bool ``[U]``.
        seed: of the folds.

    Returns:
        ``accuracy`` with ``accuracy_low`` and ``accuracy_high`` (95 %, users drawn with replacement), ``auc``, and
        ``majority``, the accuracy of always naming the larger group.
    """
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    chance = cross_val_predict(model, vectors, belongs, cv=folds, method="predict_proba")[:, 1]
    right = ((chance > 0.5) == belongs).astype(np.float64)
    low, high = bootstrap_means(right[:, None], [float(right.mean())], _RESAMPLES, seed)[0]
    share = float(belongs.mean())
    return {
        "accuracy": float(right.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "auc": float(roc_auc_score(belongs, chance)),
        "majority": max(share, 1 - share),
    }


def group_information(
    trainer: FairTrainerMixin, eval_data: EvaluationLoader, populations: Populations, concept: Concept, seed: int
) -> pd.DataFrame:
    """Probe and metrics of the base, and of both ways of erasing at half the way and the whole.

    Args:
        trainer: a trainer with its splits bound and a PopSteer model that was fitted for a concept of users.
        eval_data: the split.
        populations: its users.
        concept: the concept.
        seed: of folds and resamples.

    Returns:
        One row a mode and share: ``mode`` (``base``, ``erase``: by neurons, ``erase_dense``: by least squares),
        ``share``, the entries of :func:`probe`, metrics of all users, and NDCG of either side with its 95 % interval
        and the interval of its change against the base (``ndcg with``, ``... low``, ``... change low`` and so on).
    """
    model = trainer.model
    assert isinstance(model, PopSteer)
    sides = {"with": concept.positive.numpy(), "without": concept.negative.numpy()}
    known = np.isin(populations.users, np.concatenate(list(sides.values())))
    belongs = np.isin(populations.users[known], sides["with"])
    real = populations.real[torch.from_numpy(known).to(populations.real.device)]
    rows, base = [], None
    with model.encoded_once(), trainer.remembered_batches():
        for mode, share in [("base", 0.0), *((mode, share) for mode in _MODES for share in _SHARES)]:
            with _erasing(model, mode, share):
                struct = trainer.collect(eval_data)
                vectors = model.edit(real, "steered") if mode != "base" else real
            found, ndcg = _metrics(trainer, struct)
            users = struct["rec.users"].numpy()
            base = ndcg if base is None else base
            row = {"mode": mode, "share": share, **probe(vectors.double().cpu().numpy(), belongs, seed), **found}
            for name, members in sides.items():
                own = np.isin(users, members)
                row |= _interval(f"ndcg {name}", ndcg[own], seed)
                change = _interval("change", ndcg[own] - base[own], seed)
                row |= {f"ndcg {name} {key}": value for key, value in change.items()}
            rows.append(row)
    return pd.DataFrame(rows)


@contextmanager
def _erasing(model: PopSteer, mode: str, share: float) -> Iterator[None]:
    before = model.strengths
    if mode != "base":
        model.set_strengths(steer=None, steer_mode=mode, erase_share=share)
    try:
        with model.use_variant("base" if mode == "base" else "steered"):
            yield
    finally:
        model.set_strengths(**before)


def _metrics(trainer: FairTrainerMixin, struct: Any) -> tuple[dict[str, float], Floats]:
    """Metrics of the longest lists, and NDCG by row."""
    options = trainer.evaluator.options
    k = max(trainer.config["topk"])
    found, ndcg = {}, np.zeros(0)
    for key in _GOALS:
        values, per_user = values_of(BY_KEY[key], inputs_of(struct, options))
        found[f"{key}@{k}"] = values[f"{key}@{k}"]
        if key == "ndcg" and per_user is not None:
            ndcg = per_user.values[:, options.topk.index(k)].numpy()
    return found, ndcg


def _interval(name: str, values: Floats, seed: int) -> dict[str, float]:
    mean = float(np.nanmean(values))
    low, high = bootstrap_means(values[:, None], [mean], _RESAMPLES, seed)[0]
    return {name: mean, f"{name} low": low, f"{name} high": high}
