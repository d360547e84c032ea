"""Stages of pre-training (S3Rec's, RaCT's), each of which leaves a checkpoint that the next one takes."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole.model.abstract_recommender import AbstractRecommender
from recbole.trainer.trainer import PretrainTrainer

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.contract import TrainingLoader
from recbole_fair.trainer.checkpoints import CheckpointWriter

if TYPE_CHECKING:
    from recbole.trainer.trainer import PretrainTrainer as _RecBoleTrainer
else:
    _RecBoleTrainer = object  # whichever trainer of RecBole stands behind the mixin


class Stages(_RecBoleTrainer):
    """The part of :class:`~recbole_fair.trainer.trainer.FairTrainerMixin` that looks at stages."""

    config: FairConfig
    model: AbstractRecommender
    checkpoints: CheckpointWriter
    notes: list[str]
    saved_model_file: str
    save_step: int
    clip_grad_norm: dict[str, Any] | None
    enable_scaler: bool
    _saves: bool

    @property
    def pretrains(self) -> bool:
        """Whether this run is a stage of pre-training, which RecBole does not validate."""
        return isinstance(self, PretrainTrainer) and str(self.config["train_stage"]).endswith("pretrain")

    def pretrain(
        self, train_data: TrainingLoader, verbose: bool = True, show_progress: bool = False
    ) -> tuple[float, OrderedDict[str, float] | None]:
        """RecBole's pre-training; the state of its last epoch is kept, and on disk, whatever ``save_step`` is."""
        last = int(self.pretrain_epochs)
        if not self._saves:
            self.save_step = last + 1
        with closing(self.tensorboard):
            found: tuple[float, OrderedDict[str, float] | None] = super().pretrain(train_data, verbose, show_progress)
        if self._saves and last % self.save_step:
            name = f"{self.config['model']}-{self.config['dataset']}-{last}.pth"
            self.save_pretrained_model(last - 1, str(Path(self.checkpoint_dir) / name))
        self.notes.append(
            f"Only the stage {self.model.train_stage} was trained; the next one takes its checkpoint as pre_model_path."
        )
        return found

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        """RecBole's hook. The file is a checkpoint like any other, and the model of the next stage reads it."""
        self.checkpoints.keep_best()
        self._write_checkpoint(epoch, saved_model_file)
        self.saved_model_file = saved_model_file

    def _write_checkpoint(self, epoch: int, path: str | None = None) -> None:
        raise NotImplementedError
