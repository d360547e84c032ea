"""``tune``: search for settings on validation, look at test once, write what was found."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd
import yaml

from recbole_fair.analysis.grid import setting_text
from recbole_fair.config.catalogue import RERANKER_PREFIX, keys_of, scope_of
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.registry import get_reranker, layers_of
from recbole_fair.errors import FairError
from recbole_fair.evaluator.csv_files import write_table
from recbole_fair.evaluator.directions import display_name
from recbole_fair.io.atomic import atomic_file
from recbole_fair.io.checkpoint import load_checkpoint, plain_config
from recbole_fair.io.locks import locked
from recbole_fair.io.processes import current
from recbole_fair.report.documents import write_document
from recbole_fair.report.style import save_figure
from recbole_fair.report.tuning import history_figure, tuning_lines
from recbole_fair.report.tuning_document import TuningDocument
from recbole_fair.runs.journal import digest_of, settings_of_numbers
from recbole_fair.runs.loading import FILE_KEYS, both_splits, config_of, load_trainer, new_trainer, refuse
from recbole_fair.runs.logs import begin_together, show_table
from recbole_fair.runs.outputs import claim, numbered, versions
from recbole_fair.runs.search import (
    PRUNERS,
    SAMPLERS,
    Measured,
    Objective,
    Report,
    Search,
    Trial,
    make_pruner,
    open_study,
    run_search,
)
from recbole_fair.runs.shares import at_work
from recbole_fair.runs.spaces import Space, check_space, read_space, shipped_space
from recbole_fair.runs.sweep import bounds_as_rows, with_metrics
from recbole_fair.runs.sweeper import Sweeper
from recbole_fair.runs.takeup import file_of_finished, take_choice
from recbole_fair.runs.trackers import Trackers, tracked, writer_in
from recbole_fair.trainer.posthoc_trainer import checkpoints_alike, finished
from recbole_fair.trainer.trainer import FairTrainerMixin

logger = logging.getLogger(__name__)

_CHECKPOINT = "checkpoint"
Make = Callable[[Mapping[str, Any]], FairConfig]


def tune(
    model: str | None = None,
    dataset: str | None = None,
    space: str | Path | Space | None = None,
    trials: int = 50,
    minimize: Sequence[str] = (),
    maximize: Sequence[str] = (),
    subject_to: Sequence[str] = (),
    sampler: str = "tpe",
    pruner: str = "median",
    warmup: int = 5,
    storage: str | None = None,
    output: str | Path | None = None,
    config_file_list: str | Path | Sequence[str | Path] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    checkpoints: str | Path | None = None,
    test: bool = True,
) -> TuningDocument:
    """Search for the best settings of a model on validation.

    Scoring-time keys are searched on one trained model, whose users are encoded once. Others train: a post-hoc method
    is fitted again on the base that an earlier trial left, any other model is trained anew. The defaults come first.

    Args:
        model: the model's name.
        dataset: the data set's name.
        space: the space, or its file, yaml or RecBole's ``.hyper``; the one that comes with the model if None.
        trials: how many trials the search has in the end, those of earlier calls and other processes among them.
        minimize: metrics to make small, such as ``GiniIndex@10``.
        maximize: metrics to make large. Without either: ``valid_metric``. Several objectives give a Pareto front.
        subject_to: bounds on validation, as ``NDCG@10 >= 0.95*base``: the plain model, else the first trial.
        sampler: ``tpe``, ``gp``, ``nsga2`` or ``random``.
        pruner: ``median``, ``hyperband`` or ``none``; acts where the validation score is the one objective.
        warmup: epochs before which no training is ended.
        storage: file of Optuna's journal, or url of a database, to be shared; ``OUTPUT/journal.log`` if None.
        output: folder of what is written; ``results/tune-MODEL-DATASET`` or ``results/tune-MODEL-RERANKER-DATASET``.
        config_file_list: yaml files, or one of them; later ones win.
        config_dict: settings of all trials.
        checkpoints: folder of the models that trials train; ``OUTPUT/checkpoints`` if None.
        test: whether to evaluate what was chosen on test, once.

    Returns:
        Trials, the chosen ones with test metrics, importance of keys. Also written: ``tune.json``, ``trials.csv``,
        ``chosen.yaml`` (for ``run -c``), ``history.png`` and ``.svg``.

    Raises:
        FairError: for a space, a setting or a metric that is not allowed, or when no trial has a result.
    """
    _check(sampler, pruner, trials)
    refuse(given := dict(config_dict or {}), FILE_KEYS, "is for run and evaluate; a search writes files of its own")
    config = FairConfig(model, dataset, config_file_list, given)
    objective = Objective.of(minimize, maximize, subject_to, config["valid_metric"])
    given = with_metrics(plain_config(config), given, objective.wanted)
    dimensions = _space(space, config, given)
    folder = Path(output) if output is not None else _usual_folder(config)

    def make(settings: Mapping[str, Any]) -> FairConfig:
        changes = {**given, **settings, "checkpoint_dir": str(checkpoints or folder / "checkpoints")}
        return FairConfig(model, dataset, config_file_list, changes)

    folder.mkdir(parents=True, exist_ok=True)
    begin_together(config := make({}))
    prunes = pruner != "none" and objective.metrics == (config["valid_metric"].lower(),)
    ends = make_pruner(pruner if prunes else "none", int(config["epochs"]), warmup)
    name = _study_name(config, objective, dimensions)
    place = storage or str(folder / "journal.log")
    with current().first_before_others():
        search = Search(objective, dimensions, open_study(place, name, objective, ends))
        search.start_with({key: config[key] for key in dimensions})
    resumed = len(search.trials)
    with _trackers(config, folder) as trackers, _trials(config, make, search) as measured:
        settings = {"sampler": sampler, "seed": int(config["seed"] or 0), "prunes": prunes and not measured.cached}
        _run_shared(search, measured, trials, trackers, **settings)
    chosen = _chosen(search)
    result = _document(config, search, chosen, [measured.test(trial) if test else {} for trial in chosen], resumed)
    file = _write(result, folder, {**_user_settings(config), **chosen[0].settings})
    show_table(tuning_lines(result, int(config["metric_decimal_place"] or 4)))
    if test:
        _tell_next(config, file, chosen)
    return result


def _run_shared(search: Search, measured: _Scored | _Trained, trials: int, trackers: Trackers, **settings: Any) -> None:
    """Run trials until so many have ended, shared out among the processes, of which each is then alone.

    Where the bounds speak of a base that the first trial finds, the first process finds it before the others begin.
    """
    teller = _Teller(search, trackers)
    settings = {**settings, "told": teller.tell}
    needs_base = not measured.cached and any("base" in text for text in search.objective.bounds)
    with at_work() as team:
        number = 1
        while team.several and team.writes and needs_base and not search.base and number <= trials:
            run_search(search, measured, number, **settings)
            number += 1
    with at_work():
        run_search(search, measured, trials, **settings)
    teller.tell()


def _usual_folder(config: FairConfig) -> Path:
    named = ("tune", config["model"], config["reranker"], config["dataset"])
    return Path("results", "-".join(str(part) for part in named if part))


def _study_name(config: FairConfig, objective: Objective, space: Space) -> str:
    """The name under which a storage keeps the trials: another one where their numbers could differ."""
    settings = settings_of_numbers(plain_config(config))
    depends_on = [settings, repr(space), objective.metrics, objective.bounds, versions()]
    return f"{config['model']}-{config['dataset']}-{digest_of(depends_on)[:12]}"


def _check(sampler: str, pruner: str, trials: int) -> None:
    _check_choice("sampler", sampler, SAMPLERS)
    _check_choice("pruner", pruner, PRUNERS)
    if isinstance(trials, bool) or not isinstance(trials, int) or not 1 <= trials <= 1_000_000:
        raise FairError(f"trials={trials!r} is not allowed: it must be a whole number from 1 to 1000000.")


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise FairError(f"{name}={value!r} is not allowed: it must be one of {', '.join(choices)}.")


def space_names(config: FairConfig) -> list[str]:
    """Names of the spaces that would do, the nearest first: of the re-ranker, or of the model and its kinds."""
    if config["reranker"]:
        return [config["reranker"]]
    return [Path(layer).stem for layer in reversed(layers_of(config.model_class, config["model"]))]


def _space(path: str | Path | Space | None, config: FairConfig, given: Mapping[str, Any]) -> Space:
    """The space of a search, checked against the model's keys."""
    names = space_names(config)
    file = path if path is not None else shipped_space(names)
    if file is None:
        raise FairError(f"{names[0]} comes with no search space: give one by --space=space.yaml.")
    reranker = get_reranker(config["reranker"]) if config["reranker"] else None
    keys = {} if reranker is None else {name: reranker.limits.get(field) for field, name in reranker.keys().items()}
    space = dict(file) if isinstance(file, dict) else read_space(file)
    check_space(space, config.model_class, list(config.final_config_dict), {k: v for k, v in keys.items() if v})
    for key in space:
        if key in given:
            raise FairError(f"{key}={given[key]!r} has no effect: its values are those of the space.")
    return space


# -- how trials are measured -------------------------------------------------------------------------------------


class _Scored:
    """Trials of scoring-time keys: the model is there once, users are encoded once."""

    cached = True

    def __init__(self, trainer: FairTrainerMixin, loaders: Mapping[str, Any], config: FairConfig, file: str) -> None:
        self._trainer, self._loaders, self._config, self._file = trainer, loaders, config, file
        self._sweeper = self._on("valid")
        self.base: Mapping[str, float] | None = None

    def _on(self, split: str) -> Sweeper:
        return Sweeper(self._trainer, {split: self._loaders[split]}, self._config["reranker"])

    def __enter__(self) -> _Scored:
        """Begin to remember what the trials share."""
        self._sweeper.__enter__()
        self.base = self._sweeper.base()["valid"]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Forget it."""
        self._sweeper.__exit__(kind, error, at)

    def measure(self, settings: Mapping[str, Any], report: Report | None) -> Measured:
        """Metrics on validation under some settings."""
        self._sweeper.check([dict(settings)])
        return self._sweeper.measure(dict(settings))["valid"], self._file

    def test(self, trial: Trial) -> dict[str, float]:
        """Metrics on test under a trial's settings."""
        with self._on("test") as sweeper:
            return sweeper.measure(trial.settings)["test"]


class _Trained:
    """Trials that train: a model anew, or an intervention on a base that is found where an earlier trial left it."""

    cached = False

    def __init__(self, make: Make) -> None:
        self._make = make
        self.base: Mapping[str, float] | None = None

    def measure(self, settings: Mapping[str, Any], report: Report | None) -> Measured:
        """Train, and give the metrics on validation of what is kept."""
        trainer, (train, valid, _) = new_trainer(self._make(settings))
        if valid is None:
            raise FairError("eval_args leave no validation part; a search chooses on validation.")
        with self._base_trained_once(trainer):
            trainer.fit(train, valid, verbose=False, saved=True, show_progress=False, callback_fn=report)
        trainer.load_best()
        results = trainer.evaluate_variants(valid)
        if self.base is None:
            self.base = dict(results[trainer.contract.base_variant].metrics)
        return dict(results[trainer.final_variant].metrics), str(trainer.saved_model_file)

    @contextmanager
    def _base_trained_once(self, trainer: FairTrainerMixin) -> Iterator[None]:
        """Inside the block no other process trains the base that this trial has to train; it then finds it."""
        own, folder = trainer.trained_config(), Path(trainer.config["checkpoint_dir"])
        known = trainer.config["base_model_file"] if own is not trainer.config else own
        if known is None:
            alike = checkpoints_alike(folder, own, trainer.fingerprint)
            known = next((path for path, content in alike if finished(content)), None)
        if known is not None:
            yield
            return
        name = f".lock-{digest_of(settings_of_numbers(plain_config(own)))[:12]}"
        with locked(folder / name, f"the base {own['model']}"):
            yield

    def test(self, trial: Trial) -> dict[str, float]:
        """Metrics on test of the model that a trial left."""
        assert trial.checkpoint is not None
        content = load_checkpoint(trial.checkpoint)
        config = config_of(content, {"data_path": self._make({}).to_plain()["data_path"]})
        trainer, loaders = load_trainer(config, content, trial.checkpoint)
        if loaders[2] is None:
            return {}
        final = trainer.final_variant
        return dict(trainer.evaluate_variants(loaders[2], names=[final])[final].metrics)


@contextmanager
def _trials(config: FairConfig, make: Make, search: Search) -> Iterator[_Scored | _Trained]:
    """What measures a space: by scoring one model where all keys apply then, else by training."""
    scored = keys_of("strength", "evaluation")
    of_scoring = [
        key
        for key in search.space
        if key.startswith(RERANKER_PREFIX) or key in scored or scope_of(key, config.model_class) == "strength"
    ]
    if len(of_scoring) < len(search.space):
        lists = [key for key in search.space if key.startswith(RERANKER_PREFIX)]
        if lists:
            raise FairError(f"space: {lists[0]} is searched on a trained model; search keys of training on their own.")
        yield _Trained(make)
        return
    with _Scored(*_trained_once(config, search)) as made:
        yield made


def _trained_once(config: FairConfig, search: Search) -> tuple[FairTrainerMixin, dict[str, Any], FairConfig, str]:
    """The model whose scores are searched: the one that an earlier call of the search left, or a new one."""
    file = current().of_first(search.study.user_attrs.get(_CHECKPOINT))
    loaders: Sequence[Any]
    # Where strengths are searched the others keep their settings; a re-ranker takes the strengths that a run chooses.
    of_model = not all(key.startswith(RERANKER_PREFIX) for key in search.space)
    if of_model and "strengths" in config:
        config["strengths"] = "fixed"
    if file is not None and Path(file).is_file():
        content = load_checkpoint(file)
        trainer, loaders = _as_it_was(config, content, file, of_model)
    else:
        trainer, loaders = new_trainer(config)
        if (file := file_of_finished(trainer, config, any_strengths=of_model)) is not None:
            trainer, loaders = _as_it_was(config, load_checkpoint(file), file, of_model)
        else:
            trainer.fit(loaders[0], loaders[1], saved=True)
            trainer.load_best()
            file = str(trainer.saved_model_file)
        if current().writes:
            search.study.set_user_attr(_CHECKPOINT, file)
    return trainer, both_splits(loaders, "A search"), config, file


def _as_it_was(
    config: FairConfig, content: Mapping[str, Any], file: str, of_model: bool
) -> tuple[FairTrainerMixin, Sequence[Any]]:
    """A trained model as it was after its training, with the strengths that were chosen unless these are searched."""
    if not of_model:
        take_choice(config, content)
    return load_trainer(config, content, file)


# -- what is told and written ------------------------------------------------------------------------------------


def _trackers(config: FairConfig, folder: Path) -> AbstractContextManager[Trackers]:
    """The trackers of a search; those of the first process, which tells them of all trials."""
    if not current().writes:
        return nullcontext(Trackers({}))
    return tracked(config, "tune-", writer_in(folder / "tensorboard"))


class _Teller:
    """Tells the log and the trackers of each trial that has ended, whichever process has run it; the first one does."""

    def __init__(self, search: Search, trackers: Trackers) -> None:
        self._search, self._trackers = search, trackers
        self._known = {trial.number for trial in search.trials}
        self._writes, self._several = current().writes, current().several

    def tell(self, ended: Trial | None = None) -> None:
        """Tell what is new; a process that is alone tells its own trials."""
        new = [] if ended is None else [ended]
        if self._several:
            new = [one for one in self._search.trials if self._writes and one.number not in self._known]
        for trial in new:
            self._known.add(trial.number)
            _told(self._trackers, self._search.objective.wanted, trial)


def _told(trackers: Trackers, wanted: Sequence[str], trial: Trial) -> None:
    """One line a trial: how it ended, its values on validation, what it tried."""
    ending = f"{trial.state}{f': {trial.reason}' if trial.reason else ''}"
    if trial.metrics is not None:
        ending = ", ".join(f"{display_name(name)} {trial.metrics[name]:.4f}" for name in wanted)
        ending += ", misses its bounds" if trial.violation else ""
        trackers.trial(trial.number, trial.settings, trial.metrics)
    logger.info("Trial %d: %s (%s)", trial.number, ending, setting_text(trial.settings))


def _tell_next(config: FairConfig, file: Path, chosen: Sequence[Trial]) -> None:
    """The command that takes what was chosen, alone on its line, ready to be pasted."""
    data = config.user_settings.get("data_path")
    words = ["recbole-fair", "run", "-c", str(file), *([f"--data_path={data}"] if data else [])]
    first = f"trial {chosen[0].number}, the first of the front; write another one's values into the file for that one"
    logger.info("Run with %s:", "what was chosen" if len(chosen) == 1 else first)
    logger.info("  %s", shlex.join(words))


def _user_settings(config: FairConfig) -> dict[str, Any]:
    """What the user set, under which the chosen settings were found."""
    left_out = {"checkpoint_dir", "data_path", "show_progress", "state"}
    named = {"model": config["model"], "dataset": config["dataset"]}
    return named | {key: value for key, value in config.user_settings.items() if key not in left_out}


def _importance(search: Search) -> dict[str, float]:
    """How much each key accounts for the first objective (Optuna's fANOVA); empty where it cannot be said."""
    import optuna

    complete = [trial for trial in search.trials if trial.state == "complete"]
    if len(complete) < 4 or len(search.space) < 2:
        return {}
    try:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = optuna.importance.get_param_importances(
            search.study, evaluator=evaluator, target=lambda trial: trial.values[0]
        )
    except (ValueError, RuntimeError) as error:  # all trials alike
        logger.debug("No importance: %s", error)
        return {}
    return {key: float(value) for key, value in found.items()}


def _chosen(search: Search) -> list[Trial]:
    chosen = search.best()
    if not chosen:
        reasons = [trial.reason for trial in search.trials if trial.reason]
        raise FairError(f"No trial has a result{': ' + reasons[0] if reasons else ''}")
    return chosen


def _document(
    config: FairConfig, search: Search, chosen: Sequence[Trial], tested: Sequence[Mapping[str, float]], resumed: int
) -> TuningDocument:
    notes = []
    if chosen[0].violation:
        notes.append("No trial keeps the bounds: those that miss them least are shown.")
    rows = [_row(trial) for trial in search.trials]
    return TuningDocument(
        model=config["model"],
        reranker=config["reranker"],
        dataset=config["dataset"],
        seed=config["seed"],
        objectives=[
            {"metric": name, "bigger": bigger}
            for name, bigger in zip(search.objective.metrics, search.objective.bigger, strict=True)
        ],
        subject_to=bounds_as_rows(search.objective.bounds, search.bounds),
        space={key: repr(dimension) for key, dimension in search.space.items()},
        base={"valid": dict(search.base)},
        trials=rows,
        chosen=[
            {**_row(trial), **{f"test {name}": value for name, value in test.items()}}
            for trial, test in zip(chosen, tested, strict=True)
        ],
        importance=_importance(search),
        resumed=resumed,
        key=digest_of(search.study.study_name),
        config=config.differences(),
        notes=notes,
        versions=versions(),
    )


def _row(trial: Trial) -> dict[str, Any]:
    metrics = {f"valid {name}": value for name, value in (trial.metrics or {}).items()}
    kept = None if trial.metrics is None else trial.violation == 0
    about = {"trial": trial.number, "state": trial.state, "reason": trial.reason, "keeps bounds": kept}
    return {**about, **trial.settings, **metrics}


def _write(result: TuningDocument, folder: Path, settings: Mapping[str, Any]) -> Path:
    """Write document, table, settings and figure under names that no other search has; the file of the settings."""
    files = numbered(folder, ("tune.json", "trials.csv", "chosen.yaml", "history.png", "history.svg"))
    if not current().writes:
        return files(1)[2]
    document, table, chosen, picture, _ = files(claim(files, str(result.key)))
    write_document(document, result)
    write_table(pd.DataFrame(list(result.trials)), table)
    with atomic_file(chosen, mode="w", encoding="utf-8") as file:
        file.write("# Found on validation; run -c takes this file.\n")
        yaml.safe_dump(dict(settings), file, sort_keys=False)
    save_figure(history_figure(result), str(picture.with_suffix("")))
    names = (document, table, chosen, picture)
    logger.info("Written: %s, .svg in %s", ", ".join(path.name for path in names), folder)
    return chosen
