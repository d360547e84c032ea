"""Two runs, two sweeps, two comparisons at once in one folder: each gets the numbers that it gets alone."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from recbole_fair.cli import main

WORDS = ["--epochs=2", "--embedding_size=4", "--topk=[3]", "--metrics=[NDCG,GiniIndex]", "--valid_metric=NDCG@3",
         "--state=ERROR", "--show_progress=false"]  # fmt: skip
ROUNDS = [1, pytest.param(20, marks=pytest.mark.slow)]


# Processes that have imported everything: two of them begin within the same moment, and twenty pairs take no hour.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["recbole_fair.quick_start", "recbole_fair.runs.sweep", "recbole_fair.runs.compare"])


def command(folder: Path, words: list[str], barrier: Any) -> None:
    """What a process does: the command, once the others are there."""
    os.chdir(folder)
    with (
        open(os.devnull, "w") as nothing,
        open(f"{os.getpid()}.err", "w") as errors,
        contextlib.redirect_stdout(nothing),
        contextlib.redirect_stderr(errors),
    ):
        barrier.wait(300)
        main(words)


def at_once(folder: Path, *commands: list[str]) -> None:
    """Run commands in processes of their own that begin together; all must end well."""
    barrier = CONTEXT.Barrier(len(commands))
    processes = [CONTEXT.Process(target=command, args=(folder, words, barrier)) for words in commands]
    for process in processes:
        process.start()
    for process in processes:
        process.join(500)
    for process in processes:
        said = folder / f"{process.pid}.err"
        assert process.exitcode == 0, said.read_text() if said.exists() else "it did not begin"
        said.unlink()


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
def test_two_runs(rounds: int, small_data: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        at_once(tmp_path, run_words(small_data, seed, f"{seed}.json"))
    alone = {seed: documents(tmp_path, f"{seed}.json")[0]["test_result"] for seed in (1, 2)}
    for number in range(rounds):
        folder = tmp_path / f"round-{number}"
        folder.mkdir()
        at_once(folder, *(run_words(small_data, seed, "r.json") for seed in (1, 2)))
        # One result file was asked for twice: both results stand.
        found = documents(folder, "r*.json")
        assert sorted(document["seed"] for document in found) == [1, 2]
        assert len({document["checkpoint"] for document in found}) == 2 == len(list(folder.glob("saved/*.pth")))
        assert len(list(folder.glob("log/BPR/*.log"))) == 2
        for document in found:
            assert document["test_result"] == alone[document["seed"]]
    print(f"{rounds} of {rounds} pairs of runs")


@pytest.mark.parametrize("rounds", ROUNDS)
def test_two_sweeps(rounds: int, small_data: Path, tmp_path: Path) -> None:
    at_once(tmp_path, run_words(small_data, 1, "r.json"))
    (checkpoint,) = tmp_path.glob("saved/*.pth")
    grids = ["reranker_alpha=0:1:0.25", "reranker_alpha=0.1,0.9"]

    def words(grid: str, metrics: str, output: str) -> list[str]:
        common = ["--reranker=IPR", f"--metrics={metrics}", "--state=ERROR", "--x=GiniIndex@3", "--y=NDCG@3"]
        return ["sweep", str(checkpoint), f"--grid={grid}", f"--output={output}", *common]

    asked = [(grids[0], "[NDCG,GiniIndex]"), (grids[1], "[NDCG,GiniIndex,Hit]")]
    for number, (grid, metrics) in enumerate(asked):
        at_once(tmp_path, words(grid, metrics, f"alone-{number}"))
    expected = [documents(tmp_path, f"alone-{number}.json")[0] for number in range(2)]
    for number in range(rounds):
        at_once(tmp_path, *(words(*one, f"round-{number}/s") for one in asked))
        found = {document["key"]: document for document in documents(tmp_path, f"round-{number}/s*.json")}
        assert set(found) == {document["key"] for document in expected}
        for document in expected:
            assert found[document["key"]]["settings"] == document["settings"]
            assert found[document["key"]]["chosen"] == document["chosen"]
        names = {path.name for path in (tmp_path / f"round-{number}").iterdir()}
        assert names == {f"{stem}.{ending}" for stem in ("s", "s-2") for ending in ("json", "csv", "png", "svg")}
    print(f"{rounds} of {rounds} pairs of sweeps")


@pytest.mark.parametrize("rounds", ROUNDS)
def test_two_comparisons(rounds: int, small_data: Path, tmp_path: Path) -> None:
    def words(output: str, epochs: int) -> list[str]:
        common = ["--models=BPR,Pop", "--seeds=1,", "--spread=none", f"--data_path={small_data}", "-d", "small"]
        settings = [*WORDS[1:], f"--epochs={epochs}", "--bootstrap=20"]
        return ["compare", *common, f"--output={output}", "--permutations=100", *settings]

    for epochs in (1, 2):
        at_once(tmp_path, words(f"alone-{epochs}", epochs))
    expected = [documents(tmp_path, f"alone-{epochs}/comparison.json")[0] for epochs in (1, 2)]
    for number in range(rounds):
        at_once(tmp_path, *(words(f"round-{number}", epochs) for epochs in (1, 2)))
        found = documents(tmp_path, f"round-{number}/comparison*.json")
        assert sorted(document["settings"]["epochs"] for document in found) == [1, 2]
        for document in found:
            assert document["systems"] == expected[document["settings"]["epochs"] - 1]["systems"]
            assert document["failed"] == []
    # The same one twice shares its work.
    at_once(tmp_path, words("same", 1), words("same", 1))
    (document,) = documents(tmp_path, "same/comparison*.json")
    assert document["systems"] == expected[0]["systems"]
    print(f"{rounds} of {rounds} pairs of comparisons")
