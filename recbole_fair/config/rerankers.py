"""The configuration keys of re-rankers: which ones belong to the chosen one, and their default values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from recbole_fair.config.catalogue import RERANKER_PREFIX
from recbole_fair.config.keys import did_you_mean
from recbole_fair.config.kinds import shown
from recbole_fair.config.layers import properties_dir, read_packaged
from recbole_fair.config.registry import get_reranker
from recbole_fair.errors import FairError

CANDIDATES = "reranker_candidates"


def reranker_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Default values of the keys of the re-ranker that the user chose.

    Args:
        settings: the user's keys and values.

    Returns:
        Key to value: from ``properties/rerank/<Name>.yaml``, or, for a class given by its import path, the defaults
        of its fields. Empty without a re-ranker.

    Raises:
        FairError: for an unknown re-ranker, or for a key or a value that is not one of its own.
    """
    name = settings.get("reranker")
    given = [key for key in settings if key.startswith(RERANKER_PREFIX) and key != CANDIDATES]
    if not isinstance(name, str):
        if given and "reranker" not in settings:
            raise FairError(
                f"{given[0]}={shown(settings[given[0]])} has no effect: choose a re-ranker by reranker=NAME."
            )
        return {}
    cls = get_reranker(name)
    own = cls.limits_by_key()
    for key in given:
        if key not in own:
            hint = did_you_mean(key, own)
            raise FairError(f"{key}={shown(settings[key])} is not a key of reranker={name}{hint}")
    file = properties_dir() / "rerank" / f"{name}.yaml"
    if file.is_file():
        defaults = read_packaged(file)
    else:
        keys = cls.keys()
        defaults = {keys[f.name]: None if f.default is MISSING else f.default for f in fields(cls)}
    for key in given:
        limit, value = own[key], settings[key]
        # A default of null, such as the seed's, may be said as well.
        said = limit.complaint(key, value) if limit is not None else None
        if said is not None and not (value is None and defaults.get(key) is None):
            raise FairError(said.replace("is not allowed:", f"is not allowed for {name}:", 1))
    return defaults


def drop_old_settings(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without the keys of a re-ranker that ``changes`` replaces by another one."""
    if "reranker" not in changes or changes["reranker"] == settings.get("reranker"):
        return dict(settings)
    return {key: value for key, value in settings.items() if not key.startswith(RERANKER_PREFIX) or key == CANDIDATES}
