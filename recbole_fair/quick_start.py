"""Run a model from configuration to result, load it again, evaluate it again: RecBole's entry points under our name."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recbole.utils import init_logger, init_seed

from recbole_fair.analysis.sweep import (
    choose,
    constraint_of,
    pareto_front,
    parse_grid,
    settings_of,
    smaller_is_better,
    sweep,
    sweep_table,
)
from recbole_fair.checkpoint import load_checkpoint, plain_config, unpack_arrays
from recbole_fair.config import FairConfig
from recbole_fair.data.interactions import data_fingerprint
from recbole_fair.data.prepare import load_data
from recbole_fair.errors import FairError
from recbole_fair.evaluator.files import write_per_item, write_per_user
from recbole_fair.outputs import (
    check_writable,
    versions,
    write_atomically,
    write_recommendations,
    write_result,
)
from recbole_fair.recbole_keys import COMPUTED_KEYS
from recbole_fair.registry import get_trainer
from recbole_fair.report.summary import metrics_table, sweep_lines
from recbole_fair.rerank.base import ReRanker
from recbole_fair.rerank.settings import CANDIDATES, drop_old_settings, make_reranker
from recbole_fair.trainer.posthoc import differing_settings
from recbole_fair.trainer.reranking import check_reranker, evaluate_reranked
from recbole_fair.trainer.trainer import progress

logger = logging.getLogger(__name__)

_FILE_KEYS = ("result_file", "recommendations_file", "neurons_file", "per_user_file", "per_item_file")
# What may differ between the run that wrote a checkpoint and the one that reads it.
_OF_THE_MACHINE = ("data_path", "checkpoint_dir", "gpu_id", "use_gpu", "show_progress", "state", "worker", *_FILE_KEYS)
# What evaluating a checkpoint may change beside the data's settings (their fingerprint is compared) and a model's
# strengths; metrics, files, re-rankers and the machine are no settings of training to begin with.
_OF_EVALUATION = frozenset(("eval_args", "mask_seen", "repeatable", "seed", "valid_constraint", "valid_metric"))


class _Stages:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def run_recbole_fair(
    model: str | type[Any] | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str | Path] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    saved: bool = True,
) -> dict[str, Any]:
    """Train a model, evaluate it on test and write the files that the configuration asks for.

    Args:
        model: a model's name (ours, then RecBole's) or class.
        dataset: the data set's name.
        config_file_list: yaml files, later ones win.
        config_dict: settings; they win over the files.
        saved: whether to write a checkpoint into ``checkpoint_dir``.

    Returns:
        The result document: RecBole's ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result`` and
        ``test_result``; for post-hoc models ``base_test_result`` and ``variants``; ``model``, ``dataset``, ``seed``,
        ``config`` (what differs from the defaults), ``mask_seen``, ``popularity``, ``timings``, ``versions``,
        ``checkpoint``.

    Raises:
        FairError: for anything that the user can mend.
    """
    stages = _Stages()
    config = FairConfig(model, dataset, config_file_list, config_dict)
    _check_files(config)
    reranker = make_reranker(config)
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    logger.info(config)
    with stages("data"):
        loaders = load_data(config)
    train_data, valid_data, test_data = loaders
    init_seed(config["seed"], config["reproducibility"])
    net = config.model_class(config, train_data._dataset).to(config["device"])
    logger.info(net)
    trainer = get_trainer(config, config.model_class)(config, net)
    trainer.bind(*loaders)
    if reranker is not None:
        check_reranker(trainer, reranker)
    if config["resume"]:
        trainer.resume_checkpoint(config["resume"])
        _warn_of_other_settings(config, trainer)
    shown = bool(config["show_progress"]) and sys.stderr.isatty()
    with stages("training"):
        best_score, best_result = trainer.fit(train_data, valid_data, saved=saved, show_progress=shown)
    trainer.load_best()
    result = {
        "model": config["model"],
        "dataset": config["dataset"],
        "seed": config["seed"],
        "best_valid_score": best_score,
        "valid_score_bigger": config["valid_metric_bigger"],
        "best_valid_result": best_result,
        **_evaluate(config, trainer, test_data, stages, shown, reranker),
        "checkpoint": str(trainer.saved_model_file) if saved else None,
    }
    return _finish(config, trainer, result, stages)


def load_data_and_model(
    model_file: str | Path, config_dict: Mapping[str, Any] | None = None, model: type[Any] | None = None
) -> tuple[FairConfig, Any, Any, Any, Any, Any]:
    """Load a checkpoint with its data: RecBole's function of this name, for our models and RecBole's.

    Args:
        model_file: a checkpoint written by recbole_fair.
        config_dict: settings to change, such as strengths that apply at scoring time or ``data_path``.
        model: the class, for a model that is neither ours nor RecBole's.

    Returns:
        Configuration, model in evaluation mode, data set, training, validation and test loader.

    Raises:
        FairError: for a file that cannot be used, or data that are not those of the checkpoint.
    """
    content = load_checkpoint(model_file)
    config = _config_of(content, config_dict, model)
    net, *loaders = _load_model(config, content, model_file)
    return config, net, loaders[0]._dataset, *loaders


def _check_files(config: FairConfig) -> None:
    """Find out before training whether the files asked for can be written.

    Raises:
        FairError: naming the key and the path.
    """
    check_writable(config, _FILE_KEYS)
    try:
        Path(config["checkpoint_dir"]).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FairError(
            f"checkpoint_dir={config['checkpoint_dir']} cannot be made: {error.strerror or error}."
        ) from error
    if config["neurons_file"] and not hasattr(config.model_class, "write_neurons"):
        raise FairError(f"neurons_file={config['neurons_file']}: {config['model']} has no neurons to write.")


def _warn_of_other_settings(config: FairConfig, trainer: Any) -> None:
    """Say which settings of training differ from those of the run that is gone on with."""
    own = trainer.base_config() if hasattr(trainer, "base_config") else config
    different = differing_settings(load_checkpoint(config["resume"])["config"], plain_config(own))
    if different:
        logger.warning(
            "resume=%s was trained with other settings: %s. The optimizer goes on with the rates of the checkpoint.",
            config["resume"],
            ", ".join(f"{key}={old!r} (now {new!r})" for key, (old, new) in different.items()),
        )


def _load_model(config: FairConfig, content: Mapping[str, Any], model_file: str | Path) -> tuple[Any, Any, Any, Any]:
    """The model of a checkpoint's content, in evaluation mode, with its three loaders."""
    init_seed(config["seed"], config["reproducibility"])
    loaders = load_data(config)
    found = data_fingerprint(*(loader._dataset for loader in loaders if loader is not None))
    if content["fingerprint"] is not None and found != content["fingerprint"]:
        raise FairError(
            f"The data under data_path={config['data_path']} are not those that {model_file} was trained on; "
            "use the same files, filters and eval_args."
        )
    net = config.model_class(config, loaders[0]._dataset).to(config["device"])
    try:
        net.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise FairError(
            f"{model_file} does not fit the settings: {str(error).splitlines()[-1].strip()}; "
            "use those that it was trained with."
        ) from error
    net.load_other_parameter(unpack_arrays(content.get("other_parameter")))
    net.eval()
    return net, *loaders


def evaluate_checkpoint(
    model_file: str | Path, config_dict: Mapping[str, Any] | None = None, model: type[Any] | None = None
) -> dict[str, Any]:
    """Evaluate a checkpoint on test, with changed metrics, masks or strengths if wanted, without training.

    Args:
        model_file: a checkpoint written by recbole_fair.
        config_dict: settings to change.
        model: the class, for a model that is neither ours nor RecBole's.

    Returns:
        The result document without RecBole's validation keys.

    Raises:
        FairError: for a file that cannot be used or settings that do not fit it.
    """
    stages = _Stages()
    content = load_checkpoint(model_file)
    config = _config_of(content, config_dict, model)
    _check_changes(content, config, config_dict or {})
    init_logger(config)
    with stages("data"):
        net, *loaders = _load_model(config, content, model_file)
    _check_files(config)
    reranker = make_reranker(config)
    trainer = get_trainer(config, config.model_class)(config, net)
    trainer.bind(*loaders)
    if reranker is not None:
        check_reranker(trainer, reranker)
    shown = bool(config["show_progress"]) and sys.stderr.isatty()
    result = {
        "model": config["model"],
        "dataset": config["dataset"],
        "seed": config["seed"],
        **_evaluate(config, trainer, loaders[2], stages, shown, reranker),
        "checkpoint": str(model_file),
    }
    return _finish(config, trainer, result, stages)


def sweep_checkpoint(
    model_file: str | Path,
    grid: Sequence[str],
    x: str = "GiniIndex@10",
    y: str = "NDCG@10",
    subject_to: Sequence[str] = (),
    output: str | Path | None = None,
    config_dict: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Evaluate a steered model under many strengths on validation and test; users are encoded once a split.

    Args:
        model_file: checkpoint of a model with strengths that apply at scoring time.
        grid: ``key=start:stop:step`` or ``key=a,b,c``, one a strength.
        x: metric to choose by, among the settings that keep the bounds.
        y: the metric that it is traded against.
        subject_to: bounds on validation, such as ``NDCG@10 >= 0.9*base``.
        output: where the CSV of all settings and the JSON document go, without suffix.
        config_dict: settings to change, such as ``data_path``.

    Returns:
        ``base`` (metrics of the base model by split), ``settings`` (one row each), ``front`` (rows of the Pareto front
        of ``x`` and ``y`` on validation) and ``chosen`` (the row that wins on validation, or None).

    Raises:
        FairError: for a checkpoint without strengths, an empty grid or a metric that is not computed.
    """
    values = parse_grid(grid)
    changes = dict(config_dict or {})
    content = load_checkpoint(model_file)
    config = _config_of(content, changes, None)
    if not getattr(config.model_class, "strength_keys", ()):
        raise FairError(f"{model_file} is a {config['model']}, which has no strengths to sweep.")
    init_logger(config)
    net, *loaders = _load_model(config, content, model_file)
    trainer = get_trainer(config, config.model_class)(config, net)
    trainer.bind(*loaders)
    x, y = x.lower(), y.lower()
    settings = settings_of(values)
    base: dict[str, dict[str, float]] = {}
    found: dict[str, list[dict[str, float]]] = {}
    for split, loader in (("valid", loaders[1]), ("test", loaders[2])):
        with net.use_variant("base"):
            base[split] = dict(trainer.evaluate(loader, load_best_model=False))
        for name in (x, y):
            if name not in base[split]:
                raise FairError(f"{name} is not computed; there is {', '.join(base[split])}: set metrics and topk.")
        bounds = [constraint_of(text, base["valid"]) for text in subject_to]
        found[split] = sweep(trainer, loader, settings, lambda these: progress(these, len(these), "Sweep", True))
    table = sweep_table(settings, found["valid"], found["test"])
    rows = table.to_dict("records")
    on_x, on_y = ([values[name] for values in found["valid"]] for name in (x, y))
    front = pareto_front(on_x, on_y, smaller_is_better(x), smaller_is_better(y))
    winner = choose(found["valid"], x, bounds)
    result = {
        "model": config["model"],
        "dataset": config["dataset"],
        "checkpoint": str(model_file),
        "x": x,
        "y": y,
        "subject_to": [str(bound) for bound in bounds],
        "base": base,
        "settings": rows,
        "front": [rows[index] for index in front],
        "chosen": None if winner is None else rows[winner],
        "versions": versions(),
    }
    if output is not None:
        write_atomically(f"{output}.csv", lambda file: table.to_csv(file, index=False))
        write_result(f"{output}.json", result)
    for line in sweep_lines(result, list(values), int(config["metric_decimal_place"] or 4)):
        logger.info(line)
    return result


def objective_function(
    config_dict: Mapping[str, Any] | None = None,
    config_file_list: Sequence[str | Path] | None = None,
    saved: bool = True,
) -> dict[str, Any]:
    """Train with these settings for a hyper-parameter search, which has to choose by ``best_valid_score``.

    Returns:
        ``model``, ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result``, ``test_result``.
    """
    result = run_recbole_fair(config_dict=config_dict, config_file_list=config_file_list, saved=saved)
    keys = ("model", "best_valid_score", "valid_score_bigger", "best_valid_result", "test_result")
    return {key: result[key] for key in keys}


def _config_of(content: Mapping[str, Any], changes: Mapping[str, Any] | None, model: type[Any] | None) -> FairConfig:
    """The configuration that wrote a checkpoint, with some settings changed."""
    changes = dict(changes or {})
    for fixed in ("model", "dataset"):
        if changes.pop(fixed, content[fixed]) != content[fixed]:
            raise FairError(f"{fixed} cannot be changed: the checkpoint is of {fixed}={content[fixed]}.")
    stored = drop_old_settings(content["user_settings"], changes)
    settings = {**stored, **changes}
    for key in _FILE_KEYS:
        if key not in changes:
            settings.pop(key, None)
    settings.pop("resume", None)
    config = FairConfig(model or content["model"], content["dataset"], config_dict=settings)
    # Defaults may have moved since: the checkpoint's own stand, except what this call or this machine decides.
    for key, value in drop_old_settings(content["config"], changes).items():
        if key in config and key not in settings and key not in (*_OF_THE_MACHINE, *COMPUTED_KEYS):
            config[key] = value
    return config


def _check_changes(content: Mapping[str, Any], config: FairConfig, changes: Mapping[str, Any]) -> None:
    """Refuse changes that only a new training could follow.

    Raises:
        FairError: for the first of them.
    """
    free = _OF_EVALUATION | set(config.parameters["Dataset"]) | set(getattr(config.model_class, "strength_keys", ()))
    for key, (old, new) in differing_settings(content["config"], plain_config(config)).items():
        if key in changes and key not in free:
            raise FairError(
                f"{key}={new!r} cannot take effect: the checkpoint was trained with {old!r} and nothing is trained "
                "again; leave the key out, or train anew."
            )


def _evaluate(
    config: FairConfig, trainer: Any, test_data: Any, stages: _Stages, shown: bool, reranker: ReRanker | None
) -> dict[str, Any]:
    """Test the model, a post-hoc model in each of its variants; write the lists that the configuration asks for.

    With a re-ranker the final lists are the re-ranked ones of the final variant, and the model's own stand beside them.
    """
    found: dict[str, Any] = {"test_result": None}
    if test_data is None:
        return found
    with stages("evaluation"):
        if hasattr(trainer, "evaluate_variants"):
            results = trainer.evaluate_variants(test_data, shown)
            found["base_test_result"] = dict(results["base"].metrics)
            found["variants"] = {name: dict(result.metrics) for name, result in results.items()}
            final = results[trainer.final_variant]
            found["calibration_curves"] = {
                name: result.curves["calibration"] for name, result in results.items() if "calibration" in result.curves
            }
        elif reranker is None:
            final = trainer.evaluate_lists(test_data, shown)
    if reranker is not None:
        with stages("reranking"):
            base, final = evaluate_reranked(trainer, test_data, reranker, shown)
        name = config["reranker"]
        found.setdefault("base_test_result", dict(base.metrics))
        found.setdefault("variants", {"base": dict(base.metrics)})[name] = dict(final.metrics)
        found["reranker"] = {"reranker": name, CANDIDATES: config[CANDIDATES], **reranker.describe(max(config["topk"]))}
    found["test_result"] = dict(final.metrics)
    for key in ("intervals", "groups", "curves"):
        if getattr(final, key):
            found[key] = getattr(final, key)
    found["notes"] = [*trainer.notes, *final.notes, *getattr(trainer.model, "scoring_notes", list)()]
    writers = {
        "recommendations_file": write_recommendations,
        "per_user_file": write_per_user,
        "per_item_file": write_per_item,
    }
    for key, write in writers.items():
        if config[key]:
            write(config[key], final, test_data._dataset)
    return found


def _finish(config: FairConfig, trainer: Any, result: dict[str, Any], stages: _Stages) -> dict[str, Any]:
    popularity = trainer.eval_collector.popularity
    result |= {
        "config": config.differences(),
        "mask_seen": config["mask_seen"],
        "popularity": popularity.describe() if popularity is not None else None,
        **trainer.checkpoint_extra,
        "timings": {**stages.seconds, **getattr(trainer, "timings", {})},
        "versions": versions(),
    }
    if config["neurons_file"]:
        trainer.model.write_neurons(config["neurons_file"])
    if config["result_file"]:
        write_result(config["result_file"], result)
    for line in metrics_table(result, int(config["metric_decimal_place"] or 4)):
        logger.info(line)
    return result
