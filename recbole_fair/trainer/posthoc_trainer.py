"""Training of post-hoc models: get a base model, fit the intervention on it, validate every variant."""

from __future__ import annotations

import glob
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from recbole.utils import EvaluatorType, init_seed

from recbole_fair.config.catalogue import matters_for_training, settings_of_base
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.registry import get_trainer, known_models
from recbole_fair.data.contract import CountsEpochs, DrawsRandomly, EvaluationLoader, TrainingLoader
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import load_checkpoint, plain_config, restore_model
from recbole_fair.io.imported import open_checkpoint
from recbole_fair.io.processes import current
from recbole_fair.model.concept_steering import ConceptSteering
from recbole_fair.model.posthoc import PostHocModel
from recbole_fair.trainer.resumption import epochs_that_count
from recbole_fair.trainer.steering_costs import STEERING, steering_costs
from recbole_fair.trainer.strengths import CHOSEN, choice_note, choose_strengths, wants_choice
from recbole_fair.trainer.trainer import Callback, FairTrainer, Validation

logger = logging.getLogger(__name__)


class PostHocTrainer(FairTrainer):
    """Trainer of a :class:`~recbole_fair.model.posthoc.PostHocModel`.

    ``fit`` (1) takes the base model from ``base_model_file``, or from a finished checkpoint in ``checkpoint_dir`` that
    was trained on the same data, split, seed and settings, or trains it with its own trainer; (2) fits the
    intervention; (3) validates every variant and writes one checkpoint.

    Attributes:
        timings: seconds by stage.
    """

    model: PostHocModel

    def __init__(self, config: FairConfig, model: PostHocModel) -> None:
        super().__init__(config, model)
        model.scored_batches = self.scored_batches
        self._resume_base: str | None = None
        if model.report:
            self.checkpoint_extra["intervention"] = model.report

    # -- fitting -------------------------------------------------------------------------------------------------

    def fit(
        self,
        train_data: TrainingLoader,
        valid_data: EvaluationLoader | None = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callback | None = None,
    ) -> Validation:
        """Obtain the base, fit the intervention, validate; see the class.

        Returns:
            Validation score and metrics of the final variant; without validation data RecBole's start value and None.
        """
        if self._train_data is not train_data:
            self.bind(train_data, valid_data, self._test_data)
        self.model.check_splits(train_data, valid_data)
        if valid_data is not None:
            self.model.check_base(valid_data)
        titles = iter(self.stage_titles(valid_data is not None))
        with self._stage("base", next(titles)):
            base = self._obtain_base(train_data, valid_data, verbose, saved, show_progress, callback_fn)
            self.model.freeze_base()
        with self._stage("intervention", next(titles)):
            self._seed_again(train_data)
            report = self.model.fit_intervention(train_data, valid_data, show_progress)
            current().take_from_first(self.model.state_dict())  # machines may round differently
        if valid_data is not None and wants_choice(self.config, self.model):
            with self._stage("strengths", next(titles)):
                self._choose_strengths(valid_data)
        if valid_data is not None and self._knows_concepts():
            with self._stage("steering", next(titles)):
                self._measure_steering(valid_data)
        validation = self.validate_variants(valid_data, show_progress)
        self.checkpoint_extra |= {"base": base, "intervention": report, "validation": validation}
        return self.keep_fitted(valid_data, saved)

    def _choose_strengths(self, valid_data: EvaluationLoader) -> None:
        own = None if "strength_goal" in self.config.user_settings else self.model.strength_goal()
        goal, budget = own or str(self.config["strength_goal"]), float(self.config["strength_budget"])
        choice = choose_strengths(self, self.model, valid_data, goal, budget)
        for key, value in choice["chosen"].items():
            self.config[key] = value  # the checkpoint remembers what was chosen
        self.checkpoint_extra[CHOSEN] = choice
        self.notes.append(choice_note(choice))

    def stage_titles(self, validated: bool) -> list[str]:
        """The base, what is fitted on it, and the choice of strengths if there is one."""
        choice = ["strengths on validation"] if validated and wants_choice(self.config, self.model) else []
        costs = ["cost of steering each concept"] if validated and self._knows_concepts() else []
        return [f"base model {self.model.base_model_name}", self.model.fitted_name, *choice, *costs]

    @contextmanager
    def _stage(self, name: str, title: str) -> Iterator[None]:
        with self.clock(name, title):
            yield
        self.timings[name] = self.clock.seconds[name]

    def _knows_concepts(self) -> bool:
        """Whether the model knows other concepts than popularity, whose strengths are swept as ever."""
        model = self.model
        if not isinstance(model, ConceptSteering) or self.config["eval_type"] != EvaluatorType.RANKING:
            return False
        return not model.steers_popularity or bool(self.config["concepts"])

    def _measure_steering(self, valid_data: EvaluationLoader) -> None:
        assert isinstance(self.model, ConceptSteering)
        self.checkpoint_extra[STEERING] = steering_costs(self, self.model, valid_data)

    def resume_checkpoint(self, resume_file: str | Path) -> None:
        """Go on with a base model whose training was interrupted; the intervention is fitted afterwards.

        Raises:
            FairError: a file that is no checkpoint of the base model.
        """
        name = load_checkpoint(resume_file)["model"]
        if name == self.config["model"]:
            raise FairError(
                f"resume={resume_file} is a finished {name}; use `recbole-fair evaluate`, or give the checkpoint of "
                f"the interrupted {self.model.base_model_name}."
            )
        self._resume_base = str(resume_file)

    def _seed_again(self, train_data: TrainingLoader) -> None:
        """A base that was found has drawn no random numbers; the intervention must not depend on which it was."""
        seed = self.config["seed"]
        init_seed(seed, self.config["reproducibility"])
        if isinstance(train_data, DrawsRandomly):
            train_data.generator.manual_seed(seed)
        if isinstance(train_data, CountsEpochs):
            train_data.set_epoch(0)

    # -- the base model ------------------------------------------------------------------------------------------

    def trained_config(self) -> FairConfig:
        """The configuration under which the base model alone would be trained."""
        settings = settings_of_base(self.config.user_settings, type(self.model), self.model.base_class)
        name = self.model.base_model_name
        base = name if name in known_models() else self.model.base_class
        config = FairConfig(base, self.config["dataset"], config_dict=settings)
        config["load_col"] = self.config["load_col"]  # reading the files may have completed it
        return config

    def _obtain_base(
        self,
        train_data: TrainingLoader,
        valid_data: EvaluationLoader | None,
        verbose: bool,
        saved: bool,
        show_progress: bool,
        callback_fn: Callback | None,
    ) -> dict[str, Any]:
        config = self.trained_config()
        given = self.config["base_model_file"]
        if given is not None:
            content = self._read_base(given, config)
            self._take_base(given, content)
            return {"source": "base_model_file", "file": str(given), **_training_facts(content)}
        found = None if self._resume_base else self._find_base(config)
        if found is not None:
            path, content = found
            self._take_base(path, content)
            logger.info("Using the base model %s: same data, split, seed and settings.", path)
            return {"source": "checkpoint_dir", "file": str(path), **_training_facts(content)}
        trainer = get_trainer(config, self.model.base_class)(config, self.model.base)
        trainer.bind(train_data, valid_data, self._test_data)
        if self._resume_base:
            trainer.resume_checkpoint(self._resume_base)
        score, result = trainer.fit(train_data, valid_data, verbose, saved, show_progress, callback_fn)
        trainer.load_best()
        return {
            "source": "trained",
            "file": str(trainer.saved_model_file) if saved else None,
            "best_valid_score": float(score),
            "best_valid_result": dict(result) if result else None,
        }

    def _take_base(self, path: str | Path, content: Mapping[str, Any]) -> None:
        restore_model(self.model.base, content, path)

    def _read_base(self, path: str | Path, config: FairConfig) -> dict[str, Any]:
        content = open_checkpoint(path, self.config["device"])
        name = self.model.base_model_name
        if content["model"] != name:
            raise FairError(f"base_model_file={path} is a checkpoint of {content['model']}, not of {name}.")
        if self.fingerprint is not None and content["fingerprint"] not in (None, self.fingerprint):
            raise FairError(
                f"base_model_file={path} was trained on other data or another split than {self.config['dataset']} as "
                "configured; use the same files, filters and eval_args."
            )
        different = differing_settings(content["config"], plain_config(config), self.model.base_class)
        if different:
            logger.warning(
                "The base model %s was trained with other settings: %s.",
                path,
                ", ".join(f"{key}={old!r} (now {new!r})" for key, (old, new) in different.items()),
            )
        return content

    def _find_base(self, config: FairConfig) -> tuple[Path, dict[str, Any]] | None:
        """The newest finished checkpoint of the base model whose data and settings are those of this run."""

        def find() -> str | None:
            alike = checkpoints_alike(self.config["checkpoint_dir"], config, self.fingerprint)
            return next((str(path) for path, content in alike if finished(content)), None)

        found = current().made_by_first(find)  # what another process would see a moment later
        return None if found is None else (Path(found), load_checkpoint(found, config["device"]))


def differing_settings(
    one: Mapping[str, Any], other: Mapping[str, Any], model_class: type[Any] | None = None
) -> dict[str, tuple[Any, Any]]:
    """Settings that matter for training and differ between two plain configurations: key to both values.

    Args:
        one: the first configuration.
        other: the second one.
        model_class: the model that is trained, which may read more than what models commonly do.
    """
    keys = {key for key in set(one) | set(other) if key != "model" and matters_for_training(key, model_class)}
    pairs = {key: (one.get(key), other.get(key)) for key in sorted(keys)}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def checkpoints_alike(
    folder: str | Path, config: FairConfig, fingerprint: str | None, whatever: Collection[str] = ()
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Checkpoints of a model that was trained, or is being trained, on the same data under the same settings.

    Args:
        folder: where to look.
        config: the model's configuration.
        fingerprint: digest of the data's splits.
        whatever: keys that may differ.

    Yields:
        Path and content, newest first; files that cannot be read are passed over.
    """
    name, wanted = config["model"], plain_config(config)
    found = []
    for path in Path(folder).glob(f"{glob.escape(name)}-*.pth"):
        with suppress(OSError):  # a link to nowhere, a file that another run has just replaced
            found.append((path.stat().st_mtime, path))
    for _, path in sorted(found, reverse=True):
        try:
            content = load_checkpoint(path, config["device"])
        except FairError as error:
            logger.debug("Not a checkpoint to use: %s", error)
            continue
        same = content["model"] == name and content["fingerprint"] == fingerprint
        if same and not set(differing_settings(content["config"], wanted, config.model_class)).difference(whatever):
            yield path, content


def finished(content: Mapping[str, Any]) -> bool:
    """Whether the training that wrote a checkpoint ran to its end, by early stopping or by its last epoch."""
    training, config = content.get("training"), content["config"]
    if training is None:
        return False
    epochs = epochs_that_count(config["epochs"], config["eval_step"], training["best_valid_result"] is not None)
    return training["epoch"] + 1 >= epochs or training["cur_step"] > config["stopping_step"]


def _training_facts(content: Mapping[str, Any]) -> dict[str, Any]:
    training = content.get("training") or {}
    return {key: training.get(key) for key in ("best_valid_score", "best_valid_result")}
