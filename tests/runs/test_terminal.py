"""What a person at the terminal sees: stages, the files by name, the next command, as much as asked for."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fresh_log import fresh_root

from recbole_fair.cli import main
from recbole_fair.commands.talking import arranged
from recbole_fair.io.bars import bars_shown, new_bar
from recbole_fair.io.timing import Stages, duration
from recbole_fair.io.verbosity import Verbosity, set_verbosity, verbosity
from recbole_fair.trainer import watching
from recbole_fair.trainer.watching import Heartbeat

TINY = ["--epochs=1", "--embedding_size=4", "--topk=[3]", "--metrics=[NDCG,GiniIndex]", "--valid_metric=NDCG@3"]


@pytest.fixture(autouse=True)
def usual_verbosity() -> Iterator[None]:
    yield
    set_verbosity(Verbosity.NORMAL)


def outcome(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with fresh_root(), pytest.raises(SystemExit) as ended:
        main(words)
    streams = capsys.readouterr()
    return int(ended.value.code or 0), streams.out, streams.err


def test_a_run_names_its_stages_its_files_and_the_next_command(
    small_data: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "-m", "BPR", "-d", "small", f"--data_path={small_data}", *TINY, "--result_file=out.json"]
    code, out, err = outcome(words, capsys)
    assert code == 0, err
    lines = err.splitlines()
    assert [re.sub(r"[\d.]+ s$", "T", line) for line in lines[:3]] == [
        "1/3  data small, T", "2/3  training BPR, T", "3/3  evaluation on test, T",
    ]  # fmt: skip
    (checkpoint,) = Path("saved").glob("BPR-*.pth")
    assert lines[-4:-1] == [
        f"Checkpoint: {checkpoint}",
        "Result: out.json",
        "Find what trades accuracy for exposure best on this model:",
    ]
    assert lines[-1] == f"  recbole-fair frontier {checkpoint}"
    assert "ndcg@3" in out
    assert "ndcg@3" not in err

    code, again, err = outcome(["evaluate", "latest", "--topk=[3]"], capsys)
    assert code == 0, err
    assert f"Checkpoint: {checkpoint}" in err
    assert "2/2  evaluation on test" in err
    assert again == out


def test_post_hoc_models_say_what_they_fit(small_data: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-m", "PopSteerBPR", "-d", "small", f"--data_path={small_data}", *TINY, "--sae_epochs=1"]
    code, _, err = outcome(words, capsys)
    assert code == 0, err
    titles = [re.sub(r", [\d.]+ s$", "", line) for line in err.splitlines() if re.match(r"\d/\d  ", line)]
    assert titles == [
        "1/5  data small", "2/5  base model BPR", "3/5  autoencoder", "4/5  strengths on validation",
        "5/5  evaluation on test",
    ]  # fmt: skip
    assert "recbole-fair explain saved/PopSteerBPR-" in err.splitlines()[-1]


@pytest.mark.parametrize("words", [["-q", "run"], ["run", "-q"], ["run", "--quiet"], ["-q"]])
def test_quiet_leaves_the_tables(
    words: list[str], small_data: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = outcome([*words, "-m", "BPR", "-d", "small", f"--data_path={small_data}", *TINY], capsys)
    assert (code, err) == (0, "")
    assert "ndcg@3" in out


def test_verbose_shows_every_epoch(small_data: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = outcome(["-v", "-m", "BPR", "-d", "small", f"--data_path={small_data}", *TINY], capsys)
    assert code == 0
    assert "epoch 0 training" in err
    assert "embedding_size" in err


def test_where_the_words_go() -> None:
    assert arranged(["-q", "run", "-m", "BPR"]) == ["run", "-q", "-m", "BPR"]
    assert arranged(["-v", "-m", "BPR"]) == ["-v", "-m", "BPR"]
    assert arranged(["run", "--verbose", "-m", "BPR", "--verbose=1"]) == ["run", "-v", "-m", "BPR", "--verbose=1"]
    assert arranged(["run", "--verbose", "2"]) == ["run", "--verbose", "2"]
    assert arranged(["run", "-m", "BPR", "--verbose"]) == ["run", "-m", "BPR", "-v"]
    assert arranged(["--help"]) == ["--help"]
    assert arranged([]) == []


def test_both_at_once_contradict_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = outcome(["run", "-q", "-v", "-m", "BPR", "-d", "small"], capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert "contradict" in err


def test_a_later_command_is_as_loud_as_usual(capsys: pytest.CaptureFixture[str]) -> None:
    set_verbosity(Verbosity.QUIET)
    outcome(["models", "BPR"], capsys)
    assert verbosity() == Verbosity.NORMAL


def test_the_latest_checkpoint_is_the_newest_file(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = outcome(["explain", "latest"], capsys)
    assert code == 2
    assert "There is no latest checkpoint: saved/ holds no .pth file." in err
    Path("saved").mkdir()
    for age, name in enumerate(("new.pth", "old.pth", "older.pth")):
        Path("saved", name).write_bytes(b"nothing")
        os.utime(Path("saved", name), (time.time() - age, time.time() - age))
    Path("saved/folder.pth").mkdir()
    code, _, err = outcome(["explain", "latest"], capsys)
    assert code == 2
    assert err.startswith("Checkpoint: saved/new.pth\n")


def test_examples_in_the_help_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "evaluate", "sweep", "frontier", "explain", "compare", "report", "audit", "convert"):
        _, out, _ = outcome([command, "--help"], capsys)
        examples = [line for line in out.partition("Examples:")[2].splitlines() if line.strip()]
        assert examples
        assert all(line.strip().startswith(f"recbole-fair {command}") for line in examples), examples


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min"), (200, "3 min 20 s"),
        (3599.4, "59 min 59 s"), (3599.6, "1 h"), (7500, "2 h 5 min"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_stages_that_fail_or_have_no_title_are_not_said(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger().addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    stages = Stages()
    stages.total = 2
    with stages("a"):
        pass
    with pytest.raises(ValueError, match="x"), stages("b", "b"):
        raise ValueError("x")
    with stages("c", "see"):
        pass
    assert set(stages.seconds) == {"a", "b", "c"}
    assert [record.message.partition(",")[0] for record in caplog.records] == ["1/2  see"]


def test_a_long_training_says_where_it_is(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger().addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    now = [100.0]
    monkeypatch.setattr(watching.time, "monotonic", lambda: now[0])
    heartbeat = Heartbeat("SASRec", 300)
    for epoch in range(5):
        now[0] += 9
        heartbeat.beat(epoch, "NDCG@10", 0.05 + epoch / 100, 0.09)
    now[0] += 30
    heartbeat.beat(5)
    assert [record.message.strip() for record in caplog.records] == [
        "SASRec, epoch 3 of at most 300: NDCG@10 0.0700 on validation, best 0.0900",
        "SASRec, epoch 6 of at most 300",
    ]


def test_bars_are_for_people_and_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        text = ""

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> None:
            self.text += text

        def flush(self) -> None:
            pass

    assert not bars_shown(True)  # pytest's streams are no terminal
    terminal: Any = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert bars_shown(True)
    assert not bars_shown(False)
    for _ in new_bar(range(3), desc="three", mininterval=0, leave=True):
        pass
    assert "three" in terminal.text
    assert terminal.text.endswith("\r")
    monkeypatch.setattr("sys.stderr", None)
    assert not bars_shown(True)
