"""RecBole's data sets, filled from our reading and prepared on arrays: the same tables, ids and splits in seconds."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_fair.data.batches.tensor_columns import rows_of
from recbole_fair.data.reading.cache import cached_table
from recbole_fair.data.reading.filters import Side, kept_rows, numbered
from recbole_fair.data.reading.order import stable_order
from recbole_fair.data.reading.splits import Groups, Ints, by_ratio, by_time, leave_out
from recbole_fair.data.reading.table import Table, TextColumn, form_of, read_header, read_table
from recbole_fair.data.reading.times import check_times
from recbole_fair.errors import FairError

logger = logging.getLogger(__name__)

_Objects = npt.NDArray[np.object_]
_Part = tuple[pd.DataFrame, str, FeatureType]


@cache
def quick(kind: type[Dataset]) -> type[Dataset]:
    """A class of data sets whose files are read and prepared by :class:`QuickReading`.

    Args:
        kind: RecBole's class, or one derived from it. One that reads files by itself is left as it is.
    """
    if kind._load_feat is not Dataset._load_feat:
        logger.info("%s reads its files itself, the slow way.", kind.__name__)
        return kind
    return type(kind.__name__, (QuickReading, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})


class QuickReading(Dataset):
    """What RecBole's data sets do on the way from files to splits, with the same outcome; mixed into each of them."""

    inter_feat: Any  # a table before ``build``, columns of tensors after it
    user_feat: Any
    item_feat: Any
    #: Whether nobody asks for the interactions of all splits together once they are split.
    splits_alone = False
    _waits = False
    _order: Ints | None = None
    _by: str | None = None  # a column by which rows are to be sorted, not worked out yet

    def _load_feat(self, filepath: str, source: FeatureSource | str) -> pd.DataFrame | None:
        load_col, unload_col = self._get_load_and_unload_col(source)
        if load_col == set():
            return None
        path, form = Path(filepath), form_of(self.config)
        header = read_header(path, form)
        columns = [
            name
            for name in header
            if (load_col is None or name in load_col) and (unload_col is None or name not in unload_col)
        ]
        if source != "link":
            self._note_columns({name: FeatureType(header[name]) for name in columns}, source)
        if not columns:
            logger.warning("No columns of %s are loaded.", path)
            return None
        read = cached_table if self.config["data_cache"] else read_table
        table = read(path, form, columns)
        if not table.n_rows:
            what = "interactions" if source == FeatureSource.INTERACTION else "rows"
            raise FairError(f"{path} has a header but no {what}.")
        table.check_ids(self._id_fields())
        if source == FeatureSource.INTERACTION:
            check_times(self.config, table)
        return self._frame(table, columns)

    def _note_columns(self, columns: dict[str, FeatureType], source: FeatureSource | str) -> None:
        for name, kind in columns.items():
            self.field2source[name] = source
            self.field2type[name] = kind
            if not kind.value.endswith("seq"):
                self.field2seqlen[name] = 1
            if "float" in kind.value:
                self.field2bucketnum[name] = 2

    def _id_fields(self) -> list[str]:
        """Columns in which every row must hold an id."""
        fields = [self.uid_field, self.iid_field, *(self.config["preload_weight"] or {})]
        for kind, own in (
            ("entity", ("HEAD_ENTITY_ID_FIELD", "TAIL_ENTITY_ID_FIELD", "ENTITY_ID_FIELD")),
            ("relation", ("RELATION_ID_FIELD",)),
            ("user", ()),
            ("item", ()),
        ):
            fields += [*(self.config[key] for key in own), *(self.config[f"alias_of_{kind}_id"] or ())]
        return fields

    def _frame(self, table: Table, columns: Sequence[str]) -> pd.DataFrame:
        """The table as RecBole's methods take it, ids as categories and sequences as arrays."""
        frame: dict[str, Any] = {}
        for name in columns:
            if name in table.numbers:
                frame[name] = table.numbers[name].values
                continue
            column = table.texts[name]
            frame[name] = _tokens(column) if column.kind == "token" else self._sequences(table, name, column)
        return pd.DataFrame(frame, copy=False)

    def _sequences(self, table: Table, name: str, column: TextColumn) -> _Objects:
        separator, most = self.config["seq_separator"], (self.config["seq_len"] or {}).get(name)
        parts = np.empty(len(column.texts), dtype=object)
        for number, text in enumerate(column.texts):
            words = list(filter(None, text.split(separator)))
            try:
                parts[number] = np.array(words if column.kind == "token_seq" else [float(word) for word in words])
            except ValueError as error:
                line = table.line_of(int(np.argmax(column.codes == number)))
                raise FairError(
                    f"{table.path}, line {line}: the column '{name}' holds something that is not a sequence of "
                    f"numbers ({error})."
                ) from error
        longest = max(map(len, parts))
        if most and longest > most:
            parts[:] = [part[:most] for part in parts]
        self.field2seqlen[name] = min(most, longest) if most else longest
        return parts[column.codes]

    # -- filters and ids -----------------------------------------------------------------------------------------

    def _filter_inter_by_user_or_item(self) -> None:
        if self.config["filter_inter_by_user_or_item"] is not True:
            return
        kept = np.ones(len(self.inter_feat), dtype=bool)
        for field, feat in ((self.uid_field, self.user_feat), (self.iid_field, self.item_feat)):
            if feat is None:
                continue
            codes, size, named = numbered(self.inter_feat[field], feat[field])
            known = np.zeros(size + 1, dtype=bool)
            known[named] = True
            known[size] = False  # -1, whom no interaction names
            kept &= known[codes]
        self.inter_feat = _rows(self.inter_feat, kept)

    def _filter_by_inter_num(self) -> None:
        if self.uid_field is None or self.iid_field is None:
            return
        sides = []
        for field, feat, key in (
            (self.uid_field, self.user_feat, "user_inter_num_interval"),
            (self.iid_field, self.item_feat, "item_inter_num_interval"),
        ):
            intervals = self._parse_intervals_str(self.config[key])
            codes, size, feature = numbered(self.inter_feat[field], None if feat is None else feat[field])
            within = None if not intervals else lambda counts, ends=intervals: self._within_intervals(counts, ends)
            sides.append(Side(codes, size, feature, within, intervals[0][1] if intervals else -1))
        if sides[0].within is None and sides[1].within is None:
            return
        self.inter_feat = _rows(self.inter_feat, kept_rows(*sides))
        if self.user_feat is not None:
            self.user_feat = _rows(self.user_feat, sides[0].kept)
        if self.item_feat is not None:
            self.item_feat = _rows(self.item_feat, sides[1].kept)

    def _reset_index(self) -> None:
        # Rows that a filter took are views; what follows writes into them.
        for name in self.feat_name_list:
            feat: pd.DataFrame = getattr(self, name)
            if feat.empty:
                raise ValueError("Some feat is empty, please check the filtering settings.")
            if not feat.index.equals(pd.RangeIndex(len(feat))):
                setattr(self, name, feat.reset_index(drop=True))

    def _remap(self, remap_list: list[_Part]) -> None:
        """Number the tokens of columns that share one numbering, in order of appearance, from 1; 0 is no token."""
        if not remap_list:
            return
        parts = [_local_numbers(*part) for part in remap_list]
        numbers, found = pd.factorize(np.concatenate([texts for _, texts in parts]))
        tokens = np.array(["[PAD]", *found])
        token_id = {token: number for number, token in enumerate(tokens)}
        ends = np.cumsum([len(texts) for _, texts in parts])[:-1]
        for (feat, field, kind), (local, _), part in zip(remap_list, parts, np.split(numbers, ends), strict=True):
            if field not in self.field2id_token:
                self.field2id_token[field] = tokens
                self.field2token_id[field] = token_id
            ids = np.append(part + 1, 0)[local]  # -1, no token, is the last
            if kind == FeatureType.TOKEN:
                feat[field] = ids
            else:
                feat[field] = pd.Series(np.split(ids, np.cumsum(feat[field].map(len))[:-1]), index=feat.index)

    # -- what is said about the data -----------------------------------------------------------------------------

    @property
    def avg_actions_of_users(self) -> float:
        """Mean number of interactions of the users that have any."""
        return self._mean_actions(self.uid_field)

    @property
    def avg_actions_of_items(self) -> float:
        """Mean number of interactions of the items that have any."""
        return self._mean_actions(self.iid_field)

    def _mean_actions(self, field: str) -> float:
        ids = np.asarray(self.inter_feat[field])
        return len(ids) / max(int(np.count_nonzero(np.bincount(ids))), 1)

    def build(self) -> list[Dataset]:
        """RecBole's split. Rows are put into order together with it, in one step, not before."""
        try:
            return super().build()
        finally:
            self._waits = False
            if self._order_matters() and (order := self._known_order()) is not None:
                self._put(order)
            self._order = self._by = None

    def _change_feat_format(self) -> None:
        super()._change_feat_format()
        self._waits = True  # what sorts or shuffles from here on is followed by the split

    def _dataframe_to_interaction(self, data: pd.DataFrame) -> Interaction:
        lists = {name: data[name] for name in data if self.field2type[name] == FeatureType.TOKEN_SEQ}
        if not lists or not len(data):
            return super()._dataframe_to_interaction(data)
        others = super()._dataframe_to_interaction(data.drop(columns=list(lists)))
        tables = {name: _padded(column, self.field2seqlen[name]) for name, column in lists.items()}
        return Interaction({name: tables[name] if name in tables else others[name] for name in data})

    def copy(self, new_inter_feat: Interaction) -> Dataset:
        """This data set with other interactions, which are in order already."""
        twin = super().copy(new_inter_feat)
        twin._waits, twin._order, twin._by = False, None, None
        return twin

    def _order_matters(self) -> bool:
        """Whether the rows of the whole data set are looked at after the split: popular items are drawn from them."""
        phases = ("train", "valid", "test")
        return bool(self.config["repeatable"]) and any(
            self.config[f"{phase}_neg_sample_args"]["distribution"] == "popularity" for phase in phases
        )

    def shuffle(self) -> None:
        """Shuffle the interactions in place."""
        if self._waits:
            self._order, self._by = torch.randperm(len(self.inter_feat)).numpy(), None
        else:
            super().shuffle()

    def sort(self, by: str | Sequence[str], ascending: bool | Sequence[bool] = True) -> None:
        """Sort the interactions in place, as RecBole does: stably.

        Args:
            by: the columns, the most important first.
            ascending: whether they rise, all of them or each.
        """
        names = [by] if isinstance(by, str) else list(by)
        columns = self.inter_feat.interaction
        if ascending is not True or any(name not in columns for name in names):
            super().sort(by, ascending)
            return
        if self._waits and len(names) == 1 and columns[names[0]].dim() == 1:
            self._order, self._by = None, names[0]
            return
        order: Ints | None = None
        for name in reversed(names):
            column = columns[name]
            keys = (column if column.dim() == 1 else column[..., 0]).numpy()
            step = stable_order(keys if order is None else keys[order])
            if step is not None:
                order = step if order is None else order[step]
        if self._waits:
            self._order, self._by = order, None
        elif order is not None:
            self._put(order)

    def _put(self, order: Ints) -> None:
        """Put the interactions into an order."""
        columns, index = self.inter_feat.interaction, torch.from_numpy(order)
        for name in columns:
            columns[name] = rows_of(columns[name], index)

    def _known_order(self) -> Ints | None:
        """The order that rows are to have; None where they have it."""
        if self._by is not None:
            self._order, self._by = stable_order(self.inter_feat[self._by].numpy()), None
        return self._order

    # -- splits --------------------------------------------------------------------------------------------------

    def split_by_ratio(self, ratios: Sequence[float], group_by: str | None = None) -> list[Dataset]:
        """RecBole's split by ratios, of all rows or of each group's.

        Args:
            ratios: share of each part; they need not sum to 1.
            group_by: column whose values make the groups.
        """
        shares = [ratio / sum(ratios) for ratio in ratios]
        if group_by is None:
            self._known_order()
            ends = [0, *self._calcu_split_ids(tot=len(self), ratios=shares), len(self)]
            rows = [np.arange(start, stop) for start, stop in itertools.pairwise(ends)]
        else:
            rows = by_ratio(
                self._groups(group_by), len(shares), lambda size: self._calcu_split_ids(tot=size, ratios=shares)
            )
        return self._parts(rows)

    def leave_one_out(self, group_by: str | None, leave_one_mode: str) -> list[Dataset]:
        """RecBole's split by each group's last rows.

        Args:
            group_by: column whose values make the groups.
            leave_one_mode: ``valid_and_test``, ``valid_only`` or ``test_only``.

        Raises:
            ValueError: without a group.
            NotImplementedError: for another mode.
        """
        if group_by is None:
            raise ValueError("leave one out strategy require a group field")
        empty = np.zeros(0, dtype=np.int64)
        if leave_one_mode == "valid_and_test":
            rows = leave_out(self._groups(group_by), 2)
        elif leave_one_mode == "valid_only":
            rows = [*leave_out(self._groups(group_by), 1), empty]
        elif leave_one_mode == "test_only":
            train, test = leave_out(self._groups(group_by), 1)
            rows = [train, empty, test]
        else:
            raise NotImplementedError(f"The leave_one_mode [{leave_one_mode}] has not been implemented.")
        return self._parts(rows)

    def time_based_split(self, ratios: Sequence[float], group_by: str | None) -> list[Dataset]:
        """RecBole's split at one time for all, the earlier rows of each group by ratios.

        Args:
            ratios: shares of training, validation and test.
            group_by: column whose values make the groups.

        Raises:
            ValueError: without a group, or without timestamps.
        """
        if group_by is None:
            raise ValueError("Time-based split strategy requires a group field")
        if self.time_field not in self.inter_feat:
            raise ValueError(f"Field [{self.time_field}] is not in inter_feat.")
        shares = [ratio / sum(ratios) for ratio in ratios]
        times = self._in_order(self.time_field)
        early = times <= np.percentile(times, 100 * (1 - shares[-1]))
        return self._parts(by_time(self._groups(group_by), early, shares[0] / (1 - shares[2])))

    def _groups(self, field: str) -> Groups:
        """The groups of a column; as long as the order is not worked out, with rows as they stand."""
        if self._by is not None:
            found = Groups.of_sorted(self.inter_feat[field].numpy(), self.inter_feat[self._by].numpy())
            if found is not None:
                return found
        return Groups.of(self._in_order(field))

    def _in_order(self, field: str) -> npt.NDArray[Any]:
        """A column of the interactions in the order that they will have."""
        values, order = self.inter_feat[field].numpy(), self._known_order()
        return values if order is None else values[order]

    def _parts(self, rows: Sequence[Ints]) -> list[Dataset]:
        self._drop_unused_col()
        index = [torch.from_numpy(part if self._order is None else self._order[part]) for part in rows]
        columns = self.inter_feat.interaction
        parts: list[dict[str, torch.Tensor]] = [{} for _ in rows]
        for name in list(columns):
            for part, of_part in zip(parts, index, strict=True):
                part[name] = rows_of(columns[name], of_part)
            if self.splits_alone and not self._order_matters():
                del columns[name]  # at once: beside its parts the whole would be most of the memory
        return [self.copy(Interaction(part)) for part in parts]


def _rows(frame: pd.DataFrame, kept: npt.NDArray[np.bool_]) -> pd.DataFrame:
    """The rows that are kept; the frame itself where all are."""
    return frame if kept.all() else frame[kept]


def _padded(lists: pd.Series, most: int) -> torch.Tensor:
    """``[n, L]`` ids of lists, cut to so many and padded with 0 at the right."""
    cut = [ids[:most] for ids in lists]
    lengths = np.fromiter(map(len, cut), dtype=np.int64, count=len(cut))
    table = np.zeros((len(cut), int(lengths.max())), dtype=np.int64)
    table[np.arange(table.shape[1]) < lengths[:, None]] = np.concatenate(cut)
    return torch.from_numpy(table)


def _tokens(column: TextColumn) -> pd.Categorical:
    """A column of tokens; an empty cell is none."""
    texts, codes = column.texts, column.codes
    empty = np.flatnonzero(texts == "")
    if len(empty):
        texts = np.delete(texts, empty)
        codes = np.where(codes == empty[0], -1, codes - (codes > empty[0]))
    return pd.Categorical.from_codes(codes, categories=pd.Index(texts, dtype=object))


def _local_numbers(feat: pd.DataFrame, field: str, kind: FeatureType) -> tuple[Ints, _Objects]:
    """Tokens of a column numbered among themselves in order of appearance, -1 for none; and these tokens."""
    if kind == FeatureType.TOKEN:
        column: Any = feat[field].array
        if not isinstance(column, pd.Categorical):
            codes, texts = pd.factorize(np.asarray(column, dtype=object))
            return codes, texts
        codes, found = pd.factorize(column.codes)
        local = np.arange(len(found))
        missing = np.flatnonzero(found == -1)
        if len(missing):
            local -= local > missing[0]
            local[missing] = -1
            found = np.delete(found, missing)
        return local[codes], np.asarray(column.categories, dtype=object)[found]
    codes, texts = pd.factorize(np.concatenate(list(feat[field])).astype(object))
    return codes, texts
