"""From collected lists to an :class:`EvaluationResult`."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Any

import torch
from recbole.evaluator.collector import DataStruct
from recbole.evaluator.evaluator import Evaluator
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.evaluator.bootstrap import interval, per_item_resamples, per_user_resamples
from recbole_fair.evaluator.functional.exposure import lorenz_curve
from recbole_fair.evaluator.group_values import (
    UserGroups,
    group_intervals,
    grouped_values,
    metric_of,
    needs_of,
    user_groups,
)
from recbole_fair.evaluator.inputs import EvalInputs
from recbole_fair.evaluator.metrics import inputs_of, register_metrics, values_of
from recbole_fair.evaluator.options import MetricOptions
from recbole_fair.evaluator.result import EvaluationResult
from recbole_fair.evaluator.specs import BY_KEY, HISTORY, MetricSpec, PerUser, bounds_of

FULL_PRECISION = 15


class _FullPrecision:
    """A configuration as RecBole's own metrics see it: everything as it is, but values are hardly rounded."""

    def __init__(self, config: Settings) -> None:
        self._config = config

    def __getitem__(self, key: str) -> Any:
        return FULL_PRECISION if key == "metric_decimal_place" else self._config[key]

    def __contains__(self, key: str) -> bool:
        return key in self._config


class FairEvaluator(Evaluator):
    """Computes all metrics of a configuration: ours from shared inputs, RecBole's (GAUC, AUC ...) by RecBole.

    Attributes:
        options: Options of the metrics.
    """

    def __init__(self, config: Settings) -> None:
        register_metrics()
        super().__init__(_FullPrecision(config))
        self.options = MetricOptions.from_config(config)
        needs_of(self.options)  # names a metric that cannot be grouped now, not after training
        self._by_user: dict[str, PerUser] = {}

    def evaluate(self, dataobject: DataStruct) -> OrderedDict[str, float]:
        """Compute the metrics of the configuration, as after every epoch.

        Args:
            dataobject: What :meth:`FairCollector.get_data_struct` returned.

        Returns:
            ``name@k`` to value, full precision, in the order of the configuration.
        """
        return self._metrics(dataobject).metrics

    def result(self, dataobject: DataStruct) -> EvaluationResult:
        """Compute metrics, curves, groups and intervals, as for a final evaluation.

        Args:
            dataobject: What :meth:`FairCollector.get_data_struct` returned.

        Returns:
            Everything about this evaluation.
        """
        result = self._metrics(dataobject)
        if "rec.items" not in dataobject:
            return result
        inputs, options = inputs_of(dataobject, self.options), self.options
        result.curves = curves_of(inputs)
        tables = self._add_groups(result, inputs)
        if options.bootstrap:
            self._add_intervals(result, inputs, tables)
        return result

    def grouped(self, dataobject: DataStruct) -> EvaluationResult:
        """Compute metrics, overall and by group of users, without curves and intervals, as after an epoch.

        Args:
            dataobject: What :meth:`FairCollector.get_data_struct` returned.
        """
        result = self._metrics(dataobject)
        if "rec.items" in dataobject:
            self._add_groups(result, inputs_of(dataobject, self.options))
        return result

    def _add_groups(
        self, result: EvaluationResult, inputs: EvalInputs
    ) -> dict[str, tuple[UserGroups, dict[str, PerUser]]]:
        """Write the values by group into a result; give the groups and the values by user that they come from."""
        tables: dict[str, tuple[UserGroups, dict[str, PerUser]]] = {}
        for grouping in self.options.group_metrics:
            specs = [metric_of(name, f"group_metrics.{grouping.name}") for name in grouping.metrics]
            values = {spec.key: self._by_user.get(spec.key) or _per_user(spec, inputs) for spec in specs}
            groups = user_groups(grouping, inputs, inputs.known_facts)
            tables[grouping.name] = groups, values
            result.groups[grouping.name] = grouped_values(groups, values, inputs)
        return tables

    def _add_intervals(
        self, result: EvaluationResult, inputs: EvalInputs, tables: dict[str, tuple[UserGroups, dict[str, PerUser]]]
    ) -> None:
        n, seed = self.options.bootstrap, self.options.seed
        resampled = per_item_resamples(inputs, [BY_KEY[m] for m in self.metrics if m in BY_KEY], n, seed)
        for name, values in per_user_resamples(inputs, self._by_user, n, seed).items():
            resampled.update({f"{name}@{k}": values[:, column] for column, k in enumerate(inputs.topk)})
        for key in result.metrics:
            if key in resampled:
                result.intervals[key] = interval(result.metrics[key], resampled[key], *bounds_of(key))
        for name, (groups, by_user) in tables.items():
            low, high = group_intervals(groups, by_user, result.groups[name], inputs)
            result.groups[name] = replace(result.groups[name], low=low, high=high)

    def _metrics(self, struct: DataStruct) -> EvaluationResult:
        inputs = inputs_of(struct, self.options) if "rec.items" in struct else None
        values: OrderedDict[str, float] = OrderedDict()
        self._by_user = {}
        for name in dict.fromkeys(self.metrics):
            spec = BY_KEY.get(name)
            if spec is None or inputs is None:
                of_recbole = self.metric_class[name].calculate_metric(struct)
                values.update({key: float(value) for key, value in of_recbole.items()})
                continue
            ours, by_user = values_of(spec, inputs)
            values.update(ours)
            if by_user is not None:
                self._by_user[name] = by_user
        if inputs is None:
            return EvaluationResult(values)
        per_user = {name: by_user.values for name, by_user in self._by_user.items()}
        return EvaluationResult(
            metrics=values,
            topk=inputs.topk,
            lists=inputs.items,
            scores=struct["rec.values"],
            user_ids=inputs.users,
            per_user=per_user,
            n_items=inputs.n_items,
            popularity=inputs.popularity,
            notes=_notes(inputs, per_user),
        )


def curves_of(inputs: EvalInputs, points: int = 200) -> dict[str, Any]:
    """Calibration and Lorenz curves by cutoff, as plain values.

    Args:
        inputs: The evaluation.
        points: A Lorenz curve is thinned to at most this many steps (all items:
            :func:`recbole_fair.evaluator.functional.lorenz_curve`).

    Returns:
        ``calibration``: ``levels`` and, by cutoff, the mean tau-hat over users (left out without training data);
        ``lorenz``: by cutoff, the share of ``items`` and the share of ``exposure`` they hold; ``exposure``: what
        :func:`exposure_by_popularity` gives (left out without training data).
    """
    curves: dict[str, Any] = {"lorenz": {}}
    for k in inputs.topk:
        items, exposure = lorenz_curve(inputs.recommended_counts(k))
        keep = torch.linspace(0, len(items) - 1, min(points + 1, len(items))).round().long()
        curves["lorenz"][str(k)] = {"items": items[keep].tolist(), "exposure": exposure[keep].tolist()}
    if inputs.popularity is not None and inputs.histories is not None:
        means = inputs.calibration.nanmean(0).tolist()
        by_cutoff = {str(k): row for k, row in zip(inputs.topk, means, strict=True)}
        curves["calibration"] = {"levels": list(inputs.options.pce_levels), "tau_hat": by_cutoff}
    if inputs.popularity is not None:
        curves["exposure"] = exposure_by_popularity(inputs)
    return curves


def exposure_by_popularity(inputs: EvalInputs, groups: int = 40) -> dict[str, Any]:
    """How much items are shown, by how popular they are.

    Args:
        inputs: The evaluation.
        groups: Number of groups of items, equally large up to one; fewer for smaller catalogues.

    Returns:
        Of each group, from the most popular items to the least popular ones (ties by id): ``items``, how many;
        ``popularity``, their mean number of training interactions; ``exposure``, by cutoff, their mean rank-discounted
        exposure as a multiple of the mean over all items, so that 1 is an even share.
    """
    counts = inputs.counts[1:]
    order = counts.argsort(descending=True, stable=True)
    parts = torch.tensor_split(order, min(groups, len(order)))
    exposure = {}
    for k in inputs.topk:
        shown = inputs.exposure(k)
        relative = shown / shown.mean().clamp(min=torch.finfo(shown.dtype).tiny)
        exposure[str(k)] = [float(relative[part].mean()) for part in parts]
    return {
        "items": [len(part) for part in parts],
        "popularity": [float(counts[part].double().mean()) for part in parts],
        "exposure": exposure,
    }


def _per_user(spec: MetricSpec, inputs: EvalInputs) -> PerUser:
    assert spec.per_user is not None  # metric_of has seen to it
    return spec.per_user(inputs)


def _notes(inputs: EvalInputs, per_user: dict[str, Tensor]) -> list[str]:
    """Say who is left out of what."""
    notes = []
    short = int((inputs.items[:, inputs.options.kmax - 1] == 0).sum())
    if short:
        notes.append(
            f"{short} of {inputs.n_rows} lists hold fewer than {inputs.options.kmax} items: the candidates ran out."
        )
    of_what = "users"
    n_users = len(torch.unique(inputs.users))
    if n_users < inputs.n_rows:
        of_what = "lists"
        notes.append(
            f"{inputs.n_rows} lists of {n_users} users, one for each held-out item: metrics are means over lists, "
            "numbers of users count each user once."
        )
    for name, values in per_user.items():
        spec, kept = BY_KEY[name], ~values[:, -1].isnan()
        if spec.size_note is not None:
            notes.append(f"{spec.name}: {int(kept.sum())} of {inputs.n_rows} {spec.size_note.format(of_what)}.")
        elif not bool(kept.all()):
            notes.append(f"{spec.name} leaves out {int((~kept).sum())} of {inputs.n_rows} {of_what}: {_reason(spec)}.")
    return notes


def _reason(spec: MetricSpec) -> str:
    return "no list or no usable history" if HISTORY in spec.needs else "no held-out item or no list"
