"""The table of all neurons: what each responds to, what it means for every concept, what turning it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd
import torch

from recbole_fair.analysis.neuron_labels import (
    concept_effects,
    label_scores,
    labels_of,
    read_attributes,
    strongest_by_concept,
)
from recbole_fair.analysis.populations import Populations
from recbole_fair.data.contract import DataSet, EvaluationLoader
from recbole_fair.model.popsteer.neurons import COLUMNS
from recbole_fair.model.popsteer.popsteer import PopSteer
from recbole_fair.trainer.trainer import FairTrainerMixin

Show = Callable[[Sequence[Any]], Iterable[Any]]

#: Deviations over real users by which a neuron is raised to see what turning it does.
TURN = 2.0
_MOST_TURNED = 60
_TOP_ITEMS = 3
_METRICS = ("ndcg", "giniindex", "pce")


def neuron_table(
    model: PopSteer, populations: Populations, dataset: DataSet, items: pd.DataFrame, field: str | None
) -> pd.DataFrame:
    """One row a neuron: its label, how often it fires, its effect on every concept, the items that it promotes most.

    Args:
        model: the model.
        populations: its users.
        dataset: any split.
        items: the items of every neuron, with titles where there are any.
        field: the column whose values label neurons; all that may serve when left out.

    Returns:
        ``neuron``, ``label`` (attributes by tf-idf, best first), ``frequency``, ``d LABEL`` for every
        concept, and ``items``.
    """
    frame = pd.DataFrame({"neuron": range(len(model.neurons))})
    attributes = read_attributes(dataset, field)
    if attributes is None:
        frame["label"] = ""
    else:
        labels = labels_of(label_scores(model, populations, attributes), attributes.names)
        frame["label"] = [", ".join(label) for label in labels]
    frame["frequency"] = model.neurons[:, COLUMNS.index("frequency")].cpu().numpy()
    effects = concept_effects(model).add_prefix("d ")
    best = items[(items["kind"] == "promoted") & (items["rank"] <= _TOP_ITEMS)]
    named = best["title"].where(best["title"] != "", best["item_id"]) if "title" in best else best["item_id"]
    texts = named.groupby(best["neuron"]).agg(lambda parts: "; ".join(map(str, parts)))
    return pd.concat([frame, effects], axis=1).assign(items=texts.reindex(frame["neuron"]).to_numpy())


def turned_neurons(
    trainer: FairTrainerMixin, eval_data: EvaluationLoader, shown: Sequence[int], show: Show = iter
) -> pd.DataFrame:
    """What raising a neuron by :data:`TURN` deviations does to the lists of all users.

    Args:
        trainer: a trainer with its splits bound and a fitted PopSteer model.
        eval_data: the split.
        shown: neurons; those that lean most to each concept are added.
        show: wraps the evaluations, for a progress bar.

    Returns:
        ``neuron`` and the change of NDCG, Gini and PCE, as far as they are computed, and of NDCG of each user group.
    """
    model = trainer.model
    assert isinstance(model, PopSteer)
    chosen = [*shown, *(j for own in strongest_by_concept(model).values() for j in own)]
    chosen = list(dict.fromkeys(chosen))[:_MOST_TURNED]
    sigma = model.neurons[:, COLUMNS.index("std_real")]
    rows: list[dict[str, Any]] = []
    with model.encoded_once(), trainer.remembered_batches(), model.use_variant("steered"):
        for neuron in show([-1, *chosen]):
            shift = torch.zeros_like(sigma)
            if neuron >= 0:
                shift[neuron] = TURN * sigma[neuron]
            with model.use_shift(shift):
                rows.append({"neuron": neuron, **_changes(trainer, eval_data)})
    plain, *turned = rows
    differences = [{key: row[key] - plain[key] for key in row if key != "neuron"} for row in turned]
    return pd.DataFrame([{"neuron": row["neuron"], **found} for row, found in zip(turned, differences, strict=True)])


def _changes(trainer: FairTrainerMixin, eval_data: EvaluationLoader) -> dict[str, float]:
    result = trainer.evaluate_lists(eval_data)
    found = {
        name: value
        for wanted in _METRICS
        for name, value in result.metrics.items()
        if name.partition("@")[0] == wanted and name.endswith(f"@{max(trainer.config['topk'])}")
    }
    for grouping, groups in result.groups.items():
        for metric in groups.metrics:
            for label, value in zip(groups.labels, groups.by_group[metric], strict=True):
                found[f"{metric} of {grouping}={label}"] = float(value)
    return found
