"""How good, and how fair, lists are: collection, metrics, groups, intervals."""

from recbole_fair.evaluator.collector import FairCollector
from recbole_fair.evaluator.evaluator import FairEvaluator
from recbole_fair.evaluator.metrics import register_metrics
from recbole_fair.evaluator.options import MetricOptions
from recbole_fair.evaluator.result import EvaluationResult

__all__ = ["EvaluationResult", "FairCollector", "FairEvaluator", "MetricOptions", "register_metrics"]
