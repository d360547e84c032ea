from __future__ import annotations

import builtins
import importlib
import os
import pickle
import runpy
import zipfile
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from recbole_fair.errors import FairError
from recbole_fair.io.foreign import finished, read_foreign
from recbole_fair.io.imported import open_checkpoint
from recbole_fair.io.pickles import DamagedFileError, Record, UnsafeFileError


def save(content, path, legacy=False, protocol=4):
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    return path


class Plain:
    def __init__(self, value):
        self.value = value


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_values_come_back_as_they_were_saved(tmp_path, legacy, protocol):
    base = torch.arange(12.0)
    tensors = {
        "transposed": base.view(3, 4).t(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "sparse": torch.eye(3).to_sparse(),
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(3.5),
        "short": torch.tensor([1.5], dtype=torch.bfloat16),
        "whole": torch.arange(3, dtype=torch.int32),
        "expanded": torch.ones(3, 1).expand(3, 4),
        "part": base[4:9:2],
        "truth": torch.tensor([True, False]),
    }
    arrays = {
        "column": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "matrix": np.asmatrix([[1, 2]]),
        "texts": np.array(["ab", "c"]),
        "big_endian": np.arange(3, dtype=">i4"),
        "times": np.array(["2020-01-01"], dtype="datetime64[D]"),
    }
    matrices = {
        "csr": sparse.csr_matrix(np.eye(3)),
        "csc": sparse.csc_matrix(np.eye(3)),
        "coo": sparse.coo_matrix(np.eye(2)),
    }
    plain = {
        "numbers": [1, -7, 2**70, 2.5, np.float64(0.25), True, None],
        "words": ("ä", b"\x00\xff", ""),
        "sets": [{1, 2}, frozenset({3})],
        "mappings": [OrderedDict(a=1), Counter("aab"), defaultdict(int, x=2)],
        "objects": np.array(["x", None], dtype=object),
        "size": torch.Size([2, 3]),
        "device": torch.device("cuda", 1),
    }
    found = finished(read_foreign(save({**tensors, **arrays, **matrices, **plain}, tmp_path / "x", legacy, protocol)))
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name].to_dense(), value.detach().to_dense()), name
    for name, value in arrays.items():
        assert type(found[name]) is type(value)
        assert np.array_equal(found[name], value), name
    for name, matrix in matrices.items():
        assert found[name].format == matrix.format
        assert (found[name] != matrix).nnz == 0
    assert found["numbers"] == [1, -7, 2**70, 2.5, 0.25, True, None]
    assert type(found["numbers"][4]) is float
    assert found["words"] == plain["words"]
    assert found["sets"] == plain["sets"]
    assert found["mappings"] == [{"a": 1}, {"a": 2, "b": 1}, {"x": 2}]
    assert found["objects"] == ["x", None]
    assert found["size"] == (2, 3)
    assert found["device"] == "cuda:1"


def test_shared_storages_stay_shared_and_objects_become_records(tmp_path):
    weight = torch.arange(4.0)
    found = read_foreign(save({"a": weight, "b": weight[1:], "object": Plain([1]), "class": Plain}, tmp_path / "x"))
    found["a"][1] = 9.0
    assert found["b"][0] == 9.0
    record = found["object"]
    assert isinstance(record, Record)
    assert record.kind.endswith(".Plain")
    assert record.attributes == {"value": [1]}


class Calls:
    """Pickled as a call of anything; the marker file is what the call would leave behind."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(marker: Path) -> dict[str, object]:
    touch = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": Calls(os.system, f"touch {marker}"),
        "eval": Calls(eval, touch),
        "exec": Calls(exec, touch),
        "import_module": Calls(importlib.import_module, "os"),
        "open": Calls(builtins.open, str(marker), "w"),
        "run_path": Calls(runpy.run_path, str(marker)),
        "torch.load": Calls(torch.load, str(marker)),
        "np.load": Calls(np.load, str(marker)),
        "mkdir": Calls(Path.mkdir, marker),
        "an object of the calling kind in a list": [1, {"x": Calls(os.mkdir, str(marker))}],
    }


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", list(hostile(Path("x"))))
def test_a_file_that_calls_something_is_refused_and_nothing_is_run(tmp_path, legacy, name):
    marker = tmp_path / "marker"
    path = save({"config": hostile(marker)[name], "state_dict": {}}, tmp_path / "x.pth", legacy)
    for read in (read_foreign, open_checkpoint):
        with pytest.raises(UnsafeFileError, match=r"would run code.*it calls.*Nothing was run"):
            read(path)
    assert not marker.exists()


def pickled_by_hand(tmp_path, body: bytes):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", body)
    return path


@pytest.mark.parametrize(
    "body",
    [
        b"cos\nsystem\n(S'touch marker'\ntR.",  # GLOBAL and REDUCE, protocol 0
        b"(S'touch marker'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch marker'\no.",  # OBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch marker\x85R.",  # STACK_GLOBAL
        b"\x80\x02\x82\x01.",  # EXT1
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n(cos\npath\nS'x'\ntR.",
        b"ccollections\nOrderedDict\n)R}S'__reduce__'\ncos\nsystem\nsbR(S'touch marker'\ntR.",
        b"crecbole.quick_start\nrun_recbole\n)R.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(cos\nsystem\ntRcos\nsystem\n(S'x'\ntR.",
    ],
)
def test_every_way_of_calling_is_refused(tmp_path, monkeypatch, body):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UnsafeFileError, DamagedFileError)):
        read_foreign(pickled_by_hand(tmp_path, body))
    assert not (tmp_path / "marker").exists()


def test_a_state_is_kept_but_never_set(tmp_path):
    """``__setstate__`` of a class, and attributes of a function of the reader, are out of reach."""
    body = b"csubprocess\nPopen\n)\x81}S'args'\nS'touch marker'\nsb."
    record = read_foreign(pickled_by_hand(tmp_path, body))
    assert record.kind == "subprocess.Popen"
    assert record.attributes == {"args": "touch marker"}
    with_function = b"ctorch._utils\n_rebuild_tensor_v2\n}S'__defaults__'\n)sb."
    read_foreign(pickled_by_hand(tmp_path, with_function))
    from recbole_fair.io.foreign import _tensor

    assert _tensor.__defaults__ is None


def test_damaged_files_are_told_apart(tmp_path):
    path = save({"config": 1, "state_dict": {"w": torch.arange(1000.0)}}, tmp_path / "x.pth")
    data = path.read_bytes()
    damaged = {
        "cut": data[: len(data) // 2],
        "empty": b"",
        "text": b"no checkpoint",
        "pickle": pickle.dumps({"config": 1}),
        "flipped": data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0xFF]) + data[len(data) // 2 + 1 :],
    }
    for content in damaged.values():
        path.write_bytes(content)
        with pytest.raises(DamagedFileError, match="damaged"):
            read_foreign(path)


def test_sizes_that_lie_are_damage_not_memory(tmp_path):
    reference = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\ntQ"
    head = b"ctorch._utils\n_rebuild_tensor_v2\n("
    for size, stride in ((b"(I5\nt", b"(I1\nt"), (b"(I1000000000000\nt", b"(I0\nt"), (b"(I-1\nt", b"(I1\nt")):
        path = tmp_path / "x.pth"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", head + reference + b"I0\n" + size + stride + b"I00\nNtR.")
            archive.writestr("x/data/0", np.zeros(4, np.float32).tobytes())
        with pytest.raises(DamagedFileError):
            read_foreign(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"N.")
    with pytest.raises(DamagedFileError, match="compressed"):
        read_foreign(path)


def test_values_that_unfold_without_end_are_refused(tmp_path):
    bomb: list[object] = []
    for _ in range(30):
        bomb = [bomb, bomb]
    itself: list[object] = []
    itself.append(itself)
    for value in (bomb, itself):
        with pytest.raises(FairError, match="without end"):
            finished(read_foreign(save({"config": value}, tmp_path / "x.pth"))["config"])


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_read_or_refused_in_a_sentence(tmp_path_factory, body, as_archive):
    path = tmp_path_factory.getbasetemp() / "fuzz.pth"
    if as_archive:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", body)
    else:
        path.write_bytes(body)
    try:
        read_foreign(path)
    except FairError as error:
        refusal = str(error)
    else:
        refusal = ""
    assert "\n" not in refusal
