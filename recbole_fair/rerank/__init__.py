"""Lists from scores: re-rankers that run after any model, one file each."""

from recbole_fair.rerank.base import Candidates, Facts, Lists, ReRanker

__all__ = ["Candidates", "Facts", "Lists", "ReRanker"]
