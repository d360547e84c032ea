"""A recommender as one graph from item ids to scores: what ``export`` writes.

Whatever the length of the input, the graph works on the model's whole window, cut out of it by a gather, as RecBole
pads sequences: no size inside depends on the input's length, so that the graph holds for every length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor, nn

from recbole_fair.errors import FairError
from recbole_fair.model.bases.split import Split, split_class
from recbole_fair.model.contract import contract_of
from recbole_fair.model.posthoc import PostHocModel
from recbole_fair.runs.recommender import Recommender

Columns = Mapping[str, Tensor]


class UserEncoder(nn.Module):
    """Histories to user vectors ``[B, d]``.

    Args:
        recommender: of a model whose scores are a product of users and items.
        variant: how a steered model scores.
    """

    def __init__(self, recommender: Recommender, variant: str) -> None:
        super().__init__()
        self.model = split_model(recommender)
        self.base: Any = self.model.base if isinstance(self.model, PostHocModel) else self.model
        self.window = recommender.window
        self.sequential = recommender.sequential
        self.n_items = len(recommender.item_ids)
        self._users: Callable[[Any], Tensor] = self.base.represent_users
        if isinstance(self.model, PostHocModel):
            self._users = self.model.frozen(variant)

    def forward(self, item_ids: Tensor, lengths: Tensor) -> Tensor:
        """``[B, d]`` from item ids ``[B, L]``, padded with 0 at the right, and lengths ``[B]``."""
        if not self.sequential:
            return self._of_rows(item_ids, lengths)
        window, kept = last_items(item_ids, lengths, self.window)
        columns = {
            self.base.ITEM_SEQ: window,
            self.base.ITEM_SEQ_LEN: kept.clamp_min(1),
            self.base.USER_ID: torch.zeros_like(kept),
        }
        return self._users(columns)

    def _of_rows(self, item_ids: Tensor, lengths: Tensor) -> Tensor:
        """Users of an autoencoder: rows of zeros and ones stand in for those that it keeps."""
        rows = held_items(item_ids, lengths, self.n_items).to(torch.float32)
        base = self.base
        base.get_rating_matrix = lambda user: rows
        try:
            return self._users({base.USER_ID: torch.zeros_like(lengths)})
        finally:
            del base.get_rating_matrix


class Scores(nn.Module):
    """User vectors to scores of all items ``[B, n_items]``, -inf for the padding item.

    Args:
        recommender: of a model whose scores are a product of users and items.
    """

    items: Tensor
    bias: Tensor
    offset: Tensor

    def __init__(self, recommender: Recommender) -> None:
        super().__init__()
        model: Any = split_model(recommender)
        items, bias = item_sides(model, len(recommender.item_ids))
        offset = torch.zeros_like(bias) if recommender.item_bias is None else recommender.item_bias.float().cpu()
        offset[0] = -torch.inf
        self.register_buffer("items", items)
        self.register_buffer("bias", bias)
        self.register_buffer("offset", offset)
        self._to_scores: Callable[[Tensor], Tensor] = model.to_scores

    def forward(self, users: Tensor) -> Tensor:
        """``[B, n_items]``."""
        return self._to_scores(users @ self.items.t() + self.bias) + self.offset


class ScoreGraph(nn.Module):
    """Histories to scores of all items, or to the best items.

    Args:
        recommender: the recommender.
        variant: how a steered model scores.
        k: the best so many items; scores of all items when None.
        exclude_seen: whether items of the history come last.
    """

    popularity: Tensor

    def __init__(
        self, recommender: Recommender, variant: str, k: int | None = None, exclude_seen: bool = False
    ) -> None:
        super().__init__()
        self.users, self.scores = UserEncoder(recommender, variant), Scores(recommender)
        self.k, self.exclude_seen = k, exclude_seen
        popularity = recommender.popularity.float()
        popularity[0] = -torch.inf
        self.register_buffer("popularity", popularity)

    def forward(self, item_ids: Tensor, lengths: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Scores ``[B, n_items]``, or items and scores ``[B, k]``, from item ids ``[B, L]`` and lengths ``[B]``."""
        scores = self.scores(self.users(item_ids, lengths))
        # Nothing is known of a user without a history: the most popular items, as in ``recommend``.
        scores = torch.where((lengths > 0).unsqueeze(1), scores, self.popularity)
        if self.exclude_seen:
            scores = scores.masked_fill(held_items(item_ids, lengths, scores.shape[1]), -torch.inf)
        return scores if self.k is None else best_items(scores, self.k)


class KnownUserGraph(nn.Module):
    """Numbers of known users to scores of all items, or to the best items.

    Args:
        recommender: of a general model.
        variant: how a steered model scores.
        k: the best so many items; scores of all items when None.
    """

    users: Tensor

    def __init__(self, recommender: Recommender, variant: str, k: int | None = None) -> None:
        super().__init__()
        self.register_buffer("users", known_users(recommender, variant))
        self.scores, self.k = Scores(recommender), k

    def forward(self, users: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Scores ``[B, n_items]``, or items and scores ``[B, k]``, from user numbers ``[B]``."""
        scores = self.scores(nn.functional.embedding(users, self.users))
        return scores if self.k is None else best_items(scores, self.k)


def last_items(item_ids: Tensor, lengths: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """The last items of each row in a window of fixed size, padded with 0 at the right.

    Args:
        item_ids: long ``[B, L]``, padded at the right; L may be anything.
        lengths: long ``[B]``, at most L.
        window: columns of the result.

    Returns:
        long ``[B, window]``, and how many items stand in each row.
    """
    column = torch.arange(window, device=item_ids.device)
    source = column + (lengths - window).clamp_min(0).unsqueeze(1)
    inside = source < lengths.unsqueeze(1)
    # One more column of zeros, so that there is something to gather where the input ends.
    longer = torch.cat([item_ids, torch.zeros_like(item_ids[:, :1])], dim=1)
    found = longer.gather(1, torch.where(inside, source, torch.zeros_like(source)))
    return found * inside, lengths.clamp_max(window)


def held_items(item_ids: Tensor, lengths: Tensor, n_items: int) -> Tensor:
    """Bool ``[B, n_items]``: which items a history holds; never the padding item."""
    inside = torch.arange(item_ids.shape[1], device=item_ids.device) < lengths.unsqueeze(1)
    held = torch.zeros((item_ids.shape[0], n_items), device=item_ids.device)
    held = held.scatter(1, item_ids * inside, torch.ones_like(item_ids, dtype=held.dtype))
    return (held > 0) & (torch.arange(n_items, device=item_ids.device) > 0)


def best_items(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Items and scores ``[B, k]``, best first."""
    values, items = scores.topk(k, dim=1)
    return items, values


def split_model(recommender: Recommender) -> AbstractRecommender:
    """The model with the two sides of its scores; the same weights.

    Raises:
        FairError: if its scores are no product of users and items.
    """
    model = recommender.model
    if recommender.adjuster_per_user is not None:
        raise FairError(
            f"{recommender.adjuster_per_user} changes each user's scores in a way of their own (an exponent, or "
            "probabilities), which an exported graph cannot; Lorenz with reranker_score raw is an item bias."
        )
    if isinstance(model, PostHocModel | Split):
        if isinstance(model, PostHocModel) and not isinstance(model.base, Split):
            raise FairError(f"{recommender.config['model']} cannot be exported: its scores are no product.")
        return model
    try:
        made = split_class(type(model))
    except FairError as error:
        reason = str(error).partition(": ")[2].partition(". ")[0]
        raise FairError(f"{recommender.config['model']} cannot be exported: {reason}.") from error
    twin: AbstractRecommender = made(recommender.config, recommender.dataset).to(recommender.config["device"])
    twin.load_state_dict(model.state_dict())
    twin.load_other_parameter(model.other_parameter())
    return twin.eval()


@torch.no_grad()
def item_sides(model: Any, n_items: int) -> tuple[Tensor, Tensor]:
    """Item vectors ``[n_items, d]`` and the model's own item bias ``[n_items]``."""
    items = model.item_representations().detach().float().cpu()[:n_items].contiguous()
    bias = model.base.score_bias() if isinstance(model, PostHocModel) else model.score_bias()
    return items, torch.zeros(n_items) if bias is None else bias.detach().float().cpu()[:n_items].clone()


def item_arrays(recommender: Recommender) -> tuple[Tensor, Tensor]:
    """Item vectors ``[n_items, d]`` and item bias ``[n_items]``, what the recommender adds for everybody folded in.

    The best items of a user are those with the largest ``users @ items.T + bias``.

    Raises:
        FairError: if the model's scores are no product, or are bent before an item bias is added to them.
    """
    model: Any = split_model(recommender)
    items, bias = item_sides(model, len(recommender.item_ids))
    if recommender.item_bias is not None:
        base = model.base if isinstance(model, PostHocModel) else model
        if type(base).to_scores is not Split.to_scores:
            raise FairError(
                f"{recommender.config['model']} bends its scores before a bias is added: arrays cannot say that; "
                "use --format onnx."
            )
        bias = bias + recommender.item_bias.float().cpu()
    return items, bias


@torch.no_grad()
def known_users(recommender: Recommender, variant: str) -> Tensor:
    """Vectors of all known users ``[n_users, d]``, the padding user's first."""
    model: Any = split_model(recommender)
    base = model.base if isinstance(model, PostHocModel) else model
    represent = model.frozen(variant) if isinstance(model, PostHocModel) else base.represent_users
    numbers = torch.arange(len(recommender.user_ids), device=recommender.config["device"])
    parts = [represent({base.USER_ID: part}) for part in torch.split(numbers, 1024)]
    return torch.cat(parts).detach().float().cpu()


def variant_of(recommender: Recommender, variant: str | None) -> str:
    """The variant asked for, or the one that the model is about.

    Raises:
        FairError: if there is no such variant.
    """
    model = contract_of(recommender.model)
    if variant is not None and variant not in model.variants:
        raise FairError(f"{variant!r} is not a variant of {recommender.config['model']}: {', '.join(model.variants)}.")
    return variant or model.final_variant
