"""From a configuration, or a checkpoint, to data, model and trainer: what every entry point begins with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole.evaluator import metric_types
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import EvaluatorType, init_seed

from recbole_fair.config.catalogue import check_values, declared, keys_of, scope_of
from recbole_fair.config.concepts import POPULARITY
from recbole_fair.config.data_tables import data_tables
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.imports import refuse_stored
from recbole_fair.config.keys import metric_parts
from recbole_fair.config.recbole_keys import COMPUTED_KEYS
from recbole_fair.config.registry import get_model, get_trainer
from recbole_fair.config.rerankers import drop_old_settings
from recbole_fair.data.facts.interactions import data_fingerprint
from recbole_fair.data.reading.prepare import load_data
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import plain_config, restore_model
from recbole_fair.io.imported import open_checkpoint
from recbole_fair.runs.building import new_model
from recbole_fair.trainer.posthoc_trainer import differing_settings
from recbole_fair.trainer.trainer import FairTrainerMixin

FILE_KEYS = keys_of("file")


def config_on_base(
    model: str | type[Any] | None,
    dataset: str | None,
    config_file_list: str | Path | Sequence[str | Path] | None,
    config_dict: Mapping[str, Any] | None,
) -> FairConfig:
    """The configuration of a run; what the checkpoint ``base_model_file`` was trained with holds for it as well.

    Sizes of the base, its filters and its split stand in its checkpoint: only what shall differ has to be said again.
    So does what chose its epoch, with the list lengths that this needs; other lengths or metrics take its place.

    Args:
        model: as in :class:`~recbole_fair.config.fair_config.FairConfig`.
        dataset: likewise.
        config_file_list: likewise; goes before the base's settings.
        config_dict: likewise.
    """
    config = FairConfig(model, dataset, config_file_list, config_dict)
    file = config["base_model_file"]
    if file is None:
        return config
    base, given = open_checkpoint(file)["user_settings"], config.user_settings
    kept = {key for key in base.keys() - given.keys() if scope_of(key) in ("training", "protocol")}
    kept -= {"valid_metric", "valid_constraint"} & _not_computed(base, given)
    if kept & {"valid_metric", "valid_constraint"}:
        kept |= {"topk", "coverage_min_count"}  # they are of one of these lists, which are not the default ones
    if "valid_constraint" in kept:
        kept.add("metrics")
    taken = {key: value for key, value in base.items() if key in kept and key not in given}
    if not taken:
        return config
    return FairConfig(model, dataset, config_file_list, {**taken, **(config_dict or {})})


def new_trainer(config: FairConfig, split_seed: int | None = None) -> tuple[Any, tuple[Any, Any, Any]]:
    """Data, an untrained model and its trainer, every random generator seeded as in each run.

    Args:
        config: the configuration.
        split_seed: of a random split, where several seeds are to share one; the configuration's when left out.

    Returns:
        The trainer, which knows its splits, and the three loaders.

    Raises:
        FairError: for data or settings that cannot be used.
    """
    init_seed(config["seed"] if split_seed is None else split_seed, config["reproducibility"])
    loaders = load_data(config)
    init_seed(config["seed"], config["reproducibility"])
    net = new_model(config, loaders[0]._dataset)
    trainer = _trainer_of(config, net)
    trainer.bind(*loaders)
    return trainer, loaders


def _trainer_of(config: FairConfig, net: AbstractRecommender) -> FairTrainerMixin:
    """The trainer of a model.

    Raises:
        FairError: for decision trees, whose trainers know neither our evaluation nor our checkpoints.
    """
    trainer_class = get_trainer(config, config.model_class)
    if not issubclass(trainer_class, FairTrainerMixin):
        raise FairError(
            f"{config['model']} is trained outside of PyTorch, which recbole_fair does not support; take a context "
            "model that is not, such as DeepFM."
        )
    show_concept(config)
    return trainer_class(config, net)


def show_concept(config: FairConfig) -> None:
    """Add the share of a steered concept other than popularity to the metrics, where these are of lists."""
    concept = config["concept"] if "concept" in declared(config.model_class) else None
    names = [str(name).lower() for name in config["metrics"]]
    if concept in (None, POPULARITY) or config["eval_type"] != EvaluatorType.RANKING:
        return
    config["metrics"] = [*config["metrics"], *(n for n in ("ConceptShare", "ConceptGap") if n.lower() not in names)]


def load_model(
    config: FairConfig, content: Mapping[str, Any], model_file: str | Path, split_seed: int | None = None
) -> tuple[Any, Any, Any, Any]:
    """The model of a checkpoint's content, in evaluation mode, with its three loaders.

    Args:
        config: from :func:`config_of`.
        content: what :func:`~recbole_fair.io.checkpoint.load_checkpoint` returns.
        model_file: its path, for messages.
        split_seed: the one that :func:`new_trainer` was given.

    Raises:
        FairError: if the data or the settings are not those of the checkpoint.
    """
    init_seed(config["seed"] if split_seed is None else split_seed, config["reproducibility"])
    loaders = load_data(config)
    found = data_fingerprint(*(loader._dataset for loader in loaders if loader is not None))
    if content["fingerprint"] is not None and found != content["fingerprint"]:
        raise FairError(
            f"The data under data_path={config['data_path']} are not those that {model_file} was trained on; "
            "use the same files, filters and eval_args."
        )
    net = new_model(config, loaders[0]._dataset, content["state_dict"])
    restore_model(net, content, model_file)
    net.eval()
    return net, *loaders


def load_trainer(
    config: FairConfig, content: Mapping[str, Any], model_file: str | Path, split_seed: int | None = None
) -> tuple[Any, list[Any]]:
    """The trainer of a checkpoint's model, which can evaluate it, and the three loaders; see :func:`load_model`."""
    net, *loaders = load_model(config, content, model_file, split_seed)
    trainer = _trainer_of(config, net)
    trainer.bind(*loaders)
    return trainer, loaders


def config_of(
    content: Mapping[str, Any], changes: Mapping[str, Any] | None, model: type[Any] | None = None
) -> FairConfig:
    """The configuration that wrote a checkpoint, with some settings changed.

    Args:
        content: what :func:`~recbole_fair.io.checkpoint.load_checkpoint` returns.
        changes: settings to change; files that the writing run asked for are not written again.
        model: the class, for a model that is neither ours nor RecBole's.

    Raises:
        FairError: for another model or data set, or settings that are not allowed.
    """
    changes = dict(changes or {})
    for name in ("model", "dataset"):
        if not content[name] or set(content[name]) & set("/\\:\0"):
            raise FairError(f"The checkpoint's {name}={content[name]!r} is not a name.")
    for stored in (content["user_settings"], content["config"]):
        refuse_stored(stored, changes)
    named = changes.get("model")
    if isinstance(named, str) and ":" in named:
        model = get_model(named, changes.pop("base", None))
        changes["model"] = model.__name__
    for fixed in ("model", "dataset"):
        if changes.pop(fixed, content[fixed]) != content[fixed]:
            raise FairError(f"{fixed} cannot be changed: the checkpoint is of {fixed}={content[fixed]}.")
    stored = drop_old_settings(content["user_settings"], changes)
    derived = {"valid_metric_bigger"} | _not_computed(content["config"], changes)
    stored = {key: value for key, value in stored.items() if key not in derived}
    # What the writing run wrote, where, and on which machine is not this call's; its data may still be where they were.
    foreign = set(keys_of("file", "machine", "start")) - {"data_path"}
    settings = {**{key: value for key, value in stored.items() if key not in foreign}, **changes}
    if "data_path" not in changes and not _is_folder(settings.get("data_path"), content["dataset"]):
        settings.pop("data_path", None)  # nothing is downloaded to where a file says
    config = FairConfig(model or content["model"], content["dataset"], config_dict=settings)
    # Defaults may have moved since: the checkpoint's own stand, except what this call or this machine decides.
    now = {*keys_of("file", "machine", "start"), *COMPUTED_KEYS, *derived}
    moved = {
        key: value
        for key, value in drop_old_settings(content["config"], changes).items()
        if key in config and key not in settings and key not in now and config[key] != value
    }
    if moved.get("train_neg_sample_args", {}) is None:  # FairConfig writes no such thing
        raise FairError("The checkpoint's train_neg_sample_args=None is not usable; train again or use another file.")
    check_values(moved, {key: config[key] for key in moved}, config.model_class)
    for key, value in moved.items():
        config[key] = value
    return config


def _is_folder(data_path: object, dataset: str) -> bool:
    if not isinstance(data_path, str):
        return False
    return (Path(data_path) / dataset).is_dir() or data_tables(data_path, dataset) is not None


def _not_computed(stored: Mapping[str, Any], changes: Mapping[str, Any]) -> set[str]:
    """What chose the epoch was computed then, and need not be among the metrics and cutoffs of now."""
    dropped = {"valid_constraint"} if {"metrics", "topk", "coverage_min_count"} & set(changes) else set()
    _, count, k = metric_parts(str(stored.get("valid_metric")))
    if "coverage_min_count" in changes and count is not None:
        dropped.add("valid_metric")
    metrics = changes.get("metrics", stored.get("metrics")) or [""]
    first = metrics if isinstance(metrics, str) else metrics[0]
    if metric_types.get(str(first).lower()) != EvaluatorType.VALUE:
        dropped.add("threshold")  # makes labels, which rankings do not look at
    topk = changes.get("topk")
    if topk is not None and k and int(k) not in (topk if isinstance(topk, (list, tuple)) else [topk]):
        dropped.add("valid_metric")
    return dropped - set(changes)


def both_splits(loaders: Sequence[Any], what: str) -> dict[str, Any]:
    """The loaders of validation and test by name.

    Raises:
        FairError: if one of them is missing; ``what`` names the command that needs both.
    """
    splits = {"valid": loaders[1], "test": loaders[2]}
    if None in splits.values():
        raise FairError(f"{what} chooses on validation and reports test: use eval_args with both.")
    return splits


def refuse(settings: Mapping[str, Any], keys: Iterable[str], why: str) -> None:
    """Refuse settings that cannot act in what is being done.

    Raises:
        FairError: for the first of ``keys`` that is set, with the reason.
    """
    for key in keys:
        if settings.get(key) is not None:
            raise FairError(f"{key}={settings[key]!r} {why}.")


def check_changes(content: Mapping[str, Any], config: FairConfig, changes: Mapping[str, Any]) -> None:
    """Refuse changes that only a new training could follow.

    Raises:
        FairError: for the first of them.
    """
    refuse(changes, keys_of("start"), "is for training; nothing is trained here, leave the key out")
    model = config.model_class
    for key, (old, new) in differing_settings(content["config"], plain_config(config), model).items():
        if key in changes and scope_of(key, model) not in ("protocol", "strength"):
            raise FairError(
                f"{key}={new!r} cannot take effect: the checkpoint was trained with {old!r} and nothing is trained "
                "again; leave the key out, or train anew."
            )
