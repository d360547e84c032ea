"""Metrics by user group after each validation: those of a final evaluation, in the log and in TensorBoard."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.runs.loading import new_trainer


class Writer:
    def __init__(self) -> None:
        self.values: dict[tuple[str, int], float] = {}

    def add_scalar(self, tag: str, value: Any, step: int) -> None:
        self.values[tag, step] = float(value)

    def add_hparams(self, *args: Any) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize("wanted", [True, False])
def test_groups_of_each_epoch(small_data: Path, in_tmp: Path, caplog: pytest.LogCaptureFixture, wanted: bool) -> None:
    settings = {
        "data_path": str(small_data), "epochs": 2, "embedding_size": 8, "group_metrics": ["mainstream"],
        "metrics": ["NDCG"], "epoch_groups": wanted, "show_progress": False,
    }  # fmt: skip
    trainer, (train, valid, _) = new_trainer(FairConfig("BPR", "small", config_dict=settings))
    trainer.tensorboard = writer = Writer()
    with caplog.at_level(logging.INFO):
        trainer.fit(train, valid, saved=False)
    mine = {key: value for key, value in writer.values.items() if key[0].startswith("Valid_by_group")}
    said = [record.getMessage() for record in caplog.records if "ndcg@10 by mainstream" in record.getMessage()]
    assert len(said) == (2 if wanted else 0)
    if not wanted:
        assert not mine
        return
    assert len({tag for tag, _ in mine}) == 5
    assert {step for _, step in mine} == {0, 1}
    trainer.checkpoints.best = None  # the weights of now are those of the last epoch
    last = trainer.evaluate_lists(valid).groups["mainstream"].by_group["ndcg@10"]
    assert [mine[f"Valid_by_group/mainstream/{group}/ndcg@10", 1] for group in last.index] == last.tolist()
    assert said[1].startswith("epoch 1: ndcg@10 by mainstream: low ")
