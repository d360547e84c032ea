"""ILE, item-loss equalisation, for any pairwise model of RecBole, and its training-time baseline IPS.

Popular items are learnt sooner and better than rare ones. ILE (Prent and Mansoury, "Correcting Popularity Bias in
Recommender Systems via Item Loss Equalization", 2024, arXiv 2410.04830) adds the distance between the mean losses of
head, mid and tail items to the training loss. IPS weights each pair by the inverse popularity of its positive item.

Both are mixins before a model that hands its scores to RecBole's ``BPRLoss``. That module is replaced by one of equal
value that remembers the loss of every pair, so that the model's own ``calculate_loss`` stays in charge of embeddings,
propagation and regularisation.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from recbole.model.general_recommender import BPR
from recbole.model.loss import BPRLoss
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.data.contract import DataSet
from recbole_fair.data.facts.interactions import training_interactions
from recbole_fair.data.facts.popularity import SEGMENT_NAMES, Popularity, count_items
from recbole_fair.errors import FairError
from recbole_fair.io.processes import current
from recbole_fair.model.bases.embeddings import FullPrecisionLightGCN
from recbole_fair.model.contract import FairModel
from recbole_fair.model.ile.group_loss import group_distance, group_sums
from recbole_fair.model.ile.keys import ILE_KEYS, IPS_KEYS
from recbole_fair.model.propensity import inverse_propensity


class PairLoss(BPRLoss):
    """RecBole's BPR loss that keeps the loss of every pair: ``-log(gamma + sigmoid(positive - negative))``.

    Attributes:
        weights: Weight of each pair of the next call ``[B]``; None for RecBole's plain mean.
        calls: Unweighted losses ``[B]`` of each call since the list was emptied.
    """

    def __init__(self, gamma: float) -> None:
        super().__init__(gamma)
        self.weights: Tensor | None = None
        self.calls: list[Tensor] = []

    def forward(self, pos_score: Tensor, neg_score: Tensor) -> Tensor:
        """Mean loss of the pairs, a scalar: in value and gradient that of RecBole, bit for bit, without weights."""
        losses = -torch.log(self.gamma + torch.sigmoid(pos_score - neg_score))
        self.calls.append(losses)
        return losses.mean() if self.weights is None else (self.weights * losses).mean()


class PairwiseLosses(FairModel):
    """Mixin that sees the loss of every pair; it stands before a model of RecBole in the list of bases.

    The model must have one ``BPRLoss`` and call it once a batch with a pair for every row. If it has several, the
    subclass names the one of the user-item pairs by ``pair_loss``.

    Attributes:
        pair_loss: Name of the model's attribute that holds the ``BPRLoss``; None if there is only one.
    """

    pair_loss: ClassVar[str | None] = None

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        super().__init__(config, dataset)  # type: ignore[call-arg]
        model: Any = self
        found = [name for name, module in model.named_children() if type(module) is BPRLoss]
        if self.pair_loss is not None:
            found = [name for name in found if name == self.pair_loss]
        if len(found) != 1:
            have = "several of RecBole's BPRLoss, name one by pair_loss" if found else "no BPRLoss of RecBole"
            hint = "" if found or config["loss_type"] is None else "; set loss_type: BPR"
            raise FairError(f"model={config['model']} needs one loss by pairs: it has {have}{hint}.")
        self._pairs_name = found[0]
        setattr(model, found[0], PairLoss(getattr(model, found[0]).gamma))
        self._positive: str = config["ITEM_ID_FIELD"]

    def positive_items(self, interaction: Interaction) -> Tensor:
        """Positive item of each pair of a training batch, LongTensor ``[B]``."""
        items: Tensor = interaction[self._positive]
        return items

    def pair_weights(self, interaction: Interaction) -> Tensor | None:
        """Weight of each pair in the model's loss ``[B]``, or None for all alike."""
        return None

    def loss_and_pairs(self, interaction: Interaction) -> tuple[Any, Tensor]:
        """The model's own training loss of a batch, and what it is made of.

        Args:
            interaction: A training batch.

        Returns:
            What the model's ``calculate_loss`` returns (a tensor or a tuple of tensors), and the unweighted loss of
            each pair ``[B]`` on the same graph.

        Raises:
            FairError: If the model does not call its loss once with a pair a row.
        """
        module: PairLoss = getattr(self, self._pairs_name)
        module.weights, module.calls = self.pair_weights(interaction), []
        try:
            loss = super().calculate_loss(interaction)  # type: ignore[misc]
            calls = module.calls
        finally:
            module.weights, module.calls = None, []  # no graph outlives its batch
        if len(calls) != 1 or calls[0].shape != self.positive_items(interaction).shape:
            raise FairError(
                f"{type(self).__name__} does not give one loss a pair: its BPRLoss was called {len(calls)} times "
                f"with shapes {[list(call.shape) for call in calls]} for {len(interaction)} rows."
            )
        return loss, calls[0]

    def pair_losses(self, interaction: Interaction) -> Tensor:
        """Unweighted loss of each pair of a training batch, float ``[B]``, with gradient."""
        return self.loss_and_pairs(interaction)[1]

    def calculate_loss(self, interaction: Interaction) -> Any:
        """The model's training loss of a batch, with the pairs weighted."""
        return self.loss_and_pairs(interaction)[0]


class ILE(PairwiseLosses):
    """Item-loss equalisation: ``loss + ile_weight * D(L_head, L_mid, L_tail)``, with L the mean losses of a batch.

    A pair belongs to the group of its positive item. Groups are made of training interactions only (the paper's code
    counts validation and test as well). ``ile_weight: 0`` is the base model bit for bit.

    Reads ``ile_weight``, ``ile_distance``, ``ile_warmup``, ``head_share``, ``tail_share``, ``head_tail_by``.

    Attributes:
        popularity: Counts and groups of the items.
        item_groups: Group of each item, one-hot, float ``[n_items, 3]``; zeros for the padding.
    """

    keys = ILE_KEYS

    item_groups: Tensor
    _seen: Tensor

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        super().__init__(config, dataset)
        self.ile_weight = float(config["ile_weight"])
        self.ile_distance = str(config["ile_distance"])
        self.ile_warmup = float(config["ile_warmup"])
        self.popularity = Popularity.from_interactions(
            training_interactions(dataset), config["head_share"], config["tail_share"], config["head_tail_by"]
        )
        groups = F.one_hot(self.popularity.segments.clamp(min=0), len(SEGMENT_NAMES)).float()
        groups[0] = 0.0
        model: Any = self
        # Not in the state dict: a checkpoint of the base fits, and the other way round.
        model.register_buffer("item_groups", groups.to(model.device), persistent=False)
        seen = torch.zeros(2, len(SEGMENT_NAMES), dtype=torch.double, device=model.device)
        model.register_buffer("_seen", seen, persistent=False)
        self._weight_now = self.ile_weight

    def begin_epoch(self, epoch: int) -> None:
        """Set the weight of an epoch (0, 1, ...): it rises linearly from 0 over ``ile_warmup`` epochs."""
        risen = 1.0 if self.ile_warmup <= 0 else min(1.0, epoch / self.ile_warmup)
        self._weight_now = self.ile_weight * risen
        self._seen.zero_()

    def calculate_loss(self, interaction: Interaction) -> Any:
        """The base model's loss plus the weighted distance of the group losses; in a tuple, its first entry."""
        loss, losses = self.loss_and_pairs(interaction)
        sums, counts = group_sums(losses, self.item_groups[self.positive_items(interaction)])
        sums, counts = current().over_batch(torch.stack([sums, counts]))
        self._seen += torch.stack([sums.detach(), counts])
        if self._weight_now == 0:
            return loss
        penalty = self._weight_now * group_distance(sums, counts, self.ile_distance)
        # Into the first entry, as NCL's trainer leaves the last one out while it warms up.
        return (loss[0] + penalty, *loss[1:]) if isinstance(loss, tuple) else loss + penalty

    def epoch_report(self) -> dict[str, float]:
        """Mean loss of head, mid and tail pairs since the epoch began, and their distance.

        Groups without a pair are left out. The distance is that of the whole epoch's means, while the training loss
        holds the mean of the batches' distances.
        """
        sums, counts = self._seen.detach().cpu()
        report = {
            f"ILE/{name}": float(sums[group] / counts[group])
            for group, name in enumerate(SEGMENT_NAMES)
            if counts[group] > 0
        }
        if report:
            report[f"ILE/{self.ile_distance}"] = float(group_distance(sums, counts, self.ile_distance))
        return report


class IPS(PairwiseLosses):
    """Inverse propensity weights: the loss of a pair is divided by ``r``, from 1 (rarest item) to ``ips_max``.

    ``r = 1 + (n - min n) / max(n - min n) * (ips_max - 1)`` with n the training interactions of the positive item and
    the minimum over items that have any; items that have none get weight 0. As coded in ILE's repository the weights
    are below 1 on average. ``ips_normalize`` divides by their mean over the training interactions, so that the loss
    keeps its scale beside a regulariser.

    Attributes:
        item_weights: Weight of each item, float ``[n_items]``.
    """

    keys = IPS_KEYS

    item_weights: Tensor

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        super().__init__(config, dataset)
        inter = training_interactions(dataset)
        weights = inverse_propensity(
            count_items(inter.item, inter.n_items), float(config["ips_max"]), bool(config["ips_normalize"])
        )
        model: Any = self
        model.register_buffer("item_weights", weights.to(model.device), persistent=False)

    def pair_weights(self, interaction: Interaction) -> Tensor:
        """Weight of each pair's positive item ``[B]``."""
        return self.item_weights[self.positive_items(interaction)]


class ILEBPR(ILE, BPR):
    """Item-loss equalisation on matrix factorisation (BPR), the paper's setting."""

    loss_adds_up = True


class ILELightGCN(ILE, FullPrecisionLightGCN):
    """Item-loss equalisation on LightGCN, whose regularisation of the embeddings stays as it is."""

    loss_adds_up = True


class IPSBPR(IPS, BPR):
    """Inverse propensity weights on matrix factorisation (BPR)."""


class IPSLightGCN(IPS, FullPrecisionLightGCN):
    """Inverse propensity weights on LightGCN."""
