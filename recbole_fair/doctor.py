"""``recbole-fair doctor``: what on this machine would break RecBole, and a short real run as proof of health.

A fresh ``pip install recbole`` fails several times in a row on today's libraries. Each of these walls is looked for by
version numbers alone, so that the examination works where ``import recbole`` does not. Nothing of RecBole, PyTorch or
pandas is imported at the top of this module.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECBOLE_VERSION = "1.2.1"
_RUN_SECONDS = 600


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        healthy: whether it stands in RecBole's way.
        what: what was found, with the version.
        cure: one line that mends it; empty when healthy.
    """

    healthy: bool
    what: str
    cure: str = ""

    def line(self) -> str:
        """The finding as one printed line."""
        return f"ok      {self.what}" if self.healthy else f"broken  {self.what} Cure: {self.cure}"


def installed_version(package: str) -> str | None:
    """The installed version of a distribution, or None; read from its metadata without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def has_module(name: str) -> bool:
    """Whether a top-level module can be found, without importing it."""
    return importlib.util.find_spec(name) is not None


def check_walls(
    version_of: Callable[[str], str | None] = installed_version,
    module_exists: Callable[[str], bool] = has_module,
    python: tuple[int, int] = (sys.version_info.major, sys.version_info.minor),
) -> list[Finding]:
    """Look for the known walls.

    Args:
        version_of: gives the version of a distribution, None when it is not installed.
        module_exists: whether a top-level module can be found.
        python: major and minor version of the interpreter.

    Returns:
        One finding for each wall, in the order in which a user would meet them.
    """
    return [
        _check_python(python),
        _check_recbole(version_of("recbole")),
        _check_pkg_resources(version_of("setuptools"), module_exists("pkg_resources")),
        _check_below("numpy", version_of("numpy"), 2, "RecBole uses names such as numpy.float_ that numpy 2 removed."),
        _check_below("pandas", version_of("pandas"), 3, "pandas 3 needs numpy 2, and RecBole's code predates it."),
        _check_scipy(version_of("scipy")),
        _check_torch(version_of("torch")),
        _check_metrics(version_of("recbole")),
    ]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _check_python(python: tuple[int, int]) -> Finding:
    name = f"Python {python[0]}.{python[1]}"
    if (3, 10) <= python < (3, 12):
        return Finding(True, name)
    return Finding(
        False,
        f"{name}: RecBole {RECBOLE_VERSION} and what it needs install on Python 3.10 and 3.11 only.",
        "python3.11 -m venv .venv && . .venv/bin/activate && pip install recbole_fair",
    )


def _check_recbole(version: str | None) -> Finding:
    if version == RECBOLE_VERSION:
        return Finding(True, f"RecBole {version}")
    found = "RecBole is not installed." if version is None else f"RecBole {version}: recbole_fair stands on 1.2.1."
    return Finding(False, found, f"pip install recbole=={RECBOLE_VERSION}")


def _check_pkg_resources(version: str | None, exists: bool) -> Finding:
    if exists and version is not None and _numbers(version) < (81,):
        return Finding(True, f"setuptools {version} (has pkg_resources, which RecBole's dependencies import)")
    found = f"setuptools {version}" if version is not None else "setuptools is not installed"
    return Finding(
        False, f"{found}: RecBole's dependencies import pkg_resources, gone since 81.", "pip install 'setuptools<81'"
    )


def _check_below(package: str, version: str | None, limit: int, why: str) -> Finding:
    cure = f"pip install '{package}<{limit}'"
    if version is None:
        return Finding(False, f"{package} is not installed.", cure)
    if _numbers(version) < (limit,):
        return Finding(True, f"{package} {version}")
    return Finding(False, f"{package} {version}: {why}", cure)


def _check_scipy(version: str | None) -> Finding:
    cure = "pip install 'scipy<1.13'"
    if version is None:
        return Finding(False, "scipy is not installed.", cure)
    if _numbers(version) < (1, 13):
        return Finding(True, f"scipy {version}")
    return Finding(
        False, f"scipy {version}: RecBole's LightGCN, NGCF and others use dok_matrix._update, gone since 1.13.", cure
    )


def _check_torch(version: str | None) -> Finding:
    cure = "pip install 'torch>=2.4,<3'"
    if version is None:
        return Finding(False, "PyTorch is not installed.", cure)
    if not (2, 4) <= _numbers(version) < (3,):
        return Finding(False, f"PyTorch {version}: recbole_fair is made for 2.4 and later 2.x.", cure)
    note = ""
    if _numbers(version) >= (2, 6):
        note = " (refuses RecBole's pickled checkpoints; those of recbole_fair hold tensors and plain values and load)"
    return Finding(True, f"PyTorch {version}{note}")


def _check_metrics(version: str | None) -> Finding:
    if version is None:
        return Finding(False, "RecBole's metrics cannot be looked at.", f"pip install recbole=={RECBOLE_VERSION}")
    return Finding(True, "GiniIndex, ItemCoverage and the like (crash in RecBole 1.2.1; recbole_fair uses its own)")


def examine(say: Callable[[str], Any], real_run: bool = True) -> bool:
    """Examine this machine and say what was found, a line each.

    Args:
        say: prints one line.
        real_run: whether to train, save, reload and evaluate a small model when no wall stands.

    Returns:
        True when everything is healthy.
    """
    say(f"{platform.platform()}, Python {platform.python_version()} at {sys.executable}")
    findings = check_walls()
    for finding in findings:
        say(finding.line())
    if not all(finding.healthy for finding in findings):
        say("Mend what is broken, then run recbole-fair doctor again.")
        return False
    if not real_run:
        return True
    say("A short real run: BPR, one epoch on ml-100k, metrics, checkpoint, reload ...")
    proof = prove()
    say(proof.line())
    return proof.healthy


def prove(seconds: float = _RUN_SECONDS) -> Finding:
    """Train BPR for one epoch on ml-100k in a process and a folder of its own, reload the checkpoint, compare.

    Args:
        seconds: how long the run may take.

    Returns:
        Healthy when the reloaded model gives the metrics of the trained one.
    """
    with tempfile.TemporaryDirectory(prefix="recbole-fair-doctor-") as folder:
        package_root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join([package_root, *filter(None, [os.environ.get("PYTHONPATH")])])
        try:
            done = subprocess.run(
                [sys.executable, "-m", "recbole_fair.doctor"],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": path},
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Finding(False, f"The real run took longer than {seconds:g} s.", "try again on a quieter machine")
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        report = json.loads(lines[-1])
        values = ", ".join(f"{name} {value:.4f}" for name, value in report.items())
        return Finding(True, f"real run: {values}; the reloaded checkpoint gives the same")
    said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
    return Finding(False, f"The real run failed: {said}", "pip install --force-reinstall recbole_fair; then report it")


def real_run() -> dict[str, float]:
    """Train, save, reload and evaluate in the current folder.

    Returns:
        The test metrics.

    Raises:
        RuntimeError: when the reloaded model gives other metrics.
    """
    from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair

    settings = {
        "epochs": 1,
        "metrics": ["NDCG", "GiniIndex"],
        "checkpoint_dir": "saved",
        "show_progress": False,
        "state": "WARNING",
        "use_gpu": False,
    }
    result = run_recbole_fair(model="BPR", dataset="ml-100k", config_dict=settings, saved=True)
    again = evaluate_checkpoint(result["checkpoint"])
    first = {name: float(value) for name, value in result["test_result"].items()}
    second = {name: float(value) for name, value in again["test_result"].items()}
    if first != second:
        raise RuntimeError(f"the reloaded model gives {second} instead of {first}")
    return first


if __name__ == "__main__":
    print(json.dumps(real_run()))
