"""doctor: each wall is named with its cure, without RecBole, and health is proved by a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from recbole_fair import doctor
from recbole_fair.doctor import Finding, check_walls

GOOD = {
    "recbole": "1.2.1",
    "numpy": "1.26.4",
    "pandas": "2.3.3",
    "scipy": "1.12.0",
    "torch": "2.13.0+cpu",
}


def walls(python: tuple[int, int] = (3, 11), **versions: str | None) -> list[Finding]:
    found = {**GOOD, **versions}
    return check_walls(found.get, python)


@pytest.mark.parametrize(
    ("python", "versions"),
    [
        ((3, 10), {}),
        ((3, 11), {"numpy": "2.2.0", "scipy": "1.15.0"}),
        ((3, 12), {"recbole": "1.2.0"}),
        ((3, 13), {"recbole": "1.2.0", "numpy": "2.5.5", "scipy": "1.18.1"}),
    ],
)
def test_working_set_is_healthy(python: tuple[int, int], versions: dict[str, str]) -> None:
    findings = walls(python, **versions)
    assert all(finding.healthy for finding in findings)
    assert len(findings) == 7


@pytest.mark.parametrize(
    ("versions", "named", "cure"),
    [
        ({"numpy": "3.0.0"}, "numpy 3.0.0", "pip install 'numpy<3'"),
        ({"numpy": None}, "numpy is not installed", "pip install 'numpy<3'"),
        ({"pandas": "3.1.1"}, "pandas 3.1.1", "pip install 'pandas<3'"),
        ({"scipy": "2.0.0"}, "scipy 2.0.0", "pip install 'scipy<2'"),
        ({"scipy": None}, "scipy is not installed", "pip install 'scipy<2'"),
        ({"torch": "2.3.1"}, "PyTorch 2.3.1", "pip install 'torch>=2.4,<3'"),
        ({"torch": None}, "PyTorch is not installed", "pip install 'torch>=2.4,<3'"),
        ({"recbole": "1.1.1"}, "RecBole 1.1.1", "pip install recbole==1.2.1"),
        ({"recbole": "1.1.1", "python": (3, 13)}, "RecBole 1.1.1", "pip install recbole==1.2.0"),
        ({"python": (3, 14)}, "Python 3.14", "python3.13 -m venv"),
        ({"python": (3, 9)}, "Python 3.9", "python3.13 -m venv"),
    ],
)
def test_each_wall_alone(versions: dict[str, object], named: str, cure: str) -> None:
    broken = [finding for finding in walls(**versions) if not finding.healthy]  # type: ignore[arg-type]
    assert len(broken) == 1
    assert named in broken[0].what
    assert broken[0].cure.startswith(cure)
    assert "\n" not in broken[0].line()


def test_a_machine_without_anything() -> None:
    findings = check_walls(lambda _: None, (3, 9))
    assert not any(finding.healthy for finding in findings)
    assert all(finding.cure for finding in findings)


def test_walls_that_stand_stop_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(doctor, "check_walls", lambda: [Finding(True, "a"), Finding(False, "b is broken.", "mend b")])
    monkeypatch.setattr(doctor, "prove", lambda: pytest.fail("must not run"))
    assert doctor.examine(said.append) is False
    assert said[1:3] == ["ok      a", "broken  b is broken. Cure: mend b"]


@pytest.mark.parametrize("healthy", [True, False])
def test_the_run_decides_when_no_wall_stands(monkeypatch: pytest.MonkeyPatch, healthy: bool) -> None:
    monkeypatch.setattr(doctor, "check_walls", lambda: [Finding(True, "a")])
    monkeypatch.setattr(doctor, "prove", lambda: Finding(healthy, "run", "cure"))
    assert doctor.examine(lambda _: None) is healthy


def test_command_works_where_recbole_torch_and_numpy_do_not(tmp_path: Path) -> None:
    for name in ("recbole", "ray", "torch", "numpy", "pandas", "scipy"):
        (tmp_path / f"{name}.py").write_text("raise AttributeError('module is broken')\n")
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from recbole_fair.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), "doctor", "--no-run"], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    assert "numpy" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_failing_run_is_told_by_its_last_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho first >&2\necho 'ValueError: the reason' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    finding = doctor.prove()
    assert not finding.healthy
    assert "ValueError: the reason" in finding.what
    broken.write_text("#!/bin/sh\nexec sleep 30\n")
    assert "longer than 0.2 s" in doctor.prove(seconds=0.2).what


def test_real_run_proves_health() -> None:
    finding = doctor.prove()
    assert finding.healthy, finding.what
    assert "giniindex@10 0." in finding.what
    assert "ndcg@10 0." in finding.what
