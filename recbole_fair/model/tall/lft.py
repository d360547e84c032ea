"""LFT and EnLFT: copies of a WL model fine-tuned to the neighbours of users (Zhu and Caverlee, WSDM 2022)."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.data.contract import DataSet, EvaluationLoader, TrainingLoader
from recbole_fair.model.posthoc import progress_bar
from recbole_fair.model.tall.experts import Bags
from recbole_fair.model.tall.fine_tuning import Recipe, cost, fine_tuned
from recbole_fair.model.tall.keys import EXPERTS_KEYS, LFT_KEYS
from recbole_fair.model.tall.local import LocalModel
from recbole_fair.model.tall.tall import WL

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

_SMOOTHERS = 10  # at least so many of the most similar users smooth a profile
_BLOCK = 1024  # users whose similarities to all others are in memory at once


def jaccard(sets: sparse.csr_matrix, rows: slice) -> Floats:
    """Jaccard similarity of some rows of a matrix of zeros and ones to all rows, 0 with themselves: ``[B, N]``."""
    common = np.asarray((sets[rows] @ sets.T).todense(), dtype=np.float32)
    sizes = np.asarray(sets.sum(1)).ravel().astype(np.float32)
    similarity = common / np.maximum(sizes[rows][:, None] + sizes[None, :] - common, 1e-7)
    similarity[np.arange(len(similarity)), np.arange(rows.start, rows.start + len(similarity))] = 0.0
    return similarity


def smoothed_profiles(sets: sparse.csr_matrix, own: float, threshold: float) -> Floats:
    """Profiles ``own * row + (1 - own) * mean row of the similar users``.

    Similar are the users with a Jaccard similarity above the threshold, at least the ten most similar ones.

    Args:
        sets: users by items, zeros and ones ``[N, I]``.
        own: weight of the user's own row.
        threshold: of the similarity.

    Returns:
        ``[N, I]``.
    """
    n = sets.shape[0]
    profiles = np.empty(sets.shape, dtype=np.float32)
    least = min(_SMOOTHERS, n - 1)
    for start in range(0, n, _BLOCK):
        rows = slice(start, min(start + _BLOCK, n))
        similarity = jaccard(sets, rows)
        chosen = _at_least(similarity, threshold, least)
        weights = sparse.csr_matrix(chosen.astype(np.float32) / np.maximum(chosen.sum(1, keepdims=True), 1))
        profiles[rows] = own * sets[rows].todense() + (1.0 - own) * (weights @ sets).todense()
    return profiles


def _at_least(similarity: Floats, threshold: float, least: int) -> npt.NDArray[np.bool_]:
    """Entries above a threshold, and at least the ``least`` largest of each row."""
    chosen = similarity > threshold
    few = np.flatnonzero(chosen.sum(1) < least)
    if len(few) and least > 0:
        top = np.argpartition(-similarity[few], least - 1, axis=1)[:, :least]
        chosen[few[:, None], top] = True
    return chosen


def unit_rows(profiles: Floats) -> Floats:
    """Rows divided by their Euclidean length."""
    return profiles / np.maximum(np.linalg.norm(profiles, axis=1, keepdims=True), 1e-12)


def neighbourhoods(unit: Floats, rows: Ids, threshold: float, least: int, most: int | None) -> list[Ids]:
    """The users most similar to some users, who are among their own neighbours.

    Args:
        unit: profiles of length 1 ``[N, I]``.
        rows: whose neighbours ``[R]``.
        threshold: of the cosine similarity; users above it are neighbours.
        least: smallest number of neighbours.
        most: largest number, or None.

    Returns:
        Row numbers of each one's neighbours, rising.
    """
    n = len(unit)
    found: list[Ids] = []
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        similarity = unit[block] @ unit.T
        similarity[np.arange(len(block)), block] = np.inf  # the user first, whatever rounding says
        chosen = _at_least(similarity, threshold, min(least, n))
        if most is not None and most < n:
            for row in np.flatnonzero(chosen.sum(1) > most):
                chosen[row] = False
                chosen[row, np.argpartition(-similarity[row], most - 1)[:most]] = True
        found += [np.flatnonzero(row) for row in chosen]
    return found


def spread_anchors(unit: Floats, count: int, repulsion: float = 1.5) -> Ids:
    """Anchors chosen greedily: similar to those not chosen, unlike those chosen.

    With i anchors chosen of N users the next one has the largest ``S / (N - i) - repulsion * D / i``; S is a user's
    summed similarity to the users not chosen (itself apart), D that to the chosen ones.

    Args:
        unit: profiles of length 1 ``[N, I]``.
        count: number of anchors, at most N.
        repulsion: weight of the second part.

    Returns:
        Row numbers ``[count]`` in the order of choice; ties go to the lowest.
    """
    n = len(unit)
    total = (unit @ unit.sum(0, dtype=np.float64)) - np.square(unit, dtype=np.float64).sum(1)
    to_chosen = np.zeros(n)
    free = np.ones(n, dtype=bool)
    chosen: list[int] = []
    for i in range(count):
        score = (total - to_chosen) / (n - i) - (repulsion * to_chosen / i if i else 0.0)
        best = int(np.where(free, score, -np.inf).argmax())
        chosen.append(best)
        free[best] = False
        to_chosen += unit @ unit[best]
    return np.array(chosen)


class FineTuned(LocalModel):
    """What LFT and EnLFT share: smoothed profiles, neighbours and the recipe, on a trained WL.

    With ``wl_exponent: 0`` the copies start from a plain MultVAE.
    """

    keys = LFT_KEYS
    base_class: ClassVar[type[Any]] = WL
    base_model_name: ClassVar[str] = "WL"

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        super().__init__(config, dataset)
        self.recipe = Recipe.of(config)
        self.smoothing = float(config["lft_smoothing"])
        self.smoothing_threshold = float(config["lft_smoothing_threshold"])
        self.threshold = float(config["lft_threshold"])
        self.least = int(config["lft_min_neighbors"])
        self.most = None if config["lft_max_neighbors"] is None else int(config["lft_max_neighbors"])

    def _profiles(self, users: Tensor) -> Floats:
        rows = self.rows.of(users).to("cpu")
        entries = np.ones(len(rows.columns), dtype=np.float32)
        shape = (len(rows), rows.n_columns)
        sets = sparse.csr_matrix((entries, rows.columns.numpy(), rows.indptr.numpy()), shape=shape)
        return unit_rows(smoothed_profiles(sets, self.smoothing, self.smoothing_threshold))

    def _groups(self, unit: Floats, rows: Ids, users: Tensor) -> list[Tensor]:
        found = neighbourhoods(unit, rows, self.threshold, self.least, self.most)
        return [users[torch.from_numpy(group).to(users.device)] for group in found]

    def _announce(self, groups: list[Tensor]) -> dict[str, float]:
        """Say what fine-tuning will cost before it starts."""
        expected = cost(self.base.experts, groups, self.rows, self.recipe)
        logger.info(
            "%s fine-tunes %d copies on %.0f users each on average for %d epochs: %.2f TFLOP in matrix products, about "
            "%.1f minutes here, %.0f MB for the copies at work.",
            type(self).__name__,
            expected["copies"],
            expected["mean_users"],
            self.recipe.epochs,
            expected["teraflop"],
            expected["minutes"],
            expected["chunk_megabytes"],
        )
        return expected


class LFT(FineTuned):
    """A copy of WL for every user, fine-tuned on the user's neighbours and used for this user alone.

    The copies are worked off in chunks, and only their scores for their user are kept.

    Attributes:
        scores: scores of each user id for all items without the padding ``[n_users, I]``.
    """

    scores: Tensor

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        super().__init__(config, dataset)
        self.register_buffer("scores", torch.zeros(self.n_users, self.n_items - 1, device=self.device))

    def fit_intervention(
        self, train_data: TrainingLoader, valid_data: EvaluationLoader | None, show_progress: bool = False
    ) -> dict[str, Any]:
        """Fine-tune a copy for each user; neither validation nor early stopping is involved."""
        users = self.active_users()
        groups = self._groups(self._profiles(users), np.arange(len(users)), users)
        expected = self._announce(groups)
        with progress_bar("LFT", show_progress) as move:
            for part, copies in fine_tuned(self.base.experts, groups, self.rows, self.recipe, move):
                own = users[torch.tensor(part, device=users.device)]
                self.scores[own] = copies.scores(self.rows.of(own))
        self.fitted.fill_(True)
        self.report = {"fine_tuning": expected}
        return self.report

    def local_scores(self, users: Tensor) -> Tensor:
        """The scores that each user's own copy gave."""
        return self.scores[users]


class EnLFT(FineTuned):
    """Copies of WL fine-tuned around ``n_experts`` anchor users, averaged by a user's similarity to the anchors.

    Attributes:
        experts: the fine-tuned copies.
        similarity: weight of each copy for each user id ``[n_users, E]``, rows of users with training items sum to
            1.
    """

    keys = EXPERTS_KEYS
    similarity: Tensor

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        super().__init__(config, dataset)
        self.n_experts = int(config["n_experts"])
        self.experts = self.make_experts(config)
        self.register_buffer("similarity", torch.zeros(self.n_users, self.n_experts, device=self.device))

    def fit_intervention(
        self, train_data: TrainingLoader, valid_data: EvaluationLoader | None, show_progress: bool = False
    ) -> dict[str, Any]:
        """Choose anchors and fine-tune a copy around each."""
        users = self.active_users()
        unit = self._profiles(users)
        anchors = spread_anchors(unit, self.n_experts)
        groups = self._groups(unit, anchors, users)
        expected = self._announce(groups)
        with progress_bar("EnLFT", show_progress) as move:
            for part, copies in fine_tuned(self.base.experts, groups, self.rows, self.recipe, move):
                copies.write(self.experts, part)
        self.similarity[users] = torch.from_numpy(anchor_weights(unit @ unit[anchors].T, self.threshold)).to(
            self.device
        )
        self.fitted.fill_(True)
        self.report = {"fine_tuning": expected}
        return self.report

    def local_scores(self, users: Tensor) -> Tensor:
        """Mean scores of the copies by the user's similarity to their anchors."""
        latent = self.experts.encode_mean(Bags.normalised(self.rows.of(users), self.n_experts))
        return self.experts.mixture(latent, self.similarity[users])


def anchor_weights(similarity: Floats, threshold: float) -> Floats:
    """Weights of anchors: similarities, those below a threshold set to 0 unless all are, made to sum to 1.

    Args:
        similarity: of each user to each anchor ``[N, E]``.
        threshold: see above.

    Returns:
        ``[N, E]``; equal weights for a user who is similar to no anchor at all.
    """
    kept = np.where(similarity < threshold, 0.0, similarity)
    none = ~(kept > 0).any(1)
    kept[none] = np.maximum(similarity[none], 0.0)
    kept[~(kept > 0).any(1)] = 1.0
    return (kept / kept.sum(1, keepdims=True)).astype(np.float32)
