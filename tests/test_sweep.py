from __future__ import annotations

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_fair.analysis.sweep import choose, constraint_of, pareto_front, parse_grid, settings_of
from recbole_fair.errors import FairError
from recbole_fair.evaluator.constraint import Constraint
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair, sweep_checkpoint


def test_grids():
    assert parse_grid(["a=0:1:0.25", "b=3,1"]) == {"a": [0, 0.25, 0.5, 0.75, 1], "b": [3, 1]}
    assert parse_grid(["a=0:0.3:0.1"])["a"] == [0, 0.1, 0.2, 0.3]
    assert settings_of({"a": [0, 1], "b": [2, 3]}) == [
        {"a": 0, "b": 2}, {"a": 0, "b": 3}, {"a": 1, "b": 2}, {"a": 1, "b": 3},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "message"),
    [([], "empty"), (["a"], "once"), (["a=x"], "numbers"), (["a=1:0:1"], "empty"), (["a=0:1:0"], "empty"),
     (["a=1", "a=2"], "once")],
)  # fmt: skip
def test_bad_grids(texts, message):
    with pytest.raises(FairError, match=message):
        parse_grid(texts)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12), st.booleans(), st.booleans())
def test_front_by_comparing_all_pairs(points, x_smaller, y_smaller):
    x, y = [float(a) for a, _ in points], [float(b) for _, b in points]
    front = pareto_front(x, y, x_smaller, y_smaller)

    def cost(i):
        return (x[i] if x_smaller else -x[i], y[i] if y_smaller else -y[i])

    def beaten(i):
        costs = [cost(j) for j in range(len(points))]
        return any(c != cost(i) and all(a <= b for a, b in zip(c, cost(i), strict=True)) for c in costs)

    better = {i for i in range(len(points)) if not beaten(i)}
    assert {cost(i) for i in front} == {cost(i) for i in better}
    assert len({cost(i) for i in front}) == len(front)


def test_choice_under_bounds():
    base = {"ndcg@10": 0.2, "giniindex@10": 0.9}
    results = [
        {"ndcg@10": 0.19, "giniindex@10": 0.8},
        {"ndcg@10": 0.18, "giniindex@10": 0.7},
        {"ndcg@10": 0.1, "giniindex@10": 0.5},
    ]
    bound = constraint_of("NDCG@10 >= 0.9*base", base)
    assert bound == Constraint("ndcg@10", ">=", pytest.approx(0.18))
    assert choose(results, "giniindex@10", [Constraint("ndcg@10", ">=", 0.18)]) == 1
    assert choose(results, "ndcg@10", [constraint_of("GiniIndex@10 <= 0.75", base)]) == 1
    assert choose(results, "ndcg@10", [constraint_of("GiniIndex@10 < 0.1", base)]) is None
    for text in ("Recall@10 >= 0.9*base", "NDCG@10 >= x*base", "NDCG@10"):
        with pytest.raises(FairError):
            constraint_of(text, base)


@pytest.fixture(scope="module")
def steered(small_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    settings = {
        "data_path": str(small_data), "checkpoint_dir": str(folder), "epochs": 2, "hidden_size": 8, "inner_size": 16,
        "n_layers": 1, "MAX_ITEM_LIST_LENGTH": 8, "show_progress": False, "sae_scale": 4, "sae_k": 4, "sae_epochs": 2,
        "synthetic_users": 500, "head_share": 0.2, "tail_share": 0.2, "metrics": ["NDCG", "GiniIndex"], "topk": [5],
        "valid_metric": "NDCG@5",
    }  # fmt: skip
    return run_recbole_fair("PopSteerSASRec", "small", config_dict=settings)["checkpoint"]


def test_a_sweep_gives_what_single_evaluations_give(steered, in_tmp):
    result = sweep_checkpoint(
        steered, ["alpha_pop=0,3", "alpha_unpop=1"], "GiniIndex@5", "NDCG@5", ["NDCG@5 >= 0*base"], "out/s"
    )
    assert [row["alpha_pop"] for row in result["settings"]] == [0, 3]
    for row in result["settings"]:
        single = evaluate_checkpoint(steered, {"alpha_pop": row["alpha_pop"], "alpha_unpop": 1})["test_result"]
        assert {name: row[f"test {name}"] for name in single} == pytest.approx(single, abs=1e-12)
    table = pd.read_csv("out/s.csv")
    assert list(table["valid ndcg@5"]) == pytest.approx([row["valid ndcg@5"] for row in result["settings"]])
    assert json.loads((in_tmp / "out" / "s.json").read_text())["chosen"]["alpha_unpop"] == 1
    assert result["chosen"]["valid giniindex@5"] == min(row["valid giniindex@5"] for row in result["settings"])


def test_what_cannot_be_swept(steered, small_data, in_tmp):
    with pytest.raises(FairError, match="not a scoring-time setting"):
        sweep_checkpoint(steered, ["sae_k=1,2"], "GiniIndex@5", "NDCG@5")
    with pytest.raises(FairError, match="upd@5 is not computed"):
        sweep_checkpoint(steered, ["alpha_pop=1"], "UPD@5", "NDCG@5")
    plain = run_recbole_fair("BPR", "small", config_dict={"data_path": str(small_data), "epochs": 1})["checkpoint"]
    with pytest.raises(FairError, match="no strengths"):
        sweep_checkpoint(plain, ["alpha_pop=1"])
