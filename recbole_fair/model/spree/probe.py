"""Where a transformer encodes popularity, and how biased a user's lists are, read off activations (SPREE, section 5).

Everything here is plain arithmetic on arrays of activations; :mod:`recbole_fair.model.spree.spree` collects and edits
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import Lasso, LassoCV, LogisticRegression
from sklearn.metrics import mean_squared_error, r2_score
from sklearn.model_selection import KFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.quantiles import calibration_shares
from recbole_fair.errors import FairError

FloatArray = npt.NDArray[np.floating[Any]]

#: Sites whose probes are this close to the best one count as equally good.
TOLERANCE = 0.001
#: Fewer users than this cannot be split into a training and a held-out part and five folds.
MIN_USERS = 20
#: The bias lies between these (Eq. 4), and so do its estimates.
LARGEST_BIAS = 0.5


class Site(NamedTuple):
    """A place in the residual stream: what leaves one block at one position of the sequence."""

    block: int
    """1 for the first block."""
    position: int
    """Counted from the end of the real sequence: -1 is the last item, -2 the one before."""


def parse_sites(value: Any, n_blocks: int, window: int) -> list[Site]:
    """The sites that ``spree_sites`` names.

    Args:
        value: ``last`` (the last position of every block), ``grid`` (every block and position), or a list of pairs
            ``[block, position]``.
        n_blocks: blocks of the encoder.
        window: positions.

    Returns:
        Distinct sites in ascending order.

    Raises:
        FairError: for anything else, or a site that the encoder does not have.
    """
    if value == "last":
        return [Site(block, -1) for block in range(1, n_blocks + 1)]
    if value == "grid":
        return [Site(block, -back) for block in range(1, n_blocks + 1) for back in range(window, 0, -1)]
    wanted = f"spree_sites={value!r}: must be last, grid or a list of [block, position] pairs"
    if not isinstance(value, list | tuple) or not value:
        raise FairError(f"{wanted}.")
    sites = set()
    for pair in value:
        whole = isinstance(pair, list | tuple) and len(pair) == 2 and all(type(number) is int for number in pair)
        if not whole or not (1 <= pair[0] <= n_blocks and -window <= pair[1] <= -1):
            raise FairError(
                f"{wanted} with blocks 1 to {n_blocks} and positions -1 (the last item) to -{window}; {pair!r} is none."
            )
        sites.add(Site(*pair))
    return sorted(sites)


def probe_accuracy(popular: FloatArray, unpopular: FloatArray, seed: int) -> float:
    """Held-out accuracy of a linear probe that tells two groups of users by their activations (section 5.2).

    Logistic regression (L2, C = 1) on standardised activations, trained on 80 % of the users, tested on the others,
    both groups in the same proportion.

    Args:
        popular: ``[n, d]`` activations of one group.
        unpopular: ``[m, d]`` activations of the other.
        seed: of the split.

    Returns:
        Accuracy in [0, 1].
    """
    x = np.concatenate([popular, unpopular])
    y = np.repeat([1, 0], [len(popular), len(unpopular)])
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, stratify=y, random_state=seed)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    return float(probe.fit(x_train, y_train).score(x_test, y_test))


def choose_site(accuracies: Mapping[Site, float]) -> Site:
    """The site to steer: among those within :data:`TOLERANCE` of the best, the last block, then the last position.

    Probes reach an accuracy of 1 almost everywhere in a trained model, so that the best one alone decides nothing; the
    paper's own choice is "typically" the last block at the last position.
    """
    enough = max(accuracies.values()) - TOLERANCE - 1e-12
    return max(site for site, accuracy in accuracies.items() if accuracy >= enough)


@dataclass(frozen=True)
class BiasEstimator:
    """A Lasso regression from activations to the popularity bias of a user's list (section 5.3).

    Attributes:
        coefficients: ``[d]``, for activations as they are (the standardisation is folded in).
        intercept: added to their product.
        alpha: weight of the L1 penalty in use, on standardised activations.
        r2: share of variance explained for held-out users, estimates clipped; from a fit on the other 70 %.
        mse: mean squared error for the same users.
        users: how many users it was fitted on in the end.
    """

    coefficients: FloatArray
    intercept: float
    alpha: float
    r2: float
    mse: float
    users: int

    @property
    def nonzero(self) -> int:
        """Number of coefficients that the penalty has left."""
        return int(np.count_nonzero(self.coefficients))

    def __call__(self, x: FloatArray) -> FloatArray:
        """Estimates for ``[n, d]`` activations, clipped to the range of the bias, ``[n]``."""
        estimates: FloatArray = np.clip(x @ self.coefficients + self.intercept, -LARGEST_BIAS, LARGEST_BIAS)
        return estimates


def fit_bias_estimator(x: FloatArray, bias: FloatArray, regularization: float | str, seed: int) -> BiasEstimator:
    """Fit the estimator: on 70 % of the users to measure it on the others, then on all of them.

    Args:
        x: ``[n, d]`` activations.
        bias: ``[n]`` in [-0.5, 0.5].
        regularization: weight of the L1 penalty on standardised activations, or ``cv``: chosen among 100 by five-fold
            cross-validation, anew in each of the two fits. A fixed weight of 1, scikit-learn's default, leaves no
            coefficient: the bias varies by less than 0.2.
        seed: of the split and the folds.

    Raises:
        FairError: with fewer than 20 users.
    """
    if len(x) < MIN_USERS:
        raise FairError(
            f"SPREE learns from validation users and needs at least {MIN_USERS} of them; the data set has {len(x)}."
        )
    x, bias = x.astype(np.float64), bias.astype(np.float64)
    x_train, x_test, y_train, y_test = train_test_split(x, bias, test_size=0.3, random_state=seed)
    estimates = _fit_lasso(x_train, y_train, regularization, seed)(x_test)
    fitted = _fit_lasso(x, bias, regularization, seed)
    return BiasEstimator(
        fitted.coefficients,
        fitted.intercept,
        fitted.alpha,
        float(r2_score(y_test, estimates)),
        float(mean_squared_error(y_test, estimates)),
        len(x),
    )


def _fit_lasso(x: FloatArray, y: FloatArray, regularization: float | str, seed: int) -> BiasEstimator:
    if regularization == "cv":
        # The order of validation users is that of the data file; folds must not depend on it.
        folds = KFold(5, shuffle=True, random_state=seed)
        lasso: Any = LassoCV(cv=folds, max_iter=10_000, random_state=seed)
    else:
        lasso = Lasso(alpha=float(regularization), max_iter=10_000, random_state=seed)
    scaler = StandardScaler()
    lasso.fit(scaler.fit_transform(x), y)
    coefficients = lasso.coef_ / scaler.scale_
    intercept = float(lasso.intercept_ - scaler.mean_ @ coefficients)
    alpha = lasso.alpha_ if regularization == "cv" else lasso.alpha
    return BiasEstimator(coefficients, intercept, float(alpha), np.nan, np.nan, len(x))


def median_bias(counts: Tensor, lists: Tensor, histories: Histories) -> Tensor:
    """How much more popular than a user's history the user's list is, at the median (SPREE Eq. 4).

    Args:
        counts: popularity of each item id, long ``[n_items]``.
        lists: ``[U, K]`` item ids, 0 = no item.
        histories: row ``r`` is the history of list ``r``.

    Returns:
        float64 ``[U]``: the share of the history that is at most as popular as the list's lower median, less 0.5.
        Positive: the list is the more popular one. NaN without a list or a history.
    """
    indptr, items = torch.from_numpy(histories.indptr), torch.from_numpy(histories.items)
    return calibration_shares(counts.cpu(), lists, indptr, items, [lists.shape[1]], [0.5])[:, 0, 0] - 0.5


def share_bias(weight: Tensor, lists: Tensor, histories: Histories) -> Tensor:
    """How much more of a concept stands in a user's list than in the user's history: half the difference of shares.

    The half keeps it between -0.5 and 0.5, as :func:`median_bias` is.

    Args:
        weight: ``[n_items]`` in [0, 1], how much an item counts for the concept.
        lists: ``[U, K]`` item ids, 0 = no item.
        histories: row ``r`` is the history of list ``r``.

    Returns:
        float64 ``[U]``; NaN without a list or a history.
    """
    weight = weight.double().cpu()
    shown = lists > 0
    in_lists = (weight[lists] * shown).sum(1) / shown.sum(1)
    totals = np.bincount(histories.users, weights=weight.numpy()[histories.items], minlength=histories.n_users)
    with np.errstate(invalid="ignore"):
        in_history = torch.from_numpy(totals / histories.lengths)
    return (in_lists - in_history) / 2
