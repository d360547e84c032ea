"""From collected lists to an :class:`EvaluationResult`."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from recbole.evaluator.evaluator import Evaluator
from torch import Tensor

from recbole_fair.evaluator.inputs import EvalInputs
from recbole_fair.evaluator.metrics import inputs_of, register_metrics, values_of
from recbole_fair.evaluator.options import MetricOptions
from recbole_fair.evaluator.result import EvaluationResult
from recbole_fair.evaluator.specs import BY_KEY, HISTORY, MetricSpec, PerUser

FULL_PRECISION = 15


class _FullPrecision:
    """A configuration as RecBole's own metrics see it: everything as it is, but values are hardly rounded."""

    def __init__(self, config: Any) -> None:
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

    def __init__(self, config: Any) -> None:
        register_metrics()
        super().__init__(_FullPrecision(config))
        self.options = MetricOptions.from_config(config)

    def evaluate(self, dataobject: Any) -> OrderedDict[str, float]:
        """Compute the metrics of the configuration, as after every epoch.

        Args:
            dataobject: What :meth:`FairCollector.get_data_struct` returned.

        Returns:
            ``name@k`` to value, full precision, in the order of the configuration.
        """
        return self._metrics(dataobject).metrics

    def result(self, dataobject: Any) -> EvaluationResult:
        """Compute metrics, curves, groups and intervals, as for a final evaluation.

        Args:
            dataobject: What :meth:`FairCollector.get_data_struct` returned.

        Returns:
            Everything about this evaluation.
        """
        return self._metrics(dataobject)

    def _metrics(self, struct: Any) -> EvaluationResult:
        inputs = inputs_of(struct, self.options) if "rec.items" in struct else None
        values: OrderedDict[str, float] = OrderedDict()
        per_user: dict[str, PerUser] = {}
        for name in dict.fromkeys(self.metrics):
            spec = BY_KEY.get(name)
            if spec is None or inputs is None:
                found = self.metric_class[name].calculate_metric(struct)
                values.update({key: float(value) for key, value in found.items()})
                continue
            found, by_user = values_of(spec, inputs)
            values.update(found)
            if by_user is not None:
                per_user[name] = by_user
        if inputs is None:
            return EvaluationResult(values)
        return EvaluationResult(
            metrics=values,
            topk=inputs.topk,
            lists=inputs.items,
            scores=struct["rec.values"],
            user_ids=inputs.users,
            per_user={name: by_user.values for name, by_user in per_user.items()},
            n_items=inputs.n_items,
            popularity=inputs.popularity,
            notes=_notes(inputs, {name: by_user.values for name, by_user in per_user.items()}),
        )


def _notes(inputs: EvalInputs, per_user: dict[str, Tensor]) -> list[str]:
    """Say who is left out of what."""
    notes = []
    short = int((inputs.items[:, inputs.options.kmax - 1] == 0).sum())
    if short:
        notes.append(
            f"{short} of {inputs.n_rows} lists hold fewer than {inputs.options.kmax} items: the candidates ran out."
        )
    for name, values in per_user.items():
        spec, kept = BY_KEY[name], ~values[:, -1].isnan()
        if spec.size_note is not None:
            notes.append(f"{spec.name}: {int(kept.sum())} of {inputs.n_rows} are {spec.size_note}.")
        elif not bool(kept.all()):
            notes.append(f"{spec.name} leaves out {int((~kept).sum())} of {inputs.n_rows} users: {_reason(spec)}.")
    return notes


def _reason(spec: MetricSpec) -> str:
    return "no list or no usable history" if HISTORY in spec.needs else "no held-out item or no list"
