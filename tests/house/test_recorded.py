"""What ``docs/check.py`` recorded: commands that list things still print it, and pages show numbers in one form."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from recbole_fair.cli import main

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RECORDED = json.loads((DOCS / "recorded.json").read_text(encoding="utf-8"))
#: Models that RecBole 1.2.1 has and 1.2.0, which newer Pythons get, has not.
ONLY_IN_1_2_1 = ("AsymKNN", "GRU#RecCPR", "SASRecCPR")
#: Numbers without the zero before the point, or with a typographic minus.
POINTED = re.compile(r"(?<![\w./`])[-+±]?\.\d|\N{MINUS SIGN}\d")
FENCE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("check")


@pytest.mark.slow  # a page that gains a command is recorded when it is done, in minutes
def test_every_command_is_recorded(check: ModuleType) -> None:
    commands = list(check.commands())
    assert len(commands) > 80
    assert not set(commands) - set(RECORDED), "python docs/check.py add"
    assert not set(RECORDED) - set(commands), "python docs/check.py add drops what no page has"


def test_no_recorded_command_failed() -> None:
    assert not [command for command, found in RECORDED.items() if found["code"]]


@pytest.mark.parametrize("command", [c for c in RECORDED if c.split()[1] in ("models", "metrics", "rerankers", "keys")])
def test_lists_are_what_was_recorded(
    command: str, check: ModuleType, capsys: pytest.CaptureFixture[str], in_tmp: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(command)[1:])
    assert not ended.value.code
    lines = RECORDED[command]["lines"]
    if version("recbole") == "1.2.0":
        lines = [line for line in lines if not line.startswith(ONLY_IN_1_2_1)]
    assert check.form(capsys.readouterr().out) == lines


def test_form_keeps_text_and_drops_numbers(check: ModuleType) -> None:
    text = "ndcg@10   0.0588   +1.0 %\n--------  ------\nbase 1,682 items, saved/BPR-Jan-01-2025.pth\n\n"
    assert check.form(text) == ["ndcg@# # # %", "base # items, FILE"]


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))])
def test_numbers_have_one_form(page: Path) -> None:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    assert not [line for line in prose.splitlines() if POINTED.search(line)]
