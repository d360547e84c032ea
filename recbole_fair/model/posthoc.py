"""A trained recommender with an intervention on top: what all post-hoc methods share.

The base model is held, not inherited: its parameters stand under ``base.`` in the state dict, its code is not touched,
and it is scored as it is or through the intervention (:meth:`PostHocModel.use_variant`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.data.contract import DataSet, EvaluationLoader, TrainingLoader
from recbole_fair.errors import FairError
from recbole_fair.io.bars import bars_shown, new_bar
from recbole_fair.model.bases.split import Split, split_class, vars_of
from recbole_fair.model.contract import FairModel, SplitScoring, remembered_users, user_columns

Progress = Callable[[int, int, str], None]

# What a configuration and a data set read off a model's class, and which is the base's business.
_OF_THE_BASE = ("type", "input_type", "sequence_fields")
_MADE: dict[tuple[type[Any], type[Any]], type[PostHocModel]] = {}


class PostHocModel(FairModel, AbstractRecommender):
    """A frozen base model plus an intervention on its user representations.

    A concrete class sets ``base_class`` and ``base_model_name`` and writes :meth:`fit_intervention` and :meth:`edit`.
    Whatever is fitted belongs in parameters and buffers of fixed shape, so that ``state_dict()`` is the whole model;
    plain values go into ``report``.

    Attributes:
        base_class: class of the base model.
        needs_split: whether the base has to say its users' and items' vectors; it is then made an instance of
            :class:`~recbole_fair.model.bases.split.Split`.
        base_model_name: its name, by which its settings are found.
        fitted_name: what :meth:`fit_intervention` fits, in a word or two for the log.
        trainer_name: the trainer in the registry.
        variants: what can be scored: the base first, the intervention at full strength last.
        strength_grid: values of strengths among which ``strengths: auto`` chooses, 0 among them; none: no choice.
        base: the base model.
        report: what :meth:`fit_intervention` returned, empty before.
        scored_batches: set by the trainer: batches of a split with the scores of the variant in use, masked as the
            evaluation masks them (:meth:`~recbole_fair.trainer.trainer.FairTrainerMixin.scored_batches`).
    """

    base_class: ClassVar[type[Any]]
    base_model_name: ClassVar[str]
    needs_split: ClassVar[bool] = True
    fitted_name: ClassVar[str] = "intervention"
    trainer_name = "PostHocTrainer"
    variants: tuple[str, ...] = ("base", "intervened")
    strength_grid: ClassVar[dict[str, tuple[float, ...]]] = {}
    other_parameter_name: ClassVar[list[str]] = ["report"]

    fitted: Tensor
    scored_batches: Callable[[Any], Iterator[tuple[Any, Tensor, Tensor | None, Tensor | None]]] | None = None

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        super().__init__()
        base_class = split_class(self.base_class) if self.needs_split else self.base_class
        self.base = base_class(config, dataset)
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.report: dict[str, Any] = {}
        self.variant = self.variants[-1]
        self._seed = int(config["seed"] or 0)
        self.set_strengths(**{key: config[key] for key in self.strength_keys if config[key] is not None})

    # -- the same method on other bases --------------------------------------------------------------------------

    @classmethod
    def on(cls, base: type[Any]) -> type[PostHocModel]:
        """This method on a base model of one's choice.

        Args:
            base: a model's class: RecBole's, ours, or one's own that says its users' and items' vectors.

        Returns:
            A class with ``base_class`` and ``base_model_name``, named after method and base (``PopSteerGRU4Rec``);
            the same one for the same base.

        Raises:
            FairError: the method cannot stand on that model.
        """
        made = _MADE.get((cls, base))
        if made is None:
            made = _MADE[cls, base] = cls._make(base)
        return made

    @classmethod
    def _make(cls, base: type[Any]) -> type[PostHocModel]:
        if issubclass(base, PostHocModel):
            raise FairError(f"base={base.__name__} is a post-hoc model itself; {cls.__name__} stands on a plain model.")
        split = split_class(base) if cls.needs_split else base
        kind = cls.kind_on(split)
        attributes: dict[str, Any] = {
            "__doc__": f"{cls.__name__} on {base.__name__}.",
            "__module__": kind.__module__,
            "base_class": split,
            "base_model_name": base.__name__,
        }
        declared = vars_of(split)
        attributes |= {name: declared[name] for name in _OF_THE_BASE if name in declared}
        return type(f"{cls.__name__}{base.__name__}", (kind,), attributes)

    @classmethod
    def kind_on(cls, base: type[Split]) -> type[PostHocModel]:
        """The class that the method takes on such a base; itself, unless a method has several kinds."""
        return cls

    # -- strengths that are chosen -------------------------------------------------------------------------------

    def strength_choices(self) -> Mapping[str, Sequence[float]]:
        """Values of strengths among which ``strengths: auto`` chooses, 0 among them."""
        return self.strength_grid

    def strength_goal(self) -> str | None:
        """The metric that the choice is to better where the user names none; None for the one of the settings."""
        return None

    # -- what a method writes ------------------------------------------------------------------------------------

    def check_splits(self, train_data: TrainingLoader, valid_data: EvaluationLoader | None) -> None:
        """See, before the base is trained, that the intervention can be fitted on these loaders.

        Raises:
            FairError: naming what is missing.
        """

    def check_base(self, valid_data: EvaluationLoader) -> None:
        """See, before it is trained, that a base whose class is a user's own is the product that it says it is.

        Args:
            valid_data: the validation loader, whose first users are scored. For other bases it is not touched: some
                models draw random numbers for each batch.

        Raises:
            FairError: it is not.
        """
        if not (self.needs_split and self.base.stated):
            return
        users = next(iter(valid_data))[0].to(next(self.base.parameters()).device)
        modes = [(module, module.training) for module in self.base.modules()]
        self.base.eval()
        self.base.check_sides(users)
        for module, mode in modes:
            module.training = mode

    def fit_intervention(
        self, train_data: TrainingLoader, valid_data: EvaluationLoader | None, show_progress: bool = False
    ) -> dict[str, Any]:
        """Fit everything above the frozen base.

        Args:
            train_data: the training loader.
            valid_data: the validation loader, or None.
            show_progress: whether to show bars on a terminal.

        Returns:
            What was fitted and how well, in plain values for the result document; also kept as ``report``.
        """
        raise NotImplementedError

    def edit(self, users: Tensor, variant: str) -> Tensor:
        """``[B, d]`` user representations under a variant other than the base."""
        raise NotImplementedError

    def frozen(self, variant: str) -> Callable[[Mapping[str, Tensor]], Tensor]:
        """Users' representations as a function that can be exported: nothing in it depends on values of tensors.

        Args:
            variant: one of :attr:`variants`, under the strengths in use.

        Returns:
            From the columns of a batch to ``[B, d]``, as :meth:`represent_users`.

        Raises:
            FairError: if the variant cannot be said in this way.
        """
        if variant == "base":
            return lambda batch: self.base.represent_users(batch)
        return lambda batch: self.edit(self.base.represent_users(batch), variant)

    def freeze_base(self) -> None:
        """No gradients and evaluation mode for the base from now on."""
        self.base.requires_grad_(False)
        self.base.eval()

    @torch.no_grad()
    def vector_size(self) -> int:
        """``d`` of the base's representations; finding out draws no random numbers, which its training will need."""
        modes = [(module, module.training) for module in self.base.modules()]
        self.base.eval()
        size = int(self.base.item_representations().shape[1])
        for module, mode in modes:
            module.training = mode  # not by train(), in which a model may do more
        return size

    # -- scoring -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def represent_users(self, interaction: Interaction) -> Tensor:
        """``[B, d]`` user representations of the variant in use."""
        users: Tensor = self.base.represent_users(interaction)
        if self.variant == "base":
            return users
        if not self.fitted:
            raise FairError(f"{type(self).__name__} has not been fitted yet; train it, or load a checkpoint of it.")
        return self.edit(users, self.variant)

    def item_representations(self) -> Tensor:
        """``[n_items, d]`` of the base."""
        items: Tensor = self.base.item_representations()
        return items

    def item_bias(self) -> Tensor | None:
        """``[n_items]`` of the base, if it has one."""
        bias: Tensor | None = self.base.score_bias()
        return bias

    def to_scores(self, products: Tensor) -> Tensor:
        """The base's own scores for users times items plus bias: an increasing function of each entry."""
        scores: Tensor = self.base.to_scores(products)
        return scores

    def encoded_once(self) -> AbstractContextManager[None]:
        """Inside the block the base represents each batch of users once."""
        return remembered_users(self.base) if isinstance(self.base, SplitScoring) else nullcontext()

    @torch.no_grad()
    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """``[B, n_items]`` scores of all items."""
        scores = self.represent_users(interaction) @ self.item_representations().t()
        bias = self.item_bias()
        return self.to_scores(scores if bias is None else scores + bias)

    @torch.no_grad()
    def predict(self, interaction: Interaction) -> Tensor:
        """``[B]`` scores of the interaction's own items."""
        item = interaction[self.base.ITEM_ID]
        # A user among sampled candidates has many rows: encoded once, and moved by the same noise in all of them.
        names = [name for name in user_columns(self.base) if name in interaction.interaction]
        columns = torch.cat([interaction[name].reshape(len(item), -1) for name in names], dim=1)
        rows, back = torch.unique(columns, dim=0, return_inverse=True)
        first = torch.full((len(rows),), len(back), device=back.device)
        first.scatter_reduce_(0, back, torch.arange(len(back), device=back.device), "amin")
        users = self.represent_users(interaction[first])[back]
        scores = (users * self.item_representations()[item]).sum(dim=1)
        bias = self.item_bias()
        return self.to_scores(scores if bias is None else scores + bias[item])

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """There is none: the base is trained by its own trainer, the intervention is fitted."""
        raise NotImplementedError(f"{type(self).__name__} is fitted by PostHocTrainer, not by gradient steps.")


@contextmanager
def progress_bar(title: str, show: bool) -> Iterator[Progress | None]:
    """A callback ``(done, total, text)`` that moves a bar, or None when nobody watches."""
    if not bars_shown(show):
        yield None
        return
    with new_bar(desc=title) as bar:

        def move(done: int, total: int, text: str) -> None:
            bar.total = total
            bar.set_postfix_str(text, refresh=False)
            bar.update(done - bar.n)

        yield move
