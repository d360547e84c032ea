from __future__ import annotations

import numpy as np
import pytest
import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.interaction import Interaction
from recbole.sampler import Sampler
from recbole.utils import init_seed

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.batches.loaders import FullRankingLoader
from recbole_fair.data.batches.samplers import PHASES, ItemSampler
from recbole_fair.data.batches.tensor_columns import Columns
from recbole_fair.data.reading.prepare import create_dataset, load_data


def test_batches_equal_recboles(small_data):
    settings = {"data_path": str(small_data), "eval_batch_size": 7 * 41, "show_progress": False}
    config = FairConfig("BPR", "small", config_dict=settings)
    for ours in load_data(config)[1:]:
        assert type(ours) is FullRankingLoader
        theirs = FullSortEvalDataLoader(config, ours._dataset, ours._sampler)
        assert len(ours) == len(theirs) > 1
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a[0]["user_id"], b[0]["user_id"])
            for mine, other in zip((a[1], a[2:]), (b[1], b[2:]), strict=True):
                assert sorted(torch.stack(mine).T.tolist()) == sorted(torch.stack(other).T.tolist())


@pytest.mark.parametrize("model", ["BPR", "FM", "GRU4Rec"])
def test_training_batches_equal_recboles(small_data, model):
    columns = {"inter": ["user_id", "item_id", "timestamp"]}
    settings = {"data_path": str(small_data), "train_batch_size": 64, "show_progress": False, "load_col": columns}
    loaders = []
    for _ in range(2):
        init_seed(3, True)  # of the random split
        loaders.append(load_data(FairConfig(model, "small", config_dict=settings))[0])
    ours, theirs = loaders
    assert type(ours._dataset.inter_feat) is Columns
    for name in ("inter_feat", "user_feat", "item_feat"):
        table = getattr(theirs._dataset, name)
        if table is not None:
            setattr(theirs._dataset, name, Interaction(table.interaction))
    epochs = []
    for loader in loaders:
        init_seed(3, True)
        epochs.append([batch for _ in range(2) for batch in loader])
    assert len(epochs[0]) > 2
    for a, b in zip(*epochs, strict=True):
        assert list(a.interaction) == list(b.interaction)
        assert all(torch.equal(a[name], b[name]) for name in b.interaction)


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_samples_equal_recboles(small_data, distribution):
    config = FairConfig("BPR", "small", config_dict={"data_path": str(small_data), "state": "error"})
    init_seed(1, True)
    dataset = create_dataset(config)
    splits = dataset.build()
    ours, theirs = (kind(list(PHASES), splits, distribution) for kind in (ItemSampler, Sampler))
    users = np.random.default_rng(0).integers(1, dataset.user_num, size=200)
    for phase in PHASES:
        mine, other = ours.set_phase(phase), theirs.set_phase(phase)
        assert [mine.used_ids[user] for user in range(dataset.user_num)] == list(other.used_ids)
        assert mine.used_ids[users] == list(other.used_ids[users])
        for keys, num in ((users, 3), (np.full(50, 7), 2), (users[:1], 40)):
            drawn = []
            for sampler in (mine, other):
                np.random.seed(5)
                drawn.append(sampler.sample_by_user_ids(keys, None, num))
            assert torch.equal(*drawn)
            sets = mine.used_ids[np.tile(keys, num)]
            assert not any(item in had for item, had in zip(drawn[0].tolist(), sets, strict=True))


def test_a_user_who_has_every_item(small_data):
    config = FairConfig("BPR", "small", config_dict={"data_path": str(small_data), "state": "error"})
    splits = create_dataset(config).build()
    last = splits[2].inter_feat
    n_items = splits[0].item_num
    everything = {"user_id": torch.full((n_items - 1,), 3), "item_id": torch.arange(1, n_items)}
    splits[2].inter_feat = Interaction({name: torch.cat([last[name], everything[name]]) for name in everything})
    with pytest.raises(ValueError, match="Some users have interacted with all items"):
        ItemSampler(list(PHASES), splits)


def test_rows_are_found_by_every_kind_of_index():
    table = {"a": torch.arange(6), "b": torch.arange(12.0).view(6, 2)}
    ours, theirs = Columns(table), Interaction(table)
    for index in (np.array([4, 0, 4]), torch.tensor([5, 1]), torch.tensor([True, False] * 3), [2, 3], slice(1, 3)):
        found, wanted = ours[index], theirs[index]
        assert list(found.interaction) == list(wanted.interaction)
        assert all(torch.equal(found[name], wanted[name]) for name in table)
    assert ours["a"] is table["a"]
