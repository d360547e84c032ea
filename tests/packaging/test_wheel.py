"""The wheel holds everything it needs, and works without the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("recbole_fair", "properties", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")

# One worker builds the wheel for all tests of this file.
pytestmark = pytest.mark.xdist_group("wheel")


def call(*words: object, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PIP_CONSTRAINT")}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that the checkout stays clean."""
    copy = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    target = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", target, ".", cwd=copy)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel, which sees the libraries (not the checkout) of this one."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=ROOT)
    python = folder / "bin" / "python"
    packages = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    # A path in a .pth file is searched, but the .pth files inside it (an editable install) are not read.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    call(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    return folder / "bin"


def test_wheel_holds_every_yaml_file_and_type_marker(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    yamls = {
        f"recbole_fair/properties/{f.relative_to(ROOT / 'properties')}" for f in (ROOT / "properties").rglob("*.yaml")
    }
    assert "recbole_fair/properties/overall.yaml" in yamls
    assert yamls <= names
    modules = {str(f.relative_to(ROOT)) for f in (ROOT / "recbole_fair").rglob("*.py")}
    assert modules | {"recbole_fair/py.typed"} <= names
    pages = {str(f.relative_to(ROOT)) for f in (ROOT / "recbole_fair" / "report" / "page").iterdir()}
    assert len(pages) >= 3
    assert pages <= names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"recbole_fair"}


def test_installed_command_runs_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = call(installed / "python", "-c", "import recbole_fair; print(recbole_fair.__file__)", cwd=tmp_path)
    assert str(installed.parent) in where
    assert call(installed / "recbole-fair", "--version", cwd=tmp_path).startswith("recbole-fair ")
    settings = ["--epochs=1", "--metrics=[NDCG,GiniIndex]", "--state=WARNING", "--result_file=out.json"]
    call(installed / "recbole-fair", "-m", "BPR", "-d", "ml-100k", *settings, cwd=tmp_path)
    result = json.loads((tmp_path / "out.json").read_text())
    assert 0 < result["test_result"]["ndcg@10"] < 1
    assert 0 < result["test_result"]["giniindex@10"] < 1


@pytest.mark.slow
def test_installed_command_runs_the_main_job(installed: Path, tmp_path: Path) -> None:
    call(
        installed / "recbole-fair", "run", "--model=PopSteerSASRec", "--dataset=ml-100k", "--result_file=o.json",
        cwd=tmp_path,
    )  # fmt: skip
    result = json.loads((tmp_path / "o.json").read_text())
    assert result["test_result"]["giniindex@10"] < result["base_test_result"]["giniindex@10"]


@pytest.mark.slow
def test_new_environment_with_nothing_but_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """The real thing: every dependency installed anew (gigabytes and minutes)."""
    call(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    bin_ = tmp_path / "venv" / "bin"
    call(bin_ / "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    assert "broken" not in call(bin_ / "recbole-fair", "doctor", cwd=tmp_path)
