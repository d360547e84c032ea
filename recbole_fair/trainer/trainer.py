"""RecBole's training loop with safe checkpoints, exact resumption and our evaluation."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any, ClassVar

import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.interaction import Interaction
from recbole.evaluator.collector import DataStruct
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.trainer.trainer import Trainer
from recbole.utils import EvaluatorType, calculate_valid_score
from torch import Tensor

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.contract import CountsEpochs, EvaluationLoader, TrainingLoader
from recbole_fair.data.facts.interactions import data_fingerprint
from recbole_fair.data.facts.stored import stored_data
from recbole_fair.evaluator import EvaluationResult, FairCollector, FairEvaluator
from recbole_fair.evaluator.constraint import parse_constraints, selection_value
from recbole_fair.evaluator.group_result import GroupResult
from recbole_fair.io.atomic import free_name
from recbole_fair.io.bars import bars_shown
from recbole_fair.io.checkpoint import check_finite, load_checkpoint, random_states, restore_random_states
from recbole_fair.io.processes import current
from recbole_fair.io.timing import Stages as Clock
from recbole_fair.model.contract import FairModel, contract_of
from recbole_fair.trainer.checkpoints import CheckpointWriter, model_state
from recbole_fair.trainer.failures import check_loss, errors_named
from recbole_fair.trainer.optimizers import fused
from recbole_fair.trainer.resumption import (
    check_resumable,
    epochs_that_count,
    loader_states,
    optimizer_states,
    progress_of,
    restore_loader,
    restore_optimizers,
    restore_progress,
)
from recbole_fair.trainer.schedule import Schedule
from recbole_fair.trainer.scorer import ScoredBatch, Scorer
from recbole_fair.trainer.sharing import SharedSteps
from recbole_fair.trainer.stages import Stages
from recbole_fair.trainer.tracking import lazy_tensorboard, report_groups
from recbole_fair.trainer.watching import Heartbeat, vanishing_bars

logger = logging.getLogger(__name__)

Callback = Callable[[int, float], None]
Validation = tuple[float, "OrderedDict[str, float] | None"]

# Added to the score of an epoch that misses a constraint; far beyond any metric.
_INFEASIBLE = 1e9


class FairTrainerMixin(Stages):
    """What our trainers add to any trainer of RecBole; it stands before it in the list of bases.

    Attributes:
        notes: sentences on the training for the result document.
        timings: seconds by stage, where a training has several.
        clock: counts the stages, and says them if the run has told it how many there are.
        checkpoints: keeps the best state and writes the checkpoints; of the class that ``writer_class`` names.
        scorer: makes the batches that are evaluated.
    """

    writer_class: ClassVar[type[CheckpointWriter]] = CheckpointWriter

    model: AbstractRecommender
    config: FairConfig
    saved_model_file: str
    optimizer: torch.optim.Optimizer
    epochs: int
    start_epoch: int
    eval_step: int
    cur_step: int
    stopping_step: int
    item_tensor: Interaction | None
    valid_metric: str
    valid_metric_bigger: bool
    best_valid_score: float
    best_valid_result: OrderedDict[str, float] | None

    def __init__(self, config: FairConfig, model: AbstractRecommender) -> None:
        with lazy_tensorboard():
            super().__init__(config, model)
        self.saved_model_file = current().made_by_first(lambda: free_name(self.saved_model_file))
        # RecBole's models switch autograd's anomaly detection on when they are imported; it costs a third of the time.
        torch.autograd.set_detect_anomaly(False)
        self.eval_collector = FairCollector(config)
        self.evaluator = FairEvaluator(config)
        self.checkpoints = self.writer_class(config, model)
        self.scorer = Scorer(config, self._full_sort_batch_eval, self._neg_sample_batch_eval)
        self.notes: list[str] = []
        self.timings: dict[str, float] = {}
        self.clock = Clock()
        self._constraints = parse_constraints(config["valid_constraint"], self.evaluator.options)
        self._pending: Mapping[str, Any] | None = None
        self._train_data: TrainingLoader | None = None
        self._valid_data: EvaluationLoader | None = None
        self._test_data: EvaluationLoader | None = None
        self._fingerprint: str | None = None
        self._validated = False
        self.validated_groups: Mapping[str, GroupResult] = {}  # of the last validation, with epoch_groups
        self._saves = True
        self._verbose = True
        self._schedule = Schedule.of(config, self)
        self._heartbeat = Heartbeat(config["model"], self.epochs)
        self._steps = SharedSteps(self)

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        return fused(super()._build_optimizer(**kwargs))

    @property
    def checkpoint_extra(self) -> dict[str, Any]:
        """Entries of the checkpoints and of the result besides the training's own."""
        return self.checkpoints.extra

    @checkpoint_extra.setter
    def checkpoint_extra(self, entries: dict[str, Any]) -> None:
        self.checkpoints.extra = entries

    @property
    def contract(self) -> FairModel:
        """The model as those see it who do not care whose class it is."""
        return contract_of(self.model)

    @property
    def final_variant(self) -> str:
        """The variant of the model that the run is about."""
        return self.contract.final_variant

    def stage_titles(self, validated: bool) -> list[str]:
        """What the stages of :meth:`fit` are called that it says itself; none where the run speaks for it."""
        return []

    def trained_config(self) -> FairConfig:
        """The configuration under which :meth:`fit` trains by gradient steps: a post-hoc model's base has its own."""
        return self.config

    # -- data ----------------------------------------------------------------------------------------------------

    def bind(
        self,
        train_data: TrainingLoader,
        valid_data: EvaluationLoader | None = None,
        test_data: EvaluationLoader | None = None,
    ) -> None:
        """Tell the trainer its splits, so that it can evaluate without having trained.

        Args:
            train_data: the training loader: popularity, histories and masks come from it.
            valid_data: the validation loader, if any.
            test_data: the test loader, if any: evaluating it masks and counts what validation showed, if so configured.
        """
        self._train_data, self._valid_data, self._test_data = train_data, valid_data, test_data
        self._fingerprint = self.checkpoints.data = None
        self.eval_collector.data_collect(train_data)
        self.scorer.bind(self.eval_collector.histories, valid_data, test_data)

    @property
    def fingerprint(self) -> str | None:
        """Digest of the bound splits (see :func:`~recbole_fair.data.facts.interactions.data_fingerprint`)."""
        if self._fingerprint is None and self._train_data is not None:
            loaders = [data for data in (self._train_data, self._valid_data, self._test_data) if data is not None]
            self._fingerprint = data_fingerprint(*(data._dataset for data in loaders))
        return self._fingerprint

    @property
    def train_data(self) -> TrainingLoader:
        """The training loader.

        Raises:
            ValueError: before the trainer has been told its splits.
        """
        if self._train_data is None:
            raise ValueError("Call bind(train_data, ...) or fit(...) before evaluating.")
        return self._train_data

    def stored_data(self) -> dict[str, Any] | None:
        """What a checkpoint carries of the bound splits, so that it can recommend without them."""
        if self._train_data is None:
            return None
        valid = self._valid_data._dataset if self._valid_data is not None else None
        return stored_data(self.config, self._train_data._dataset, valid)

    # -- training ------------------------------------------------------------------------------------------------

    def fit(
        self,
        train_data: TrainingLoader,
        valid_data: EvaluationLoader | None = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callback | None = None,
    ) -> Validation:
        """Train as RecBole does; with validation the state of every evaluated epoch is on disk before the next begins.

        Returns:
            Best validation score and result. Without validation data: RecBole's start value and None.
        """
        if self._train_data is not train_data:
            self.bind(train_data, valid_data, self._test_data)
        self._steps.agree()
        self._verbose = verbose
        self._saves = saved
        self._validated = bool(valid_data) and self.eval_step > 0 and not self.pretrains
        stopped = self._validated and self.cur_step > self._patience(self.start_epoch - 1)
        epochs = self.pretrain_epochs if self.pretrains else self.epochs
        if self._pending is not None and (
            stopped or self.start_epoch >= epochs_that_count(epochs, self.eval_step, self._validated)
        ):
            # RecBole would write the last epoch over the best one.
            logger.info("The training of the run to resume had already ended.")
            return self._chosen_epoch()

        self._heartbeat = Heartbeat(self.config["model"], epochs)

        def after_validation(epoch: int, score: float) -> None:
            report_groups(self.validated_groups, epoch, self.tensorboard if self._verbose else None)
            if self.cur_step == 0:
                self.checkpoints.keep_best()
            if saved:
                self._write_checkpoint(epoch)
            self._heartbeat.beat(epoch, str(self.config["valid_metric"]), score, self.best_valid_score)
            if callback_fn is not None:
                callback_fn(epoch, score)

        with closing(self.tensorboard), vanishing_bars():
            super().fit(train_data, valid_data, verbose, saved, bars_shown(show_progress), after_validation)
        if self.checkpoints.best is None or not (saved or self._validated):
            self.checkpoints.keep_best()  # no validation has chosen an epoch, and no file holds the last one
        return self._chosen_epoch()

    def _patience(self, epoch: int) -> int:
        """Validations without a better score that are endured, as of the one after ``epoch``."""
        steps: int = self.stopping_step
        return steps

    def _valid_epoch(self, valid_data: EvaluationLoader | None, show_progress: bool = False) -> Validation:
        """RecBole's validation; an epoch that misses ``valid_constraint`` scores below every epoch that keeps it."""
        score, result = super()._valid_epoch(valid_data, show_progress)
        score = selection_value(self.valid_metric, score)
        missed = sum(constraint.violation(result) for constraint in self._constraints)
        if missed:
            score = (-_INFEASIBLE if self.valid_metric_bigger else _INFEASIBLE) * (1.0 + missed)
        return current().of_first(score), result  # one process decides when all end

    def _chosen_epoch(self) -> Validation:
        """Score and result of the epoch that was kept, with a note where it misses the constraint."""
        score, result = self.best_valid_score, self.best_valid_result
        if result and abs(score) >= _INFEASIBLE:
            bounds = " and ".join(map(str, self._constraints))
            self.notes.append(f"No epoch kept valid_constraint ({bounds}): the one that missed it least was kept.")
            logger.warning(self.notes[-1])
            score = selection_value(self.valid_metric, result[self.valid_metric])
        return score, result

    def _train_epoch(
        self, train_data: TrainingLoader, epoch_idx: int, loss_func: Any = None, show_progress: bool = False
    ) -> float | tuple[float, ...]:
        if isinstance(train_data, CountsEpochs):
            train_data.set_epoch(epoch_idx)
        if self._pending is not None:
            restore_random_states(self._pending["random"])
            restore_loader(train_data, self._pending["loader"])
            restore_progress(self.model, self._pending.get("progress"))
            self._pending = None
        if self._schedule is not None:
            self._schedule.begin(epoch_idx, len(train_data))
        self.contract.begin_epoch(epoch_idx)
        with errors_named(self.config), self._steps.epoch(train_data, epoch_idx):
            loss = super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
        self.contract.end_epoch()
        self._report_epoch(epoch_idx)
        if not self._validated:
            self._heartbeat.beat(epoch_idx)
        return self._steps.total(loss)

    def _report_epoch(self, epoch_idx: int) -> None:
        """Log what the model's ``epoch_report()`` says (name to value), and send it to TensorBoard."""
        report = self.contract.epoch_report()
        if not report:
            return
        if self._verbose:
            logger.info("epoch %d: %s", epoch_idx, ", ".join(f"{name} {value:.4f}" for name, value in report.items()))
        for name, value in report.items():
            self.tensorboard.add_scalar(name, value, epoch_idx)

    def _check_nan(self, loss: Tensor) -> None:
        check_loss(loss, self.config)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        """RecBole's hook. With validation the file is written after the scores are known, see :meth:`fit`."""
        if self._validated and epoch >= 0:
            return
        self.checkpoints.keep_best()
        self._write_checkpoint(epoch, kwargs.pop("saved_model_file", None))

    def _write_checkpoint(self, epoch: int, path: str | None = None) -> None:
        training = {
            "epoch": epoch,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "best_valid_result": dict(self.best_valid_result) if self.best_valid_result else None,
            **optimizer_states(self),
            "random": random_states(),
            "loader": loader_states(self.train_data),
            "progress": progress_of(self.model),
        }
        self.checkpoints.data = self.checkpoints.data or self.stored_data()
        file, is_best = path or self.saved_model_file, self.cur_step == 0
        written = self.checkpoints.write(file, self.fingerprint, training, is_best, replace=path is not None)
        if path is None:  # the name may have been taken by another process since it was chosen
            self.saved_model_file = written

    def resume_checkpoint(self, resume_file: str | Path) -> None:
        """Take up a run where its checkpoint left it: weights, optimizer, early stopping and random states.

        Args:
            resume_file: a checkpoint of the same model on the same data with the same settings; it is written on.

        Raises:
            FairError: if the file cannot be read, is another model's or holds no training state to go on from.
        """
        content = self.checkpoints.read_resumable(resume_file, self.fingerprint)
        check_resumable(content, self.config, resume_file)
        training = content["training"]
        best = model_state(content)
        latest = model_state(training)
        if latest["state_dict"] is None:
            latest["state_dict"] = best["state_dict"]
        self.checkpoints.restore(latest, f"resume={resume_file}")
        restore_optimizers(self, training, resume_file)
        self.saved_model_file = str(resume_file)
        self.checkpoints.owned.add(self.saved_model_file)
        self.start_epoch = training["epoch"] + 1
        self.cur_step = training["cur_step"]
        self.best_valid_score = training["best_valid_score"]
        best_result = training["best_valid_result"]
        self.best_valid_result = OrderedDict(best_result) if best_result else None
        self.checkpoints.best = best
        self._pending = training
        logger.info("Going on from epoch %d of %s.", self.start_epoch, resume_file)

    # -- evaluation ----------------------------------------------------------------------------------------------

    def load_best(self, model_file: str | Path | None = None) -> None:
        """Give the model its best weights: those of ``model_file``, or the best ones of this run."""
        if model_file is None and self.checkpoints.best is not None:
            self.checkpoints.restore(self.checkpoints.best, self.saved_model_file)
            return
        file = model_file or self.saved_model_file
        self.checkpoints.restore(model_state(load_checkpoint(file, self.config["device"])), file)

    def evaluate(
        self,
        eval_data: EvaluationLoader,
        load_best_model: bool = True,
        model_file: str | Path | None = None,
        show_progress: bool = False,
    ) -> OrderedDict[str, float] | None:
        """Metrics of the configuration on one split, at full precision.

        Args:
            eval_data: a validation or test loader.
            load_best_model: whether to take the best weights first.
            model_file: a checkpoint to take them from.
            show_progress: whether to show a bar on a terminal.

        Returns:
            ``name@k`` to value; None when there is no data.
        """
        if not eval_data:
            return None
        if load_best_model:
            self.load_best(model_file)
        struct = self.collect(eval_data, show_progress)
        if load_best_model or not self.config["epoch_groups"]:
            metrics: OrderedDict[str, float] = self.evaluator.evaluate(struct)
            return metrics
        result = self.evaluator.grouped(struct)
        self.validated_groups = result.groups
        return OrderedDict(result.metrics)

    def evaluate_lists(self, eval_data: EvaluationLoader, show_progress: bool = False) -> EvaluationResult:
        """Metrics, lists, per-user values, groups and intervals of the model as it is now, on one split."""
        return self.evaluator.result(self.collect(eval_data, show_progress))

    def evaluate_variants(
        self, eval_data: EvaluationLoader, show_progress: bool = False, names: Sequence[str] | None = None
    ) -> dict[str, EvaluationResult]:
        """Evaluate variants of the model on one split.

        Args:
            eval_data: a validation or test loader.
            show_progress: whether to show bars.
            names: which variants; all of them, the plain one first, when left out.
        """
        model, results = self.contract, {}
        for name in model.variants if names is None else names:
            with model.use_variant(name):
                results[name] = self.evaluate_lists(eval_data, show_progress)
        return results

    def validate_variants(
        self, valid_data: EvaluationLoader | None, show_progress: bool = False
    ) -> dict[str, dict[str, float]]:
        """Validate every variant; the final one's score and metrics become those of the run.

        Args:
            valid_data: the validation loader, or None.
            show_progress: whether to show bars.

        Returns:
            Metrics by variant; none without validation data.
        """
        if not valid_data:
            return {}
        results = self.evaluate_variants(valid_data, show_progress)
        validation = {name: dict(result.metrics) for name, result in results.items()}
        self.best_valid_result = OrderedDict(validation[self.final_variant])
        score = calculate_valid_score(self.best_valid_result, self.valid_metric)
        self.best_valid_score = selection_value(self.valid_metric, score)
        if any(constraint.violation(self.best_valid_result) for constraint in self._constraints):
            bounds = " and ".join(map(str, self._constraints))
            self.notes.append(f"The variant {self.final_variant} does not keep valid_constraint ({bounds}).")
        return validation

    def keep_fitted(self, valid_data: EvaluationLoader | None, saved: bool) -> Validation:
        """Keep the model as it is now as the result of the training.

        Args:
            valid_data: the validation loader, or None.
            saved: whether to write the checkpoint.

        Returns:
            Validation score and metrics of the final variant; without validation data RecBole's start value and None.
        """
        self.checkpoints.keep_best()
        if saved:
            self._write_checkpoint(0)
        return self.best_valid_score, self.best_valid_result if valid_data else None

    @torch.no_grad()
    def collect(
        self,
        eval_data: EvaluationLoader,
        show_progress: bool = False,
        candidates: int = 0,
        adjust: Callable[[Interaction, Tensor], Tensor] | None = None,
    ) -> DataStruct:
        """One pass over a split: RecBole's ``DataStruct`` with the lists and what the metrics need.

        With ``candidates`` it also holds so many of each user's best items, for a re-ranker. ``adjust`` gets each batch
        and its scores ``[B, n_items]`` and gives the scores to rank by.
        """
        self.eval_collector.n_candidates = candidates
        later = self.scorer.follows_validation(eval_data)
        self.eval_collector.use_validation_history(self._valid_data if later else None)

        def one_pass() -> None:
            for interaction, scores, positive_u, positive_i in self.scored_batches(eval_data, show_progress):
                ranked_by = scores if adjust is None else adjust(interaction, scores)
                self.eval_collector.eval_batch_collect(ranked_by, interaction, positive_u, positive_i)

        alike = adjust is not None or self.contract.draws_to_score
        parts = self.scorer.shared(one_pass, self.eval_collector.forget, alike)
        self.eval_collector.model_collect(self.model)
        return self.eval_collector.get_data_struct(in_parts=parts)

    @torch.no_grad()
    def scored_batches(self, eval_data: EvaluationLoader, show_progress: bool = False) -> Iterator[ScoredBatch]:
        """Batches of a split with the model's scores, masked as the evaluation masks them."""
        _ = self.train_data
        self.model.eval()
        check_finite(self.model, dict(self.model.named_parameters()), "The model")
        if isinstance(eval_data, FullSortEvalDataLoader) and self.item_tensor is None:
            self.item_tensor = eval_data._dataset.get_item_feature().to(self.device)
        if self.config["eval_type"] == EvaluatorType.RANKING:
            self.tot_item_num = eval_data._dataset.item_num
        yield from self.scorer.batches(eval_data, show_progress)

    def remembered_batches(self) -> AbstractContextManager[None]:
        """Inside the block the batches of each evaluated split are made once and kept; not while loaders change."""
        return self.scorer.remembered()


class FairTrainer(FairTrainerMixin, Trainer):
    """RecBole's plain trainer with our checkpoints and evaluation."""
