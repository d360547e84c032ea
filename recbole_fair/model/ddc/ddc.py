"""DDC (Liu et al., KDD 2026, arXiv 2512.10688): correct a trained model along two directions, two numbers a user.

The base is frozen. A user ``u`` becomes ``u + alpha_u |u| e_pop + beta_u |u| e_pre(u)``: along the direction from
unpopular to popular items, and along the user's own taste. Only ``alpha`` and ``beta`` are learnt, by BPR's loss on the
training interactions, in which the positive item is scored with the taste's term and the sampled one with
popularity's; both terms act in scoring.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.data.contract import DataSet, EvaluationLoader, TrainingLoader
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.interactions import Interactions, training_interactions
from recbole_fair.data.facts.popularity import count_items, select_head_tail
from recbole_fair.errors import FairError
from recbole_fair.model.bases.split import Split
from recbole_fair.model.ddc.directions import mean_ndcg, popularity_direction, preference_directions
from recbole_fair.model.ddc.keys import DDC_KEYS
from recbole_fair.model.posthoc import PostHocModel, progress_bar

_ROWS = 8192


class DDC(PostHocModel):
    """Correction of popularity bias by two learnt numbers a user, along popularity and the user's own taste.

    The variants ``popularity`` and ``preference`` use one of the two terms, ``corrected`` both.

    Attributes:
        alpha: ``[n_users]`` what each user is moved along popularity, in lengths of the user's vector.
        beta: ``[n_users]`` what each user is moved along the own taste.
        popular: ``[d]`` the direction of popularity.
        preferred: ``[n_users, d]`` the direction of each user's taste.
    """

    keys = DDC_KEYS
    variants = ("base", "popularity", "preference", "corrected")
    fitted_name = "two numbers a user"

    ddc_popularity: float = 1.0
    ddc_preference: float = 1.0

    alpha: Tensor
    beta: Tensor
    popular: Tensor
    preferred: Tensor
    _terms: ClassVar[dict[str, tuple[float, float]]] = {
        "popularity": (1.0, 0.0),
        "preference": (0.0, 1.0),
        "corrected": (1.0, 1.0),
    }

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        super().__init__(config, dataset)
        self._config = config
        d, n_users = self.vector_size(), int(self.base.n_users)
        self.register_buffer("alpha", torch.zeros(n_users))
        self.register_buffer("beta", torch.zeros(n_users))
        self.register_buffer("popular", torch.zeros(d))
        self.register_buffer("preferred", torch.zeros(n_users, d))

    @classmethod
    def kind_on(cls, base: type[Split]) -> type[PostHocModel]:
        """Itself.

        Raises:
            FairError: for a sequential base, whose users have no vector of their own.
        """
        if base.sequential:
            raise FairError(
                f"base={base.__name__} reads sequences; DDC learns two numbers for each user's own vector: use a model "
                "that has one, such as BPR or LightGCN, or PopSteer or SPREE on this base."
            )
        return cls

    # -- fitting -------------------------------------------------------------------------------------------------

    def fit_intervention(
        self, train_data: TrainingLoader, valid_data: EvaluationLoader | None, show_progress: bool = False
    ) -> dict[str, Any]:
        """Find the directions, learn the numbers; keeps the epoch with the best validation NDCG.

        Raises:
            FairError: popular and unpopular items cannot be told apart.
        """
        start = time.perf_counter()
        inter = training_interactions(train_data._dataset)
        head, tail = self._sides(inter)
        with torch.no_grad():
            self.base.eval()
            items, bias = self.item_representations().detach(), self.item_bias()
            users = self._all_users(inter.n_users)
            direction = popularity_direction(items[head], items[tail], str(self._config["ddc_direction"]))
            if not bool(direction.any()):
                raise FairError("Popular and unpopular items have the same vectors: the base model is untrained.")
            self.popular.copy_(direction)
            histories = Histories.from_interactions(inter)
            self.preferred.copy_(
                preference_directions(
                    users,
                    items,
                    bias,
                    torch.from_numpy(histories.indptr).to(users.device),
                    torch.from_numpy(histories.items).to(users.device),
                    float(self._config["ddc_preferred_share"]),
                )
            )
        directions = time.perf_counter() - start
        start = time.perf_counter()
        self.fitted.fill_(True)
        losses, scores, best = self._learn(users, items, bias, inter, valid_data, show_progress)
        active = torch.from_numpy(np.unique(inter.user)).to(self.alpha.device)
        self.report = {
            "base_model": self.base_model_name,
            "ddc": {
                "head_items": len(head),
                "tail_items": len(tail),
                "epochs": len(losses),
                "best_epoch": best,
                "losses": losses,
                "validation_ndcg": scores,
                "alpha": _quartiles(self.alpha[active]),
                "beta": _quartiles(self.beta[active]),
                "popularity_correlation": _correlation(items @ self.popular, inter),
            },
            "seconds": {"directions": directions, "learning": time.perf_counter() - start},
        }
        return self.report

    def _sides(self, inter: Interactions) -> tuple[Tensor, Tensor]:
        """Ids of popular and of unpopular items: by number of interactions where that is set, else by share."""
        config, counts = self._config, count_items(inter.item, inter.n_items)
        shares = (config["head_share"], config["tail_share"], config["head_tail_by"])
        head, tail = select_head_tail(counts, *shares, include_unseen=False)
        if config["ddc_head_at_least"] is not None:
            head = torch.nonzero(counts >= config["ddc_head_at_least"]).flatten()
        if config["ddc_tail_at_most"] is not None:
            tail = torch.nonzero((counts > 0) & (counts <= config["ddc_tail_at_most"])).flatten()
        for side, name, key in ((head, "popular", "ddc_head_at_least"), (tail, "unpopular", "ddc_tail_at_most")):
            if len(side) == 0:
                raise FairError(f"{key}={config[key]} leaves no {name} item; change it, or leave it out for a share.")
        return head, tail

    def _all_users(self, n_users: int) -> Tensor:
        device = self.alpha.device
        ids = torch.split(torch.arange(n_users), _ROWS)
        parts = [self.base.represent_users(Interaction({self.base.USER_ID: part}).to(device)) for part in ids]
        return torch.cat(parts).detach()

    def _learn(
        self,
        users: Tensor,
        items: Tensor,
        bias: Tensor | None,
        inter: Interactions,
        valid_data: EvaluationLoader | None,
        show: bool,
    ) -> tuple[list[float], list[float], int]:
        """Losses and validation scores by epoch, and the number of the epoch that is kept (1 the first)."""
        config, device = self._config, users.device
        rng = np.random.default_rng(self._seed)
        generator = torch.Generator().manual_seed(self._seed)
        active = torch.zeros_like(self.alpha)  # users without training items are left as they are
        active[torch.from_numpy(np.unique(inter.user)).to(device)] = 1.0
        for numbers in (self.alpha, self.beta):
            start = (torch.rand(len(numbers), generator=generator) * 2 - 1) * float(config["ddc_init"])
            numbers.copy_(start.to(device) * active)
        alpha, beta = (numbers.clone().requires_grad_(True) for numbers in (self.alpha, self.beta))
        optimizer = torch.optim.Adam([alpha, beta], lr=float(config["ddc_learning_rate"]))
        losses: list[float] = []
        scores: list[float] = []
        best = 0
        epochs, batch = int(config["ddc_epochs"]), int(config["ddc_batch_size"])
        met = np.unique(inter.user * inter.n_items + inter.item)
        with progress_bar("Two numbers a user", show) as move:
            for epoch in range(1, epochs + 1):
                order = rng.permutation(len(inter.user))
                negatives = sample_unmet(inter.user, inter.n_items, met, rng)
                total = 0.0
                for part in np.array_split(order, -(-len(order) // batch)):
                    who, liked, other = (
                        torch.from_numpy(ids[part]).to(device) for ids in (inter.user, inter.item, negatives)
                    )
                    loss = self.pair_loss(users, items, bias, (alpha, beta), (who, liked, other))
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    total += float(loss.detach()) * len(part)
                losses.append(total / len(order))
                if move is not None:
                    move(epoch, epochs, f"loss {losses[-1]:.4f}")
                kept = (self.alpha.clone(), self.beta.clone())
                self.alpha.copy_(alpha.detach())
                self.beta.copy_(beta.detach())
                if valid_data is None or self.scored_batches is None:
                    best = epoch
                    continue
                scores.append(self._validate(valid_data))
                if scores[-1] > max(scores[:-1], default=-1.0):
                    best = epoch
                else:
                    self.alpha.copy_(kept[0])
                    self.beta.copy_(kept[1])
                    if epoch - best >= int(config["ddc_stopping_step"]):
                        break
        return losses, scores, best

    def pair_loss(
        self,
        users: Tensor,
        items: Tensor,
        bias: Tensor | None,
        numbers: tuple[Tensor, Tensor],
        pairs: tuple[Tensor, Tensor, Tensor],
    ) -> Tensor:
        """BPR's loss of some pairs, with the terms that ``ddc_terms`` puts into either score.

        Args:
            users: ``[n_users, d]`` of the base.
            items: ``[n_items, d]`` of the base.
            bias: ``[n_items]``, or None.
            numbers: ``alpha`` and ``beta``, ``[n_users]`` each.
            pairs: user, positive and negative item of each pair, ``[B]`` each.

        Returns:
            Mean over the pairs of ``-log sigmoid(positive - negative) + weight (alpha_u^2 + beta_u^2)``.
        """
        who, liked, other = pairs
        alpha, beta = (of_users[who] for of_users in numbers)
        of_positive, of_negative = str(self._config["ddc_terms"]).split("_")

        def score(item: Tensor, terms: str) -> Tensor:
            on_popularity = alpha if "a" in terms else torch.zeros_like(alpha)
            on_preference = beta if "b" in terms else torch.zeros_like(beta)
            moved = self._moved(users[who], who, on_popularity, on_preference)
            products = (moved * items[item]).sum(dim=1)
            return products if bias is None else products + bias[item]

        difference = score(liked, of_positive) - score(other, of_negative)
        penalty = float(self._config["ddc_regularization"]) * (alpha.square() + beta.square())
        return (F.softplus(-difference) + penalty).mean()

    def _moved(self, vectors: Tensor, who: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        """``[B, d]`` users moved along both directions by so many lengths of theirs."""
        length = vectors.norm(dim=1)
        on_popularity = (alpha * length).unsqueeze(1) * self.popular
        return vectors + on_popularity + (beta * length).unsqueeze(1) * self.preferred[who]

    def _validate(self, valid_data: EvaluationLoader) -> float:
        assert self.scored_batches is not None
        k = int(self._config["topk"][0])
        total = torch.zeros((), dtype=torch.float64)
        n = 0
        with self.use_variant("corrected"), torch.no_grad():
            for _, scores, row, item in self.scored_batches(valid_data):
                if row is None or item is None:
                    raise ValueError("validation rates single rows")
                total += mean_ndcg(scores, row.to(scores.device), item.to(scores.device), k).double().sum().cpu()
                n += len(scores)
        return float(total / n)

    # -- scoring -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` user representations of the variant in use."""
        users: Tensor = self.base.represent_users(interaction)
        if self.variant == "base":
            return users
        if not self.fitted:
            raise FairError(f"{type(self).__name__} has not been fitted yet; train it, or load a checkpoint of it.")
        on_popularity, on_preference = self._terms[self.variant]
        who = interaction[self.base.USER_ID]
        alpha = self.ddc_popularity * on_popularity * self.alpha[who]
        beta = self.ddc_preference * on_preference * self.beta[who]
        return self._moved(users, who, alpha, beta)


def sample_unmet(
    users: np.ndarray[Any, Any], n_items: int, met: np.ndarray[Any, Any], rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    """An item for each entry of ``users`` ``[n]``, uniform among those the user has not met; ``met`` rises."""
    items = rng.integers(1, n_items, size=len(users))
    again = np.arange(len(users))
    for _ in range(100):  # a user who has met everything keeps what was drawn
        keys = users[again] * n_items + items[again]
        again = again[met[np.minimum(np.searchsorted(met, keys), len(met) - 1)] == keys]
        if len(again) == 0:
            break
        items[again] = rng.integers(1, n_items, size=len(again))
    return items


def _quartiles(values: Tensor) -> dict[str, float]:
    found = np.quantile(values.detach().cpu().double().numpy(), [0.25, 0.5, 0.75])
    return dict(zip(("lower_quartile", "median", "upper_quartile"), map(float, found), strict=True))


def _correlation(projection: Tensor, inter: Interactions) -> float:
    """Correlation of items' places along the direction with the logarithm of their interactions, seen items only."""
    counts = count_items(inter.item, inter.n_items).numpy()
    seen = counts > 0
    return float(np.corrcoef(projection.detach().cpu().double().numpy()[seen], np.log(counts[seen]))[0, 1])
