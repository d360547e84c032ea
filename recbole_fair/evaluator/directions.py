"""Which way is better: what the name of a result, ``name@k``, says about itself."""

from __future__ import annotations

from recbole_fair.config.keys import metric_parts
from recbole_fair.evaluator.specs import BY_KEY, MetricSpec


def spec_of(metric: str) -> MetricSpec | None:
    """The declaration of a metric of ours.

    Args:
        metric: its name in results or configurations, with or without cutoff, in any case: ``NDCG``,
            ``itemcoverage_min5@10``.

    Returns:
        The declaration, or None for a metric that is not ours.
    """
    return BY_KEY.get(metric_parts(metric)[0].lower())


def smaller_is_better(metric: str) -> bool:
    """Whether less of a metric (``name@k``) is better; by magnitude for metrics that are best at zero."""
    spec = spec_of(metric)
    return spec is not None and spec.smaller


def best_at_zero(metric: str) -> bool:
    """Whether the value nearest to zero is best."""
    spec = spec_of(metric)
    return spec is not None and spec.to_zero


def display_name(metric: str) -> str:
    """The name as people write it: ``ndcg@10`` is ``NDCG@10``; names that are not ours stay as they are."""
    spec = spec_of(metric)
    return metric if spec is None else spec.name + metric[len(spec.name) :]
