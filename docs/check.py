"""Runs the commands that README and the pages show on ml-100k, and compares what they print with a recording.

    python docs/check.py record [WORD]       # runs what holds WORD (all), and records it in docs/recorded.json
    python docs/check.py add [WORD]          # likewise, what is not recorded yet; drops what no page has
    python docs/check.py compare [WORD]      # runs what was quick when it was recorded, and compares
    python docs/check.py list [WORD]         # runs nothing

Commands run as they stand on the pages, in a folder of their own, but trainings end after three epochs. Where a page
names a checkpoint, a model of that name takes its place, and PopSteer that of `latest`; tables, lists and old
checkpoints are made of ml-100k (`check_files.py`). Numbers depend on processor and threads, so that the text between
them is compared; titles of films depend on numbers, and differ between processors. Commands that took more than three
minutes of processor time are recorded as slow and passed over.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from check_files import MADE_BY, PLAIN, train_plain, write_files

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "recorded.json"
#: Seconds of processor time, and how long the clock may go on meanwhile on a machine with other work.
LIMIT, PATIENCE = 180, 1200
FENCE = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
PLACE = re.compile(r"saved/([A-Z]\w*?)(?:-….pth|-checkpoint\.pth|\.pth|-…)(?=['\s]|$)")
LATEST = re.compile(r"(?<= )(?:latest|CKPT|saved/CHECKPOINT\.pth)(?= |$)")
NUMBER = re.compile(r"[-+]?(?:\d[\d,]*)?\.?\d+(?:e[-+]?\d+)?")
#: What trains, and on what keys it ends early; numbers are not compared.
TRAINS = re.compile(r"^python run_recbole_fair|^recbole-fair (?:run|compare|tune)|--fit ")
SHORTER = {"": "--epochs=3", "PopSteer": "--sae_epochs=3"}
#: What checkpoints of a model are trained with beside it, so that all that the pages do with them works.
WITH = {"DecFM": " --group_field=class --fusion_control=true"}
TABLES = re.compile(r"\b(?:convert|audit|report|import)\b|\bold\.pth|saved/(?:chosen|gru)\.pth|served\.pth")
#: Words of commands on data, classes and servers that do not come with the package, or on studies of an hour.
ELSEWHERE = (
    "ml-1m", "amazon", "foursquare", "my-data", "my_module", "log_mlflow", "verify", "file:mine", "Documentary",
    "ConceptShare", "tune-BPR-ml-100k", "saved/SASRec-ml-100k.pth",
)  # fmt: skip
#: Commands that need neither data nor a checkpoint.
LISTS = ("models", "metrics", "rerankers", "datasets", "keys", "doctor")


def commands() -> Iterator[str]:
    """Each command of the pages that needs nothing but ml-100k, in their order, once."""
    seen = set()
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for block in FENCE.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                match = re.match(r"(?:recbole-fair|python run_recbole_fair\.py) .*", line.strip())
                if match is None or any(word in line for word in ELSEWHERE):
                    continue
                command = " ".join(shlex.join(shlex.split(match[0], comments=True)).split())
                ours = any(pattern.search(command) for pattern in (PLACE, LATEST, TABLES))
                known = command.split()[1] in LISTS or "ml-100k" in command or "--dataset=shop" in command or ours
                if known and " '|' " not in command and command not in seen:
                    seen.add(command)
                    yield command


def executable(command: str) -> list[str]:
    """The words of a command as this interpreter runs them."""
    words = shlex.split(command)
    start = 2 if words[0] == "python" else 1
    return [sys.executable, "-m", "recbole_fair", *(["run"] if start == 2 else []), *words[start:]]


def form(text: str) -> list[str]:
    """Lines of what was printed without numbers, rules, widths of columns and rows that differ in numbers alone."""
    text = re.sub(r"saved/[\w.-]+\.pth|results/[\w.-]+|(?<= )/\S+/python[\d.]*|\bLinux\S+", "FILE", text)
    lines = (" ".join(NUMBER.sub("#", line).split()) for line in text.splitlines())
    kept = [line for line in lines if line and not set(line) <= set("- ")]
    return [line for before, line in pairwise(["", *kept]) if line != before]  # a front has as many rows as it has


class Workplace:
    """A folder in which commands run, with the files and checkpoints that they name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._trained: dict[str, str | None] = {}
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        if not (folder / "data").exists():
            write_files(folder)

    def run(self, command: str, limit: float = LIMIT) -> tuple[int | None, str, float]:
        """Exit code (None: more than `limit` seconds of the processor), standard output and those seconds."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        most = (int(limit) + 5,) * 2  # the system ends what goes on beyond it
        try:
            done = subprocess.run(
                executable(command), cwd=self.folder, env=self._environment, capture_output=True, text=True,
                timeout=PATIENCE, check=False, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, most),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return None, "", PATIENCE
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if seconds > limit:
            return None, "", seconds
        return done.returncode, done.stdout if done.returncode == 0 else f"{done.stdout}\n{done.stderr}", seconds

    def prepared(self, command: str) -> str | None:
        """The command with real checkpoints in place of the page's, once all that it reads is there."""
        if TRAINS.search(command):
            given = [
                option for name, option in SHORTER.items() if name in command and option.split("=")[0] not in command
            ]
            command = " ".join([command, *given])
        words = shlex.split(command)
        read = {
            word.rpartition("=")[2]
            for word in words
            if not re.match(r"--(?:output|save|result_file|recommendations_file)", word)
        }
        read -= {word for before, word in pairwise(words) if before in ("--output", "--save-chosen")}
        for name in (name for name in PLAIN if name in read and not (self.folder / name).exists()):
            train_plain(self.folder, name)
        needed = [name for name in MADE_BY if name in read or (name == "out.json" and "recommendations.csv" in read)]
        for name in needed:
            if not (self.folder / ("data/shop" if name == "shop" else name)).exists():
                real = self.prepared(MADE_BY[name])
                if real is None or self.run(real, limit=PATIENCE)[0] != 0:
                    return None
        if command.startswith("recbole-fair convert"):  # several pages convert into one folder, which must be new
            shutil.rmtree(self.folder / "data" / "shop", ignore_errors=True)
        if "--save-chosen" in words:  # and several choose, but no checkpoint is written over
            (self.folder / words[words.index("--save-chosen") + 1]).unlink(missing_ok=True)
        for pattern in (LATEST, PLACE):
            match = None if any(name in command for name in PLAIN) else pattern.search(command)
            if match is not None and match[0] not in MADE_BY:
                path = self._checkpoint("PopSteerSASRec" if pattern is LATEST else match[1])
                if path is None:
                    return None
                command = pattern.sub(path, command)
        return command

    def _checkpoint(self, model: str) -> str | None:
        if model not in self._trained:
            more = WITH.get(model, "")
            self.run(f"recbole-fair run --model={model} --dataset=ml-100k --epochs=3{more}", limit=PATIENCE)
            found = sorted((self.folder / "saved").glob(f"{model}-*.pth"), key=lambda path: path.stat().st_mtime)
            self._trained[model] = f"saved/{found[-1].name}" if found else None
        return self._trained[model]


def write(known: dict[str, Any]) -> None:
    """Keep what is recorded so far."""
    RECORD.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(action: str, word: str = "") -> int:
    """Record, add, compare or list; the number of differences."""
    known: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
    if action == "add":
        known = {command: found for command, found in known.items() if command in set(commands())}
        write(known)
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="recbole-fair-docs-") as name:
        place = Workplace(Path(name))
        for command in (command for command in commands() if word in command):
            before = known.get(command)
            if action == "list":
                print("new     " if before is None else "slow    " if before["code"] is None else "recorded", command)
                continue
            passed_over = {"record": False, "add": before is not None}
            if passed_over.get(action, before is None or before["code"] is None):
                continue
            real = place.prepared(command)
            if real is None:
                print(f"not to be prepared  {command}")
                wrong += 1
                continue
            code, output, seconds = place.run(real)
            found = {"code": code, "lines": form(output)}
            if action != "compare":
                known[command] = found
                write(known)
                state = "slow" if code is None else "recorded" if code == 0 else f"exit code {code}"
            else:
                state = "same" if found == before else "DIFFERENT"
                wrong += found != before
                for line in set(map(str, found["lines"])) ^ set(before["lines"]):
                    print(f"    {line}")
            print(f"{state:10} {seconds:6.1f} s  {command}", flush=True)
    return wrong


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ("record", "add", "compare", "list"):
        sys.exit(__doc__)
    sys.exit(min(main(*sys.argv[1:3]), 1))
