"""Metrics as pure functions of lists, hits, popularity, histories and groups."""

from recbole_fair.evaluator.functional.alignment import (
    history_means,
    history_shares,
    jensen_shannon,
    list_lengths,
    list_means,
    list_shares,
    log_popularity_difference,
    popularity_lift,
    user_popularity_deviation,
)
from recbole_fair.evaluator.functional.calibration_errors import (
    calibration_shares,
    group_calibration,
    popularity_calibration_error,
)
from recbole_fair.evaluator.functional.exposure import (
    aggregate_diversity,
    coverage,
    gini,
    herfindahl,
    item_counts,
    item_exposure,
    lorenz_curve,
    shannon_entropy,
)
from recbole_fair.evaluator.functional.ranking import average_precision, hit, mrr, ndcg, precision, recall

__all__ = [
    "aggregate_diversity",
    "average_precision",
    "calibration_shares",
    "coverage",
    "gini",
    "group_calibration",
    "herfindahl",
    "history_means",
    "history_shares",
    "hit",
    "item_counts",
    "item_exposure",
    "jensen_shannon",
    "list_lengths",
    "list_means",
    "list_shares",
    "log_popularity_difference",
    "lorenz_curve",
    "mrr",
    "ndcg",
    "popularity_calibration_error",
    "popularity_lift",
    "precision",
    "recall",
    "shannon_entropy",
    "user_popularity_deviation",
]
