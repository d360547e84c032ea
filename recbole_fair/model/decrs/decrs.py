"""DecRS: deconfounded FM and NFM with user-specific inference.

Source: Wang et al., "Deconfounded Recommendation for Alleviating Bias Amplification", KDD 2021. The distribution of a
user's history over item groups (genres) confounds user representation and score. Backdoor adjustment replaces it by
its expectation over all users, the prior (Eq. 5), which enters the model through a mediator (Eq. 7 or 8); at scoring
time the deconfounded model is mixed with the plain one, the more the user's interest drifts (Eq. 10-12).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import EvaluatorType, InputType
from torch import Tensor, nn

from recbole_fair.config.contract import Settings, given_by_user
from recbole_fair.data.contract import DataSet
from recbole_fair.data.facts.confounder import confounder_prior, normalized_drift
from recbole_fair.data.facts.features import Features, load_features
from recbole_fair.data.facts.groups import ItemGroups, UserFacts, load_item_groups
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.interactions import training_interactions
from recbole_fair.data.facts.popularity import count_items
from recbole_fair.errors import FairError
from recbole_fair.io.processes import current
from recbole_fair.model.contract import FairModel
from recbole_fair.model.decrs.factorization import FactorizationMachine, FeatureTables
from recbole_fair.model.decrs.keys import DECRS_KEYS
from recbole_fair.model.propensity import item_propensity, user_propensity

logger = logging.getLogger(__name__)

BACKBONE, DECONFOUNDED, SECOND = "backbone", "deconfounded", "backbone2"
# What a fused variant mixes into the backbone.
_PARTNERS = {"fused": DECONFOUNDED, "control": SECOND}
_SEED_STEP = 1_000_003
_SEEDS = 2**32  # NumPy takes no larger ones
_LARGEST = 40.0
_CELLS = 100_000  # scores mixed at a time: what stays in a processor's cache


class DecRS(FairModel, GeneralRecommender):
    """A plain factorisation machine, a deconfounded one, and their mixture; trained one after the other.

    With ``mediator: none`` there is the plain machine alone. With ``fusion_control`` a second plain machine of other
    initial weights and other sampled items is trained, and mixed with the first by the same weights: what a mixture of
    two machines gains without any deconfounding.

    All scores are logits; that of a mixture is the logit of Eq. 11, which ranks as Eq. 11 does. Only where the
    evaluation is by value (LogLoss, RMSE ...) are the scores of pairs the probabilities themselves.

    Attributes:
        parts: the machines by name: ``backbone``, ``deconfounded``, ``backbone2``.
        part: name of the one that is trained, or was last.
        trained: names of those whose training has ended.
        drift: interest drift of each user (Eq. 10) ``[n_users]``, NaN where it is not known.
        drift_has_validation: whether it was worked out with the validation items (``drift_history: train_valid``).
        inference: the variant that a run is about.
        fusion_alpha: exponent of Eq. 12; 0 is the deconfounded model for everyone, large values leave it to the users
            with the most drift.
    """

    keys = DECRS_KEYS
    input_type = InputType.POINTWISE
    trainer_name = "DecRSTrainer"
    loss_adds_up = True
    reads_pairs: ClassVar[bool] = True
    scores_are_logits: ClassVar[bool] = True
    other_parameter_name: ClassVar[list[str]] = ["trained", "features", "drift_has_validation"]
    has_hidden_layers: ClassVar[bool] = False

    drift: Tensor
    user_weights: Tensor | None
    item_weights: Tensor | None

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        super().__init__(config, dataset)
        self.LABEL = config["LABEL_FIELD"]
        self._by_value = config["eval_type"] == EvaluatorType.VALUE
        self.mediator = str(config["mediator"])
        self.reg_weight = float(config["reg_weight"])
        names = [BACKBONE] if self.mediator == "none" else [BACKBONE, DECONFOUNDED]
        variants = names if self.mediator == "none" else [*names, "fused"]
        if config["fusion_control"]:
            names, variants = [*names, SECOND], [*variants, SECOND, "control"]
        self.variants = tuple(variants)
        inter = training_interactions(dataset)
        histories = Histories.from_interactions(inter)
        self._group_field = config["group_field"]
        self.groups = self._load_groups(config, dataset)
        self._smoothing = float(config["ckl_smoothing"])
        self.drift_history = str(config["drift_history"])
        self.drift_has_validation = False
        self.register_buffer("drift", torch.full((inter.n_users,), torch.nan))
        if self._needs_drift:
            self.set_drift(histories)
        self._make_parts(config, dataset, names, histories)
        self._weigh(config, histories, count_items(inter.item, inter.n_items))
        self.part = BACKBONE
        self.trained: list[str] = []
        self._choose_inference(config)

    # -- what it is made of --------------------------------------------------------------------------------------

    @classmethod
    def reads_time(cls, config: Settings) -> bool:
        """Whether the model needs timestamps: for interest drift, so whenever something is mixed."""
        return config["mediator"] != "none" or bool(config["fusion_control"])

    @property
    def _needs_drift(self) -> bool:
        return any(name in _PARTNERS for name in self.variants)

    def _load_groups(self, config: Settings, dataset: DataSet) -> ItemGroups | None:
        if config["unawareness"] and not self._needs_drift:
            return None
        groups = load_item_groups(dataset, config["group_field"], f"model={config['model']}")
        members = np.diff(groups.matrix.tocsc().indptr)
        for name in (name for name, n in zip(groups.names, members, strict=True) if n == dataset.item_num - 1):
            logger.warning("group_field: every item is in '%s', which tells no items apart and fills the prior.", name)
        return groups

    def _make_parts(self, config: Settings, dataset: DataSet, names: list[str], histories: Histories) -> None:
        of_items = None if config["unawareness"] else self.groups
        features = load_features(dataset, config["user_features"], config["item_features"], of_items)
        if self.groups is not None and config["unawareness"] and self.groups.field in features.items.fields:
            raise FairError(f"item_features names {self.groups.field!r}, which unawareness leaves out.")
        #: What the weights belong to; a checkpoint of other columns does not fit.
        self.features: dict[str, Any] = {
            "users": list(features.users.fields),
            "items": list(features.items.fields),
            "size": features.size,
            "groups": [] if self.groups is None else list(self.groups.names),
            "digests": _digests(features, self.groups),
        }
        tables = FeatureTables(features)
        dropout = config["dropout_prob"]
        options: dict[str, Any] = {
            "size": int(config["embedding_size"]),
            "dropout": dropout if isinstance(dropout, (list, tuple)) else [dropout],
            "hidden": list(config["mlp_hidden_size"]) if self.has_hidden_layers else [],
        }
        self.parts = nn.ModuleDict()
        for name in names:
            mediator: dict[str, Any] = {}
            if name == DECONFOUNDED:
                assert self.groups is not None
                prior = confounder_prior(histories, self.groups, str(config["confounder_prior"]))
                mediator = {
                    "mediator": self.mediator,
                    "prior": torch.from_numpy(prior),
                    "group_init_std": float(config["group_init_std"]),
                }
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(part_seed(config, name))
                self.parts[name] = FactorizationMachine(tables, **options, **mediator)

    def _weigh(self, config: Settings, histories: Histories, counts: Tensor) -> None:
        """Weights of IPS, if they are wanted."""
        kind, clip = str(config["propensity"]), float(config["propensity_clip"])
        users = user_propensity(torch.from_numpy(histories.lengths), clip) if kind == "user" else None
        items = item_propensity(counts, clip) if kind == "item" else None
        self.register_buffer("user_weights", users, persistent=False)
        self.register_buffer("item_weights", items, persistent=False)

    def _choose_inference(self, config: Settings) -> None:
        self.inference = str(config["inference"])
        self.fusion_alpha = float(config["fusion_alpha"])
        if self.inference not in self.variants:
            if "inference" in given_by_user(config):
                self.check_strength("inference", self.inference)
            self.inference = BACKBONE  # the default of DecRS, of which a plain machine has no use
        self.variant = self.inference

    # -- interest drift ------------------------------------------------------------------------------------------

    def set_drift(self, histories: Histories) -> None:
        """Work out the users' interest drift, the symmetric divergence between the halves of their histories.

        Args:
            histories: in order of time.

        Raises:
            FairError: without timestamps, or if it is not known of any user.
        """
        facts = UserFacts(histories, self.groups, smoothing=self._smoothing)
        drift = torch.from_numpy(facts.drift)
        if bool(drift.isnan().all()):
            raise FairError(
                "No user has two training interactions with items of a group, so interest drift is not defined: use "
                "more data, or mediator=none without fusion_control."
            )
        self.drift = drift.to(self.drift)
        self._has_history = torch.from_numpy(histories.lengths > 0)

    def _unknown_drift(self) -> int:
        """Users with a history whose drift is not known."""
        return int((self.drift.cpu().isnan() & self._has_history).sum())

    def fusion_weights(self, users: Tensor) -> Tensor:
        """Weight of the deconfounded model for users, Eq. 12.

        Args:
            users: long ``[B]``.

        Returns:
            ``[B]`` in [0, 1]; 0 for the user with the least drift and for users whose drift is not known, unless
            ``fusion_alpha`` is 0.
        """
        return normalized_drift(self.drift)[users] ** self.fusion_alpha

    # -- strengths and variants ----------------------------------------------------------------------------------

    @property
    def final_variant(self) -> str:
        """The variant that a run is about: ``inference``."""
        return self.inference

    def check_strength(self, name: str, value: Any) -> None:
        """See that the variant is there, beside what the key may hold."""
        if name == "inference" and value not in self.variants:
            hint = "; set fusion_control: true and train" if value == "control" else ""
            raise FairError(f"inference={value!r} is not possible: this run has {', '.join(self.variants)}{hint}.")
        super().check_strength(name, value)

    def set_strengths(self, **values: Any) -> None:
        """Change ``inference`` or ``fusion_alpha``; see :class:`~recbole_fair.model.variants.Variants`."""
        super().set_strengths(**values)
        self.variant = self.inference

    def scoring_notes(self) -> list[str]:
        """Say whether the drift has seen the validation items, and for how many users there is none."""
        notes = []
        if self.drift_has_validation:
            mixed = " and ".join(name for name in self.variants if name in _PARTNERS)
            notes.append(
                "drift_history=train_valid: the drift that mixes the machines was worked out with the validation items "
                f"(as in the authors' code), so validation results of {mixed} are not clean, and a fusion_alpha chosen "
                "by them has seen these items."
            )
        unknown = self._unknown_drift() if self._needs_drift else 0
        if unknown:
            assert self.groups is not None
            notes.append(
                f"{unknown} of {int(self._has_history.sum())} users have no known interest drift (fewer than two "
                f"training interactions, or half a history without '{self.groups.field}'): they are scored as users "
                "without drift."
            )
        return notes

    # -- scoring -------------------------------------------------------------------------------------------------

    def _score(self, users: Tensor, score: Callable[[FactorizationMachine], Tensor]) -> Tensor:
        """Scores of the variant in use, from those of the machines."""
        other = _PARTNERS.get(self.variant)
        wanted = [self.variant] if other is None else [BACKBONE, other]
        for name in wanted:
            if name not in self.trained and name != self.part:
                raise FairError(f"{self.variant!r} cannot be scored: {name} has not been trained; resume the run.")
        scores = [score(self.parts[name]) for name in wanted]  # type: ignore[arg-type]
        if other is None:
            return scores[0]
        backbone, partner = scores
        weight = self.fusion_weights(users)
        if backbone.dim() == 1:
            return fused_logits(backbone, partner, weight)
        step = max(1, _CELLS // backbone.shape[1])
        for start in range(0, len(users), step):
            part = slice(start, start + step)
            backbone[part] = fused_logits(backbone[part], partner[part], weight[part].unsqueeze(1))
        return backbone

    @torch.no_grad()
    def predict(self, interaction: Interaction) -> Tensor:
        """``[B]`` logits of the interaction's own pairs; in an evaluation by value their probabilities."""
        users, items = interaction[self.USER_ID], interaction[self.ITEM_ID]
        scores = self._score(users, lambda machine: machine(users, items))
        # In single precision all logits from 17 on would be 1: no longer told apart, and costly to the log loss.
        return scores.double().sigmoid() if self._by_value else scores

    @torch.no_grad()
    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """``[B, n_items]`` logits of all items."""
        users = interaction[self.USER_ID]
        return self._score(users, lambda machine: machine.all_scores(users))

    # -- training ------------------------------------------------------------------------------------------------

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Summed log loss of a batch under the machine that is being trained, see ``part``.

        Of a part of a batch, the sum is divided by the part's share: the shares' mean is then the sum over the batch.
        """
        users, items = interaction[self.USER_ID], interaction[self.ITEM_ID]
        if self.LABEL not in interaction:
            raise FairError(
                "train_neg_sample_args: without sampled items every pair is an interaction and there is nothing to "
                "tell apart; leave the key out, or set threshold so that the ratings become labels."
            )
        labels = interaction[self.LABEL].float()
        weights = None
        if self.user_weights is not None:
            weights = self.user_weights[users]
        elif self.item_weights is not None:
            weights = torch.where(labels > 0, self.item_weights[items], 1.0)
        machine: Any = self.parts[self.part]
        loss: Tensor = machine.loss(users, items, labels, self.reg_weight, weights, current().share)
        return loss

    # -- for the result and the checkpoint -----------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """What the model is made of, in plain values for the result document."""
        found: dict[str, Any] = {"features": self.features}
        if DECONFOUNDED in self.parts:
            prior: Any = self.parts[DECONFOUNDED].prior
            found["prior"] = dict(zip(self.features["groups"], prior.tolist(), strict=True))
        if self._needs_drift:
            known = self.drift[~self.drift.isnan()]
            found["drift"] = {
                "history": self.drift_history,
                "users": len(known),
                "unknown": self._unknown_drift(),
                "min": float(known.min()),
                "mean": float(known.mean()),
                "max": float(known.max()),
            }
        return found

    def load_other_parameter(self, para: Mapping[str, Any] | None) -> None:
        """Take over which parts are trained, and whether the drift has seen the validation items.

        Raises:
            FairError: if the weights belong to other features or groups.
        """
        if para is None:
            return
        self.check_features(para["features"])
        self.trained = list(para["trained"])
        # Files from before it was noted: then the setting says it, there having been validation items as a rule.
        self.drift_has_validation = bool(
            para.get("drift_has_validation", self._needs_drift and self.drift_history == "train_valid")
        )

    def check_features(self, stored: Mapping[str, Any]) -> None:
        """See that a checkpoint's ``features`` are those of this model.

        Raises:
            FairError: for other columns, other groups, or other values in the same columns.
        """
        now = self.features
        known = stored.get("digests", {})  # none in older files
        other = [name for name, digest in now["digests"].items() if known.get(name, digest) != digest]
        if stored["groups"] != now["groups"] and "groups" not in other:
            other.append("groups")
        if other and all(stored[side] == now[side] for side in ("users", "items")):
            keys = {
                "users": f"user_features ({', '.join(now['users'])})",
                "items": f"item_features ({', '.join(now['items'])})",
                "groups": f"group_field={self._group_field}",
            }
            raise FairError(
                f"The checkpoint was trained with other values of {' and '.join(keys[name] for name in other)}: leave "
                "the files of users and items and these settings as they were, or train anew."
            )
        if any(stored[key] != now[key] for key in now if key != "digests"):
            raise FairError(
                f"The checkpoint was trained on the features {stored['users']} and {stored['items']}; now they are "
                f"{now['users']} and {now['items']}: leave group_field, user_features, item_features and the files as "
                "they were."
            )


def part_seed(config: Settings, name: str) -> int:
    """Seed of one machine of a run: each has initial weights and sampled items of its own."""
    return (int(config["seed"] or 0) + _SEED_STEP * (BACKBONE, DECONFOUNDED, SECOND).index(name)) % _SEEDS


def _digests(features: Features, groups: ItemGroups | None) -> dict[str, str]:
    """Digests of who has which value: of the feature tables of users and items, and of the groups' weights."""
    tables = {"users": features.users, "items": features.items}
    found = {
        name: _digest(*(t.numpy() for t in (table.index, table.value, table.dense))) for name, table in tables.items()
    }
    if groups is not None:
        matrix = groups.matrix.tocsr(copy=True)
        matrix.sum_duplicates()  # and sorts, so that equal matrices have equal parts
        matrix.eliminate_zeros()
        found["groups"] = _digest(matrix.indptr, matrix.indices, matrix.data)
    return found


def _digest(*arrays: npt.NDArray[Any]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.array(array.shape, dtype="<i8").tobytes())
        # The same bytes on every machine, and whatever width SciPy chose for its indices.
        digest.update(np.ascontiguousarray(array, dtype="<f4" if array.dtype.kind == "f" else "<i8").tobytes())
    return digest.hexdigest()


def fused_logits(backbone: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """Logit of ``weight * sigmoid(other) + (1 - weight) * sigmoid(backbone)`` (Eq. 11).

    Unlike the probability itself, which in float32 is 1 from a logit of 17 on, it tells large scores apart.

    Args:
        backbone: Logits of the plain model.
        other: Logits of the deconfounded model, of the same shape.
        weight: Weight of the latter in [0, 1], of a shape that broadcasts.

    Returns:
        Logits of that shape.
    """
    # With e = exp(-logit): p = w / (1 + e_o) + (1 - w) / (1 + e_b); multiplied out, p / (1 - p) takes two exponentials
    # and one logarithm. Beyond 40 on either side the scores would overflow, and differ in nothing.
    plain = 1.0 - weight
    e_b = backbone.clamp(-_LARGEST, _LARGEST).neg_().exp_()
    e_o = other.clamp(-_LARGEST, _LARGEST).neg_().exp_()
    against = e_b * e_o + weight * e_o + plain * e_b
    return e_b.mul_(weight).add_(e_o.mul_(plain)).add_(1.0).div_(against).log_()


class DecFM(DecRS):
    """DecRS on factorisation machines."""


class DecNFM(DecRS):
    """DecRS on neural factorisation machines."""

    has_hidden_layers = True
