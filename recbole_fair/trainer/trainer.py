"""RecBole's training loop with safe checkpoints, exact resumption and our evaluation."""

from __future__ import annotations

import copy
import logging
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from recbole.data.dataloader import FullSortEvalDataLoader, NegSampleEvalDataLoader
from recbole.trainer.trainer import PretrainTrainer, Trainer
from recbole.utils import EvaluatorType, ModelType
from torch import Tensor
from tqdm import tqdm

from recbole_fair.data.batches.loaders import same_batches
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.interactions import data_fingerprint, training_interactions
from recbole_fair.errors import FairError
from recbole_fair.evaluator import EvaluationResult, FairCollector, FairEvaluator
from recbole_fair.evaluator.constraint import parse_constraints, selection_value
from recbole_fair.io.checkpoint import (
    load_checkpoint,
    load_weights,
    other_parameters,
    pack_arrays,
    plain_config,
    random_states,
    restore_random_states,
    save_checkpoint,
    unpack_arrays,
    unused,
)
from recbole_fair.trainer.failures import errors_named
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

logger = logging.getLogger(__name__)


def progress(items: Any, total: int, title: str, show: bool) -> Any:
    """A progress bar around ``items`` when it is wanted and somebody sits at the terminal, else ``items`` itself."""
    if not show or not sys.stderr.isatty():
        return items
    return tqdm(items, total=total, desc=title, ncols=100, leave=False)


# Added to the score of an epoch that misses a constraint; far beyond any metric.
_INFEASIBLE = 1e9


class FairTrainerMixin:
    """What our trainers add to any trainer of RecBole; it stands before it in the list of bases.

    Attributes:
        notes: sentences on the training for the result document.
        checkpoint_extra: entries that a subclass wants in the checkpoint (a post-hoc model's report, say).
    """

    model: torch.nn.Module
    config: Any
    saved_model_file: str

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        if not config["single_spec"]:
            raise FairError("Training on several processes (nproc, world_size) is not supported yet; use one process.")
        super().__init__(config, model)  # type: ignore[call-arg]
        self.saved_model_file = unused(self.saved_model_file)
        # RecBole's models switch autograd's anomaly detection on when they are imported; it costs a third of the time.
        torch.autograd.set_detect_anomaly(False)
        self.eval_collector = FairCollector(config)
        self.evaluator = FairEvaluator(config)
        self.checkpoint_extra: dict[str, Any] = {}
        if config["eval_args"]["mode"]["test"] != "full":
            # Drawn or labelled candidates are ranked as they come; the result must not name a mask.
            self.checkpoint_extra["mask_seen"] = None
        self.notes: list[str] = []
        self._constraints = parse_constraints(config["valid_constraint"], self.evaluator.options)
        self._best_state: dict[str, Any] | None = None
        self._pending: Mapping[str, Any] | None = None
        self._train_data: Any = None
        self._valid_data: Any = None
        self._test_data: Any = None
        self._fingerprint: str | None = None
        self._seen: dict[bool, Histories] = {}
        self._validated = False
        self._saves = True
        self._verbose = True
        self._batches: dict[int, list[Any]] | None = None
        self._schedule = Schedule.of(config, self)

    # -- data ----------------------------------------------------------------------------------------------------

    def bind(self, train_data: Any, valid_data: Any = None, test_data: Any = None) -> None:
        """Tell the trainer its splits, so that it can evaluate without having trained.

        Args:
            train_data: the training loader: popularity, histories and masks come from it.
            valid_data: the validation loader, if any.
            test_data: the test loader, if any: evaluating it masks and counts what validation showed, if so configured.
        """
        self._train_data, self._valid_data, self._test_data = train_data, valid_data, test_data
        self._seen = {}
        self._fingerprint = None
        self.eval_collector.data_collect(train_data)

    @property
    def fingerprint(self) -> str | None:
        """Digest of the bound splits (see :func:`~recbole_fair.data.facts.interactions.data_fingerprint`)."""
        if self._fingerprint is None and self._train_data is not None:
            loaders = [data for data in (self._train_data, self._valid_data, self._test_data) if data is not None]
            self._fingerprint = data_fingerprint(*(data._dataset for data in loaders))
        return self._fingerprint

    # -- training ------------------------------------------------------------------------------------------------

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, Any]:
        """Train as RecBole does; with validation the state of every evaluated epoch is on disk before the next begins.

        Returns:
            Best validation score and result. Without validation data: RecBole's start value and None.
        """
        if self._train_data is not train_data:
            self.bind(train_data, valid_data, self._test_data)
        trainer: Any = self
        self._verbose = verbose
        self._saves = saved
        self._validated = bool(valid_data) and trainer.eval_step > 0 and not self._pretrains
        stopped = self._validated and trainer.cur_step > self._patience(trainer.start_epoch - 1)
        epochs = trainer.pretrain_epochs if self._pretrains else trainer.epochs
        if self._pending is not None and (
            stopped or trainer.start_epoch >= epochs_that_count(epochs, trainer.eval_step, self._validated)
        ):
            # RecBole would write the last epoch over the best one.
            logger.info("The training of the run to resume had already ended.")
            return self._chosen_epoch()

        def after_validation(epoch: int, score: float) -> None:
            if trainer.cur_step == 0:
                self._keep_best()
            if saved:
                self._write_checkpoint(epoch)
            if callback_fn is not None:
                callback_fn(epoch, score)

        shown = show_progress and sys.stderr.isatty()
        super().fit(train_data, valid_data, verbose, saved, shown, after_validation)  # type: ignore[misc]
        if self._best_state is None or not (saved or self._validated):
            self._keep_best()  # no validation has chosen an epoch, and no file holds the last one
        return self._chosen_epoch()

    def _patience(self, epoch: int) -> int:
        """Validations without a better score that are endured, as of the one after ``epoch``."""
        trainer: Any = self
        steps: int = trainer.stopping_step
        return steps

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> tuple[float, Any]:
        """RecBole's validation; an epoch that misses ``valid_constraint`` scores below every epoch that keeps it."""
        score, result = super()._valid_epoch(valid_data, show_progress)  # type: ignore[misc]
        trainer: Any = self
        score = selection_value(trainer.valid_metric, score)
        missed = sum(constraint.violation(result) for constraint in self._constraints)
        if missed:
            score = (-_INFEASIBLE if trainer.valid_metric_bigger else _INFEASIBLE) * (1.0 + missed)
        return score, result

    def _chosen_epoch(self) -> tuple[float, Any]:
        """Score and result of the epoch that was kept, with a note where it misses the constraint."""
        trainer: Any = self
        score, result = trainer.best_valid_score, trainer.best_valid_result
        if result and abs(score) >= _INFEASIBLE:
            bounds = " and ".join(map(str, self._constraints))
            self.notes.append(f"No epoch kept valid_constraint ({bounds}): the one that missed it least was kept.")
            logger.warning(self.notes[-1])
            score = selection_value(trainer.valid_metric, result[trainer.valid_metric])
        return score, result

    def _train_epoch(
        self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False
    ) -> float | tuple[float, ...]:
        if hasattr(train_data, "set_epoch"):
            train_data.set_epoch(epoch_idx)
        if self._pending is not None:
            restore_random_states(self._pending["random"])
            restore_loader(train_data, self._pending["loader"])
            restore_progress(self.model, self._pending.get("progress"))
            self._pending = None
        if self._schedule is not None:
            self._schedule.begin(epoch_idx, len(train_data))
        if hasattr(self.model, "begin_epoch"):
            self.model.begin_epoch(epoch_idx)  # type: ignore[operator]
        with errors_named(self.config):
            loss: float | tuple[float, ...] = super()._train_epoch(  # type: ignore[misc]
                train_data, epoch_idx, loss_func, show_progress
            )
        self._report_epoch(epoch_idx)
        return loss

    @property
    def _pretrains(self) -> bool:
        """Whether this run is a stage of pre-training (S3Rec's, RaCT's), which RecBole does not validate."""
        return isinstance(self, PretrainTrainer) and str(getattr(self.model, "train_stage", "")).endswith("pretrain")

    def pretrain(self, train_data: Any, verbose: bool = True, show_progress: bool = False) -> tuple[float, Any]:
        """RecBole's pre-training; the state of its last epoch is kept, and on disk, whatever ``save_step`` is."""
        trainer: Any = self
        last = int(trainer.pretrain_epochs)
        if not self._saves:
            trainer.save_step = last + 1
        found: tuple[float, Any] = super().pretrain(train_data, verbose, show_progress)  # type: ignore[misc]
        if self._saves and last % trainer.save_step:
            name = f"{self.config['model']}-{self.config['dataset']}-{last}.pth"
            self.save_pretrained_model(last - 1, str(Path(trainer.checkpoint_dir) / name))
        self.notes.append(
            f"Only the stage {self.model.train_stage} was trained; the next one takes its checkpoint as pre_model_path."
        )
        return found

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        """RecBole's hook. The file is a checkpoint like any other, and the model of the next stage reads it."""
        self._keep_best()
        self._write_checkpoint(epoch, saved_model_file)
        self.saved_model_file = saved_model_file

    def _report_epoch(self, epoch_idx: int) -> None:
        """Log what the model's optional ``epoch_report()`` says (name to value), and send it to TensorBoard."""
        report: dict[str, float] = getattr(self.model, "epoch_report", dict)()
        if not report:
            return
        trainer: Any = self
        if self._verbose:
            logger.info("epoch %d: %s", epoch_idx, ", ".join(f"{name} {value:.4f}" for name, value in report.items()))
        for name, value in report.items():
            trainer.tensorboard.add_scalar(name, value, epoch_idx)

    def _check_nan(self, loss: Tensor) -> None:
        if torch.isnan(loss):
            raise FairError(
                f"The training loss became NaN (learning_rate={self.config['learning_rate']}); lower learning_rate or "
                "set clip_grad_norm, e.g. {max_norm: 5}."
            )

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        return {
            "state_dict": {name: value.detach().clone() for name, value in self.model.state_dict().items()},
            "other_parameter": copy.deepcopy(other_parameters(self.model)),
        }

    def _keep_best(self) -> None:
        self._best_state = self._state()

    def _load_state(self, state: Mapping[str, Any], source: str | Path | None = None) -> None:
        load_weights(self.model, state["state_dict"], source or self.saved_model_file)
        self.model.load_other_parameter(state.get("other_parameter"))  # type: ignore[operator]

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        """RecBole's hook. With validation the file is written after the scores are known, see :meth:`fit`."""
        if self._validated and epoch >= 0:
            return
        self._keep_best()
        self._write_checkpoint(epoch, kwargs.pop("saved_model_file", None))

    def _write_checkpoint(self, epoch: int, path: str | None = None) -> None:
        trainer: Any = self
        best = self._best_state or self._state()
        latest = best if trainer.cur_step == 0 else self._state()
        content = {
            "model": self.config["model"],
            "dataset": self.config["dataset"],
            "config": plain_config(self.config),
            "user_settings": self.config.user_settings,
            "fingerprint": self.fingerprint,
            "state_dict": best["state_dict"],
            "other_parameter": pack_arrays(best["other_parameter"]),
            "training": {
                "epoch": epoch,
                "cur_step": trainer.cur_step,
                "best_valid_score": float(trainer.best_valid_score),
                "best_valid_result": dict(trainer.best_valid_result) if trainer.best_valid_result else None,
                "state_dict": None if trainer.cur_step == 0 else latest["state_dict"],
                "other_parameter": pack_arrays(latest["other_parameter"]),
                **optimizer_states(self),
                "random": random_states(),
                "loader": loader_states(self._train_data),
                "progress": progress_of(self.model),
            },
            **self.checkpoint_extra,
        }
        save_checkpoint(path or self.saved_model_file, content)

    def resume_checkpoint(self, resume_file: str | Path) -> None:
        """Take up a run where its checkpoint left it: weights, optimizer, early stopping and random states.

        Args:
            resume_file: a checkpoint of the same model on the same data with the same settings; it is written on.

        Raises:
            FairError: if the file cannot be read, is another model's or holds no training state to go on from.
        """
        content = self._read_resumable(resume_file)
        check_resumable(content, self.config, resume_file)
        training = content["training"]
        best = {
            "state_dict": content["state_dict"],
            "other_parameter": unpack_arrays(content.get("other_parameter")),
        }
        latest = training["state_dict"]
        self._load_state(
            {
                "state_dict": best["state_dict"] if latest is None else latest,
                "other_parameter": unpack_arrays(training["other_parameter"]),
            },
            f"resume={resume_file}",
        )
        restore_optimizers(self, training, resume_file)
        trainer: Any = self
        self.saved_model_file = str(resume_file)
        trainer.start_epoch = training["epoch"] + 1
        trainer.cur_step = training["cur_step"]
        trainer.best_valid_score = training["best_valid_score"]
        best_result = training["best_valid_result"]
        trainer.best_valid_result = OrderedDict(best_result) if best_result else None
        self._best_state = best
        self._pending = training
        logger.info("Going on from epoch %d of %s.", trainer.start_epoch, resume_file)

    def _read_resumable(self, resume_file: str | Path) -> dict[str, Any]:
        """The content of a checkpoint of the same model on the same data.

        Raises:
            FairError: if it cannot be read, or is another model's or of other data.
        """
        content = load_checkpoint(resume_file, self.config["device"])
        if content["model"] != self.config["model"]:
            raise FairError(f"resume={resume_file} is a checkpoint of {content['model']}, not {self.config['model']}.")
        if self.fingerprint is not None and content["fingerprint"] != self.fingerprint:
            raise FairError(
                f"resume={resume_file} was trained on other data or another split of {content['dataset']}; "
                "use the same files, filters and eval_args."
            )
        return content

    # -- evaluation ----------------------------------------------------------------------------------------------

    def load_best(self, model_file: str | Path | None = None) -> None:
        """Give the model its best weights: those of ``model_file``, or the best ones of this run."""
        if model_file is None and self._best_state is not None:
            self._load_state(self._best_state)
            return
        file = model_file or self.saved_model_file
        content = load_checkpoint(file, self.config["device"])
        self._load_state({**content, "other_parameter": unpack_arrays(content.get("other_parameter"))}, file)

    def evaluate(
        self,
        eval_data: Any,
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
        metrics: OrderedDict[str, float] = self.evaluator.evaluate(self.collect(eval_data, show_progress))
        return metrics

    def evaluate_lists(self, eval_data: Any, show_progress: bool = False) -> EvaluationResult:
        """Metrics, lists, per-user values, groups and intervals of the model as it is now, on one split."""
        return self.evaluator.result(self.collect(eval_data, show_progress))

    @torch.no_grad()
    def collect(self, eval_data: Any, show_progress: bool = False, candidates: int = 0) -> Any:
        """One pass over a split: RecBole's ``DataStruct`` with the lists and what the metrics need.

        With ``candidates`` it also holds so many of each user's best items, for a re-ranker.
        """
        self.eval_collector.n_candidates = candidates
        is_test = eval_data is self._test_data and self._valid_data is not None
        self.eval_collector.use_validation_history(self._valid_data if is_test else None)
        for interaction, scores, positive_u, positive_i in self.scored_batches(eval_data, show_progress):
            self.eval_collector.eval_batch_collect(scores, interaction, positive_u, positive_i)
        self.eval_collector.model_collect(self.model)
        return self.eval_collector.get_data_struct()

    @torch.no_grad()
    def scored_batches(
        self, eval_data: Any, show_progress: bool = False
    ) -> Iterator[tuple[Any, Tensor, Tensor | None, Tensor | None]]:
        """Batches of a split with the model's scores, masked as the evaluation masks them.

        Yields:
            Interaction, scores ``[B, n_items]`` (-inf for what may not be shown), row of each held-out item, and the
            held-out items.
        """
        trainer: Any = self
        if self._train_data is None:
            raise ValueError("Call bind(train_data, ...) or fit(...) before evaluating.")
        self.model.eval()
        full = isinstance(eval_data, FullSortEvalDataLoader)
        if full and trainer.item_tensor is None:
            trainer.item_tensor = eval_data._dataset.get_item_feature().to(trainer.device)
        if self.config["eval_type"] == EvaluatorType.RANKING:
            trainer.tot_item_num = eval_data._dataset.item_num
        score = self._full_sort_batch_eval if full else trainer._neg_sample_batch_eval
        self._masks_validation = eval_data is self._test_data and self._valid_data is not None
        for batch in progress(self._batches_of(eval_data), len(eval_data), "Evaluate", show_progress):
            yield score(batch)

    def _batches_of(self, eval_data: Any) -> Any:
        drawn = isinstance(eval_data, NegSampleEvalDataLoader)
        batches = same_batches(eval_data, int(self.config["seed"] or 0)) if drawn else eval_data
        if self._batches is None:
            return batches
        if id(eval_data) not in self._batches:
            self._batches[id(eval_data)] = list(batches)
        return self._batches[id(eval_data)]

    @contextmanager
    def remembered_batches(self) -> Iterator[None]:
        """Inside the block the batches of each evaluated split are made once and kept; not while loaders change."""
        self._batches = {}
        try:
            yield
        finally:
            self._batches = None

    def _full_sort_batch_eval(self, batched_data: Any) -> Any:
        interaction, history_index, positive_u, positive_i = batched_data
        mask = self.config["mask_seen"] or "auto"
        sequential = self.config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        by_loader = mask == "auto" or (mask == "all" and not sequential and not self.config["repeatable"])
        if not by_loader:
            history_index = None
        batch = (interaction, history_index, positive_u, positive_i)
        _, scores, positive_u, positive_i = super()._full_sort_batch_eval(batch)  # type: ignore[misc]
        if not by_loader and mask != "none":
            self._mask_seen(scores, interaction[self.config["USER_ID_FIELD"]], positive_u, positive_i, mask == "all")
        return interaction, scores, positive_u, positive_i

    def _mask_seen(
        self, scores: Tensor, users: Tensor, positive_u: Tensor, positive_i: Tensor, everything: bool
    ) -> None:
        """Set the scores of items that users have seen to -inf, never those of held-out items (as RecBole)."""
        with_validation = everything and self._masks_validation
        if with_validation not in self._seen:
            seen = self.eval_collector.histories
            assert seen is not None
            if with_validation:
                seen = seen.extended(training_interactions(self._valid_data._dataset))
            self._seen[with_validation] = seen
        rows = self._seen[with_validation].rows(users.cpu().numpy())
        indptr = torch.from_numpy(rows.indptr)
        row = torch.repeat_interleave(torch.arange(len(users)), indptr[1:] - indptr[:-1]).to(scores.device)
        positive_u, positive_i = positive_u.to(scores.device), positive_i.to(scores.device)
        kept = scores[positive_u, positive_i]
        scores[row, torch.from_numpy(rows.items).to(scores.device).long()] = -torch.inf
        scores[positive_u, positive_i] = kept


class FairTrainer(FairTrainerMixin, Trainer):
    """RecBole's plain trainer with our checkpoints and evaluation."""
