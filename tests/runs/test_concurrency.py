"""Two runs, two sweeps, two comparisons at once in one folder: each gets the numbers that it gets alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recbole_fair.cli import main

WORDS = ["--epochs=2", "--embedding_size=4", "--topk=[3]", "--metrics=[NDCG,GiniIndex]", "--valid_metric=NDCG@3",
         "--state=ERROR", "--show_progress=false"]  # fmt: skip
ROUNDS = [1, pytest.param(20, marks=pytest.mark.slow)]
SLOW_ROUNDS = [pytest.param(number, marks=pytest.mark.slow) for number in (1, 20)]


def started(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "recbole_fair", *words]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def main_alone(folder: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command with nobody beside it, in this process."""
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 0


def both(folder: Path, *commands: list[str]) -> None:
    processes = [started(folder, *words) for words in commands]
    for process in processes:
        _, err = process.communicate(timeout=500)
        assert process.returncode == 0, err.decode()


def documents(folder: Path, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob(pattern))]


def run_words(data: Path, seed: int, result: str) -> list[str]:
    return [
        "run",
        "-m",
        "BPR",
        "-d",
        "small",
        f"--data_path={data}",
        *WORDS,
        f"--seed={seed}",
        f"--result_file={result}",
    ]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_two_runs(rounds: int, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (1, 2):
        main_alone(tmp_path, run_words(small_data, seed, f"{seed}.json"), monkeypatch)
    alone = {seed: documents(tmp_path, f"{seed}.json")[0]["test_result"] for seed in (1, 2)}
    for number in range(rounds):
        folder = tmp_path / f"round-{number}"
        folder.mkdir()
        both(folder, *(run_words(small_data, seed, "r.json") for seed in (1, 2)))
        # One result file was asked for twice: both results stand.
        found = documents(folder, "r*.json")
        assert sorted(document["seed"] for document in found) == [1, 2]
        assert len({document["checkpoint"] for document in found}) == 2 == len(list(folder.glob("saved/*.pth")))
        assert len(list(folder.glob("log/BPR/*.log"))) == 2
        for document in found:
            assert document["test_result"] == alone[document["seed"]]
    print(f"{rounds} of {rounds} pairs of runs")


@pytest.mark.parametrize("rounds", SLOW_ROUNDS)
def test_two_sweeps(rounds: int, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main_alone(tmp_path, run_words(small_data, 1, "r.json"), monkeypatch)
    (checkpoint,) = tmp_path.glob("saved/*.pth")
    grids = ["reranker_alpha=0:1:0.25", "reranker_alpha=0.1,0.9"]

    def words(grid: str, metrics: str, output: str) -> list[str]:
        common = ["--reranker=IPR", f"--metrics={metrics}", "--state=ERROR", "--x=GiniIndex@3", "--y=NDCG@3"]
        return ["sweep", str(checkpoint), f"--grid={grid}", f"--output={output}", *common]

    asked = [(grids[0], "[NDCG,GiniIndex]"), (grids[1], "[NDCG,GiniIndex,Hit]")]
    for number, (grid, metrics) in enumerate(asked):
        main_alone(tmp_path, words(grid, metrics, f"alone-{number}"), monkeypatch)
    expected = [documents(tmp_path, f"alone-{number}.json")[0] for number in range(2)]
    for number in range(rounds):
        both(tmp_path, *(words(*one, f"round-{number}/s") for one in asked))
        found = {document["key"]: document for document in documents(tmp_path, f"round-{number}/s*.json")}
        assert set(found) == {document["key"] for document in expected}
        for document in expected:
            assert found[document["key"]]["settings"] == document["settings"]
            assert found[document["key"]]["chosen"] == document["chosen"]
        names = {path.name for path in (tmp_path / f"round-{number}").iterdir()}
        assert names == {f"{stem}.{ending}" for stem in ("s", "s-2") for ending in ("json", "csv", "png", "svg")}
    print(f"{rounds} of {rounds} pairs of sweeps")


@pytest.mark.parametrize("rounds", SLOW_ROUNDS)
def test_two_comparisons(rounds: int, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def words(output: str, epochs: int) -> list[str]:
        common = ["--models=BPR,Pop", "--seeds=1,", "--spread=none", f"--data_path={small_data}", "-d", "small"]
        settings = [*WORDS[1:], f"--epochs={epochs}", "--bootstrap=20"]
        return ["compare", *common, f"--output={output}", "--permutations=100", *settings]

    for epochs in (1, 2):
        main_alone(tmp_path, words(f"alone-{epochs}", epochs), monkeypatch)
    expected = [documents(tmp_path, f"alone-{epochs}/comparison.json")[0] for epochs in (1, 2)]
    for number in range(rounds):
        both(tmp_path, *(words(f"round-{number}", epochs) for epochs in (1, 2)))
        found = documents(tmp_path, f"round-{number}/comparison*.json")
        assert sorted(document["settings"]["epochs"] for document in found) == [1, 2]
        for document in found:
            assert document["systems"] == expected[document["settings"]["epochs"] - 1]["systems"]
            assert document["failed"] == []
    # The same one twice shares its work.
    both(tmp_path, words("same", 1), words("same", 1))
    (document,) = documents(tmp_path, "same/comparison*.json")
    assert document["systems"] == expected[0]["systems"]
    print(f"{rounds} of {rounds} pairs of comparisons")
