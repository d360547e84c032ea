"""Which past items a ranking leaves out, settled once from the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from recbole.utils import ModelType

from recbole_fair.config.contract import Settings

Rule = Literal["none", "train", "all"]


@dataclass(frozen=True)
class Mask:
    """The rule by which a split's rankings leave out what users have seen.

    ``mask_seen: auto`` is RecBole's rule: ``none`` for sequential models and where items may be recommended again
    (``repeatable``), else ``all``.

    Attributes:
        rule: ``none``; ``train``: training items; ``all``: training items and, at test, validation items. Of full
            rankings; drawn or labelled candidates are ranked as they come.
        full: whether all items are ranked.
        by_loader: whether RecBole's loaders of full rankings list what is to be masked.
        unseen_candidates: whether candidates leave out what the user has seen: by the rule in full rankings, and by
            RecBole's own when they are drawn.
    """

    rule: Rule
    full: bool
    by_loader: bool
    unseen_candidates: bool

    @classmethod
    def of(cls, config: Settings, mode: str | None = None) -> Mask:
        """The mask of a configuration.

        Args:
            config: reads ``mask_seen``, ``repeatable``, ``MODEL_TYPE`` and ``eval_args``.
            mode: of the evaluation (``full``, ``labeled``, ``uniN``, ``popN``); that of the test part when left out.
        """
        mode = config["eval_args"]["mode"]["test"] if mode is None else mode
        again = config["MODEL_TYPE"] == ModelType.SEQUENTIAL or bool(config["repeatable"])
        if mode != "full":
            return cls("none", False, False, mode != "labeled" and not again)
        rule: Rule | Literal["auto"] = config["mask_seen"] or "auto"
        by_loader = rule == "auto" or (rule == "all" and not again)
        if rule == "auto":
            rule = "none" if again else "all"
        return cls(rule, True, by_loader, rule != "none")

    @property
    def recorded(self) -> Rule | None:
        """The rule as a result document names it: null where nothing could be masked."""
        return self.rule if self.full else None

    @property
    def hides_validation(self) -> bool:
        """Whether rankings of the test part leave out validation items too."""
        return self.rule == "all"
