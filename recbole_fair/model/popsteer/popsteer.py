"""PopSteer (Ahmadov and Mansoury, WWW 2026): find the neurons of popularity, or another concept, and steer.

A sparse autoencoder is trained on the frozen base model's user representations. Synthetic users of only popular and of
only unpopular items show by Cohen's d which of its neurons respond to popularity; scoring shifts those neurons against
it, decodes, and ranks with the base model's own items. Any other concept takes the place of popularity: "popular" users
are then those of the items that have it, or the users who have it themselves.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, ClassVar

import torch
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.data.contract import DataSet, EvaluationLoader, TrainingLoader
from recbole_fair.data.facts.concepts import Concept, Concepts
from recbole_fair.data.facts.interactions import Interactions, training_interactions
from recbole_fair.data.facts.popularity import count_items, select_head_tail
from recbole_fair.errors import FairError
from recbole_fair.io.atomic import atomic_file
from recbole_fair.io.processes import current
from recbole_fair.model.bases.split import Split
from recbole_fair.model.concept_steering import ConceptSteering
from recbole_fair.model.popsteer.description import describe_neurons, describe_sae
from recbole_fair.model.popsteer.erasing import erase_by_neurons, erase_linearly
from recbole_fair.model.popsteer.keys import POPSTEER_KEYS
from recbole_fair.model.popsteer.moments import StreamingMoments
from recbole_fair.model.popsteer.neurons import (
    BY_CONCEPT,
    COLUMNS,
    cohens_d,
    effect_size_error,
    selected_neurons,
    steering_moves,
    steering_weights,
    write_neuron_table,
)
from recbole_fair.model.popsteer.quality import SAEQuality, measure_sae
from recbole_fair.model.popsteer.refitting import fit_within, most_unexplained
from recbole_fair.model.popsteer.sae import SAESettings, TopKSAE
from recbole_fair.model.popsteer.vectors import UserVectors
from recbole_fair.model.posthoc import PostHocModel, progress_bar
from recbole_fair.model.sided_users import SidedUsers, users_of

logger = logging.getLogger(__name__)

ERASING = ("erase", "erase_dense")  # values of steer_mode that move users towards the middle of a concept
_BETWEEN_LOOKS = 2000  # users a side from one look at the effect sizes' errors to the next
_CONCEPT_USERS = 4000  # users of either side of a further concept
_STEPS = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0)  # towards a concept, among which one is chosen


class PopSteer(ConceptSteering):
    """Steering of the neurons of a concept, popularity by default, which a sparse autoencoder finds in a base model.

    Here stands everything that does not depend on the base model; :meth:`on` gives the class for one. Its two kinds,
    sequential and general, say where the autoencoder's vectors come from (:meth:`collect_vectors`).

    Attributes:
        rows_at_once: users that the base represents at a time, on a CPU and elsewhere.
        reads_sequences: whether the base reads sequences, so that synthetic users can be shown to it.
        neurons: the neuron table for the concept of the fit, ``[N, len(COLUMNS)]``.
        concept_neurons: ``[C, N, 5]``, of every concept the means and deviations under either side and the effect size.
        concept_means: ``[C, 2, d]`` mean representation of the users with and without each concept.
        concept_whitened: ``[C, d]`` the difference of those means, times the inverse covariance of both sides together.
    """

    rows_at_once: ClassVar[tuple[int, int]]
    reads_sequences: ClassVar[bool]

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
    steer_norm: str = "global"
    steer_mode: str = "popsteer"
    noise_std: float = 1.0
    erase_share: float = 1.0
    dense_strength: float = 2.0
    keep_reconstruction_error: bool = True

    by_concept = ("concept_weight", "concept_neurons", "concept_means", "concept_whitened")
    neurons: Tensor
    mean_popular: Tensor
    mean_unpopular: Tensor
    concept_neurons: Tensor
    concept_means: Tensor
    concept_whitened: Tensor

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        super().__init__(config, dataset)
        d = self.vector_size()
        self.sae = TopKSAE(
            d,
            config["sae_scale"] * d,
            config["sae_k"],
            config["sae_encoder_bias"],
            selection=config["sae_selection"] or "topk",
            activation=config["sae_activation"] or "relu",
        )
        self.sae.eval()
        n = self.sae.n_latents
        self.register_buffer("neurons", torch.zeros(n, len(COLUMNS), dtype=torch.float64))
        self.register_buffer("mean_popular", torch.zeros(d, dtype=torch.float64))
        self.register_buffer("mean_unpopular", torch.zeros(d, dtype=torch.float64))
        self.register_buffer("concept_neurons", torch.zeros(1, n, len(BY_CONCEPT), dtype=torch.float64))
        self.register_buffer("concept_means", torch.zeros(1, 2, d, dtype=torch.float64))
        self.register_buffer("concept_whitened", torch.zeros(1, d, dtype=torch.float64))
        self._noise: torch.Generator | None = None
        self._given_shift: Tensor | None = None
        self._given_edit: Callable[[Tensor], Tensor] | None = None

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

    def profiles(self, concept: Concept, positive: bool, inter: Interactions, seed: int) -> SidedUsers:
        """Users who stand for one side of a concept; see :func:`~recbole_fair.model.sided_users.users_of`."""
        return users_of(self.base, self._config, concept, positive, inter, seed, self.reads_sequences)

    def profile_vectors(self, concept: Concept, positive: bool, inter: Interactions, seed: int) -> Iterator[Tensor]:
        """Batches ``[B, d]`` of the base's representations of :meth:`profiles`; arguments as there."""
        yield from self.represent(self.profiles(concept, positive, inter, seed))

    @torch.no_grad()
    def represent(self, users: SidedUsers) -> Iterator[Tensor]:
        """Batches ``[B, d]`` of the base's representations of some users."""
        self.base.eval()
        device = self.base.item_representations().device
        processes, batches = current(), users.batches(self.rows_at_once[device.type != "cpu"])
        while turn := list(itertools.islice(batches, processes.world)):  # a batch for each process
            own = turn[processes.rank] if processes.rank < len(turn) else None
            nothing = torch.zeros(0, self.sae.d_in, device=device)
            found = nothing if own is None else self.base.represent_users(own.to(device))
            yield from processes.gather(found)[: len(turn)]

    def profile_moments(
        self, concept: Concept, inter: Interactions, show: bool, most: int | None = None
    ) -> tuple[StreamingMoments, StreamingMoments]:
        """Moments of the representations of users with a concept and without.

        Both sides are drawn in turn. Where ``synthetic_error`` is set, drawing ends once the standard error of every
        neuron's effect size is at most that, or that share of an effect size above 1.

        Args:
            concept: the concept.
            inter: training interactions.
            show: whether to show a bar.
            most: users of either side after which drawing ends.
        """
        wanted = self._config["synthetic_error"]
        sides = StreamingMoments(self.sae.d_in), StreamingMoments(self.sae.d_in)
        streams = zip_longest(
            self.profile_vectors(concept, True, inter, self._seed + 1),
            self.profile_vectors(concept, False, inter, self._seed + 2),
        )
        looked_at = 0
        with progress_bar(f"Users: {concept.label} and {concept.other}", show) as move:
            for batches in streams:
                for moments, users in zip(sides, batches, strict=True):
                    if users is not None:
                        moments.update(users)
                drawn = min(moments.count for moments in sides)
                if move is not None:
                    move(drawn, max(drawn, int(self._config["synthetic_users"] or 0)), "")
                if most is not None and drawn >= most:
                    break
                if wanted is None or drawn < looked_at + _BETWEEN_LOOKS:
                    continue
                looked_at = drawn
                error = self._largest_error(*sides)
                if error <= wanted:
                    words = "Effect sizes have settled after %s users a side: standard error %.3f, relative above 1."
                    logger.info(words, f"{drawn:,}", error)
                    break
        return sides

    def _largest_error(self, popular: StreamingMoments, unpopular: StreamingMoments) -> float:
        """The largest standard error of an effect size, of one above 1 as a share of it.

        What counts is ``|d|`` over the largest (:func:`steering_weights`); the error of a large one grows with it.
        """
        d = cohens_d(*(part for side in (popular, unpopular) for part in side.linear(*self._encoder())))
        return float((effect_size_error(d, popular.count, unpopular.count) / d.abs().clamp_min(1.0)).max())

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

    def popularity(self, reader: Concepts, inter: Interactions) -> Concept:
        """Popularity, by the items of :meth:`profile_items`."""
        return reader.popularity(*self.profile_items(inter))

    def strength_choices(self) -> Mapping[str, Sequence[float]]:
        """Both alphas where popularity is steered, else steps towards the concept."""
        return self.strength_grid if self.steers_popularity else {"steer": _STEPS}

    def strength_goal(self) -> str | None:
        """The concept's share in the lists, unless popularity is steered."""
        return None if self.steers_popularity else "ConceptShare"

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
        concepts = self.read_concepts(dataset, inter)
        concept = concepts[0]
        seconds: dict[str, float] = {}

        start = time.perf_counter()
        vectors = self.collect_vectors(inter, show_progress)
        seconds["vectors"] = time.perf_counter() - start
        with progress_bar("Sparse autoencoder", show_progress) as move:
            items = self.base.item_representations().detach()[1:]  # without the padding
            data, bound = (vectors.vectors, vectors.users), most_unexplained(config)
            fits = fit_within(self.sae, *data, self.sae_settings(), bound, move, items)
        seconds["autoencoder"] = sum(fit.seconds for fit in fits)

        start = time.perf_counter()
        sides = [self.profile_moments(concept, inter, show_progress)]
        sides += [self.profile_moments(one, inter, show_progress, _CONCEPT_USERS) for one in concepts[1:]]
        seconds["synthetic_users"] = time.perf_counter() - start

        start = time.perf_counter()
        last = vectors.vectors[vectors.last.to(vectors.vectors.device)]
        real = StreamingMoments(self.sae.d_in)
        for part in torch.split(last, 8192):
            real.update(part)
        firing = measure_sae(self.sae, vectors.vectors)
        self._fill_neurons(*sides[0], real, firing)
        self._fill_concepts(sides)
        self.fitted.fill_(True)
        at_scoring_time = measure_sae(self.sae, last)
        self.report = {
            "base_model": self.base_model_name,
            "sae": describe_sae(self.sae, fits, at_scoring_time, len(vectors.vectors)),
            "profiles": {
                "head_items": len(concept.positive),
                "tail_items": len(concept.negative),
                "head_share": config["head_share"],
                "tail_share": config["tail_share"],
                "head_tail_by": config["head_tail_by"],
                "users_a_side": min(moments.count for moments in sides[0]),
            },
            "concepts": self.keep_concepts(concepts),
            "neurons": describe_neurons(self, last, vectors.users[vectors.last], inter, dataset, concept),
        }
        seconds["statistics"] = time.perf_counter() - start
        self.report["seconds"] = seconds
        return self.report

    def sae_settings(self) -> SAESettings:
        """The recipe of the autoencoder."""
        config = self._config
        return SAESettings(
            learning_rate=config["sae_learning_rate"],
            batch_size=config["sae_batch_size"],
            epochs=config["sae_epochs"],
            max_inputs=config["sae_max_inputs"],
            stopping_step=config["sae_stopping_step"],
            aux_coef=config["sae_aux_coef"],
            dead_after=config["sae_dead_after"],
            score_coef=config["sae_score_coef"] or 0.0,
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

    @torch.no_grad()
    def _fill_concepts(self, sides: Sequence[tuple[StreamingMoments, StreamingMoments]]) -> None:
        tables, means, whitened = [], [], []
        for positive, negative in sides:
            own, others = (moments.linear(*self._encoder()) for moments in (positive, negative))
            tables.append(torch.stack([*own, *others, cohens_d(*own, *others)], dim=1))
            means.append(torch.stack([positive.mean, negative.mean]))
            both = StreamingMoments(self.sae.d_in)
            both.merge(positive)
            both.merge(negative)
            whitened.append(torch.linalg.pinv(both.scatter / both.count) @ (positive.mean - negative.mean))
        self.concept_neurons = torch.stack(tables).to(self.concept_neurons)
        self.concept_means = torch.stack(means).to(self.concept_means)
        self.concept_whitened = torch.stack(whitened).to(self.concept_whitened)

    def neurons_of(self, row: int) -> Tensor:
        """The neuron table ``[N, len(COLUMNS)]`` for a concept of the fit, 0 the first."""
        if row == 0:
            return self.neurons
        table = self.neurons.clone()
        table[:, [COLUMNS.index(name) for name in BY_CONCEPT]] = self.concept_neurons[row]
        return table

    # -- scoring -------------------------------------------------------------------------------------------------

    def steering_moves(self) -> tuple[Tensor, Tensor]:
        """Two ``[N]``: weights of the neurons and what steering adds to their pre-activations, as it is set.

        Both are 0 under ``steer_mode: dense``, ``noise`` and those that erase: no neuron moves by an amount of its own.
        """
        if self.steer_mode in ("dense", "noise", *ERASING):
            nothing = torch.zeros(len(self.neurons), dtype=self.neurons.dtype, device=self.neurons.device)
            return nothing, nothing
        shuffle = self._seed if self.steer_mode == "random_select" else None
        sigma = self.steer_sigma
        if self.steer is None:
            steps = [(self.neurons, self.alpha_pop, self.alpha_unpop)]
        else:
            # A step towards a concept raises the neurons that lean to it: the opposite of the paper's strengths. It is
            # counted in deviations over real users, so that steps of different concepts compare: synthetic users of
            # a narrow concept hardly differ from each other.
            steps, sigma = [(self.neurons_of(row), -step, -step) for row, step in self.concept_steps()], "real"
        weights, shift = torch.zeros(2, len(self.neurons), dtype=self.neurons.dtype, device=self.neurons.device)
        for table, alpha_pop, alpha_unpop in steps:
            moves = steering_moves(
                table, alpha_pop, alpha_unpop, self.beta, sigma, shuffle, by_side=self.steer_norm == "side"
            )
            weights, shift = weights + moves[0].abs(), shift + moves[1]
        return weights, shift

    def dense_step(self) -> Tensor:
        """``[d]`` what ``steer_mode: dense`` adds: a step between mean users, without the autoencoder."""
        if self.steer is None:
            return self.dense_strength * _unit(self.mean_unpopular - self.mean_popular)
        step = torch.zeros_like(self.mean_popular)
        for row, size in self.concept_steps():
            step = step + size * _unit(self.concept_means[row, 0] - self.concept_means[row, 1])
        return step

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

    @contextmanager
    def use_edit(self, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Inside the block the variant ``steered`` is what this function makes of representations ``[B, d]``."""
        before = self._given_edit
        self._given_edit = edit
        try:
            yield
        finally:
            self._given_edit = before

    @property
    def draws_to_score(self) -> bool:
        """Whether noise is added to the users."""
        return self.steer_mode == "noise"

    def restart_noise(self) -> None:
        """Noise starts anew, so that the same users in the same order meet the same noise."""
        self._noise = None

    @torch.no_grad()
    def edit(self, users: Tensor, variant: str) -> Tensor:
        """``[B, d]`` reconstructed or steered representations; order: shift, top-k, ReLU, decode."""
        if self._given_edit is not None and variant == "steered":
            return self._given_edit(users)
        if variant == "reconstructed":
            reconstruction: Tensor = self.sae(users).reconstruction
            return reconstruction
        if self._given_shift is None and self.steer_mode == "dense":
            return users + self.dense_step().to(users.dtype)
        if self._given_shift is None and self.steer_mode == "erase_dense":
            means = self.concept_means[0]
            return erase_linearly(users, means[0], means[1], self.concept_whitened[0], self.erase_share)
        if self._given_shift is None and self.steer_mode == "erase":
            steered, plain = erase_by_neurons(self.sae, users, *self._erasure())
            return users + (steered - plain) if self.keep_reconstruction_error else steered
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
        if variant == "steered" and self.steer_mode in ERASING:
            return lambda batch: self.edit(self.base.represent_users(batch), variant)
        if variant == "steered" and self.steer_mode == "dense":
            towards = self.edit(torch.zeros_like(self.mean_popular, dtype=self.sae.W_enc.dtype).unsqueeze(0), variant)
            return lambda batch: self.base.represent_users(batch) + towards
        shift = self.steering_shift() if variant == "steered" else torch.zeros_like(self.sae.b_enc)

        def represent(batch: Mapping[str, Tensor]) -> Tensor:
            users = self.base.represent_users(batch)
            steered = self.sae.reconstruct_with(users, self.sae.b_enc + shift)
            if variant == "steered" and self.keep_reconstruction_error:
                return users + (steered - self.sae.reconstruct_with(users, self.sae.b_enc))
            return steered

        return represent

    def _erasure(self) -> tuple[Tensor, Tensor]:
        """How much of the way each neuron goes under ``steer_mode: erase``, and where to."""
        table, share = self.neurons, self.erase_share
        weights = steering_weights(
            table[:, COLUMNS.index("effect_size")], share, share, self.beta, self.steer_norm == "side"
        )
        means = table[:, [COLUMNS.index("mean_popular"), COLUMNS.index("mean_unpopular")]]
        return weights, means.mean(dim=1)

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


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm().clamp_min(torch.finfo(vector.dtype).tiny)
