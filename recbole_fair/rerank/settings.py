"""The configuration keys of re-rankers: which ones belong to the chosen one, and their default values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from recbole_fair.config.keys import did_you_mean
from recbole_fair.config.layers import properties_dir, read_yaml
from recbole_fair.config.registry import get_reranker
from recbole_fair.errors import FairError
from recbole_fair.rerank.base import PREFIX, ReRanker, key_of

CANDIDATES = "reranker_candidates"


def reranker_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Default values of the keys of the re-ranker that the user chose.

    Args:
        settings: the user's keys and values.

    Returns:
        Key to value: from ``properties/rerank/<Name>.yaml``, or, for a class given by its import path, the defaults
        of its fields. Empty without a re-ranker.

    Raises:
        FairError: for an unknown re-ranker, or for a key that is not one of its own.
    """
    name = settings.get("reranker")
    given = [key for key in settings if key.startswith(PREFIX) and key != CANDIDATES]
    if not isinstance(name, str):
        if given and "reranker" not in settings:
            raise FairError(f"{given[0]}={settings[given[0]]!r} has no effect: choose a re-ranker by reranker=NAME.")
        return {}
    cls = get_reranker(name)
    own = set(cls.keys().values())
    for key in given:
        if key not in own:
            hint = did_you_mean(key, own)
            raise FairError(f"{key}={settings[key]!r} is not a key of reranker={name}{hint}")
    file = properties_dir() / "rerank" / f"{name}.yaml"
    if file.is_file():
        return read_yaml(file)
    return {key_of(f.name): None if f.default is MISSING else f.default for f in fields(cls)}


def make_reranker(config: Any) -> ReRanker | None:
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


def check_candidates(reranker: ReRanker, config: Any, n_items: int) -> None:
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


def drop_old_settings(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without the keys of a re-ranker that ``changes`` replaces by another one."""
    if "reranker" not in changes or changes["reranker"] == settings.get("reranker"):
        return dict(settings)
    return {key: value for key, value in settings.items() if not key.startswith(PREFIX) or key == CANDIDATES}
