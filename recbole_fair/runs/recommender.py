"""Lists for anybody from a checkpoint alone: ``Recommender.load(file).recommend(histories)``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender, AutoEncoderMixin
from recbole.model.general_recommender import CDAE
from recbole.utils import ModelType
from torch import Tensor

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.traits import Traits
from recbole_fair.data.facts.id_rows import IntArray, Rows, rows_by_split
from recbole_fair.data.facts.stored import DATA, StoredDataset
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import restore_model
from recbole_fair.io.imported import open_checkpoint
from recbole_fair.io.latest import named_checkpoint
from recbole_fair.model.bases.split import Split
from recbole_fair.model.concept_steering import ConceptSteering
from recbole_fair.model.contract import contract_of
from recbole_fair.model.posthoc import PostHocModel
from recbole_fair.runs.building import new_model
from recbole_fair.runs.histories import write_lists
from recbole_fair.runs.loading import config_of
from recbole_fair.runs.served import ServedAdjuster, served_adjuster
from recbole_fair.runs.steered_lists import steered_notes
from recbole_fair.trainer.steering_costs import STEERING

Token = str | int
#: Changes scores ``[B, n_items]`` of users with these histories before the lists.
Adjustment = Callable[[Tensor, "Rows"], Tensor]

_CPU_ROWS, _GPU_ROWS = 128, 8192


@dataclass
class Recommendations:
    """Lists with what there is to know about them.

    Attributes:
        users: the users' names; numbers from 0 where histories had none.
        ids: long ``[U, k]`` inner item ids, 0 where a list ends early.
        scores: float ``[U, k]`` the model's scores.
        item_ids: the data's own ids by inner id.
        titles: readable names by inner id, or None.
        unknown_items: items of histories that the model does not know; they were skipped.
        unknown_users: users whom the model does not know.
        popular: users who got the most popular items, for want of anything known about them.
        notes: sentences on all this.
    """

    users: list[str]
    ids: Tensor
    scores: Tensor
    item_ids: Sequence[str]
    titles: Sequence[str] | None = None
    unknown_items: int = 0
    unknown_users: int = 0
    popular: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def items(self) -> list[list[str]]:
        """The lists, in the data's own ids."""
        return [[self.item_ids[item] for item in row if item] for row in self.ids.tolist()]

    def __len__(self) -> int:
        return len(self.users)

    def place(self, index: IntArray, scores: Tensor) -> None:
        """Make the lists of some users out of scores ``[B, n_items]``, -inf for what may not be shown."""
        values, items = scores.topk(self.ids.shape[1], dim=1)
        where = torch.from_numpy(index)
        self.ids[where] = items.masked_fill(values == -torch.inf, 0).cpu()
        self.scores[where] = values.float().cpu()

    def to_frame(self) -> pd.DataFrame:
        """A row a recommended item: user, item, rank (from 1), score and, where there are titles, title."""
        ids = self.ids.numpy()
        row, column = np.nonzero(ids)
        listed = ids[row, column]
        frame = pd.DataFrame(
            {
                "user": np.asarray(self.users, dtype=object)[row],
                "item": np.asarray(self.item_ids, dtype=object)[listed],
                "rank": column + 1,
                "score": self.scores.numpy()[row, column],
            }
        )
        if self.titles is not None:
            frame["title"] = np.asarray(self.titles, dtype=object)[listed]
        return frame

    def write(self, path: str | Path) -> None:
        """Write :meth:`to_frame` as csv, parquet or jsonl, by the ending; see :mod:`recbole_fair.runs.histories`."""
        write_lists(path, self)


class Recommender:
    """A model with the ids of its items, ready to recommend.

    Args:
        model: the model, on its device.
        config: its settings.
        dataset: what the checkpoint carries of its data.

    Attributes:
        model: the model.
        config: its settings.
        dataset: what the checkpoint carries of its data.
        item_ids: the data's own ids by inner id, the padding's first.
        titles: readable names of the items by inner id, or None.
        popularity: long ``[n_items]`` training interactions.
        item_bias: ``[n_items]`` added to the scores of everybody, or None: a learnt one (Lorenz) stands here.
        adjustments: further changes of the scores, in order, once what may not be shown is -inf.
        served: a score adjuster of the settings (Tilt) that is more than an item bias, or None.
        notes: sentences that belong to every answer.
        steering: what steering towards concepts costs, as the checkpoint knows it.
    """

    def __init__(self, model: AbstractRecommender, config: FairConfig, dataset: StoredDataset) -> None:
        self.model, self.config, self.dataset = model.eval(), config, dataset
        data = dataset.stored
        self.item_ids: list[str] = list(data["items"])
        self.titles: list[str] | None = data["titles"]
        self.popularity: Tensor = data["counts"]
        self.item_bias: Tensor | None = None
        self.adjustments: list[Adjustment] = []
        self.served: ServedAdjuster | None = None
        self.notes: list[str] = []
        self.steering: list[dict[str, Any]] = []
        self.user_ids: list[str] = list(data["users"])
        self._item_numbers = {token: number for number, token in enumerate(self.item_ids)}
        self._user_numbers = {token: number for number, token in enumerate(data["users"])}
        self._item_numbers.pop(self.item_ids[0])  # the padding
        self._user_numbers.pop(data["users"][0])
        self._seen = rows_by_split(data["interactions"], len(data["users"]))
        self.sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        self.window = int(config["MAX_ITEM_LIST_LENGTH"] or 0)

    @classmethod
    def load(
        cls,
        path: str | Path,
        config_dict: Mapping[str, Any] | None = None,
        model: type[AbstractRecommender] | None = None,
    ) -> Recommender:
        """The recommender of a checkpoint; its data are not looked at.

        Args:
            path: a checkpoint of ours, or of plain RecBole once it was imported where its data are.
            config_dict: settings to change: strengths, ``use_gpu``.
            model: the class, for a model that is neither ours nor RecBole's.

        Raises:
            FairError: for a file that cannot be used, or that carries no ids of items.
        """
        path = named_checkpoint(path, config_dict)
        content = open_checkpoint(path)
        data = content.get(DATA)
        if not data:
            raise FairError(
                f"{path} carries no ids of items, so that it can recommend nothing to anybody: `recbole-fair import` "
                "writes a checkpoint with them where the data are, and so does every new training."
            )
        config = config_of(content, config_dict, model)
        try:
            dataset = StoredDataset(config, data)
            net = new_model(config, dataset, content["state_dict"])
            restore_model(net, content, path)
        except FairError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise FairError(
                f"{config['model']} cannot be built from {path} alone: it reads more of its data than a checkpoint "
                f"carries ({error})."
            ) from error
        made = cls(net, config, dataset)
        made.steering = list(content.get(STEERING) or [])
        made.served, made.notes = served_adjuster(config, content)
        if made.served is not None and made.served.item_bias is not None:
            made.item_bias, made.served = made.served.item_bias, None
        return made

    @property
    def adjuster_per_user(self) -> str | None:
        """Name of the adjuster that changes each user's scores in a way of their own, if one is in use."""
        return None if self.served is None else type(self.served.adjuster).__name__

    # -- recommending --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def recommend(
        self,
        histories: Mapping[str, Iterable[Token]] | Sequence[Iterable[Token]] | None = None,
        k: int = 10,
        *,
        users: Sequence[Token] | None = None,
        strengths: Mapping[str, Any] | None = None,
        variant: str | None = None,
        exclude_seen: bool = True,
        exclude: Iterable[Token] = (),
        allowed: Iterable[Token] | None = None,
        batch_size: int | None = None,
    ) -> Recommendations:
        """The best items for each history or user.

        Args:
            histories: items of each user, oldest first, in the data's own ids; a mapping names the users as well.
            k: length of the lists.
            users: names of the users, for models that know users by name (or the names of the histories).
            strengths: of a steered model, for this call.
            variant: how a steered model scores, such as ``base``; what the model is about when left out.
            exclude_seen: whether to leave out the items of a history and, of users whom the checkpoint knows, those
                of training and validation.
            exclude: items that nobody shall get.
            allowed: the only items that anybody may get; all when left out.
            batch_size: users scored at once.

        Returns:
            The lists, in the order of the histories or users.

        Raises:
            FairError: for a model that cannot do this, strengths it does not have, or items of ``exclude`` or
                ``allowed`` that it does not know.
        """
        if k < 1:
            raise FairError(f"k={k} is not allowed: lists have at least one item.")
        names, rows, numbers, found = self._read(histories, users)
        blocked = self._blocked(exclude, allowed)
        k = min(k, len(self.item_ids) - 1)
        n = len(names)
        found.ids = torch.zeros((n, k), dtype=torch.long)
        found.scores = torch.zeros((n, k))
        known = self._can_score(rows, numbers)
        order = np.flatnonzero(known)
        order = order[np.argsort(np.minimum(rows.lengths[order], self.window), kind="stable")]
        device = self.config["device"]
        size = batch_size or (_CPU_ROWS if device.type == "cpu" else _GPU_ROWS)

        def fill(lists: Recommendations) -> None:
            for begin in range(0, len(order), size):
                index = order[begin : begin + size]
                part = rows.take(index)
                scores = self._scores(part, numbers[index])
                scores = self._masked(scores, part, numbers[index], exclude_seen, blocked)
                lists.place(index, self._adjusted(scores, part, numbers[index], k))

        with self.scoring(strengths, variant):
            fill(found)
            if isinstance(self.model, ConceptSteering) and (steps := self.model.concept_steps()):
                before = dataclasses.replace(found, ids=torch.zeros_like(found.ids), scores=found.scores.clone())
                with self.model.use_variant(self.model.base_variant):
                    fill(before)
                found.notes += steered_notes(self.model, steps, before.ids, found.ids, self.steering)
        self._give_popular(np.flatnonzero(~known), rows, numbers, exclude_seen, blocked, found)
        return found

    def _read(
        self, histories: Mapping[str, Iterable[Token]] | Sequence[Iterable[Token]] | None, users: Sequence[Token] | None
    ) -> tuple[list[str], Rows, IntArray, Recommendations]:
        """Names of users, their histories and inner ids, and an answer with the counts of what is not known."""
        if histories is None and users is None:
            raise FairError("Nobody to recommend to: give histories or users.")
        if isinstance(histories, Mapping):
            users = list(histories) if users is None else users
            histories = list(histories.values())
        given = [[] for _ in users or ()] if histories is None else [_as_list(row) for row in histories]
        if users is not None and len(users) != len(given):
            raise FairError(f"{len(users)} users for {len(given)} histories: give as many of one as of the other.")
        rows, unknown_items = self.numbered(given)
        names = [str(user) for user in users] if users is not None else [str(row) for row in range(len(given))]
        numbers = np.zeros(len(names), dtype=np.int64)
        if users is not None:
            numbers = np.fromiter((self._user_numbers.get(name, 0) for name in names), np.int64, len(names))
        found = Recommendations(names, torch.empty(0), torch.empty(0), self.item_ids, self.titles)
        found.notes += self.notes
        found.unknown_items = unknown_items
        if unknown_items:
            found.notes.append(f"Items of histories that the model does not know, skipped: {unknown_items}.")
        if self._knows_users_by_name:
            found.unknown_users = int((numbers == 0).sum())
            if users is None:
                raise FairError(f"{self.config['model']} knows users by name, not by history: give users.")
        if found.unknown_users:
            found.notes.append(f"Users whom the model does not know: {found.unknown_users}.")
        return names, rows, numbers, found

    def numbered(self, given: Sequence[Sequence[Token]]) -> tuple[Rows, int]:
        """Histories in inner ids, without the items that are not known, and how many these were."""
        lengths = np.fromiter(map(len, given), dtype=np.int64, count=len(given))
        flat: list[Any] = list(chain.from_iterable(given))
        if not set(map(type, flat)) <= {str}:
            flat = list(map(str, flat))
        items = np.fromiter(map(self._item_numbers.get, flat, repeat(0)), np.int64, len(flat))
        known = items > 0
        unknown = len(items) - int(known.sum())
        if unknown:
            kept = np.concatenate([[0], known.cumsum()])
            ends = lengths.cumsum()
            lengths = kept[ends] - kept[ends - lengths]
            items = items[known]
        return Rows(np.concatenate([[0], lengths.cumsum()]), items), unknown

    @property
    def base(self) -> AbstractRecommender:
        """The model without what stands on it."""
        return self.model.base if isinstance(self.model, PostHocModel) else self.model

    @property
    def folds_in(self) -> bool:
        """Whether a general model reads a user's row of items, so that a new row will do."""
        return isinstance(self.base, AutoEncoderMixin) and not isinstance(self.base, CDAE)

    @property
    def _knows_users_by_name(self) -> bool:
        return not self.sequential and not self.folds_in

    def _can_score(self, rows: Rows, numbers: IntArray) -> npt.NDArray[np.bool_]:
        """Which users the model can say something about."""
        if self._knows_users_by_name:
            return numbers > 0
        if self.sequential:
            return rows.lengths > 0
        return (rows.lengths > 0) | (numbers > 0)

    # -- scores --------------------------------------------------------------------------------------------------

    @contextmanager
    def scoring(self, strengths: Mapping[str, Any] | None, variant: str | None) -> Iterator[None]:
        """The model under some strengths and in a variant."""
        model = contract_of(self.model)
        before = model.strengths
        with ExitStack() as stack:
            if strengths:
                unknown = [name for name in strengths if name not in model.strength_keys]
                if unknown:
                    has = ", ".join(model.strength_keys) or "none"
                    raise FairError(f"{unknown[0]} is no strength of {self.config['model']}, which has: {has}.")
                stack.callback(model.set_strengths, **before)
                model.set_strengths(**strengths)
            stack.enter_context(model.use_variant(variant or model.final_variant))
            yield

    def _scores(self, rows: Rows, numbers: IntArray) -> Tensor:
        """``[B, n_items]`` scores of the model."""
        if self.sequential:
            scores = self._score_sequences(rows, numbers)
        elif self.folds_in:
            scores = self._score_rows(rows, numbers)
        else:
            scores = self._full_sort({self.config["USER_ID_FIELD"]: torch.from_numpy(numbers)}, len(numbers))
        return scores

    def _score_sequences(self, rows: Rows, numbers: IntArray) -> Tensor:
        base: Any = self.base
        index = np.arange(len(numbers))
        last = rows.take(index, self.window)
        # Only models that are known to give the same for any padding may be shown less than the whole window.
        narrow = isinstance(base, Split) and base.any_width
        width = max(int(last.lengths.max()), 1) if narrow else self.window
        columns = {
            base.USER_ID: torch.from_numpy(numbers),
            base.ITEM_SEQ: last.padded(width),
            base.ITEM_SEQ_LEN: torch.from_numpy(last.lengths),
        }
        return self._full_sort(columns, len(numbers))

    def _score_rows(self, rows: Rows, numbers: IntArray) -> Tensor:
        """Scores of an autoencoder for new rows of items; known users without one get their own."""
        base: Any = self.base
        own = (rows.lengths == 0) & (numbers > 0)
        held = [self._seen_of(int(numbers[r]), "train") if own[r] else rows.row(r) for r in range(len(numbers))]
        filled = Rows.of([np.unique(row).tolist() for row in held])
        items = filled.padded(max(int(filled.lengths.max()), 1)).to(self.config["device"])
        before = base.history_item_id, base.history_item_value
        base.history_item_id, base.history_item_value = items, (items > 0).float()
        try:
            return self._full_sort({base.USER_ID: torch.arange(len(numbers))}, len(numbers))
        finally:
            base.history_item_id, base.history_item_value = before

    def _full_sort(self, columns: dict[str, Tensor], n: int) -> Tensor:
        batch = Interaction(columns).to(self.config["device"])
        if self.config["MODEL_TYPE"] == ModelType.CONTEXT and not Traits.of(type(self.model)).ranks_all_items:
            return self._score_pairs(columns)
        try:
            scores: Tensor = self.model.full_sort_predict(batch)
        except KeyError as error:
            raise FairError(
                f"{self.config['model']} also reads {error} of past interactions, which histories of items do not hold."
            ) from error
        except NotImplementedError as error:
            raise FairError(f"{self.config['model']} cannot score all items at once.") from error
        return scores.view(n, -1)[:, : len(self.item_ids)]

    def _score_pairs(self, columns: Mapping[str, Tensor]) -> Tensor:
        """Scores of a context-aware model, which looks at one pair of user and item at a time, with their columns."""
        n_items = len(self.item_ids)
        rows = []
        for row in range(len(next(iter(columns.values())))):
            pairs = {name: values[row].expand(n_items) for name, values in columns.items()}
            pairs[self.config["ITEM_ID_FIELD"]] = torch.arange(n_items)
            batch = self.dataset.join(Interaction(pairs)).to(self.config["device"])
            rows.append(self.model.predict(batch).reshape(-1))
        return torch.stack(rows)

    # -- lists ---------------------------------------------------------------------------------------------------

    def _masked(self, scores: Tensor, rows: Rows, numbers: IntArray, exclude_seen: bool, blocked: Tensor) -> Tensor:
        """Scores ``[B, n_items]`` with -inf for what may not be shown; changed in place."""
        scores[:, blocked.nonzero().squeeze(1).to(scores.device)] = -torch.inf
        if exclude_seen:
            row = np.repeat(np.arange(len(numbers)), rows.lengths)
            scores[torch.from_numpy(row), torch.from_numpy(rows.items)] = -torch.inf
            for where in np.flatnonzero(numbers):
                scores[int(where), torch.from_numpy(self._seen_of(int(numbers[where])))] = -torch.inf
        return scores

    def _adjusted(self, scores: Tensor, rows: Rows, numbers: IntArray, k: int) -> Tensor:
        """Masked scores ``[B, n_items]`` as the adjustments want them."""
        if self.item_bias is not None:
            scores = scores + self.item_bias.to(scores.device)
        for adjust in self.adjustments:
            scores = adjust(scores, rows)
        return scores if self.served is None else self.served(scores, self._pasts(rows, numbers), k)

    def _pasts(self, rows: Rows, numbers: IntArray) -> Rows:
        """Histories: those given, and of known users without one those of training."""
        if self.sequential or not np.any((rows.lengths == 0) & (numbers > 0)):
            return rows
        pasts = [rows.row(r) if rows.lengths[r] else self._seen_of(int(n), "train") for r, n in enumerate(numbers)]
        return Rows.of([past.tolist() for past in pasts])

    def _blocked(self, exclude: Iterable[Token], allowed: Iterable[Token] | None) -> Tensor:
        """Bool ``[n_items]`` what nobody may get."""
        blocked = torch.zeros(len(self.item_ids), dtype=torch.bool)
        if allowed is not None:
            blocked[:] = True
            blocked[self._numbers_of(allowed, "allowed")] = False
        blocked[self._numbers_of(exclude, "exclude")] = True
        blocked[0] = True
        return blocked

    def _numbers_of(self, tokens: Iterable[Token], name: str) -> Tensor:
        numbers = []
        for token in tokens:
            if str(token) not in self._item_numbers:
                raise FairError(f"{name}: the model knows no item {str(token)!r}.")
            numbers.append(self._item_numbers[str(token)])
        return torch.tensor(numbers, dtype=torch.long)

    def _seen_of(self, number: int, split: str | None = None) -> IntArray:
        """Items of a known user in training and validation."""
        parts = [rows for name, rows in self._seen.items() if split in (None, name)]
        return np.concatenate(
            [np.zeros(0, dtype=np.int64), *(r.items[r.starts[number] : r.starts[number + 1]] for r in parts)]
        )

    def _give_popular(
        self,
        index: IntArray,
        rows: Rows,
        numbers: IntArray,
        exclude_seen: bool,
        blocked: Tensor,
        found: Recommendations,
    ) -> None:
        """The most popular items for those about whom nothing is known, with a note."""
        found.popular = len(index)
        if not len(index):
            return
        scores = self.popularity.float().repeat(len(index), 1)
        found.place(index, self._masked(scores, rows.take(index), numbers[index], exclude_seen, blocked))
        why = "unknown users" if self._knows_users_by_name else "without a known item in their history"
        found.notes.append(
            f"Users who got the most popular items ({why}): {len(index)}. Their scores are numbers of interactions."
        )


def _as_list(row: Iterable[Token]) -> Sequence[Token]:
    if isinstance(row, str):
        raise FairError(f"A history is a list of items, not the text {row!r}.")
    return row if isinstance(row, list | tuple) else list(row)
