"""Concepts: what a model may be steered towards or away from, popularity being one of them.

A concept splits items, or users, in two: those that have it and those that have not. How it is written stands in
:mod:`recbole_fair.config.concepts`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recbole_fair.config.concepts import POPULARITY, ConceptName, parse_concept
from recbole_fair.config.keys import did_you_mean
from recbole_fair.data.contract import DataSet
from recbole_fair.data.facts.groups import Column, read_column, token_columns
from recbole_fair.data.facts.interactions import Interactions, training_interactions
from recbole_fair.errors import FairError

_RANGE = re.compile(r"([-+.\deE]*)\.\.([-+.\deE]*)")


@dataclass(frozen=True)
class Concept:
    """A concept of one data set.

    Attributes:
        text: how it is written.
        label: its name for people, by which it is steered: ``popular``, ``Documentary``, ``gender=F``.
        other: what has it not: ``unpopular``, ``other items``.
        of: whether items or users have it.
        positive: long, inner ids of those that have it and occur in training.
        negative: long, inner ids of those that have it not.
        weight: float64 ``[n_items]`` in [0, 1]: how much an item in a list counts for the concept. 1 for the items that
            have it; of a concept of users the share of the item's training interactions that are theirs.
    """

    text: str
    label: str
    other: str
    of: Literal["items", "users"]
    positive: Tensor
    negative: Tensor
    weight: Tensor


class Concepts:
    """Reads concepts from a data set; each column is read once.

    Args:
        dataset: the training data.
        inter: its interactions, if they are at hand.
    """

    def __init__(self, dataset: DataSet, inter: Interactions | None = None) -> None:
        self.dataset = dataset
        self.inter = training_interactions(dataset) if inter is None else inter
        self._columns: dict[tuple[str, str], Column] = {}

    def expand(self, texts: str | Sequence[str] | None) -> list[str]:
        """Texts of single concepts; a column alone becomes each of its values, in order of their texts."""
        found: list[str] = []
        for text in [texts] if isinstance(texts, str) else texts or ():
            name = parse_concept(text)
            if name.side in ("popularity", "file") or name.value:
                found.append(text)
                continue
            column = self._column(name.side, name.column)
            if not column.kind.startswith("token"):
                raise FairError(
                    f"concepts={text!r}: {name.column!r} is a column of numbers, whose values are too many; write a "
                    f"range, as in {name.column}:10..20."
                )
            form = f"user:{name.column}={{}}" if name.side == "user" else f"{name.column}:{{}}"
            found += [form.format(value) for value in sorted(self._values(column))]
        return list(dict.fromkeys(found))

    def read(self, text: str) -> Concept:
        """The concept of that text; popularity is :meth:`popularity`.

        Raises:
            FairError: for a column, value or file that is not there, or that tells nothing apart.
        """
        name = parse_concept(text)
        if name.side == "user":
            return self._of_users(text, name)
        members = self._listed(text, name.column) if name.side == "file" else self._members(text, name)
        label = Path(name.column).stem if name.side == "file" else name.value
        return self._of_items(text, label, members)

    def popularity(self, head: Tensor, tail: Tensor) -> Concept:
        """The concept of popularity, whose items a method chooses by itself."""
        weight = torch.zeros(self.inter.n_items, dtype=torch.float64)
        weight[head] = 1.0
        return Concept(POPULARITY, "popular", "unpopular", "items", head, tail, weight)

    def _of_items(self, text: str, label: str, members: npt.NDArray[np.bool_]) -> Concept:
        seen = np.bincount(self.inter.item, minlength=self.inter.n_items) > 0
        seen[0] = False
        positive, negative = np.flatnonzero(members & seen), np.flatnonzero(~members & seen)
        if not len(positive) or not len(negative):
            who = "no item" if not len(positive) else "every item"
            raise FairError(f"concept={text!r}: {who} of the training data has it, so that nothing can be told apart.")
        weight = torch.from_numpy(members.astype(np.float64))
        pair = torch.from_numpy(positive), torch.from_numpy(negative)
        return Concept(text, label, "other items", "items", *pair, weight)

    def _of_users(self, text: str, name: ConceptName) -> Concept:
        members = self._members(text, name)
        users = np.unique(self.inter.user)
        known = np.asarray([bool(value) for value in self._column("user", name.column).values])[users]
        positive, negative = users[members[users]], users[~members[users] & known]
        if min(len(positive), len(negative)) < 2:
            raise FairError(
                f"concept={text!r}: {len(positive)} users have it and {len(negative)} have not; at least two of each "
                "are needed."
            )
        n = self.inter.n_items
        total = np.bincount(self.inter.item, minlength=n)
        theirs = np.bincount(self.inter.item, weights=members[self.inter.user].astype(np.float64), minlength=n)
        overall = theirs.sum() / max(total.sum(), 1)
        weight = np.where(total > 0, theirs / np.maximum(total, 1), overall)
        weight[0] = 0.0
        label = f"{name.column}={name.value}"
        pair = torch.from_numpy(positive), torch.from_numpy(negative)
        return Concept(text, label, "other users", "users", *pair, torch.from_numpy(weight))

    def _column(self, side: str, name: str) -> Column:
        if (side, name) not in self._columns:
            self._columns[side, name] = read_column(self.dataset, side, name, "concept")
        return self._columns[side, name]

    def _values(self, column: Column) -> dict[str, list[int]]:
        """Inner ids by value of a token column."""
        separator = self.dataset.config["seq_separator"] or " "
        several = column.kind == "token_seq"
        found: dict[str, list[int]] = {}
        for number, text in enumerate(column.values):
            for part in dict.fromkeys(text.split(separator) if several else [text]):
                if part:
                    found.setdefault(part, []).append(number)
        return found

    def _members(self, text: str, name: ConceptName) -> npt.NDArray[np.bool_]:
        """Which inner ids have a value."""
        column = self._column(name.side, name.column)
        members = np.zeros(len(column.values), dtype=bool)
        if not column.kind.startswith("token"):
            members[_in_range(column, name.value, text)] = True
            return members
        values = self._values(column)
        if name.value not in values:
            hint = did_you_mean(name.value, values)
            known = ", ".join(sorted(values)[:30])
            raise FairError(f"concept={text!r}: nobody has {name.value!r} in '{name.column}', which has {known}{hint}")
        members[values[name.value]] = True
        return members

    def _listed(self, text: str, path: str) -> npt.NDArray[np.bool_]:
        """Which items a file lists: one id a line, empty lines left out."""
        try:
            ids = Path(path).read_text(encoding="utf-8").split()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            raise FairError(f"concept={text!r}: the file cannot be read ({reason}).") from error
        numbers = self.dataset.field2token_id[self.dataset.iid_field]
        known = [numbers[token] for token in ids if token in numbers]
        if not known:
            raise FairError(f"concept={text!r}: none of the {len(ids)} ids in the file is an item of the data set.")
        members = np.zeros(self.inter.n_items, dtype=bool)
        members[known] = True
        members[0] = False
        return members


def _in_range(column: Column, value: str, text: str) -> npt.NDArray[np.bool_]:
    match = _RANGE.fullmatch(value.replace(" ", ""))
    try:
        assert match is not None
        low, high = (float(end) if end else None for end in match.groups())
    except (AssertionError, ValueError):
        raise FairError(
            f"concept={text!r}: '{column.name}' is a column of numbers; write a range, as in 10..20, 10.. or ..20."
        ) from None
    numbers = np.array([_number(cell) for cell in column.values])
    with np.errstate(invalid="ignore"):
        inside: npt.NDArray[np.bool_] = (numbers >= (-np.inf if low is None else low)) & (
            numbers <= (np.inf if high is None else high)
        )
    return inside


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def attribute_columns(dataset: DataSet) -> list[str]:
    """Item columns of tokens that may say what neurons respond to: titles and names are left out."""
    named = ("title", "name")
    return [name for name in token_columns(dataset, "item") if not any(word in name.lower() for word in named)]
