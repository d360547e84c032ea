"""Search for settings on validation with Optuna: resumable, by several processes, test looked at once at the end."""

from __future__ import annotations

import logging
import math
import os
import socket
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from recbole_fair.analysis.pareto import bound_metric, constraint_of
from recbole_fair.errors import FairError
from recbole_fair.evaluator.constraint import Constraint
from recbole_fair.evaluator.directions import smaller_is_better
from recbole_fair.runs.spaces import Space

if TYPE_CHECKING:
    import optuna
    from optuna import Study

logger = logging.getLogger(__name__)

SAMPLERS = ("tpe", "gp", "nsga2", "random")
PRUNERS = ("median", "hyperband", "none")
# What a trial remembers in Optuna's storage.
_PROCESS, _SETTINGS, _METRICS, _REASON, _CHECKPOINT = "process", "settings", "metrics", "reason", "checkpoint"
_INTERRUPTED = "interrupted"
_BASE = "base"
_AT_WORK = "at work: "


@dataclass(frozen=True)
class Objective:
    """What a search is for.

    Attributes:
        metrics: ``name@k`` of each objective, in lower case.
        bigger: whether more is better, by objective.
        bounds: bounds on validation, as they were written.
    """

    metrics: tuple[str, ...]
    bigger: tuple[bool, ...]
    bounds: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, minimize: Sequence[str], maximize: Sequence[str], subject_to: Sequence[str], valid_metric: str
    ) -> Objective:
        """The objective that a call asks for; ``valid_metric`` where it names none.

        Raises:
            FairError: for a metric that is given twice, or the other way round than it is good.
        """
        given = [*((name.lower(), False) for name in minimize), *((name.lower(), True) for name in maximize)]
        if not given:
            given = [(valid_metric.lower(), not smaller_is_better(valid_metric))]
        names = [name for name, _ in given]
        if len(set(names)) < len(names):
            raise FairError(f"The objectives {', '.join(names)} name a metric twice.")
        return cls(tuple(names), tuple(bigger for _, bigger in given), tuple(subject_to))

    @property
    def wanted(self) -> tuple[str, ...]:
        """All metrics that trials have to report."""
        return tuple(dict.fromkeys([*self.metrics, *(bound_metric(text) for text in self.bounds)]))


@dataclass
class Trial:
    """One trial that has ended.

    Attributes:
        number: its number in the search.
        settings: the values that it tried.
        state: ``complete``, ``pruned`` or ``failed``.
        metrics: on validation; None unless complete.
        violation: by how much it misses the bounds, added up; 0 when it keeps them.
        reason: why it failed.
        checkpoint: file of its model, where it trained one.
    """

    number: int
    settings: dict[str, Any]
    state: str
    metrics: dict[str, float] | None = None
    violation: float = 0.0
    reason: str | None = None
    checkpoint: str | None = None


Measured = tuple[dict[str, float], str | None]
Report = Callable[[int, float], None]


class Trials(Protocol):
    """What measures the trials of a search.

    Attributes:
        base: metrics on validation that ``base`` in a bound means; None before the first trial has ended.
    """

    base: Mapping[str, float] | None

    def measure(self, settings: Mapping[str, Any], report: Report | None) -> Measured:
        """Metrics on validation under some settings, and the file of the model.

        Args:
            settings: the values that the trial tries.
            report: takes each epoch and its validation score, and ends the trial when it is hopeless; or None.
        """


@dataclass
class Search:
    """A search that runs or has run.

    Attributes:
        objective: what it is for.
        space: what it varies.
        study: Optuna's study.
    """

    objective: Objective
    space: Space
    study: optuna.Study

    @property
    def base(self) -> Mapping[str, float]:
        """Metrics on validation that ``base`` in a bound means; empty before the first trial has ended."""
        found: Mapping[str, float] = self.study.user_attrs.get(_BASE, {})
        return found

    def keep_base(self, metrics: Mapping[str, float]) -> None:
        """Remember what ``base`` means; the first word stands."""
        if not self.base:
            self.study.set_user_attr(_BASE, dict(metrics))

    def start_with(self, settings: Mapping[str, Any]) -> None:
        """Try these settings first, if they lie in the space and nothing has been tried yet."""
        inside = {k: v for k, v in settings.items() if k in self.space and self.space[k].holds(v)}
        if len(inside) == len(self.space) and not self.study.get_trials(deepcopy=False):
            self.study.enqueue_trial({key: self.space[key].stored(value) for key, value in inside.items()})

    @property
    def trials(self) -> list[Trial]:
        """All trials that have ended, by number; those that a kill interrupted are left out."""
        bounds, found = self.bounds if self.base else [], []
        for one in self.study.get_trials(deepcopy=False):
            if not one.state.is_finished() or one.user_attrs.get(_REASON) == _INTERRUPTED:
                continue
            state = {"COMPLETE": "complete", "PRUNED": "pruned"}.get(one.state.name, "failed")
            metrics = one.user_attrs.get(_METRICS)
            found.append(
                Trial(
                    one.number,
                    dict(one.user_attrs.get(_SETTINGS, {})),
                    state,
                    metrics,
                    sum(bound.violation(metrics) for bound in bounds) if metrics else math.inf,
                    one.user_attrs.get(_REASON),
                    one.user_attrs.get(_CHECKPOINT),
                )
            )
        return found

    @property
    def bounds(self) -> list[Constraint]:
        """The bounds as numbers."""
        return [constraint_of(text, self.base) for text in self.objective.bounds]

    def best(self) -> list[Trial]:
        """The trials to take: one for one objective, else the Pareto front, among those that keep the bounds.

        Where none keeps them, those that miss them least. Ties go to the earlier trial.
        """
        done = [trial for trial in self.trials if trial.metrics is not None]
        if not done:
            return []
        least = min(trial.violation for trial in done)
        kept = [trial for trial in done if trial.violation <= least]
        values = [self._costs(trial) for trial in kept]
        if len(self.objective.metrics) == 1:
            return [kept[min(range(len(kept)), key=lambda i: values[i])]]
        front = [
            i
            for i, mine in enumerate(values)
            if not any(
                all(o <= m for o, m in zip(other, mine, strict=True)) and (other != mine or j < i)
                for j, other in enumerate(values)
                if j != i
            )
        ]
        return [kept[i] for i in sorted(front, key=lambda i: values[i])]

    def _costs(self, trial: Trial) -> tuple[float, ...]:
        assert trial.metrics is not None
        signs = (-1.0 if bigger else 1.0 for bigger in self.objective.bigger)
        return tuple(sign * trial.metrics[name] for sign, name in zip(signs, self.objective.metrics, strict=True))


def _require_optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError:
        raise FairError("tune needs Optuna, which is not installed: pip install 'recbole_fair[tune]'.") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def make_sampler(name: str, seed: int) -> Any:
    """A sampler of Optuna by our name; bounds that trials report are heeded by all but ``random``.

    Args:
        name: one of :data:`SAMPLERS`.
        seed: of its draws.
    """
    optuna = _require_optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # multivariate TPE is marked as experimental
        if name == "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True)
        if name == "gp":
            return optuna.samplers.GPSampler(seed=seed, deterministic_objective=True)
        if name == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def make_pruner(name: str, epochs: int, warmup: int) -> Any:
    """A pruner of Optuna by our name; epochs before ``warmup`` never end a trial."""
    optuna = _require_optuna()
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=warmup)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=max(warmup, 1), max_resource=max(epochs, 2))
    return optuna.pruners.NopPruner()


def open_study(storage: str, name: str, objective: Objective, pruner: Any) -> Study:
    """A study in a journal file or a database, a new one or the one that is there.

    Args:
        storage: a file of Optuna's journal, or the url of a database (``sqlite:///a.db``, ``mysql://...``).
        name: of the study: equal names mean that numbers can be compared.
        objective: its directions.
        pruner: its pruner.

    Raises:
        FairError: for a storage that cannot be used.
    """
    optuna = _require_optuna()
    try:
        if "://" in storage:
            place: Any = optuna.storages.RDBStorage(storage)
        else:
            Path(storage).parent.mkdir(parents=True, exist_ok=True)
            place = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage))
        study = optuna.create_study(
            storage=place,
            study_name=name,
            load_if_exists=True,
            directions=["maximize" if bigger else "minimize" for bigger in objective.bigger],
            pruner=pruner,
        )
    except Exception as error:
        raise FairError(f"storage={storage} cannot be used: {type(error).__name__}: {error}.") from error
    made: Study = study
    return made


def run_search(
    search: Search,
    trials: Trials,
    n_trials: int,
    sampler: str,
    seed: int,
    prunes: bool = False,
    told: Callable[[Trial], None] = lambda trial: None,
) -> None:
    """Run trials until so many have ended, those of other processes and of earlier calls among them.

    A trial draws from a sampler that is seeded by the search's seed and by how many trials have ended, so that a search
    that was killed and called again gives the trials of one that was not (as long as one process runs it). By
    ``random``, which looks at no other trial, it is seeded by the trial's place: any number of processes gives the
    trials of one.

    Args:
        search: the search.
        trials: what measures one.
        n_trials: how many trials the search has in the end.
        sampler: one of :data:`SAMPLERS`.
        seed: of the draws.
        prunes: whether trials report their epochs and may be cut short.
        told: called with each trial of this process when it has ended.

    Raises:
        FairError: if a metric of the objective is not computed.
    """
    optuna = _require_optuna()
    _give_up_interrupted(search.study)
    search.study.set_user_attr(_AT_WORK + _this_process(), True)
    while True:
        ended = len(search.trials)
        if _begun(search.study) >= n_trials:
            break
        place = _at_work(search.study).index(_this_process())  # processes that ask at once must not draw the same
        search.study.sampler = make_sampler(sampler, (seed * 100_003 + ended + place * 7_919_003) % 2**31)
        trial = search.study.ask()
        trial.set_user_attr(_PROCESS, _this_process())
        if _begun(search.study, before=trial.number) >= n_trials:  # another process asked for the last one meanwhile
            trial.set_user_attr(_REASON, _INTERRUPTED)
            search.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            break
        if sampler == "random":
            search.study.sampler = make_sampler(sampler, (seed * 100_003 + _begun(search.study, trial.number)) % 2**31)
        settings = {key: dimension.suggest(trial, key) for key, dimension in search.space.items()}
        trial.set_user_attr(_SETTINGS, settings)
        _measure(search, trials, trial, settings, _reporter(trial) if prunes else None)
        told(next(one for one in search.trials if one.number == trial.number))
    search.study.set_user_attr(_AT_WORK + _this_process(), False)


def _begun(study: Study, before: int | None = None) -> int:
    """How many trials have ended or are running, those before a number if one is given."""
    waiting = _require_optuna().trial.TrialState.WAITING
    return sum(
        one.state != waiting and one.user_attrs.get(_REASON) != _INTERRUPTED
        for one in study.get_trials(deepcopy=False)[:before]
    )


def _measure(
    search: Search, trials: Trials, trial: optuna.Trial, settings: Mapping[str, Any], report: Report | None
) -> None:
    """Measure one trial and tell the study how it ended."""
    optuna = _require_optuna()
    try:
        metrics, checkpoint = trials.measure(settings, report)
    except optuna.TrialPruned:
        search.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return
    except Exception as error:  # a crashed trial is recorded and passed over, whatever it died of
        if not isinstance(error, FairError):
            logger.exception("Trial %d", trial.number)
        trial.set_user_attr(_REASON, str(error) if isinstance(error, FairError) else f"{type(error).__name__}: {error}")
        search.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    missing = [name for name in search.objective.wanted if name not in metrics]
    if missing:
        search.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        raise FairError(f"{missing[0]} is not computed; there is {', '.join(metrics)}.")
    if trials.base is not None:
        search.keep_base(trials.base)
    for text, bound in zip(search.objective.bounds, search.bounds, strict=True):
        trial.set_constraint(text, bound.violation(metrics))
    trial.set_user_attr(_METRICS, metrics)
    if checkpoint is not None:
        trial.set_user_attr(_CHECKPOINT, checkpoint)
    values = [metrics[name] for name in search.objective.metrics]
    if all(map(math.isfinite, values)):
        search.study.tell(trial, values)
    else:
        trial.set_user_attr(_REASON, "an objective has no value")
        search.study.tell(trial, state=optuna.trial.TrialState.FAIL)


def _reporter(trial: optuna.Trial) -> Report:
    optuna = _require_optuna()

    def report(epoch: int, score: float) -> None:
        trial.report(score, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    return report


def _this_process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _at_work(study: optuna.Study) -> list[str]:
    """The processes that run trials of a study, this one among them; those of this machine that are gone left out."""
    found = {name.removeprefix(_AT_WORK) for name, at in study.user_attrs.items() if name.startswith(_AT_WORK) and at}
    return sorted(name for name in found | {_this_process()} if name == _this_process() or _may_run(name))


def _may_run(process: str) -> bool:
    """Whether a process may still run: those of other machines may, those of this one are looked for."""
    host, _, pid = process.rpartition(":")
    return host != socket.gethostname() or _runs(int(pid))


def _give_up_interrupted(study: optuna.Study) -> None:
    """Close the trials that a process of this machine left open when it was killed; others may still run theirs.

    What such a trial was told to try is told to the next one.
    """
    optuna = _require_optuna()
    running = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    others = [name for name in _at_work(study) if name != _this_process()]
    for trial in running:
        process = trial.user_attrs.get(_PROCESS)
        if process is None and others:
            continue  # one of them has asked for it just now and not yet put its name to it
        if process is not None and _may_run(process):
            continue
        study._storage.set_trial_user_attr(trial._trial_id, _REASON, _INTERRUPTED)
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        if told := trial.system_attrs.get("fixed_params"):
            study.enqueue_trial(told)


def _runs(pid: int) -> bool:
    """Whether another process of this machine has that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()
