"""SPREE (Schirmer et al., 2026): steer each user's lists towards that user's own taste for popular items.

Synthetic users of only popular and of only unpopular items show where in a frozen transformer popularity is encoded
(a linear probe chooses the site) and in which direction (the difference of their means). A Lasso regression on the
activations at that site estimates how much more popular a user's list is than the user's history. Scoring moves the
activation along the direction by that estimate: ``x + lambda f(x) v``.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from recbole.data.dataloader import NegSampleEvalDataLoader
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.data.contract import DataSet, EvaluationLoader, TrainingLoader
from recbole_fair.data.facts.concepts import Concept, Concepts
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.interactions import Interactions, training_interactions
from recbole_fair.data.facts.popularity import count_items, select_by_quantile
from recbole_fair.data.facts.profiles import check_profile_length
from recbole_fair.errors import FairError
from recbole_fair.model.bases.split import Split
from recbole_fair.model.contract import user_columns
from recbole_fair.model.posthoc import PostHocModel, progress_bar
from recbole_fair.model.sided_users import SidedUsers, users_of
from recbole_fair.model.spree.blocks import BlockReading
from recbole_fair.model.spree.keys import GENERAL_KEYS, SPREE_KEYS
from recbole_fair.model.spree.probe import (
    LARGEST_BIAS,
    TOLERANCE,
    BiasEstimator,
    Site,
    choose_site,
    fit_bias_estimator,
    median_bias,
    parse_sites,
    probe_accuracy,
    share_bias,
)

logger = logging.getLogger(__name__)

_CPU_POSITIONS, _GPU_POSITIONS = 3200, 200_000  # of the encoder's input a batch; more leave the processor's cache
_ACTIVATION_BYTES = 2**29  # kept at a time; with more sites the synthetic users are encoded again


class SPREE(BlockReading):
    """Steering of activations that moves every user towards the own taste for popular items, or another concept.

    :meth:`on` gives the class for a base model. On a base with a stack of transformer blocks the site is a block and a
    position. On any other there is one site, the user's own vector.

    The variant ``adaptive`` is Eq. 5, ``x + lambda f(x) v``, and ``vanilla`` Eq. 3, ``x + lambda v``.
    ``spree_adaptive`` says which of the two the run is about and ``spree_strength`` is; the other one is shown at
    the strength that moves users by the same distance on average, see :meth:`strength_of`.

    Attributes:
        site: long ``[2]``, block (1 the first) and position (-1 the last) that are edited.
        direction: ``[d]`` of length 1, from popular to unpopular users (Eq. 2).
        coefficients: ``[d]`` of the bias estimator.
        intercept: of the bias estimator.
        mean_step: mean absolute estimate over the validation users.
        concept_directions: ``[C, d]`` of length 1, of every concept from the users with it to those without.
    """

    keys = SPREE_KEYS
    variants = ("base", "vanilla", "adaptive")
    fitted_name = "probes and direction"
    dossier = "sites"
    strength_grid: ClassVar[dict[str, tuple[float, ...]]] = {"spree_strength": (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)}

    @classmethod
    def kind_on(cls, base: type[Split]) -> type[PostHocModel]:
        """The same class; on models without sequences with other defaults."""
        return cls if base.sequential else SPREEGeneral

    spree_strength: float = 8.0
    spree_adaptive: bool = True

    site: Tensor
    direction: Tensor
    coefficients: Tensor
    intercept: Tensor
    mean_step: Tensor
    by_concept = ("concept_weight", "concept_directions")
    concept_directions: Tensor
    _known: dict[Any, Tensor] | None = None

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        super().__init__(config, dataset)
        parse_sites(config["spree_sites"], self.n_blocks, self.window)  # an impossible site fails before training
        if self.base.sequential:
            check_profile_length(config["synthetic_length"], self.window)
        d = self.vector_size()
        self.register_buffer("site", torch.zeros(2, dtype=torch.long))
        self.register_buffer("direction", torch.zeros(d))
        self.register_buffer("coefficients", torch.zeros(d))
        self.register_buffer("intercept", torch.zeros(()))
        self.register_buffer("mean_step", torch.zeros(()))
        self.register_buffer("concept_directions", torch.zeros(1, d))

    # -- fitting -------------------------------------------------------------------------------------------------

    def check_splits(self, train_data: TrainingLoader, valid_data: EvaluationLoader | None) -> None:
        """See that there are validation users to learn from.

        Raises:
            FairError: if there are none, or only with sampled candidates.
        """
        super().check_splits(train_data, valid_data)
        if not valid_data or isinstance(valid_data, NegSampleEvalDataLoader):
            raise FairError(
                f"{type(self).__name__} learns from the full rankings of validation users; use eval_args with a "
                "validation split and mode: full."
            )

    @torch.no_grad()
    def fit_intervention(
        self, train_data: TrainingLoader, valid_data: EvaluationLoader | None, show_progress: bool = False
    ) -> dict[str, Any]:
        """Choose the site, take the direction, learn the bias; see :class:`PostHocModel`.

        Raises:
            FairError: head and tail items cannot be told apart.
        """
        seconds: dict[str, float] = {}
        inter = training_interactions(train_data._dataset)
        counts = count_items(inter.item, inter.n_items)
        self.base.eval()

        start = time.perf_counter()
        concepts = self.read_concepts(train_data._dataset, inter)
        concept = concepts[0]
        profiles = self._profiles(concept, inter)
        sites = parse_sites(self._config["spree_sites"], self.n_blocks, self.window)
        accuracies, differences = self._probe(profiles, sites, show_progress)
        chosen = choose_site(accuracies)
        towards_tail = differences[chosen]
        norm = float(towards_tail.norm())
        if norm == 0:
            raise FairError("Users of popular and of unpopular items have the same activations: the base is untrained.")
        self.site.copy_(torch.tensor(chosen))
        self.direction.copy_(towards_tail / norm)
        further = [self._direction_of(one, inter, chosen) for one in concepts[1:]]
        self.concept_directions = torch.stack([self.direction, *further])
        seconds["probe"] = time.perf_counter() - start

        start = time.perf_counter()
        x, bias = self._measure_bias(valid_data, inter, concept, chosen)
        seconds["validation"] = time.perf_counter() - start
        start = time.perf_counter()
        estimator = fit_bias_estimator(x, bias, self._config["bias_regularization"], self._seed)
        estimates = estimator(x)
        self.coefficients.copy_(torch.from_numpy(estimator.coefficients))
        self.intercept.fill_(estimator.intercept)
        self.mean_step.fill_(float(np.abs(estimates).mean()))
        self.fitted.fill_(True)
        seconds["estimator"] = time.perf_counter() - start

        self.report = {
            "base_model": self.base_model_name,
            "profiles": {
                "head_items": len(concept.positive),
                "tail_items": len(concept.negative),
                **self._bounds_of(concept, counts),
                "users_a_side": profiles[0].n_users,
                "length": profiles[0].length,
            },
            "concepts": self.keep_concepts(concepts),
            "probe": {
                "accuracies": [{**site._asdict(), "accuracy": accuracies[site]} for site in sites],
                "chosen": chosen._asdict(),
                "tolerance": TOLERANCE,
            },
            "direction": {"norm": norm, "vector": self.direction.tolist()},
            "bias": {
                "list_length": int(self._config["bias_list_length"]),
                "users": len(bias),
                "mean": float(bias.mean()),
                "std": float(bias.std()),
            },
            "estimator": self._describe(estimator, estimates),
            "seconds": seconds,
        }
        return self.report

    def popularity(self, reader: Concepts, inter: Interactions) -> Concept:
        """Popularity, by the items above and below quantiles of popularity."""
        shares = (self._config["head_share"], self._config["tail_share"])
        return reader.popularity(*select_by_quantile(count_items(inter.item, inter.n_items), *shares))

    def _bounds_of(self, concept: Concept, counts: Tensor) -> dict[str, int]:
        if not self.steers_popularity:
            return {}
        return {
            "head_at_least": int(counts[concept.positive].min()),
            "tail_at_most": int(counts[concept.negative].max()),
        }

    def _profiles(self, concept: Concept, inter: Interactions) -> list[SidedUsers]:
        """Users with a concept and without."""
        return [
            users_of(self.base, self._config, concept, side, inter, self._seed + 1 + n, self.base.sequential)
            for n, side in enumerate((True, False))
        ]

    def _direction_of(self, concept: Concept, inter: Interactions, site: Site) -> Tensor:
        """``[d]`` of length 1, from the users with a concept to those without, at a site."""
        means = [self._record(side, [site])[0].double().mean(dim=0) for side in self._profiles(concept, inter)]
        step = means[1] - means[0]
        return (step / step.norm().clamp_min(torch.finfo(step.dtype).tiny)).to(self.direction)

    def _probe(
        self, profiles: Sequence[SidedUsers], sites: list[Site], show: bool
    ) -> tuple[dict[Site, float], dict[Site, Tensor]]:
        """Probe accuracy and difference of means, unpopular minus popular users, at each site."""
        accuracies, differences = {}, {}
        per_site = sum(p.n_users for p in profiles) * self.direction.numel() * 4
        group = max(1, _ACTIVATION_BYTES // per_site)
        with progress_bar("Probes", show) as move:
            for begin in range(0, len(sites), group):
                part = sites[begin : begin + group]
                popular, unpopular = (self._record(p, part) for p in profiles)
                for number, site in enumerate(part):
                    accuracies[site] = probe_accuracy(popular[number].numpy(), unpopular[number].numpy(), self._seed)
                    means = [side[number].double().mean(dim=0) for side in (unpopular, popular)]
                    differences[site] = means[0] - means[1]
                    if move is not None:
                        move(begin + number + 1, len(sites), f"block {site.block}, position {site.position}")
        return accuracies, differences

    def _record(self, profiles: SidedUsers, sites: Sequence[Site]) -> list[Tensor]:
        """``[n, d]`` activations of users of one side at each site, on the CPU."""
        device = self.direction.device
        positions = _CPU_POSITIONS if device.type == "cpu" else _GPU_POSITIONS
        kept: list[list[Tensor]] = [[] for _ in sites]
        width = profiles.length or 1
        if self.base.sequential and not self.base.any_width:
            width = int(self.base.max_seq_length)
        for batch in profiles.batches(max(1, positions // width)):
            for parts, found in zip(kept, self.activations(batch.to(device), sites), strict=True):
                parts.append(found.cpu())
        return [torch.cat(parts) for parts in kept]

    def _measure_bias(
        self, valid_data: EvaluationLoader | None, inter: Interactions, concept: Concept, site: Site
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Activations ``[U, d]`` and bias ``[U]`` of the validation users under the base: Eq. 4 for popularity."""
        if self.scored_batches is None:
            raise ValueError("SPREE needs scored_batches, which PostHocTrainer sets.")
        k = min(int(self._config["bias_list_length"]), inter.n_items - 1)
        x, lists, users = [], [], []
        with self.use_variant("base"):
            for interaction, scores, *_ in self.scored_batches(valid_data):
                values, items = scores.topk(k, dim=1)
                lists.append(items.masked_fill(values == -math.inf, 0).cpu())
                x.append(self.activations(interaction.to(scores.device), [site])[0].cpu())
                users.append(interaction[self._config["USER_ID_FIELD"]].cpu())
        histories = Histories.from_interactions(inter).rows(torch.cat(users).numpy())
        if self.steers_popularity:
            bias = median_bias(count_items(inter.item, inter.n_items), torch.cat(lists), histories)
        else:
            bias = share_bias(concept.weight, torch.cat(lists), histories)
        known = ~bias.isnan()
        return torch.cat(x)[known].numpy(), bias[known].numpy()

    def _describe(self, estimator: BiasEstimator, estimates: np.ndarray[Any, Any]) -> dict[str, Any]:
        description: dict[str, Any] = {
            "regularization": self._config["bias_regularization"],
            "alpha": estimator.alpha,
            "held_out_r2": estimator.r2,
            "held_out_mse": estimator.mse,
            "users": estimator.users,
            "nonzero": estimator.nonzero,
            "coefficients": estimator.coefficients.tolist(),
            "intercept": estimator.intercept,
            "mean_step": float(self.mean_step),
            "clipped_share": float((np.abs(estimates) >= LARGEST_BIAS).mean()),
        }
        if estimator.nonzero == 0:
            description["warning"] = (
                f"The bias estimator has no coefficient left (bias_regularization="
                f"{self._config['bias_regularization']}, alpha {estimator.alpha:g}): every user is moved by the same "
                "step. Use bias_regularization=cv or a smaller number; if cv itself finds none, the activations say "
                "nothing about the bias."
            )
            logger.warning(description["warning"])
        return description

    # -- scoring -------------------------------------------------------------------------------------------------

    @property
    def final_variant(self) -> str:
        """``adaptive`` or ``vanilla``, as ``spree_adaptive`` says."""
        return "adaptive" if self.spree_adaptive else "vanilla"

    def set_strengths(self, **values: Any) -> None:
        """Change ``spree_strength`` or ``spree_adaptive``; see :class:`PostHocModel`."""
        was_final = self.variant in (self.final_variant, self.variants[-1])
        super().set_strengths(**values)
        if was_final:
            self.variant = self.final_variant

    def strength_of(self, variant: str) -> float:
        """The lambda of a variant.

        ``spree_strength`` belongs to the variant that the run is about. The other one is given the lambda with which
        the mean length of its steps over the validation users is the same.
        """
        if variant == self.final_variant:
            return float(self.spree_strength)
        mean_step = float(self.mean_step)
        if self.spree_adaptive:
            return self.spree_strength * mean_step
        return self.spree_strength / mean_step if mean_step > 0 else 0.0

    def strength_goal(self) -> str | None:
        """How far users' lists are from their own taste for the concept, unless that is popularity."""
        return None if self.steers_popularity else "ConceptGap"

    def scoring_notes(self) -> list[str]:
        """Say the strengths of both variants, and where they act."""
        if self.steer is not None:
            return []
        block, position = self.site.tolist()
        where = f"block {block} at position {position}" if self.base.blocks() else "the users' vectors"
        names = sorted(self.variants[1:], key=lambda name: name != self.final_variant)
        texts = [f"{name} at strength {self.strength_of(name):.4g}" for name in names]
        return [f"SPREE edits {where}: {texts[0]}; {texts[1]}, the same mean step."]

    def estimate_bias(self, x: Tensor) -> Tensor:
        """``[B]`` estimated bias, in [-0.5, 0.5], for activations ``[B, d]`` at the site: f of Eq. 5."""
        return (x @ self.coefficients + self.intercept).clamp(-LARGEST_BIAS, LARGEST_BIAS)

    def edit(self, users: Tensor, variant: str) -> Tensor:
        """``[B, d]`` activations at the site moved along the direction, each by its estimate or all alike."""
        if self.steer is not None:
            return users + self._concept_step()
        strength = self.strength_of(variant)
        if variant == "vanilla":
            return users + strength * self.direction
        return users + strength * self.estimate_bias(users).unsqueeze(1) * self.direction

    def _concept_step(self) -> Tensor:
        """``[d]`` the step of :attr:`steer`, towards its concepts, the same for all users."""
        step = torch.zeros_like(self.direction)
        for row, size in self.concept_steps():
            step = step - size * (self.direction if row == 0 else self.concept_directions[row])
        return step

    def frozen(self, variant: str) -> Callable[[Mapping[str, Tensor]], Tensor]:
        """See :class:`PostHocModel`: site, direction and strength are constants."""
        site, strength = Site(*self.site.tolist()), self.strength_of(variant) if variant != "base" else 0.0

        towards = self._concept_step() if self.steer is not None and variant != "base" else None

        def edit(x: Tensor) -> Tensor:
            if towards is not None:
                return x + towards
            step = self.estimate_bias(x).unsqueeze(1) if variant == "adaptive" else 1.0
            return x + strength * step * self.direction

        if (strength == 0 and towards is None) or self.is_output(site):
            return lambda batch: edit(self.base.represent_users(batch))

        def represent(batch: Mapping[str, Tensor]) -> Tensor:
            columns = self.positions(batch, site.position)

            def steered(hidden: Tensor) -> Tensor:
                here = (torch.arange(hidden.shape[1], device=hidden.device) == columns.unsqueeze(1)).unsqueeze(2)
                return torch.where(here, edit((hidden * here).sum(1)).unsqueeze(1), hidden)

            with self._hooks({site.block: steered}):
                return self.run_blocks(batch)

        return represent

    @torch.no_grad()
    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` user representations of the variant in use; at strength 0 the base's own, bit by bit."""
        site = Site(*self.site.tolist())
        if self._known is not None and self.fitted:
            return self._represent_from_memory(interaction, site)
        if self.variant == "base" or not self.fitted or self.is_output(site):
            return super().represent_users(interaction)
        if self._does_nothing():
            users: Tensor = self.base.represent_users(interaction)
            return users

        with self._hooks({site.block: lambda hidden: self._steered(interaction, site, hidden)}):
            return self.run_blocks(interaction)

    def _does_nothing(self) -> bool:
        """Whether the variant in use leaves every activation as it is."""
        if self.steer is not None:
            return not any(step for _, step in self.concept_steps())
        return self.strength_of(self.variant) == 0

    def _steered(self, interaction: Interaction, site: Site, hidden: Tensor) -> Tensor:
        """A copy of what leaves the site's block ``[B, L, d]``, edited at the site's position."""
        rows = torch.arange(len(hidden), device=hidden.device)
        columns = self.positions(interaction, site.position)
        steered = hidden.clone()
        steered[rows, columns] = self.edit(hidden[rows, columns], self.variant)
        return steered

    # -- scoring under many strengths ----------------------------------------------------------------------------

    @contextmanager
    def encoded_once(self) -> Iterator[None]:
        """Inside the block the base runs once a batch of users up to the site, whose output ``[B, L, d]`` is kept."""
        self._known = {}
        try:
            yield
        finally:
            self._known = None

    def _represent_from_memory(self, interaction: Interaction, site: Site) -> Tensor:
        """What :meth:`represent_users` gives, without repeating what does not depend on the strength."""
        if self.variant == "base" or self.is_output(site) or self._does_nothing():
            users = self._remembered(interaction, "users", lambda: self.base.represent_users(interaction))
            return users if self.variant == "base" or not self.is_output(site) else self.edit(users, self.variant)
        hidden = self._remembered(interaction, "hidden", lambda: self._hidden(interaction, site.block))
        with self._replaced(site.block, self._steered(interaction, site, hidden)):
            return self.run_blocks(interaction)

    def _hidden(self, interaction: Interaction, block: int) -> Tensor:
        """``[B, L, d]`` what leaves a block (1 the first) of the unsteered base."""
        found: list[Tensor] = []

        def keep(output: Tensor) -> None:
            found.append(output)

        with self._hooks({block: keep}):
            self.run_blocks(interaction)
        return found[0]

    @contextmanager
    def _replaced(self, block: int, hidden: Tensor) -> Iterator[None]:
        """Blocks up to this one compute nothing: ``hidden`` is what leaves it."""
        layers = self.base.blocks()[:block]
        for layer in layers:
            layer.forward = lambda *inputs, **options: hidden
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward

    def _remembered(self, interaction: Interaction, what: str, compute: Callable[[], Tensor]) -> Tensor:
        """The result of ``compute`` for a batch of users, from memory inside :meth:`encoded_once`."""
        if self._known is None:
            return compute()
        key = (what, *(interaction[field].cpu().numpy().tobytes() for field in user_columns(self.base)))
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]


class SPREEGeneral(SPREE):
    """SPREE on a model with one vector a user, whose own users are the profiles."""

    keys = GENERAL_KEYS
