"""The command line: reading settings, sentences instead of tracebacks, exit codes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from recbole_fair import __version__, quick_start
from recbole_fair.cli import main, read_settings
from recbole_fair.errors import FairError
from recbole_fair.io import checkpoint
from recbole_fair.report.documents import EvaluationDocument

ROOT = Path(__file__).resolve().parents[2]


def outcome(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(words)
    streams = capsys.readouterr()
    return int(ended.value.code or 0), streams.out, streams.err


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the commands ask of quick_start, instead of doing it."""
    seen: list[Any] = []

    def called(*args: Any, **options: Any) -> EvaluationDocument:
        seen.append(args or options)
        return EvaluationDocument(model="BPR", dataset="small", seed=1, test_result=None)

    monkeypatch.setattr(quick_start, "run_recbole_fair", called)
    monkeypatch.setattr(quick_start, "evaluate_checkpoint", called)
    return seen


def test_settings_are_read_in_every_spelling() -> None:
    words = ["--epochs=5", "--learning_rate", "1e-3", "--weight-decay=0.1", "--alpha_pop", "-2", "--time-aware=true"]
    words += ["--metrics=['NDCG','Hit']", "--result_file=a=b.json", "--note="]
    assert read_settings(words) == {
        "epochs": 5,
        "learning_rate": 0.001,
        "weight_decay": 0.1,
        "alpha_pop": -2,
        "time-aware": True,
        "metrics": ["NDCG", "Hit"],
        "result_file": "a=b.json",
        "note": None,
    }
    assert read_settings(["--epochs=5", "--epochs", "5"]) == {"epochs": 5}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["epochs=5"], "'epochs=5' is not a setting; write --key=value"),
        (["--epochs"], "--epochs needs a value"),
        (["--shuffle", "--epochs=5"], "--shuffle needs a value"),
        (["--config_files=a.yaml"], "files of settings are for run, compare, frontier and tune"),
        (["-c", "a.yaml"], "files of settings are for run, compare, frontier and tune"),
        (["--epochs=5", "--epochs=6"], "--epochs is given twice, as 5 and as 6"),
    ],
)
def test_words_that_are_no_settings(words: list[str], says: str) -> None:
    with pytest.raises(FairError, match=says):
        read_settings(words)


@pytest.mark.parametrize("command", [["run"], []])
@pytest.mark.parametrize(
    "words",
    [
        ["-m", "BPR", "-d", "ml-100k", "-c", "a.yaml b.yaml"],
        ["-m=BPR", "-d=ml-100k", "-c=a.yaml b.yaml"],
        ["--model=BPR", "--dataset=ml-100k", "--config_files=a.yaml b.yaml"],
        ["--model", "BPR", "--dataset", "ml-100k", "--config-files", "a.yaml", "-c", "b.yaml"],
    ],
)
def test_run_passes_everything_on(
    command: list[str], words: list[str], calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = outcome([*command, *words, "--epochs=2", "--resume=x.pth"], capsys)
    assert code == 0, err
    assert calls == [
        {
            "model": "BPR",
            "dataset": "ml-100k",
            "config_file_list": ["a.yaml", "b.yaml"],
            "config_dict": {"epochs": 2, "resume": "x.pth"},
        }
    ]


def test_evaluate_passes_everything_on(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(["evaluate", "saved/x.pth", "--alpha_pop=3"], capsys)[0] == 0
    assert calls == [("saved/x.pth", {"alpha_pop": 3})]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "-m", "bpr", "-d", "ml-100k"], "model='bpr' is not a known model; did you mean 'BPR'?"),
        (["-m", "BPR", "-d", "ml-100k", "--epcohs=3"], "epcohs=3 is not a known key; did you mean 'epochs'?"),
        (
            ["-m", "BPR", "-d", "ml-100k", "--epochs=0"],
            "epochs=0 is not allowed: it must be a whole number at least 1",
        ),
        (["-m", "BPR"], "dataset is not set"),
        (["-m", "BPR", "-d", "nowhere"], "dataset='nowhere': there is no file"),
        (["-m", "BPR", "-d", "ml-100k", "-c", "none.yaml"], "there is no file 'none.yaml'"),
        (["-m", "BPR", "-d", "ml-100k", "stray"], "'stray' is not a setting"),
        (["evaluate", "nowhere.pth"], "nowhere.pth"),
    ],
)
def test_mistakes_end_with_one_sentence_and_code_2(
    words: list[str], says: str, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = outcome(words, capsys)
    assert code == 2
    assert says in err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("recbole-fair: ")]) == 1


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = outcome(["rum"], capsys)
    assert code == 2
    assert "No such command" in err


@pytest.mark.parametrize("written", [True, False])
def test_interruption_names_the_checkpoint_of_this_run(
    written: bool, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**_: Any) -> None:
        if written:
            checkpoint.save_checkpoint(in_tmp / "mine" / "own.pth", {"x": 1})
        (in_tmp / "mine").mkdir(exist_ok=True)
        (in_tmp / "mine" / "newer-of-another-run.pth").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "_last_saved", None)
    monkeypatch.setattr(quick_start, "run_recbole_fair", interrupted)
    code, _, err = outcome(["-m", "BPR", "-d", "ml-100k", "--checkpoint_dir=mine"], capsys)
    assert code == 130
    assert err.count("\n") == 1
    assert (f"--resume={in_tmp}/mine/own.pth" in err) == written
    assert ("no checkpoint was written yet" in err) != written


def _default_signals() -> None:
    """What starts the tests may ignore signals, as a shell does for jobs in the background."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_signals_of_schedulers_and_terminals(name: str, code: int, small_data: Path, tmp_path: Path) -> None:
    """A real training is stopped, and goes on from the checkpoint that it names."""
    words = [sys.executable, "-m", "recbole_fair", "run", "-m", "BPR", "-d", "small", f"--data_path={small_data}"]
    words += ["--epochs=100000", "--stopping_step=100000", "--embedding_size=4", "--state=INFO"]
    pipes: dict[str, Any] = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(words, cwd=tmp_path, preexec_fn=_default_signals, **pipes) as process:
        deadline = time.time() + 120
        while not list(tmp_path.glob("saved/*.pth")) and time.time() < deadline:
            time.sleep(0.1)
        (tmp_path / "saved" / "BPR-of-another-run.pth").touch()
        process.send_signal(getattr(signal, name))
        _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    last = err.splitlines()[-1]
    (own,) = [path.name for path in tmp_path.glob("saved/*.pth") if path.name != "BPR-of-another-run.pth"]
    assert last == f"Interrupted: the last checkpoint is saved/{own}; go on with --resume=saved/{own}."
    assert not list(tmp_path.glob("saved/.*"))


def test_files_of_settings_with_spaces_in_their_names(in_tmp: Path, calls: list[Any]) -> None:
    (in_tmp / "my files").mkdir()
    (in_tmp / "my files" / "a.yaml").touch()
    with pytest.raises(SystemExit):
        main(["run", "-c", "my files/a.yaml", "-c", "b.yaml c.yaml"])
    assert calls[0]["config_file_list"] == ["my files/a.yaml", "b.yaml", "c.yaml"]


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(["--version"], capsys) == (0, f"recbole-fair {__version__}\n", "")
    for words in (["--help"], ["run", "--help"], ["evaluate", "-h"]):
        code, out, err = outcome(words, capsys)
        assert code == 0, err
        assert "Examples:" in out
    assert "recbole-fair doctor" in outcome(["-h"], capsys)[1]


@pytest.mark.parametrize("start", [["run_recbole_fair.py"], ["-m", "recbole_fair"]])
def test_scripts_are_the_same_command(start: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *start, "--model=BPR", "stray"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("recbole-fair: 'stray' is not a setting")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "-m", "BPR", "-m", "Pop", "-d", "ml-100k"], "--model is given twice, as 'BPR' and as 'Pop'"),
        (["run", "-m", "BPR", "-d", "a", "--dataset=b"], "--dataset is given twice, as 'a' and as 'b'"),
        (["evaluate", "--alpha_pop=3", "x.pth"], "evaluate CHECKPOINT --alpha_pop=3"),
        (["sweep", "--grid=alpha_pop=1", "--alpha_pop=3", "x.pth"], "Name the checkpoint before the settings"),
    ],
)
def test_words_in_the_wrong_place(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = outcome(words, capsys)
    assert code == 2
    assert says in err


def test_a_package_that_a_model_misses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(**_: Any) -> None:
        raise ModuleNotFoundError("No module named 'dgl.graph'", name="dgl.graph")

    monkeypatch.setattr(quick_start, "run_recbole_fair", missing)
    code, _, err = outcome(["run", "-m", "KGIN", "-d", "x"], capsys)
    assert (code, err) == (2, "recbole-fair: this model needs the package 'dgl.graph', which is not installed.\n")
