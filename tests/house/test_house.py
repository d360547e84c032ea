"""The house is in order: imports follow the flow, files and functions stay short, contracts stand in for guesses."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "recbole_fair"

#: Rooms in the order in which data flows; those of one row may import each other.
FLOW = (
    ("errors",),
    ("config", "io"),
    ("data",),
    ("model",),
    ("rerank",),
    ("evaluator",),
    ("analysis",),
    ("report",),
    ("trainer",),
    ("runs",),
    ("quick_start",),
    ("doctor", "commands", "cli", "__main__"),
)
STAGE = {room: stage for stage, rooms in enumerate(FLOW) for room in rooms}
MOST_LINES, MOST_FUNCTION_LINES = 500, 80
MOST_STRING_LOOKUPS = 1.0  # getattr and hasattr by a literal name, per 1,000 lines
MOST_BARE_ANY = 0.04


@cache
def sources() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in sorted(PACKAGE.rglob("*.py"))]


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every module of the package that a module imports, lazily or not; types alone do not count."""
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module == "recbole_fair":
                yield from ((node.lineno, f"recbole_fair.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module


def test_imports_follow_the_flow():
    against = []
    for path, tree in sources():
        here = path.relative_to(PACKAGE).with_suffix("").parts[0]
        for line, module in imports(tree):
            room = room_of(module)
            if module.split(".")[0] != "recbole_fair" or room in ("", "__version__") or here == "__init__":
                continue
            assert room in STAGE, f"{path}: {module} stands in no room of the flow"
            if STAGE[room] > STAGE[here]:
                against.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not against, "\n".join(against)


@pytest.mark.parametrize("folder", ["recbole_fair", "tests", "benchmarks", "docs"])
def test_no_file_is_long(folder: str):
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert lines
    assert not {str(path.relative_to(ROOT)): n for path, n in lines.items() if n > MOST_LINES}


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from its first to its last, docstring and all."""
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def test_no_function_is_long():
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines_of(node)} lines"
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and lines_of(node) > MOST_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


def test_attributes_are_looked_up_by_contract_rather_than_by_name():
    found, lines = [], 0
    for path, tree in sources():
        lines += len(path.read_text(encoding="utf-8").splitlines())
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("getattr", "hasattr")
                and len(node.args) > 1
                and isinstance(node.args[1], ast.Constant)
            ):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert len(found) <= MOST_STRING_LOOKUPS * lines / 1000, f"{len(found)} in {lines} lines:\n" + "\n".join(found)


def test_parameters_have_types():
    bare, total = [], 0
    for path, tree in sources():
        for node in ast.walk(tree):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                if arg.arg in ("self", "cls"):
                    continue
                total += 1
                if isinstance(arg.annotation, ast.Name) and arg.annotation.id == "Any":
                    bare.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}({arg.arg})")
    assert len(bare) <= MOST_BARE_ANY * total, f"{len(bare)} of {total}:\n" + "\n".join(bare)
