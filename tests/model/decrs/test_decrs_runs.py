"""DecRS from the entry points: runs, checkpoints, resumption, strengths, control, data that it cannot use."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.batches.pairs import PairLoader
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import load_checkpoint
from recbole_fair.quick_start import evaluate_checkpoint, load_data_and_model, run_recbole_fair
from recbole_fair.runs.loading import new_trainer
from recbole_fair.runs.sweep import sweep_checkpoint
from recbole_fair.trainer.decrs_trainer import PartTrainer
from tests.conftest import write_atomic

OPTIONS: dict[str, Any] = {
    "epochs": 3,
    "stopping_step": 5,
    "train_batch_size": 64,
    "embedding_size": 8,
    "mlp_hidden_size": [8],
    "learning_rate": 0.1,
    "topk": [5, 10],
    "valid_metric": "Recall@5",
    "show_progress": False,
    "segment_head_share": 0.3,
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": "user", "mode": "full"},
}
VARIANTS = ["backbone", "deconfounded", "fused", "backbone2", "control"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data set ``small`` and room for runs."""
    return write_atomic(tmp_path_factory.mktemp("decrs"), "small", lengths=(6, 31))


@pytest.fixture(scope="module")
def run(folder: Path) -> dict[str, Any]:
    """A finished run with its control."""
    return finished(folder, fusion_control=True)


def settings_of(folder: Path, **changes: Any) -> dict[str, Any]:
    no_mlp = {} if changes.get("model") == "DecNFM" else {"mlp_hidden_size": None}
    options = {k: v for k, v in {**OPTIONS, **no_mlp}.items() if v is not None}
    changes.pop("model", None)
    return {"data_path": str(folder), "checkpoint_dir": str(folder / "saved"), **options, **changes}


def finished(folder: Path, model: str = "DecFM", **changes: Any) -> dict[str, Any]:
    return run_recbole_fair(model, "small", config_dict=settings_of(folder, model=model, **changes))


def state_of(result: dict[str, Any], part: str) -> dict[str, torch.Tensor]:
    state = load_checkpoint(result["checkpoint"])["state_dict"]
    return {name: value for name, value in state.items() if name.startswith(f"parts.{part}.")}


def test_one_run_reports_all_variants_and_the_groups_by_drift(run, in_tmp):
    assert list(run["variants"]) == VARIANTS
    assert run["test_result"] == run["variants"]["fused"]
    assert run["base_test_result"] == run["variants"]["backbone"]
    assert len({values["recall@10"] for values in run["variants"].values()}) > 2
    assert {"recall@5", "ndcg@10", "ckl@10"} <= set(run["test_result"])
    assert list(run["variant_groups"]) == VARIANTS
    assert [row["group"] for row in run["groups"]["drift"]["groups"]] == ["> 0", "> 0.5", "> 1", "> 2", "> 3", "> 4"]
    assert run["groups"] == run["variant_groups"]["fused"]
    assert set(run["parts"]) == {"backbone", "deconfounded", "backbone2"}
    assert set(run["timings"]) >= {"backbone", "deconfounded", "backbone2"}
    assert run["validation"]["fused"]["recall@5"] == pytest.approx(run["best_valid_score"])
    assert set(run["decrs"]["prior"]) == {"A", "B", "C"}
    assert sum(run["decrs"]["prior"].values()) == pytest.approx(1.0)
    assert 0 <= run["decrs"]["drift"]["min"] <= run["decrs"]["drift"]["max"] <= 2 * np.log(100)


def test_each_part_is_trained_as_if_it_were_alone(run, folder, in_tmp):
    alone = finished(folder, mediator="none")
    assert list(alone["variants"]) == ["backbone"]
    assert alone["test_result"] == run["variants"]["backbone"]
    without = finished(folder)
    assert list(without["variants"]) == VARIANTS[:3]
    for name in VARIANTS[:3]:
        assert without["variants"][name] == run["variants"][name]
    ours, theirs = state_of(run, "backbone"), state_of(alone, "backbone")
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    second = state_of(run, "backbone2")
    assert not torch.equal(ours["parts.backbone.embedding"], second["parts.backbone2.embedding"])


def test_checkpoint_scores_the_same_and_takes_other_strengths(run, in_tmp):
    again = evaluate_checkpoint(run["checkpoint"])
    assert again["variants"] == run["variants"]
    assert again["notes"] == run["notes"]
    off = evaluate_checkpoint(run["checkpoint"], {"fusion_alpha": 0})
    assert off["variants"]["fused"] == run["variants"]["deconfounded"]
    assert off["variants"]["control"] == run["variants"]["backbone2"]
    far = evaluate_checkpoint(run["checkpoint"], {"fusion_alpha": 1e6, "inference": "control"})
    assert far["test_result"] == far["variants"]["control"]
    assert far["variants"]["fused"]["recall@10"] == pytest.approx(run["variants"]["backbone"]["recall@10"], abs=0.02)
    assert evaluate_checkpoint(run["checkpoint"], {"inference": "backbone"})["test_result"] == run["base_test_result"]
    for changes, says in (
        ({"mediator": "product"}, "mediator='product' cannot take effect"),
        ({"reg_weight": 3.0}, "reg_weight=3.0 cannot take effect"),
        ({"fusion_alpha": -1}, "at least 0"),
        ({"group_field": "movie_title"}, "group_field=.movie_title. cannot take effect"),
    ):
        with pytest.raises(FairError, match=says):
            evaluate_checkpoint(run["checkpoint"], changes)


def test_mixture_follows_equations_11_and_12_for_each_user(run, in_tmp):
    _, net, *_ = load_data_and_model(run["checkpoint"], {"fusion_alpha": 0.7})
    users = Interaction({"user_id": torch.arange(1, net.n_users)})
    scores = {}
    for name in VARIANTS:
        with net.use_variant(name):
            scores[name] = net.full_sort_predict(users).double().sigmoid()
    drift = net.drift.double()
    eta = (
        (drift - drift.nan_to_num(np.inf).min()) / (drift.nan_to_num(0).max() - drift.nan_to_num(np.inf).min())
    ) ** 0.7
    eta = eta.nan_to_num(0.0)[1:].unsqueeze(1)
    for name, other in (("fused", "deconfounded"), ("control", "backbone2")):
        torch.testing.assert_close(
            scores[name], eta * scores[other] + (1 - eta) * scores["backbone"], atol=1e-6, rtol=1e-5
        )
    least = int(drift.nan_to_num(np.inf).argmin()) - 1
    torch.testing.assert_close(scores["fused"][least], scores["backbone"][least])
    with pytest.raises(FairError, match="not a variant"), net.use_variant("base"):
        pass
    with pytest.raises(FairError, match="not a scoring-time setting"):
        net.set_strengths(mediator="none")
    with pytest.raises(FairError, match="fusion_alpha=nan"):
        net.set_strengths(fusion_alpha=float("nan"))


@pytest.mark.parametrize(("model", "mediator"), [("DecFM", "fm"), ("DecFM", "product"), ("DecNFM", "fm")])
def test_full_ranking_is_predict_on_all_pairs(model, mediator, folder, in_tmp):
    result = finished(folder, model, mediator=mediator, epochs=1, fusion_control=True)
    _, net, *_ = load_data_and_model(result["checkpoint"])
    users, items = torch.arange(1, net.n_users), torch.arange(net.n_items)
    pairs = Interaction({"user_id": users.repeat_interleave(net.n_items), "item_id": items.repeat(len(users))})
    for name in net.variants:
        with net.use_variant(name):
            one_by_one = net.predict(pairs).view(len(users), -1)
            torch.testing.assert_close(
                net.full_sort_predict(Interaction({"user_id": users})), one_by_one, atol=2e-5, rtol=1e-5
            )


def test_sweep_over_alpha_on_validation(run, in_tmp):
    found = sweep_checkpoint(run["checkpoint"], ["fusion_alpha=0,0.5,1"], x="Recall@5", y="CKL@5")
    assert len(found["settings"]) == 3
    assert found["base"]["test"]["recall@5"] == run["base_test_result"]["recall@5"]
    assert found["settings"][0]["test recall@5"] == run["variants"]["deconfounded"]["recall@5"]


class InterruptedRunError(Exception):
    """Stands for a machine that is switched off."""


@pytest.mark.parametrize(("part", "epoch"), [("backbone", 1), ("deconfounded", 0), ("backbone2", 2)])
def test_an_interrupted_run_goes_on_where_it_was(part, epoch, run, folder, in_tmp, monkeypatch):
    config = FairConfig("DecFM", "small", config_dict=settings_of(folder, fusion_control=True))
    trainer, (train, valid, _) = new_trainer(config)
    trainer.saved_model_file = str(in_tmp / "stopped.pth")
    write = PartTrainer._write_checkpoint

    def stop(self: PartTrainer, at: int, path: str | None = None) -> None:
        write(self, at, path)
        if self.part == part and at == epoch:
            raise InterruptedRunError

    monkeypatch.setattr(PartTrainer, "_write_checkpoint", stop)
    with pytest.raises(InterruptedRunError):
        trainer.fit(train, valid)
    monkeypatch.undo()
    stopped = str(in_tmp / "stopped.pth")
    if part == "deconfounded":
        with pytest.raises(FairError, match="deconfounded has not been trained; resume"):
            evaluate_checkpoint(stopped)
    result = finished(folder, fusion_control=True, resume=stopped)
    assert result["variants"] == run["variants"]
    assert result["checkpoint"] == stopped
    assert result["parts"] == run["parts"]
    if part == "backbone":
        once_more = finished(folder, fusion_control=True, resume=stopped)  # nothing is left to do
        assert once_more["variants"] == run["variants"]


def test_without_validation_the_last_epoch_stands(folder, in_tmp):
    split = {**OPTIONS["eval_args"], "split": {"RS": [0.8, 0.0, 0.2]}}
    result = finished(folder, eval_args=split, epochs=2)
    assert result["best_valid_result"] is None
    assert evaluate_checkpoint(result["checkpoint"])["variants"] == result["variants"]
    unsaved = run_recbole_fair(
        "DecFM", "small", config_dict=settings_of(folder, epochs=2, eval_args=split), saved=False
    )
    assert unsaved["variants"] == result["variants"]
    with pytest.raises(FairError, match="without sampled items"):
        finished(folder, train_neg_sample_args=None, epochs=1)


def test_a_foreign_checkpoint_is_not_gone_on_with(run, folder, in_tmp):
    with pytest.raises(FairError, match="is a checkpoint of DecFM, not DecNFM"):
        finished(folder, "DecNFM", resume=run["checkpoint"])
    with pytest.raises(FairError, match="other data or another split"):
        finished(folder, fusion_control=True, resume=run["checkpoint"], eval_args={"order": "RO", "mode": "full"})


def test_adagrad_starts_as_coded_with_decrs(folder, in_tmp):
    trainer, _ = new_trainer(FairConfig("DecFM", "small", config_dict=settings_of(folder)))
    part = PartTrainer(trainer.config, trainer.model, "deconfounded")
    parameters = dict(trainer.model.parts["deconfounded"].named_parameters())
    assert {id(p) for group in part.optimizer.param_groups for p in group["params"]} == set(
        map(id, parameters.values())
    )
    assert "groups" in parameters
    for state in part.optimizer.state.values():
        assert torch.equal(state["sum"], torch.full_like(state["sum"], 1e-8))
    other = FairConfig("DecFM", "small", config_dict=settings_of(folder, learner="adam"))
    assert isinstance(PartTrainer(other, trainer.model, "backbone").optimizer, torch.optim.Adam)


def test_initial_weights(folder, in_tmp):
    settings = settings_of(folder, embedding_size=64, fusion_control=True)
    nets = [
        new_trainer(FairConfig("DecFM", "small", config_dict={**settings, "group_init_std": std}))[0].model.parts
        for std in (0.01, 1.0)
    ]
    for parts, std in zip(nets, (0.01, 1.0), strict=True):
        assert parts["deconfounded"].groups.std().item() == pytest.approx(std, rel=0.2)
        assert parts["deconfounded"].embedding[1:].std().item() == pytest.approx(0.01, rel=0.1)
        assert not parts["backbone"].linear.any()
    assert torch.equal(nets[0]["backbone"].embedding, nets[1]["backbone"].embedding)
    assert not torch.equal(nets[0]["backbone"].embedding, nets[0]["backbone2"].embedding)


def test_training_learns(folder, in_tmp):
    untrained = finished(folder, mediator="none", epochs=1, learning_rate=1e-9)
    trained = finished(folder, mediator="none", epochs=20)
    assert trained["test_result"]["recall@10"] > 1.15 * untrained["test_result"]["recall@10"]


def test_plain_machine_with_its_control(folder, in_tmp):
    result = finished(folder, mediator="none", fusion_control=True, inference="control", epochs=1)
    assert list(result["variants"]) == ["backbone", "backbone2", "control"]
    assert result["test_result"] == result["variants"]["control"]
    for changes in ({"mediator": "none", "inference": "fused"}, {"inference": "control"}):
        with pytest.raises(FairError, match=f"inference='{changes['inference']}' is not possible"):
            finished(folder, **changes)


def test_drift_from_validation_as_well(folder, in_tmp):
    results = {history: finished(folder, drift_history=history, epochs=1) for history in ("train", "train_valid")}
    for result in results.values():
        assert evaluate_checkpoint(result["checkpoint"])["variants"] == result["variants"]
    drifts = [load_checkpoint(result["checkpoint"])["state_dict"]["drift"] for result in results.values()]
    assert not torch.equal(drifts[0].nan_to_num(-1), drifts[1].nan_to_num(-1))
    assert results["train_valid"]["decrs"]["drift"]["history"] == "train_valid"
    assert results["train"]["variants"]["backbone"] == results["train_valid"]["variants"]["backbone"]


def test_rerankers_run_on_the_variant_of_choice(run, in_tmp):
    changes = {"inference": "backbone", "reranker": "Calibration", "reranker_lambda": 0.3, "reranker_candidates": 20}
    result = evaluate_checkpoint(run["checkpoint"], changes)
    assert result["base_test_result"] == run["base_test_result"]
    assert result["test_result"]["ckl@10"] < run["base_test_result"]["ckl@10"]


def test_other_sampling_goes_through_recboles_loader(folder, in_tmp):
    sampling = {"distribution": "popularity", "sample_num": 2, "alpha": 1.0, "dynamic": False, "candidate_num": 0}
    config = FairConfig("DecFM", "small", config_dict=settings_of(folder, train_neg_sample_args=sampling, epochs=1))
    trainer, (train, valid, _) = new_trainer(config)
    assert not isinstance(train, PairLoader)
    trainer.fit(train, valid)
    sampled = settings_of(folder, epochs=1, metrics=["Recall"], group_metrics=None)
    sampled["eval_args"] = {**sampled["eval_args"], "mode": "uni10"}
    assert 0 < run_recbole_fair("DecFM", "small", config_dict=sampled)["test_result"]["recall@10"] <= 1


# -- data that it cannot use -------------------------------------------------------------------------------------------


def test_data_without_timestamps(folder, tmp_path, in_tmp):
    shutil.copytree(folder / "small", tmp_path / "small")
    file = tmp_path / "small" / "small.inter"
    lines = [line.rsplit("\t", 1)[0] for line in file.read_text().splitlines()]
    file.write_text("\n".join(lines) + "\n")
    random = {"eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "mode": "full"}, "epochs": 1}
    with pytest.raises(FairError, match="no column 'timestamp' and DecFM reads histories in time"):
        finished(tmp_path, **random)
    with pytest.raises(FairError, match="no column 'timestamp' and the table by interest drift needs it"):
        finished(tmp_path, mediator="none", **random)
    plain = finished(tmp_path, mediator="none", group_metrics=None, **random)
    assert list(plain["variants"]) == ["backbone"]


def test_table_by_drift_of_a_plain_machine_loads_the_timestamps(folder, in_tmp):
    random = {"eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "mode": "full"}, "epochs": 1}
    plain = finished(folder, mediator="none", group_field="genre", **random)
    assert plain["groups"]["drift"]["groups"][0]["size"] > 0


def test_data_without_item_groups(folder, tmp_path, in_tmp):
    shutil.copytree(folder / "small", tmp_path / "small")
    (tmp_path / "small" / "small.item").unlink()
    with pytest.raises(FairError, match="group_field needs the column 'genre' of the items, but there is no file"):
        finished(tmp_path)
    plain = finished(tmp_path, mediator="none", unawareness=True, metrics=["Recall"], group_metrics=None, epochs=1)
    assert plain["decrs"]["features"]["items"] == ["item_id"]


def test_users_of_one_interaction(tmp_path, in_tmp):
    write_atomic(tmp_path / "all", "small", lengths=(3, 4))
    with pytest.raises(FairError, match="No user has two training interactions"):
        finished(tmp_path / "all", group_metrics=None)
    write_atomic(tmp_path / "some", "small", lengths=(3, 9))
    result = finished(tmp_path / "some", epochs=1)
    notes = [note for note in result["notes"] if "interest drift" in note]
    assert len(notes) == 1
    assert "60 users have no known interest drift (fewer than two training interactions" in notes[0]
    unknown = int(notes[0].split()[0])
    assert unknown == result["decrs"]["drift"]["unknown"] > 5


def test_defaults_and_the_papers_preset():
    config = FairConfig("DecFM", "ml-1m")
    assert (config["mediator"], config["inference"], config["group_field"]) == ("fm", "fused", "genre")
    assert (config["learner"], config["learning_rate"], config["train_batch_size"]) == ("adagrad", 0.05, 1024)
    config = FairConfig("DecNFM", "ml-100k", config_dict={"group_field": "class"})
    assert (config["mlp_hidden_size"], config["group_field"]) == ([64], "class")
    config = FairConfig("DecFM", "ml-1m", ["paper/decrs-ml-1m.yaml"])
    assert config["val_interval"] == {"rating": "[4,inf)"}
    assert (config["mask_seen"], config["eval_args"]["order"]) == ("train", "TO")
