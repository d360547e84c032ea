"""What is known about a steered model, as data frames: one class a kind of dossier."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from recbole_fair.analysis.populations import Floats


@dataclass
class NeuronDossier:
    """What is known about a PopSteer model.

    Attributes:
        neurons: one row a neuron: statistics, steering, normality, head share of its users.
        strongest: the neurons shown one by one, by the side that they lean to.
        activations: quantiles of their pre-activations under each kind of users.
        samples: those pre-activations ``[n, m]`` by population, columns as in ``shown``.
        users: top users of every neuron, with the data's ids.
        items: top items of every neuron, with the data's ids and titles.
        head_share: share of head items of every real user ``[U]``.
        normality: shares of neurons that look normal.
        variants: metrics of base, reconstructed and steered.
        reduction: metrics when the strongest neurons are lowered.
        surface: metrics over the grid of strengths.
        map: places of users on a plane, or None.
        map_method: ``umap`` or ``pca``, or None.
        distances: Wasserstein distances and their test.
        every: one row a neuron: label, effect on every concept, items, and for some what turning it does.
        concepts: what the fit knew of each concept, the one that is steered first.
        information: how well representations tell who has a concept of users, before and after erasing it, or None.
        controls: what else could have steered, at the same accuracy, or None.
        notes: sentences for whoever reads the dossier.
        seconds: by part.
    """

    neurons: pd.DataFrame
    strongest: dict[str, list[int]]
    activations: pd.DataFrame
    samples: dict[str, Floats]
    users: pd.DataFrame
    items: pd.DataFrame
    head_share: Floats
    normality: pd.DataFrame
    variants: pd.DataFrame
    reduction: pd.DataFrame
    surface: pd.DataFrame
    map: pd.DataFrame | None
    map_method: str | None
    distances: pd.DataFrame
    every: pd.DataFrame
    concepts: list[dict[str, Any]]
    controls: dict[str, Any] | None = None
    information: pd.DataFrame | None = None
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def shown(self) -> list[int]:
        """The neurons shown one by one, popular ones first."""
        return [j for side in self.strongest.values() for j in side]


@dataclass
class SiteDossier:
    """What is known about a SPREE model.

    Attributes:
        probe: ``block``, ``position``, ``accuracy`` and whether the site was ``chosen``.
        calibration: ``variant``, ``level`` and ``tau_hat``, the mean over users, at the longest list.
        list_length: that length.
        bias: one row a user: ``user_id``, the bias of the lists of each variant and the ``estimate``.
        variants: metrics of each variant.
        strengths: metrics over ``spree_strength``, of the variant that the run is about.
        notes: sentences for whoever reads the dossier.
        seconds: by part.
    """

    probe: pd.DataFrame
    calibration: pd.DataFrame
    list_length: int
    bias: pd.DataFrame
    variants: pd.DataFrame
    strengths: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
