from __future__ import annotations

import torch
from recbole.data.dataloader import FullSortEvalDataLoader

from recbole_fair.config import FairConfig
from recbole_fair.data.loaders import FullRankingLoader
from recbole_fair.data.prepare import load_data


def test_batches_equal_recboles(small_data):
    settings = {"data_path": str(small_data), "eval_batch_size": 7 * 41, "show_progress": False}
    config = FairConfig("BPR", "small", config_dict=settings)
    for ours in load_data(config)[1:]:
        assert type(ours) is FullRankingLoader
        theirs = FullSortEvalDataLoader(config, ours._dataset, ours._sampler)
        assert len(ours) == len(theirs) > 1
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a[0]["user_id"], b[0]["user_id"])
            for mine, other in zip((*a[1], *a[2:]), (*b[1], *b[2:]), strict=True):
                assert torch.equal(mine, other)
