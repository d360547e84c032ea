"""Training steps that several processes share: each takes rows of the same batch, and gradients are added up.

Every process draws the batch that one process would draw, from the same generators, and takes every ``world``-th row of
it. Its loss is weighted by its part of the batch's targets, so that the added gradients are those of the whole batch,
whoever holds how many. ``DistributedDataParallel`` is not used: it averages, whatever the parts are, and it wraps
``forward``, which RecBole's models do not train by. Gradients are added after the backward pass in a few flat messages.

A loss that is no mean over targets cannot be made of parts. Whether a model's is one is seen at its first batch: the
loss of the whole has to be the weighted mean of those of the parts. If it is not, every process trains on whole
batches, all alike, and only the evaluation is shared.
"""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from recbole.data.dataloader import KnowledgeBasedDataLoader
from recbole.data.dataloader.abstract_dataloader import NegSampleDataLoader
from recbole.data.interaction import Interaction
from torch import Tensor
from torch.nn.utils.clip_grad import clip_grad_norm_

from recbole_fair.data.contract import TrainingLoader
from recbole_fair.errors import FairError
from recbole_fair.io.processes import Processes, add_all, current
from recbole_fair.trainer.resumption import other_optimizers, progress_of, restore_progress
from recbole_fair.trainer.whole_batches import look_at_whole_batches

if TYPE_CHECKING:
    from recbole_fair.trainer.trainer import FairTrainerMixin

logger = logging.getLogger(__name__)

Losses = Tensor | tuple[Tensor, ...]
Loss = Callable[..., Losses]

# What RecBole's trainers call.
_LOSSES = ("calculate_loss", "calculate_rs_loss", "calculate_kg_loss")
_TOLERANCE = 1e-5  # relative, of a loss in single precision made of parts


class SharedSteps:
    """The training steps of one trainer, shared among the processes; of one process, nothing at all.

    Args:
        trainer: the trainer.

    Raises:
        FairError: for settings that cannot be followed by several processes.
    """

    def __init__(self, trainer: FairTrainerMixin) -> None:
        self.processes: Processes = current()
        self._trainer = trainer
        self._norms = look_at_whole_batches(trainer.model) if self.processes.several else []
        self._in_parts: dict[str, bool] = {}
        self._adds = False
        self._clip: dict[str, Any] | None = None
        self._times = 1
        self._epoch = self._step = 0
        if self.processes.several and trainer.enable_scaler:
            raise FairError("enable_scaler=True is not possible with several processes; leave it out.")

    def agree(self) -> None:
        """See that all processes have the same data, and give them the first one's weights.

        Raises:
            FairError: if one reads other data.
        """
        processes = self.processes
        if not processes.several:
            return
        fingerprint = self._trainer.fingerprint
        if processes.any(processes.of_first(fingerprint) != fingerprint):
            raise FairError(
                f"The processes do not read the same data: let all machines have the same files below "
                f"data_path={self._trainer.config['data_path']}."
            )
        processes.take_from_first(self._trainer.model.state_dict())

    @contextmanager
    def epoch(self, train_data: TrainingLoader, epoch: int) -> Iterator[None]:
        """Inside the block the model's losses are those of this process's part, and optimizers add gradients up."""
        if not self.processes.several:
            yield
            return
        trainer, model = self._trainer, self._trainer.model
        self._times = _rows_a_positive(train_data)
        self._epoch, self._step = epoch, 0
        self._clip, trainer.clip_grad_norm = trainer.clip_grad_norm, None
        with ExitStack() as undo:
            undo.callback(setattr, trainer, "clip_grad_norm", self._clip)
            for name in _LOSSES:
                loss = getattr(model, name, None)
                if loss is not None:
                    setattr(model, name, functools.partial(self._loss, name, loss))
                    undo.callback(delattr, model, name)
            optimizers = {id(one): one for one in (trainer.optimizer, *other_optimizers(trainer).values())}
            for optimizer in optimizers.values():
                undo.callback(optimizer.register_step_pre_hook(self._before_step).remove)
            yield
        if not all(self._in_parts.values()):  # nothing was exchanged: other machines may round otherwise
            self.processes.take_from_first(model.state_dict())

    def total(self, losses: Any) -> float | tuple[float, ...]:
        """The losses of an epoch, numbers in whatever tuples, over all processes."""
        if not self.processes.several or losses is None:
            found: float | tuple[float, ...] = losses
            return found
        if isinstance(losses, tuple):
            parts: tuple[Any, ...] = tuple(self.total(part) for part in losses)
            return parts
        return float(self.processes.add(torch.tensor(float(losses), dtype=torch.double)))

    # -- the loss of a part --------------------------------------------------------------------------------------

    def _loss(self, name: str, loss: Loss, interaction: Interaction, **options: Any) -> Losses:
        self._step += 1
        rank, world = self.processes.rank, self.processes.world
        parts, shares = self._parts(interaction)
        if parts and name not in self._in_parts:
            self._in_parts[name] = self._is_mean(name, loss, interaction, parts, shares, options)
        self._adds = bool(parts) and self._in_parts[name]
        if not self._adds:
            # The value is a part, so that the sum over the processes is the loss; the gradient is the whole's.
            return _each(loss(interaction, **options), lambda one: one - one.detach() * (1 - 1 / world))
        for norm in self._norms:
            norm.rows = len(parts[rank]) // self._times
        with self._own_draws(), self.processes.sharing(shares[rank]):
            losses = loss(interaction[parts[rank]], **options)
        return _each(losses, lambda one: one * shares[rank])

    def _parts(self, interaction: Interaction) -> tuple[list[Tensor], list[float]]:
        """Rows of each process, and its share of the targets; none where a process would have no target.

        A positive and its sampled items, which stand a whole number of positives apart, stay together.
        """
        rows, world = len(interaction), self.processes.world
        columns = interaction.interaction.values()
        units = rows // self._times
        if rows % self._times or units < world or any(len(column) != rows for column in columns):
            return [], []
        device = next(iter(columns)).device
        blocks = torch.arange(self._times, device=device).unsqueeze(1) * units
        parts = [(blocks + torch.arange(rank, units, world, device=device)).reshape(-1) for rank in range(world)]
        targets = self._trainer.contract.targets_of(interaction)
        counts = [float(len(part) if targets is None else targets[part].sum()) for part in parts]
        if min(counts) <= 0:
            return [], []
        return parts, [count / sum(counts) for count in counts]

    @torch.no_grad()
    def _is_mean(
        self,
        name: str,
        loss: Loss,
        interaction: Interaction,
        parts: list[Tensor],
        shares: list[float],
        options: dict[str, Any],
    ) -> bool:
        """Whether the loss of a batch is the mean of those of its parts, by their shares.

        In evaluation mode, without dropout; norms of embeddings are left out, they are seen to.
        """
        trainer, model = self._trainer, self._trainer.model
        if other_optimizers(trainer):
            found = False
        else:
            if name == "calculate_loss" and trainer.contract.loss_adds_up:
                return True
            buffers = {key: value.clone() for key, value in model.named_buffers()}
            progress = progress_of(model)
            modes = [(module, module.training) for module in model.modules()]
            with self._own_draws():
                model.eval()
                kept = [(norm, norm.forward) for norm in self._norms]
                for norm in self._norms:
                    norm.forward = lambda *rows, **_: rows[-1].new_zeros(1)  # type: ignore[method-assign]
                whole = _sum(loss(interaction, **options))
                mean = sum(
                    share * _sum(loss(interaction[part], **options)) for part, share in zip(parts, shares, strict=True)
                )
                for norm, _ in kept:
                    del norm.forward
            for module, mode in modes:
                module.training = mode
            for key, value in model.named_buffers():
                if key in buffers:
                    value.copy_(buffers[key])
            restore_progress(model, progress)
            found = abs(whole - mean) <= _TOLERANCE * max(abs(whole), 1e-3)
        found = not self.processes.any(not found)
        if not found:
            logger.warning(
                "The loss of %s is no mean over the rows of a batch: every process trains on whole batches, and only "
                "the evaluation is shared.",
                trainer.config["model"],
            )
        return found

    @contextmanager
    def _own_draws(self) -> Iterator[None]:
        """Inside the block draws follow from seed, epoch, step and rank; batches go on from common generators."""
        numbers = [int(self._trainer.config["seed"] or 0), self._epoch, self._step, self.processes.rank]
        seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
        device = torch.device(self._trainer.device)
        python, numpy = random.getstate(), np.random.get_state()
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            random.seed(seed)
            np.random.seed(seed)
            torch.default_generator.manual_seed(seed)
            if device.type == "cuda":
                torch.cuda.manual_seed(seed)
            try:
                yield
            finally:
                random.setstate(python)
                np.random.set_state(numpy)

    # -- the gradients of all parts ------------------------------------------------------------------------------

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Add gradients up, then clip: RecBole's loop would clip each part by itself."""
        if self._adds:
            params = [param for group in optimizer.param_groups for param in group["params"] if param.requires_grad]
            have = torch.tensor([float(param.grad is not None) for param in params], device=params[0].device)
            grads = [torch.zeros_like(param) if param.grad is None else param.grad for param in params]
            add_all(self.processes, [have, *grads])
            for param, any_has, grad in zip(params, have.tolist(), grads, strict=True):
                param.grad = grad if any_has else None
        if self._clip:
            clip_grad_norm_(self._trainer.model.parameters(), **self._clip)


def _rows_a_positive(loader: TrainingLoader) -> int:
    """Rows that a loader makes of each interaction, which it puts as far apart as there are interactions."""
    inner = loader.general_dataloader if isinstance(loader, KnowledgeBasedDataLoader) else loader
    return int(inner.times) if isinstance(inner, NegSampleDataLoader) else 1


def _each(losses: Losses, change: Callable[[Tensor], Tensor]) -> Losses:
    return tuple(map(change, losses)) if isinstance(losses, tuple) else change(losses)


def _sum(losses: Losses) -> float:
    return float(sum(losses)) if isinstance(losses, tuple) else float(losses)
