from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender.sasrec import SASRec as RecBoleSASRec

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.batches.sequences import WindowLoader
from recbole_fair.data.batches.windows import WINDOW_ITEMS, WINDOW_TARGETS
from recbole_fair.data.facts.interactions import data_fingerprint, split_interactions
from recbole_fair.data.reading.prepare import load_data
from recbole_fair.errors import FairError
from recbole_fair.model.bases.sasrec import SASRec


def settings(small_data, **changes):
    return {
        "data_path": str(small_data),
        "MAX_ITEM_LIST_LENGTH": 8,
        "hidden_size": 16,
        "inner_size": 32,
        "show_progress": False,
        **changes,
    }


def build(small_data, model="SASRec", **changes):
    config = FairConfig(model, "small", config_dict=settings(small_data, **changes))
    return config, *load_data(config)


@pytest.fixture(scope="module")
def parts(small_data):
    return build(small_data)


def test_rows_and_lists_equal_recboles(small_data, in_tmp, parts):
    config, *loaders = parts
    theirs = SequentialDataset(config).build()
    for loader, other in zip(loaders, theirs, strict=True):
        ours = loader._dataset
        assert len(ours) == len(other)
        mine = ours[torch.arange(len(ours))]
        for field in ("user_id", "item_id", "item_length", "item_id_list"):
            assert torch.equal(mine[field], other.inter_feat[field]), field


def test_other_models_get_all_lists(small_data, in_tmp):
    config, train, *_ = build(small_data, model="GRU4Rec")
    theirs = SequentialDataset(config).build()[0]
    rows = train._dataset[torch.arange(len(theirs))]
    for field in theirs.inter_feat.interaction:
        assert torch.equal(rows[field], theirs.inter_feat[field]), field


def test_inter_matrix_equals_recboles(small_data, parts):
    config, train, *_ = parts
    theirs = SequentialDataset(config).build()[0]
    assert (train._dataset.inter_matrix("csr") != theirs.inter_matrix("csr")).nnz == 0


def test_popularity_counts_agree_between_model_types(small_data, parts):
    _, train, *_ = parts
    general = build(small_data, model="BPR", eval_args={"split": {"LS": "valid_and_test"}, "order": "TO"})[1]
    a, b = split_interactions(train._dataset), split_interactions(general._dataset)
    assert len(a) == len(b) == 60 + len(train._dataset)
    assert np.array_equal(np.bincount(a.item, minlength=a.n_items), np.bincount(b.item, minlength=b.n_items))
    assert np.array_equal(a.item, b.item)  # both in order of user and time


def test_recboles_own_rows_give_the_same_interactions(parts):
    config, train, *_ = parts
    ours, theirs = split_interactions(train._dataset), split_interactions(SequentialDataset(config).build()[0])
    assert np.array_equal(ours.user, theirs.user)
    assert np.array_equal(ours.item, theirs.item)


def test_a_user_with_one_interaction_counts_in_training(tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    rows = ["user_id:token\titem_id:token\ttimestamp:float", "a\tx\t1"]
    rows += [f"{u}\t{i}\t{t}" for u in "bc" for t, i in enumerate("xyzv")]
    (folder / "one.inter").write_text("\n".join(rows) + "\n")
    config = FairConfig("SASRec", "one", config_dict={"data_path": str(tmp_path), "topk": 2})
    train, valid, test = load_data(config)
    inter = split_interactions(train._dataset)
    assert len(inter) == 1 + 2 + 2
    assert len(split_interactions(valid._dataset)) == len(split_interactions(test._dataset)) == 2


def prefix_batch(model, train):
    rows = train._dataset[torch.arange(len(train._dataset))]
    return Interaction({key: rows[key] for key in (model.ITEM_SEQ, model.ITEM_SEQ_LEN, model.POS_ITEM_ID, "user_id")})


@pytest.fixture
def model(parts):
    config, train, *_ = parts
    torch.manual_seed(0)
    return SASRec(config, train._dataset)


def test_same_parameters_and_scores_as_recbole(parts, model):
    config, train, *_ = parts
    theirs = RecBoleSASRec(config, train._dataset)
    theirs.load_state_dict(model.state_dict())
    batch = prefix_batch(model, train)
    model.eval(), theirs.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            model.full_sort_predict(batch), theirs.full_sort_predict(batch), atol=2e-6, rtol=1e-5
        )
        batch[model.ITEM_ID] = batch[model.POS_ITEM_ID]
        torch.testing.assert_close(model.predict(batch), theirs.predict(batch), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("stride", [1, 3, 8])
def test_windows_give_the_prefix_loss_and_gradient(parts, model, stride):
    """With dropout 0 a window's loss is the prefix procedure's on the same contexts and targets."""
    config, train, *_ = parts
    model = model.double()
    model.hidden_dropout_prob = model.attn_dropout_prob = 0.0
    theirs = RecBoleSASRec(config, train._dataset).double()
    theirs.load_state_dict(model.state_dict())
    theirs.eval()  # dropout off; the gradient flows all the same
    config["window_stride"], config["train_batch_size"] = stride, 10**9
    loader = WindowLoader(config, train._dataset)
    (batch,) = list(loader)
    config["window_stride"], config["train_batch_size"] = None, 2048
    # Write each loss term as RecBole's row: context, length, target.
    items, targets = batch[WINDOW_ITEMS], batch[WINDOW_TARGETS]
    lengths = (items > 0).sum(1)
    rows = []
    for row in range(len(items)):
        base = max(int(lengths[row]) - targets.shape[1], 0)
        rows += [(row, base + j + 1, int(t)) for j, t in enumerate(targets[row]) if t > 0]
    sequence = torch.zeros(len(rows), 8, dtype=torch.long)
    for n, (row, size, _) in enumerate(rows):
        sequence[n, :size] = items[row, :size]
    size, goal = torch.tensor([r[1] for r in rows]), torch.tensor([r[2] for r in rows])
    expected = F.cross_entropy(theirs.forward(sequence, size) @ theirs.item_embedding.weight.T, goal)
    expected.backward()
    found = model.calculate_loss(batch)
    found.backward()
    assert abs(found - expected) < 1e-10
    for (name, ours), other in zip(model.named_parameters(), theirs.parameters(), strict=True):
        # RecBole blocks with -10000 instead of -inf, which is the same to e**-10000.
        assert (ours.grad - other.grad).abs().max() < 1e-10, name


def test_last_procedure_equals_recboles_loss(parts, model):
    config, train, *_ = parts
    batch = prefix_batch(model, train)
    theirs = RecBoleSASRec(config, train._dataset)
    theirs.load_state_dict(model.state_dict())
    model.eval(), theirs.eval()
    torch.testing.assert_close(model.calculate_loss(batch), theirs.calculate_loss(batch))


def test_encode_at_positions_equals_encode_everywhere(model):
    model.eval()
    items = torch.randint(1, model.n_items, (5, 8))
    positions = torch.tensor([[0, 7], [3, 3], [1, 2], [6, 0], [5, 4]])
    everywhere = model.encode(items)
    expected = everywhere.gather(1, positions.unsqueeze(-1).expand(-1, -1, everywhere.shape[-1]))
    torch.testing.assert_close(model.encode(items, positions), expected)


def test_an_epoch_depends_on_its_number_alone(parts):
    config, train, *_ = parts
    again = WindowLoader(config, train._dataset)
    epochs = [[b[WINDOW_ITEMS] for b in again] for _ in range(3)]
    resumed = WindowLoader(config, train._dataset)
    resumed.set_epoch(2)
    for a, b in zip(epochs[2], resumed, strict=True):
        assert torch.equal(a, b[WINDOW_ITEMS])
    assert len(again) == len(epochs[2])
    assert not torch.equal(epochs[0][0], epochs[1][0])


def test_batches_hold_about_train_batch_size_targets(small_data):
    _, train, *_ = build(small_data, train_batch_size=100, window_stride=4)
    sizes = [int((b[WINDOW_TARGETS] > 0).sum()) for b in train]
    assert sum(sizes) == train.sequences.n_targets
    assert 80 < np.mean(sizes[:-1]) < 120


def test_fingerprint_sees_an_exchanged_item(small_data, parts):
    _, train, valid, _ = parts
    before = data_fingerprint(train._dataset, valid._dataset)
    other = build(small_data)[1:]
    assert data_fingerprint(other[0]._dataset, other[1]._dataset) == before
    flat = other[0]._dataset.flat["item_id"]
    flat[0], flat[1] = int(flat[1]), int(flat[0])
    assert data_fingerprint(other[0]._dataset, other[1]._dataset) != before


def test_a_sampled_loss_takes_prefixes_and_refuses_windows(small_data):
    sampled = {"loss_type": "BPR", "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}
    config, train, *_ = build(small_data, **sampled)
    assert config["train_positions"] == "last"
    SASRec(config, train._dataset)
    config, train, *_ = build(small_data, train_positions="all", **sampled)
    with pytest.raises(FairError, match="train_positions=last"):
        SASRec(config, train._dataset)


@pytest.mark.parametrize("positions", ["all", "last"])
def test_a_sampled_softmax_learns_and_draws_from_the_training_items(small_data, positions):
    sampled = {"softmax_negatives": 50, "train_positions": positions}
    config, train, *_ = build(small_data, **sampled)
    torch.manual_seed(0)
    model = SASRec(config, train._dataset)
    inter = split_interactions(train._dataset)
    weights = np.bincount(inter.item, minlength=inter.n_items).clip(1) ** 0.5
    weights[0] = 0
    odds = model.negative_items.log_probability.exp().numpy()
    np.testing.assert_allclose(odds, weights / weights.sum(), rtol=1e-5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(6):
        for batch in train:
            optimizer.zero_grad()
            loss = model.calculate_loss(batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert set(model.state_dict()) == set(RecBoleSASRec(config, train._dataset).state_dict())
