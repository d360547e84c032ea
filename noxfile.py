"""All checks: ``nox`` runs what a change must pass.

``-s tests`` takes each Python, ``-s oldest`` and ``-s newest`` the ends of what libraries may be. A session makes an
environment of its own, with PyTorch in it; ``nox -R`` takes the one of the last time.
"""

from __future__ import annotations

import nox

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
#: The ends of the supported ranges, each on the Python that has it.
OLDEST = [
    "torch==2.4.*", "numpy==1.22.*", "scipy==1.9.*", "pandas==1.5.*", "scikit-learn==1.3.*", "matplotlib==3.8.*",
    "click==8.1.*", "Jinja2==3.1.*", "plotly==5.18.*", "setuptools<81",
]  # fmt: skip
NEWEST = ["torch==2.*", "numpy==2.*", "scipy==1.*", "pandas==2.*", "matplotlib==3.*", "plotly==7.*"]

nox.options.sessions = ["lint", "types", "tests-3.11", "docs"]
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False


def _install(session: nox.Session, extra: str) -> None:
    session.install("-c", "constraints.txt", "-e", f".[{extra}]")


@nox.session(python="3.11")
def lint(session: nox.Session) -> None:
    """Style of the code."""
    session.install("ruff>=0.14")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python="3.11")
def types(session: nox.Session) -> None:
    """Types of the package."""
    _install(session, "test")
    session.run("mypy")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The tests; words after ``--`` go to pytest."""
    _install(session, "test,tune")
    session.run("python", "-m", "pytest", "-n", "2", "--dist", "loadgroup", *session.posargs)


@nox.session(python="3.10")
def oldest(session: nox.Session) -> None:
    """The tests with the oldest libraries that the package allows."""
    session.install("-e", ".[test,tune]", *OLDEST)
    session.run("python", "-m", "pytest", "-n", "2", "--dist", "loadgroup", *session.posargs)


@nox.session(python="3.13")
def newest(session: nox.Session) -> None:
    """The tests with the newest libraries that the package allows."""
    session.install("--upgrade", "-e", ".[test,tune]", *NEWEST)
    session.run("python", "-m", "pytest", "-n", "2", "--dist", "loadgroup", *session.posargs)


@nox.session(python="3.11")
def docs(session: nox.Session) -> None:
    """The site, built strictly."""
    _install(session, "docs")
    session.run("mkdocs", "build", "--strict")
