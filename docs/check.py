"""Runs the commands that README and the pages show on ml-100k, and compares what they print with a recording.

    python docs/check.py record [WORD]       # runs what holds WORD (all), and records it in docs/recorded.json
    python docs/check.py add [WORD]          # likewise, what is not recorded yet
    python docs/check.py compare [WORD]      # runs what was quick when it was recorded, and compares

Commands run as they stand on the pages, in a folder of their own. Where a page names a checkpoint, a model of that name
that was trained for three epochs takes its place, and PopSteer that of `latest`. Numbers depend on processor and
threads, so that the text between them is compared. Commands that took longer than three minutes are recorded as slow
and passed over.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "recorded.json"
LIMIT = 180
FENCE = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
PLACE = re.compile(r"saved/([A-Z]\w*?)(?:-….pth|-checkpoint\.pth|\.pth|-…)(?=['\s]|$)")
LATEST = re.compile(r"(?<= )latest(?= |$)")
NUMBER = re.compile(r"[-+]?(?:\d[\d,]*)?\.?\d+(?:e[-+]?\d+)?")
#: Words of commands on data, files and classes that do not come with the package.
ELSEWHERE = (
    "--data_path", "ml-1m", "amazon", "foursquare", "my_module", "old.pth", "model.hyper", "CHECKPOINT", "users.csv",
    "chosen.yaml", "my-data", "log_mlflow",
)  # fmt: skip
LISTS = ("models", "metrics", "rerankers", "keys", "doctor")


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
                alone = (
                    command.split()[1] in ("models", "metrics", "rerankers", "keys", "doctor")
                    and " '|' " not in command
                )
                named = PLACE.search(command) or LATEST.search(command)
                if (alone or "ml-100k" in command or named) and command not in seen:
                    seen.add(command)
                    yield command


def executable(command: str) -> list[str]:
    """The words of a command as this interpreter runs them."""
    words = shlex.split(command)
    start = 2 if words[0] == "python" else 1
    return [sys.executable, "-m", "recbole_fair", *(["run"] if start == 2 else []), *words[start:]]


def form(text: str) -> list[str]:
    """Lines of what was printed without numbers, rules and the widths of columns."""
    text = re.sub(r"saved/[\w.-]+\.pth|results/[\w.-]+|(?<= )/\S+/python[\d.]*|\bLinux\S+", "FILE", text)
    lines = (" ".join(NUMBER.sub("#", line).split()) for line in text.splitlines())
    return [line for line in lines if line and not set(line) <= set("- ")]


class Workplace:
    """A folder in which commands run, with a checkpoint for every model that they name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._trained: dict[str, str | None] = {}
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(self, command: str, limit: float = LIMIT) -> tuple[int | None, str, float]:
        """Exit code (None: out of time), standard output and seconds."""
        start = time.perf_counter()
        try:
            done = subprocess.run(
                executable(command), cwd=self.folder, env=self._environment, capture_output=True, text=True,
                timeout=limit, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return None, "", time.perf_counter() - start
        output = done.stdout if done.returncode == 0 else f"{done.stdout}\n{done.stderr}"
        return done.returncode, output, time.perf_counter() - start

    def with_checkpoint(self, command: str) -> str | None:
        """The command with a real checkpoint in place of the page's; None if there is none to be had."""
        match = PLACE.search(command)
        if match is None and LATEST.search(command) is None:
            return command
        model = "PopSteerSASRec" if match is None else match[1]
        if model not in self._trained:
            self.run(f"recbole-fair run --model={model} --dataset=ml-100k --epochs=3", limit=1200)
            found = sorted((self.folder / "saved").glob(f"{model}-*.pth"), key=lambda path: path.stat().st_mtime)
            self._trained[model] = f"saved/{found[-1].name}" if found else None
        path = self._trained[model]
        return None if path is None else (LATEST if match is None else PLACE).sub(path, command)


def main(action: str, word: str = "") -> int:
    """Record, add or compare; the number of differences."""
    known: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="recbole-fair-docs-") as name:
        place = Workplace(Path(name))
        for command in commands():
            before = known.get(command)
            passed_over = {"record": False, "add": before is not None}
            if word not in command or passed_over.get(action, before is None or before["code"] is None):
                continue
            real = place.with_checkpoint(command)
            if real is None:
                print(f"no checkpoint  {command}")
                continue
            code, output, seconds = place.run(real)
            found = {"code": code, "lines": form(output)}
            if action != "compare":
                known[command] = found
                RECORD.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
                state = "slow" if code is None else "recorded" if code == 0 else f"exit code {code}"
            else:
                state = "same" if found == before else "DIFFERENT"
                wrong += found != before
                for line in set(map(str, found["lines"])) ^ set(before["lines"]):
                    print(f"    {line}")
            print(f"{state:10} {seconds:6.1f} s  {command}", flush=True)
    return wrong


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ("record", "add", "compare"):
        sys.exit(__doc__)
    sys.exit(min(main(*sys.argv[1:3]), 1))
