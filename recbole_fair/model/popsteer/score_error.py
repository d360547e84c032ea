"""How far the scores of reconstructed users are from those of the users themselves, over all items at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ScoreError(NamedTuple):
    """How much it counts that scores change: ``weight * mean over users of r gram r'`` for residuals ``r``.

    With ``gram`` the mean of ``v v'`` over the items' vectors, ``r gram r'`` is the mean squared change of a user's
    scores over all items. The frozen model's scores of the reconstructed user are then what they were: the idea of the
    interaction-aware autoencoder (arXiv 2511.18024), there on sampled items, here exactly on all of them.
    """

    gram: Tensor
    """``[d, d]``."""
    weight: float


def score_error(items: Tensor, vectors: Tensor, coefficient: float) -> ScoreError | None:
    """The error in scores relative to the variance of the vectors' scores, times a coefficient; None for 0.

    Args:
        items: ``[n, d]`` vectors of the items.
        vectors: ``[m, d]`` vectors of users.
        coefficient: how much it counts beside the error of the reconstruction, which is relative as well.
    """
    if coefficient == 0:
        return None
    gram = (items.t() @ items / len(items)).to(vectors)
    centred = vectors - vectors.mean(dim=0)
    variance = float((centred @ gram * centred).sum() / len(vectors))
    return ScoreError(gram, coefficient / max(variance, torch.finfo(torch.float32).tiny))
