"""What all dossiers share: how much is looked at, and what a kind of dossier has to say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
from matplotlib.figure import Figure

from recbole_fair.config.contract import Settings
from recbole_fair.data.contract import EvaluationLoader, Loader
from recbole_fair.errors import FairError
from recbole_fair.io.timing import Stages
from recbole_fair.report.documents import DossierDocument
from recbole_fair.trainer.trainer import FairTrainerMixin

MAPS = ("auto", "umap", "pca", "none")

#: Wraps what takes long, with a title, for progress bars.
Show = Callable[[Sequence[Any], str], Iterable[Any]]


def silent(items: Sequence[Any], title: str) -> Iterable[Any]:
    """No progress bar."""
    return items


@dataclass(frozen=True)
class Options:
    """How much is looked at.

    Attributes:
        synthetic_users: users a side for activations and normality, at most.
        strongest: neurons of either sign that are shown one by one.
        tops: users and items listed for each neuron.
        map_users: users of each group on the map and in the distances.
        map: ``umap``, ``pca``, ``none``, or ``auto``: UMAP where it is installed, else principal components.
        permutations: of the test on the distances.
        alphas: values of both strengths for the sensitivity surfaces.
        strengths: values of SPREE's strength.
        controls: whether the autoencoder is compared with its controls.
        reseeds: how often its recipe is repeated under another seed for that.
        seed: of everything drawn here; None is the model's seed plus 1000, other users than the fit has seen.
    """

    synthetic_users: int = 5000
    strongest: int = 10
    tops: int = 10
    map_users: int = 400
    map: str = "auto"
    permutations: int = 499
    alphas: tuple[float, ...] = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    strengths: tuple[float, ...] = (0.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    controls: bool = True
    reseeds: int = 2
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.map not in MAPS:
            raise FairError(f"map={self.map!r} is not allowed: it must be one of {', '.join(MAPS)}.")
        for name in ("synthetic_users", "strongest", "tops", "map_users", "permutations"):
            if getattr(self, name) < 1:
                raise FairError(f"{name}={getattr(self, name)} is not allowed: it must be at least 1.")


class Dossier(ABC):
    """One kind of dossier of one model; made, then asked for its document, tables, figures and lines.

    Args:
        trainer: a trainer with its splits bound and a fitted model.
        train_data: the training loader.
        eval_data: the split whose users and metrics are looked at.
        options: how much.
        show: wraps what takes long, with a title, for progress bars.

    Attributes:
        metrics: names of the metrics that such a dossier is about, accuracy first.
        clock: seconds by part.
    """

    metrics: ClassVar[tuple[str, ...]]

    @classmethod
    def check(cls, config: Settings) -> None:
        """See, before data are read, that there is something to explain under these settings.

        Raises:
            FairError: naming the setting that leaves nothing.
        """
        return

    def __init__(
        self,
        trainer: FairTrainerMixin,
        train_data: Loader,
        eval_data: EvaluationLoader,
        options: Options,
        show: Show = silent,
    ) -> None:
        self.trainer, self.train_data, self.eval_data = trainer, train_data, eval_data
        self.options, self.show, self.clock = options, show, Stages()
        self.examine()

    @abstractmethod
    def examine(self) -> None:
        """Find out all that the other methods show."""

    @abstractmethod
    def document(self, **about: Any) -> DossierDocument:
        """The document.

        Args:
            about: entries that all dossiers have (:class:`~recbole_fair.report.documents.DossierDocument`), without
                ``method``, ``variants`` and ``notes``.
        """

    @abstractmethod
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by the name of their file, without suffix."""

    @abstractmethod
    def figures(self, metrics: Sequence[str], strengths: Mapping[str, Any]) -> dict[str, Callable[[], Figure]]:
        """What draws each figure, by the name of its file, without suffix.

        Args:
            metrics: ``name@k`` of the metrics that the dossier is about.
            strengths: scoring-time settings in use.
        """

    @abstractmethod
    def lines(self, document: DossierDocument) -> list[str]:
        """What is printed of the document."""
