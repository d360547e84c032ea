"""What steering does to lists that are about to be shown, in sentences: the concept's share, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from recbole_fair.evaluator.directions import display_name
from recbole_fair.model.concept_steering import ConceptSteering
from recbole_fair.report.words import short

_SHOWN = ("ndcg", "giniindex", "averagepopularity", "pce")


def steered_notes(
    model: ConceptSteering,
    steps: Sequence[tuple[int, float]],
    before: Tensor,
    after: Tensor,
    costs: Sequence[Mapping[str, Any]],
) -> list[str]:
    """A sentence on the lists for each concept that is steered, and one on what its step costs.

    Args:
        model: the steered model.
        steps: row and step of each concept.
        before: long ``[U, k]`` the base's lists, 0 = no item.
        after: the steered ones.
        costs: what :func:`~recbole_fair.trainer.steering_costs.steering_costs` measured, if anything.
    """
    notes = []
    for row, step in steps:
        label = str(model.known_concepts[row]["label"])
        old, new = (model.share_in(row, lists) for lists in (before, after))
        notes.append(f"{label}: {_percent(old)} of the places, {_percent(new)} with a step of {step:+g}.")
        notes += _cost(label, step, costs)
    return notes


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _cost(label: str, step: float, costs: Sequence[Mapping[str, Any]]) -> list[str]:
    own = [row for row in costs if row["label"] == label and row["step"] * step > 0]
    if not own:
        return []
    nearest = min(own, key=lambda row: abs(row["step"] - step))
    base, found = costs[0]["metrics"], nearest["metrics"]
    parts = [
        f"{display_name(name)} {short(base[name])} → {short(found[name])}"
        for wanted in _SHOWN
        for name in base
        if name.partition("@")[0] == wanted
    ]
    parts.append(f"its share {_percent(nearest['base_share'])} → {_percent(nearest['share'])}")
    parts += _by_group(costs[0], nearest)
    return [f"On validation users {label}={nearest['step']:+g} gives {', '.join(parts)}."]


def _by_group(base: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The largest loss of a group, for each grouping that was measured."""
    parts = []
    for name, groups in (found.get("groups") or {}).items():
        before = {row["group"]: row for row in base["groups"][name]["groups"]}
        changes = [
            (value - before[row["group"]]["values"][metric], row["group"], metric)
            for row in groups["groups"]
            for metric, value in row["values"].items()
            if metric.startswith("ndcg@") and value == value
        ]
        if changes:
            change, group, metric = min(changes)
            parts.append(f"{display_name(metric)} of {name}={group} {change:+.4f}")
    return parts
