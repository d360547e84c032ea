"""RecBole metric classes around the declared metrics, so that RecBole's own machinery can use them by name.

Every metric of :data:`recbole_fair.evaluator.specs.SPECS` is a class of this module: ``from
recbole_fair.evaluator.metrics import UPD``. Values keep full precision.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from recbole.evaluator import register
from recbole.evaluator.base_metric import AbstractMetric
from recbole.evaluator.collector import DataStruct
from recbole.utils import EvaluatorType

from recbole_fair.config.contract import Settings
from recbole_fair.errors import FairError
from recbole_fair.evaluator.inputs import EvalInputs
from recbole_fair.evaluator.options import MetricOptions
from recbole_fair.evaluator.specs import BY_KEY, SPECS, MetricSpec, PerUser

INPUTS = "fair.inputs"  # under this key a struct keeps its EvalInputs once they are made


def values_of(spec: MetricSpec, inputs: EvalInputs) -> tuple[OrderedDict[str, float], PerUser | None]:
    """Compute one metric.

    Args:
        spec: The metric.
        inputs: Lists and what they are measured against.

    Returns:
        Values by ``name@k`` and, for metrics that have them, the values by user.
    """
    topk, values = inputs.topk, OrderedDict[str, float]()
    if spec.per_user is not None:
        per_user = spec.per_user(inputs)
        for k, value in zip(topk, per_user.mean().tolist(), strict=True):
            values[f"{spec.key}@{k}"] = value
        return values, per_user
    assert spec.per_item is not None
    for suffix, function in spec.per_item(inputs.options).items():
        for k in topk:
            counts = inputs.exposure(k) if spec.exposure else inputs.recommended_counts(k)
            values[f"{spec.key}{suffix}@{k}"] = float(function(counts))
    return values, None


def inputs_of(struct: DataStruct, options: MetricOptions) -> EvalInputs:
    """Make the inputs of the metrics from what was collected, once a struct.

    Args:
        struct: RecBole's DataStruct as the collector fills it.
        options: Options of the metrics.

    Returns:
        The inputs.
    """
    if INPUTS not in struct:
        collected = struct["rec.topk"]

        def optional(key: str) -> Any:
            # DataStruct.get raises on a missing key.
            return struct[key] if key in struct else None  # noqa: SIM401

        items = struct["rec.items"]
        users = optional("rec.users")
        positives = optional("rec.positives")
        empty = torch.zeros(len(items) + 1, dtype=torch.long), torch.zeros(0, dtype=torch.long)
        struct[INPUTS] = EvalInputs(
            items=items,
            hits=collected[:, : items.shape[1]].bool(),
            n_positives=collected[:, -1].long(),
            users=torch.zeros(len(items), dtype=torch.long) if users is None else users,
            positives=empty if positives is None else positives,
            n_items=struct["data.num_items"],
            options=options,
            popularity=optional("data.popularity"),
            histories=optional("data.histories"),
            groups=optional("data.groups"),
            facts=optional("data.facts"),
            concept=optional("data.concept"),
        )
    return struct[INPUTS]


class FairMetric(AbstractMetric):
    """A metric of ours in RecBole's form."""

    metric_type = EvaluatorType.RANKING
    metric_need = ("rec.items", "rec.topk", "data.num_items")
    spec: MetricSpec

    def __init__(self, config: Settings) -> None:
        self.options = MetricOptions.from_config(config)

    def calculate_metric(self, dataobject: DataStruct) -> OrderedDict[str, float]:
        """Compute the metric at every cutoff.

        Args:
            dataobject: RecBole's DataStruct as :class:`FairCollector` fills it.

        Returns:
            Values by ``name@k``, full precision.
        """
        return values_of(self.spec, inputs_of(dataobject, self.options))[0]


def _metric_class(spec: MetricSpec) -> type[FairMetric]:
    return type(
        spec.name,
        (FairMetric,),
        {"spec": spec, "smaller": spec.smaller, "__doc__": f"{spec.formula}.\n\n{spec.notes}", "__module__": __name__},
    )


CLASSES: dict[str, type[FairMetric]] = {spec.key: _metric_class(spec) for spec in SPECS}


def __getattr__(name: str) -> type[FairMetric]:
    """A metric's class by its name: ``from recbole_fair.evaluator.metrics import UPD``."""
    cls = CLASSES.get(name.lower())
    if cls is None or cls.__name__ != name:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return cls


def adopt(key: str, path: str, found: Any) -> str:
    """Make somebody's own metric known under its name.

    Args:
        key: The setting that names it, for messages.
        path: Its import path, for messages.
        found: A :class:`MetricSpec`, or a class derived from RecBole's ``AbstractMetric``.

    Returns:
        The name.

    Raises:
        FairError: If it is no metric, or another metric has its name.
    """
    if isinstance(found, MetricSpec):
        spec, name = found, found.name
        cls = CLASSES[spec.key] if BY_KEY.get(spec.key) is spec else _metric_class(spec)
    elif isinstance(found, type) and issubclass(found, AbstractMetric):
        cls, name = found, found.__name__
    else:
        raise FairError(f"{key}: {path} is neither a MetricSpec nor a class derived from RecBole's AbstractMetric.")
    lower = name.lower()
    known = register.metrics_dict.get(lower)
    if known is not None and known is not cls and f"{known.__module__}:{known.__name__}" != path:
        raise FairError(f"{key}: {path} has the name of another metric, {name}; give it one of its own.")
    if isinstance(found, MetricSpec):
        BY_KEY[lower] = found
        CLASSES[lower] = cls
    _register(lower, cls)
    return name


def _register(key: str, cls: type[AbstractMetric]) -> None:
    register.metrics_dict[key] = cls
    register.metric_information[key] = list(cls.metric_need)
    register.metric_types[key] = cls.metric_type
    if cls.smaller and key not in register.smaller_metrics:
        register.smaller_metrics.append(key)
    elif not cls.smaller and key in register.smaller_metrics:
        register.smaller_metrics.remove(key)


def register_metrics() -> None:
    """Make our metrics known to RecBole by changing its registries in place; calling it again changes nothing.

    Our metrics take the place of RecBole's of the same name (ItemCoverage, GiniIndex, ShannonEntropy,
    AveragePopularity and TailPercentage, whose values we correct, and the accuracy metrics, with RecBole's values).
    """
    for key, cls in CLASSES.items():
        _register(key, cls)
