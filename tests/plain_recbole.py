"""Train models with plain RecBole, none of our models and trainers: what it writes is what ``import`` has to read.

With NumPy 2 or a SciPy of today RecBole does not start at all; there it is mended as the package mends it.

Run as ``python plain_recbole.py DATA_PATH DATASET MODEL...``; prints model, validation score and checkpoint a line.
"""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

SMALL: dict[str, Any] = {
    "epochs": 1,
    "show_progress": False,
    "train_batch_size": 64,
    "embedding_size": 8,
    "hidden_size": 8,
    "inner_size": 16,
    "n_layers": 1,
    "MAX_ITEM_LIST_LENGTH": 8,
    "topk": [5],
    "valid_metric": "NDCG@5",
    "learning_rate": 0.01,
    "state": "WARNING",
    "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]},
}
MENDS = Path(__file__).parent.parent / "recbole_fair" / "recbole_mends.py"
WITHOUT_NEGATIVES = ("SASRec", "GRU4Rec")  # their loss is over all items, and RecBole wants to be told


def train(model: str, dataset: str, data_path: str, settings: dict[str, Any]) -> tuple[float, str]:
    """One training by RecBole's own trainer: validation score and checkpoint."""
    runpy.run_path(str(MENDS))["mend"]()
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    argv, sys.argv = sys.argv, sys.argv[:1]  # RecBole reads the command line of whoever calls it
    own = {"train_neg_sample_args": None} if model in WITHOUT_NEGATIVES else {}
    config = Config(model, dataset, config_dict={**settings, "data_path": data_path, **own})
    sys.argv = argv
    init_seed(config["seed"], config["reproducibility"])
    train_data, valid_data, _ = data_preparation(config, create_dataset(config))
    net = get_model(config["model"])(config, train_data._dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, net)
    score, _ = trainer.fit(train_data, valid_data, show_progress=False)
    return float(score), str(trainer.saved_model_file)


def train_apart(models: list[str], dataset: str, data_path: Path, folder: Path) -> dict[str, tuple[float, Path]]:
    """Train in a process of its own, where recbole_fair is never imported; the score and the file of each model."""
    command = [sys.executable, "-W", "ignore", __file__, str(data_path), dataset, *models]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {}
    for line in done.stdout.splitlines():
        if line.startswith("TRAINED "):
            _, model, score, file = line.split(" ", 3)
            found[model] = float(score), folder / file
    assert set(found) == set(models), done.stdout
    return found


if __name__ == "__main__":
    for name in sys.argv[3:]:
        result = train(name, sys.argv[2], sys.argv[1], SMALL)
        print("TRAINED", name, *result, flush=True)
    assert "recbole_fair" not in sys.modules
