"""The parts of RecBole's settings that are mappings: how data are split, items sampled, gradients cut."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from recbole_fair.config.keys import Key
from recbole_fair.config.kinds import is_number, shown

_SPLITS = "{RS: [0.8, 0.1, 0.1]}, {LS: valid_and_test} or {TS: [0.8, 0.1, 0.1]}"
_LEFT_OUT = ("valid_and_test", "valid_only", "test_only")


def _split(value: Mapping[str, Any]) -> str | None:
    if len(value) != 1 or next(iter(value)) not in ("RS", "LS", "TS"):
        return f"it must be {_SPLITS}"
    (way, how), *_ = value.items()
    if way == "LS":
        return None if how in _LEFT_OUT else f"LS={shown(how)} must be valid_and_test, valid_only or test_only"
    ratio = isinstance(how, (list, tuple)) and all(is_number(share) and 0 <= share <= 1e9 for share in how)
    if not ratio or len(how) != 3 or not sum(how) > 0:
        return f"{way}={shown(how)} must be three shares (training, validation, test), none negative"
    return None


def _mode(value: Any) -> str | None:
    for one in value.values() if isinstance(value, Mapping) else (value,):
        if not isinstance(one, str) or not re.fullmatch(r"full|labeled|(uni|pop)[1-9]\d{0,6}", one, re.ASCII):
            return f"mode={shown(one)} must be full, labeled, uniN or popN (N sampled items)"
    if isinstance(value, Mapping) and set(value) != {"valid", "test"}:
        return "it must name valid and test"
    return None


#: Of ``eval_args``.
EVAL_ARGS: dict[str, Key] = {
    "split": Key("dict", check=_split),
    "order": Key("str", choices=("RO", "TO")),
    "group_by": Key("str", choices=("user", "none"), optional=True),
    "mode": Key("str|dict", check=_mode),
}

#: Of ``train_neg_sample_args``, with RecBole's defaults: one item that is drawn evenly.
NEGATIVES: dict[str, Key] = {
    "distribution": Key("str", choices=("uniform", "popularity", "none"), default="uniform"),
    "sample_num": Key("int|str", low=1, high=10**5, choices=("none",), default=1),
    "alpha": Key("float|str", low=0, high=100, choices=("none",), default=1.0),
    "dynamic": Key("bool", default=False),
    "candidate_num": Key("int", low=0, high=10**5, default=0),
}


def sampling(value: Mapping[str, Any]) -> str | None:
    """What is wrong with ``train_neg_sample_args``: numbers are missing only where nothing is sampled."""
    if value.get("distribution", "uniform") != "none" and "none" in (value.get("sample_num"), value.get("alpha")):
        return "sample_num and alpha are none only with distribution: none"
    return None


#: Of ``clip_grad_norm``.
CLIPPING: dict[str, Key] = {
    "max_norm": Key("float", low=0, open_low=True),
    "norm_type": Key("float", low=0, open_low=True),
    "error_if_nonfinite": Key("bool"),
    "foreach": Key("bool", optional=True),
}


def clipping_norm(value: Mapping[str, Any]) -> str | None:
    """What is wrong with ``clip_grad_norm``: nothing is cut without the norm to cut at."""
    return None if "max_norm" in value else "it must name max_norm, the norm that gradients are cut at"


_GROUPING: dict[str, Key] = {
    "metrics": Key("str", many=True),
    "bins": Key("int", low=2, high=10_000, optional=True),
    "thresholds": Key("list", of=Key("float"), optional=True),
}


def groupings(value: Any) -> str | None:
    """What is wrong with ``group_metrics``: names of groups alone, or each with its metrics and its bins."""
    if not isinstance(value, Mapping):
        return None
    for name, spec in value.items():
        where = f"group_metrics.{name}"
        if not isinstance(spec, Mapping) or not spec.get("metrics"):
            return f"{where}={shown(spec)} must name its metrics, as in {{metrics: [NDCG]}}"
        for part, given in spec.items():
            if part not in _GROUPING:
                return f"{where} has the unknown key {part!r}, where metrics, bins and thresholds are allowed"
            if not _GROUPING[part].accepts(given):
                return f"{where}.{part}={shown(given)} must be {_GROUPING[part].allowed()}"
        if spec.get("thresholds") is not None and (name != "drift" or spec.get("bins") is not None):
            return f"{where} has thresholds, which are for drift alone, in the place of bins"
    return None
