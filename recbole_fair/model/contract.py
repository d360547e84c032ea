"""What trainers, re-rankers and studies may ask of a model, and the one place where RecBole's classes are fitted to it.

A model of ours derives from :class:`FairModel` and overrides what it has to say; every default is what holds for a
plain model. Whoever holds a model that may be RecBole's, or a user's subclass of one, asks :func:`contract_of`. What
a class declares before it is built stands in :class:`~recbole_fair.config.traits.Traits`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar, Protocol, runtime_checkable

from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor

from recbole_fair.config.catalogue import check_values, strengths_of
from recbole_fair.data.batches.windows import WINDOW_TARGETS
from recbole_fair.model.variants import Variants


@runtime_checkable
class SplitScoring(Protocol):
    """A model whose score of a user and an item is the product of their two vectors."""

    USER_ID: str

    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` representations of the users of a batch."""

    def item_representations(self) -> Tensor:
        """``[n_items, d]`` representations of all items, the padding item's among them."""


@runtime_checkable
class ReadsSequences(Protocol):
    """A model that reads users' past items in a column of the batch."""

    ITEM_SEQ: str


class FairModel(Variants):
    """Mixin: the hooks that a model may override; it stands before RecBole's class in the list of bases.

    Attributes:
        trainer_name: the trainer, a name of the registry or ``"module:Class"``; None for RecBole's choice.
        dossier: the dossier that ``explain`` writes, a name of :mod:`recbole_fair.runs.dossiers` or ``"module:Class"``;
            None where there is nothing to explain.
        writes_neurons: whether :meth:`write_neurons` does something.
        loss_adds_up: whether the loss of a batch is made of those of its parts, whatever a first batch says: because
            what is no mean over targets is taken over the whole batch
            (:meth:`~recbole_fair.io.processes.Processes.over_batch`). Else it is found out.
    """

    trainer_name: ClassVar[str | None] = None
    dossier: ClassVar[str | None] = None
    writes_neurons: ClassVar[bool] = False
    loss_adds_up: bool = False

    @property
    def draws_to_score(self) -> bool:
        """Whether scores hold random numbers of a generator of the model's own, drawn batch after batch."""
        return False

    def begin_epoch(self, epoch: int) -> None:
        """Called before each epoch (0, 1, ...) of the training."""

    def end_epoch(self) -> None:
        """Called after each epoch: with several processes, what each of them has seen is to be put together."""

    def targets_of(self, interaction: Interaction) -> Tensor | None:
        """How many targets each row of a training batch has, which the loss is the mean over: ``[B]``.

        None where it is one a row.
        """
        return (interaction[WINDOW_TARGETS] > 0).sum(1) if WINDOW_TARGETS in interaction else None

    def epoch_report(self) -> dict[str, float]:
        """Numbers on the epoch that has just ended, by name, for the log and for TensorBoard."""
        return {}

    def encoded_once(self) -> AbstractContextManager[None]:
        """A block inside which what does not depend on the strengths is computed once a batch and remembered."""
        return nullcontext()

    def write_neurons(self, path: str) -> None:
        """Write the table of neurons as CSV; only where :attr:`writes_neurons` says so."""
        raise NotImplementedError(f"{type(self).__name__} has no neurons to write.")


# What a class of RecBole's family may define without deriving from FairModel.
_HOOKS = (
    "begin_epoch",
    "end_epoch",
    "targets_of",
    "epoch_report",
    "encoded_once",
    "scoring_notes",
    "check_strength",
    "set_strengths",
)


class AdaptedModel(FairModel):
    """A model that does not derive from :class:`FairModel`: one variant, and the hooks that its class defines itself.

    Args:
        model: a model of RecBole, or of a user.
    """

    def __init__(self, model: AbstractRecommender) -> None:
        self.model = model
        self.strength_keys = strengths_of(type(model))  # type: ignore[misc]
        for name in _HOOKS:
            hook = getattr(model, name, None)
            if callable(hook):
                setattr(self, name, hook)

    def check_strength(self, name: str, value: Any) -> None:
        """Raise a FairError when a strength cannot be ``value``."""
        check_values({name: value}, {}, type(self.model))

    def set_strengths(self, **values: Any) -> None:
        """Change the model's own attributes of these names."""
        for name, value in values.items():
            setattr(self.model, name, value)

    @property
    def strengths(self) -> dict[str, Any]:
        """The model's own attributes named in its ``strength_keys``."""
        return {name: getattr(self.model, name) for name in self.strength_keys if hasattr(self.model, name)}


def contract_of(model: AbstractRecommender) -> FairModel:
    """A model as its users see it: itself if it derives from :class:`FairModel`, else an adapter around it."""
    return model if isinstance(model, FairModel) else AdaptedModel(model)


def user_columns(model: SplitScoring) -> list[str]:
    """Columns of a batch that a model's user representations depend on."""
    return [model.USER_ID, model.ITEM_SEQ] if isinstance(model, ReadsSequences) else [model.USER_ID]


@contextmanager
def remembered_users(base: SplitScoring) -> Iterator[None]:
    """Inside the block the user representations of each batch are computed once."""
    encode, known, columns = base.represent_users, dict[tuple[bytes, ...], Tensor](), user_columns(base)

    def remembered(interaction: Interaction) -> Tensor:
        key = tuple(interaction[column].cpu().numpy().tobytes() for column in columns)
        if key not in known:
            known[key] = encode(interaction)
        return known[key]

    base.represent_users = remembered  # type: ignore[method-assign]
    try:
        yield
    finally:
        del base.represent_users
