"""What a model's class declares about itself by class attributes, read before any model is built.

What a model *does* (hooks, variants, split scoring) stands in :mod:`recbole_fair.model.contract`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from recbole_fair.config.contract import Settings

if TYPE_CHECKING:
    from recbole.utils import InputType


def _never(config: Settings) -> bool:
    return False


@dataclass(frozen=True)
class Traits:
    """Declarations of a model's class, each under the attribute of the same name; RecBole's classes declare few.

    Its keys are found by :func:`recbole_fair.config.catalogue.declared`.

    Attributes:
        input_type: RecBole's; None where the loss decides it.
        loss_types: values of ``loss_type`` that such a class takes.
        reads_windows: learns from all positions of windows at once (:class:`WindowLoader`).
        reads_pairs: learns from labelled pairs (:class:`PairLoader`).
        reads_users: learns from users' whole rows (:class:`UserLoader`).
        reads_time: whether the model needs timestamps under some settings.
        ranks_all_items: a context model whose ``full_sort_predict`` does not repeat each user's row for every item.
        sequence_fields: fields whose lists of past values it reads beside the items; None for all.
        base_class: the class of the trained model that it stands on.
        base_model_name: the name of the model whose settings its own build on.
        trainer_name: a trainer of the registry, or ``"module:Class"``.
        dossier: a dossier of :mod:`recbole_fair.runs.dossiers`, or ``"module:Class"``; None where there is nothing to
            explain.
        writes_neurons: whether there is a table of neurons to write.
        scores_are_logits: whether the sigmoid of a score is a probability.
    """

    input_type: InputType | None = None
    loss_types: tuple[str, ...] = ("CE", "BPR")
    reads_windows: bool = False
    reads_pairs: bool = False
    reads_users: bool = False
    reads_time: Callable[[Settings], bool] = _never
    ranks_all_items: bool = False
    sequence_fields: tuple[str, ...] | None = None
    base_class: type[Any] | None = None
    base_model_name: str | None = None
    trainer_name: str | None = None
    dossier: str | None = None
    writes_neurons: bool = False
    scores_are_logits: bool = False

    @classmethod
    def of(cls, model_class: type[Any]) -> Traits:
        """The declarations of a class, its own or inherited; defaults for the rest."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: getattr(model_class, name) for name in names if hasattr(model_class, name)})


def trained_class(model_class: type[Any]) -> type[Any]:
    """The class whose training a model needs: that of the base model it stands on, or itself."""
    return Traits.of(model_class).base_class or model_class


def trained_name(model_class: type[Any], name: str) -> str:
    """The name of the model whose training a model needs: that of the base model it stands on, or its own ``name``."""
    traits = Traits.of(model_class)
    return name if traits.base_class is None else traits.base_model_name or traits.base_class.__name__
