"""What a comparison plans and prints, without training."""

from __future__ import annotations

import json

import numpy as np
import pytest

from recbole_fair.analysis.systems import Cell
from recbole_fair.cli import main
from recbole_fair.errors import FairError
from recbole_fair.report.comparison import caption, latex, markdown, p_text, text
from recbole_fair.runs.cells import load_cell, save_cell
from recbole_fair.runs.plan import cell_key, make_plan


def plan_of(small_data, models, rerankers=(), seeds=2, **settings):
    return make_plan(models, rerankers, "small", seeds, (), {"data_path": str(small_data), **settings})


def test_settings_go_to_those_who_read_them(small_data):
    plan = plan_of(
        small_data, ["BPR", "PopSteerSASRec", "SPREESASRec"], ["IPR", "FAstarIR"], embedding_size=8, alpha_pop=3.0,
        spree_strength=4.0, reranker_alpha=0.7, reranker_p=0.6, seed=5,
    )  # fmt: skip
    assert plan.seeds == [5, 6]
    assert plan.systems()[:4] == [("BPR", None), ("BPR", "IPR"), ("BPR", "FAstarIR"), ("PopSteerSASRec", None)]
    assert plan.in_order_of_training() == ["BPR", "PopSteerSASRec", "SPREESASRec"]
    assert plan_of(small_data, ["PopSteerSASRec", "SASRec"]).in_order_of_training() == ["SASRec", "PopSteerSASRec"]
    bpr, popsteer = plan.config("BPR", None, 6, "there"), plan.config("PopSteerSASRec", None, 6, "there")
    assert (bpr["embedding_size"], bpr["seed"], bpr["checkpoint_dir"]) == (8, 6, "there")
    assert "alpha_pop" not in bpr.user_settings
    assert popsteer["alpha_pop"] == 3.0
    assert "spree_strength" not in popsteer.user_settings
    ipr, fair = (plan.config("BPR", name, 6, "there") for name in ("IPR", "FAstarIR"))
    assert (ipr["reranker"], ipr["reranker_alpha"], "reranker_p" in ipr.user_settings) == ("IPR", 0.7, False)
    assert (fair["reranker"], fair["reranker_p"]) == ("FAstarIR", 0.6)
    assert bpr["reranker"] is None


def test_one_protocol_for_sequential_and_other_models(small_data):
    mixed = plan_of(small_data, ["BPR", "SASRec", "SPREESASRec"])
    configs = [mixed.config(model, None, 1, "saved") for model in mixed.models]
    for key in ("eval_args", "mask_seen", "metrics", "topk", "valid_metric"):
        assert configs[0][key] == configs[1][key] == configs[2][key], key
    assert configs[0]["eval_args"]["split"] == {"LS": "valid_and_test"}
    assert configs[0]["mask_seen"] == "all"
    assert len(mixed.notes) == 2
    alike = plan_of(small_data, ["SASRec", "PopSteerSASRec"], topk=[7, 5])
    assert alike.notes == []
    config = alike.config("PopSteerSASRec", None, 1, "saved")
    assert (config["mask_seen"], config["topk"], config["valid_metric"]) == ("auto", [7, 5], "NDCG@7")
    named = plan_of(small_data, ["BPR", "SASRec"], mask_seen="train", eval_args={
        "split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": "user", "mode": "full"})  # fmt: skip
    assert named.notes == []
    assert named.config("SASRec", None, 1, "saved")["mask_seen"] == "train"


def test_the_key_of_a_cell(small_data):
    plan = plan_of(small_data, ["BPR"], ["IPR"])
    key = cell_key(plan.config("BPR", None, 1, "a"))
    assert key == cell_key(plan.config("BPR", None, 1, "b"))  # where checkpoints go does not matter
    others = [plan.config("BPR", None, 2, "a"), plan.config("BPR", "IPR", 1, "a")]
    others.append(plan_of(small_data, ["BPR"], learning_rate=0.5).config("BPR", None, 1, "a"))
    assert len({key, *map(cell_key, others)}) == 4


def test_keys_that_no_model_reads_are_said(small_data):
    plan = plan_of(small_data, ["BPR", "ILEBPR"], (), 1, alpha_pop=3.0, ile_weight=0.5, checkpoint_dir="x")
    assert [note for note in plan.notes if "has no effect" in note] == [
        "checkpoint_dir has no effect: a comparison keeps checkpoints in its own folder (--output).",
        "alpha_pop=3.0 has no effect: none of these models reads it.",
    ]


@pytest.mark.parametrize(
    ("models", "rerankers", "seeds", "settings", "message"),
    [(["BPR", "BPR"], (), 2, {}, "models names BPR twice"),
     ([], (), 2, {}, "models is empty"),
     (["PBR"], (), 2, {}, "model='PBR' is not a known model; did you mean"),
     (["BPR"], ["IRP"], 2, {}, "reranker='IRP' is not a known re-ranker"),
     (["BPR"], ["IPR"], 2, {"reranker_p": 0.3}, "reranker_p=0.3 is not a key of any re-ranker here"),
     (["BPR"], ["IPR"], 2, {"reranker_alpha": -3}, "reranker_alpha=-3 is not allowed"),
     (["BPR"], (), 0, {}, "seeds=0 is not allowed"),
     (["BPR"], (), 2020, {}, "it is a number of seeds from 1 to 100"),
     (["BPR"], (), [1, 1], {}, "names a seed twice"),
     (["BPR"], (), [1, -1], {}, "whole numbers from 0"),
     (["BPR"], (), 2, {"metrics": ["NDGC"]}, "no metric named 'NDGC'; did you mean 'NDCG'"),
     (["BPR"], (), 2, {"result_file": "x.json"}, "result_file='x.json' belongs to a single run"),
     (["BPR"], (), 2, {"base_model_file": "x.pth"}, "base_model_file='x.pth' belongs to a single run"),
     (["BPR"], (), 2, {"reranker": "IPR"}, "reranker='IPR': a comparison takes --rerankers"),
     (["BPR"], (), 2, {"bootstrap": 0}, "bootstrap=0: a comparison tests metrics of all lists"),
     (["BPR"], (), 2, {"topk": None}, "topk"),
     (["BPR"], (), 2, {"topk": []}, "topk"),
     (["BPR"], (), 2, {"learnin_rate": 1}, "did you mean 'learning_rate'"),
     (["FM"], (), 2, {"metrics": ["AUC"], "valid_metric": "AUC"}, "needs ranking metrics")],
)  # fmt: skip
def test_what_cannot_be_planned(small_data, models, rerankers, seeds, settings, message):
    with pytest.raises(FairError, match=message):
        plan_of(small_data, models, rerankers, seeds, **settings)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--seeds=1"], "One seed has no spread"), (["--seeds=7,"], "One seed has no spread"),
     (["--seeds=many"], "seeds='many'"), (["--spread=users"], "spread='users'"),
     (["--reference=BRP"], "reference='BRP' is not compared here; did you mean 'BPR'"),
     (["--permutations=5"], "permutations=5")],
)  # fmt: skip
def test_the_command_says_a_mistake_in_one_sentence(small_data, in_tmp, capfd, words, message):
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--models=BPR", "-d", "small", f"--data_path={small_data}", *words])
    assert ended.value.code == 2
    said = capfd.readouterr().err.strip().splitlines()
    assert message in said[-1]
    assert "Traceback" not in "".join(said)


def test_cells_on_disk(tmp_path):
    cell = Cell("M", "my.module:Mine", 3, {"ndcg@2": 1 / 3, "ckl@2": float("nan")}, np.array(["u1", "ü"]),
                {"ndcg@2": np.array([0.1, np.nan])}, np.array([[1, 2], [70000, 0]]), 70001,
                {"notes": ["a"], "checkpoint": None})  # fmt: skip
    save_cell(tmp_path / "c.npz", cell, "key")
    again = load_cell(tmp_path / "c.npz", "key")
    assert again is not None
    assert (again.system, again.seed, again.n_items, again.facts) == ("M + my.module:Mine", 3, 70001, cell.facts)
    assert again.metrics["ndcg@2"] == 1 / 3
    assert again.users.tolist() == ["u1", "ü"]
    assert again.lists.tolist() == cell.lists.tolist()
    np.testing.assert_array_equal(again.per_user["ndcg@2"], cell.per_user["ndcg@2"])
    assert load_cell(tmp_path / "c.npz", "other") is None
    assert load_cell(tmp_path / "none.npz", "key") is None
    whole = (tmp_path / "c.npz").read_bytes()
    for damage in (whole[: len(whole) // 2], b"", b"x" * 100):
        (tmp_path / "c.npz").write_bytes(damage)
        assert load_cell(tmp_path / "c.npz", "key") is None


@pytest.fixture
def document():
    def system(name, ndcg, gini, best):
        common = {"system": name, "seeds": 2}
        return [{**common, "metric": "ndcg@10", "mean": ndcg, "std": 0.01, "best": best},
                {**common, "metric": "giniindex@10", "mean": gini, "std": 0.02, "best": not best}]  # fmt: skip

    def difference(metric, kind, low, high, p):
        return {"system": "B_1 + IPR", "reference": "A", "metric": metric, "kind": kind, "difference": (low + high) / 2,
                "low": low, "high": high, "holm_t": p, "holm_wilcoxon": p, "holm_permutation": p, "seeds": 2,
                "seeds_better": 1}  # fmt: skip

    return {
        "dataset": "d", "seeds": [1, 2], "spread": "seeds", "reference": "A", "failed": [], "notes": ["A note."],
        "systems": [*system("A", 0.3, 0.9, True), *system("B_1 + IPR", 0.2, 0.8, False)],
        "comparisons": [difference("ndcg@10", "users", -0.2, 0.01, 0.04),
                        difference("giniindex@10", "lists", -0.2, 0.01, float("nan"))],
        "protocol": {"mask_seen": "all", "bootstrap": 1000, "permutations": 10000},
    }  # fmt: skip


def test_tables(document):
    lines = markdown(document, 4)
    assert "| system | NDCG@10 ↑ | GiniIndex@10 ↓ |" in lines
    assert "| A | **0.3000** ± 0.0100 | 0.9000 ± 0.0200 |" in lines
    assert "| B_1 + IPR | 0.2000 ± 0.0100\\* | **0.8000** ± 0.0200 |" in lines
    assert "| B_1 + IPR | A | NDCG@10 | -0.0950 | [-0.2000, +0.0100] | .040 | .040 | .040 | 1 of 2 |" in lines
    assert "| B_1 + IPR | A | GiniIndex@10 | -0.0950 | [-0.2000, +0.0100] | - | - | - | 1 of 2 |" in lines
    tex = latex(document, 3)
    assert r"B\_1 + IPR & 0.200 {\scriptsize $\pm$ 0.010}$^{*}$ & \textbf{0.800} {\scriptsize $\pm$ 0.020} \\" in tex
    assert r"System & NDCG@10 $\uparrow$ & GiniIndex@10 $\downarrow$ \\" in tex
    joined = "\n".join(tex)
    assert joined.count("{") == joined.count("}")
    assert "±" not in joined
    shown = text(document, 4)
    assert shown[3].split("  ")[0] == "A"
    assert any(line.startswith("B_1 + IPR  0.2000 ± 0.0100*") for line in shown)
    assert "mean ± standard deviation over 2 seeds. *: differs from A" in caption(document)
    document["spread"] = "none"
    assert "| A | **0.3000** | 0.9000 |" in markdown(document, 4)
    document |= {"seeds": [7], "reference": "all", "failed": [{"system": "C", "seed": 7, "error": "Why."}]}
    assert caption(document) == "Test results on d, seed 7."
    assert "No result for C, seed 7: Why." in text(document, 4)
    assert "*" not in "".join(text(document, 4))
    json.dumps(document)


def test_p_values_for_people():
    assert [p_text(p) for p in (0.0004, 0.0123, 0.5, 1.0, None, float("nan"))] == [
        "<.001", ".012", ".500", "1", "-", "-",
    ]  # fmt: skip
