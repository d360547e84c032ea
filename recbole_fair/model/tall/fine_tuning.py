"""Fine-tuning of many copies of one autoencoder at once, each on users of its own (LFT, EnLFT)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recbole_fair.config.contract import Settings
from recbole_fair.data.batches.item_rows import ItemRows
from recbole_fair.model.posthoc import Progress
from recbole_fair.model.tall.experts import Bags, StackedVAE, cross_entropy, sample, sparse_product

_CHUNK_BYTES = 256 * 2**20
_NAMES = ("mean", "logvar", "mean_bias", "logvar_bias", "decoder", "decoder_bias")


@dataclass(frozen=True)
class Recipe:
    """How a copy is fine-tuned.

    Attributes:
        epochs: passes over its users.
        batch_size: users a step.
        learning_rate: of Adam.
        weight_decay: of Adam, as a penalty in the gradient.
        dropout: of input items.
        beta: weight of the divergence.
        chunk: copies at once; None for as many as fit into a quarter of a gigabyte.
        seed: of the orders of the users.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    dropout: float
    beta: float
    chunk: int | None
    seed: int

    @classmethod
    def of(cls, config: Settings) -> Recipe:
        """From the ``lft_`` keys of a configuration."""
        return cls(
            epochs=int(config["lft_epochs"]),
            batch_size=int(config["lft_batch_size"]),
            learning_rate=float(config["lft_learning_rate"]),
            weight_decay=float(config["lft_weight_decay"]),
            dropout=float(config["lft_dropout"]),
            beta=float(config["lft_beta"]),
            chunk=None if config["lft_chunk"] is None else int(config["lft_chunk"]),
            seed=int(config["seed"] or 0),
        )


class Copies:
    """Copies of a single autoencoder as stacked tensors whose first dimension is the copy.

    Adam's moments, step counts and weight decay are those of separate runs: a copy whose users are all used up in an
    epoch does not move until the next.

    Args:
        base: a stack of one.
        count: number of copies, C.
        recipe: how they are fine-tuned.
    """

    def __init__(self, base: StackedVAE, count: int, recipe: Recipe) -> None:
        self.recipe = recipe
        sources = {name: getattr(base, name).detach() for name in _NAMES}
        sources["decoder"] = sources["decoder"].transpose(0, 1)
        self.tensors = {
            name: value.expand(count, *value.shape[1:]).clone().contiguous().requires_grad_()
            for name, value in sources.items()
        }
        # Parameters that share the memory of one copy each, so that the optimizer counts every copy's own steps.
        self.views = [[nn.Parameter(t.detach()[c]) for t in self.tensors.values()] for c in range(count)]
        self.optimizer = torch.optim.Adam(
            [view for views in self.views for view in views],
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    def fit(self, users: Sequence[Tensor], numbers: Sequence[int], rows: ItemRows, after_step: Any = None) -> None:
        """Fine-tune every copy.

        Args:
            users: user ids of each copy, the longest first.
            numbers: a number of each copy, which its order of users follows from.
            rows: items of each user id; row 0 empty.
            after_step: called without arguments after each step.
        """
        size = self.recipe.batch_size
        generators = [torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + number) for number in numbers]
        for _ in range(self.recipe.epochs):
            orders = [
                u[torch.randperm(len(u), generator=g).to(u.device)] for u, g in zip(users, generators, strict=True)
            ]
            for start in range(0, len(users[0]), size):
                active = [order[start : start + size] for order in orders if len(order) > start]
                self._step(nn.utils.rnn.pad_sequence(active, batch_first=True), rows)
                if after_step is not None:
                    after_step()

    def _step(self, users: Tensor, rows: ItemRows) -> None:
        """One step of the first copies on their users ``[copies, B]``, filled up with the padding user 0."""
        count, batch = users.shape
        leaves = {name: value.detach()[:count].requires_grad_() for name, value in self.tensors.items()}
        mine = rows.of(users.reshape(-1))
        bags = Bags.normalised(mine, count, shared=False, dropout=self.recipe.dropout)
        mean = sparse_product(leaves["mean"], bags) + leaves["mean_bias"].unsqueeze(1)
        logvar = sparse_product(leaves["logvar"], bags) + leaves["logvar_bias"].unsqueeze(1)
        latent, divergences = sample(mean, logvar)
        scores = torch.baddbmm(leaves["decoder_bias"].unsqueeze(1), latent, leaves["decoder"].transpose(1, 2))
        losses = cross_entropy(scores.view(count * batch, -1), mine).view(count, batch)
        real = (users > 0).float()
        by_copy = ((losses + self.recipe.beta * divergences) * real).sum(1) / real.sum(1)
        torch.autograd.backward(by_copy.sum())
        for c in range(count):
            for view, leaf in zip(self.views[c], leaves.values(), strict=True):
                assert leaf.grad is not None
                view.grad = leaf.grad[c]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def scores(self, rows: ItemRows) -> Tensor:
        """Scores ``[C, I]`` of each copy for one row of items, the first for the first and so on."""
        tensors = self.tensors
        bags = Bags.normalised(rows, len(rows), shared=False)
        latent = bags.gather(tensors["mean"]) + tensors["mean_bias"].unsqueeze(1)
        scores = torch.bmm(latent, tensors["decoder"].transpose(1, 2)).squeeze(1)
        return scores + tensors["decoder_bias"]

    @torch.no_grad()
    def write(self, experts: StackedVAE, places: Sequence[int]) -> None:
        """Put the copies into a stack of experts, at these places."""
        index = torch.tensor(places, device=experts.mean.device)
        for name, value in self.tensors.items():
            target = getattr(experts, name)
            target = target.transpose(0, 1) if name == "decoder" else target
            target[index] = value


def chunks(groups: Sequence[Tensor], base: StackedVAE, recipe: Recipe) -> list[list[int]]:
    """Numbers of the groups of users that are worked on together, longest groups first."""
    size = recipe.chunk or max(1, min(64, _CHUNK_BYTES // bytes_a_copy(base)))
    order = sorted(range(len(groups)), key=lambda g: (-len(groups[g]), g))
    return [order[start : start + size] for start in range(0, len(order), size)]


def bytes_a_copy(base: StackedVAE) -> int:
    """Memory of a copy with its gradients and Adam's two moments."""
    return 4 * sum(p.numel() * p.element_size() for p in base.parameters())


def fine_tuned(
    base: StackedVAE, groups: Sequence[Tensor], rows: ItemRows, recipe: Recipe, move: Progress | None = None
) -> Iterator[tuple[list[int], Copies]]:
    """Fine-tune a copy for each group of users, chunk by chunk.

    Args:
        base: the autoencoder that the copies start from.
        groups: user ids of each copy, none empty.
        rows: items of each user id.
        recipe: how.
        move: progress callback.

    Yields:
        Numbers of the groups of a chunk, and its copies in the same order.
    """
    parts = chunks(groups, base, recipe)
    total, done = sum(steps_of(groups, part, recipe) for part in parts), 0
    for part in parts:

        def step(members: int = len(part)) -> None:
            nonlocal done
            done += 1
            if move is not None:
                move(done, total, f"{members} copies at once")

        copies = Copies(base, len(part), recipe)
        copies.fit([groups[g] for g in part], part, rows, step)
        yield part, copies


def steps_of(groups: Sequence[Tensor], part: Sequence[int], recipe: Recipe) -> int:
    """Steps that a chunk takes, those of its longest group."""
    return recipe.epochs * math.ceil(len(groups[part[0]]) / recipe.batch_size)


def cost(base: StackedVAE, groups: Sequence[Tensor], rows: ItemRows, recipe: Recipe) -> dict[str, float]:
    """What fine-tuning will take: floating-point operations by count, minutes by timing one step, memory of a chunk.

    Args:
        base: see :func:`fine_tuned`.
        groups: see there.
        rows: see there.
        recipe: see there.

    Returns:
        ``copies``, ``mean_users``, ``steps``, ``teraflop``, ``minutes``, ``chunk_megabytes``.
    """
    parts = chunks(groups, base, recipe)
    users = sum(len(group) for group in groups)
    products = 6 * base.decoder.numel() * users * recipe.epochs
    probe = Copies(base, len(parts[0]), recipe)
    first = [groups[g][: recipe.batch_size] for g in parts[0]]
    batch = nn.utils.rnn.pad_sequence(first, batch_first=True)
    device = base.mean.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        probe._step(batch, rows)  # the first step also makes Adam's moments
        start = _now(device)
        probe._step(batch, rows)
        seconds = _now(device) - start
    # A step costs by its copies and users; the sum over all steps is that of all copies' own batches.
    copy_steps = sum(math.ceil(len(group) / recipe.batch_size) for group in groups) * recipe.epochs
    return {
        "copies": len(groups),
        "mean_users": users / len(groups),
        "steps": sum(steps_of(groups, part, recipe) for part in parts),
        "teraflop": products / 1e12,
        "minutes": seconds / len(first) * copy_steps / 60,
        "chunk_megabytes": len(parts[0]) * bytes_a_copy(base) / 2**20,
    }


def _now(device: torch.device) -> float:
    """Seconds of the clock when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
