from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from recbole_fair.cli import cli
from recbole_fair.errors import FairError
from recbole_fair.quick_start import Recommender, export_checkpoint, run_recbole_fair
from recbole_fair.runs.exporting import check_onnx, exports_graphs, made_up_histories
from recbole_fair.runs.graph import held_items, last_items

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
needs_graphs = pytest.mark.skipif(not exports_graphs(), reason="this PyTorch exports no graph of any length")

METHODS = {
    "PopSteerSASRec": {"synthetic_users": 60, "synthetic_length": 5, "sae_epochs": 1, "sae_scale": 4, "sae_k": 4},
    "SPREESASRec": {"synthetic_users": 60, "synthetic_length": 5, "n_layers": 2, "spree_sites": [[1, -1]]},
}


@pytest.fixture(scope="module")
def trained(small_data, tmp_path_factory):
    """Checkpoints by model, trained when first asked for."""
    folder = tmp_path_factory.mktemp("trained")
    known: dict[str, str] = {}

    def checkpoint(model: str) -> str:
        settings = {
            "data_path": str(small_data),
            "checkpoint_dir": str(folder),
            "epochs": 2,
            "train_batch_size": 64,
            "embedding_size": 8,
            "hidden_size": 8,
            "inner_size": 16,
            "n_layers": 1,
            "MAX_ITEM_LIST_LENGTH": 8,
            "show_progress": False,
            "topk": [5],
            "valid_metric": "NDCG@5",
            "learning_rate": 0.01,
        }
        if model not in known:
            own = METHODS.get(model, {})
            known[model] = run_recbole_fair(model, "small", config_dict={**settings, **own})["checkpoint"]
        return known[model]

    return checkpoint


def run(file, **feed):
    return runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, feed)


@needs_graphs
@pytest.mark.parametrize(
    ("model", "strengths"),
    [
        ("SASRec", {}),
        ("PopSteerSASRec", {"alpha_pop": 4.0, "alpha_unpop": 3.0}),
        pytest.param("PopSteerSASRec", {"steer_mode": "dense"}, marks=pytest.mark.slow),
        pytest.param("PopSteerSASRec", {"keep_reconstruction_error": True}, marks=pytest.mark.slow),
        ("SPREESASRec", {"spree_strength": 6.0}),
        ("GRU4Rec", {}),
        pytest.param("BERT4Rec", {}, marks=pytest.mark.slow),
        ("MultiVAE", {}),
    ],
)
def test_a_thousand_ragged_histories_have_the_same_ten_best(model, strengths, trained, in_tmp):
    file = trained(model)
    result = export_checkpoint(file, "model.onnx", config_dict=strengths, check=1000)
    assert result["checked"] == 1000
    assert result["differ"] == 0
    assert result["largest_error"] < 1e-5
    rec = Recommender.load(file, strengths)
    lengths = {len(history) for history in made_up_histories(rec, 1000)}
    assert lengths >= set(range(1, rec.window + 1))
    if strengths:
        base = Recommender.load(file).recommend(made_up_histories(rec, 50), variant="base", exclude_seen=False)
        assert (base.ids != rec.recommend(made_up_histories(rec, 50), exclude_seen=False).ids).any(), "steered"


@needs_graphs
def test_inputs_of_any_shape_and_what_stands_inside(trained, in_tmp):
    file = trained("SASRec")
    facts = export_checkpoint(file, "model.onnx", check=40)["metadata"]
    rec = Recommender.load(file)
    inside = {entry.key: entry.value for entry in onnx.load("model.onnx").metadata_props}
    assert inside == facts
    assert json.loads(inside["item_ids"]) == rec.item_ids
    assert inside["model"] == "SASRec"
    one = run("model.onnx", item_ids=np.array([[3]]), lengths=np.array([1]))[0]
    padded = run("model.onnx", item_ids=np.array([[3, 0, 0, 7], [1, 2, 0, 0]]), lengths=np.array([1, 2]))[0]
    assert one.shape == (1, len(rec.item_ids))
    assert np.allclose(one[0, 1:], padded[0, 1:], atol=1e-6), "what stands beyond the length is not looked at"
    assert np.isneginf(one[0, 0])
    long = np.arange(1, 31)[None]
    tail = run("model.onnx", item_ids=long[:, -8:], lengths=np.array([8]))[0]
    assert np.allclose(run("model.onnx", item_ids=long, lengths=np.array([30]))[0][0, 1:], tail[0, 1:], atol=1e-6)
    empty = run("model.onnx", item_ids=np.array([[0]]), lengths=np.array([0]))[0]
    assert np.array_equal(empty[0, 1:], rec.popularity[1:].float().numpy())


@needs_graphs
def test_lists_without_what_was_seen(trained, in_tmp):
    file = trained("SASRec")
    assert export_checkpoint(file, "model.onnx", k=5, exclude_seen=True, check=100)["differ"] == 0
    items, scores = run("model.onnx", item_ids=np.array([[1, 2, 3]]), lengths=np.array([3]))
    assert items.shape == scores.shape == (1, 5)
    assert not set(items[0]) & {0, 1, 2, 3}


@needs_graphs
def test_a_bias_is_folded_in(trained, in_tmp):
    """What ``recommend`` adds to everybody's scores stands in the graph and in the arrays."""
    from recbole_fair.runs import exporting

    rec = Recommender.load(trained("SASRec"))
    plain = rec.recommend(made_up_histories(rec, 100), exclude_seen=False).ids
    rec.item_bias = torch.linspace(0, 3, len(rec.item_ids))
    assert (rec.recommend(made_up_histories(rec, 100), exclude_seen=False).ids != plain).any()
    graph = exporting.ScoreGraph(rec, "base")
    exporting._write_onnx(graph, in_tmp / "model.onnx", True, ["scores"], {})
    assert check_onnx(rec, in_tmp / "model.onnx", "base", True, None, False, 100)["differ"] == 0


@needs_graphs
@pytest.mark.parametrize("model", ["BPR", "LightGCN"])
def test_known_users_by_number(model, trained, in_tmp):
    file = trained(model)
    result = export_checkpoint(file, "model.onnx", k=5)
    assert result["differ"] == 0
    users = json.loads(result["metadata"]["user_ids"])
    items, _ = run("model.onnx", users=np.array([users.index("u3")]))
    expected = Recommender.load(file).recommend(users=["u3"], k=5, exclude_seen=False)
    assert [json.loads(result["metadata"]["item_ids"])[item] for item in items[0]] == expected.items[0]


@pytest.mark.parametrize("model", [pytest.param("PopSteerSASRec", marks=needs_graphs), "BPR"])
def test_arrays_for_an_index(model, trained, in_tmp):
    result = export_checkpoint(trained(model), "index", kind="arrays", check=100)
    assert result["differ"] == 0
    items, bias = np.load("index/items.npy"), np.load("index/bias.npy")
    assert items.shape[0] == bias.shape[0] == len(json.loads(result["metadata"]["item_ids"]))
    assert json.loads((in_tmp / "index" / "metadata.json").read_text())["model"] == model
    if model == "BPR":
        assert np.load("index/users.npy").shape[1] == items.shape[1]
        return
    users = run("index/encoder.onnx", item_ids=np.array([[1, 2, 3]]), lengths=np.array([3]))[0]
    rec = Recommender.load(trained(model))
    expected = rec.recommend([[rec.item_ids[i] for i in (1, 2, 3)]], exclude_seen=False)
    products = users @ items.T + bias
    assert np.argsort(-products[0, 1:])[:10].tolist() == (expected.ids[0] - 1).tolist()


def test_what_cannot_be_exported_is_one_sentence(trained, in_tmp):
    with pytest.raises(FairError, match="EASE cannot be exported: it has no vectors"):
        export_checkpoint(trained("EASE"), "model.onnx")
    with pytest.raises(FairError, match="steer_mode='noise' is drawn when scores are made"):
        export_checkpoint(trained("PopSteerSASRec"), "model.onnx", config_dict={"steer_mode": "noise"})
    with pytest.raises(FairError, match="needs histories"):
        export_checkpoint(trained("BPR"), "model.onnx", exclude_seen=True)
    with pytest.raises(FairError, match="format='tar' is not allowed"):
        export_checkpoint(trained("BPR"), "model.onnx", kind="tar")
    with pytest.raises(FairError, match="'x' is not a variant"):
        export_checkpoint(trained("PopSteerSASRec"), "model.onnx", variant="x")
    assert not (in_tmp / "model.onnx").exists()


@needs_graphs
def test_a_graph_that_scores_otherwise_is_refused(trained, in_tmp):
    file = trained("SASRec")
    export_checkpoint(file, "model.onnx", check=20)
    rec = Recommender.load(file)
    with torch.no_grad():
        rec.model.item_embedding.weight.add_(torch.randn_like(rec.model.item_embedding.weight))
    with pytest.raises(FairError, match="scores otherwise than the model"):
        check_onnx(rec, in_tmp / "model.onnx", "base", True, None, False, 20)
    assert not (in_tmp / "model.onnx").exists()


def test_windows_and_held_items_by_hand():
    items, lengths = torch.tensor([[5, 6, 7, 0], [1, 2, 3, 4], [9, 9, 0, 0]]), torch.tensor([3, 4, 0])
    window, kept = last_items(items, lengths, 2)
    assert window.tolist() == [[6, 7], [3, 4], [0, 0]]
    assert kept.tolist() == [2, 2, 0]
    assert last_items(items, lengths, 6)[0].tolist() == [[5, 6, 7, 0, 0, 0], [1, 2, 3, 4, 0, 0], [0] * 6]
    held = held_items(items, lengths, 10)
    assert [row.nonzero().flatten().tolist() for row in held] == [[5, 6, 7], [1, 2, 3, 4], []]


def test_an_older_torch_is_one_sentence(trained, in_tmp, monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", lambda model, args, *, dynamo: None)
    with pytest.raises(FairError, match=r"PyTorch .* cannot say a model as an ONNX graph.*2\.5 or later"):
        export_checkpoint(trained("SASRec"), "model.onnx")
    assert not list(in_tmp.glob("*.onnx"))


@needs_graphs
def test_the_command(trained, in_tmp):
    words = ["export", trained("PopSteerSASRec"), "--output", "m.onnx", "-k", "3", "--alpha_pop=1", "--check", "20"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert "20 lists compared, 0 differ" in done.output
    assert json.loads({e.key: e.value for e in onnx.load("m.onnx").metadata_props}["strengths"])["alpha_pop"] == 1


@needs_graphs
def test_a_learnt_bias_travels_in_the_checkpoint_and_in_the_graph(trained, small_data, in_tmp):
    words = ["--reranker=Lorenz", "--reranker_lambda=0.5", "--reranker_welfare=entropy", f"--data_path={small_data}"]
    done = CliRunner().invoke(cli, ["save", trained("SASRec"), "--output", "served.pth", *words])
    assert done.exit_code == 0, done.output
    result = export_checkpoint("served.pth", "model.onnx", check=300)
    assert result["differ"] == 0
    rec = Recommender.load("served.pth")
    assert rec.item_bias is not None
    assert float(rec.item_bias.abs().max()) > 0
    histories = made_up_histories(rec, 100)
    plain = Recommender.load(trained("SASRec")).recommend(histories, exclude_seen=False)
    assert (plain.ids != rec.recommend(histories, exclude_seen=False).ids).any()
    assert export_checkpoint("served.pth", "index", kind="arrays", check=50)["differ"] == 0
