"""Top-k sparse autoencoder over user representations (Gao et al., 2024; PopSteer, WWW 2026, section 2).

``TopKSAE`` is the model, ``fit_sae`` trains it on a tensor of vectors.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from recbole_fair.errors import FairError
from recbole_fair.io.threads import parts_only
from recbole_fair.model.popsteer.quality import SAEQuality, fvu_of, measure_sae, spread_of
from recbole_fair.model.popsteer.score_error import ScoreError, score_error
from recbole_fair.model.popsteer.sparse_ops import grouped_topk, rows_of_chunk, sparse_decode, topk_linear

_BATCH_WIDTH = 4  # latents of a row that batch_topk keeps at most, as a multiple of k
_SCALED_ON = 4096  # vectors at most, on which the size of a random encoder is worked out
_THRESHOLD_RATE = 0.01  # of the running mean of a batch's least activation


class SAEOutput(NamedTuple):
    """One forward pass."""

    reconstruction: Tensor
    """``[B, d]``."""
    values: Tensor
    """``[B, K]`` kept activations, never negative under ``relu``; 0 means that the latent did not fire."""
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
        selection: ``topk``: the ``k`` largest of each row. ``batch_topk``: as many as ``k`` a row on average, the
            largest of a batch while training and those above a threshold afterwards, at most ``4 k`` a row (Bussmann et
            al., 2024). ``matryoshka``: as ``topk``, but the first 1/16, 1/8, 1/4 and 1/2 of the latents have to
            reconstruct alone as well (Bussmann et al., 2025).
        activation: ``relu``, or ``abs``: the ``k`` largest in magnitude, with their signs.

    Raises:
        FairError: ``k`` outside ``1..n_latents``.
    """

    W_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter
    b_enc: Tensor
    inputs_since_fired: Tensor
    input_variance: Tensor
    threshold: Tensor
    kept: Tensor

    def __init__(
        self,
        d_in: int,
        n_latents: int,
        k: int,
        encoder_bias: bool = True,
        normalize_decoder: bool = True,
        selection: str = "topk",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if not 1 <= k <= n_latents:
            raise FairError(
                f"sae_k={k} must lie in 1..{n_latents}, the hidden size (sae_scale x {d_in}); "
                "lower sae_k or raise sae_scale."
            )
        self.d_in, self.n_latents, self.k = d_in, n_latents, k
        self.normalize_decoder, self.selection, self.activation = normalize_decoder, selection, activation
        self.register_buffer("kept", torch.zeros((), dtype=torch.long))
        self.keep(k)
        if selection == "batch_topk":
            self.register_buffer("threshold", torch.zeros(()))
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

    def keep(self, k: int) -> None:
        """Keep ``k`` latents a row from now on, in ``1..n_latents``; a checkpoint remembers it."""
        self.k = k
        self.width = min(_BATCH_WIDTH * k, self.n_latents) if self.selection == "batch_topk" else k
        self.kept.fill_(k)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """As many latents a row as the file says; older files keep those of the settings."""
        self.keep(int(state_dict.setdefault(prefix + "kept", self.kept)))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    @torch.no_grad()
    def initialize(
        self,
        sample: Tensor | None = None,
        generator: torch.Generator | None = None,
        center: Literal["mean", "median"] = "mean",
        to_scale: bool = False,
    ) -> None:
        """Random unit rows for the decoder, the encoder tied to them, ``b_enc = 0``, ``b_dec`` the sample's centre.

        Args:
            sample: ``[n, d_in]`` vectors; without them ``b_dec`` is 0 and the variance of the inputs is taken as 1.
            generator: source of the random rows, on the CPU; by default an own one with a fixed seed.
            center: ``mean``, or ``median`` for the geometric median.
            to_scale: whether the encoder is made as large as least squares has it. Random features overlap, so that
                those of the decoder's own size together come out several times too long.
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
            if to_scale:
                self._scale_encoder(sample[:: -(-len(sample) // _SCALED_ON)])

    def _scale_encoder(self, sample: Tensor) -> None:
        mode = self.training
        found = self.eval()(sample).reconstruction - self.b_dec
        self.train(mode)
        size = (found * (sample - self.b_dec)).sum() / found.square().sum().clamp_min(torch.finfo(found.dtype).tiny)
        self.W_enc.mul_(size)

    # -- encoding and decoding -----------------------------------------------------------------------------------

    def encode_pre(self, x: Tensor) -> Tensor:
        """``[B, N]`` pre-activations ``z = W_enc (x - b_dec) + b_enc``, where neurons are analysed and steered."""
        return torch.addmm(self.b_enc, x - self.b_dec, self.W_enc.t())

    def select(self, pre: Tensor) -> tuple[Tensor, Tensor]:
        """Select among pre-activations ``[B, N]``: values and indices of what is kept."""
        if self.activation == "abs":
            _, indices = grouped_topk(pre.abs(), self.width)
            return self._activated(pre.gather(1, indices)), indices
        values, indices = grouped_topk(pre, self.width)
        return self._activated(values), indices

    def _activated(self, values: Tensor) -> Tensor:
        """Activations of the best pre-activations of each row: what does not fire becomes 0."""
        values = values if self.activation == "abs" else values.relu()
        if self.selection != "batch_topk":
            return values
        size = values.detach().abs()
        if self.training:
            number = min(self.k * len(size), size.numel())
            return values * (size >= size.flatten().topk(number).values.min())
        return values * (size > self.threshold)

    def reconstruct_with(self, x: Tensor, bias: Tensor) -> Tensor:
        """``[B, d_in]`` reconstructions by plain operations that can be exported, ``bias`` in place of ``b_enc``."""
        return self.decode_plain((x - self.b_dec) @ self.W_enc.t() + bias)

    def decode_plain(self, pre: Tensor) -> Tensor:
        """``[B, d_in]`` reconstructions from pre-activations ``[B, N]``, likewise."""
        indices = (pre.abs() if self.activation == "abs" else pre).topk(self.width, dim=1).indices
        values = self._activated(pre.gather(1, indices))
        chosen = nn.functional.embedding(indices, self.W_dec)
        return (values.unsqueeze(2) * chosen).sum(1) + self.b_dec

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
        values, indices = topk_linear(x - center, self.W_enc, bias, self.width, self.activation == "abs")
        return self._activated(values), indices

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
        self,
        x: Tensor,
        output: SAEOutput,
        aux_coef: float,
        dead_after: int,
        batch_variance: bool = False,
        score: ScoreError | None = None,
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
            score: adds how far the scores of the reconstructions are from those of the vectors.
        """
        residual = x - output.reconstruction
        variance = _total_variance(x) if batch_variance else self.input_variance
        loss = residual.square().sum() / (len(x) * variance.clamp_min(torch.finfo(x.dtype).tiny))
        if self.selection == "matryoshka":
            parts = [loss, *(self._prefix_error(x, output, size) / (len(x) * variance) for size in self.prefixes)]
            loss = torch.stack(parts).mean()
        if score is not None:
            loss = loss + score.weight * (residual @ score.gram * residual).sum() / len(x)
        if aux_coef > 0:
            dead = (self.inputs_since_fired > dead_after).nonzero().squeeze(1)
            if len(dead):
                loss = loss + aux_coef * self._aux_loss(x, residual.detach(), dead)
        return loss

    @property
    def prefixes(self) -> tuple[int, ...]:
        """Numbers of first latents that have to reconstruct alone under ``matryoshka``."""
        return tuple(size for part in (16, 8, 4, 2) if (size := self.n_latents // part) > 0)

    def _prefix_error(self, x: Tensor, output: SAEOutput, size: int) -> Tensor:
        part = self.decode_sparse(output.values * (output.indices < size), output.indices)
        return (x - part).square().sum()

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
        fired = output.values != 0
        self.inputs_since_fired[output.indices if bool(fired.all()) else output.indices[fired]] = 0
        if self.selection == "batch_topk" and bool(fired.any()):
            least = output.values.abs()[fired].min()
            self.threshold.copy_(least if self.threshold == 0 else self.threshold.lerp(least, _THRESHOLD_RATE))

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
    score_coef: float = 0.0
    """How much the error in scores of all items counts beside the error of the reconstruction."""
    to_scale: bool = False
    """Whether the encoder starts as large as least squares has it, see :meth:`TopKSAE.initialize`."""
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


def _optimizer(sae: TopKSAE, learning_rate: float, device: torch.device) -> torch.optim.Adam:
    parameters = [p for p in sae.parameters() if p.requires_grad]
    return torch.optim.Adam(parameters, lr=learning_rate, fused=device.type in ("cpu", "cuda"))


def fit_sae(
    sae: TopKSAE,
    vectors: Tensor,
    users: Tensor,
    settings: SAESettings,
    progress: Progress | None = None,
    items: Tensor | None = None,
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
        items: ``[n_items, d]`` vectors of the items, whose scores are to stay what they were.

    Returns:
        Epochs, counts and validation quality.
    """
    in_parts = vectors.device.type == "cpu" and settings.batch_size > rows_of_chunk(sae.n_latents, vectors)
    with parts_only() if in_parts else nullcontext():
        return _fitted(sae, vectors, users, settings, progress, items)


def _fitted(
    sae: TopKSAE, vectors: Tensor, users: Tensor, settings: SAESettings, progress: Progress | None, items: Tensor | None
) -> SAEFit:
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(settings.seed)
    held_out = split_by_user(users.cpu(), settings.validation_share, generator).to(vectors.device)
    # By number, since a copy of the vectors may not fit into memory.
    train, valid = (~held_out).nonzero().squeeze(1), held_out.nonzero().squeeze(1)
    n, spread = len(train), spread_of(vectors, valid)
    sample = train if n * sae.d_in <= _SAMPLED else train[:: -(-n * sae.d_in // _SAMPLED)]
    sae.to(vectors.device).train().initialize(vectors[sample], generator, settings.center, settings.to_scale)
    score = None if items is None else score_error(items, vectors[sample], settings.score_coef)
    dead_after = settings.dead_after if settings.dead_after is not None else max(n, 100_000)
    per_epoch = math.ceil(n / settings.batch_size)
    planned = settings.epochs * per_epoch
    if settings.max_inputs is not None:
        planned = min(planned, max(per_epoch, math.ceil(settings.max_inputs / settings.batch_size)))
    decay_steps = max(1, round(settings.decay_share * planned))
    optimizer = _optimizer(sae, settings.learning_rate, vectors.device)
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
            loss = sae.loss(x, output, settings.aux_coef, dead_after, settings.batch_variance, score)
            loss.backward()  # type: ignore[no-untyped-call]
            sae.project_gradient()
            optimizer.step()
            sae.renormalize()
            sae.count_firing(output)
            step += 1
            inputs += len(batch)
            if progress is not None:
                progress(step, planned, f"validation FVU {history[-1]:.4f}" if history else "")
        history.append(fvu_of(sae, vectors, valid, spread))
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
