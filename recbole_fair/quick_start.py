"""Run a model from configuration to result, load it again, evaluate it again: RecBole's entry points under our name."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from recbole.utils import EvaluatorType

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.layers import files_of, find_config_file
from recbole_fair.config.mask import Mask
from recbole_fair.config.traits import Traits
from recbole_fair.data.contract import EvaluationLoader
from recbole_fair.errors import FairError
from recbole_fair.evaluator import EvaluationResult
from recbole_fair.evaluator.csv_files import write_per_item, write_per_user
from recbole_fair.io.atomic import check_places
from recbole_fair.io.bars import bars_shown
from recbole_fair.io.checkpoint import load_checkpoint, plain_config
from recbole_fair.io.imported import open_checkpoint
from recbole_fair.io.latest import named_checkpoint
from recbole_fair.io.processes import current
from recbole_fair.io.timing import Stages
from recbole_fair.model.variants import Variants
from recbole_fair.report.documents import EvaluationDocument, RunDocument, write_document
from recbole_fair.report.group_tables import group_lines
from recbole_fair.report.summary import metrics_table
from recbole_fair.report.tables import intervention_tables
from recbole_fair.rerank.base import ReRanker
from recbole_fair.rerank.settings import CANDIDATES, make_reranker
from recbole_fair.runs.alone import alone, together
from recbole_fair.runs.closing import closing_lines
from recbole_fair.runs.journal import digest_of, settings_of_numbers
from recbole_fair.runs.loading import (
    FILE_KEYS,
    check_changes,
    config_of,
    config_on_base,
    load_model,
    load_trainer,
    new_trainer,
)
from recbole_fair.runs.logs import begin_log, log_details, show_table
from recbole_fair.runs.outputs import files_read, versions, write_each, write_recommendations
from recbole_fair.runs.reranking import check_reranker, evaluate_reranked
from recbole_fair.runs.trackers import track_result
from recbole_fair.runs.written import lists_to_write, notes_on_seen
from recbole_fair.trainer.posthoc_trainer import differing_settings
from recbole_fair.trainer.trainer import FairTrainerMixin

__all__ = [
    "Recommender",
    "audit",
    "compare",
    "compare_datasets",
    "evaluate_checkpoint",
    "explain_checkpoint",
    "export_checkpoint",
    "frontier_checkpoint",
    "frontier_datasets",
    "import_checkpoint",
    "load_data_and_model",
    "objective_function",
    "run_recbole_fair",
    "save_served",
    "sweep_checkpoint",
    "trained_checkpoints",
    "tune",
    "verify",
]

if TYPE_CHECKING:
    from recbole_fair.runs.audit import audit
    from recbole_fair.runs.compare import compare
    from recbole_fair.runs.explain import explain_checkpoint
    from recbole_fair.runs.exporting import export_checkpoint
    from recbole_fair.runs.frontier import frontier_checkpoint
    from recbole_fair.runs.importing import import_checkpoint
    from recbole_fair.runs.recommender import Recommender
    from recbole_fair.runs.served import save_served
    from recbole_fair.runs.several import compare_datasets, frontier_datasets
    from recbole_fair.runs.sweep import sweep_checkpoint
    from recbole_fair.runs.trained import trained_checkpoints
    from recbole_fair.runs.tune import tune
    from recbole_fair.runs.verify import verify

logger = logging.getLogger(__name__)

# Studies draw figures: a run does not wait for what only they need.
_STUDIES = {
    "audit": "recbole_fair.runs.audit",
    "compare": "recbole_fair.runs.compare",
    "explain_checkpoint": "recbole_fair.runs.explain",
    "export_checkpoint": "recbole_fair.runs.exporting",
    "import_checkpoint": "recbole_fair.runs.importing",
    "Recommender": "recbole_fair.runs.recommender",
    "save_served": "recbole_fair.runs.served",
    "frontier_checkpoint": "recbole_fair.runs.frontier",
    "compare_datasets": "recbole_fair.runs.several",
    "frontier_datasets": "recbole_fair.runs.several",
    "sweep_checkpoint": "recbole_fair.runs.sweep",
    "trained_checkpoints": "recbole_fair.runs.trained",
    "tune": "recbole_fair.runs.tune",
    "verify": "recbole_fair.runs.verify",
}


def __getattr__(name: str) -> Any:
    """The functions of studies, imported when first asked for."""
    if name not in _STUDIES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_STUDIES[name]), name)


@alone
def run_recbole_fair(
    model: str | type[Any] | None = None,
    dataset: str | None = None,
    config_file_list: str | Path | Sequence[str | Path] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    saved: bool = True,
) -> RunDocument:
    """Train a model, evaluate it on test and write the files that the configuration asks for.

    Args:
        model: a model's name (ours, then RecBole's) or class.
        dataset: the data set's name.
        config_file_list: yaml files, or one of them; later ones win.
        config_dict: settings; they win over the files.
        saved: whether to write a checkpoint into ``checkpoint_dir``.

    Returns:
        The result document, a mapping: RecBole's ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result``
        and ``test_result``; for post-hoc models ``base_test_result`` and ``variants``; ``model``, ``dataset``,
        ``seed``, ``config`` (what differs from the defaults), ``mask_seen``, ``popularity``, ``timings``,
        ``versions``, ``checkpoint``; ``failed_files`` if a file that was asked for could not be written.

    Raises:
        FairError: for anything that the user can mend.
    """
    stages = Stages()
    config = config_on_base(model, dataset, config_file_list, config_dict)
    together(config)
    _check_files(config, *map(find_config_file, files_of(config_file_list)))
    reranker = make_reranker(config)
    begin_log(config)
    log_details(config)
    with stages("data", f"data {config['dataset']}"):
        trainer, (train_data, valid_data, test_data) = new_trainer(config)
        own_titles = trainer.stage_titles(bool(valid_data))
        stages.total = 1 + max(len(own_titles), 1) + (test_data is not None) * _test_stages(trainer, reranker)
        trainer.clock = stages
    log_details(trainer.model)
    if reranker is not None:
        check_reranker(trainer, reranker)
    if config["resume"]:
        trainer.resume_checkpoint(config["resume"])
        _warn_of_other_settings(config, trainer)
    shown = bars_shown(bool(config["show_progress"]))
    with stages("training", None if own_titles else f"training {config['model']}"):
        best_score, best_result = trainer.fit(train_data, valid_data, saved=saved, show_progress=shown)
    trainer.load_best()
    if "intervention" in trainer.checkpoint_extra:
        report, validation = (trainer.checkpoint_extra[key] for key in ("intervention", "validation"))
        log_details(*intervention_tables(report, validation, config["valid_metric"]))
    entries, final, written = _evaluate(config, trainer, test_data, stages, shown, reranker)
    result = RunDocument(
        best_valid_score=best_score,
        valid_score_bigger=config["valid_metric_bigger"],
        best_valid_result=best_result,
        seed=config["seed"],
        checkpoint=str(trainer.saved_model_file) if saved else None,
        key=digest_of([trainer.fingerprint, settings_of_numbers(plain_config(config))]),
        **_described(config, trainer, stages),
        **entries,
    )
    return _finish(config, trainer, result, final, written, test_data, trained=True)


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
    model_file = named_checkpoint(model_file, config_dict)
    content = open_checkpoint(model_file)
    config = config_of(content, config_dict, model)
    net, *loaders = load_model(config, content, model_file)
    return config, net, loaders[0]._dataset, *loaders


def _check_files(config: FairConfig, *inputs: str | Path) -> None:
    """Find out before training whether the files asked for can be written, and that nothing is lost there.

    Args:
        config: the configuration.
        inputs: files that are read besides those that it names.

    Raises:
        FairError: naming the key and the path.
    """
    check_places({key: config[key] for key in FILE_KEYS if config[key]}, files_read(config, *inputs))
    try:
        Path(config["checkpoint_dir"]).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FairError(
            f"checkpoint_dir={config['checkpoint_dir']} cannot be made: {error.strerror or error}."
        ) from error
    of_lists = [key for key in ("recommendations_file", "per_user_file", "per_item_file") if config[key]]
    if of_lists and config["eval_type"] != EvaluatorType.RANKING:
        raise FairError(
            f"{of_lists[0]}={config[of_lists[0]]} is of lists; metrics={config['metrics']} rate single rows."
        )
    if config["neurons_file"] and not Traits.of(config.model_class).writes_neurons:
        raise FairError(f"neurons_file={config['neurons_file']}: {config['model']} has no neurons to write.")


def _warn_of_other_settings(config: FairConfig, trainer: FairTrainerMixin) -> None:
    """Say which settings of training differ from those of the run that is gone on with."""
    own = trainer.trained_config()
    different = differing_settings(load_checkpoint(config["resume"])["config"], plain_config(own), own.model_class)
    if different:
        logger.warning(
            "resume=%s was trained with other settings: %s. The optimizer goes on with the rates of the checkpoint.",
            config["resume"],
            ", ".join(f"{key}={old!r} (now {new!r})" for key, (old, new) in different.items()),
        )


@alone
def evaluate_checkpoint(
    model_file: str | Path, config_dict: Mapping[str, Any] | None = None, model: type[Any] | None = None
) -> EvaluationDocument:
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
    stages = Stages()
    model_file = named_checkpoint(model_file, config_dict)
    content = open_checkpoint(model_file)
    config = config_of(content, config_dict, model)
    check_changes(content, config, config_dict or {})
    together(config)
    _check_files(config, model_file)
    reranker = make_reranker(config)
    begin_log(config)
    with stages("data", f"data {config['dataset']}"):
        trainer, loaders = load_trainer(config, content, model_file)
        stages.total = 1 + _test_stages(trainer, reranker)
    if reranker is not None:
        check_reranker(trainer, reranker)
    shown = bars_shown(bool(config["show_progress"]))
    entries, final, written = _evaluate(config, trainer, loaders[2], stages, shown, reranker)
    result = EvaluationDocument(
        seed=content["config"]["seed"],  # of the training; another one is among the changed settings
        checkpoint=str(model_file),
        key=digest_of([str(model_file), content["fingerprint"], settings_of_numbers(plain_config(config))]),
        **_described(config, trainer, stages),
        **entries,
    )
    return _finish(config, trainer, result, final, written, loaders[2])


def objective_function(
    config_dict: Mapping[str, Any] | None = None,
    config_file_list: str | Path | Sequence[str | Path] | None = None,
    saved: bool = True,
) -> dict[str, Any]:
    """Train with these settings for a hyper-parameter search, which has to choose by ``best_valid_score``.

    Returns:
        ``model``, ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result``, ``test_result``.
    """
    result = run_recbole_fair(config_dict=config_dict, config_file_list=config_file_list, saved=saved)
    keys = ("model", "best_valid_score", "valid_score_bigger", "best_valid_result", "test_result")
    return {key: result[key] for key in keys}


def _test_stages(trainer: FairTrainerMixin, reranker: ReRanker | None) -> int:
    """In how many stages a model is tested: a re-ranker evaluates the lists that it orders in the same pass."""
    return 1 + (reranker is not None and len(trainer.contract.variants) > 1)


def _evaluate(
    config: FairConfig,
    trainer: FairTrainerMixin,
    test_data: EvaluationLoader | None,
    stages: Stages,
    shown: bool,
    reranker: ReRanker | None,
) -> tuple[dict[str, Any], EvaluationResult | None, EvaluationResult | None]:
    """Test the model, a post-hoc model in each of its variants.

    With a re-ranker the final lists are the re-ranked ones of the final variant, and the model's own stand beside them.

    Returns:
        Entries of the result document, the evaluation of what the run is about, and the one whose lists are written;
        None without test data.
    """
    entries: dict[str, Any] = {"test_result": None}
    if test_data is None:
        no_test = "eval_args leave no test part: nothing was tested, and no lists are written."
        return entries | {"notes": [*trainer.notes, no_test]}, None, None
    model = trainer.contract
    has_variants = model.variants != Variants.variants
    apart = _test_stages(trainer, reranker) > 1 or reranker is None
    with stages("evaluation", "evaluation on test" if apart else None):
        names = [name for name in model.variants if reranker is None or name != model.final_variant]
        results = trainer.evaluate_variants(test_data, shown, names)
    if reranker is not None:
        with stages("reranking", f"re-ranking with {config['reranker']}"):
            results[model.final_variant], reranked = evaluate_reranked(trainer, test_data, reranker, shown)
    results = {name: results[name] for name in model.variants}
    final = results[model.final_variant]
    if final.groups and has_variants:
        entries["variant_groups"] = {name: result.groups for name, result in results.items()}
    if reranker is not None:
        name, final = config["reranker"], reranked
        results[name] = final
        described = reranker.describe(max(config["topk"]))
        entries["reranker"] = {"reranker": name, CANDIDATES: config[CANDIDATES], **described}
    several = has_variants or reranker is not None
    if several:
        entries["base_test_result"] = dict(results[model.base_variant].metrics)
        entries["variants"] = {name: dict(result.metrics) for name, result in results.items()}
    for kind in ("calibration", "lorenz", "exposure") if several else ():
        curves = {name: result.curves[kind] for name, result in results.items() if kind in result.curves}
        entries[f"{kind}_curves"] = curves or None
    entries |= {
        "test_result": dict(final.metrics),
        "n_users": final.n_users,
        "intervals": final.intervals or None,
        "groups": final.groups or None,
        "curves": final.curves or None,
        "notes": [
            *trainer.notes,
            *final.notes,
            *model.scoring_notes(),
            *notes_on_seen(config, trainer, reranker, final),
        ],
    }
    return entries, final, lists_to_write(trainer, test_data, reranker, final, shown)


def _described(config: FairConfig, trainer: FairTrainerMixin, stages: Stages) -> dict[str, Any]:
    """Entries of the result document on how the numbers were made."""
    popularity = trainer.eval_collector.popularity
    return {
        "model": config["model"],
        "dataset": config["dataset"],
        "config": config.differences(),
        "mask_seen": Mask.of(config).recorded,
        "popularity": popularity.describe() if popularity is not None else None,
        "timings": {**stages.seconds, **trainer.timings},
        "versions": versions(),
        "extra": trainer.checkpoint_extra,
    }


AnyResult = TypeVar("AnyResult", bound=EvaluationDocument)


def _finish(
    config: FairConfig,
    trainer: FairTrainerMixin,
    result: AnyResult,
    final: EvaluationResult | None,
    written: EvaluationResult | None,
    test_data: EvaluationLoader | None,
    trained: bool = False,
) -> AnyResult:
    """Write what was asked for, the result first: what fails then is a warning, not the loss of what came before."""
    if not current().writes:
        return result
    files: dict[str, Callable[[], None]] = {"result_file": lambda: write_document(config["result_file"], result)}
    if final is not None and written is not None and test_data is not None:
        dataset = test_data._dataset
        files |= {
            "recommendations_file": lambda: write_recommendations(config["recommendations_file"], written, dataset),
            "per_user_file": lambda: write_per_user(config["per_user_file"], final, dataset),
            "per_item_file": lambda: write_per_item(config["per_item_file"], final, dataset),
        }
    files["neurons_file"] = lambda: trainer.model.write_neurons(config["neurons_file"])
    failed = write_each({f"{key}={config[key]}": write for key, write in files.items() if config[key]})
    track_result(config, result, trainer.tensorboard)
    decimals = int(config["metric_decimal_place"] or 4)
    show_table([*metrics_table(result, decimals), *group_lines(result, decimals)])
    result = replace(result, failed_files=failed) if failed else result
    for line in closing_lines(config, result, trained):
        logger.info("%s", line)
    return result
