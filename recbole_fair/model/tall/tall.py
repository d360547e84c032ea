"""TALL: end-to-end adaptive local learning for niche users (Pan et al., ECIR 2024), with MultVAE and WL.

Three models on one stack of autoencoders. ``MultVAE`` is a single one; ``WL`` weights its users by how far they are
from the mainstream; ``TALL`` mixes many by a gate that looks at each expert's loss on items held out for the user, and
weights users by how their held-out losses fall. TALL's ablations are settings of it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_fair.config.contract import Settings, given_by_user
from recbole_fair.data.batches.item_rows import ItemRows
from recbole_fair.data.contract import DataSet
from recbole_fair.data.facts.groups import mainstream_scores
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.interactions import Interactions, training_interactions
from recbole_fair.errors import FairError
from recbole_fair.io.processes import current
from recbole_fair.model.contract import FairModel
from recbole_fair.model.tall.experts import Bags, StackedVAE, cross_entropy, sample, sparse_product
from recbole_fair.model.tall.keys import MULTVAE_KEYS, TALL_KEYS, WL_KEYS
from recbole_fair.model.tall.user_weights import LossWindow, niche_weights

logger = logging.getLogger(__name__)

_USERS_AT_ONCE = 512  # scored together; bounds the latent values [E, B, H] in memory
_LOWEST_LOSS = 1e-6  # keeps the inverse of a loss finite
_GROUPS = ("low", "med-low", "medium", "med-high", "high")


class MultVAE(FairModel, GeneralRecommender):
    """The variational autoencoder that TALL's experts are: linear encoder and decoder, multinomial likelihood.

    Reads ``latent_dimension`` (H itself, not RecBole's 2 H), ``dropout_prob``, ``anneal_cap``, ``total_anneal_steps``,
    ``kl_reduction``. A training batch is a batch of users; the padding user and users without training items are passed
    over.

    Attributes:
        reads_users: training batches are made of users.
        rows: training items of each user id.
        experts: the stack; here of one.
        updates: number of training batches so far, which the weight of the divergence rises with.
    """

    keys = MULTVAE_KEYS
    input_type = InputType.PAIRWISE
    reads_users: ClassVar[bool] = True
    trainer_name = "ExpertTrainer"
    loss_adds_up = True

    updates: Tensor

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        super().__init__(config, dataset)
        self.histories = Histories.from_interactions(training_interactions(dataset))
        self.rows = ItemRows.from_pairs(self.histories.users, self.histories.items, self.n_users, self.n_items).to(
            self.device
        )
        self.dropout_prob = float(config["dropout_prob"])
        self.anneal_cap = float(config["anneal_cap"])
        self.total_anneal_steps = int(config["total_anneal_steps"])
        self.kl_reduction = str(config["kl_reduction"])
        self.n_experts = self._number_of_experts(config)
        self.experts = StackedVAE(self.n_experts, self.n_items - 1, int(config["latent_dimension"]), self.device)
        self.register_buffer("updates", torch.zeros((), dtype=torch.long, device=self.device))

    def _number_of_experts(self, config: Settings) -> int:
        return 1

    # -- training ------------------------------------------------------------------------------------------------

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Weighted mean of the users' cross-entropies on their training items, plus the annealed divergence."""
        users = interaction[self.USER_ID]
        users = users[self.training_rows.lengths[users] > 0]
        rows = self.training_rows.of(users)
        self.updates += 1
        mean, logvar = self.experts.encode(
            Bags.normalised(rows, self.n_experts, dropout=self.dropout_prob if self.training else 0.0)
        )
        latent, divergences = sample(mean, logvar)
        if not self.training:
            latent = mean
        gate = self._training_gate(users, rows, latent)
        scores = self.experts.mixture(latent, gate)
        self._see_scores(users, rows, scores.detach())
        losses = cross_entropy(scores, rows)
        weights, processes = self._weights_of(users), current()
        if weights is None:
            loss = losses.mean()
        else:
            loss = (weights * losses).sum() / (processes.over_batch(weights.sum()) * processes.share)
        by_expert = _mean_over_batch(divergences, 1)
        # With a gate a product of two means, which those of parts of a batch do not add up to.
        mixed = by_expert.mean() if gate is None else (_mean_over_batch(gate, 0) * by_expert).sum()
        if self.kl_reduction == "sum":
            mixed = mixed * float(processes.over_batch(losses.new_tensor(len(users))))
        return loss + self._anneal() * mixed

    def targets_of(self, interaction: Interaction) -> Tensor:
        """1 for users who have training items, 0 for those who are passed over ``[B]``."""
        return (self.training_rows.lengths[interaction[self.USER_ID]] > 0).long()

    @property
    def training_rows(self) -> ItemRows:
        """Items that a user's training input and targets are made of."""
        return self.rows

    def _anneal(self) -> Tensor | float:
        if self.total_anneal_steps <= 0:
            return self.anneal_cap
        return (self.updates / self.total_anneal_steps).clamp(max=self.anneal_cap)

    def _training_gate(self, users: Tensor, rows: ItemRows, latent: Tensor) -> Tensor | None:
        """Weights of the experts ``[B, E]``, None for equal ones."""
        return None

    def _see_scores(self, users: Tensor, rows: ItemRows, scores: Tensor) -> None:
        """Look at the scores ``[B, I]`` of a training batch."""

    def _weights_of(self, users: Tensor) -> Tensor | None:
        """Weights of some users in the loss ``[B]``, not all 0; None for equal ones."""
        return None

    # -- scoring -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of all items ``[B, n_items]``; those of the padding item are -inf."""
        users = interaction[self.USER_ID]
        scores = torch.full((len(users), self.n_items), -torch.inf, device=users.device)
        for start in range(0, len(users), _USERS_AT_ONCE):
            part = users[start : start + _USERS_AT_ONCE]
            scores[start : start + _USERS_AT_ONCE, 1:] = self._scores(part)
        return scores

    def _scores(self, users: Tensor) -> Tensor:
        """Scores ``[B, I]`` of the items without the padding, from all training items of the users."""
        latent = self.experts.encode_mean(Bags.normalised(self.rows.of(users), self.n_experts))
        return self.experts.mixture(latent, self._scoring_gate(users))

    def _scoring_gate(self, users: Tensor) -> Tensor | None:
        """Weights of the experts ``[B, E]``, None for equal ones."""
        return None

    @torch.no_grad()
    def predict(self, interaction: Interaction) -> Tensor:
        """Scores of pairs ``[B]``; each user is scored once."""
        users, back = torch.unique(interaction[self.USER_ID], return_inverse=True)
        scores = self.full_sort_predict({self.USER_ID: users})
        return scores[back, interaction[self.ITEM_ID]]


class WL(MultVAE):
    """MultVAE with users weighted against the mainstream (Zhu and Caverlee, WSDM 2022).

    Reads ``wl_exponent``; 0 is MultVAE itself.

    Attributes:
        user_weights: weight of each user id ``[n_users]``, mean 1 over the users with training items.
    """

    keys = WL_KEYS
    base_model_name: ClassVar[str] = "MultVAE"

    user_weights: Tensor

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        super().__init__(config, dataset)
        exponent = float(config["wl_exponent"])
        scores = mainstream_scores(self.histories) if exponent > 0 else np.full(self.n_users, np.nan)
        weights = niche_weights(scores, exponent).to(self.device)
        self.register_buffer("user_weights", weights, persistent=False)

    def _weights_of(self, users: Tensor) -> Tensor:
        return _not_all_zero(self.user_weights[users])


class TALL(MultVAE):
    """A loss-driven mixture of experts with user weights that synchronise learning.

    For a user with held-out items v, expert k has the loss ``L_k = -sum_{i in v} log softmax(scores_k)_i`` over the
    items outside the user's input; the gate is ``softmax_k(1 / L_k)``. From epoch ``gap + 1`` on, a user's weight in
    the training loss follows from the mean fall of the mixture's held-out loss over the last ``loss_window`` epochs.

    Where the held-out items come from is ``gate_source``. ``fold``: a share of the user's training items, which are
    neither input nor target in training; scores are then made from all training items, with a gate that still sees the
    others only. ``valid``: the validation items, as in the paper; validation results are then not clean.

    The same experts can be scored with equal weights, so that a result shows what the gate itself gives: the variant
    ``uniform`` beside ``gated``.

    Attributes:
        held_out: held-out items of each user id, None when neither gate nor weights need them.
        user_weights: weight of each user id in the running epoch ``[n_users]``.
        window: held-out losses of the last epochs.
    """

    keys = TALL_KEYS
    base_model_name: ClassVar[str] = "MultVAE"
    trainer_name = "TALLTrainer"
    other_parameter_name: ClassVar[list[str]] = ["held_out_items"]

    user_weights: Tensor
    _seen: Tensor

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        super().__init__(config, dataset)
        self.gate = str(config["gate"])
        self.gate_norm = str(config["gate_norm"])
        self.gate_temperature = float(config["gate_temperature"])
        self.gate_grad = bool(config["gate_grad"])
        self.gate_source = str(config["gate_source"])
        self.weight_signal = str(config["weight_signal"])
        self.weight_norm = str(config["weight_norm"])
        self.weight_alpha = float(config["weight_alpha"])
        self.weight_solver = str(config["weight_solver"])
        self.gap = int(config["gap"])
        self.window = LossWindow(self.n_users, int(config["loss_window"])).to(self.device)
        self.register_buffer("user_weights", torch.ones(self.n_users, device=self.device))
        self.register_buffer("_seen", torch.zeros(3, dtype=torch.double, device=self.device), persistent=False)
        self._groups: list[Tensor] | None = None
        self._visible = self.rows
        self.held_out: ItemRows | None = None
        if self.needs_held_out and self.gate_source == "fold":
            self._take(self.rows.sample(float(config["gate_fold_share"]), int(config["seed"])))
        if self.gate == "mlp" and self.n_experts > 1:
            self.gate_network = _GateNetwork(self.n_items - 1, int(config["gate_hidden_size"]), self.n_experts)

        self.variant = self.final_variant
        self._name_idle_keys(config)

    def _name_idle_keys(self, config: Settings) -> None:
        """Warn of keys that the user set and that cannot act beside the others."""
        gate = "n_experts=1" if self.n_experts == 1 else f"gate={self.gate}"
        idle: dict[str, str] = {}
        if not self.gate_by_loss:
            idle |= dict.fromkeys(("gate_norm", "gate_temperature", "gate_grad"), gate)
        if self.gate != "mlp" or self.n_experts == 1:
            idle["gate_hidden_size"] = gate
        if self.n_experts == 1:
            idle["gate"] = gate
        if self.weight_signal == "none":
            idle |= dict.fromkeys(("gap", "weight_alpha", "weight_norm", "weight_solver"), "weight_signal=none")
        if self.weight_signal != "change":
            idle["loss_window"] = f"weight_signal={self.weight_signal}"
        if not self.needs_held_out:
            idle |= dict.fromkeys(("gate_source", "gate_fold_share"), f"{gate} and weight_signal=none")
        elif self.gate_source == "valid":
            idle["gate_fold_share"] = "gate_source=valid"
        given = given_by_user(config)
        for key, why in idle.items():
            if key in given:
                logger.warning("%s=%r has no effect with %s.", key, given[key], why)

    def _number_of_experts(self, config: Settings) -> int:
        return int(config["n_experts"])

    @property
    def variants(self) -> tuple[str, ...]:  # type: ignore[override]
        """Ways to weight the experts: equally and by the gate, if it is another one."""
        return ("uniform",) if self.n_experts == 1 or self.gate == "uniform" else ("uniform", "gated")

    # -- held-out items ------------------------------------------------------------------------------------------

    @property
    def gate_by_loss(self) -> bool:
        """Whether the gate looks at losses."""
        return self.n_experts > 1 and self.gate in ("inverse", "softmax")

    @property
    def needs_held_out(self) -> bool:
        """Whether gate or weights need held-out items."""
        return self.gate_by_loss or self.weight_signal != "none"

    def use_validation(self, inter: Interactions) -> None:
        """Take validation items for gate and weights (``gate_source: valid``).

        Raises:
            FairError: if there are none.
        """
        if len(inter) == 0:
            raise FairError("gate_source=valid needs validation items: the split has none; use gate_source=fold.")
        labels = ItemRows.from_pairs(inter.user, inter.item, self.n_users, self.n_items).to(self.device)
        self._take(labels.without(self.rows))

    def _take(self, held_out: ItemRows) -> None:
        self.held_out = held_out
        self._visible = self.rows.without(held_out) if self.gate_source == "fold" else self.rows

    @property
    def held_out_items(self) -> dict[str, Any] | None:
        """The held-out items as plain arrays, for a checkpoint."""
        return None if self.held_out is None else self.held_out.arrays()

    @held_out_items.setter
    def held_out_items(self, arrays: Mapping[str, Any] | None) -> None:
        if arrays is not None:
            self._take(ItemRows.from_arrays(arrays, self.device))

    @property
    def training_rows(self) -> ItemRows:
        """Training items without those held out for the gate."""
        return self._visible

    def scoring_notes(self) -> list[str]:
        """What a reader of the results has to know about held-out items."""
        if self.held_out is None:
            return []
        notes = []
        if self.gate_source == "valid":
            notes.append(
                "gate_source=valid: gate and user weights were made with the validation items (as in the paper), so "
                "validation results are not clean and models that cannot see these items are at a disadvantage."
            )
        without = int(((self.rows.lengths > 0) & (self.held_out.lengths == 0)).sum())
        if without:
            notes.append(f"{without} users have no held-out item: they get a uniform gate and weight 1.")
        return notes

    # -- gate ----------------------------------------------------------------------------------------------------

    def _training_gate(self, users: Tensor, rows: ItemRows, latent: Tensor) -> Tensor | None:
        gate = self._gate(users, rows, latent)
        if gate is not None and self.training:
            self._see_gate(gate.detach())
        return gate

    def _scoring_gate(self, users: Tensor) -> Tensor | None:
        if self.variant == "uniform":
            return None
        rows = self._visible.of(users)
        latent = self.experts.encode_mean(Bags.normalised(rows, self.n_experts)) if self.gate_by_loss else None
        return self._gate(users, self.rows.of(users) if latent is None else rows, latent)

    def _gate(self, users: Tensor, rows: ItemRows, latent: Tensor | None) -> Tensor | None:
        if self.n_experts == 1 or self.gate == "uniform":
            return None
        if self.gate == "mlp":
            weights: Tensor = self.gate_network(rows)
            return weights
        if self.held_out is None:
            raise FairError("gate_source=valid: the model has not been given the validation items; train it first.")
        assert latent is not None
        targets = self.held_out.of(users)
        with torch.set_grad_enabled(self.gate_grad and torch.is_grad_enabled()):
            losses = self.experts.losses(latent, targets, rows)
            return loss_gate(losses, targets.lengths, self.gate, self.gate_norm, self.gate_temperature)

    def _see_gate(self, gate: Tensor) -> None:
        gate = gate.double()
        entropy = torch.special.entr(gate).sum(1) / math.log(self.n_experts)
        seen = torch.stack([entropy.sum(), gate.amax(1).sum() * self.n_experts])
        self._seen += torch.cat([seen, seen.new_tensor([len(gate)])])

    # -- weights of users ----------------------------------------------------------------------------------------

    def begin_epoch(self, epoch: int) -> None:
        """Set the users' weights for an epoch (0, 1, ...) from the losses of those before."""
        self._seen.zero_()
        if self.weight_signal == "none":
            return
        if epoch == 0:
            self.window.reset()
            self.user_weights.fill_(1.0)
            return
        self.window.finish_epoch()
        if epoch >= self.gap:
            self.user_weights.copy_(self.window.weights(self.weight_signal, self.weight_alpha, self.weight_solver))

    def _see_scores(self, users: Tensor, rows: ItemRows, scores: Tensor) -> None:
        if self.weight_signal == "none" or not self.training:
            return
        if self.held_out is None:
            raise FairError("gate_source=valid: the model has not been given the validation items.")
        targets = self.held_out.of(users)
        counts = targets.lengths
        losses = cross_entropy(scores, targets, rows)
        if self.weight_norm == "mean":
            losses = losses / counts
        self.window.record(users, torch.where(counts > 0, losses, torch.nan))

    def _weights_of(self, users: Tensor) -> Tensor | None:
        if self.weight_signal == "none":
            return None
        return _not_all_zero(self.user_weights[users])

    def end_epoch(self) -> None:
        """Put together what the processes have seen of gate and held-out losses."""
        current().add(self._seen)
        self.window.put_together()

    def epoch_report(self) -> dict[str, float]:
        """Relative entropy of the gate, its largest weight times E, and the mean weight of each mainstream group.

        The gate's values are means over the users of the epoch's training batches: entropy 1 and largest weight 1 mean
        a uniform gate.
        """
        report = {}
        entropy, largest, count = self._seen.tolist()
        if count > 0:
            report = {"TALL/gate_entropy": entropy / count, "TALL/gate_max": largest / count}
        if self.weight_signal != "none":
            weighted = bool((self.user_weights != 1).any())
            groups = self._mainstream_groups() if weighted else [torch.zeros(1, dtype=torch.long)] * len(_GROUPS)
            for name, members in zip(_GROUPS, groups, strict=True):
                report[f"TALL/weight_{name}"] = float(self.user_weights[members].mean())
        return report

    def _mainstream_groups(self) -> list[Tensor]:
        """User ids of the five groups of equal size, least mainstream first."""
        if self._groups is None:
            scores = mainstream_scores(self.histories)
            known = np.flatnonzero(~np.isnan(scores))
            ranked = torch.from_numpy(known[np.argsort(scores[known], kind="stable")]).to(self.device)
            self._groups = list(torch.tensor_split(ranked, len(_GROUPS)))
        return self._groups


def _mean_over_batch(values: Tensor, dim: int) -> Tensor:
    """Mean over the users of a batch, of which several processes may hold parts."""
    processes = current()
    if not processes.shared:
        return values.mean(dim)
    count = processes.over_batch(values.new_tensor(values.shape[dim]))
    return processes.over_batch(values.sum(dim)) / count


def _not_all_zero(weights: Tensor) -> Tensor:
    """Weights of a batch ``[B]``; 1 for all where no user of it has any."""
    return weights if bool(current().over_batch(weights.sum()) > 0) else torch.ones_like(weights)


def loss_gate(losses: Tensor, counts: Tensor, kind: str, norm: str = "sum", temperature: float = 1.0) -> Tensor:
    """Weights of the experts from their losses on a user's held-out items.

    Args:
        losses: ``[B, E]``, summed over the held-out items.
        counts: number of held-out items ``[B]``.
        kind: ``inverse``: softmax of 1 / loss (the paper's); ``softmax``: softmax of -loss.
        norm: ``sum``: losses as they are; ``mean``: divided by the number of items.
        temperature: divides what the softmax is taken of.

    Returns:
        ``[B, E]``, rows sum to 1; uniform where there is no held-out item.
    """
    if norm == "mean":
        losses = losses / counts.clamp(min=1).unsqueeze(1)
    logits = losses.clamp(min=_LOWEST_LOSS).reciprocal() if kind == "inverse" else -losses
    logits = torch.where(counts.unsqueeze(1) > 0, logits, 0.0)
    return torch.softmax(logits / temperature, 1)


class _GateNetwork(nn.Module):
    """The gate of a plain mixture of experts: one hidden layer over the user's row as it is (TALL's code, MoE)."""

    def __init__(self, n_columns: int, hidden: int, n_experts: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(n_columns)
        self.weight = nn.Parameter(torch.empty(1, n_columns, hidden).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(hidden).uniform_(-bound, bound))
        self.out = nn.Linear(hidden, n_experts)

    def forward(self, rows: ItemRows) -> Tensor:
        """``[B, E]``, rows sum to 1."""
        hidden = torch.relu(sparse_product(self.weight, Bags(rows, None, 1))[0] + self.bias)
        return torch.softmax(self.out(hidden).to(self.bias.dtype), 1)  # under autocast the layer's output is rounded
