"""Small data sets as RecBole atomic files, made on the spot."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

# Several pytest workers share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def write_atomic(
    folder: Path, name: str, n_users: int = 60, n_items: int = 40, seed: int = 0, lengths: tuple[int, int] = (6, 30)
) -> Path:
    """Write ``name.inter`` and ``name.item`` below ``folder/name``: skewed popularity, distinct times within a user."""
    rng = np.random.default_rng(seed)
    weight = 1.0 / np.arange(1, n_items + 1)
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    rows = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(n_users):
        size = int(rng.integers(*lengths))
        for step, item in enumerate(rng.choice(n_items, size=size, replace=False, p=weight / weight.sum())):
            rows.append(f"u{user}\ti{item}\t{rng.integers(1, 6)}\t{step * 10 + user}")
    order = rng.permutation(len(rows) - 1) + 1
    (target / f"{name}.inter").write_text("\n".join([rows[0], *(rows[i] for i in order)]) + "\n")
    titles = ["item_id:token\tmovie_title:token_seq\tgenre:token_seq"]
    titles += [f"i{i}\tTitle {i}\t{'A B' if i % 3 == 0 else 'A' if i % 3 == 1 else 'C'}" for i in range(n_items)]
    (target / f"{name}.item").write_text("\n".join(titles) + "\n")
    return folder


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory for ``data_path`` that holds the data set ``small``."""
    return write_atomic(tmp_path_factory.mktemp("data"), "small", lengths=(6, 31))


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run inside an empty directory, where ``saved/`` and ``log/`` may be made."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
