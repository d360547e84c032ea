"""The pages lead where they say, their commands exist, and their Python compiles."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from recbole_fair.cli import cli
from recbole_fair.commands.settings import read_settings
from recbole_fair.commands.talking import arranged
from recbole_fair.config.overview import all_keys
from recbole_fair.errors import FairError

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
#: What a reader who knows RecBole asks, and the page that answers.
QUESTIONS = {
    "use a checkpoint of plain RecBole": "own-checkpoint.md",
    "steer another base, or a model class of one's own": "any-base.md",
    "recommend to new users": "recommend.md",
    "export": "export.md",
    "measure lists of another system": "audit.md",
    "use a csv file": "own-data.md",
    "add a metric, a re-ranker, a method": "own-parts.md",
    "choose a method and a strength": "frontier.md",
    "search for settings": "tuning.md",
    "know whether a difference is real": "compare.md",
    "understand the numbers": "glossary.md",
    "change over from RecBole": "from-recbole.md",
}
#: Keys that no list names: those of the examples.
EXAMPLES = {"centre_by", "reranker_bonus", "reranker_below"}
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([\w-]+\.md)(?:#[\w-]+)?\)")


def sources() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]


def links(page: Path) -> set[str]:
    return set(LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))))


def test_each_of_the_twelve_questions_is_answered_within_two_clicks() -> None:
    reached, border = {"index.md"}, {"index.md"}
    for _ in range(2):
        border = set().union(*(links(DOCS / name) for name in border))
        reached |= border
    assert len(QUESTIONS) == 12
    assert not set(QUESTIONS.values()) - reached
    assert set(QUESTIONS.values()) <= links(DOCS / "index.md")  # one will do


def test_every_page_is_in_the_navigation() -> None:
    navigation = re.findall(r":\s+([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(navigation) == [page.name for page in PAGES]


def commands() -> Iterator[tuple[str, str]]:
    """Page and command line of every ``recbole-fair`` call in a block of shell; a backslash joins lines."""
    for page in sources():
        for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
            if language not in ("bash", "sh", "console"):
                continue
            for line in block.replace("\\\n", " ").splitlines():
                for part in line.split("&&"):
                    start = re.search(r"(?:recbole-fair|python run_recbole_fair\.py)(?= )", part)
                    if start is not None:
                        word = "run" if "run_recbole_fair" in start.group() else ""
                        yield page.name, f"{word} {part[start.end() :]}".strip()


def complaint(line: str) -> str:
    """What is wrong with a command line: names of commands and options, and the form of settings; nothing is run."""
    words = shlex.split(line.replace("…", "X"), comments=True)
    if "|" in words:  # a list of commands
        return ", ".join(word for word in words if word.isalpha() and word not in cli.commands)
    if words[0] in ("--help", "--version"):
        return ""
    words = arranged(words if not words[0].startswith("-") else ["run", *words])
    command = cli.commands.get(words[0])
    if command is None:
        return f"no command {words[0]}"
    command.ignore_unknown_options = True
    # The names of the help option are kept by the command from its first context on.
    context = click.Context(command, info_name=words[0], help_option_names=["-h", "--help"])
    try:
        options, arguments, _ = command.make_parser(context).parse_args(words[1:])
        given = options.get("settings")
        settings = read_settings(given) if isinstance(given, list | tuple) else {}
    except (click.ClickException, FairError) as error:
        return str(error)
    known = {entry.name for entry in all_keys()} | EXAMPLES
    return ", ".join([*arguments, *(key for key in settings if key not in known)])


def test_commands_on_the_pages_are_ones_that_the_program_takes() -> None:
    found = sorted(set(commands()))
    assert len(found) > 60
    wrong = [f"{page}: {line}: {text}" for page, line in found if (text := complaint(line))]
    assert not wrong, "\n".join(wrong)


def test_a_slip_on_a_page_would_be_seen() -> None:
    assert "no command runn" in complaint("runn -m BPR")
    assert complaint("run BPR")
    assert complaint("evaluate saved/X.pth stray")
    assert "outputs" in complaint("export saved/X.pth --outputs=x")
    assert not complaint("export saved/X.pth --output=x")
    assert not complaint("run -m BPR -d ml-100k --epochs=3")


def test_python_on_the_pages_compiles() -> None:
    found = 0
    for page in sources():
        for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
            if language == "python":
                ast.parse(block, filename=page.name)
                found += 1
    assert found > 15


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 700
