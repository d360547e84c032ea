"""Cached columns are those of the file as it is now, or they are not used."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
from recbole.data.dataset import Dataset

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.reading import cache as cache_module
from recbole_fair.data.reading.cache import FOLDER, cached_table
from recbole_fair.data.reading.quick import quick
from recbole_fair.data.reading.table import Form, Table, read_table
from recbole_fair.errors import FairError

FIELDS = ["u", "text", "x"]


@pytest.fixture(autouse=True)
def every_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cache_module, "LEAST_BYTES", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


def write(folder: Path, change: str = "", name: str = "own.inter") -> Path:
    rng = random.Random(0)
    words = ["NA", "é", "", "a b", "x" * 70, "日本"]
    rows = [f"u{rng.randrange(40)}\t{rng.choice(words)}\t{rng.randrange(10**6) / 8}" for _ in range(200)]
    path = folder / name
    path.write_text("u:token\ttext:token_seq\tx:float\n" + "\n".join(rows) + f"\n{change}", encoding="utf-8")
    return path


def same(found: Table, expected: Table) -> None:
    assert found.header == expected.header
    assert found.n_rows == expected.n_rows
    assert list(found.texts) == list(expected.texts)
    assert list(found.numbers) == list(expected.numbers)
    for name, column in expected.texts.items():
        assert found.texts[name].kind == column.kind
        assert found.texts[name].codes.dtype == column.codes.dtype
        assert found.texts[name].codes.tolist() == column.codes.tolist()
        assert found.texts[name].texts.tolist() == column.texts.tolist()
    for name, numbers in expected.numbers.items():
        np.testing.assert_array_equal(found.numbers[name].values, numbers.values)


def stored(path: Path) -> list[Path]:
    return sorted((path.parent / FOLDER).glob("*"))


def test_columns_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    same(cached_table(path, Form(), FIELDS), read_table(path, Form(), FIELDS))
    assert len(stored(path)) == 3
    again = read_table(path, Form(), FIELDS)
    with monkeypatch.context() as nothing:
        nothing.setattr(cache_module, "read_table", None)
        same(cached_table(path, Form(), FIELDS), again)
        same(cached_table(path, Form(), ["x"]), read_table(path, Form(), ["x"]))
    assert cached_table(path, Form(), FIELDS).line_of(7) == 9
    assert len(stored(path)) == 3
    path.write_text("t:token\ty:float\na\t1\n\nb\t1\n\t2\n")
    for _ in range(2):
        with pytest.raises(FairError, match=r"own.inter, line 5: the cell of 't' is empty"):
            cached_table(path, Form(), ["t"]).check_ids(["t"])


def test_other_columns_join_those_that_are_there(tmp_path: Path) -> None:
    path = write(tmp_path)
    cached_table(path, Form(), ["u"])
    same(cached_table(path, Form(), FIELDS), read_table(path, Form(), FIELDS))
    assert len(stored(path)) == 3


def test_what_was_cached_before_a_change_is_not_used(tmp_path: Path) -> None:
    path = write(tmp_path)
    cached_table(path, Form(), FIELDS)
    before, times = stored(path), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"u1\t", b"u9\t"))  # as long as before ...
    os.utime(path, ns=times)  # ... and as old
    same(cached_table(path, Form(), FIELDS), read_table(path, Form(), FIELDS))
    assert len(stored(path)) == 3
    assert not set(before) & set(stored(path))
    same(cached_table(path, Form(encoding="latin-1"), FIELDS), read_table(path, Form(encoding="latin-1"), FIELDS))


def test_a_neighbour_with_a_hostile_name_is_left_alone(tmp_path: Path) -> None:
    one, other = write(tmp_path, name="own.inter"), write(tmp_path, name="o*.inter")
    for path in (one, other, one):
        cached_table(path, Form(), FIELDS)
    other.write_text("u:token\nx\n")
    cached_table(other, Form(), ["u"])
    assert sum(file.name.startswith("own") for file in stored(one)) == 3


def test_damage_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path)
    expected = read_table(path, Form(), FIELDS)
    cached_table(path, Form(), FIELDS)
    rng = random.Random(1)
    for number in range(150):
        file = rng.choice(stored(path))
        whole = file.read_bytes()
        if number % 5 == 0:
            file.write_bytes(whole[: rng.randrange(len(whole))])
        else:
            bit = rng.randrange(8 * len(whole))
            file.write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :])
        same(cached_table(path, Form(), FIELDS), expected)


def test_arrays_that_do_not_fit_are_not_used(tmp_path: Path) -> None:
    path = write(tmp_path)
    expected = read_table(path, Form(), FIELDS)
    for made in (
        {"values": np.arange(3.0)},
        {"values": np.arange(200)},
        {"codes": np.zeros(200, dtype=np.uint8), "ends": np.array([5, 2]), "text": np.zeros(2, dtype=np.uint8)},
        {"codes": np.full(200, 9, dtype=np.uint8), "ends": np.array([0]), "text": np.zeros(0, dtype=np.uint8)},
        {"codes": np.zeros(3, dtype=np.uint8), "ends": np.array([0]), "text": np.zeros(0, dtype=np.uint8)},
        {"values": np.array([{}], dtype=object)},
    ):
        cached_table(path, Form(), FIELDS)
        for file in stored(path):
            np.savez(file, **made)
        same(cached_table(path, Form(), FIELDS), expected)
        for file in stored(path):
            file.unlink()


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    path = write(folder)
    folder.chmod(0o555)
    for _ in range(2):
        same(cached_table(path, Form(), FIELDS), read_table(path, Form(), FIELDS))
    assert not (folder / FOLDER).exists()
    assert len(list((tmp_path / "home" / "recbole_fair").rglob("*.npz"))) == 3
    (tmp_path / "home2").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home2"))
    same(cached_table(path, Form(), FIELDS), read_table(path, Form(), FIELDS))
    folder.chmod(0o755)


@pytest.mark.parametrize("on", [True, False])
def test_a_key_turns_it_off(small_data: Path, on: bool) -> None:
    config = FairConfig("BPR", "small", config_dict={"data_path": str(small_data), "data_cache": on, "state": "error"})
    first = quick(Dataset)(config)
    assert (small_data / "small" / FOLDER).exists() is on
    again = quick(Dataset)(config)
    for field in ("user_id", "item_id"):
        assert first.inter_feat[field].tolist() == again.inter_feat[field].tolist()
    for file in (small_data / "small" / FOLDER).glob("*"):
        file.unlink()
    if on:
        (small_data / "small" / FOLDER).rmdir()
