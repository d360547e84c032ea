"""Pop ranks by the number of training interactions, whatever the batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_fair.data.facts.interactions import split_interactions
from recbole_fair.quick_start import load_data_and_model, run_recbole_fair


@pytest.mark.parametrize("batch", [7, 2048])
def test_scores_are_the_counts(batch: int, small_data: Path, in_tmp: Path) -> None:
    settings: dict[str, Any] = {"data_path": str(small_data), "train_batch_size": batch, "show_progress": False}
    document = run_recbole_fair("Pop", "small", config_dict={**settings, "topk": [5], "state": "error"})
    _, net, _, train, _, test = load_data_and_model(document["checkpoint"])
    items = split_interactions(train._dataset).item
    counts = np.array([int((items == item).sum()) for item in range(net.n_items)])
    users = next(iter(test))[0]
    scores = net.full_sort_predict(users).reshape(len(users), -1)
    np.testing.assert_allclose(scores, np.tile(counts / counts.max(), (len(users), 1)))
