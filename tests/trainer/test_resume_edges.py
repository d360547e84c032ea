"""Resuming, keeping and finding trained models where RecBole's loop leaves the beaten track."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import load_checkpoint, save_checkpoint
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair
from recbole_fair.runs.compare import compare
from recbole_fair.runs.loading import new_trainer
from recbole_fair.trainer.checkpoints import CheckpointWriter, ModelState
from recbole_fair.trainer.posthoc_trainer import finished
from recbole_fair.trainer.resumption import epochs_that_count
from recbole_fair.trainer.trainer import FairTrainerMixin

Run = Callable[..., dict[str, Any]]
EXPERTS = {"n_experts": 3, "latent_dimension": 4}
SMALL_SASREC = {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "MAX_ITEM_LIST_LENGTH": 30}
LAST_OUT = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"}
TEST_ONLY = {"split": {"LS": "test_only"}, "order": "RO", "mode": "full"}


class StoppedError(KeyboardInterrupt):
    pass


@pytest.fixture
def settings(small_data: Path, in_tmp: Path) -> dict[str, Any]:
    return {
        "data_path": str(small_data),
        "epochs": 2,
        "train_batch_size": 64,
        "embedding_size": 8,
        "learning_rate": 0.01,
        "topk": [5],
        "valid_metric": "NDCG@5",
        "metrics": ["NDCG"],
        "show_progress": False,
    }


@pytest.fixture
def run(settings: dict[str, Any]) -> Run:
    def call(model: str, saved: bool = True, dataset: str = "small", **changes: Any) -> dict[str, Any]:
        known = FairConfig(model, "small").internal_config_dict
        kept = {key: value for key, value in settings.items() if key != "embedding_size" or key in known}
        return run_recbole_fair(model, dataset, config_dict={**kept, **changes}, saved=saved)

    return call


def stop_before(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Interrupt the training as the given epoch is to begin."""
    original = FairTrainerMixin._train_epoch

    def train(self: Any, train_data: Any, epoch_idx: int, *args: Any, **kwargs: Any) -> Any:
        if epoch_idx == epoch:
            raise StoppedError
        return original(self, train_data, epoch_idx, *args, **kwargs)

    monkeypatch.setattr(FairTrainerMixin, "_train_epoch", train)


# -- resuming ------------------------------------------------------------------------------------------------------


def test_resuming_with_other_sizes_is_one_sentence(run: Run) -> None:
    path = run("BPR")["checkpoint"]
    with pytest.raises(FairError, match=r"resume=.* does not fit the settings: size mismatch") as caught:
        run("BPR", epochs=4, embedding_size=16, resume=path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("learner", ["sgd", "adagrad"])
def test_resuming_with_another_learner_is_one_sentence(run: Run, learner: str) -> None:
    path = run("BPR")["checkpoint"]
    with pytest.raises(FairError, match=f"learner={learner} cannot go on from resume=.* trained with learner=adam"):
        run("BPR", epochs=4, learner=learner, resume=path)


def interrupted_and_resumed(run: Run, monkeypatch: pytest.MonkeyPatch, model: str, **changes: Any) -> dict[str, Any]:
    """Checkpoint of a run that was stopped half-way and taken up again, after it was seen to equal a whole run's."""
    whole = run(model, epochs=4, checkpoint_dir="whole", **changes)
    with monkeypatch.context() as patch:
        stop_before(patch, 2)
        with pytest.raises(StoppedError):
            run(model, epochs=4, **changes)
    (path,) = Path("saved").glob("*.pth")
    torch.rand(7)
    resumed = run(model, epochs=4, resume=str(path), **changes)
    assert resumed["test_result"] == whole["test_result"]
    a, b = load_checkpoint(path), load_checkpoint(whole["checkpoint"])
    for state in ("best", "latest"):
        mine, theirs = (
            content["state_dict"] if state == "best" else content["training"]["state_dict"] or content["state_dict"]
            for content in (a, b)
        )
        assert all(torch.equal(mine[name], value) for name, value in theirs.items()), state
    return a


def test_recvae_with_its_two_optimizers_is_resumed_exactly(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    resumed = interrupted_and_resumed(run, monkeypatch, "RecVAE")
    assert resumed["training"]["optimizer_in_use"] == "optimizer_decoder"
    for key, value in {"learning_rate_schedule": "linear", "learning_rate_warmup": 1.0}.items():
        with pytest.raises(FairError, match=f"{key}=.* is not possible with RecVAE, which has several optimizers"):
            run("RecVAE", **{key: value})


@pytest.mark.parametrize(
    ("model", "changes"),
    [("MultiVAE", {"total_anneal_steps": 20}), ("DiffRec", {"reweight": True, "noise_scale": 0.1, "steps": 5})],
)
def test_what_models_keep_beside_their_weights_is_resumed(
    model: str, changes: dict[str, Any], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert interrupted_and_resumed(run, monkeypatch, model, **changes)["training"]["progress"]


@pytest.mark.parametrize("model", ["CKE", "KGCN"])
def test_the_loaders_within_a_loader_are_resumed(
    model: str, run: Run, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data" / "linked"
    folder.mkdir(parents=True)
    (folder / "linked.inter").write_text((small_data / "small" / "small.inter").read_text())
    facts = [f"e{item}\tr{item % 3}\te{(7 * item + 1) % 40}" for item in range(40)]
    (folder / "linked.kg").write_text("\n".join(["head_id:token\trelation_id:token\ttail_id:token", *facts]) + "\n")
    links = [f"i{item}\te{item}" for item in range(40)]
    (folder / "linked.link").write_text("\n".join(["item_id:token\tentity_id:token", *links]) + "\n")
    changes = {"dataset": "linked", "data_path": str(tmp_path / "data"), "kg_embedding_size": 8}
    if model == "KGCN":
        changes.pop("kg_embedding_size")
    interrupted_and_resumed(run, monkeypatch, model, **changes)


def test_a_comparison_trains_recvae_anew_where_the_file_lacks_its_optimizers(
    run: Run, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run("RecVAE")["checkpoint"]
    content = load_checkpoint(path)
    del content["training"]["optimizers"], content["training"]["optimizer_in_use"]
    save_checkpoint(path, content)
    with pytest.raises(FairError, match="does not hold the states of optimizer_decoder, optimizer_encoder"):
        run("RecVAE", epochs=4, resume=path)
    changes = {key: value for key, value in settings.items() if key != "embedding_size"}
    with monkeypatch.context() as patch:
        stop_before(patch, 1)
        with pytest.raises(StoppedError):
            compare_recvae(changes)
    (path,) = Path("study").rglob("RecVAE-*.pth")
    content = load_checkpoint(path)
    del content["training"]["optimizers"]
    save_checkpoint(path, content)
    assert not compare_recvae(changes)["failed"]


def compare_recvae(settings: dict[str, Any]) -> dict[str, Any]:
    return compare(["RecVAE", "Pop"], dataset="small", seeds=[1], spread="none", output="study", config_dict=settings)


def test_tall_goes_on_within_the_gap_after_a_worse_epoch(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    del settings["embedding_size"]
    settings |= {**EXPERTS, "stopping_step": 0, "gap": 3, "epochs": 8}
    scores = iter(range(100, 0, -1))  # every epoch is worse than the one before
    monkeypatch.setattr(FairTrainerMixin, "_valid_epoch", lambda *_: (next(scores), {"ndcg@5": 0.5}))

    def trained(resume: str | None = None, stop_after: int | None = None) -> tuple[Any, list[int]]:
        def stop(epoch: int, score: float) -> None:
            if epoch == stop_after:
                raise StoppedError

        trainer, loaders = new_trainer(FairConfig("TALL", "small", config_dict=settings))
        if resume is not None:
            trainer.resume_checkpoint(resume)
        with nullcontext() if stop_after is None else pytest.raises(StoppedError):
            trainer.fit(*loaders[:2], callback_fn=stop)
        return trainer, sorted(trainer.train_loss_dict)

    whole, epochs = trained()
    assert epochs == [0, 1, 2, 3], "patience runs from the gap on"
    stopped, _ = trained(stop_after=1)
    assert stopped.cur_step == 1
    assert trained(resume=stopped.saved_model_file)[1] == [2, 3]
    assert trained(resume=whole.saved_model_file)[1] == []


# -- nothing validated, nothing saved ------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"eval_args": TEST_ONLY}, {"eval_step": 0}])
@pytest.mark.parametrize(("model", "own"), [("BPR", {}), ("DecFM", {"group_field": "genre"}), ("TALL", EXPERTS)])
def test_without_validation_and_file_the_last_epoch_is_tested(
    run: Run, model: str, own: dict[str, Any], changes: dict[str, Any]
) -> None:
    kept = run(model, saved=False, **own, **changes)
    assert kept["checkpoint"] is None
    assert not Path("saved").exists() or not list(Path("saved").iterdir())
    assert kept["test_result"] == run(model, **own, **changes)["test_result"]


def test_the_state_of_an_epoch_is_copied_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    copies, state = [], CheckpointWriter.snapshot

    def counted(self: CheckpointWriter) -> ModelState:
        copies.append(self.best is None)
        return state(self)

    monkeypatch.setattr(CheckpointWriter, "snapshot", counted)
    run("BPR", epochs=3, learning_rate=0.05)
    assert len(copies) == 3
    assert copies[0]


# -- pre-training --------------------------------------------------------------------------------------------------


STAGES = """
import json, sys
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair
settings = json.loads(sys.argv[1])
found = {}
for stage, before in (("actor_pretrain", None), ("critic_pretrain", "actor_pretrain"), ("finetune", "critic_pretrain")):
    changes = {"train_stage": stage, "checkpoint_dir": stage}
    if before:
        changes["pre_model_path"] = found[before]["checkpoint"]
    found[stage] = run_recbole_fair("RaCT", "small", config_dict={**settings, **changes})
found["again"] = evaluate_checkpoint(found["finetune"]["checkpoint"])
found["unsaved"] = run_recbole_fair("RaCT", "small", config_dict={**settings, "checkpoint_dir": "none"}, saved=False)
keys = ("test_result", "checkpoint", "notes")
print(json.dumps({name: {key: run[key] for key in keys} for name, run in found.items()}))
"""


def test_ract_goes_through_its_three_stages(settings: dict[str, Any]) -> None:
    del settings["embedding_size"]
    settings |= {
        "pretrain_epochs": 3,
        "save_step": 2,
        "mlp_hidden_size": [8],
        "latent_dimension": 4,
        "metrics_k": 10,
        "state": "info",
    }
    # A process of its own: pytest's log handler raises what RecBole's slip in a log call only prints elsewhere.
    command = [sys.executable, "-c", STAGES, json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Logging error" not in done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for stage in ("actor_pretrain", "critic_pretrain"):
        names = sorted(path.name for path in Path(stage).iterdir())
        assert names == ["RaCT-small-2.pth", "RaCT-small-3.pth"]
        assert found[stage]["checkpoint"] == f"{stage}/RaCT-small-3.pth"
        assert any(f"Only the stage {stage} was trained" in note for note in found[stage]["notes"])
    actor, critic = (load_checkpoint(found[stage]["checkpoint"]) for stage in ("actor_pretrain", "critic_pretrain"))
    moved = [name for name, value in actor["state_dict"].items() if not torch.equal(critic["state_dict"][name], value)]
    assert moved
    assert all(name.startswith("critic_net") for name in moved), "the critic learns on the actor's weights"
    assert found["again"]["test_result"] == found["finetune"]["test_result"]
    assert found["unsaved"]["test_result"] == found["actor_pretrain"]["test_result"]
    assert not list(Path("none").iterdir())


def test_pretraining_is_resumed_and_no_other_stage_goes_on_from_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"pretrain_epochs": 4, "save_step": 2, "mlp_hidden_size": [8], "latent_dimension": 4}
    whole = run("RaCT", checkpoint_dir="whole", **own)
    with monkeypatch.context() as patch:
        stop_before(patch, 3)
        with pytest.raises(StoppedError):
            run("RaCT", **own)
    resumed = run("RaCT", resume="saved/RaCT-small-2.pth", **own)
    assert resumed["test_result"] == whole["test_result"]
    assert resumed["checkpoint"] == "saved/RaCT-small-4.pth"
    content = load_checkpoint(whole["checkpoint"])
    content["config"]["train_stage"] = "critic_pretrain"
    save_checkpoint("other.pth", content)
    with pytest.raises(FairError, match=r"train_stage=actor_pretrain cannot go on from resume=other\.pth"):
        run("RaCT", resume="other.pth", **own)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (None, "is not a file, and RaCT with train_stage='finetune'"),
        (lambda path: torch.save({"config": Path}, path), "cannot be used for train_stage=finetune .*plain weights"),
        (lambda path: torch.save({"state_dict": {}}, path), "Missing key"),
    ],
)
def test_a_stage_without_the_one_before_is_one_sentence(run: Run, write: Any, reason: str) -> None:
    if write is not None:
        write("before.pth")
    with pytest.raises(FairError, match=f"pre_model_path='before.pth' .*{reason}"):
        run("RaCT", train_stage="finetune", pre_model_path="before.pth", mlp_hidden_size=[8], latent_dimension=4)


# -- finding a base model ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "eval_step", "validated", "count"),
    [(5, 2, True, 4), (4, 2, True, 4), (5, 1, True, 5), (3, 10, True, 3), (5, 2, False, 5), (5, 0, True, 5)],
)
def test_epochs_after_the_last_validation_do_not_count(
    epochs: int, eval_step: int, validated: bool, count: int
) -> None:
    assert epochs_that_count(epochs, eval_step, validated) == count


def test_a_base_whose_last_epoch_is_not_validated_is_found(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = {"epochs": 5, "eval_step": 2, "latent_dimension": 4}
    base = run("MultVAE", **shared)
    assert finished(load_checkpoint(base["checkpoint"]))
    found = run("LOCA", n_experts=3, **shared)
    assert found["base"]["source"] == "checkpoint_dir"
    assert found["base"]["file"] == base["checkpoint"]
    stop_before(monkeypatch, 4)  # and nothing is left to do for it
    assert run("MultVAE", resume=base["checkpoint"], **shared)["test_result"] == base["test_result"]


@pytest.mark.parametrize(("model", "own"), [("LOCA", EXPERTS), ("EnLFT", {**EXPERTS, "lft_epochs": 2})])
def test_the_intervention_is_the_same_on_a_trained_and_on_a_found_base(
    run: Run, model: str, own: dict[str, Any]
) -> None:
    first, second = run(model, **own), run(model, **own)
    assert [first["base"]["source"], second["base"]["source"]] == ["trained", "checkpoint_dir"]
    given = run(model, base_model_file=first["base"]["file"], **own)
    states = [load_checkpoint(result["checkpoint"])["state_dict"] for result in (first, second, given)]
    for name, value in states[0].items():
        assert all(torch.equal(value, state[name]) for state in states[1:]), name
    assert first["variants"] == second["variants"] == given["variants"]


# -- benchmark files and masks -------------------------------------------------------------------------------------


@pytest.fixture
def benchmark(small_data: Path, tmp_path: Path) -> dict[str, Any]:
    """RecBole's pre-split sequential files: a prefix and its target in each row."""
    folder = tmp_path / "data" / "split"
    folder.mkdir(parents=True)
    rows = [line.split("\t") for line in (small_data / "small" / "small.inter").read_text().splitlines()[1:]]
    histories: dict[str, list[tuple[str, str]]] = {}
    for user, item, _, time in sorted(rows, key=lambda row: float(row[3])):
        histories.setdefault(user, []).append((item, time))
    parts: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for user, history in histories.items():
        for at in range(1, len(history)):
            part = {1: "test", 2: "valid"}.get(len(history) - at, "train")
            before = " ".join(item for item, _ in history[:at])
            parts[part].append("\t".join((user, before, *history[at])))
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp:float"
    for part, lines in parts.items():
        (folder / f"split.{part}.inter").write_text("\n".join([header, *lines]) + "\n")
    return {
        "dataset": "split",
        "data_path": str(tmp_path / "data"),
        "benchmark_filename": ["train", "valid", "test"],
        "alias_of_item_id": ["item_id_list"],
        "load_col": {"inter": ["user_id", "item_id_list", "item_id", "timestamp"]},
        **SMALL_SASREC,
    }


def test_sasrec_trains_on_the_prefixes_of_benchmark_files(run: Run, benchmark: dict[str, Any]) -> None:
    fallen_back = run("SASRec", **benchmark)
    assert FairConfig("SASRec", "split", config_dict=benchmark)["train_positions"] == "last"
    assert fallen_back["test_result"] == run("SASRec", train_positions="last", **benchmark)["test_result"]
    with pytest.raises(FairError, match="train_positions=all is not possible with benchmark_filename"):
        run("SASRec", train_positions="all", **benchmark)
    shorter = run("SASRec", **{**benchmark, "MAX_ITEM_LIST_LENGTH": 4})
    assert shorter["test_result"] != fallen_back["test_result"]


@pytest.mark.parametrize("mask", ["none", "train", "all"])
def test_a_mask_is_refused_where_candidates_are_sampled(run: Run, mask: str) -> None:
    args = {**LAST_OUT, "mode": "uni10"}
    with pytest.raises(FairError, match=f"mask_seen={mask} has no effect with mode=uni10"):
        run("SASRec", eval_args=args, mask_seen=mask, **SMALL_SASREC)
    path = run("SASRec", eval_args=LAST_OUT, mask_seen=mask, **SMALL_SASREC)["checkpoint"]
    with pytest.raises(FairError, match=f"mask_seen={mask} has no effect with mode=uni10"):
        evaluate_checkpoint(path, {"eval_args": args})
    assert evaluate_checkpoint(path, {"eval_args": args, "mask_seen": "auto"})["mask_seen"] is None


def test_a_result_names_a_mask_for_full_rankings_only(run: Run) -> None:
    sampled = run("SASRec", eval_args={**LAST_OUT, "mode": "uni10"}, **SMALL_SASREC)
    assert sampled["mask_seen"] is None
    full = evaluate_checkpoint(sampled["checkpoint"], {"eval_args": LAST_OUT, "mask_seen": "all"})
    assert full["mask_seen"] == "all"
    mixed = {**LAST_OUT, "mode": {"valid": "uni10", "test": "full"}}
    assert run("SASRec", eval_args=mixed, mask_seen="train", **SMALL_SASREC)["mask_seen"] == "train"
