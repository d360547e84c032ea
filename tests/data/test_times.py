"""Unix timestamps that single precision does not hold apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.facts.interactions import split_interactions
from recbole_fair.data.reading.prepare import load_data

USERS, LENGTH, START = 20, 12, 880_000_000
BY_TIME = {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Users who rate an item a second, in sessions a year apart, the lines of the file in random order."""
    rng = np.random.default_rng(0)
    rows = [
        (f"u{u}", f"i{item}", START + 31_000_000 * (u % 3) + 40 * u + place)
        for u in range(USERS)
        for place, item in enumerate(rng.permutation(30)[:LENGTH])
    ]
    (tmp_path / "clock").mkdir()
    lines = [f"{user}\t{item}\t{time}" for user, item, time in (rows[i] for i in rng.permutation(len(rows)))]
    text = "\n".join(["user_id:token\titem_id:token\ttimestamp:float", *lines]) + "\n"
    (tmp_path / "clock" / "clock.inter").write_text(text)
    return tmp_path


def loaded(folder: Path, model: str, **changes: Any) -> tuple[Any, ...]:
    settings = {
        "data_path": str(folder),
        "user_inter_num_interval": "[0,inf)",
        "item_inter_num_interval": "[0,inf)",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "state": "error",
        **changes,
    }
    return load_data(FairConfig(model, "clock", config_dict=settings))


def true_histories(folder: Path) -> dict[str, list[str]]:
    """Items of each user in the order of the file's own times."""
    rows = [line.split("\t") for line in (folder / "clock" / "clock.inter").read_text().splitlines()[1:]]
    found: dict[str, list[str]] = {}
    for user, item, _ in sorted(rows, key=lambda row: int(row[2])):
        found.setdefault(user, []).append(item)
    return found


@pytest.mark.parametrize(
    ("model", "changes"), [("SASRec", {}), ("BPR", BY_TIME), ("BPR", {**BY_TIME, "normalize_all": True})]
)
def test_order_is_that_of_the_file(model: str, changes: dict[str, Any], folder: Path, in_tmp: Path):
    loaders = loaded(folder, model, **changes)
    found: dict[str, list[str]] = {f"u{u}": [] for u in range(USERS)}
    for loader in loaders:
        data = loader._dataset
        inter = split_interactions(data)
        for user, item in zip(inter.user, inter.item, strict=True):
            name = str(data.id2token("user_id", [user])[0])
            found[name].append(str(data.id2token("item_id", [item])[0]))
    assert found == true_histories(folder)


def test_times_are_counted_from_the_first_interaction(folder: Path, in_tmp: Path):
    train = loaded(folder, "BPR", eval_args={"split": {"RS": [8, 1, 1]}, "order": "RO", "mode": "full"})[0]
    times = split_interactions(train._dataset).time
    assert times is not None
    assert 0 <= times.min() < times.max() < 3 * 31_000_000
    assert len(np.unique(times)) > 0.5 * len(times)  # float32 of the Unix times would leave one in 64


def test_times_that_fit_are_left_alone(folder: Path, in_tmp: Path):
    file = folder / "clock" / "clock.inter"
    head, *rows = file.read_text().splitlines()
    file.write_text(
        "\n".join([head, *(f"{u}\t{i}\t{k + 5}" for k, (u, i, _) in enumerate(r.split("\t") for r in rows))])
    )
    train = loaded(folder, "BPR", eval_args={"split": {"RS": [8, 1, 1]}, "order": "RO", "mode": "full"})[0]
    times = np.asarray(train._dataset.inter_feat["timestamp"])
    assert {5.0, 6.0, 7.0} & set(times.tolist())
    assert times.min() >= 5
