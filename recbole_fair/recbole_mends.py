"""What must be mended so that RecBole 1.2.0 and 1.2.1 import and run on current libraries.

The mends are made in memory, right before ``recbole`` is first imported or right after the module of RecBole that they
are about; no file of RecBole is touched. Each says which version it is for and goes when that version is no longer
supported.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NoReturn

#: NumPy's names of before 2.0 that ``Config.compatibility_settings`` of RecBole 1.2 reads, and their meaning today.
_NUMPY_NAMES = {"float_": "float64", "complex_": "complex128", "unicode_": "str_"}


def mend() -> None:
    """Make every mend that the installed libraries need; a second call changes nothing."""
    _mend_numpy()
    _mend_scipy()
    _mend_kmeans()
    for name, repair in _REPAIRS.items():
        module = sys.modules.get(name)
        if module is not None:
            repair(module)


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


def _mend_ngcf(module: ModuleType) -> None:
    """RecBole 1.2.0's NGCF makes a new dropout layer in every pass, which then drops messages at scoring time as well.

    Its scores differ from call to call. 1.2.1 keeps the layer, so that it follows ``train()`` and ``eval()``.
    """
    ngcf = module.NGCF
    forward = ngcf.forward
    if "Dropout" not in forward.__code__.co_names:
        return

    @functools.wraps(forward)
    def mended(self: Any) -> Any:
        share, self.message_dropout = self.message_dropout, self.message_dropout if self.training else 0.0
        try:
            return forward(self)
        finally:
            self.message_dropout = share

    ngcf.forward = mended


def ensure_dir(dir_path: str) -> None:
    """Stands in for RecBole's function of the same name."""
    os.makedirs(dir_path, exist_ok=True)


def _mend_folders(module: ModuleType) -> None:
    """RecBole 1.2 looks whether a folder is there and then makes it; of two processes at once one fails."""
    racing = module.ensure_dir
    for name, other in list(sys.modules.items()):
        if name.partition(".")[0] == "recbole" and vars(other).get("ensure_dir") is racing:
            other.ensure_dir = ensure_dir  # type: ignore[attr-defined]


def _mend_dataset(module: ModuleType) -> None:
    """RecBole 1.2.0 has no split ``TS``, which 1.2.1 has: by a point in time for all users, then by share."""
    dataset_class = module.Dataset
    if "time_based_split" in vars(dataset_class):
        return
    build = dataset_class.build

    @functools.wraps(build)
    def mended(self: Any) -> Any:
        arguments = self.config["eval_args"]
        split = arguments["split"]
        if self.benchmark_filename_list is not None or not isinstance(split, dict) or "TS" not in split:
            return build(self)
        # 1.2.0 orders the rows and then splits by ratio, or so it believes.
        self.split_by_ratio = lambda ratios, group_by: self.time_based_split(ratios, self.uid_field)
        self.config["eval_args"] = {**arguments, "split": {"RS": split["TS"]}}
        try:
            return build(self)
        finally:
            self.config["eval_args"] = arguments
            del self.split_by_ratio

    dataset_class.build = mended
    dataset_class.time_based_split = time_based_split


def time_based_split(dataset: Any, ratios: Sequence[float], group_by: str | None) -> list[Any]:
    """The split ``TS`` of RecBole 1.2.1, on a data set whose rows are in the order of time.

    Args:
        dataset: RecBole's.
        ratios: of training, validation and test. The last share of all times is test; what comes before is divided
            group by group, in the proportion of the first two.
        group_by: field of the groups, the users'.

    Returns:
        The three parts.
    """
    import numpy as np

    shares = [ratio / sum(ratios) for ratio in ratios]
    times = dataset.inter_feat[dataset.time_field].numpy()
    boundary = np.percentile(times, 100 * (1 - shares[-1]))
    parts: tuple[list[Any], ...] = ([], [], [])
    for found in dataset._grouped_index(dataset.inter_feat[group_by].numpy()):
        rows = np.asarray(found)
        early = times[rows] <= boundary
        before = rows[early]
        point = int(len(before) * (shares[0] / (1 - shares[2])))
        for part, own in zip(parts, (before[:point], before[point:], rows[~early]), strict=True):
            part.extend(own.tolist())
    dataset._drop_unused_col()
    return [dataset.copy(dataset.inter_feat[part]) for part in parts]


#: What is mended in a module of RecBole once it has been imported.
_REPAIRS: dict[str, Callable[[ModuleType], None]] = {
    "recbole.model.general_recommender.ngcf": _mend_ngcf,
    "recbole.data.dataset.dataset": _mend_dataset,
    "recbole.utils.utils": _mend_folders,
}


class _AfterModules(MetaPathFinder):
    """Finds the modules of RecBole that are to be mended, and mends each when it has been executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The usual spec, with a loader that mends."""
        repair = _REPAIRS.get(fullname)
        spec = PathFinder.find_spec(fullname, path) if repair is not None else None
        if spec is None or spec.loader is None or repair is None:
            return None
        execute, mend_module = spec.loader.exec_module, repair

        def execute_and_mend(module: ModuleType) -> None:
            execute(module)
            mend_module(module)

        spec.loader.exec_module = execute_and_mend  # type: ignore[method-assign]
        return spec


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
    known = {type(finder).__name__ for finder in sys.meta_path}
    if _AfterModules.__name__ not in known:
        sys.meta_path.insert(0, _AfterModules())
    if "recbole" in sys.modules:
        mend()
    elif _BeforeRecBole.__name__ not in known:
        sys.meta_path.insert(0, _BeforeRecBole())
