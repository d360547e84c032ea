"""One, two and three processes: the same lists and metrics, bit for bit; the same losses, up to summation order.

A group of processes is started once and does all it is asked for: importing takes a process four seconds.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_fair.cli import cli
from recbole_fair.commands.launching import number_of_processes
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import load_checkpoint
from recbole_fair.io.processes import Processes, current, place
from recbole_fair.quick_start import explain_checkpoint, run_recbole_fair

SCRIPT = Path(__file__).parent / "scenarios.py"
WHOLE = ("SGL", "RecVAE")  # every process trains on whole batches: these compare rows, or have several optimizers
DRAWS = ("MultiVAE",)  # draws in its loss, which differ from process to process
FEW = ("SASRec", "BPR", "ILEBPR", "WL", "DecFM", "SGL", "MultiVAE")  # one of each kind of loss; all in the slow test
STUDIES = ("studies",) if importlib.util.find_spec("optuna") else ()
SETTINGS = ["--hidden_size=8", "--inner_size=8", "--n_layers=1", "--MAX_ITEM_LIST_LENGTH=8", "--state=error"]
pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch was built without torch.distributed"),
    pytest.mark.xdist_group("processes"),  # the groups are started once, not once a worker
]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def environment(rank: int, world: int, port: int) -> dict[str, str]:
    own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    return {**os.environ, **own, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}


def group(world: int, folder: Path, data: Path, *scenarios: str, **environ: str) -> dict[str, Any]:
    """What the scenarios find in so many processes."""
    port = free_port()
    command = [sys.executable, str(SCRIPT), str(data), str(folder / "found.json"), *scenarios]
    children = [
        subprocess.Popen(command, cwd=folder, env=environment(rank, world, port) | environ, stderr=subprocess.PIPE)
        for rank in range(world)
    ]
    said = [child.communicate(timeout=400)[1].decode() for child in children]
    assert [child.returncode for child in children] == [0] * world, "\n".join(said)
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> dict[int, dict[str, Any]]:
    """All scenarios, by number of processes; the others go on with what two have begun."""
    folders = {world: tmp_path_factory.mktemp(f"world{world}") for world in (1, 2, 3)}
    always = ("evaluations", "trainings", "whole_runs")
    few = ";".join(FEW)
    done = {2: group(2, folders[2], small_data, *always, "begun", *STUDIES, "interrupted_sweep", TRAININGS=few)}
    begun = str(folders[2] / "found.json")
    for world in (1, 3):
        later = ["taken_up", "resumed_sweep", *(STUDIES if world == 1 else ())]
        done[world] = group(world, folders[world], small_data, *always, *later, BEGUN=begun, TRAININGS=few)
    return done


# -- evaluation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [2, 3])
def test_lists_and_metrics_are_those_of_one_process(found: dict[int, dict[str, Any]], world: int):
    one, several = found[1]["evaluations"], found[world]["evaluations"]
    assert set(one) == {"sequential", "general", "one batch", "sampled", "by chance", "labelled"}
    for name in one:
        assert several[name] == one[name], name
    assert one["sequential"]["test"]["struct"] != one["sequential"]["valid"]["struct"]


@pytest.mark.parametrize("world", [2, 3])
def test_files_rerankers_and_post_hoc_models(found: dict[int, dict[str, Any]], world: int):
    """Files are written by one process; a checkpoint's lists do not depend on who evaluates it."""
    one, several = found[1]["whole_runs"], found[world]["whole_runs"]
    assert set(several["files"]) == {"recommendations_file.csv", "per_user_file.csv", "per_item_file.csv"}
    for part in ("re-ranked", "PopSteerSASRec", "SPREESASRec"):
        for variant, metrics in one[part]["variants"].items():
            assert several[part]["variants"][variant] == pytest.approx(metrics, rel=0.05), (part, variant)
    assert several["PopSteerSASRec"]["base"] == one["PopSteerSASRec"]["base"]


@pytest.mark.parametrize("world", [1, 3])
def test_a_checkpoint_of_two_processes_is_evaluated_alike(found: dict[int, dict[str, Any]], world: int):
    """The weights that two processes have trained, scored and re-ranked by one and by three."""
    evaluated = found[world]["taken_up"]["evaluated"]
    assert evaluated == found[2]["begun"]["evaluated"]
    assert evaluated["variants"]["base"] != evaluated["variants"]["FAstarIR"]


@pytest.mark.parametrize("world", [1, 3])
def test_others_go_on_with_what_two_have_begun(found: dict[int, dict[str, Any]], world: int):
    begun, taken_up = found[2]["begun"], found[world]["taken_up"]
    assert begun["valid"][0] != begun["valid"][1], "the epochs that are resumed change nothing"
    assert taken_up["valid"] == pytest.approx(begun["valid"][1], rel=1e-3)
    assert taken_up["result"] == pytest.approx(begun["result"], rel=1e-2)


# -- studies -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not STUDIES, reason="Optuna is not installed")
def test_studies_of_two_processes_are_those_of_one(found: dict[int, dict[str, Any]]):
    one, two = found[1]["studies"], found[2]["studies"]
    assert set(one) == set(two)
    for name in one:
        assert two[name] == one[name], name
    assert json.loads(one["compare"]["failed"]) == [
        {"system": system, "seed": 2021, "error": "BPR does not like 2021."} for system in ("BPR", "BPR + IPR")
    ]
    assert (one["compare"]["reused"], one["compare again"]["reused"]) == ("0", "10")
    assert len(json.loads(one["tune, trained"]["trials"])) == 5
    assert one["sweep"]["chosen"] != "null"
    assert not [name for name in one["files"] if "partial" in name]


@pytest.mark.parametrize("world", [1, 3])
def test_a_sweep_is_taken_up_by_another_number_of_processes(found: dict[int, dict[str, Any]], world: int):
    resumed = found[world]["resumed_sweep"]
    assert resumed["resumed"] == 2
    assert resumed["found"] == resumed["whole"]
    assert resumed["left"] == ["s.csv", "s.json", "s.png", "s.svg"]


# -- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [2, 3])
def test_losses_are_those_of_one_process(found: dict[int, dict[str, Any]], world: int):
    check_trainings(found[1]["trainings"], found[world]["trainings"])


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_losses_of_all_trainings(small_data: Path, tmp_path_factory: pytest.TempPathFactory, world: int):
    one, several = (
        group(number, tmp_path_factory.mktemp(f"all{number}"), small_data, "trainings")["trainings"]
        for number in (1, world)
    )
    check_trainings(one, several)


def check_trainings(one: dict[str, Any], several: dict[str, Any]) -> None:
    assert any(training["steps"] >= 20 for training in one.values())
    for name, training in several.items():
        assert len(training["losses"]) == len(one[name]["losses"]) > 0, name
        tolerance = 0.02 if name in DRAWS else 1e-5
        assert training["losses"] == pytest.approx(one[name]["losses"], rel=tolerance), name
        assert training["norm"] == pytest.approx(one[name]["norm"], rel=tolerance), name
        assert training["weights_alike"], name
        in_parts = set(training["in_parts"].values())
        assert in_parts == ({False} if name in WHOLE else set() if name == "DecFM" else {True}), name


# -- the processes themselves -----------------------------------------------------------------------------------------


def test_one_process_waits_for_nobody():
    alone = Processes(place())
    values = torch.arange(3.0, requires_grad=True)
    assert not alone.several
    assert alone.writes
    assert alone.of_first({"a": 1}) == {"a": 1}
    assert alone.over_batch(values) is values
    assert alone.gather(values)[0] is values
    alone.wait()
    assert current().world == 1


def test_processes_are_named_by_the_environment(monkeypatch: pytest.MonkeyPatch):
    for name, value in environment(2, 3, 1234).items():
        monkeypatch.setenv(name, value)
    assert (place().rank, place().world) == (2, 3)
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(FairError, match="RANK=3 and WORLD_SIZE=3 of the environment name no process"):
        place()
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert place().world == 1


def test_what_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch):
    for name, value in environment(0, 2, 1234).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(FairError, match="explain_checkpoint runs in one process"):
        explain_checkpoint("a.pth")
    with pytest.raises(FairError, match="explain runs in one process; torchrun and nproc are for run, evaluate, sweep"):
        cli.main(["explain", "a.pth"], standalone_mode=False)


def test_number_of_processes_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.yaml").write_text("nproc: 3\n")
    assert number_of_processes({}, [str(tmp_path / "a.yaml")]) == 3
    assert number_of_processes({"nproc": 2}, [str(tmp_path / "a.yaml")]) == 2
    assert number_of_processes({}) == 1
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    assert number_of_processes({"nproc": 3}) == 1


def test_python_says_who_starts_processes(small_data: Path, in_tmp: Path):
    with pytest.raises(FairError, match=r"nproc=2: processes are started by the command line .* or by torchrun"):
        run_recbole_fair("BPR", "small", config_dict={"data_path": str(small_data), "nproc": 2})


# -- commands ------------------------------------------------------------------------------------------------------


def command(data: Path, *words: str) -> list[str]:
    named = ["-m", "SASRec", "-d", "small", f"--data_path={data}"]
    return [sys.executable, "-m", "recbole_fair", "run", *named, *SETTINGS, *words]


def test_nproc_writes_one_of_everything(small_data: Path, in_tmp: Path):
    words = command(small_data, "--nproc=2", "--epochs=2", "--result_file=out.json")
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (checkpoint,) = Path("saved").glob("*.pth")
    assert len(list(Path("log").rglob("*.log"))) == 1
    assert len(list(Path("log_tensorboard").iterdir())) == 1
    content = load_checkpoint(checkpoint)
    assert "nproc" not in content["config"]
    assert "nproc" not in content["user_settings"]
    assert json.loads(Path("out.json").read_text())["checkpoint"] == str(checkpoint)


def test_a_study_in_two_processes_by_the_command_line(found: dict[int, dict[str, Any]], in_tmp: Path):
    """One log, one document, nothing else; a mistake that one process meets is one sentence."""
    if not STUDIES:
        pytest.skip("Optuna is not installed")
    file, data = found[1]["resumed_sweep"]["file"], found[1]["resumed_sweep"]["data"]
    words = ["sweep", file, "--reranker=IPR", "--grid", "reranker_alpha=0,0.5", "--x", "GiniIndex@5", "--y", "NDCG@5"]
    command = [sys.executable, "-m", "recbole_fair", *words, "--nproc=2", f"--data_path={data}", "--output=out/s"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in Path("out").iterdir()) == ["s.csv", "s.json", "s.png", "s.svg"]
    assert len(list(Path("log").rglob("*.log"))) == 1
    assert done.stderr.count("Written") == 1
    assert "nproc" not in Path("out/s.json").read_text()


def test_a_mistake_is_one_sentence(small_data: Path, in_tmp: Path):
    done = subprocess.run(command(small_data, "--nproc=2", "--n_heads=3"), capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr.count("recbole-fair:") == 1, done.stderr
    assert "hidden_size=8 is not a multiple of n_heads=3" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def processes_of(parent: int) -> list[int]:
    """The processes that a process has started, by /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return sorted(found)


def killed_at(moment: float | None, rank: int, number: int, data: Path) -> tuple[int, str, float]:
    """Send a signal to one of two processes, or to who has started them (-1), at a moment or once an epoch has ended.

    Returns:
        Exit code, what was said, and seconds until all were gone.
    """
    run = subprocess.Popen(
        command(data, "--nproc=2", "--epochs=100000", "--stopping_step=100000"),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    waited = time.monotonic()
    while moment is None and not list(Path("saved").glob("*.pth")) and time.monotonic() < waited + 200:
        time.sleep(0.1)
    while len(children := processes_of(run.pid)) < 2 and time.monotonic() < waited + 200:
        time.sleep(0.05)
    time.sleep(moment or 0.0)
    start = time.monotonic()
    os.kill(children[rank] if rank >= 0 else run.pid, number)
    _, said = run.communicate(timeout=60)
    seconds = time.monotonic() - start
    for child in children:
        assert not Path(f"/proc/{child}").exists(), "a process is left behind"
    return run.returncode, said, seconds


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_run(small_data: Path, in_tmp: Path, rank: int):
    code, said, seconds = killed_at(None, rank, signal.SIGKILL, small_data)
    assert code == 1
    assert said.strip() == f"recbole-fair: process {rank} of 2 was ended by SIGKILL, and the others with it."
    assert seconds < 30


def test_a_run_of_several_is_interrupted(small_data: Path, in_tmp: Path):
    code, said, seconds = killed_at(None, -1, signal.SIGTERM, small_data)
    assert code == 143
    assert said.count("Interrupted") == 1
    assert len(said.strip().splitlines()) == 1
    assert seconds < 30


@pytest.mark.slow
def test_fifty_kills(small_data: Path, in_tmp: Path):
    rng = np.random.default_rng(0)
    for _ in range(50):
        rank = int(rng.integers(2))
        code, said, seconds = killed_at(float(rng.uniform(0.2, 20)), rank, signal.SIGKILL, small_data)
        assert code == 1
        assert len(said.strip().splitlines()) == 1, said
        assert seconds < 30


@pytest.mark.slow
def test_two_agents_of_torchrun(small_data: Path, in_tmp: Path):
    """Two machines, as far as torchrun can tell."""
    port = free_port()
    words = command(small_data, "--epochs=2", "--result_file=out.json")[2:]
    agents = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"),
                *("--rdzv_backend=c10d", f"--rdzv_endpoint=127.0.0.1:{port}", "-m", *words),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [agent.communicate(timeout=400)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    assert len(list(Path("saved").glob("*.pth"))) == 1
    assert json.loads(Path("out.json").read_text())["test_result"]
