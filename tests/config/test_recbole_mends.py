"""What is mended in RecBole's surroundings, in processes of their own where libraries are changed before the import."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.sparse import dok_matrix

from recbole_fair import recbole_mends


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_numpys_older_names_are_there_before_recbole_asks_for_them() -> None:
    code = (
        "import numpy as np\n"
        "for name in ('float_', 'complex_', 'unicode_'):\n"
        "    np.__dict__.pop(name, None)\n"
        "import recbole_fair\n"
        "assert 'float_' not in vars(np)\n"  # nothing is changed before RecBole is asked for
        "import recbole\n"
        "print(np.float_ is np.float64, np.complex_ is np.complex128, np.unicode_ is np.str_)"
    )
    assert run(code) == "True True True"


def test_recbole_that_was_imported_first_is_mended_as_well() -> None:
    code = (
        "import recbole, numpy as np\n"
        "np.__dict__.pop('float_', None)\n"
        "import recbole_fair\n"
        "print(np.float_ is np.float64)"
    )
    assert run(code) == "True"


def test_adjacency_matrices_are_filled_without_scipys_removed_method(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {(0, 1): 2.0, (2, 0): 3.0}
    for cls in dok_matrix.__mro__:
        if "_update" in vars(cls):
            monkeypatch.delattr(cls, "_update")
    recbole_mends._mend_scipy()
    matrix = dok_matrix((3, 3), dtype=np.float32)
    matrix._update(entries)
    assert np.array_equal(matrix.toarray(), [[0, 2, 0], [0, 0, 0], [3, 0, 0]])


def test_the_stand_in_for_kmeans_says_which_package_is_missing() -> None:
    code = (
        "import importlib.util, sys\n"
        "from recbole_fair import recbole_mends\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'kmeans_pytorch' else find(name, *a)\n"
        "sys.modules.pop('kmeans_pytorch', None)\n"
        "recbole_mends._mend_kmeans()\n"
        "from kmeans_pytorch import kmeans\n"
        "try:\n"
        "    kmeans(X=None, num_clusters=2)\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error.name, 'LDiffRec' in str(error))"
    )
    assert run(code) == "kmeans_pytorch True"
