"""Does the trained autoencoder beat its controls? Every one of them steers to the same accuracy; intervals by user."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_fair.analysis.populations import Floats, Populations
from recbole_fair.analysis.significance import UserLists, bootstrap_means, difference_interval, list_resamples
from recbole_fair.data.contract import EvaluationLoader
from recbole_fair.evaluator.metrics import inputs_of, values_of
from recbole_fair.evaluator.specs import BY_KEY, MetricSpec
from recbole_fair.model.popsteer.controls import (
    Move,
    Sides,
    dense_move,
    overlap,
    principal_components,
    random_sae,
    reseeded_sae,
    sae_move,
)
from recbole_fair.model.popsteer.neurons import COLUMNS, strongest_neurons
from recbole_fair.model.popsteer.popsteer import PopSteer
from recbole_fair.trainer.trainer import FairTrainerMixin

TRAINED = "the trained autoencoder"
_RESAMPLES = 200
_DEFAULT = 2.0  # strength of the comparison where none is in use
_HALVINGS = 5
_LARGEST = 256.0
_RESEED_INPUTS = 150_000
_NO_BOUND = 10**6  # epochs: the inputs end the training
_STRONGEST = 10  # features of either side that are compared between seeds


@dataclass(frozen=True)
class Measured:
    """The lists under one strength.

    Attributes:
        strength: the strength.
        accuracy: its metric over all users.
        goal: likewise.
        by_user: accuracy by row ``[U]``.
        goal_by_user: the goal by row, or None where it describes all lists together.
        lists: the lists.
    """

    strength: float
    accuracy: float
    goal: float
    by_user: Floats
    goal_by_user: Floats | None
    lists: UserLists


class Controls:
    """Compares the trained autoencoder of a model with controls, at the accuracy that it steers to.

    Args:
        trainer: a trainer with its splits bound and a fitted PopSteer model.
        eval_data: the split.
        populations: users with the concept, without, and real ones.
        seed: of everything random.
        reseeds: how often the recipe is repeated under another seed, on the real users' vectors.
    """

    def __init__(
        self,
        trainer: FairTrainerMixin,
        eval_data: EvaluationLoader,
        populations: Populations,
        seed: int,
        reseeds: int = 2,
    ) -> None:
        self.trainer, self.eval_data, self.populations, self.seed = trainer, eval_data, populations, seed
        model = trainer.model
        assert isinstance(model, PopSteer)
        self.model, self.reseeds = model, reseeds
        self.k = max(trainer.config["topk"])
        self.accuracy = BY_KEY["ndcg"]
        self.goal = BY_KEY["giniindex" if model.steers_popularity else "conceptshare"]
        towards = not model.steers_popularity
        self.sides = Sides(populations.popular, populations.unpopular, populations.real, towards)
        self.made: list[tuple[str, Any]] = []

    def compare(self, show: Callable[[Sequence[Any]], Iterable[Any]] = iter) -> dict[str, Any]:
        """All of it, as plain values.

        Returns:
            ``metric`` and ``goal`` (``name@k``), ``arms`` (one a way of steering: ``name``, ``strength``, ``metric``,
            ``goal``, and against the trained autoencoder ``metric_difference``, ``goal_difference`` with ``low`` and
            ``high`` of its 95 % interval, ``beaten``), ``base`` (both metrics) and ``reseeds``.
        """
        with self.model.encoded_once(), self.trainer.remembered_batches():
            base = self._measure(lambda users, strength: users, 0.0)
            moves = self._moves()
            trained = self._trained(moves.pop(TRAINED))
            arms = [{"name": TRAINED, **_plain(trained)}]
            for name, move in show(list(moves.items())):
                found = self._matched(move, base, trained.accuracy)
                arms.append({"name": name, **_plain(found), **self._against(trained, found)})
        return {
            "metric": f"{self.accuracy.key}@{self.k}",
            "goal": f"{self.goal.key}@{self.k}",
            "base": {"metric": base.accuracy, "goal": base.goal},
            "arms": arms,
            "reseeds": self._describe_seeds(),
        }

    # -- who steers ----------------------------------------------------------------------------------------------

    def _moves(self) -> dict[str, Move]:
        model, sides, real = self.model, self.sides, self.populations.real
        table = model.neurons
        moves = {
            TRAINED: sae_move(model.sae, sides, table=table),
            "an autoencoder with random features": sae_move(random_sae(model.sae, real, self.seed), sides),
            "principal components": sae_move(principal_components(model.sae, real), sides),
            "the step between mean users": dense_move(sides),
            "the same moves on random neurons": sae_move(model.sae, sides, self.seed, table),
        }
        settings = model.sae_settings()
        for number in range(1, self.reseeds + 1):
            recipe = dataclasses.replace(
                settings,
                seed=self.seed + number,
                max_inputs=_RESEED_INPUTS,
                epochs=_NO_BOUND,
                stopping_step=_NO_BOUND,
            )
            sae = reseeded_sae(model.sae, real, torch.from_numpy(self.populations.users), recipe)
            self.made.append((f"seed {number}", sae))
            moves[f"an autoencoder of another seed ({number})"] = sae_move(sae, sides)
        return moves

    def _trained(self, move: Move) -> Measured:
        """The trained autoencoder at the strength in use, both sides alike; a step of two where none is in use."""
        model = self.model
        if model.steer is not None:
            own = [abs(step) for row, step in model.concept_steps() if row == 0]
            strength = own[0] if own else 0.0
        else:
            strength = (model.alpha_pop + model.alpha_unpop) / 2
        return self._measure(move, strength or _DEFAULT)

    def _matched(self, move: Move, base: Measured, wanted: float) -> Measured:
        """A control at the strength that leaves the wanted accuracy: bracketed by doubling, then halved."""
        low, high = base, self._measure(move, 1.0)
        while high.accuracy > wanted and high.strength < _LARGEST:
            low, high = high, self._measure(move, 2 * high.strength)
        for _ in range(_HALVINGS):
            middle = self._measure(move, (low.strength + high.strength) / 2)
            if middle.accuracy > wanted:
                low = middle
            else:
                high = middle
        return min((low, high), key=lambda one: abs(one.accuracy - wanted))

    # -- measuring -----------------------------------------------------------------------------------------------

    def _measure(self, move: Move, strength: float) -> Measured:
        model = self.model
        with model.use_variant("steered"), model.use_edit(lambda users: move(users, strength)):
            struct = self.trainer.collect(self.eval_data)
        accuracy, by_user = self._values(self.accuracy, struct)
        goal, goal_by_user = self._values(self.goal, struct)
        assert by_user is not None
        users = struct["rec.users"].numpy()
        lists = UserLists(
            np.unique(users, return_inverse=True)[1], struct["rec.items"].numpy()[:, : self.k], struct["data.num_items"]
        )
        return Measured(strength, accuracy, goal, by_user, goal_by_user, lists)

    def _values(self, spec: MetricSpec, struct: DataStruct) -> tuple[float, Floats | None]:
        options = self.trainer.evaluator.options
        values, per_user = values_of(spec, inputs_of(struct, options))
        column = options.topk.index(self.k)
        return values[f"{spec.key}@{self.k}"], None if per_user is None else per_user.values[:, column].numpy()

    def _against(self, trained: Measured, control: Measured) -> dict[str, Any]:
        """How far the trained autoencoder is ahead in the goal, with a 95 % interval over users."""
        value = trained.goal - control.goal
        if trained.goal_by_user is not None and control.goal_by_user is not None:
            pairs = (trained.goal_by_user - control.goal_by_user)[:, None]
            low, high = bootstrap_means(pairs, [value], _RESAMPLES, self.seed)[0]
        else:
            low, high = difference_interval(value, [self._resampled(trained)], [self._resampled(control)])
        ahead = high < 0 if self.goal.smaller else low > 0
        behind = low > 0 if self.goal.smaller else high < 0
        return {
            "metric_difference": trained.accuracy - control.accuracy,
            "goal_difference": value,
            "low": low,
            "high": high,
            "beaten": "yes" if ahead else "no" if behind else "open",
        }

    def _resampled(self, one: Measured) -> Floats:
        options = self.trainer.evaluator.options
        n_users = int(one.lists.users.max()) + 1
        found = list_resamples(one.lists, [self.goal], options, n_users, _RESAMPLES, self.seed)
        return found[f"{self.goal.key}@{self.k}"]

    # -- seeds ---------------------------------------------------------------------------------------------------

    def _describe_seeds(self) -> list[dict[str, Any]]:
        """Largest effect sizes under each seed, and how alike the strongest features of the seeds are."""
        found, chosen = [], []
        effect = COLUMNS.index("effect_size")
        saes = [("trained", self.model.sae, self.model.neurons.cpu())]
        saes += [(name, sae, self.sides.table(sae)) for name, sae in self.made]
        saes.append(("random features", random_sae(self.model.sae, self.populations.real, self.seed), Tensor()))
        for name, sae, known in saes:
            table = self.sides.table(sae) if not len(known) else known
            d = table[:, effect]
            strongest = torch.argsort(d.abs(), descending=True)[: 2 * _STRONGEST]
            if name == "trained":
                sided = strongest_neurons(table, _STRONGEST)
                strongest = torch.tensor(sided["popular"] + sided["unpopular"], dtype=torch.long)
            chosen.append(sae.W_dec.detach().cpu()[strongest])
            found.append(
                {
                    "name": name,
                    "largest_effect": float(d.abs().max()),
                    "above_1": int((d.abs() > 1).sum()),
                    "overlap_with_trained": overlap(chosen[0], sae.W_dec.detach().cpu()),
                    "overlap_of_strongest": overlap(chosen[0], chosen[-1]),
                }
            )
        return found


def _plain(one: Measured) -> dict[str, float]:
    return {"strength": one.strength, "metric": one.accuracy, "goal": one.goal}
