"""Top-k sparse autoencoder over user representations (Gao et al., 2024; PopSteer, WWW 2026, section 2).

``TopKSAE`` is the model, ``fit_sae`` trains it on a tensor of vectors, ``measure_sae`` says how good it is.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from recbole_fair.errors import FairError
from recbole_fair.model.popsteer.sparse_ops import grouped_topk, sparse_decode, topk_linear


class SAEOutput(NamedTuple):
    """One forward pass."""

    reconstruction: Tensor
    """``[B, d]``."""
    values: Tensor
    """``[B, K]`` kept activations, never negative; 0 means that the latent did not fire."""
    indices: Tensor
    """``[B, K]`` the latents they belong to, in no particular order."""


class TopKSAE(nn.Module):
    """``x_hat = W_dec a + b_dec`` with ``a = ReLU(TopK(W_enc (x - b_dec) + b_enc))`` (PopSteer Eq. 1 and 2).

    The selection runs on the pre-activations and the ReLU on what was kept, so that a latent with a negative
    pre-activation never counts as firing.

    Args:
        d_in: size of the vectors.
        n_latents: hidden size ``N``.
        k: latents kept a row, in ``1..n_latents``.
        encoder_bias: learn ``b_enc``; ``False`` is the paper's Eq. 2.
        normalize_decoder: keep the decoder's rows at unit norm during training.

    Raises:
        FairError: ``k`` outside ``1..n_latents``.
    """

    W_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter
    b_enc: Tensor
    inputs_since_fired: Tensor
    input_variance: Tensor

    def __init__(
        self, d_in: int, n_latents: int, k: int, encoder_bias: bool = True, normalize_decoder: bool = True
    ) -> None:
        super().__init__()
        if not 1 <= k <= n_latents:
            raise FairError(
                f"sae_k={k} must lie in 1..{n_latents}, the hidden size (sae_scale x {d_in}); "
                "lower sae_k or raise sae_scale."
            )
        self.d_in, self.n_latents, self.k = d_in, n_latents, k
        self.normalize_decoder = normalize_decoder
        rows = torch.empty(n_latents, d_in)
        self.W_enc = nn.Parameter(rows)
        self.W_dec = nn.Parameter(rows.clone())
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        if encoder_bias:
            self.b_enc = nn.Parameter(torch.zeros(n_latents))
        else:
            self.register_buffer("b_enc", torch.zeros(n_latents))
        self.register_buffer("inputs_since_fired", torch.zeros(n_latents, dtype=torch.long))
        self.register_buffer("input_variance", torch.ones(()))
        self.initialize()

    @torch.no_grad()
    def initialize(
        self,
        sample: Tensor | None = None,
        generator: torch.Generator | None = None,
        center: Literal["mean", "median"] = "mean",
    ) -> None:
        """Random unit rows for the decoder, the encoder tied to them, ``b_enc = 0``, ``b_dec`` the sample's centre.

        Args:
            sample: ``[n, d_in]`` vectors; without them ``b_dec`` is 0 and the variance of the inputs is taken as 1.
            generator: source of the random rows, on the CPU; by default an own one with a fixed seed.
            center: ``mean``, or ``median`` for the geometric median.
        """
        if generator is None:
            # Building a model must not move the global random state: the base model trains from it afterwards.
            generator = torch.Generator().manual_seed(0)
        rows = torch.randn(self.n_latents, self.d_in, generator=generator)
        rows /= rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
        self.W_dec.copy_(rows)
        self.W_enc.copy_(rows)
        self.b_enc.zero_()
        self.b_dec.zero_()
        self.inputs_since_fired.zero_()
        if sample is not None and len(sample):
            self.b_dec.copy_(sample.mean(dim=0) if center == "mean" else geometric_median(sample))
            self.input_variance.copy_(_total_variance(sample))

    # -- encoding and decoding -----------------------------------------------------------------------------------

    def encode_pre(self, x: Tensor) -> Tensor:
        """``[B, N]`` pre-activations ``z = W_enc (x - b_dec) + b_enc``, where neurons are analysed and steered."""
        return torch.addmm(self.b_enc, x - self.b_dec, self.W_enc.t())

    def select(self, pre: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the ``k`` largest pre-activations of each row of ``[B, N]`` and apply the ReLU: values, indices."""
        values, indices = grouped_topk(pre, self.k)
        return values.relu(), indices

    def encode_sparse(self, x: Tensor, shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Activations as values ``[B, K]`` and indices ``[B, K]``.

        Args:
            x: ``[B, d_in]``.
            shift: ``[N]`` added to every pre-activation before the selection (steering).
        """
        bias = self.b_enc if shift is None else self.b_enc + shift
        center: Tensor = self.b_dec
        if torch.is_grad_enabled() and center.requires_grad:
            # Nothing is added, but the centre's gradient comes from that of the bias instead of from all inputs.
            center = center.detach()
            bias = bias - self.W_enc.detach() @ (self.b_dec - center)
        values, indices = topk_linear(x - center, self.W_enc, bias, self.k)
        return values.relu(), indices

    def encode(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """Activations as a dense ``[B, N]`` tensor; arguments as in :meth:`encode_sparse`."""
        values, indices = self.encode_sparse(x, shift)
        return values.new_zeros(len(values), self.n_latents).scatter(1, indices, values)

    def decode_sparse(self, values: Tensor, indices: Tensor) -> Tensor:
        """``[B, d_in]`` reconstruction from sparse activations."""
        return sparse_decode(values, indices, self.W_dec) + self.b_dec

    def decode(self, activations: Tensor) -> Tensor:
        """``[B, d_in]`` reconstruction from dense activations ``[B, N]``."""
        return activations @ self.W_dec + self.b_dec

    def forward(self, x: Tensor, shift: Tensor | None = None) -> SAEOutput:
        """Encode and decode ``[B, d_in]`` vectors; ``shift`` as in :meth:`encode_sparse`."""
        values, indices = self.encode_sparse(x, shift)
        return SAEOutput(self.decode_sparse(values, indices), values, indices)

    # -- training ------------------------------------------------------------------------------------------------

    def loss(
        self, x: Tensor, output: SAEOutput, aux_coef: float, dead_after: int, batch_variance: bool = False
    ) -> Tensor:
        """Fraction of variance unexplained plus ``aux_coef`` times the dead latents' loss (AuxK of Gao et al.).

        AuxK lets the dead latents predict what the living ones left over: target ``x - x_hat`` (detached), prediction
        without ``b_dec``, error divided by the variance of the target. The number of helpers is ``max(k, d_in / 2)``
        or all dead latents if they are fewer.

        Args:
            x: ``[B, d_in]``.
            output: the forward pass of ``x``.
            aux_coef: gamma of PopSteer section 2.
            dead_after: a latent is dead when more inputs than this have passed since it fired.
            batch_variance: divide by the variance of this batch, not by that of the training vectors.
        """
        residual = x - output.reconstruction
        variance = _total_variance(x) if batch_variance else self.input_variance
        loss = residual.square().sum() / (len(x) * variance.clamp_min(torch.finfo(x.dtype).tiny))
        if aux_coef > 0:
            dead = (self.inputs_since_fired > dead_after).nonzero().squeeze(1)
            if len(dead):
                loss = loss + aux_coef * self._aux_loss(x, residual.detach(), dead)
        return loss

    def _aux_loss(self, x: Tensor, target: Tensor, dead: Tensor) -> Tensor:
        k_aux = min(max(self.k, self.d_in // 2), len(dead))
        values, indices = topk_linear(x - self.b_dec, self.W_enc[dead], self.b_enc[dead], k_aux)
        error = target - sparse_decode(values.relu(), indices, self.W_dec[dead])
        scale = (target - target.mean(dim=0)).square().mean()
        return torch.nan_to_num(error.square().mean() / scale, nan=0.0, posinf=0.0, neginf=0.0)

    @torch.no_grad()
    def count_firing(self, output: SAEOutput) -> None:
        """Advance the dead counter by one batch: inputs seen since each latent last fired."""
        self.inputs_since_fired += len(output.values)
        fired = output.values > 0
        self.inputs_since_fired[output.indices if bool(fired.all()) else output.indices[fired]] = 0

    @torch.no_grad()
    def project_gradient(self) -> None:
        """Remove from the decoder's gradient what is parallel to its rows, which the renormalisation would undo."""
        if self.normalize_decoder and self.W_dec.grad is not None:
            along = (self.W_dec.grad * self.W_dec).sum(dim=1, keepdim=True)
            self.W_dec.grad.addcmul_(along, self.W_dec, value=-1.0)

    @torch.no_grad()
    def renormalize(self) -> None:
        """Put the decoder's rows back to unit norm."""
        if self.normalize_decoder:
            norms = self.W_dec.norm(dim=1, keepdim=True)
            self.W_dec.div_(norms.clamp_min(torch.finfo(norms.dtype).tiny))


def geometric_median(vectors: Tensor, iterations: int = 50, tolerance: float = 1e-6) -> Tensor:
    """The point with the least summed distance to ``[n, d]`` vectors, by Weiszfeld's iteration."""
    point = vectors.mean(dim=0)
    for _ in range(iterations):
        weights = 1.0 / (vectors - point).norm(dim=1).clamp_min(tolerance)
        moved = (vectors * weights.unsqueeze(1)).sum(dim=0) / weights.sum()
        if (moved - point).norm() <= tolerance * (1.0 + point.norm()):
            return moved
        point = moved
    return point


def _total_variance(x: Tensor) -> Tensor:
    """Mean squared distance of ``[n, d]`` vectors from their mean: the summed variance of the dimensions."""
    return x.var(dim=0, correction=0).sum()


# -- quality -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SAEQuality:
    """How well an autoencoder reconstructs a set of vectors."""

    fvu: float
    """Summed squared error over the summed squared distance from the vectors' mean; 0 is perfect."""
    explained_variance: float
    """``1 - var(x - x_hat) / var(x)``, variances summed over dimensions: blind to a constant error."""
    cosine: float
    """Mean cosine similarity of vector and reconstruction (PopSteer Table 3)."""
    l0: float
    """Mean number of latents that fire."""
    alive_share: float
    """Share of the latents that fired at least once on these vectors."""
    frequency: Tensor
    """``[N]`` share of the vectors on which each latent fired."""

    def as_dict(self) -> dict[str, float]:
        """The scalar values, for a result document."""
        names = ("fvu", "explained_variance", "cosine", "l0", "alive_share")
        return {name: getattr(self, name) for name in names}


@torch.no_grad()
def measure_sae(sae: TopKSAE, vectors: Tensor, batch_size: int = 4096, rows: Tensor | None = None) -> SAEQuality:
    """Quality of ``sae`` on ``[n, d]`` vectors, in one pass over batches; sums are kept in float64.

    Args:
        sae: the autoencoder.
        vectors: ``[n, d]``.
        batch_size: vectors at a time.
        rows: ``[m]`` numbers of the vectors that count; all of them when omitted.
    """
    d, n = sae.d_in, len(vectors if rows is None else rows)
    sums = vectors.new_zeros(4, d, dtype=torch.float64)  # of x, x^2, error, error^2
    firing = torch.zeros(sae.n_latents, dtype=torch.long, device=vectors.device)
    cosine = vectors.new_zeros((), dtype=torch.float64)
    # Moments around a point near the mean lose no digits.
    origin = vectors[slice(batch_size) if rows is None else rows[:batch_size]].mean(dim=0)
    for batch in torch.split(vectors if rows is None else rows, batch_size):
        x = batch if rows is None else vectors[batch]
        output = sae(x)
        cosine += torch.cosine_similarity(x, output.reconstruction, dim=1).sum()
        firing += torch.bincount(output.indices[output.values > 0], minlength=sae.n_latents)
        for row, part in ((0, x - origin), (2, x - output.reconstruction)):
            part = part.double()
            sums[row] += part.sum(dim=0)
            sums[row + 1] += part.square().sum(dim=0)
    total = (sums[1] - sums[0].square() / n).sum()
    error_variance = (sums[3] - sums[2].square() / n).sum()
    scale = total.clamp_min(torch.finfo(torch.float64).tiny)
    return SAEQuality(
        fvu=float(sums[3].sum() / scale),
        explained_variance=float(1.0 - error_variance / scale),
        cosine=float(cosine / n),
        l0=float(firing.sum()) / n,
        alive_share=float((firing > 0).double().mean()),
        frequency=firing.double() / n,
    )


@torch.no_grad()
def _spread(vectors: Tensor, rows: Tensor, batch_size: int = 4096) -> Tensor:
    """Summed squared distance of some vectors from their mean, float64, as :func:`measure_sae` works it out."""
    sums = vectors.new_zeros(2, vectors.shape[1], dtype=torch.float64)
    origin = vectors[rows[:batch_size]].mean(dim=0)
    for batch in torch.split(rows, batch_size):
        part = (vectors[batch] - origin).double()
        sums[0] += part.sum(dim=0)
        sums[1] += part.square().sum(dim=0)
    total: Tensor = (sums[1] - sums[0].square() / len(rows)).sum()
    return total.clamp_min(torch.finfo(torch.float64).tiny)


@torch.no_grad()
def _fvu(sae: TopKSAE, vectors: Tensor, rows: Tensor, spread: Tensor, batch_size: int = 4096) -> float:
    """The FVU of :func:`measure_sae` alone, for the look after every epoch."""
    error = vectors.new_zeros(vectors.shape[1], dtype=torch.float64)
    for batch in torch.split(rows, batch_size):
        x = vectors[batch]
        error += (x - sae(x).reconstruction).double().square().sum(dim=0)
    return float(error.sum() / spread)


# -- fitting -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SAESettings:
    """How a sparse autoencoder is trained."""

    learning_rate: float = 1e-3
    """Of Adam; falls linearly to 0 over the last ``decay_share`` of the planned steps."""
    batch_size: int = 2048
    epochs: int = 100
    """Most passes over the training vectors."""
    max_inputs: int | None = None
    """Most training vectors seen in all, repetitions counted; bounds the cost on large data."""
    stopping_step: int = 10
    """Epochs without a better validation FVU before training stops."""
    aux_coef: float = 1 / 32
    dead_after: int | None = None
    """Inputs without firing; ``None`` means one epoch of vectors, at least 100,000."""
    decay_share: float = 0.2
    validation_share: float = 0.1
    """Share of the users whose vectors are held out."""
    batch_variance: bool = False
    center: Literal["mean", "median"] = "mean"
    seed: int = 0


@dataclass(frozen=True)
class SAEFit:
    """What a fit leaves besides the trained autoencoder itself."""

    best_epoch: int
    """Counted from 1."""
    epochs: int
    inputs: int
    """Training vectors seen, repetitions counted."""
    n_train: int
    n_valid: int
    quality: SAEQuality
    """On the held-out users' vectors, in the best state."""
    history: list[float]
    """Validation FVU after each epoch."""
    seconds: float


_SAMPLED = 2**28  # numbers of which mean and variance are taken, a gigabyte
Progress = Callable[[int, int, str], None]
"""Called as ``progress(steps_done, steps_planned, text)``."""


def split_by_user(users: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Boolean mask ``[n]`` of the vectors of a random ``share`` of the users (at least one, never all).

    Args:
        users: ``[n]`` user of each vector.
        share: in ``(0, 1)``.
        generator: on the CPU.

    Raises:
        FairError: fewer than two users.
    """
    distinct, position = torch.unique(users, return_inverse=True)
    if len(distinct) < 2:
        raise FairError(
            f"the sparse autoencoder needs training vectors of at least 2 users, found {len(distinct)}; use more data."
        )
    held_out = min(max(round(share * len(distinct)), 1), len(distinct) - 1)
    chosen = torch.zeros(len(distinct), dtype=torch.bool)
    chosen[torch.randperm(len(distinct), generator=generator)[:held_out]] = True
    return chosen.to(users.device)[position]


def fit_sae(
    sae: TopKSAE, vectors: Tensor, users: Tensor, settings: SAESettings, progress: Progress | None = None
) -> SAEFit:
    """Train ``sae`` in place on ``[n, d]`` vectors and leave it in its best state on held-out users.

    Vectors are split by user, so that no user's neighbouring prefixes stand on both sides. Random numbers come from
    an own generator; the global random state is neither read nor changed.

    Args:
        sae: the autoencoder, initialised here.
        vectors: ``[n, d]`` on the device to train on.
        users: ``[n]`` user of each vector.
        settings: the recipe.
        progress: called after each step.

    Returns:
        Epochs, counts and validation quality.
    """
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(settings.seed)
    held_out = split_by_user(users.cpu(), settings.validation_share, generator).to(vectors.device)
    # By number, since a copy of the vectors may not fit into memory.
    train, valid = (~held_out).nonzero().squeeze(1), held_out.nonzero().squeeze(1)
    n, spread = len(train), _spread(vectors, valid)
    sample = train if n * sae.d_in <= _SAMPLED else train[:: -(-n * sae.d_in // _SAMPLED)]
    sae.to(vectors.device).train().initialize(vectors[sample], generator, settings.center)
    dead_after = settings.dead_after if settings.dead_after is not None else max(n, 100_000)
    per_epoch = math.ceil(n / settings.batch_size)
    planned = settings.epochs * per_epoch
    if settings.max_inputs is not None:
        planned = min(planned, max(per_epoch, math.ceil(settings.max_inputs / settings.batch_size)))
    decay_steps = max(1, round(settings.decay_share * planned))
    optimizer = torch.optim.Adam(
        [p for p in sae.parameters() if p.requires_grad],
        lr=settings.learning_rate,
        fused=vectors.device.type in ("cpu", "cuda"),
    )
    history: list[float] = []
    best_fvu, best_epoch, best_state = math.inf, 0, copy.deepcopy(sae.state_dict())
    step = inputs = 0
    while step < planned and len(history) - best_epoch < settings.stopping_step:
        order = torch.randperm(n, generator=generator).to(vectors.device)
        for batch in torch.split(order, settings.batch_size):
            if step >= planned:
                break
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * min(1.0, (planned - step) / decay_steps)
            x = vectors[train[batch]]
            output: SAEOutput = sae(x)
            optimizer.zero_grad(set_to_none=True)
            loss = sae.loss(x, output, settings.aux_coef, dead_after, settings.batch_variance)
            loss.backward()  # type: ignore[no-untyped-call]
            sae.project_gradient()
            optimizer.step()
            sae.renormalize()
            sae.count_firing(output)
            step += 1
            inputs += len(batch)
            if progress is not None:
                progress(step, planned, f"validation FVU {history[-1]:.4f}" if history else "")
        history.append(_fvu(sae, vectors, valid, spread))
        if history[-1] < best_fvu:
            best_fvu, best_epoch, best_state = history[-1], len(history), copy.deepcopy(sae.state_dict())
    sae.load_state_dict(best_state)
    sae.eval()
    return SAEFit(
        best_epoch=best_epoch,
        epochs=len(history),
        inputs=inputs,
        n_train=n,
        n_valid=len(valid),
        quality=measure_sae(sae, vectors, rows=valid),
        history=history,
        seconds=time.perf_counter() - started,
    )
