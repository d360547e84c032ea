"""What methods that steer concepts share: which concepts a fit knows, and how far each is steered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from recbole_fair.config.concepts import POPULARITY, parse_steps
from recbole_fair.config.contract import Settings
from recbole_fair.config.keys import did_you_mean
from recbole_fair.data.contract import DataSet, EvaluationLoader, TrainingLoader
from recbole_fair.data.facts.concepts import Concept, Concepts
from recbole_fair.data.facts.interactions import Interactions, training_interactions
from recbole_fair.errors import FairError
from recbole_fair.model.posthoc import PostHocModel


class ConceptSteering(PostHocModel):
    """A post-hoc model that is fitted for a concept and, in the same fit, for further ones.

    Everything by concept has a first dimension of as many rows as the fit knew concepts, the one of ``concept`` first;
    such buffers take the shape that a checkpoint gives them (:attr:`by_concept`).

    Attributes:
        by_concept: names of the buffers by concept.
        steer: steps by concept (:func:`~recbole_fair.config.concepts.parse_steps`); None: the method's own strengths.
        concept_weight: ``[C, n_items]`` how much an item in a list counts for each concept.
    """

    by_concept: ClassVar[tuple[str, ...]] = ("concept_weight",)
    steer: float | str | Mapping[str, float] | None = None
    concept_weight: Tensor

    def __init__(self, config: Settings, dataset: DataSet) -> None:
        super().__init__(config, dataset)
        self._config = config
        self.register_buffer("concept_weight", torch.zeros(1, dataset.item_num))

    def share_in(self, row: int, lists: Tensor) -> float:
        """Share of a concept in lists: the mean weight of all their places, 0 where there are none.

        Args:
            row: of the concept.
            lists: long ``[U, k]``, 0 = no item.
        """
        lists = lists.cpu()
        shown = lists > 0
        weights = self.concept_weight[row].double().cpu()[lists] * shown
        return float(weights.sum() / shown.sum().clamp(min=1))

    # -- which concepts ------------------------------------------------------------------------------------------

    def read_concepts(self, dataset: DataSet, inter: Interactions) -> list[Concept]:
        """The concepts of the settings, the one that is steered first.

        Args:
            dataset: the training data.
            inter: its interactions.

        Raises:
            FairError: for a concept that the data do not have.
        """
        reader = Concepts(dataset, inter)
        texts = [self._config["concept"] or POPULARITY, *reader.expand(self._config["concepts"])]
        return [
            self.popularity(reader, inter) if text == POPULARITY else reader.read(text) for text in dict.fromkeys(texts)
        ]

    def popularity(self, reader: Concepts, inter: Interactions) -> Concept:
        """The concept of popularity, by the items that the method takes for popular and for unpopular ones."""
        raise NotImplementedError

    @property
    def steers_popularity(self) -> bool:
        """Whether popularity is what the method is fitted to steer."""
        return (self._config["concept"] or POPULARITY) == POPULARITY

    def check_splits(self, train_data: TrainingLoader, valid_data: EvaluationLoader | None) -> None:
        """See, before the base is trained, that the data have the concepts of the settings.

        Raises:
            FairError: naming the one that they have not.
        """
        super().check_splits(train_data, valid_data)
        if not self.steers_popularity or self._config["concepts"]:
            dataset = train_data._dataset
            self.read_concepts(dataset, training_interactions(dataset))

    def keep_concepts(self, concepts: Sequence[Concept]) -> list[dict[str, Any]]:
        """Remember what the checkpoint shall know of concepts; returns the part of the report on them."""
        weights = torch.stack([concept.weight for concept in concepts])
        self.concept_weight = weights.to(self.concept_weight)
        return [
            {
                "concept": concept.text,
                "label": concept.label,
                "other": concept.other,
                "of": concept.of,
                "with": len(concept.positive),
                "without": len(concept.negative),
            }
            for concept in concepts
        ]

    @property
    def known_concepts(self) -> list[dict[str, Any]]:
        """What the fit knew of each concept; popularity alone where an older checkpoint says nothing."""
        found: list[dict[str, Any]] = self.report.get("concepts") or [
            {"concept": POPULARITY, "label": "popular", "other": "unpopular", "of": "items"}
        ]
        return found

    # -- how far -------------------------------------------------------------------------------------------------

    def concept_steps(self) -> list[tuple[int, float]]:
        """Row of each concept that is steered, with its step; empty where :attr:`steer` says nothing.

        Raises:
            FairError: for a concept that the fit did not know.
        """
        return [(self.concept_row(name), step) for name, step in parse_steps(self.steer).items()]

    def concept_row(self, name: str) -> int:
        """Row of a concept by its label or its text; the empty name is the concept of the fit.

        Raises:
            FairError: for a concept that the fit did not know.
        """
        if not name:
            return 0
        known = self.known_concepts
        for row, concept in enumerate(known):
            if name.lower() in (str(concept["label"]).lower(), str(concept["concept"]).lower()):
                return row
        labels = [str(concept["label"]) for concept in known]
        raise FairError(
            f"steer: {name!r} is no concept of this fit, which knows {', '.join(labels)}{did_you_mean(name, labels)}"
        )

    def check_strength(self, name: str, value: Any) -> None:
        """Raise a FairError when a strength cannot be ``value``, or names a concept that the fit did not know."""
        super().check_strength(name, value)
        if name == "steer" and self.report:
            for concept in parse_steps(value):
                self.concept_row(concept)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Buffers by concept take the number of rows of the file; older files have none."""
        for name in self.by_concept:
            own: Tensor = self.get_buffer(name)
            given = state_dict.get(prefix + name)
            if given is None:
                state_dict[prefix + name] = own
            elif given.dim() == own.dim() and given.shape[1:] == own.shape[1:]:
                setattr(self, name, own.new_zeros(given.shape))
        super()._load_from_state_dict(state_dict, prefix, *arguments)
