"""Damage to checkpoints, and files made to harm: refused in a sentence, or read as they were written."""

from __future__ import annotations

import itertools
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import load_checkpoint, pack_arrays, save_checkpoint, unpack_arrays

NEEDED: dict[str, Any] = {
    "model": "M",
    "dataset": "d",
    "config": {"seed": 1, "epochs": 1, "eval_step": 1, "stopping_step": 1, "metrics": ["NDCG"]},
    "user_settings": {"topk": [5]},
    "fingerprint": "abc",
    "state_dict": {"weight": torch.arange(6.0).reshape(2, 3), "flags": torch.tensor([True, False])},
    "other_parameter": None,
    "training": None,
}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    path = tmp_path / "made.pth"
    save_checkpoint(path, NEEDED)
    return path


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def refused(path: Path, data: bytes) -> bool:
    """Whether a file with these bytes is refused in one sentence; a traceback fails the test."""
    path.write_bytes(data)
    sentence = None
    try:
        load_checkpoint(path)
    except FairError as error:
        sentence = str(error)
    assert "\n" not in (sentence or "")
    return sentence is not None


def bits_of(data: bytes, kind: str) -> Iterable[int]:
    rng = random.Random(7)
    directory = range(8 * data.index(b"PK\x01\x02"), 8 * len(data))
    if kind == "all":
        return itertools.chain(directory, rng.sample(range(8 * len(data)), 2000))
    return itertools.chain(rng.sample(directory, 150), rng.sample(range(8 * len(data)), 150))


def test_a_sample_of_bits_that_change_is_noticed(made: Path, tmp_path: Path) -> None:
    data = made.read_bytes()
    assert not refused(tmp_path / "same.pth", data)
    for bit in bits_of(data, "some"):
        assert refused(tmp_path / "changed.pth", flipped(data, bit)), bit


@pytest.mark.slow
def test_every_bit_of_the_directory_and_2000_others(made: Path, tmp_path: Path) -> None:
    data = made.read_bytes()
    count = 0
    for bit in bits_of(data, "all"):
        assert refused(tmp_path / "changed.pth", flipped(data, bit)), bit
        count += 1
    print(f"{count} bits changed one at a time, all noticed")
    assert count == 2000 + 8 * (len(data) - data.index(b"PK\x01\x02"))


def test_every_way_of_cutting_a_file_short_is_noticed(made: Path, tmp_path: Path) -> None:
    data = made.read_bytes()
    for size in range(0, len(data), 37):
        assert refused(tmp_path / "cut.pth", data[:size]), size
    assert refused(tmp_path / "longer.pth", data + b"\0")


def test_a_file_without_its_digest_is_no_older_file(made: Path, tmp_path: Path) -> None:
    unsealed = tmp_path / "unsealed.pth"
    torch.save({"format": "recbole_fair", "format_version": 2, **NEEDED}, unsealed)
    with pytest.raises(FairError, match="its digest is missing"):
        load_checkpoint(unsealed)


def test_a_file_from_before_the_digest_is_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "older.pth"
    torch.save({"format": "recbole_fair", "format_version": 1, **NEEDED}, path)
    assert torch.equal(load_checkpoint(path)["state_dict"]["weight"], NEEDED["state_dict"]["weight"])
    assert "before checkpoints had a digest" in caplog.text
    # The bit that makes torch take a record for a folder, and hand over whatever its memory held before.
    data = path.read_bytes()
    places = [at for at in range(len(data) - 4) if data.startswith(b"PK\x01\x02", at)]
    for at in places:
        assert refused(tmp_path / "folder.pth", flipped(data, 8 * (at + 38) + 4))


# -- files made to harm ----------------------------------------------------------------------------------------------


def rewritten(source: Path, target: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    """The same records in an archive made another way."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for record in old.infolist():
            copied = zipfile.ZipInfo(record.filename)
            copied.external_attr = 0
            new.writestr(copied, old.read(record), compression)
            new.getinfo(record.filename).external_attr = 0
    return target


def test_compressed_records_are_refused_before_they_are_inflated(tmp_path: Path) -> None:
    plain = tmp_path / "plain.pth"
    torch.save({"format": "recbole_fair", "format_version": 1, **NEEDED, "bomb": torch.zeros(10**6)}, plain)
    small = rewritten(plain, tmp_path / "small.pth", zipfile.ZIP_DEFLATED)
    assert small.stat().st_size < 20_000
    with pytest.raises(FairError, match=r"no plain stored file|hold more than the file"):
        load_checkpoint(small)


def test_records_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "overlap.pth"
    plain = tmp_path / "plain.pth"
    torch.save({"format": "recbole_fair", "format_version": 1, **NEEDED, "big": torch.zeros(10**4)}, plain)
    rewritten(plain, path)
    assert load_checkpoint(path)["big"].shape == (10**4,)
    data = path.read_bytes()
    at = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entries, count = data[at:end] * 3, struct.unpack_from("<H", data, end + 10)[0]
    for number in range(3):  # the copies need names of their own
        entries = entries.replace(b"/data.pkl", b"/dat%d.pkl" % number, 1)
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 3 * count, 3 * count, len(entries), at, 0)
    path.write_bytes(data[:at] + entries + tail)
    with pytest.raises(FairError, match=r"two of its records have one name|hold more than the file"):
        load_checkpoint(path)


class _Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made-by-a-checkpoint",)


@pytest.mark.parametrize("value", [_Runs(), {1, 2}, b"bytes", 1j, slice(3)])
def test_objects_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": "recbole_fair", "format_version": 1, **NEEDED, "odd": value}, "odd.pth")
    with pytest.raises(FairError, match="pickled Python objects"):
        load_checkpoint("odd.pth")
    assert not Path("made-by-a-checkpoint").exists()


def test_values_that_unfold_without_end_are_refused(tmp_path: Path) -> None:
    laughs: list[Any] = ["ha"] * 10
    for _ in range(12):
        laughs = [laughs] * 10
    loop: list[Any] = []
    loop.append(loop)
    deep: list[Any] = []
    for _ in range(150):
        deep = [deep]
    for value in (laughs, loop, deep):
        torch.save({"format": "recbole_fair", "format_version": 1, **NEEDED, "odd": value}, tmp_path / "odd.pth")
        with pytest.raises(FairError, match="unfold without end"):
            load_checkpoint(tmp_path / "odd.pth")


def test_a_tensor_is_no_larger_than_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    torch.save({"format": "recbole_fair", "format_version": 1, **NEEDED, "odd": torch.zeros(1).expand(10**9)}, path)
    with pytest.raises(FairError, match="larger than"):
        load_checkpoint(path)


ODD: list[Any] = [None, 7, "text", [1], {"a": 1}, {"a": torch.ones(2)}, {3: 4}, torch.ones(2), True]


@pytest.mark.parametrize("name", list(NEEDED))
def test_entries_that_are_missing_or_of_another_type(tmp_path: Path, name: str) -> None:
    path = tmp_path / "odd.pth"
    save_checkpoint(path, {key: value for key, value in NEEDED.items() if key != name})
    with pytest.raises(FairError, match=f"it has no entry {name}"):
        load_checkpoint(path)
    seen = 0
    for value in ODD:
        save_checkpoint(path, {**NEEDED, name: value})
        seen += refused(path, path.read_bytes())
    assert seen >= 4


@pytest.mark.parametrize("name", ["epoch", "cur_step", "best_valid_score", "optimizer", "random", "loader"])
def test_entries_of_the_training(tmp_path: Path, name: str) -> None:
    path = tmp_path / "odd.pth"
    training = {
        "epoch": 1,
        "cur_step": 0,
        "best_valid_score": 0.5,
        "best_valid_result": None,
        "state_dict": None,
        "other_parameter": None,
        "optimizer": {},
        "random": {},
        "loader": {},
    }
    save_checkpoint(path, {**NEEDED, "training": training})
    assert load_checkpoint(path)["training"]["epoch"] == 1
    for changed in ({**training, name: "text"}, {key: value for key, value in training.items() if key != name}):
        save_checkpoint(path, {**NEEDED, "training": changed})
        with pytest.raises(FairError, match=f"training.{name}"):
            load_checkpoint(path)


def test_a_stored_matrix_whose_indices_lie_is_refused() -> None:
    from scipy import sparse

    packed = pack_arrays({"m": sparse.csr_matrix(np.eye(3))})
    packed["m"]["parts"][1][0] = 10**6
    with pytest.raises(FairError, match="no matrix"):
        unpack_arrays(packed)
    for odd in (
        {"__sparse__": "csr"},
        {"__array__": 3, "matrix": True},
        {"__sparse__": "odd", "parts": [], "shape": []},
    ):
        with pytest.raises(FairError, match="no matrix"):
            unpack_arrays({"m": odd})


def test_a_pickle_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(pickle.dumps(NEEDED["config"]))
    with pytest.raises(FairError, match="not a checkpoint"):
        load_checkpoint(path)
