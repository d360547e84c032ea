"""What must be mended so that RecBole 1.2.0 and 1.2.1 import and run on current libraries.

The mends are made right before ``recbole`` is first imported, in memory only; no file of RecBole is touched. Each says
which version it is for and goes when that version is no longer supported.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NoReturn

#: NumPy's names of before 2.0 that ``Config.compatibility_settings`` of RecBole 1.2 reads, and their meaning today.
_NUMPY_NAMES = {"float_": "float64", "complex_": "complex128", "unicode_": "str_"}


def mend() -> None:
    """Make every mend that the installed libraries need; a second call changes nothing."""
    _mend_numpy()
    _mend_scipy()
    _mend_kmeans()


def _mend_numpy() -> None:
    """NumPy 2 removed ``float_``, ``complex_`` and ``unicode_``, which RecBole 1.2 makes its own aliases from."""
    import numpy as np

    for old, new in _NUMPY_NAMES.items():
        if old not in vars(np):
            setattr(np, old, vars(np)[new])


def _mend_scipy() -> None:
    """SciPy 1.13 removed ``dok_matrix._update``, by which RecBole's graph models fill their adjacency matrices."""
    from scipy.sparse import dok_matrix

    def update(self: dok_matrix, entries: dict[tuple[int, int], float]) -> None:
        self._dict.update(entries)

    if not callable(vars(dok_matrix).get("_update")) and not any("_update" in vars(cls) for cls in dok_matrix.__mro__):
        dok_matrix._update = update


def _mend_kmeans() -> None:
    """RecBole 1.2.0 imports ``kmeans_pytorch`` with all its models; LDiffRec alone needs it, and says so when built."""
    name = "kmeans_pytorch"
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return

    def kmeans(*_: object, **__: object) -> NoReturn:
        raise ModuleNotFoundError("LDiffRec clusters items with kmeans_pytorch, which is not installed.", name=name)

    stub = ModuleType(name, "Stands in for kmeans_pytorch, which is not installed.")
    stub.kmeans = kmeans  # type: ignore[attr-defined]
    sys.modules[name] = stub


class _BeforeRecBole(MetaPathFinder):
    """Finds nothing; makes the mends when ``recbole`` is looked for, then steps aside."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Mend before the first import of RecBole."""
        if fullname == "recbole" and self in sys.meta_path:
            sys.meta_path.remove(self)
            mend()
        return None


def install() -> None:
    """See to it that RecBole is mended before it is imported, or mend at once where it has been already."""
    if "recbole" in sys.modules:
        mend()
    elif not any(type(finder).__name__ == _BeforeRecBole.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, _BeforeRecBole())
