"""Controls: what else could have steered. Random and untrained features match trained ones in language models.

Each control takes the place of the trained autoencoder: one with random features, principal components, the step
between mean users without any autoencoder, the same moves on random neurons, and the same recipe under other seeds.
Source of the question: arXiv 2602.14111.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_fair.model.popsteer.moments import StreamingMoments
from recbole_fair.model.popsteer.neurons import COLUMNS, cohens_d, steering_moves
from recbole_fair.model.popsteer.sae import SAESettings, TopKSAE, fit_sae

#: Moves representations ``[B, d]`` by a strength, 0 leaving them as they are.
Move = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Sides:
    """Representations of the users with a concept and without, which tell what answers to it.

    Attributes:
        positive: ``[n, d]``.
        negative: ``[m, d]``.
        real: ``[U, d]`` real users, over whom steps towards a concept are counted.
        towards: whether a positive strength moves users towards the concept; the paper's moves them away.
    """

    positive: Tensor
    negative: Tensor
    real: Tensor
    towards: bool = False

    def table(self, sae: TopKSAE) -> Tensor:
        """The neuron table ``[N, len(COLUMNS)]`` of another autoencoder, without how often its neurons fire."""
        weight = sae.W_enc.detach().double()
        offset = sae.b_enc.detach().double() - weight @ sae.b_dec.detach().double()
        found = torch.zeros(sae.n_latents, len(COLUMNS), dtype=torch.float64)
        parts: list[Tensor] = []
        for vectors in (self.positive, self.negative, self.real):
            moments = StreamingMoments(sae.d_in)
            moments.update(vectors)
            parts += moments.linear(weight, offset)
        for column, values in enumerate(parts):
            found[:, column] = values
        found[:, COLUMNS.index("effect_size")] = cohens_d(*parts[:4])
        return found


def sae_move(sae: TopKSAE, sides: Sides, shuffle_seed: int | None = None, table: Tensor | None = None) -> Move:
    """Steering by an autoencoder, what it cannot reconstruct added back (PopSteer Eq. 4 and 5).

    Away from a concept in the own group's deviations, as in the paper; towards it in those over real users.

    Args:
        sae: the autoencoder.
        sides: users with the concept and without.
        shuffle_seed: hands the moves to random neurons.
        table: the neuron table, if it is known.
    """
    known = sides.table(sae) if table is None else table.cpu()
    sign, sigma = (-1.0, "real") if sides.towards else (1.0, "group")

    def move(users: Tensor, strength: float) -> Tensor:
        shift = steering_moves(known, sign * strength, sign * strength, 0.0, sigma, shuffle_seed)[1]
        moved: Tensor = sae(users, shift.to(users)).reconstruction - sae(users).reconstruction
        return users + moved

    return move


def dense_move(sides: Sides) -> Move:
    """A step along the difference of mean users, as long as the strength."""
    step = sides.negative.double().mean(0) - sides.positive.double().mean(0)
    step = step / step.norm().clamp_min(torch.finfo(step.dtype).tiny)
    sign = -1.0 if sides.towards else 1.0
    return lambda users, strength: users + (sign * strength * step).to(users)


def like(sae: TopKSAE) -> TopKSAE:
    """An autoencoder of the same make, not initialised from anything."""
    made = TopKSAE(sae.d_in, sae.n_latents, sae.k, selection=sae.selection, activation=sae.activation)
    return made.to(sae.W_enc.device).eval()


def random_sae(sae: TopKSAE, vectors: Tensor, seed: int) -> TopKSAE:
    """The same sizes with random unit features, the encoder tied to them, never trained."""
    made = like(sae)
    made.initialize(vectors, torch.Generator().manual_seed(seed))
    return made


def principal_components(sae: TopKSAE, vectors: Tensor) -> TopKSAE:
    """Both directions of every principal component of the vectors as features, with the autoencoder's k."""
    d = sae.d_in
    centred = vectors.double() - vectors.double().mean(0)
    axes = torch.linalg.eigh(centred.t() @ centred).eigenvectors.t().to(vectors)
    made = TopKSAE(d, 2 * d, min(sae.k, d)).to(vectors.device).eval()
    rows = torch.cat([axes, -axes])
    with torch.no_grad():
        made.W_enc.copy_(rows)
        made.W_dec.copy_(rows)
        made.b_dec.copy_(vectors.mean(0))
    return made


def reseeded_sae(sae: TopKSAE, vectors: Tensor, users: Tensor, settings: SAESettings) -> TopKSAE:
    """The same recipe under another seed, on these vectors."""
    made = like(sae)
    fit_sae(made, vectors, users, settings)
    return made


def overlap(one: Tensor, other: Tensor) -> float:
    """How alike two sets of features are: mean largest cosine of each of ``one`` ``[n, d]`` to those of ``other``."""
    if not len(one) or not len(other):
        return float("nan")
    cosines = torch.nn.functional.normalize(one, dim=1) @ torch.nn.functional.normalize(other, dim=1).t()
    return float(cosines.amax(dim=1).mean())
