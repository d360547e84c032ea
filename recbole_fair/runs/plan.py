"""What a comparison is to measure: its cells, and the one protocol that holds for all of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbole.utils import EvaluatorType

from recbole_fair.analysis.systems import system_name
from recbole_fair.config.catalogue import RERANKER_PREFIX, check_values, keys_of, own_keys
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.keys import did_you_mean
from recbole_fair.config.kinds import shown
from recbole_fair.config.layers import files_of, find_config_file, parse_value, properties_dir, read_yaml, tidy
from recbole_fair.config.mask import Mask
from recbole_fair.config.recbole_keys import PROCESS_KEYS
from recbole_fair.config.registry import get_model, get_reranker
from recbole_fair.config.traits import Traits
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import plain_config
from recbole_fair.rerank.settings import CANDIDATES, make_reranker
from recbole_fair.runs.journal import digest_of, settings_of_numbers
from recbole_fair.runs.loading import refuse
from recbole_fair.runs.outputs import data_stamps, versions

logger = logging.getLogger(__name__)

MOST_SEEDS = 100
_ONE_OF_EACH_USER = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"}
# What cells share whatever a model's own file says.
_COMMON = ("metrics", "topk", "valid_metric")


@dataclass
class Plan:
    """The cells of a comparison.

    Attributes:
        models: names, in the order of the tables.
        rerankers: names; each model's own lists always come first.
        seeds: the seeds.
        lists: files of lists that other systems have made, by name of the system.
        dataset: the data set's name.
        settings: the user's settings, without those below.
        protocol: settings that hold for every model.
        notes: sentences on what was settled.
        tuned: settings that a search has found, by model and re-ranker (None: the model's own).
    """

    models: list[str]
    rerankers: list[str]
    seeds: list[int]
    dataset: str
    settings: dict[str, Any]
    protocol: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lists: dict[str, str] = field(default_factory=dict)
    tuned: dict[tuple[str, str | None], dict[str, Any]] = field(default_factory=dict)
    _reads: dict[str, frozenset[str]] = field(default_factory=dict, repr=False)

    def systems(self) -> list[tuple[str, str | None]]:
        """Models with None (their own lists) and with each re-ranker, in the order of the tables."""
        return [(model, reranker) for model in self.models for reranker in (None, *self.rerankers)]

    def names(self) -> list[str]:
        """Names of all systems, those that have only lists at the end."""
        return [*(system_name(*system) for system in self.systems()), *self.lists]

    def take_lists(self, lists: Mapping[str, str | Path]) -> None:
        """Add systems that have only lists.

        Raises:
            FairError: for a name that another system has, or a file that is not there.
        """
        for name, path in lists.items():
            if name in self.names():
                raise FairError(f"lists names {name}, as another system is called: give it a name of its own.")
            if not Path(path).exists():
                raise FairError(f"lists: there is no file {path}.")
            self.lists[name] = str(path)

    def in_order_of_training(self) -> list[str]:
        """The models, those that may be the base of others first."""
        return sorted(self.models, key=lambda name: Traits.of(get_model(name)).base_model_name is not None)

    def config(self, model: str, reranker: str | None, seed: int, folder: str | Path) -> FairConfig:
        """The configuration of one cell.

        Args:
            model: the model's name.
            reranker: the re-ranker's name, or None.
            seed: the seed.
            folder: where checkpoints go.
        """
        settings = {**self.settings_of(model, reranker, seed), "checkpoint_dir": str(folder)}
        return FairConfig(model, self.dataset, config_dict=settings)

    def settings_of(self, model: str, reranker: str | None, seed: int) -> dict[str, Any]:
        """The settings of one cell, without where its checkpoints go.

        Args:
            model: the model's name.
            reranker: the re-ranker's name, or None.
            seed: the seed.
        """
        base = Traits.of(get_model(model)).base_model_name
        found = {**self.tuned.get((base or "", None), {}), **self.tuned.get((model, None), {})}
        settings = {**found, **self._readable(model), **self.protocol, "seed": seed}
        if reranker is not None:
            own = set(get_reranker(reranker).keys().values())
            settings |= {key: value for key, value in self.settings.items() if key in own}
            settings |= self.tuned.get((model, reranker), {})
            settings["reranker"] = reranker
        return settings

    def reads(self, model: str) -> frozenset[str]:
        """Keys that a model reads."""
        if model not in self._reads:
            self._reads[model] = frozenset(FairConfig(model, self.dataset).internal_config_dict)
        return self._reads[model]

    def _readable(self, model: str) -> dict[str, Any]:
        """The user's settings without the keys that belong to other models or to re-rankers."""
        return {
            key: value
            for key, value in self.settings.items()
            if (key not in own_keys() or key in self.reads(model))
            and (not key.startswith(RERANKER_PREFIX) or key == CANDIDATES)
        }


def make_plan(
    models: Sequence[str],
    rerankers: Sequence[str],
    dataset: str | None,
    seeds: int | Sequence[int],
    config_file_list: str | Path | Sequence[str | Path] | None = None,
    config_dict: Mapping[str, Any] | None = None,
) -> Plan:
    """Gather settings, check every name and value, and settle the protocol, before anything is trained.

    Args:
        models: names of models.
        rerankers: names of re-rankers.
        dataset: the data set's name, or None to take it from the settings.
        seeds: how many, counted up from the key ``seed``; or the seeds themselves.
        config_file_list: yaml files, or one of them; later ones win.
        config_dict: settings; they win over the files.

    Returns:
        The plan.

    Raises:
        FairError: for a name or value that is not known or not allowed.
    """
    settings: dict[str, Any] = {}
    for name in files_of(config_file_list):
        settings.update(tidy(read_yaml(find_config_file(name))))
    for key, value in (config_dict or {}).items():
        settings[key] = parse_value(key, value) if isinstance(value, str) else tidy(value)
    _refuse(settings)
    for key in PROCESS_KEYS:  # numbers do not depend on how many processes there are
        settings.pop(key, None)
    dataset = dataset or settings.get("dataset")
    for key in ("model", "dataset", "reranker"):
        settings.pop(key, None)
    if dataset is None:
        raise FairError("dataset is not set: add --dataset=NAME.")
    names = _names(models, "models")
    if not names:
        raise FairError("models is empty: name at least one, as in --models=SASRec,PopSteerSASRec.")
    start = settings.pop("seed", None)
    plan = Plan(names, _names(rerankers, "rerankers"), [], dataset, settings)
    for model in plan.models:
        get_model(model)
    own = {key for name in plan.rerankers for key in get_reranker(name).keys().values()}
    for key in settings:
        if key.startswith(RERANKER_PREFIX) and key not in {*own, CANDIDATES}:
            raise FairError(f"{key}={settings[key]!r} is not a key of any re-ranker here{did_you_mean(key, own)}")
    first = FairConfig(plan.models[0], dataset).internal_config_dict["seed"]
    plan.seeds = _seeds(seeds, int(first if start is None else start))
    _settle(plan)
    if "checkpoint_dir" in plan.settings:
        plan.notes.append("checkpoint_dir has no effect: a comparison keeps checkpoints in its own folder (--output).")
    read = set[str]().union(*(plan.reads(model) for model in plan.models))
    for key, value in plan.settings.items():
        if key in own_keys() and key not in read:
            plan.notes.append(f"{key}={value!r} has no effect: none of these models reads it.")
    for model, reranker in plan.systems():
        config = plan.config(model, reranker, plan.seeds[0], "saved")
        if config["eval_type"] != EvaluatorType.RANKING:
            raise FairError(f"metrics={config['metrics']} rate single rows; a comparison needs ranking metrics.")
        make_reranker(config)
    return plan


def cell_key(config: FairConfig) -> str:
    """Digest of what a cell's numbers depend on: settings, data files and versions."""
    return digest_of([settings_of_numbers(plain_config(config)), data_stamps(config), versions()])


def _refuse(settings: Mapping[str, Any]) -> None:
    single = "belongs to a single run; a comparison writes its own files and finds its own checkpoints"
    refuse(settings, keys_of("file", "start"), single)
    if settings.get("base") is not None:
        raise FairError(f"base={settings['base']!r}: a comparison takes models with their bases, as PopSteerGRU4Rec.")
    if settings.get("reranker") is not None:
        raise FairError(f"reranker={settings['reranker']!r}: a comparison takes --rerankers, names joined by commas.")
    if settings.get("bootstrap") == 0:
        raise FairError("bootstrap=0: a comparison tests metrics of all lists by resampling; leave the key out (1000).")
    check_values(settings, {})


def _names(given: str | Sequence[str], what: str) -> list[str]:
    listed = [given] if isinstance(given, (str, type)) else given
    for name in listed:
        if not isinstance(name, str):
            raise FairError(
                f"{what} holds {shown(name)}, which is no name: a comparison keeps finished work by name; give a class "
                "by its import path, as 'module:Class'."
            )
    words = [word.strip() for text in listed for word in text.removeprefix("=").split(",")]
    names = [word for word in words if word]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FairError(f"{what} names {twice} twice.")
    return names


def _seeds(given: int | Sequence[int], first: int) -> list[int]:
    given = tidy(given)
    if isinstance(given, bool):
        raise FairError(f"seeds={given!r} is not allowed: give a number of seeds, or the seeds as 1,2,3.")
    if isinstance(given, int):
        if not 1 <= given <= MOST_SEEDS:
            raise FairError(
                f"seeds={given} is not allowed: it is a number of seeds from 1 to {MOST_SEEDS}; write {given}, with a "
                "comma for the one seed of that number."
            )
        return list(range(first, first + given))
    seeds = list(given) if isinstance(given, (list, tuple)) else []
    if not seeds or any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in seeds):
        raise FairError(f"seeds={given!r} is not allowed: seeds are whole numbers from 0.")
    if len(set(seeds)) < len(seeds):
        raise FairError(f"seeds={given!r} names a seed twice.")
    return seeds


def _settle(plan: Plan) -> None:
    """Fill in the protocol: what models' own files would decide differently is decided once."""
    defaults = read_yaml(properties_dir() / "overall.yaml")
    plan.protocol = {key: defaults[key] for key in _COMMON if key not in plan.settings}
    if "topk" in plan.settings and "valid_metric" not in plan.settings:
        cutoffs = plan.settings["topk"]
        plan.protocol["valid_metric"] = f"NDCG@{cutoffs if isinstance(cutoffs, int) else cutoffs[0]}"
    # Intervals and tests are of differences; those of single systems would be made and thrown away.
    plan.protocol["bootstrap"] = 0
    configs = {model: plan.config(model, None, plan.seeds[0], "saved") for model in plan.models}
    splits = {digest_of(config["eval_args"]) for config in configs.values()}
    if len(splits) > 1 and "eval_args" not in plan.settings:
        plan.protocol["eval_args"] = _ONE_OF_EACH_USER
        plan.notes.append(
            "The models' own defaults split the data differently; all are trained and tested on the last-but-one and "
            "the last interaction of each user, by time. Set eval_args for another split."
        )
    if len({Mask.of(config).rule for config in configs.values()}) > 1:
        if plan.settings.get("mask_seen") not in (None, "auto"):
            raise ValueError("a mask that the user named holds for all models")
        plan.protocol["mask_seen"] = "all"
        plan.notes.append(
            "Sequential models may recommend what the user has seen and the others may not, by RecBole's rules; here "
            "nobody may (mask_seen: all). Set mask_seen for another rule."
        )
