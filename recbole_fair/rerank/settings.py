"""From a configuration to its re-ranker, and whether it is given the candidates that it looks at."""

from __future__ import annotations

from recbole_fair.config.contract import Settings
from recbole_fair.config.registry import get_reranker
from recbole_fair.config.rerankers import CANDIDATES
from recbole_fair.errors import FairError
from recbole_fair.rerank.base import ReRanker

__all__ = ["CANDIDATES", "check_candidates", "make_reranker"]


def make_reranker(config: Settings) -> ReRanker | None:
    """The re-ranker of a configuration, or None.

    Raises:
        FairError: for settings that are not allowed.
    """
    name = config["reranker"]
    if not name:
        return None
    longest, candidates = max(config["topk"]), config[CANDIDATES]
    if candidates is not None and candidates < longest:
        raise FairError(f"{CANDIDATES}={candidates} is too few for the lists of {longest} items that topk asks for.")
    made: ReRanker = get_reranker(name).from_config(config)
    return made


def check_candidates(reranker: ReRanker, config: Settings, n_items: int) -> None:
    """See that a re-ranker gets the candidates that it looks at, as far as there are so many items.

    Raises:
        FairError: naming the number that it needs.
    """
    longest, candidates = max(config["topk"]), config[CANDIDATES]
    wanted = min(reranker.looks_at(longest), n_items - 1)
    if candidates is not None and candidates < wanted:
        raise FairError(
            f"{CANDIDATES}={candidates} is too few: for lists of {longest} items (topk) {type(reranker).__name__} "
            f"looks at the best {wanted}; set {CANDIDATES}={wanted}, or null for all items."
        )
