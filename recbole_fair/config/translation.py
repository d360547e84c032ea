"""Settings of a run of plain RecBole, said in ours, whatever RecBole's version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recbole_fair.config.catalogue import own_keys, scope_of
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.recbole_keys import COMPUTED_KEYS, RECBOLE_KEYS
from recbole_fair.errors import FairError

# Of the session that trained, or switched on by RecBole for itself, beside what is the machine's.
_SESSION = "config_files dataset model nogb reproducibility save_step shuffle valid_metric_bigger verbose"
_OF_THE_SESSION = frozenset(_SESSION.split())
_ELSEWHERE = ("file", "machine", "start")
# RecBole's names before 1.1, with what they are called now; None: gone without a successor.
_OLD_NAMES: dict[str, str | None] = {
    "multi_gpus": None,
    "neg_sampling": "train_neg_sample_args",
    "real_time_process": None,
    "training_neg_sample_num": "train_neg_sample_args",
}
_RECBOLE_METRICS = ["Recall", "MRR", "NDCG", "Hit", "Precision"]


@dataclass(frozen=True)
class Translation:
    """What became of foreign settings.

    Attributes:
        model: the model's name.
        dataset: the data set's name.
        settings: those that differ from our defaults; ``FairConfig`` takes them.
        unknown: keys that no model here reads, with their values, as texts.
    """

    model: str
    dataset: str
    settings: dict[str, Any]
    unknown: dict[str, str] = field(default_factory=dict)


def translate(foreign: Mapping[str, Any], model: str, dataset: str) -> Translation:
    """Translate the final settings of a run of plain RecBole 1.0 to 1.2.1.

    Args:
        foreign: its ``final_config_dict``; values that are neither numbers, texts, lists nor mappings are passed over.
        model: the model's name.
        dataset: the data set's name.

    Raises:
        FairError: for a model that is not among RecBole's.
    """
    defaults = FairConfig(model, dataset)
    known = (RECBOLE_KEYS | set(own_keys()) | set(defaults.final_config_dict)) - COMPUTED_KEYS
    wanted: dict[str, Any] = {}
    unknown: dict[str, str] = {}
    for key, value in foreign.items():
        if key in COMPUTED_KEYS or key in _OF_THE_SESSION or scope_of(key) in _ELSEWHERE or not is_plain(value):
            continue
        name = _OLD_NAMES.get(key, key)
        if name is None:
            continue
        if name not in known:
            unknown[key] = repr(value)
            continue
        wanted[name] = value if name == key else _old_sampling(value)
    wanted |= _what_recbole_does(wanted, model)
    settings = {key: value for key, value in wanted.items() if _differs(defaults, key, value)}
    return Translation(model, dataset, settings, unknown)


def _what_recbole_does(wanted: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Settings of ours that stand for RecBole's only way of doing it, and metrics beside those that nobody chose."""
    found: dict[str, Any] = {"time_order": "recbole"}
    if model == "SASRec":
        found["train_positions"] = "last"
    if wanted.get("metrics") == _RECBOLE_METRICS:
        found["metrics"] = list(FairConfig(model, "ml-100k")["metrics"])
    args = wanted.get("train_neg_sample_args")
    if isinstance(args, Mapping) and args.get("distribution", "none") == "none":
        found["train_neg_sample_args"] = None
    for key in ("user_inter_num_interval", "item_inter_num_interval"):
        # Our presets of some data sets filter; null would leave that in force.
        if key in wanted and wanted[key] is None:
            found[key] = "[0,inf)"
    return found


def _old_sampling(value: Any) -> Any:
    """``train_neg_sample_args`` for ``neg_sampling: {uniform: 1}`` (1.0) or a plain number."""
    if isinstance(value, Mapping) and value:
        distribution, count = next(iter(value.items()))
    elif isinstance(value, int) and value > 0:
        distribution, count = "uniform", value
    else:
        return None
    return {"distribution": distribution, "sample_num": count, "alpha": 1.0, "dynamic": False, "candidate_num": 0}


def is_plain(value: Any) -> bool:
    """Whether a value is made of numbers, texts, lists and mappings only."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str | int) and is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _differs(defaults: FairConfig, key: str, value: Any) -> bool:
    default = defaults[key]
    if key.endswith("_inter_num_interval") and default is None and value == "[0,inf)":
        return False
    if isinstance(default, list | tuple) and isinstance(value, list | tuple):
        return list(default) != list(value)
    return bool(default != value)


def check_translation(found: Translation, changes: Mapping[str, Any]) -> FairConfig:
    """The configuration of translated settings.

    Args:
        found: what :func:`translate` returned.
        changes: settings of this call, which win.

    Raises:
        FairError: for a value that is not allowed here, saying that it is the file's.
    """
    try:
        return FairConfig(found.model, found.dataset, config_dict={**found.settings, **changes})
    except FairError as error:
        raise FairError(f"The settings in the file cannot be taken over: {error}") from error
