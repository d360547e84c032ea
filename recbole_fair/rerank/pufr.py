"""PUFR: tail items up and head items down by how unsure the model is of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from recbole_fair.config.keys import Key
from recbole_fair.data.facts.popularity import HEAD, TAIL
from recbole_fair.errors import FairError
from recbole_fair.rerank.base import Candidates, Facts, ReRanker, best_places


@dataclass(frozen=True)
class PUFR(ReRanker):
    """Predictive-uncertainty re-ranking: ``s + lambda * sigma`` for tail items, ``s - lambda * sigma`` for head items.

    sigma of an item is the standard deviation (of the population) of its mean score over users, masked scores left
    out, between models that differ in their seed: the evaluated one and those of ``models``.

    Source: Heuss et al., WSDM 2023, in the item-level form of the ILE code (five seeds, lambda 5.5), which replaces
    the paper's predictive uncertainty by retraining. Head and tail are the package's segments. Strength 0 changes
    nothing.

    Attributes:
        lambda_: Strength, from 0.
        models: Checkpoints of the same model trained with other seeds, one at least.
    """

    builds_in_order = True
    limits: ClassVar[dict[str, Key]] = {"lambda_": Key("float", low=0), "models": Key("str", many=True, optional=True)}
    needs = ("segments",)

    lambda_: float
    models: list[str] | str | None

    @property
    def files(self) -> list[str]:
        """The checkpoints.

        Raises:
            FairError: if there are none.
        """
        if not self.models:
            raise FairError(
                "reranker=PUFR compares models of several seeds: "
                "set reranker_models to a list of checkpoints of the same model trained with other seeds."
            )
        return [self.models] if isinstance(self.models, str) else list(self.models)

    def check(self, facts: Facts, k: int) -> None:
        """See that there are checkpoints and segments."""
        _ = self.files
        super().check(facts, k)

    def places(self, candidates: Candidates, facts: Facts, k: int) -> Tensor:
        """Sort by the shifted scores."""
        if facts.deviation is None:
            raise ValueError("PUFR needs facts.deviation, the deviation of each item's mean score between models.")
        device, segments = candidates.items.device, facts.segments
        sign = (segments == TAIL).double() - (segments == HEAD).double()
        shift = (self.lambda_ * sign * facts.deviation.double().cpu()).to(device)
        return best_places(candidates.scaled("raw") + shift[candidates.items], candidates.valid, k)
