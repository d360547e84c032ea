"""A comparison whose systems are tuned first: each gets as many trials, on validation, before anything is tested."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbole.utils import ModelType

from recbole_fair.analysis.grid import setting_text
from recbole_fair.analysis.systems import system_file, system_name
from recbole_fair.config.layers import properties_dir
from recbole_fair.config.registry import get_model
from recbole_fair.config.traits import Traits
from recbole_fair.errors import FairError
from recbole_fair.runs.plan import Plan
from recbole_fair.runs.spaces import Space, read_space
from recbole_fair.runs.tune import space_names, tune

logger = logging.getLogger(__name__)

_FOR_ANY = "any"  # of models that come with no space of their own: what every trained model has


@dataclass(frozen=True)
class Tuning:
    """How the systems of a comparison are tuned.

    Attributes:
        trials: of each system.
        minimize: the metric to make small; with ``maximize`` at most one metric, ``valid_metric`` if none.
        maximize: the metric to make large.
        subject_to: bounds on validation, such as ``NDCG@10 >= 0.95*base``.
        spaces: file of the space by name of the model or re-ranker; those that come with them otherwise.
        sampler: as in :func:`~recbole_fair.runs.tune.tune`.
    """

    trials: int
    minimize: Sequence[str] = ()
    maximize: Sequence[str] = ()
    subject_to: Sequence[str] = ()
    spaces: Mapping[str, str] = field(default_factory=dict)
    sampler: str = "tpe"


def tune_systems(plan: Plan, tuning: Tuning, folder: Path) -> list[dict[str, Any]]:
    """Tune the systems of a plan under its first seed; what is found holds for all its seeds.

    Bases come first, so that a post-hoc model stands on the tuned base, and a re-ranker on the tuned model. What the
    user has set is not varied.

    Args:
        plan: the plan; what was found goes into ``plan.tuned``, sentences into ``plan.notes``.
        tuning: how.
        folder: of the comparison; a search writes into ``tune/SYSTEM`` there.

    Returns:
        A row a system: ``system``, ``trials``, ``settings`` and their metrics on validation (``valid``).

    Raises:
        FairError: for objectives or spaces that are not allowed, or a search without any result.
    """
    if len(tuning.minimize) + len(tuning.maximize) > 1:
        raise FairError("A comparison tunes each system for one metric: name one, and put others into --subject-to.")
    unknown = set(tuning.spaces) - {*plan.models, *plan.rerankers}
    if unknown:
        raise FairError(f"space: {min(unknown)} is not compared here.")
    rows = []
    for model in plan.in_order_of_training():
        for reranker in (None, *plan.rerankers):
            rows.append(_tuned(plan, tuning, model, reranker, folder))
    names = plan.names()
    return sorted(rows, key=lambda row: names.index(row["system"]))


def _tuned(plan: Plan, tuning: Tuning, model: str, reranker: str | None, folder: Path) -> dict[str, Any]:
    system, seed = system_name(model, reranker), plan.seeds[0]
    space = _space(plan, tuning, model, reranker)
    if not space:
        plan.notes.append(f"{system} was not tuned: it has no space, or its keys are set.")
        return {"system": system, "trials": 0, "settings": {}, "valid": {}}
    logger.info("Tuning %s: %d trials of %s", system, tuning.trials, ", ".join(space))
    found = tune(
        model,
        plan.dataset,
        space,
        tuning.trials,
        tuning.minimize,
        tuning.maximize,
        tuning.subject_to,
        tuning.sampler,
        output=folder / "tune" / system_file(model, reranker),
        checkpoints=folder / "checkpoints" / f"seed-{seed}",
        config_dict=plan.settings_of(model, reranker, seed),
        test=False,
    )
    chosen = found.chosen[0]
    settings = {key: chosen[key] for key in space}
    plan.tuned[model, reranker] = settings
    if not chosen["keeps bounds"]:
        plan.notes.append(f"{system}: no trial keeps the bounds; the one that misses them least was taken.")
    plan.notes.append(f"{system} was tuned on validation, {len(found.trials)} trials: {setting_text(settings)}.")
    valid = {key.removeprefix("valid "): value for key, value in chosen.items() if key.startswith("valid ")}
    return {"system": system, "trials": len(found.trials), "settings": settings, "valid": valid}


def _space(plan: Plan, tuning: Tuning, model: str, reranker: str | None) -> Space:
    """What is varied: the space of the model, or of the re-ranker, without the keys that the user has set."""
    config = plan.config(model, reranker, plan.seeds[0], "saved")
    names = space_names(config)
    file: Path | str | None = tuning.spaces.get(reranker or model)
    shipped = (properties_dir() / "tune" / f"{name}.yaml" for name in names)
    file = file or next((path for path in shipped if path.is_file()), None)
    learns = config["MODEL_TYPE"] != ModelType.TRADITIONAL and Traits.of(get_model(model)).base_model_name is None
    if file is None and reranker is None and learns:
        file = properties_dir() / "tune" / f"{_FOR_ANY}.yaml"
    if file is None:
        return {}
    return {key: dimension for key, dimension in read_space(file).items() if key not in plan.settings}
