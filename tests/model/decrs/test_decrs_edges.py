"""DecRS at its edges: evaluation by value, changed files, clipping, labelled rows, large seeds, rows in order."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy
import torch
from sklearn.metrics import log_loss, roc_auc_score

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.batches.pairs import JoinedBatches, PairLoader
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import load_checkpoint, save_checkpoint
from recbole_fair.model.decrs.decrs import _digests, part_seed
from recbole_fair.quick_start import evaluate_checkpoint, load_data_and_model, run_recbole_fair
from recbole_fair.runs.loading import new_trainer
from recbole_fair.trainer.decrs_trainer import PartTrainer
from tests.conftest import write_atomic

OPTIONS: dict[str, Any] = {
    "epochs": 2,
    "stopping_step": 5,
    "train_batch_size": 64,
    "embedding_size": 8,
    "learning_rate": 0.1,
    "topk": [5, 10],
    "show_progress": False,
    "segment_head_share": 0.3,
    "group_metrics": None,
}
# Labels from ratings, nothing sampled.
LABELLED: dict[str, Any] = {
    "train_neg_sample_args": None,
    "threshold": {"rating": 3},
    "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]},
}
BY_VALUE: dict[str, Any] = {
    **LABELLED,
    "metrics": ["AUC", "LogLoss", "RMSE", "MAE"],
    "valid_metric": "LogLoss",
    "eval_args": {"split": {"RS": [0.7, 0.15, 0.15]}, "order": "RO", "group_by": "user", "mode": "labeled"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data set ``small`` and room for runs."""
    return write_atomic(tmp_path_factory.mktemp("edges"), "small", lengths=(6, 31))


def settings_of(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"data_path": str(folder), "checkpoint_dir": str(folder / "saved"), **OPTIONS, **changes}


def finished(folder: Path, **changes: Any) -> dict[str, Any]:
    return run_recbole_fair("DecFM", "small", config_dict=settings_of(folder, **changes))


def prepared(folder: Path, **changes: Any) -> tuple[Any, tuple[Any, Any, Any]]:
    return new_trainer(FairConfig("DecFM", "small", config_dict=settings_of(folder, **changes)))


# -- evaluation by value -----------------------------------------------------------------------------------------------


def test_value_metrics_are_those_of_the_probabilities(folder, in_tmp):
    result = finished(folder, **BY_VALUE, fusion_control=True)
    _, net, *_, test = load_data_and_model(result["checkpoint"])
    batches = [batch[0] for batch in test]
    users, items, labels = (torch.cat([b[name] for b in batches]) for name in ("user_id", "item_id", "label"))
    with torch.no_grad():
        logits = {name: machine(users, items).double() for name, machine in net.parts.items()}
    weight = net.fusion_weights(users).double()
    for name, other in (("fused", "deconfounded"), ("control", "backbone2")):
        mixed = weight * logits[other].sigmoid() + (1 - weight) * logits["backbone"].sigmoid()  # Eq. 11
        logits[name] = mixed.logit()
    assert set(logits) == set(result["variants"])
    for name, found in result["variants"].items():
        probability = logits[name].sigmoid().numpy()
        assert found["logloss"] == pytest.approx(log_loss(labels, probability, labels=[0, 1]), rel=1e-4)
        assert found["rmse"] == pytest.approx(float(np.sqrt(((probability - labels.numpy()) ** 2).mean())), rel=1e-4)
        assert found["mae"] == pytest.approx(float(np.abs(probability - labels.numpy()).mean()), rel=1e-4)
        assert found["auc"] == pytest.approx(roc_auc_score(labels, logits[name]), abs=1e-3)


def test_probabilities_of_large_logits_are_told_apart(folder, in_tmp):
    trainer, (_, _, test) = prepared(folder, **BY_VALUE, mediator="none")
    net, pairs = trainer.model.eval(), next(iter(test))[0]
    with torch.no_grad():
        for sign in (1, -1):
            net.parts["backbone"].bias.fill_(sign * 20.0)
            spread = torch.linspace(-1, 1, net.parts["backbone"].linear.numel())
            net.parts["backbone"].linear.copy_(spread)
            logits = net.parts["backbone"](pairs["user_id"], pairs["item_id"])
            found = net.predict(pairs)
            assert torch.equal(found.unique(return_inverse=True)[1], logits.unique(return_inverse=True)[1])


@pytest.mark.parametrize("mode", ["full", "uni10"])
def test_rankings_are_made_of_logits(mode, folder, in_tmp):
    order = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": "user", "mode": mode}
    trainer, (train, *_) = prepared(folder, metrics=["Recall"], eval_args=order, mediator="none")
    net, pairs = trainer.model.eval(), next(iter(train))
    with torch.no_grad():
        logits = net.parts["backbone"](pairs["user_id"], pairs["item_id"])
    assert torch.equal(net.predict(pairs), logits)


# -- values of the features --------------------------------------------------------------------------------------------


def swap_genres(folder: Path) -> None:
    file = folder / "small" / "small.item"
    rows = [line.split("\t") for line in file.read_text().splitlines()]
    for row in rows[21:]:
        row[2] = "C" if row[2] == "A" else "A"
    file.write_text("\n".join(map("\t".join, rows)) + "\n")


def rename_a_genre(folder: Path) -> None:
    file = folder / "small" / "small.item"
    file.write_text(file.read_text().replace("\tC", "\tD"))


def swap_genders(folder: Path) -> None:
    file = folder / "small" / "small.user"
    rows = [line.split("\t") for line in file.read_text().splitlines()]
    rows[3][1], rows[4][1] = rows[4][1], rows[3][1]
    file.write_text("\n".join(map("\t".join, rows)) + "\n")


@pytest.mark.parametrize(
    ("change", "settings", "says"),
    [
        (swap_genres, {}, r"other values of item_features \(item_id, genre\) and group_field=genre: leave the files"),
        (swap_genres, {"unawareness": True}, "other values of group_field=genre: leave the files"),
        (rename_a_genre, {"unawareness": True}, "other values of group_field=genre: leave the files"),
        (swap_genders, {}, r"other values of user_features \(user_id, gender\): leave the files"),
    ],
)
def test_a_checkpoint_of_other_feature_values_is_refused(
    change: Callable[[Path], None], settings: dict[str, Any], says: str, tmp_path, in_tmp
):
    write_atomic(tmp_path, "small", lengths=(6, 31))
    rows = ["user_id:token\tgender:token", *(f"u{u}\t{'FM'[u % 2]}" for u in range(60))]
    (tmp_path / "small" / "small.user").write_text("\n".join(rows) + "\n")
    result = finished(tmp_path, epochs=1, **settings)
    assert evaluate_checkpoint(result["checkpoint"])["variants"] == result["variants"]
    change(tmp_path)
    with pytest.raises(FairError, match=says):
        evaluate_checkpoint(result["checkpoint"])
    save_checkpoint("stopped.pth", {**load_checkpoint(result["checkpoint"]), "part": "deconfounded"})
    for file in (result["checkpoint"], "stopped.pth"):  # before anything is trained
        trainer, _ = prepared(tmp_path, epochs=1, **settings)
        with pytest.raises(FairError, match=says):
            trainer.resume_checkpoint(file)


def test_a_checkpoint_without_digests_is_accepted(folder, in_tmp):
    result = finished(folder, epochs=1)
    content = load_checkpoint(result["checkpoint"])
    for state in (content, content["training"]):
        del state["other_parameter"]["features"]["digests"], state["other_parameter"]["drift_has_validation"]
    save_checkpoint("older.pth", content)
    assert evaluate_checkpoint("older.pth")["variants"] == result["variants"]
    assert finished(folder, epochs=1, resume="older.pth")["variants"] == result["variants"]


def test_digests_do_not_depend_on_the_types_of_the_machine(folder, in_tmp, monkeypatch):
    given: list[Any] = []

    def noted(*args: Any) -> dict[str, str]:
        given.append(args)
        return _digests(*args)

    monkeypatch.setattr("recbole_fair.model.decrs.decrs._digests", noted)
    digests = prepared(folder)[0].model.features["digests"]
    features, groups = given[0]
    assert set(digests) == {"users", "items", "groups"}
    assert digests == _digests(features, groups)
    other = copy.deepcopy(groups)
    other.matrix.indices = other.matrix.indices.astype(np.int64)
    other.matrix.indptr = other.matrix.indptr.astype(np.int64)
    if tuple(map(int, scipy.__version__.split(".")[:2])) < (
        1,
        14,
    ):  # later ones hold no other byte order
        other.matrix.data = other.matrix.data.astype(">f4")
    assert _digests(features, other) == digests
    other.matrix.data[0] += 0.25
    assert _digests(features, other)["groups"] != digests["groups"]


# -- training ----------------------------------------------------------------------------------------------------------


class InterruptedRunError(Exception):
    """Stands for a machine that is switched off."""


def test_clipping_does_not_count_gradients_of_an_earlier_part(folder, in_tmp, monkeypatch):
    clipped = {"clip_grad_norm": {"max_norm": 2.0}, "epochs": 2}
    whole = finished(folder, **clipped)
    assert whole["variants"] != finished(folder, epochs=2)["variants"]  # it does clip
    trainer, (train, valid, _) = prepared(folder, **clipped)
    trainer.saved_model_file = str(in_tmp / "stopped.pth")
    write = PartTrainer._write_checkpoint

    def stop(self: PartTrainer, at: int, path: str | None = None) -> None:
        write(self, at, path)
        if (self.part, at) == ("backbone", 1):  # the last epoch of the first part
            raise InterruptedRunError

    monkeypatch.setattr(PartTrainer, "_write_checkpoint", stop)
    with pytest.raises(InterruptedRunError):
        trainer.fit(train, valid)
    monkeypatch.undo()
    resumed = finished(folder, **clipped, resume=str(in_tmp / "stopped.pth"))
    assert resumed["variants"] == whole["variants"]
    states = [load_checkpoint(result["checkpoint"])["state_dict"] for result in (whole, resumed)]
    assert all(torch.equal(value.nan_to_num(-1), states[1][name].nan_to_num(-1)) for name, value in states[0].items())


def test_drift_from_validation_is_said_beside_the_results(folder, in_tmp):
    found = finished(folder, drift_history="train_valid", fusion_control=True, epochs=1)
    notes = [note for note in found["notes"] if note.startswith("drift_history=train_valid")]
    assert len(notes) == 1
    assert "validation results of fused and control are not clean" in notes[0]
    assert evaluate_checkpoint(found["checkpoint"])["notes"] == found["notes"]
    for clean in (
        finished(folder, epochs=1),
        finished(folder, drift_history="train_valid", mediator="none", epochs=1),
        finished(folder, drift_history="train_valid", epochs=1, eval_args={"split": {"RS": [0.8, 0.0, 0.2]}}),
    ):
        assert not [note for note in clean["notes"] if "drift_history" in note]
        assert evaluate_checkpoint(clean["checkpoint"])["notes"] == clean["notes"]


def test_a_single_labelled_row_left_over_joins_the_batch_before_it(folder, in_tmp):
    _, (train, *_) = prepared(folder, **LABELLED)
    n = len(train._dataset)
    for size, lengths in ((n - 1, [n]), ((n - 1) // 2, None), (n, [n]), (n - 2, [n - 2, 2])):
        trainer, (train, valid, _) = prepared(folder, **LABELLED, train_batch_size=size)
        assert not isinstance(train, PairLoader)
        assert isinstance(train, JoinedBatches)
        batches = list(train)
        assert len(train) == len(batches)
        found = [len(batch) for batch in batches]
        assert sum(found) == n
        assert min(found) > 1
        assert lengths is None or found == lengths
        rows = [row for b in batches for row in zip(b["user_id"].tolist(), b["item_id"].tolist(), strict=True)]
        assert len(set(rows)) == n
        trainer.fit(train, valid)
    with pytest.raises(FairError, match="train_batch_size=1 is too small: DecFM"):
        finished(folder, **LABELLED, train_batch_size=1)


def test_part_seeds_stay_within_what_numpy_takes(folder, in_tmp):
    for seed in (0, 1, 2020, 2**32 - 2_000_007):
        seeds = [part_seed({"seed": seed}, name) for name in ("backbone", "deconfounded", "backbone2")]
        assert seeds == [seed, seed + 1_000_003, seed + 2_000_006]
    result = finished(folder, seed=2**32 - 1, fusion_control=True, epochs=1)
    assert len(result["variants"]) == 5


@pytest.mark.parametrize("n_negatives", [1, 3])
def test_rows_in_order_have_the_negatives_behind_their_positive(n_negatives, folder, in_tmp):
    sampling = {"distribution": "uniform", "sample_num": n_negatives}
    _, (train, *_) = prepared(folder, shuffle=False, train_neg_sample_args=sampling)
    assert isinstance(train, PairLoader)
    width = 1 + n_negatives
    users, items, labels = (torch.cat([b[name] for b in train]).numpy() for name in ("user_id", "item_id", "label"))
    assert np.array_equal(users, np.repeat(train.users, width))
    assert np.array_equal(items[::width], train.items)
    assert np.array_equal(labels, np.tile([1, *[0] * n_negatives], len(train.users)))
    met = set(zip(train.users.tolist(), train.items.tolist(), strict=True))
    drawn = labels == 0
    assert not met & set(zip(users[drawn].tolist(), items[drawn].tolist(), strict=True))
