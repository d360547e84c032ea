"""Dossiers: what ``explain`` finds out about a steered model, a class a kind.

A model's class names its dossier by the attribute ``dossier``: one of :data:`DOSSIERS`, or ``"module:Class"`` with a
subclass of :class:`~recbole_fair.runs.dossiers.base.Dossier`.
"""

from __future__ import annotations

from typing import Any

from recbole_fair.config.registry import load_class
from recbole_fair.config.traits import Traits
from recbole_fair.runs.dossiers.base import Dossier

DOSSIERS = {
    "neurons": "recbole_fair.runs.dossiers.neurons:NeuronsDossier",
    "sites": "recbole_fair.runs.dossiers.sites:SitesDossier",
}


def dossier_class(model_class: type[Any]) -> type[Dossier] | None:
    """The dossier of a model's class, None for one that has nothing to explain."""
    name = Traits.of(model_class).dossier
    return None if name is None else load_class(DOSSIERS.get(name, name))
