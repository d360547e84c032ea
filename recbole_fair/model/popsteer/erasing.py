"""Making representations say less about who has a concept, rather than moving everybody towards it or away."""

from __future__ import annotations

from torch import Tensor

from recbole_fair.model.popsteer.sae import TopKSAE


def erase_by_neurons(sae: TopKSAE, users: Tensor, weights: Tensor, middle: Tensor) -> tuple[Tensor, Tensor]:
    """Each neuron moves part of the way from where it is to the middle between both sides' means.

    At the middle a neuron says nothing about the side; so does a neuron without an effect, which is left alone.

    Args:
        sae: the autoencoder.
        users: ``[B, d]``.
        weights: ``[N]`` in [0, 1], how much of the way each neuron goes.
        middle: ``[N]`` pre-activations halfway between the means of either side.

    Returns:
        Two ``[B, d]``: the reconstruction of the moved users, and of the users as they are.
    """
    pre = (users - sae.b_dec) @ sae.W_enc.t() + sae.b_enc
    return sae.decode_plain(pre + weights.to(pre) * (middle.to(pre) - pre)), sae.decode_plain(pre)


def erase_linearly(users: Tensor, positive: Tensor, negative: Tensor, whitened: Tensor, share: float) -> Tensor:
    """Users without what tells both sides apart linearly, by least squares: no autoencoder.

    ``x - share * step (w (x - m)) / (w step)``, with ``step`` the difference of the sides' means, ``m`` the point
    halfway and ``w`` the inverse covariance times ``step``: at ``share`` 1 the closed form of least-squares concept
    erasure for two groups (LEACE, Belrose et al., 2023), after which both sides have the same mean.

    Args:
        users: ``[B, d]``.
        positive: ``[d]`` mean of the users with the concept.
        negative: ``[d]`` of those without.
        whitened: ``[d]`` inverse covariance times the difference of the means.
        share: in [0, 1].
    """
    step, middle = positive - negative, (positive + negative) / 2
    size = whitened @ step
    if float(size) == 0:
        return users
    along = (users.double() - middle) @ whitened / size
    moved: Tensor = users - (share * along.unsqueeze(1) * step).to(users)
    return moved
