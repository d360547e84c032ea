"""Rows of different lengths: gathering against plain loops."""

from __future__ import annotations

import doctest

import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_fair.data import ragged


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.data())
def test_rows_are_gathered_as_by_a_loop(lengths: list[int], data: st.DataObject) -> None:
    indptr = torch.tensor([0, *lengths]).cumsum(0)
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=10))
    positions = [list(range(int(indptr[row]), int(indptr[row + 1]))) for row in rows]
    bounds, where = ragged.gather(indptr, torch.tensor(rows, dtype=torch.long))
    assert where.tolist() == [place for entries in positions for place in entries]
    assert bounds.tolist() == [sum(map(len, positions[:n])) for n in range(len(rows) + 1)]
    assert ragged.owners(bounds).tolist() == [row for row, entries in enumerate(positions) for _ in entries]


def test_examples() -> None:
    assert doctest.testmod(ragged) == (0, 3)
