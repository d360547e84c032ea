"""Build step: the yaml files of ``properties/`` travel inside the package as ``recbole_fair/properties``."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithProperties(build_py):
    """``build_py`` that copies ``properties/``; an editable install reads it from the checkout instead."""

    def run(self) -> None:
        """Build the package, then add the yaml files."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "recbole_fair" / "properties"
            shutil.rmtree(target, ignore_errors=True)  # a file that was renamed must not stay in an old build folder
            for source, copy in self._properties(target):
                copy.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(source), str(copy))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """The files that the build makes, ours included."""
        target = Path(self.build_lib) / "recbole_fair" / "properties"
        return [*super().get_outputs(include_bytecode), *(str(copy) for _, copy in self._properties(target))]

    @staticmethod
    def _properties(target: Path) -> list[tuple[Path, Path]]:
        folder = ROOT / "properties"
        return [(source, target / source.relative_to(folder)) for source in sorted(folder.rglob("*.yaml"))]


setup(cmdclass={"build_py": BuildWithProperties})
