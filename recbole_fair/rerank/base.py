"""What every re-ranker has in common: candidates and facts in, lists out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from recbole_fair.config.catalogue import RERANKER_PREFIX
from recbole_fair.config.contract import Settings
from recbole_fair.config.keys import Key
from recbole_fair.errors import FairError
from recbole_fair.rerank.facts import Facts

__all__ = ["Candidates", "Facts", "Lists", "ReRanker", "best_places"]


@dataclass(frozen=True)
class Candidates:
    """The best items of every list of an evaluation, as the model scores them.

    Attributes:
        items: Item ids, long ``[U, C]``, best first, 0 = no item: a row's candidates stand at its front.
        scores: The model's scores ``[U, C]``, falling; -inf where there is no item.
        users: Inner user id of each row, long ``[U]``.
        spread: Standard deviation of each user's scores over all items that may be shown, float64 ``[U]``, where
            somebody asked for it.
        log_total: Logarithm of the sum of ``exp(score)`` over all items that may be shown to the user, float64 ``[U]``,
            where somebody asked for it.
    """

    items: Tensor
    scores: Tensor
    users: Tensor
    spread: Tensor | None = None
    log_total: Tensor | None = None

    @property
    def valid(self) -> Tensor:
        """Where there is an item, bool ``[U, C]``."""
        return self.items > 0

    def part(self, rows: slice | Tensor, first: int | None = None) -> Candidates:
        """Some rows.

        Args:
            rows: which.
            first: keep so many of the best columns; None: all.
        """
        spread = None if self.spread is None else self.spread[rows]
        log_total = None if self.log_total is None else self.log_total[rows]
        items, scores = self.items[rows], self.scores[rows]
        return Candidates(items[:, :first], scores[:, :first], self.users[rows], spread, log_total)

    def scaled(self, how: str) -> Tensor:
        """Scores on the scale that a method asks for.

        Args:
            how: ``raw``; ``sigmoid``; ``minmax``: from 0, the user's worst candidate, to 1, the best one. Where all
                candidates score alike they are 0.

        Returns:
            float64 ``[U, C]``, 0 where there is no item.
        """
        valid, scores = self.valid, self.scores.double()
        if how == "sigmoid":
            scores = scores.sigmoid()
        elif how == "minmax":
            low = scores.masked_fill(~valid, torch.inf).amin(1, keepdim=True)
            span = scores.amax(1, keepdim=True) - low
            scores = (scores - low) / torch.where(span > 0, span, 1.0)
        return scores.masked_fill(~valid, 0.0)


@dataclass(frozen=True)
class Lists:
    """Re-ranked lists.

    Attributes:
        items: Item ids, long ``[U, K]``, best first, 0 where the candidates ran out.
        scores: The *model's* scores of these items ``[U, K]``; the order is that of the re-ranker.
        places: Columns of the candidates ``[U, K]``, -1 where there is no item.
    """

    items: Tensor
    scores: Tensor
    places: Tensor


def best_places(values: Tensor, valid: Tensor, k: int) -> Tensor:
    """Columns of the k largest values of each row, best first; equal values keep the model's order.

    Args:
        values: ``[U, C]``.
        valid: bool ``[U, C]``, columns that hold a candidate.
        k: Length of the lists.

    Returns:
        long ``[U, min(k, C)]``.
    """
    return values.masked_fill(~valid, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :k]


@dataclass(frozen=True)
class ReRanker(ABC):
    """A re-ranker: a frozen dataclass whose fields are its settings.

    The field ``alpha`` is the configuration key ``reranker_alpha`` (``lambda_`` is ``reranker_lambda``), its default
    value stands in ``properties/rerank/<Class>.yaml``. A concrete class writes :meth:`places`.

    Attributes:
        limits: What each field may hold.
        needs: What :class:`Facts` must be able to give: names of its attributes.
        promotes_seen: Whether items that users have had are what it promotes, so that lists without them have no sense.
    """

    promotes_seen: ClassVar[bool] = False
    limits: ClassVar[Mapping[str, Key]] = {}
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for name, key in self.limits.items():
            value = getattr(self, name)
            if not key.accepts(value):
                name, who = key_of(name), type(self).__name__
                raise FairError(f"{name}={value!r} is not allowed for {who}: it must be {key.allowed()}.")

    @classmethod
    def keys(cls) -> dict[str, str]:
        """Configuration key of each field, by field."""
        return {field.name: key_of(field.name) for field in fields(cls)}

    @classmethod
    def limits_by_key(cls) -> dict[str, Key | None]:
        """What each configuration key may hold; None where nothing is said of it."""
        return {key: cls.limits.get(field) for field, key in cls.keys().items()}

    @classmethod
    def from_config(cls, config: Settings) -> ReRanker:
        """Make one from the configuration's ``reranker_*`` keys; ``seed`` is the run's when its own is not set.

        Raises:
            FairError: for a value that is not allowed.
        """
        values = {name: config[key] for name, key in cls.keys().items()}
        if values.get("seed", 0) is None:
            values["seed"] = config["seed"]
        return cls(**values)

    @abstractmethod
    def places(self, candidates: Candidates, facts: Facts, k: int) -> Tensor:
        """Choose and order the items of each list.

        Args:
            candidates: Those of all lists of the evaluation.
            facts: What is known about items and users from training.
            k: Length of the lists.

        Returns:
            long ``[U, at most k]``: columns of ``candidates``, best first. Columns without an item, and -1, mean that
            the list has ended.
        """

    @property
    def builds_in_order(self) -> bool:
        """Whether the first j items of a list are the list of length j.

        Metrics at a short cutoff then do not depend on the longest one.
        """
        return False

    def looks_at(self, k: int) -> int:
        """Number of best candidates that lists of length k need."""
        return k

    def check(self, facts: Facts, k: int) -> None:
        """Find out before training whether lists of length k can be made.

        Raises:
            FairError: if something is missing or too short.
        """
        for name in self.needs:
            getattr(facts, name)

    def describe(self, k: int) -> dict[str, Any]:
        """Settings, and what follows from them, as plain values for the result document."""
        return {key_of(name): value for name, value in asdict(self).items()}

    @torch.no_grad()
    def rerank(self, candidates: Candidates, facts: Facts, k: int) -> Lists:
        """Make the lists.

        Args:
            candidates: Those of all lists of the evaluation.
            facts: What is known about items and users from training.
            k: Length of the lists.

        Returns:
            Lists ``[U, k]``; they end early only where a user's candidates run out.
        """
        self.check(facts, k)
        lists = lists_at(candidates, self.places(candidates, facts, k), k)
        items = lists.items
        ordered = torch.where(items > 0, items, -1 - torch.arange(k, device=items.device)).sort(1).values
        if bool((ordered[:, 1:] == ordered[:, :-1]).any()):
            raise ValueError(f"{type(self).__name__} put an item into a list twice.")
        return lists


def lists_at(candidates: Candidates, places: Tensor, k: int) -> Lists:
    """Lists from columns of candidates.

    Args:
        candidates: the candidates.
        places: long ``[U, at most k]`` columns; columns without an item, and -1, are left out.
        k: Length of the lists.

    Returns:
        Lists ``[U, k]``.
    """
    if places.shape[1] < k:
        places = torch.nn.functional.pad(places, (0, k - places.shape[1]), value=-1)
    places = places.masked_fill(candidates.items.gather(1, places.clamp(min=0)) == 0, -1)
    # A list has no holes: where the candidates ran out, its items move up.
    places = places.gather(1, (places < 0).to(torch.uint8).argsort(dim=1, stable=True))
    there, at = places >= 0, places.clamp(min=0)
    items = candidates.items.gather(1, at).masked_fill(~there, 0)
    scores = candidates.scores.gather(1, at).masked_fill(~there, -torch.inf)
    return Lists(items, scores, places)


def key_of(field: str) -> str:
    """Configuration key of a re-ranker's field."""
    return RERANKER_PREFIX + field.rstrip("_")
