"""Models that can be scored in several ways: as they are, or with an intervention at a strength."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from recbole_fair.config.catalogue import check_values, strengths_of
from recbole_fair.config.keys import Key
from recbole_fair.errors import FairError


class Variants:
    """Mixin: one model, several ways to score, and strengths that apply at scoring time.

    Every model has at least one: where nothing is said, ``base``, the model as it is.

    Attributes:
        variants: what can be scored: the plain model first, and, unless :attr:`final_variant` says otherwise, what a
            run is about last.
        keys: configuration keys of the class's own, beside those of its ancestors.
        strength_keys: those of them that are read at scoring time and never need a new fit: of scope ``strength``.
        variant: the one in use.
    """

    variants: tuple[str, ...] = ("base",)
    keys: ClassVar[Mapping[str, Key]] = {}
    strength_keys: ClassVar[tuple[str, ...]] = ()
    variant: str = "base"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.strength_keys = strengths_of(cls)

    @property
    def base_variant(self) -> str:
        """The variant that the others are compared with."""
        return self.variants[0]

    @property
    def final_variant(self) -> str:
        """The variant that a run is about."""
        return self.variants[-1]

    def scoring_notes(self) -> list[str]:
        """Sentences for the end of a run on what the scores of the variants are."""
        return []

    def check_strength(self, name: str, value: Any) -> None:
        """Raise a FairError when a strength cannot be ``value``."""
        check_values({name: value}, {}, type(self))

    def set_strengths(self, **values: Any) -> None:
        """Change settings that apply at scoring time; nothing is fitted again.

        Raises:
            FairError: a name that is not in ``strength_keys``, or a value that is not allowed.
        """
        for name, value in values.items():
            if name not in self.strength_keys:
                raise FairError(f"{name} is not a scoring-time setting of {type(self).__name__}: {self.strength_keys}.")
            self.check_strength(name, value)
        for name, value in values.items():
            setattr(self, name, value)

    @property
    def strengths(self) -> dict[str, Any]:
        """The scoring-time settings in use."""
        return {name: getattr(self, name) for name in self.strength_keys}

    @contextmanager
    def use_variant(self, name: str) -> Iterator[None]:
        """Score as one of :attr:`variants` inside the ``with`` block."""
        if name not in self.variants:
            raise FairError(f"{name!r} is not a variant of {type(self).__name__}: {', '.join(self.variants)}.")
        before = self.variant
        self.variant = name
        self.restart_noise()
        try:
            yield
        finally:
            self.variant = before

    def restart_noise(self) -> None:
        """Put generators that scoring draws from back to their start, so that a variant scores the same each time."""
