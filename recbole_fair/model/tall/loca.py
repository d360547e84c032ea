"""LOCA: local collaborative autoencoders around anchor users (Choi et al., WSDM 2021), a baseline of TALL."""

from __future__ import annotations

import logging
import math
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from recbole_fair.config.contract import Settings, given_by_user
from recbole_fair.data.batches.item_rows import ItemRows
from recbole_fair.data.contract import DataSet, EvaluationLoader, TrainingLoader
from recbole_fair.data.facts.interactions import split_interactions
from recbole_fair.model.posthoc import progress_bar
from recbole_fair.model.tall.experts import Bags, sample
from recbole_fair.model.tall.keys import LOCA_KEYS
from recbole_fair.model.tall.local import LocalModel
from recbole_fair.model.tall.tall import MultVAE

logger = logging.getLogger(__name__)

_SHARE_OF_CANDIDATES = 10  # every tenth user may become an anchor, as in the authors' code

# Keys of training that local models, which one loop trains as a stack, do not follow.
_OF_THE_BASE = (
    "learner", "clip_grad_norm", "learning_rate_schedule", "learning_rate_warmup", "eval_step", "kl_reduction",
    "enable_amp", "enable_scaler",
)  # fmt: skip


def epanechnikov(embeddings: Tensor, anchors: Tensor, width: float) -> Tensor:
    """Kernel ``0.75 max(1 - (d / width)^2, 0)`` of the angular distance d = (2 / pi) arccos(cosine).

    Args:
        embeddings: ``[N, d]``.
        anchors: ``[A, d]``.
        width: above 0; 1 reaches all users at an angle below 90 degrees.

    Returns:
        ``[N, A]`` in [0, 0.75].
    """
    cosine = torch.nn.functional.normalize(embeddings) @ torch.nn.functional.normalize(anchors).t()
    distance = torch.arccos(cosine.clamp(-1.0, 1.0)) * (2.0 / math.pi)
    return 0.75 * (1.0 - (distance / width).square()).clamp(min=0.0)


def cover(covers: Tensor, count: int) -> Tensor:
    """Choose candidates greedily, each the one that covers most users that none has covered yet.

    When all that can be covered are, the count of covered users starts anew, so that further choices cover them again.

    Args:
        covers: whether candidate a covers user u, bool ``[A, N]``.
        count: how many to choose, at most A.

    Returns:
        Indices of the chosen candidates, long ``[count]``, in their order; ties go to the lowest index.
    """
    open_users = torch.ones(covers.shape[1], dtype=torch.bool, device=covers.device)
    free = torch.ones(covers.shape[0], dtype=torch.bool, device=covers.device)
    chosen = []
    for _ in range(count):
        gain = (covers & open_users).sum(1)
        if int(gain[free].max()) == 0:
            open_users.fill_(True)
            gain = (covers & open_users).sum(1)
        best = int(torch.where(free, gain, -1).argmax())
        chosen.append(best)
        free[best] = False
        open_users &= ~covers[best]
    return torch.tensor(chosen, device=covers.device)


class LOCA(LocalModel):
    """Autoencoders trained around anchor users and mixed by how near a user is to each anchor.

    A global MultVAE gives user embeddings (the encoder's means). ``n_experts`` anchors are chosen among them. A local
    MultVAE of each anchor is trained from scratch with a user's loss weighted by the kernel of width ``loca_train_h``,
    and keeps the epoch with the best validation NDCG on the users within ``loca_test_h``. Scores are means over the
    local models by the kernel of width ``loca_test_h``; users beyond all anchors keep the global model's.

    All local models learn on the same batches of users, as a stack (with ``loca_train_h: 1`` nearly all users are in
    all neighbourhoods).

    Attributes:
        experts: the local models.
        kernel: weight of each local model for each user id ``[n_users, E]``.
    """

    keys = LOCA_KEYS
    base_class: ClassVar[type[Any]] = MultVAE
    base_model_name: ClassVar[str] = "MultVAE"

    kernel: Tensor

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        super().__init__(config, dataset)
        self.config = config
        self.n_experts = int(config["n_experts"])
        self.experts = self.make_experts(config)
        self.register_buffer("kernel", torch.zeros(self.n_users, self.n_experts, device=self.device))

    # -- fitting -------------------------------------------------------------------------------------------------

    def fit_intervention(
        self, train_data: TrainingLoader, valid_data: EvaluationLoader | None, show_progress: bool = False
    ) -> dict[str, Any]:
        """Choose anchors and train their local models; see the class."""
        unread = [key for key in _OF_THE_BASE if key in given_by_user(self.config)]
        if unread:
            logger.warning(
                "%s: of the base alone. Local models are trained by Adam at a constant rate in full precision, and "
                "judged by NDCG after every epoch.",
                ", ".join(unread),
            )
        users = self.active_users()
        embeddings = self._embeddings(users)
        anchors = self._anchors(embeddings)
        train_kernel = torch.zeros_like(self.kernel)
        train_kernel[users] = epanechnikov(embeddings, embeddings[anchors], float(self.config["loca_train_h"]))
        self.kernel[users] = epanechnikov(embeddings, embeddings[anchors], float(self.config["loca_test_h"]))
        epochs, best = self._train(train_data, valid_data, train_kernel, show_progress)
        self.fitted.fill_(True)
        uncovered = int((self.kernel[users].sum(1) == 0).sum())
        self.report = {
            "anchors": len(anchors),
            "users_covered": len(users) - uncovered,
            "users_not_covered": uncovered,
            "mean_neighbours": float((self.kernel[users] > 0).float().sum(0).mean()),
            "epochs": epochs,
            "mean_best_epoch": float(best.float().mean()),
        }
        logger.info("LOCA: %s", ", ".join(f"{name} {value:g}" for name, value in self.report.items()))
        return self.report

    @torch.no_grad()
    def _embeddings(self, users: Tensor) -> Tensor:
        parts = [self.base.experts.encode_mean(Bags.normalised(self.rows.of(u), 1))[0] for u in torch.split(users, 512)]
        return torch.cat(parts)

    def _anchors(self, embeddings: Tensor) -> Tensor:
        """Positions of the anchors among the users ``[E]``."""
        way, count, n = str(self.config["loca_anchors"]), self.n_experts, len(embeddings)
        if way == "random":
            drawn = np.random.default_rng(self._seed).choice(n, count, replace=False)
            return torch.from_numpy(drawn).to(embeddings.device)
        if way == "kmeans":
            points = embeddings.cpu().numpy()
            centres = KMeans(count, n_init=1, random_state=self._seed).fit(points).cluster_centers_
            nearest = torch.cdist(torch.from_numpy(centres), torch.from_numpy(points)).argmin(1)
            return nearest.to(embeddings.device)
        step = max(1, min(_SHARE_OF_CANDIDATES, n // count))
        candidates = torch.arange(0, n, step, device=embeddings.device)
        near = epanechnikov(embeddings, embeddings[candidates], float(self.config["loca_test_h"])).t() > 0
        return candidates[cover(near, count)]

    def _train(
        self, train_data: TrainingLoader, valid_data: EvaluationLoader | None, kernel: Tensor, show_progress: bool
    ) -> tuple[int, Tensor]:
        """Train all local models; returns the number of epochs and the best epoch of each model ``[E]``."""
        config, stack = self.config, self.experts
        optimizer = torch.optim.Adam(
            stack.parameters(),
            lr=float(config["learning_rate"]),
            weight_decay=float(config["weight_decay"] or 0.0),
            fused=True,
        )
        judge = None if not valid_data else _Validation(self, valid_data)
        best_score = torch.full((self.n_experts,), -torch.inf, device=self.device)
        best_epoch = torch.zeros(self.n_experts, dtype=torch.long, device=self.device)
        best = {name: value.detach().clone() for name, value in stack.named_parameters()}
        steps, epoch, most = 0, 0, int(config["epochs"])
        with progress_bar("LOCA", show_progress) as move:
            for epoch in range(most):
                for batch in train_data:
                    steps += 1
                    self._step(batch[self.USER_ID].to(self.device), kernel, optimizer, steps)
                scores = best_score if judge is None else judge.scores()
                better = torch.ones_like(best_epoch, dtype=torch.bool) if judge is None else scores > best_score
                best_score[better], best_epoch[better] = scores[better], epoch
                for name, value in stack.named_parameters():
                    _by_expert(name, best[name])[better] = _by_expert(name, value.detach())[better]
                waiting = int((epoch - best_epoch <= int(config["stopping_step"])).sum())
                if move is not None:
                    move(epoch + 1, most, f"{waiting} of {self.n_experts} local models still improve")
                if judge is not None and waiting == 0:
                    break
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, value in stack.named_parameters():
                value.copy_(best[name])
        return epoch + 1, best_epoch

    def _step(self, users: Tensor, kernel: Tensor, optimizer: torch.optim.Optimizer, steps: int) -> None:
        config = self.config
        rows = self.rows.of(users)
        mean, logvar = self.experts.encode(Bags.normalised(rows, self.n_experts, dropout=float(config["dropout_prob"])))
        weights = kernel[users]
        members = (weights > 0).float()
        counts = members.sum(0).clamp(min=1.0)
        latent, divergences = sample(mean, logvar)
        losses = self.experts.losses(latent, rows)
        total = int(config["total_anneal_steps"])
        cap = float(config["anneal_cap"])
        anneal = min(cap, steps / total) if total > 0 else cap
        by_expert = ((weights * losses).sum(0) + anneal * (members * divergences.t()).sum(0)) / counts
        optimizer.zero_grad()
        torch.autograd.backward(by_expert.sum())
        optimizer.step()

    # -- scoring -------------------------------------------------------------------------------------------------

    def has_local_model(self, users: Tensor) -> Tensor:
        """Which users an anchor is near to, bool ``[B]``."""
        return self.kernel[users].sum(1) > 0

    def local_scores(self, users: Tensor) -> Tensor:
        """Means of the local models' scores by the kernel."""
        weights = self.kernel[users]
        total = weights.sum(1, keepdim=True)
        gate = weights / total.clamp(min=torch.finfo(weights.dtype).tiny)
        latent = self.experts.encode_mean(Bags.normalised(self.rows.of(users), self.n_experts))
        return self.experts.mixture(latent, gate)


def _by_expert(name: str, value: Tensor) -> Tensor:
    """A view of a parameter whose first dimension is the expert."""
    return value.transpose(0, 1) if name == "decoder" else value


class _Validation:
    """NDCG of each local model on validation, over the users within its kernel."""

    def __init__(self, model: LOCA, valid_data: EvaluationLoader) -> None:
        inter = split_interactions(valid_data._dataset)
        labels = ItemRows.from_pairs(inter.user, inter.item, model.n_users, model.n_items).to(model.device)
        self.model = model
        self.users = torch.nonzero((labels.lengths > 0) & (model.kernel.sum(1) > 0)).squeeze(1)
        self.labels = labels
        metric = str(model.config["valid_metric"])
        self.k = int(metric.partition("@")[2] or 20)

    @torch.no_grad()
    def scores(self) -> Tensor:
        """Mean NDCG of each local model ``[E]``; 0 for one without users."""
        model = self.model
        total = torch.zeros(model.n_experts, device=model.device)
        discount = 1.0 / torch.log2(torch.arange(2, self.k + 2, device=model.device).float())
        best_sums = torch.cat([discount.new_zeros(1), discount.cumsum(0)])
        for users in torch.split(self.users, 512):
            seen, wanted = model.rows.of(users), self.labels.of(users)
            latent = model.experts.encode_mean(Bags.normalised(seen, model.n_experts))
            relevant, ideal = wanted.dense(), best_sums[wanted.lengths.clamp(max=self.k)]
            near = (model.kernel[users] > 0).t()
            for experts, scores in model.experts.scores_in_blocks(latent):
                scores.view(len(scores), -1).index_fill_(1, seen.cells, -torch.inf)
                top = scores.topk(min(self.k, scores.shape[2]), dim=2).indices
                hits = relevant.expand(len(top), -1, -1).gather(2, top)
                ndcg = (hits * discount[: top.shape[2]]).sum(2) / ideal
                total[experts] += (ndcg * near[experts]).sum(1)
        return total / (model.kernel[self.users] > 0).sum(0).clamp(min=1)
