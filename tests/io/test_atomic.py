"""Files in places where nothing is lost: what stands there, and who writes at once."""

from __future__ import annotations

import filecmp
import itertools
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from recbole_fair.errors import FairError
from recbole_fair.io import atomic
from recbole_fair.io.atomic import atomic_file, check_places, fresh_file, numbered
from recbole_fair.io.checkpoint import last_saved, save_checkpoint
from recbole_fair.io.locks import locked


def write(path: Path, text: str, keep: bool) -> None:
    with atomic_file(path, keep=keep, mode="w") as file:
        file.write(text)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_what_stood_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    for text in ("one", "two", "two", "three"):
        write(path, text, keep=True)
    assert contents(tmp_path) == {"r.json": "three", "r-2.json": "one", "r-3.json": "two"}
    write(path, "four", keep=False)
    assert contents(tmp_path) == {"r.json": "four", "r-2.json": "one", "r-3.json": "two"}


def test_a_fresh_file_replaces_none(tmp_path: Path) -> None:
    paths = []
    for text in "abc":
        with fresh_file(tmp_path / "x.pth", mode="w") as fresh:
            fresh.file.write(text)
        paths.append(fresh.path.name)
    assert paths == ["x.pth", "x-2.pth", "x-3.pth"] == [path.name for path in itertools.islice(numbered("x.pth"), 3)]
    assert contents(tmp_path) == {"x.pth": "a", "x-2.pth": "b", "x-3.pth": "c"}
    mode = stat.S_IMODE((tmp_path / "x.pth").stat().st_mode)
    (tmp_path / "plain").touch()
    assert mode == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("keep", [True, False])
def test_without_hard_links(keep: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(atomic.os, "link", no_links)
    for text in ("one", "two"):
        write(tmp_path / "r", text, keep)
    assert contents(tmp_path) == ({"r": "two", "r-2": "one"} if keep else {"r": "two"})
    with fresh_file(tmp_path / "r", mode="w") as fresh:
        fresh.file.write("three")
    assert fresh.path.read_text() == "three"


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path / "r", "one", keep=True)

    def half(fresh: bool) -> None:
        if fresh:
            with fresh_file(tmp_path / "r", mode="w") as made:
                made.file.write("half")
                raise KeyboardInterrupt
        with atomic_file(tmp_path / "r", keep=True, mode="w") as file:
            file.write("half")
            raise KeyboardInterrupt

    for fresh in (True, False):
        with pytest.raises(KeyboardInterrupt):
            half(fresh)
    assert contents(tmp_path) == {"r": "one"}


WRITERS = """
import sys
from recbole_fair.io.atomic import atomic_file, fresh_file
kind, folder, name = sys.argv[1:]
for number in range(40):
    if kind == "keep":
        with atomic_file(f"{folder}/r.txt", keep=True, mode="w") as file:
            file.write(f"{name}-{number}")
    else:
        with fresh_file(f"{folder}/r.txt", mode="w") as fresh:
            fresh.file.write(f"{name}-{number}")
"""


@pytest.mark.parametrize("kind", ["keep", "fresh"])
def test_processes_at_once_lose_nothing(kind: str, tmp_path: Path) -> None:
    words = [sys.executable, "-c", WRITERS, kind, str(tmp_path)]
    processes = [subprocess.Popen([*words, name]) for name in "ab"]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    written = sorted(path.read_text() for path in tmp_path.iterdir())
    assert written == sorted(f"{name}-{number}" for name in "ab" for number in range(40))


def test_a_result_that_another_process_moves_away_meanwhile_leaves_no_empty_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.txt").write_text("theirs")
    compare = filecmp.cmp

    def moved_after_comparing(one: str, other: Path, shallow: bool) -> bool:
        same = compare(one, other, shallow)
        if other.read_text() == "theirs":
            other.rename(tmp_path / "r-2.txt")
        return same

    monkeypatch.setattr(filecmp, "cmp", moved_after_comparing)
    with atomic_file(tmp_path / "r.txt", keep=True, mode="w") as file:
        file.write("ours")
    assert contents(tmp_path) == {"r.txt": "ours", "r-2.txt": "theirs"}


def test_places_that_must_not_be_written_to(tmp_path: Path) -> None:
    data, link, pipe, hard = (tmp_path / name for name in ("d.inter", "link", "pipe", "hard"))
    data.write_text("user_id:token\n")
    link.symlink_to(data)
    os.mkfifo(pipe)
    os.link(data, hard)
    (tmp_path / "to_nowhere").symlink_to(tmp_path / "nothing")
    save_checkpoint(tmp_path / "model.bin", {"x": 1})
    with zipfile.ZipFile(tmp_path / "lists.zip", "w") as archive:
        archive.writestr("a", "b")
    refused = {
        data: "is read here", hard: "is read here", link: "is a link", pipe: "is no regular file",
        tmp_path: "is a directory", tmp_path / "to_nowhere": "is a link", tmp_path / "model.bin": "holds a checkpoint",
        tmp_path / "lists.zip": "another archive", Path("/dev/null"): "is no regular file",
        data / "below": "cannot be written", tmp_path / ("x" * 300): "cannot be written", Path("a\0b"): "cannot be",
    }  # fmt: skip
    for path, reason in refused.items():
        with pytest.raises(FairError, match=f"result_file=.*{reason}") as caught:
            check_places({"result_file": path}, [data, tmp_path / "not there"])
        assert str(caught.value).count("result_file=") == 1
        assert not str(caught.value).endswith("..")
    check_places({"a": tmp_path / "new" / "r.json", "b": tmp_path / "new" / "s.json"}, [data])
    for one, other in (("r", "r"), ("r", "./r"), ("r", "new/../r"), ("new/link/r", "r")):
        (tmp_path / "new").mkdir(exist_ok=True)
        (tmp_path / "new" / "link").unlink(missing_ok=True)
        (tmp_path / "new" / "link").symlink_to(tmp_path, target_is_directory=True)
        with pytest.raises(FairError, match="is the file of a as well"):
            check_places({"a": tmp_path / one, "b": f"{tmp_path}/{other}"})


def test_the_last_checkpoint_of_this_process(tmp_path: Path) -> None:
    first = save_checkpoint(tmp_path / "m.pth", {"x": 1}, fresh=True)
    second = save_checkpoint(tmp_path / "m.pth", {"x": 2}, fresh=True)
    assert (Path(first).name, Path(second).name, last_saved()) == ("m.pth", "m-2.pth", second)
    assert [torch.load(path, weights_only=True)["x"] for path in (first, second)] == [1, 2]


def test_locks_end_with_their_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; from recbole_fair.io.locks import locked\n"
        "with locked(sys.argv[1], 'x'): print('in', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "lock"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    waiter = subprocess.Popen([sys.executable, "-c", code, tmp_path / "lock"], stdout=subprocess.PIPE, text=True)
    process.kill()
    process.wait()
    assert waiter.stdout is not None
    assert waiter.stdout.readline() == "in\n"
    waiter.kill()
    waiter.wait()
    with locked(tmp_path / "lock", "x"):
        assert (tmp_path / "lock").exists()
