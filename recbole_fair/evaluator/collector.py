"""Collect, batch by batch, what the metrics need: one top-k a batch, no users-by-items matrix beyond the scores."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.evaluator.collector import Collector, DataStruct
from recbole.evaluator.register import Register
from recbole.utils import EvaluatorType
from torch import Tensor

from recbole_fair.config.concepts import POPULARITY
from recbole_fair.config.contract import Settings
from recbole_fair.data.contract import DataSet, EvaluationLoader, TrainingLoader, dataset_of
from recbole_fair.data.facts.concepts import Concepts
from recbole_fair.data.facts.groups import ItemGroups, UserFacts, load_item_groups, read_column
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.interactions import training_interactions
from recbole_fair.data.facts.popularity import DominantItemError, Popularity
from recbole_fair.errors import FairError
from recbole_fair.evaluator.functional.best import best_of_rows
from recbole_fair.evaluator.group_values import check_column, needs_of
from recbole_fair.evaluator.metrics import register_metrics
from recbole_fair.evaluator.options import DRIFT, MAINSTREAM, TASTE, MetricOptions
from recbole_fair.evaluator.specs import CONCEPT, GROUPS, SEGMENTS
from recbole_fair.io.processes import current

_RECBOLE_COLLECTS = ("rec.meanrank", "rec.score", "data.label")
_PARTS = 6  # of what is kept of a batch
_KINDS = {str(dtype): dtype for dtype in (torch.bool, torch.int32, torch.long, torch.float, torch.double)}


class _RecBolePart(Register):
    """RecBole's register, asking RecBole's collector only for what ours does not collect itself."""

    def need(self, key: str) -> bool:
        return key in _RECBOLE_COLLECTS and bool(super().need(key))


def of_all_processes(columns: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Batches of all processes, of which each has every ``world``-th, in their order.

    Args:
        columns: those of this process by what they hold, ``[n, ...]`` each with ``n`` of their own; maybe none.
    """
    processes = current()
    own = [
        [[len(batch) for batch in column], *((str(column[0].dtype), list(column[0].shape[1:])) if column else ())]
        for column in columns
    ]
    told: list[list[Any]] = processes.gather_values(own)
    found: list[list[Tensor]] = []
    for number, column in enumerate(columns):
        if len(told[0][number]) == 1:  # where there is any batch, the first process has the first one
            found.append([])
            continue
        dtype, shape = _KINDS[told[0][number][1]], told[0][number][2]
        sizes = [by_column[number][0] for by_column in told]
        mine = torch.cat(list(column)).cpu() if column else torch.zeros([0, *shape], dtype=dtype)
        received = processes.gather(mine, [sum(ours) for ours in sizes])
        parts = [torch.split(values, ours) for values, ours in zip(received, sizes, strict=True)]
        found.append([parts[n % len(parts)][n // len(parts)] for n in range(sum(map(len, parts)))])
    return found


def are_among(keys: Tensor, wanted: Tensor) -> Tensor:
    """Whether each entry of ``wanted`` is one of the sorted ``keys``, bool of its shape."""
    if not len(keys):
        return torch.zeros_like(wanted, dtype=torch.bool)
    return keys[torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)] == wanted


class FairCollector(Collector):
    """Collects lists, hits, held-out items and user ids, and holds popularity and histories of the training split.

    Attributes:
        options: Options of the metrics.
        popularity: Popularity of the items in training, once :meth:`data_collect` has run.
        histories: Training histories, likewise.
        n_candidates: How many of each user's best items are kept for a re-ranker, 0 for none.
    """

    def __init__(self, config: Settings) -> None:
        register_metrics()
        super().__init__(config)
        self.options = MetricOptions.from_config(config)
        self.register = _RecBolePart(config)
        self.ranking = config["eval_type"] != EvaluatorType.VALUE
        self.popularity: Popularity | None = None
        self.histories: Histories | None = None
        self.groups: ItemGroups | None = None
        self.facts: UserFacts | None = None
        self.concept: Tensor | None = None
        self._dataset: Any = None
        self._later: Any = None
        self._n_items = 0
        self.n_candidates = 0
        self._clear()

    def _clear(self) -> None:
        self._ends: list[list[int]] = []
        self._candidates: list[tuple[Tensor, Tensor]] = []
        self._batches: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]] = []

    def data_collect(self, train_data: TrainingLoader | DataSet) -> None:
        """Take popularity and histories from the training split; a second call with the same split does nothing.

        Args:
            train_data: RecBole's training data loader, or the training data set itself.
        """
        dataset = dataset_of(train_data)
        if dataset is self._dataset:
            return
        self._dataset = dataset
        inter = training_interactions(dataset)
        options = self.options
        self.popularity = Popularity.from_interactions(
            inter, options.segment_head_share, options.segment_tail_share, options.segment_by
        )
        self.histories = Histories.from_interactions(inter)
        if self.ranking:
            self._read_what_metrics_need(dataset)

    def _read_what_metrics_need(self, dataset: DataSet) -> None:
        """Read item groups and user columns, and fail now rather than after training if something is missing."""
        options, histories = self.options, self.histories
        assert histories is not None
        assert self.popularity is not None
        needs = needs_of(options)
        if SEGMENTS in needs:
            try:
                _ = self.popularity.segments
            except DominantItemError as error:
                token = dataset.field2id_token[dataset.iid_field][error.item]
                raise FairError(
                    f"{needs[SEGMENTS]} looks at head and tail items, and item {token} alone has "
                    f"{100 * error.share:.1f} % of the interactions, more than "
                    f"segment_head_share={error.head_share:g}: raise it, set segment_by=items, "
                    f"or leave {needs[SEGMENTS]} out."
                ) from error
        if GROUPS in needs and self.groups is None:
            self.groups = load_item_groups(dataset, options.group_field, needs[GROUPS])
        if CONCEPT in needs and options.concept != POPULARITY and self.concept is None:
            self.concept = Concepts(dataset).read(options.concept).weight
        special = (MAINSTREAM, DRIFT, TASTE)
        columns = {
            g.name: read_column(dataset, "user", g.name, f"group_metrics.{g.name}")
            for g in options.group_metrics
            if g.name not in special
        }
        for grouping in options.group_metrics:
            if grouping.name in columns:
                check_column(columns[grouping.name], grouping)
        self.facts = UserFacts(histories, self.groups, columns, options.ckl_smoothing)
        if any(g.name == DRIFT for g in options.group_metrics):
            self.facts.check_drift()

    def use_validation_history(self, valid_data: EvaluationLoader | DataSet | None) -> None:
        """Count validation interactions as history from now on (``metric_history: train_valid``, at test time).

        Args:
            valid_data: RecBole's validation loader or data set, or None to go back to training histories alone. Ignored
                unless the configuration says ``train_valid``.
        """
        wanted = self.options.metric_history == "train_valid"
        self._later = training_interactions(dataset_of(valid_data)) if wanted and valid_data is not None else None

    def eval_batch_collect(
        self, scores_tensor: Tensor, interaction: Interaction, positive_u: Tensor | None, positive_i: Tensor | None
    ) -> None:
        """Collect one batch.

        Args:
            scores_tensor: Scores ``[B, n_items]``, -inf for the padding item and for items that may not be shown. For
                value metrics (AUC, RMSE ...) one score a row of ``interaction``.
            interaction: The batch. In full ranking one row a user; in sampled ranking the rows of a user are together.
            positive_u: Row in ``scores_tensor`` of each held-out item; None for value metrics.
            positive_i: The held-out items.

        Raises:
            FairError: If the model's scores are not numbers.
        """
        super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
        self._ends.append([len(self.data_struct[key]) if key in self.data_struct else 0 for key in _RECBOLE_COLLECTS])
        if not self.ranking:
            if not bool(scores_tensor.isfinite().all()):
                raise FairError(
                    "The model's scores are not numbers (NaN, or infinite): training has diverged, lower learning_rate."
                )
            return
        n_rows, n_items = scores_tensor.shape
        kmax = self.options.kmax
        values, items = best_of_rows(scores_tensor, min(max(kmax, self.n_candidates), n_items))
        if not bool((values[:, 0] < math.inf).all()):  # NaN is not, and stands first as well
            raise FairError(
                "The model's scores are not numbers (NaN, or infinite): training has diverged, lower learning_rate."
            )
        # Where the candidates run out a list ends: RecBole would fill it with masked items.
        items = items.masked_fill(values == -math.inf, 0)
        if items.shape[1] < kmax:
            items = torch.nn.functional.pad(items, (0, kmax - items.shape[1]))
            values = torch.nn.functional.pad(values, (0, kmax - values.shape[1]), value=-math.inf)
        if self.n_candidates:
            self._candidates.append((items.cpu(), values.cpu()))
            items, values = items[:, :kmax], values[:, :kmax]
        assert positive_u is not None
        assert positive_i is not None
        self.take_lists(items, values, self._users(interaction, n_rows), positive_u, positive_i, n_items)

    def take_lists(
        self, items: Tensor, values: Tensor, users: Tensor, positive_u: Tensor, positive_i: Tensor, n_items: int
    ) -> None:
        """Collect lists that are made already.

        Args:
            items: Item ids ``[B, Kmax]``, best first, 0 = no item; a list may have empty places.
            values: Their scores ``[B, Kmax]``, -inf where there is no item.
            users: User of each row ``[B]``.
            positive_u: Row of each held-out item.
            positive_i: The held-out items.
            n_items: Number of item ids including the padding id 0.
        """
        n_rows, device = len(items), items.device
        self._n_items = n_items
        rows = torch.arange(n_rows, device=device).unsqueeze(1)
        # One sorted array of keys instead of a users-by-items matrix; an item held out twice counts once.
        keys = torch.unique(positive_u.to(device).long() * n_items + positive_i.to(device).long())
        hits = are_among(keys, rows * n_items + items) & (items > 0)
        n_positives = torch.bincount(keys.div(n_items, rounding_mode="floor"), minlength=n_rows)
        self._batches.append((items, hits, n_positives, keys % n_items, users, values))

    def _users(self, interaction: Interaction, n_rows: int) -> Tensor:
        users = interaction[self.config["USER_ID_FIELD"]].to(torch.long)
        if len(users) != n_rows:
            users = torch.unique_consecutive(users)
            if len(users) != n_rows:
                raise ValueError(f"{n_rows} rows of scores for {len(users)} users: a user's rows must be together.")
        return users.to(self.device)

    def forget(self) -> None:
        """Drop what was collected since the last call of :meth:`get_data_struct`."""
        self._clear()
        for key in _RECBOLE_COLLECTS:
            if key in self.data_struct:
                del self.data_struct[key]

    def _put_together(self) -> None:
        """Take the batches that the other processes have collected, in the order in which one process has them."""
        ends = [[0] * len(_RECBOLE_COLLECTS), *self._ends]
        columns: list[list[Tensor]] = []
        for column, key in enumerate(_RECBOLE_COLLECTS):
            pieces: list[Tensor] = []
            if key in self.data_struct:
                values = self.data_struct[key]
                pieces = [values[low[column] : high[column]] for low, high in itertools.pairwise(ends)]
            columns.append(pieces)
        columns += [list(part) for part in zip(*self._batches, strict=True)] or [[] for _ in range(_PARTS)]
        columns += [list(part) for part in zip(*self._candidates, strict=True)] or [[], []]
        together = of_all_processes(columns)
        for key, found in zip(_RECBOLE_COLLECTS, together, strict=False):
            if found:
                self.data_struct[key] = torch.cat(found)
        first = len(_RECBOLE_COLLECTS)
        self._batches = list(zip(*together[first : first + _PARTS], strict=True))
        self._candidates = list(zip(*together[first + _PARTS :], strict=True))
        self._n_items = int(current().of_first(self._n_items))

    def get_data_struct(self, in_parts: bool = False) -> DataStruct:
        """Hand over what was collected since the last call, on the CPU, and forget it.

        Args:
            in_parts: whether each process has collected every ``world``-th batch only.

        Returns:
            RecBole's DataStruct with, for ranking, ``rec.items`` (``[U, Kmax]``, 0 = no item), ``rec.topk`` (hits and
            number of held-out items), ``rec.users``, ``rec.values`` (the items' scores), ``rec.positives`` (row bounds
            and items), ``rec.candidates`` (items and scores ``[U, n_candidates]``, if wanted), ``data.num_items``,
            ``data.num_users``, ``data.popularity``, ``data.histories``, ``data.groups``, ``data.concept`` (weights of
            items), ``data.facts`` (about users), and RecBole's own entries.
        """
        if in_parts:
            self._put_together()
        struct = DataStruct()
        for key in _RECBOLE_COLLECTS:
            if key in self.data_struct:
                struct[key] = self.data_struct[key].cpu()
                del self.data_struct[key]
        if self._batches:
            items, hits, n_positives, held_out, users, values = (
                torch.cat(p).cpu() for p in zip(*self._batches, strict=True)
            )
            if self._candidates:
                struct["rec.candidates"] = tuple(torch.cat(part) for part in zip(*self._candidates, strict=True))
            self._clear()
            struct["rec.items"] = items
            struct["rec.topk"] = torch.cat([hits.long(), n_positives.unsqueeze(1)], dim=1)
            struct["rec.users"] = users
            struct["rec.values"] = values
            struct["data.num_items"] = self._n_items
            struct["rec.positives"] = torch.cat([n_positives.new_zeros(1), n_positives.cumsum(0)]), held_out
        self._add_training_data(struct)
        return struct

    def _add_training_data(self, struct: DataStruct) -> None:
        if self.popularity is None or self.histories is None:
            return
        struct["data.num_users"] = self.histories.n_users
        struct["data.popularity"] = self.popularity
        struct["data.histories"] = self.histories if self._later is None else self.histories.extended(self._later)
        if self.groups is not None:
            struct["data.groups"] = self.groups
        if self.concept is not None:
            struct["data.concept"] = self.concept
        if self.facts is not None:
            struct["data.facts"] = self.facts
        foreign = Register(self.config)
        # Metrics that others registered with RecBole may want its counters.
        if foreign.need("data.count_items"):
            struct["data.count_items"] = Counter(dict(enumerate(self.popularity.counts.tolist())))
        if foreign.need("data.count_users"):
            struct["data.count_users"] = Counter(dict(enumerate(self.histories.lengths.tolist())))
