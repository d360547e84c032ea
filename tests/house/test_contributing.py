"""The examples of docs/own-parts.md work as they stand there."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from recbole_fair.cli import main
from recbole_fair.quick_start import evaluate_checkpoint, load_data_and_model

PAGE = (Path(__file__).parents[2] / "docs/own-parts.md").read_text(encoding="utf-8")
METRIC, RERANKER, METHOD, KEY = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def mine(in_tmp: Path, small_data: Path) -> Iterator[str]:
    """Name of a module in the working folder that holds the three classes."""
    name = f"mine_{in_tmp.name.replace('-', '_')}"
    (in_tmp / f"{name}.py").write_text("\n".join((METRIC, RERANKER, METHOD)))
    (in_tmp / "base.yaml").write_text(
        f"data_path: {small_data}\nepochs: 2\nembedding_size: 8\ntopk: [5]\nstate: error\nshow_progress: false\n"
        "metrics: [NDCG, AveragePopularity]\nload_col: {inter: [user_id, item_id, timestamp]}\n"
    )
    yield name
    sys.modules.pop(name, None)


def run(*words: str) -> dict:
    with pytest.raises(SystemExit) as ended:
        main(["run", "-d", "small", "-c", "base.yaml", "--result_file=out.json", *words])
    assert ended.value.code == 0
    return json.loads(Path("out.json").read_text())


def test_the_metric(mine: str):
    words = [f"--metrics=[NDCG, '{mine}:FIRST']", "--recommendations_file=r.csv", "--per_item_file=i.csv"]
    result = run("-m", "BPR", *words, "--mask_seen=none")
    items = np.genfromtxt("i.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    counts = dict(zip(items["item_id"], items["popularity"], strict=True))
    lists = np.genfromtxt("r.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    first = [counts[row["item_id"]] for row in lists if row["rank"] == 1]
    assert result["test_result"]["firstpopularity@5"] == pytest.approx(np.mean(first), rel=1e-12)


def test_the_reranker(mine: str):
    result = run("-m", "BPR", f"--reranker={mine}:Newcomers", "--reranker_below=12", "--reranker_bonus=2")
    before, after = result["base_test_result"], result["test_result"]
    assert after["averagepopularity@5"] < before["averagepopularity@5"]


def test_the_post_hoc_method(mine: str):
    result = run("-m", f"{mine}:Centred", "--centre_by=0")
    assert result["variants"]["base"] == result["variants"]["intervened"]
    settings = {"model": f"{mine}:Centred", "centre_by": 1.0}
    moved = evaluate_checkpoint(result["checkpoint"], settings)  # all users are the mean user now
    assert moved["variants"]["intervened"] != moved["variants"]["base"]
    model = load_data_and_model(result["checkpoint"], settings)[1]
    vectors = model.edit(model.base.user_embedding.weight[1:4], "intervened")
    assert np.allclose(vectors.numpy(force=True), model.base.user_embedding.weight[1:].mean(0).numpy(force=True))


def test_the_key():
    exec(KEY, {})
