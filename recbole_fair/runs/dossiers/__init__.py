"""Dossiers: what ``explain`` finds out about a steered model, a class a kind.

A model's class names its dossier by the attribute ``dossier``: one of :data:`DOSSIERS`, or ``"module:Class"`` with a
subclass of :class:`~recbole_fair.runs.dossiers.base.Dossier`.
"""

from __future__ import annotations

from typing import Any

from recbole_fair.config.imports import load_class_named
from recbole_fair.config.traits import Traits
from recbole_fair.runs.dossiers.base import Dossier

DOSSIERS = {
    "neurons": "recbole_fair.runs.dossiers.neurons:NeuronsDossier",
    "sites": "recbole_fair.runs.dossiers.sites:SitesDossier",
}


def dossier_class(model_class: type[Any]) -> type[Dossier] | None:
    """The dossier of a model's class, None for one that has nothing to explain."""
    name = Traits.of(model_class).dossier
    if name is None:
        return None
    return load_class_named("dossier", DOSSIERS.get(name, name), Dossier, "recbole_fair.runs.dossiers.base.Dossier")
