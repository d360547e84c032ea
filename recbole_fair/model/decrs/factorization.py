"""Factorisation machines over feature tables, with an exact ranking of all items from sums by side.

FM (Rendle, ICDM 2010) and NFM (He and Chua, SIGIR 2017) as coded with DecRS: batch normalisation and dropout on the
vector of pairwise interactions, one embedding a feature, values as weights; and DecRS's mediator as one more feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_fair.data.facts.features import Features
from recbole_fair.model.bases.dropout import fast_dropout

MEDIATORS = ("fm", "product", "none")
_CELLS = 2_000_000  # numbers of the hidden layer worked on at a time: what stays in a processor's cache


class SideSums(NamedTuple):
    """What one side of a pair (users or items) brings into a factorisation machine.

    Attributes:
        total: Sum of its weighted feature vectors ``[n, K]``.
        squares: Sum of their squares ``[n, K]``.
        linear: Sum of its first-order weights ``[n]``.
    """

    total: Tensor
    squares: Tensor
    linear: Tensor

    @property
    def own_pairs(self) -> Tensor:
        """Interactions among the features of this side ``[n, K]``."""
        return 0.5 * (self.total.square() - self.squares)


@dataclass(frozen=True)
class Rows:
    """Features of some users or items, see :class:`~recbole_fair.data.facts.features.FeatureTable`.

    Attributes:
        index: ``[B, F]``.
        value: ``[B, F]``.
        dense: ``[B, G]``.
        start: position of the first dense feature.
    """

    index: Tensor
    value: Tensor
    dense: Tensor
    start: int


class FeatureTables(nn.Module):
    """Feature tables as buffers that move with a model and are no part of its state."""

    def __init__(self, features: Features) -> None:
        super().__init__()
        self.size = features.size
        self.starts = {"user": features.users.start, "item": features.items.start}
        for side, table in (("user", features.users), ("item", features.items)):
            for name in ("index", "value", "dense"):
                self.register_buffer(f"{side}_{name}", getattr(table, name), persistent=False)

    def rows(self, side: str, ids: Tensor | None = None) -> Rows:
        """Features of the ``user`` or ``item`` ids ``[B]``, of all when None."""
        index, value, dense = (getattr(self, f"{side}_{name}") for name in ("index", "value", "dense"))
        if ids is not None:
            index, value, dense = index[ids], value[ids], dense[ids]
        return Rows(index, value, dense, self.starts[side])


class Dropout(nn.Module):
    """:func:`~recbole_fair.model.bases.dropout.fast_dropout` as a module."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with some entries 0 and the others scaled up, in training."""
        return fast_dropout(x, self.probability, self.training)


class FactorizationMachine(nn.Module):
    """FM, or NFM when there are hidden layers; with a mediator the deconfounded model of DecRS.

    The mediator m is made of the user's feature vectors u (those of the machine itself) and vectors v of the item
    groups, a table of its own, weighted by the confounder's prior d:

    * ``fm``: Eq. 8 as coded, each unordered pair of different entries of (d v, x u) once:
      ``((sum d v + sum x u)^2 - sum (d v)^2 - sum (x u)^2) / 2``;
    * ``product``: Eq. 7, ``(sum d v) * (sum x u)``;
    * ``none``: there is no mediator.

    It takes part in the machine as one more feature of the user with value 1 and no first-order weight.

    Args:
        tables: The features, shared between machines.
        size: Size K of the vectors.
        dropout: Shares that are dropped: of the interactions, and of hidden layers.
        hidden: Sizes of the hidden layers; none for FM.
        mediator: See above.
        prior: Prior of the confounder ``[G]``; needed for a mediator.
        group_init_std: Standard deviation of the initial group vectors; the feature vectors have .01.
    """

    prior: Tensor

    def __init__(
        self,
        tables: FeatureTables,
        size: int,
        dropout: Sequence[float],
        hidden: Sequence[int] = (),
        mediator: str = "none",
        prior: Tensor | None = None,
        group_init_std: float = 0.01,
    ) -> None:
        super().__init__()
        if mediator not in MEDIATORS:
            raise ValueError(f"mediator must be one of {', '.join(MEDIATORS)}, not {mediator!r}.")
        self.tables = tables
        self.mediator = mediator
        self.embedding = nn.Parameter(torch.empty(tables.size, size).normal_(0.0, 0.01))
        self.linear = nn.Parameter(torch.zeros(tables.size))
        self.bias = nn.Parameter(torch.zeros(()))
        with torch.no_grad():
            self.embedding[0] = 0.0  # no feature: value 0 everywhere, so that it stays
        self.norm = nn.BatchNorm1d(size)
        self.drop = Dropout(dropout[0])
        layers: list[nn.Module] = []
        for width_in, width in zip([size, *hidden], hidden, strict=False):
            layers += [nn.Linear(width_in, width), nn.BatchNorm1d(width), nn.ReLU(), Dropout(dropout[-1])]
        if hidden:
            layers.append(nn.Linear(hidden[-1], 1, bias=False))
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.hidden = nn.Sequential(*layers)
        if mediator != "none":
            if prior is None:
                raise ValueError("A mediator needs the prior of the confounder.")
            self.register_buffer("prior", prior.to(self.embedding.dtype), persistent=False)
            self.groups = nn.Parameter(torch.empty(len(prior), size).normal_(0.0, group_init_std))

    # -- sums by side --------------------------------------------------------------------------------------------

    def mediator_of(self, total: Tensor, squares: Tensor) -> Tensor:
        """The mediator m of users.

        Args:
            total: Sum of the users' weighted feature vectors ``[B, K]``.
            squares: Sum of their squares ``[B, K]``.

        Returns:
            ``[B, K]``.
        """
        weighted = self.prior.unsqueeze(1) * self.groups
        of_groups = weighted.sum(0)
        if self.mediator == "product":
            return of_groups * total
        return 0.5 * ((of_groups + total).square() - weighted.square().sum(0) - squares)

    def _sums(self, *sides: Rows) -> tuple[list[SideSums], Tensor]:
        """Sums over the features of users or items, and the norm of all feature vectors."""
        *sums, norm = _Sums.apply(self.embedding, sides)  # type: ignore[no-untyped-call]
        found = []
        for side, total, squares in zip(sides, sums[::2], sums[1::2], strict=True):
            linear = (self.linear.gather(0, side.index.reshape(-1)).view(side.index.shape) * side.value).sum(1)
            few = self.linear[side.start : side.start + side.dense.shape[1]]
            found.append(SideSums(total, squares, linear + side.dense @ few))
        return found, norm

    def _with_mediator(self, sums: SideSums) -> SideSums:
        """Sums of users, the mediator counting as one more feature."""
        if self.mediator == "none":
            return sums
        m = self.mediator_of(sums.total, sums.squares)
        return SideSums(sums.total + m, sums.squares + m.square(), sums.linear)

    def user_sums(self, users: Tensor) -> SideSums:
        """Sums over the features of users, long ``[B]``; the mediator counts as one of them."""
        return self._with_mediator(self._sums(self.tables.rows("user", users))[0][0])

    def item_sums(self) -> SideSums:
        """Sums over the features of all items, the padding item's being 0."""
        return self._sums(self.tables.rows("item"))[0][0]

    def pair_sums(self, users: Tensor, items: Tensor) -> tuple[SideSums, SideSums, Tensor]:
        """Sums of the users and of the items of pairs, each long ``[B]``; and the norm of all feature vectors."""
        (of_users, of_items), norm = self._sums(self.tables.rows("user", users), self.tables.rows("item", items))
        return self._with_mediator(of_users), of_items, norm

    # -- scores --------------------------------------------------------------------------------------------------

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Logits of pairs.

        Args:
            users: Long ``[B]``.
            items: Long ``[B]``.

        Returns:
            ``[B]``.
        """
        return self._logits(*self.pair_sums(users, items)[:2])

    def _logits(self, u: SideSums, i: SideSums) -> Tensor:
        pairs = 0.5 * ((u.total + i.total).square() - (u.squares + i.squares))
        pairs = self.drop(self.norm(pairs))
        second = self.hidden(pairs).squeeze(1) if len(self.hidden) else pairs.sum(1)
        return second + u.linear + i.linear + self.bias

    def all_scores(self, users: Tensor) -> Tensor:
        """Logits of users with all items in evaluation mode: those of :meth:`forward`, from sums by side.

        The interactions of a pair are ``P_u + P_i + S_u * S_i`` with P those within a side and S its sum. In
        evaluation mode batch normalisation is affine, so FM is a term of the user, one of the item and one matrix
        product; NFM's first layer splits the same way, and from there on hidden vectors are computed pair by pair.

        Args:
            users: Long ``[B]``.

        Returns:
            ``[B, n_items]``.
        """
        u, i = self.user_sums(users), self.item_sums()
        scale, shift = _affine(self.norm)
        if not len(self.hidden):
            of_user = u.own_pairs @ scale + u.linear + (self.bias + shift.sum())
            of_item = i.own_pairs @ scale + i.linear
            return torch.addmm(of_item.expand(len(users), -1), u.total * scale, i.total.T) + of_user.unsqueeze(1)
        first, norm = self.hidden[0], self.hidden[1]
        assert isinstance(first, nn.Linear)
        assert isinstance(norm, nn.BatchNorm1d)
        scale_1, shift_1 = _affine(norm)
        weight = scale_1.unsqueeze(1) * first.weight * scale  # [H, K]
        offset = scale_1 * (first.weight @ shift + first.bias) + shift_1
        of_user, of_item = u.own_pairs @ weight.T + offset, i.own_pairs @ weight.T
        scores = torch.empty(len(users), len(of_item), dtype=of_item.dtype, device=of_item.device)
        step = max(1, _CELLS // max(of_item.numel(), 1))
        for start in range(0, len(users), step):
            part = slice(start, start + step)
            mixed = u.total[part].unsqueeze(2) * weight.T  # [b, K, H]
            hidden = torch.matmul(i.total, mixed).add_(of_item).add_(of_user[part].unsqueeze(1))
            scores[part] = self._after_first(hidden.relu_())
        return scores.add_((u.linear + self.bias).unsqueeze(1)).add_(i.linear)

    def _after_first(self, hidden: Tensor) -> Tensor:
        """Last layers of NFM in evaluation mode, from the first rectified layer ``[b, n_items, H]`` on."""
        for layer in list(self.hidden)[4:]:
            if isinstance(layer, nn.BatchNorm1d):
                scale, shift = _affine(layer)
                hidden = hidden * scale + shift
            else:
                hidden = layer(hidden)
        return hidden.squeeze(-1)

    # -- loss ----------------------------------------------------------------------------------------------------

    def loss(
        self,
        users: Tensor,
        items: Tensor,
        labels: Tensor,
        reg_weight: float = 0.0,
        weights: Tensor | None = None,
        share: float = 1.0,
    ) -> Tensor:
        """Log loss summed over the rows, plus ``reg_weight`` times the Frobenius norm of the feature vectors.

        Args:
            users: Long ``[B]``.
            items: Long ``[B]``.
            labels: Float ``[B]``, 1 for interactions and 0 for sampled items.
            reg_weight: As coded with DecRS: the norm itself, not its square; neither first-order weights, hidden
                layers nor group vectors are in it.
            weights: Weight of each row ``[B]``.
            share: Part of a batch that the rows are; their sum is divided by it.
        """
        of_users, of_items, norm = self.pair_sums(users, items)
        logits = self._logits(of_users, of_items)
        loss = F.binary_cross_entropy_with_logits(logits, labels, weight=weights, reduction="sum") / share
        return loss + reg_weight * norm if reg_weight > 0 else loss


class _Sums(torch.autograd.Function):
    """Sums of weighted rows of a table and of their squares, by side, and the table's Frobenius norm.

    One function, so that the gradient of the table, which is as large as the table, is made once and the rows are
    added into it, where autograd would make and add up one for each look-up and for the norm.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, sides: tuple[Rows, ...]) -> tuple[Tensor, ...]:
        """Total and squares ``[B, K]`` of each side, then the norm."""
        found: list[Tensor] = []
        kept: list[Tensor] = []
        with torch.autocast(table.device.type, enabled=False):  # sums of squares are not for half precision
            for side in sides:
                rows = table.index_select(0, side.index.reshape(-1)).view(*side.index.shape, -1)
                rows.mul_(side.value.unsqueeze(-1))
                few = table[side.start : side.start + side.dense.shape[1]]
                total = torch.addmm(rows.sum(1), side.dense, few)
                squares = torch.addmm(rows.square().sum(1), side.dense.square(), few.square())
                found += [total, squares]
                kept.append(rows)
        norm = torch.linalg.vector_norm(table)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(table, norm, *kept)
        ctx.sides = sides
        return (*found, norm)

    @staticmethod
    def backward(ctx: Any, *grad_output: Tensor | None) -> tuple[Tensor | None, ...]:
        table, norm, *kept = ctx.saved_tensors
        *of_sums, of_norm = grad_output
        if of_norm is None:
            grad = torch.zeros_like(table)
        else:
            grad = table * (of_norm / norm.clamp(min=torch.finfo(norm.dtype).tiny))
        for side, rows, total, squares in zip(ctx.sides, kept, of_sums[::2], of_sums[1::2], strict=True):
            stop = side.start + side.dense.shape[1]
            wanted = torch.zeros_like(rows)
            if squares is not None:
                torch.mul(rows, (2 * squares).unsqueeze(1), out=wanted)
                grad[side.start : stop] += 2 * table[side.start : stop] * (side.dense.square().T @ squares)
            if total is not None:
                wanted += total.unsqueeze(1)
                grad[side.start : stop].addmm_(side.dense.T, total)
            wanted.mul_(side.value.unsqueeze(-1))
            grad.index_add_(0, side.index.reshape(-1), wanted.view(-1, table.shape[1]))
        return grad, None


def _affine(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Factor and summand of batch normalisation in evaluation mode, each ``[K]``."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return scale, norm.bias - norm.running_mean * scale
