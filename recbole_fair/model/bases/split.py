"""Models said as users' vectors times items' vectors: what post-hoc methods on representations need of a base.

RecBole's classes score whole lists at once. :func:`split_class` gives the same class, with the same parameters, state
dict and training, which also says what its two sides are. One adapter serves a family of models:
:mod:`~recbole_fair.model.bases.sequences`, :mod:`~recbole_fair.model.bases.embeddings` and
:mod:`~recbole_fair.model.bases.decoders`. A model class of one's own takes part when it has the two functions
``represent_users`` and ``item_representations``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender, SequentialRecommender
from torch import Tensor, nn

from recbole_fair.errors import FairError


class Split:
    """A model whose scores are ``to_scores(users @ items.T + bias)``.

    Attributes:
        sequential: whether users are represented by what they did last, so that synthetic ones can be.
        stated: whether the class itself, and no adapter, says the two sides; they are then checked before use.
        reads_user_id: whether a sequential model looks at who the user is beside the sequence, so that a synthetic user
            needs an identity.
        any_width: whether a sequential model gives the same for a sequence however many columns of padding follow;
            where it does not, sequences have to be padded to the full window, as RecBole pads them.
        encodes_positions: whether ``encode(item_seq, positions)`` gives the representations of all prefixes at once.
        sequence_fields: lists that a sequential model reads beside that of the items; None if that is not known.
    """

    sequential: ClassVar[bool] = False
    stated: ClassVar[bool] = False
    reads_user_id: ClassVar[bool] = False
    any_width: ClassVar[bool] = False
    encodes_positions: ClassVar[bool] = False
    sequence_fields: ClassVar[tuple[str, ...] | None] = None

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` representations of the users of a batch."""
        raise NotImplementedError

    def item_representations(self) -> Tensor:
        """``[n_items, d]`` representations of all items, row 0 being the padding item."""
        raise NotImplementedError

    def score_bias(self) -> Tensor | None:
        """``[n_items]`` what is added to the items' scores whoever the user is, or None.

        By default what the class's own function ``item_bias()`` gives, if it has one.
        """
        function = vars_of(type(self)).get("item_bias")
        bias: Tensor | None = function(self) if callable(function) else None
        return bias

    def to_scores(self, products: Tensor) -> Tensor:
        """The model's own scores for ``users @ items.T + bias``: an increasing function of each entry."""
        return products

    def blocks(self) -> Sequence[nn.Module]:
        """Transformer blocks, in order, whose outputs are ``[B, L, d]``; none for a model of another make."""
        return ()

    @torch.no_grad()
    def check_sides(self, interaction: Interaction) -> None:
        """Compare the product of the two sides with the class's own scores of whole lists.

        Args:
            interaction: a batch of users; the first 64 are looked at.

        Raises:
            FairError: they differ.
        """
        batch = interaction[: min(64, len(interaction))]
        products = self.represent_users(batch) @ self.item_representations().t()
        bias = self.score_bias()
        scores = self.to_scores(products if bias is None else products + bias)
        own = scores_of(self, batch).reshape(len(batch), -1)
        if own.shape != scores.shape or not torch.allclose(scores, own, rtol=1e-3, atol=1e-4):
            raise FairError(
                f"{type(self).__name__} cannot be a base: represent_users times item_representations, plus item_bias "
                "if there is one, are not the scores of its full_sort_predict."
            )


def scores_of(model: AbstractRecommender, interaction: Interaction) -> Tensor:
    """What a model's class gives for whole lists."""
    scores: Tensor = model.full_sort_predict(interaction)
    return scores


#: RecBole's models that are no product of users and items, and why.
NO_SPLIT: dict[str, str] = {
    "ADMMSLIM": "it has no vectors: items are compared with the user's items one by one",
    "AsymKNN": "it has no vectors: items are compared with the user's items one by one",
    "CFKG": "it scores by distance, not by a product",
    "ConvNCF": "a network scores each pair of user and item",
    "DIEN": "a network scores each pair of user and item",
    "DIN": "a network scores each pair of user and item",
    "DiffRec": "its scores come out of a diffusion over all items",
    "EASE": "it has no vectors: items are compared with the user's items one by one",
    "ItemKNN": "it has no vectors: items are compared with the user's items one by one",
    "GRU4RecCPR": "its scores mix several distributions over items",
    "GRU4RecKG": "it needs vectors of entities from files of their own, with which this has not been tried",
    "KGAT": "its graph's attention is no part of its checkpoints",
    "KGCN": "an item's vector depends on the user",
    "KGNNLS": "an item's vector depends on the user",
    "KGIN": "it needs the package torch_scatter, with which this has not been tried",
    "KSR": "it needs vectors of entities from files of their own, with which this has not been tried",
    "KTUP": "it scores by distance, not by a product",
    "LDiffRec": "its scores come out of a diffusion over all items",
    "MacridVAE": "its scores mix several users' vectors, one a group of items",
    "MCCLK": "it needs the package torch_scatter, with which this has not been tried",
    "MKR": "a network scores each pair of user and item",
    "NAIS": "a user's vector depends on the item that is scored",
    "NeuMF": "a network scores each pair of user and item",
    "NNCF": "a network scores each pair of user and item",
    "Pop": "it gives everybody the same items",
    "Random": "its scores are drawn at random",
    "RepeatNet": "its scores mix two distributions, one of them over the user's own items",
    "RippleNet": "a user's vector depends on the item that is scored",
    "SASRecCPR": "its scores mix several distributions over items",
    "SLIMElastic": "it has no vectors: items are compared with the user's items one by one",
    "TransRec": "it scores by distance, not by a product",
}


@functools.cache
def families() -> dict[type[Any], type[Split]]:
    """RecBole's classes that can be split, each with the adapter of its family."""
    from recbole_fair.model.bases import decoders, embeddings, sequences

    return {**sequences.FAMILIES, **embeddings.FAMILIES, **decoders.FAMILIES}


def split_names() -> tuple[str, ...]:
    """Names of RecBole's models that can be a base, sorted."""
    return tuple(sorted({model.__name__ for model in families() if model.__module__.startswith("recbole.")}))


_MADE: dict[type[Any], type[Any]] = {}


def split_class(model: type[Any]) -> type[Any]:
    """A model's class with the two sides of its scores.

    Args:
        model: a class of RecBole, one derived from it that scores as it does, or a class of one's own with
            ``represent_users`` and ``item_representations``.

    Returns:
        A class derived from ``model`` and :class:`Split`, of the same name: the same parameters, state dict and
        training. The same class for the same argument.

    Raises:
        FairError: the model is not of that kind; the sentence says why and what applies instead.
    """
    if issubclass(model, Split):
        return model
    if model not in _MADE:
        _MADE[model] = _split(model)
    return _MADE[model]


def vars_of(model: type[Any]) -> dict[str, Any]:
    """All attributes of a class, those of its ancestors included."""
    return {name: value for one in reversed(model.__mro__) for name, value in vars(one).items()}


def _split(model: type[Any]) -> type[Any]:
    if callable(vars_of(model).get("represent_users")) and callable(vars_of(model).get("item_representations")):
        return _compose(model, model, Split)
    adapters = families()
    ancestor = next((one for one in model.__mro__ if one in adapters), None)
    if ancestor is not None and all(_same(model, ancestor, name) for name in ("forward", "full_sort_predict")):
        adapter = adapters[ancestor]
        return _compose(model, adapter, model)
    raise FairError(
        f"{model.__name__} cannot be a base: {_why_not(model)}. What applies to it: the re-rankers (reranker=IPR, PCT, "
        "...), or a base that is one product, such as BPR, LightGCN, SASRec or GRU4Rec."
    )


def _same(model: type[Any], ancestor: type[Any], name: str) -> bool:
    return vars_of(model).get(name) is vars_of(ancestor).get(name)


def _compose(model: type[Any], *parents: type[Any]) -> type[Any]:
    attributes = {
        "__doc__": model.__doc__,
        "__module__": model.__module__,
        "__qualname__": model.__qualname__,
        "stated": Split in parents,
        "sequential": vars_of(model).get("sequential", issubclass(model, SequentialRecommender)),
    }
    return type(model.__name__, parents, attributes)


def _why_not(model: type[Any]) -> str:
    for one in model.__mro__:
        if one.__module__.startswith("recbole.") and one.__name__ in NO_SPLIT:
            return NO_SPLIT[one.__name__]
    if not issubclass(model, AbstractRecommender) or model.__module__.startswith(("recbole.", "recbole_fair.")):
        return "its scores are no product of a user's and an item's vector"
    return (
        "it does not say its users' and items' vectors (represent_users(interaction) -> [B, d], item_representations() "
        "-> [n_items, d], and item_bias() -> [n_items] if it has one)"
    )
