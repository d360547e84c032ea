"""``recbole-fair doctor``: what on this machine would break RecBole, and a short real run as proof of health.

A fresh ``pip install recbole`` fails several times in a row on today's libraries. Some of that recbole_fair mends in
memory (:mod:`recbole_fair.recbole_mends`); the rest is looked for by version numbers alone, so that the examination
works where ``import recbole`` does not. Nothing of RecBole, PyTorch or pandas is imported at the top of this module.
"""

from __future__ import annotations

import importlib.metadata
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

#: Versions of RecBole that recbole_fair stands on. 1.2.1 requires Ray 2.6, which installs below Python 3.12 only.
RECBOLE_VERSIONS = ("1.2.0", "1.2.1")
PYTHONS = ((3, 10), (3, 13))
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


def check_walls(
    version_of: Callable[[str], str | None] = installed_version,
    python: tuple[int, int] = (sys.version_info.major, sys.version_info.minor),
) -> list[Finding]:
    """Look for the known walls.

    Args:
        version_of: gives the version of a distribution, None when it is not installed.
        python: major and minor version of the interpreter.

    Returns:
        One finding for each wall, in the order in which a user would meet them.
    """
    return [
        _check_python(python),
        _check_recbole(version_of("recbole"), python),
        _check_below("numpy", version_of("numpy"), 3, "recbole_fair is made for NumPy 1 and 2."),
        _check_below("pandas", version_of("pandas"), 3, "RecBole fills missing values in a way that pandas 3 ignores."),
        _check_below("scipy", version_of("scipy"), 2, "recbole_fair is made for SciPy 1."),
        _check_torch(version_of("torch")),
        _check_metrics(version_of("recbole"), python),
    ]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _check_python(python: tuple[int, int]) -> Finding:
    name = f"Python {python[0]}.{python[1]}"
    if PYTHONS[0] <= python <= PYTHONS[1]:
        return Finding(True, name)
    first, last = (".".join(map(str, end)) for end in PYTHONS)
    return Finding(
        False,
        f"{name}: recbole_fair and what it needs are made for Python {first} to {last}.",
        f"python{last} -m venv .venv && . .venv/bin/activate && pip install recbole_fair",
    )


def recbole_for(python: tuple[int, int]) -> str:
    """The version of RecBole that installs on a Python."""
    return RECBOLE_VERSIONS[1] if python < (3, 12) else RECBOLE_VERSIONS[0]


def _check_recbole(version: str | None, python: tuple[int, int]) -> Finding:
    if version in RECBOLE_VERSIONS:
        return Finding(True, f"RecBole {version}")
    wanted = " and ".join(RECBOLE_VERSIONS)
    state = "RecBole is not installed." if version is None else f"RecBole {version}: recbole_fair stands on {wanted}."
    return Finding(False, state, f"pip install recbole=={recbole_for(python)}")


def _check_below(package: str, version: str | None, limit: int, why: str) -> Finding:
    cure = f"pip install '{package}<{limit}'"
    if version is None:
        return Finding(False, f"{package} is not installed.", cure)
    if _numbers(version) < (limit,):
        return Finding(True, f"{package} {version}")
    return Finding(False, f"{package} {version}: {why}", cure)


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


def _check_metrics(version: str | None, python: tuple[int, int]) -> Finding:
    if version is None:
        return Finding(False, "RecBole's metrics cannot be looked at.", f"pip install recbole=={recbole_for(python)}")
    return Finding(True, "GiniIndex, ItemCoverage and the like (wrong in RecBole; recbole_fair uses its own)")


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
