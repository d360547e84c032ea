from __future__ import annotations

import random
import zipfile

import numpy as np
import pytest
import torch
from scipy import sparse

from recbole_fair.errors import FairError
from recbole_fair.io import archive
from recbole_fair.io.atomic import free_name
from recbole_fair.io.checkpoint import (
    load_checkpoint,
    pack_arrays,
    random_states,
    restore_random_states,
    save_checkpoint,
    unpack_arrays,
)


def content(**more):
    """A checkpoint that holds no more than it has to."""
    return {
        "model": "M",
        "dataset": "d",
        "config": {"seed": 1, "epochs": 1, "eval_step": 1, "stopping_step": 1, "metrics": ["NDCG"]},
        "user_settings": {},
        "fingerprint": None,
        "state_dict": {},
        "other_parameter": None,
        "training": None,
        **more,
    }


def test_round_trip_of_plain_values(tmp_path):
    path = tmp_path / "deep" / "x.pth"
    texts = [f"title {number} \ud800" for number in range(1000)]
    kept = {"a": torch.arange(3), "b": [1, 2.5, None, "t"], "c": {"d": (True, np.float64(0.25)), 3: np.arange(2)}}
    save_checkpoint(path, content(**kept, texts=texts))
    found = load_checkpoint(path)
    assert torch.equal(found["a"], torch.arange(3))
    assert found["b"] == [1, 2.5, None, "t"]
    assert found["c"]["d"] == (True, 0.25)
    assert torch.equal(found["c"][3], torch.arange(2))
    assert found["texts"] == texts
    assert [p.name for p in path.parent.iterdir()] == ["x.pth"], "no temporary file stays"


def test_objects_are_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / "x.pth"
    save_checkpoint(path, content(value=1))
    with pytest.raises(TypeError, match="not object"):
        save_checkpoint(path, content(value=object()))
    assert load_checkpoint(path)["value"] == 1


def test_a_kill_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.pth"
    save_checkpoint(path, content(value=1))

    def killed(payload, file):
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(archive.torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, content(value=2))
    monkeypatch.undo()
    assert load_checkpoint(path)["value"] == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda p: p.unlink(), "There is no checkpoint file"),
        (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "cut short"),
        (lambda p: p.write_bytes(b""), "cut short"),
        (lambda p: p.write_text("not a checkpoint"), "cut short"),
        (lambda p: torch.save({"weights": torch.zeros(2)}, p), "not a checkpoint of recbole_fair"),
        (lambda p: torch.save([1, 2], p), "not a checkpoint of recbole_fair"),
        (lambda p: torch.save({"config": random.Random(1)}, p), "pickled Python objects"),
        (lambda p: torch.save({"format": "recbole_fair", "format_version": 99}, p), "upgrade it"),
        (lambda p: zipfile.ZipFile(p, "w").writestr("a", "b"), "damaged"),
    ],
)
def test_bad_files_give_one_sentence(tmp_path, damage, sentence):
    path = tmp_path / "x.pth"
    save_checkpoint(path, content(value=torch.arange(1000)))
    damage(path)
    with pytest.raises(FairError, match=sentence) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_flipped_byte_is_noticed_or_harmless(tmp_path):
    path = tmp_path / "x.pth"
    save_checkpoint(path, content(value=torch.zeros(1000)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(FairError, match="damaged"):
        load_checkpoint(path)


def test_random_states_come_back(tmp_path):
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    np.random.normal()  # leaves a cached second normal number behind
    save_checkpoint(tmp_path / "x.pth", content(random=random_states()))
    expected = random.random(), np.random.normal(), np.random.random(), torch.rand(1).item()
    restore_random_states(load_checkpoint(tmp_path / "x.pth")["random"])
    assert (random.random(), np.random.normal(), np.random.random(), torch.rand(1).item()) == expected


def test_arrays_and_sparse_matrices_of_recboles_models(tmp_path):
    value = {
        "dense": np.arange(6.0).reshape(2, 3),
        "matrix": np.asmatrix(np.eye(2)),
        "sparse": sparse.csc_matrix(np.array([[0, 1.5], [2.0, 0]])),
        "none": None,
        "tensor": torch.ones(2),
    }
    save_checkpoint(tmp_path / "x.pth", content(other_parameter=pack_arrays(value)))
    found = unpack_arrays(load_checkpoint(tmp_path / "x.pth")["other_parameter"])
    assert np.array_equal(found["dense"], value["dense"])
    assert isinstance(found["matrix"], np.matrix)
    assert found["sparse"].format == "csc"
    assert (found["sparse"] != value["sparse"]).nnz == 0
    assert found["none"] is None


def test_a_checkpoint_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    save_checkpoint(tmp_path / "model.pth", content(x=1))
    assert (tmp_path / "model.pth").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_that_is_there_is_never_the_name_of_a_new_one(tmp_path):
    first = tmp_path / "BPR-Nov-22-2026_08-30-15.pth"
    assert free_name(first) == str(first)
    first.touch()
    assert free_name(first) == str(tmp_path / "BPR-Nov-22-2026_08-30-15-2.pth")
    (tmp_path / "BPR-Nov-22-2026_08-30-15-2.pth").touch()
    assert free_name(str(first)) == str(tmp_path / "BPR-Nov-22-2026_08-30-15-3.pth")
