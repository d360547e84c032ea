"""What is mended in RecBole's surroundings, in processes of their own where libraries are changed before the import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import MethodType, ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.dataset import Dataset
from scipy.sparse import dok_matrix
from torch import nn

from recbole_fair import recbole_mends
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair


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


@pytest.mark.skipif(not hasattr(dok_matrix((1, 1)), "_dict"), reason="an old SciPy, whose own method needs no mend")
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


class _NewLayers:
    """NGCF of RecBole 1.2.0 in small: a new dropout layer in every pass."""

    def __init__(self) -> None:
        self.message_dropout, self.training = 0.5, True

    def forward(self) -> torch.Tensor:
        return nn.Dropout(self.message_dropout)(torch.ones(1000))


def test_ngcf_drops_nothing_at_scoring_time() -> None:
    module = ModuleType("ngcf")
    module.NGCF = type("NGCF", (_NewLayers,), {"forward": _NewLayers.forward})  # type: ignore[attr-defined]
    assert (module.NGCF().forward() == 0).any()
    recbole_mends._mend_ngcf(module)
    model = module.NGCF()
    assert (model.forward() == 0).any()
    model.training = False
    assert (model.forward() == 1).all()
    assert model.message_dropout == 0.5


def test_recboles_ngcf_gives_the_same_scores_twice(small_data: Path, in_tmp: Path) -> None:
    settings = {"data_path": str(small_data), "embedding_size": 4, "hidden_size_list": [4], "epochs": 1,
                "metrics": ["NDCG"], "topk": [3], "valid_metric": "NDCG@3"}  # fmt: skip
    result = run_recbole_fair("NGCF", "small", config_dict=settings)
    assert evaluate_checkpoint(result["checkpoint"])["test_result"] == result["test_result"]


def _dataset(small_data: Path) -> Any:
    settings = {
        "data_path": str(small_data),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"TS": [0.7, 0.1, 0.2]}, "order": "TO", "group_by": "user", "mode": "full"},
    }
    return Dataset(FairConfig("BPR", "small", config_dict=settings))


def _rows(parts: list[Any]) -> list[dict[str, list[Any]]]:
    return [{key: column.tolist() for key, column in part.inter_feat.interaction.items()} for part in parts]


def test_the_split_by_time_is_that_of_recbole_121(small_data: Path) -> None:
    """Where RecBole has the split, ours gives the same rows in the same order."""
    parts = _rows(_dataset(small_data).build())
    times = [part["timestamp"] for part in parts]
    assert all(times)
    assert max(map(max, times[:2])) < min(times[2])
    module = ModuleType("dataset")
    known = vars(Dataset)

    def build(self: Any) -> Any:
        """RecBole 1.2.0's, which knows no TS."""
        assert "TS" not in self.config["eval_args"]["split"]
        return known["build"](self)

    module.Dataset = type("Dataset", (), {"build": build})  # type: ignore[attr-defined]
    recbole_mends._mend_dataset(module)
    dataset = _dataset(small_data)
    dataset.time_based_split = MethodType(module.Dataset.time_based_split, dataset)
    assert _rows(module.Dataset.build(dataset)) == parts
    assert "TS" in dataset.config["eval_args"]["split"]
    assert "split_by_ratio" not in vars(dataset)


@pytest.mark.parametrize("first", ["recbole_fair", "recbole.trainer"])
def test_a_folder_that_another_process_makes_meanwhile_is_no_error(first: str) -> None:
    code = (
        f"import {first}, recbole_fair, recbole.trainer, recbole.trainer.trainer as trainer, recbole.utils as utils\n"
        "import os, tempfile\n"
        "os.path.exists = lambda path: False\n"  # what the slower process has seen
        "folder = tempfile.mkdtemp()\n"
        "for module in (trainer, utils): module.ensure_dir(folder)\n"
        "utils.ensure_dir(os.path.join(folder, 'a', 'b'))\n"
        "print(os.listdir(folder))"
    )
    assert run(code) == "['a']"


def test_modules_are_mended_whichever_is_imported_first() -> None:
    code = (
        "import recbole\n"
        "from recbole_fair import recbole_mends\n"
        "recbole_mends._REPAIRS['recbole.model.general_recommender.bpr'] = lambda module: setattr(module, 'seen', 1)\n"
        "import recbole.model.general_recommender.bpr as module\n"
        "import recbole_fair.recbole_mends as again; again.install()\n"
        "print(module.seen, sum(type(finder).__name__ == '_AfterModules' for finder in __import__('sys').meta_path))"
    )
    assert run(code) == "1 1"


def test_what_has_the_split_is_left_alone() -> None:
    module = ModuleType("dataset")
    module.Dataset = type("Dataset", (), {"build": None, "time_based_split": None})  # type: ignore[attr-defined]
    recbole_mends._mend_dataset(module)
    assert module.Dataset.build is None
