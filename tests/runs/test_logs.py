"""The log: a file for every run, tables on standard output, nothing left behind, nothing obeyed."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from fresh_log import with_fresh_root

from recbole_fair.io.text import visible
from recbole_fair.io.verbosity import Verbosity, set_verbosity
from recbole_fair.quick_start import run_recbole_fair
from recbole_fair.runs import logs

QUICK: dict[str, Any] = {
    "epochs": 1, "embedding_size": 4, "topk": [3], "metrics": ["NDCG"], "valid_metric": "NDCG@3",
    "show_progress": False,
}  # fmt: skip


def run(small_data: Path, **changes: Any) -> None:
    run_recbole_fair("BPR", "small", config_dict={**QUICK, "data_path": str(small_data), **changes})


@with_fresh_root
def test_every_run_logs_into_its_own_file_and_leaves_nothing(small_data: Path, in_tmp: Path) -> None:
    run(small_data)
    streams, threads = (sys.stdout, sys.stderr), threading.active_count()
    handles = len(list(Path("/proc/self/fd").iterdir()))
    for seed in range(5):
        run(small_data, seed=seed)
    assert (sys.stdout, sys.stderr) == streams
    assert threading.active_count() == threads
    assert len(list(Path("/proc/self/fd").iterdir())) == handles
    files = sorted(Path("log/BPR").glob("*.log"))
    assert len(files) == 6
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert text.count("epoch 0 training") == 1
        assert text.count("ndcg@3  ") == 1
        assert "\x1b" not in text


@pytest.mark.slow
@with_fresh_root
def test_a_thousand_runs_in_one_process(small_data: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_verbosity(Verbosity.QUIET)
    try:
        run(small_data)
        streams, threads = (sys.stdout, sys.stderr), threading.active_count()
        handles = len(list(Path("/proc/self/fd").iterdir()))
        for seed in range(1, 1000):
            run(small_data, seed=seed)
        assert (sys.stdout, sys.stderr) == streams
        assert (threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))) == (threads, handles)
    finally:
        set_verbosity(Verbosity.NORMAL)
    texts = [file.read_text(encoding="utf-8") for file in Path("log/BPR").glob("*.log")]
    assert [text.count("epoch 0 training") for text in texts] == [1] * 1000
    seeds = [line for text in texts for line in text.splitlines() if line.startswith("seed = ")]
    assert len(seeds) == 1000
    assert len(set(seeds)) == 1000
    with capsys.disabled():
        print(f"\n{len(texts)} runs, {threads} threads and {handles} handles before and after, a file of its own each")


@with_fresh_root
def test_tables_go_to_standard_output(small_data: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = {}
    for verbosity in Verbosity:
        set_verbosity(verbosity)
        run(small_data)
        shown[verbosity] = capsys.readouterr()
    set_verbosity(Verbosity.NORMAL)
    tables = {streams.out for streams in shown.values()}
    assert len(tables) == 1
    assert [line.split()[0] for line in tables.pop().split("\n") if line] == ["test", "------", "ndcg@3"]
    assert shown[Verbosity.QUIET].err == ""
    assert "epoch 0 training" in shown[Verbosity.VERBOSE].err
    assert "learning_rate" in shown[Verbosity.VERBOSE].err
    assert "learning_rate" not in shown[Verbosity.NORMAL].err
    assert 0 < shown[Verbosity.NORMAL].err.count("\n") < 12


@with_fresh_root
def test_an_applications_handlers_are_left_alone(small_data: Path, in_tmp: Path) -> None:
    stream = io.StringIO()
    mine = logging.StreamHandler(stream)
    logging.getLogger().addHandler(mine)
    logging.getLogger().setLevel(logging.INFO)
    run(small_data)
    run(small_data)
    assert logging.getLogger().handlers[0] is mine
    assert stream.getvalue().count("epoch 0 training") == 2
    assert len(list(Path("log/BPR").glob("*.log"))) == 2


@with_fresh_root
def test_without_a_place_for_the_log_the_run_goes_on(
    small_data: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("log").write_text("in the way")
    Path("log_tensorboard").write_text("in the way")
    run(small_data)
    streams = capsys.readouterr()
    assert "This run has no log file" in streams.err
    assert "ndcg@3" in streams.out
    assert Path("log").read_text() == "in the way"


@pytest.mark.parametrize("way", ["closed", "C"])
def test_odd_terminals(way: str, small_data: Path, tmp_path: Path) -> None:
    """Standard error closed by who started the process; a locale that knows no letters beyond ASCII."""
    words = [sys.executable, "-m", "recbole_fair", "run", "-m", "BPR", "-d", "small", f"--data_path={small_data}"]
    words += ["--epochs=1", "--embedding_size=4", "--metrics=[NDCG]", "--topk=[3]", "--valid_metric=NDCG@3"]
    line = " ".join(f"'{word}'" for word in words) + " --result_file=r.json"
    prefix = "env LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 " if way == "C" else ""
    done = subprocess.run(
        ["bash", "-c", f"{prefix}{line}" + (" 2>&-" if way == "closed" else "")],
        cwd=tmp_path, capture_output=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"ndcg@3" in done.stdout
    assert len(list(tmp_path.glob("r.json"))) == 1


@with_fresh_root
def test_what_would_steer_a_terminal_is_shown(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    title = "A\x1b[2J\x1b]0;owned\x07\r\u202egnp.exe\n\x9b31mB"
    assert visible(title) == "A\\x1b[2J\\x1b]0;owned\\x07\\r\\u202egnp.exe\\n\\x9b31mB"
    assert visible("a\x1b[31mb\x1b[0m\x1b[2J", colours=True) == "a\x1b[31mb\x1b[0m\\x1b[2J"
    logging.getLogger().addHandler(logs._Terminal(logging.INFO))
    logging.getLogger("recbole_fair.x").warning("%s", title)
    logging.getLogger().warning("\x1b[1;34mepoch\x1b[0m of %s", title)
    err = capsys.readouterr().err
    assert not {"\x1b", "\x07", "\r", "\u202e", "\x9b"} & set(err)
    assert "epoch of A\\x1b[2J" in err
