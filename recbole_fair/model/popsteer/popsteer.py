"""PopSteer (Ahmadov and Mansoury, WWW 2026): find the neurons that carry popularity and steer them.

A sparse autoencoder is trained on the frozen base model's user representations. Synthetic users of only popular and of
only unpopular items show by Cohen's d which of its neurons respond to popularity; scoring shifts those neurons against
it, decodes, and ranks with the base model's own items.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.data.contract import DataSet, EvaluationLoader, TrainingLoader
from recbole_fair.data.facts.interactions import Interactions, training_interactions
from recbole_fair.data.facts.popularity import count_items, select_head_tail
from recbole_fair.data.reading.titles import item_titles
from recbole_fair.errors import FairError
from recbole_fair.io.atomic import atomic_file
from recbole_fair.model.bases.split import Split
from recbole_fair.model.popsteer.keys import POPSTEER_KEYS
from recbole_fair.model.popsteer.moments import StreamingMoments
from recbole_fair.model.popsteer.neurons import (
    COLUMNS,
    cohens_d,
    effect_size_error,
    neuron_row,
    selected_neurons,
    steering_moves,
    strongest_neurons,
    write_neuron_table,
)
from recbole_fair.model.popsteer.sae import SAEFit, SAEQuality, SAESettings, TopKSAE, fit_sae, measure_sae
from recbole_fair.model.popsteer.vectors import UserVectors
from recbole_fair.model.posthoc import PostHocModel, progress_bar
from recbole_fair.model.sided_users import SidedUsers

logger = logging.getLogger(__name__)

_BETWEEN_LOOKS = 2000  # users a side from one look at the effect sizes' errors to the next
_SMOOTHING = 10  # users of average activation added to each item before items are ranked by their users' activation
_N_STRONGEST = 10
_N_ITEMS = 5


class PopSteer(PostHocModel):
    """Steering of popularity neurons, which a sparse autoencoder finds in a base model.

    Here stands everything that does not depend on the base model; :meth:`on` gives the class for one. Its two kinds,
    sequential and general, say where vectors come from: :meth:`collect_vectors` (what the autoencoder is trained on)
    and :meth:`profiles` (users of one side).

    Attributes:
        rows_at_once: users that the base represents at a time, on a CPU and elsewhere.
    """

    rows_at_once: ClassVar[tuple[int, int]]

    keys = POPSTEER_KEYS
    variants = ("base", "reconstructed", "steered")
    fitted_name = "autoencoder"
    dossier = "neurons"
    writes_neurons = True
    strength_grid: ClassVar[dict[str, tuple[float, ...]]] = {
        "alpha_pop": (0.0, 0.5, 1.0, 2.0, 3.0),
        "alpha_unpop": (0.0, 0.5, 1.0, 2.0, 3.0),
    }

    alpha_pop: float = 2.0
    alpha_unpop: float = 2.0
    beta: float = 0.0
    steer_sigma: str = "group"
    steer_mode: str = "popsteer"
    noise_std: float = 1.0
    dense_strength: float = 2.0
    keep_reconstruction_error: bool = True

    neurons: Tensor
    mean_popular: Tensor
    mean_unpopular: Tensor

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        super().__init__(config, dataset)
        self._config = config
        d = self.vector_size()
        self.sae = TopKSAE(d, config["sae_scale"] * d, config["sae_k"], config["sae_encoder_bias"])
        self.sae.eval()
        n = self.sae.n_latents
        self.register_buffer("neurons", torch.zeros(n, len(COLUMNS), dtype=torch.float64))
        self.register_buffer("mean_popular", torch.zeros(d, dtype=torch.float64))
        self.register_buffer("mean_unpopular", torch.zeros(d, dtype=torch.float64))
        self._noise: torch.Generator | None = None
        self._given_shift: Tensor | None = None

    @classmethod
    def kind_on(cls, base: type[Split]) -> type[PostHocModel]:
        """Synthetic users for sequential models, real ones for all others."""
        from recbole_fair.model.popsteer.general import PopSteerGeneral
        from recbole_fair.model.popsteer.sequential import PopSteerSequential

        return PopSteerSequential if base.sequential else PopSteerGeneral

    # -- where vectors come from ---------------------------------------------------------------------------------

    def collect_vectors(self, inter: Interactions, show_progress: bool) -> UserVectors:
        """Representations of the training users, in evaluation mode."""
        raise NotImplementedError

    def profiles(self, items: Tensor, inter: Interactions, seed: int, n_users: int | None = None) -> SidedUsers:
        """Users who like only ``items``.

        Args:
            items: inner ids of the items.
            inter: training interactions.
            seed: of the users' own generator.
            n_users: how many users at most; as many as the configuration asks for when left out.
        """
        raise NotImplementedError

    def profile_vectors(
        self, items: Tensor, inter: Interactions, seed: int, n_users: int | None = None
    ) -> Iterator[Tensor]:
        """Batches ``[B, d]`` of the base's representations of :meth:`profiles`; arguments as there."""
        yield from self.represent(self.profiles(items, inter, seed, n_users))

    @torch.no_grad()
    def represent(self, users: SidedUsers) -> Iterator[Tensor]:
        """Batches ``[B, d]`` of the base's representations of some users."""
        self.base.eval()
        device = self.base.item_representations().device
        for batch in users.batches(self.rows_at_once[device.type != "cpu"]):
            yield self.base.represent_users(batch.to(device))

    def profile_moments(
        self, head: Tensor, tail: Tensor, inter: Interactions, show: bool
    ) -> tuple[StreamingMoments, StreamingMoments]:
        """Moments of the representations of popular and of unpopular users.

        Both sides are drawn in turn. Where ``synthetic_error`` is set, drawing ends once the standard error of every
        neuron's effect size is at most that.
        """
        wanted = self._config["synthetic_error"]
        sides = StreamingMoments(self.sae.d_in), StreamingMoments(self.sae.d_in)
        streams = zip_longest(
            self.profile_vectors(head, inter, self._seed + 1), self.profile_vectors(tail, inter, self._seed + 2)
        )
        looked_at = 0
        with progress_bar("Popular and unpopular users", show) as move:
            for batches in streams:
                for moments, users in zip(sides, batches, strict=True):
                    if users is not None:
                        moments.update(users)
                drawn = min(moments.count for moments in sides)
                if move is not None:
                    move(drawn, max(drawn, int(self._config["synthetic_users"] or 0)), "")
                if wanted is None or drawn < looked_at + _BETWEEN_LOOKS:
                    continue
                looked_at = drawn
                error = self._largest_error(*sides)
                if error <= wanted:
                    logger.info("Effect sizes are settled after %d users a side: standard error %.3f.", drawn, error)
                    break
        return sides

    def _largest_error(self, popular: StreamingMoments, unpopular: StreamingMoments) -> float:
        """The largest standard error of an effect size."""
        d = cohens_d(*(part for side in (popular, unpopular) for part in side.linear(*self._encoder())))
        return float(effect_size_error(d, popular.count, unpopular.count).max())

    def _encoder(self) -> tuple[Tensor, Tensor]:
        """Weight and offset of ``z = W_enc x + (b_enc - W_enc b_dec)``, whose moments follow from those of x."""
        weight = self.sae.W_enc.detach().double()
        return weight, self.sae.b_enc.detach().double() - weight @ self.sae.b_dec.detach().double()

    def profile_items(self, inter: Interactions) -> tuple[Tensor, Tensor]:
        """Inner ids of the items of popular and of unpopular users.

        Items that nobody has in training are left out: the base model has never learnt what they are.

        Raises:
            FairError: they cannot be told apart.
        """
        config = self._config
        shares = (config["head_share"], config["tail_share"], config["head_tail_by"])
        return select_head_tail(count_items(inter.item, inter.n_items), *shares, include_unseen=False)

    # -- fitting -------------------------------------------------------------------------------------------------

    def fit_intervention(
        self, train_data: TrainingLoader, valid_data: EvaluationLoader | None, show_progress: bool = False
    ) -> dict[str, Any]:
        """Train the autoencoder, measure the neurons, and describe both; see :class:`PostHocModel`.

        Raises:
            FairError: too few users or items, or head and tail items cannot be told apart.
        """
        config, dataset = self._config, train_data._dataset
        inter = training_interactions(dataset)
        head, tail = self.profile_items(inter)
        seconds: dict[str, float] = {}

        start = time.perf_counter()
        vectors = self.collect_vectors(inter, show_progress)
        seconds["vectors"] = time.perf_counter() - start
        with progress_bar("Sparse autoencoder", show_progress) as move:
            fit = fit_sae(self.sae, vectors.vectors, vectors.users, self._sae_settings(), move)
        seconds["autoencoder"] = fit.seconds

        start = time.perf_counter()
        popular, unpopular = self.profile_moments(head, tail, inter, show_progress)
        seconds["synthetic_users"] = time.perf_counter() - start

        start = time.perf_counter()
        last = vectors.vectors[vectors.last.to(vectors.vectors.device)]
        real = StreamingMoments(self.sae.d_in)
        for part in torch.split(last, 8192):
            real.update(part)
        firing = measure_sae(self.sae, vectors.vectors)
        self._fill_neurons(popular, unpopular, real, firing)
        self.fitted.fill_(True)
        at_scoring_time = measure_sae(self.sae, last)
        self.report = {
            "base_model": self.base_model_name,
            "sae": self._describe_sae(fit, at_scoring_time, len(vectors.vectors)),
            "profiles": {
                "head_items": len(head),
                "tail_items": len(tail),
                "head_share": config["head_share"],
                "tail_share": config["tail_share"],
                "head_tail_by": config["head_tail_by"],
                "users_a_side": popular.count,
            },
            "neurons": self._describe_neurons(last, vectors.users[vectors.last], inter, dataset, head),
        }
        seconds["statistics"] = time.perf_counter() - start
        self.report["seconds"] = seconds
        return self.report

    def _sae_settings(self) -> SAESettings:
        config = self._config
        return SAESettings(
            learning_rate=config["sae_learning_rate"],
            batch_size=config["sae_batch_size"],
            epochs=config["sae_epochs"],
            max_inputs=config["sae_max_inputs"],
            stopping_step=config["sae_stopping_step"],
            aux_coef=config["sae_aux_coef"],
            dead_after=config["sae_dead_after"],
            seed=self._seed,
        )

    @torch.no_grad()
    def _fill_neurons(
        self, popular: StreamingMoments, unpopular: StreamingMoments, real: StreamingMoments, firing: SAEQuality
    ) -> None:
        pop, unpop, actual = (moments.linear(*self._encoder()) for moments in (popular, unpopular, real))
        frequency = firing.frequency.cpu()
        columns = [*pop, *unpop, *actual, cohens_d(*pop, *unpop), (frequency > 0).double(), frequency]
        self.neurons.copy_(torch.stack(columns, dim=1))
        self.mean_popular.copy_(popular.mean)
        self.mean_unpopular.copy_(unpopular.mean)

    # -- scoring -------------------------------------------------------------------------------------------------

    def steering_moves(self) -> tuple[Tensor, Tensor]:
        """Two ``[N]``: weights of the neurons and what steering adds to their pre-activations, as it is set.

        Both are 0 under ``steer_mode: dense`` and ``noise``, which move no neuron by an amount of its own.
        """
        if self.steer_mode in ("dense", "noise"):
            nothing = torch.zeros(len(self.neurons), dtype=self.neurons.dtype, device=self.neurons.device)
            return nothing, nothing
        shuffle = self._seed if self.steer_mode == "random_select" else None
        return steering_moves(
            self.neurons, self.alpha_pop, self.alpha_unpop, self.beta, self.steer_sigma, shuffle_seed=shuffle
        )

    def steering_shift(self) -> Tensor:
        """``[N]`` the one vector that steering adds to the pre-activations under the strengths in use."""
        return self.steering_moves()[1].to(self.sae.W_enc.dtype)

    @contextmanager
    def use_shift(self, shift: Tensor) -> Iterator[None]:
        """Inside the block the variant ``steered`` adds this vector ``[N]``, whatever the strengths.

        It is for experiments on chosen neurons.
        """
        before = self._given_shift
        self._given_shift = shift.to(self.sae.W_enc)
        try:
            yield
        finally:
            self._given_shift = before

    def restart_noise(self) -> None:
        """Noise starts anew, so that the same users in the same order meet the same noise."""
        self._noise = None

    @torch.no_grad()
    def edit(self, users: Tensor, variant: str) -> Tensor:
        """``[B, d]`` reconstructed or steered representations; order: shift, top-k, ReLU, decode."""
        if variant == "reconstructed":
            reconstruction: Tensor = self.sae(users).reconstruction
            return reconstruction
        if self._given_shift is None and self.steer_mode == "dense":
            towards = self.mean_unpopular - self.mean_popular
            direction = towards / towards.norm().clamp_min(torch.finfo(towards.dtype).tiny)
            return users + self.dense_strength * direction.to(users.dtype)
        if self._given_shift is None and self.steer_mode == "noise":
            steered = self._decode_noisy(users)
        else:
            shift = self.steering_shift() if self._given_shift is None else self._given_shift
            steered = self.sae(users, shift).reconstruction
        if self.keep_reconstruction_error:
            # Written so that without a shift the difference is exactly 0 and the base comes back bit by bit.
            return users + (steered - self.sae(users).reconstruction)
        return steered

    def frozen(self, variant: str) -> Callable[[Mapping[str, Tensor]], Tensor]:
        """See :class:`PostHocModel`: the shift of the neurons is a constant.

        Raises:
            FairError: under ``steer_mode: noise``, which is drawn anew each time.
        """
        if variant == "base":
            return super().frozen(variant)
        if variant == "steered" and self.steer_mode == "noise":
            raise FairError("steer_mode='noise' is drawn when scores are made; export another steer_mode.")
        if variant == "steered" and self.steer_mode == "dense":
            towards = self.edit(torch.zeros_like(self.mean_popular, dtype=self.sae.W_enc.dtype).unsqueeze(0), variant)
            return lambda batch: self.base.represent_users(batch) + towards
        shift = self.steering_shift() if variant == "steered" else torch.zeros_like(self.sae.b_enc)

        def reconstruct(users: Tensor, offset: Tensor) -> Tensor:
            pre = (users - self.sae.b_dec) @ self.sae.W_enc.t() + offset
            values, indices = pre.topk(self.sae.k, dim=1)
            chosen = torch.nn.functional.embedding(indices, self.sae.W_dec)
            return (values.relu().unsqueeze(2) * chosen).sum(1) + self.sae.b_dec

        def represent(batch: Mapping[str, Tensor]) -> Tensor:
            users = self.base.represent_users(batch)
            steered = reconstruct(users, self.sae.b_enc + shift)
            if variant == "steered" and self.keep_reconstruction_error:
                return users + (steered - reconstruct(users, self.sae.b_enc))
            return steered

        return represent

    def _decode_noisy(self, users: Tensor) -> Tensor:
        if self._noise is None:
            self._noise = torch.Generator().manual_seed(self._seed)
        noise = torch.randn(len(users), self.sae.n_latents, generator=self._noise).to(users)
        noise *= self.noise_std * selected_neurons(self.neurons, self.beta).to(users)
        return self.sae.decode_sparse(*self.sae.select(self.sae.encode_pre(users) + noise))

    # -- description ---------------------------------------------------------------------------------------------

    def write_neurons(self, path: str) -> None:
        """Write the neuron table as CSV: statistics, effect size, steering direction and weight, a row a neuron."""
        with atomic_file(path, keep=True, mode="w", encoding="utf-8", newline="") as file:
            write_neuron_table(file, self.neurons, *self.steering_moves())

    def _describe_sae(self, fit: SAEFit, users: SAEQuality, n_vectors: int) -> dict[str, Any]:
        return {
            "latents": self.sae.n_latents,
            "k": self.sae.k,
            "vectors": n_vectors,
            "training_vectors": fit.n_train,
            "validation_vectors": fit.n_valid,
            "inputs_seen": fit.inputs,
            "epochs": fit.epochs,
            "best_epoch": fit.best_epoch,
            "validation": fit.quality.as_dict(),
            "users": users.as_dict(),
        }

    @torch.no_grad()
    def _describe_neurons(
        self, last: Tensor, users: Tensor, inter: Interactions, dataset: DataSet, head: Tensor
    ) -> dict[str, Any]:
        """The strongest neurons of each side, with the items and the head share of the users who activate them."""
        table = self.neurons.cpu()
        d = table[:, COLUMNS.index("effect_size")]
        strongest = strongest_neurons(table, _N_STRONGEST)
        titles = item_titles(dataset)
        tokens = dataset.field2id_token[dataset.iid_field]
        chosen = [j for side in strongest.values() for j in side]
        pre = torch.addmm(self.sae.b_enc[chosen], last - self.sae.b_dec, self.sae.W_enc[chosen].t())
        activation = pre.double().cpu().numpy()
        activation -= activation.mean(axis=0)
        activation /= np.maximum(activation.std(axis=0), np.finfo(np.float64).tiny)
        rows = np.full(inter.n_users, -1)
        rows[users.numpy()] = np.arange(len(users))
        in_head = np.isin(inter.item, head.numpy())
        head_share = _mean_by(rows[inter.user], in_head.astype(np.float64), len(users), 0)
        found: dict[str, Any] = {
            "alive": int(table[:, COLUMNS.index("alive")].sum()),
            "largest_effect": float(d.abs().max()),
            "leaning_popular": int((d > 0).sum()),
            "leaning_unpopular": int((d < 0).sum()),
            "median_head_share": float(np.median(head_share)),
        }
        for side, numbers in strongest.items():
            entries = []
            for j in numbers:
                z = activation[:, chosen.index(j)]
                liked = _mean_by(inter.item, z[rows[inter.user]], inter.n_items, _SMOOTHING)
                liked[0] = -np.inf
                items = np.argsort(-liked, kind="stable")[:_N_ITEMS].tolist()
                top_users = np.argsort(-z, kind="stable")[:10]
                entries.append(
                    {
                        "neuron": j,
                        **neuron_row(table, j),
                        "head_share_of_top_users": float(head_share[top_users].mean()),
                        "items": [str(tokens[i]) for i in items],
                        "titles": [titles[i] for i in items] if titles is not None else None,
                    }
                )
            found[side] = entries
        return found


def _mean_by(
    group: npt.NDArray[np.int64], values: npt.NDArray[np.float64], n: int, smoothing: float
) -> npt.NDArray[np.float64]:
    """Mean of ``values`` by ``group`` ``[n]``, ``smoothing`` zeros added to each."""
    total = np.bincount(group, weights=values, minlength=n)
    return total / np.maximum(np.bincount(group, minlength=n) + smoothing, 1)
