"""What is sent to TensorBoard, Weights & Biases and MLflow: the numbers of the result, under names that they take."""

from __future__ import annotations

import contextlib
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recbole_fair.errors import FairError
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair, tune

# Which names MLflow refuses, from its own message.
ALLOWED = re.compile(r"[\w\-. :/]+")


class FakeMLflow(types.ModuleType):
    """The functions of MLflow that are used, with what they were given."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.uri: str | None = None
        self.runs: list[dict[str, Any]] = []
        self.open: list[dict[str, Any]] = []

    def set_tracking_uri(self, uri: str) -> None:
        self.uri = uri

    def set_experiment(self, name: str) -> None:
        self.experiment = name

    def start_run(self, run_name: str, nested: bool = False) -> Any:
        assert nested == bool(self.open), "a second run beside an open one has to be nested"
        run: dict[str, Any] = {"name": run_name, "params": {}, "metrics": {}, "depth": len(self.open)}
        self.runs.append(run)
        self.open.append(run)

        @contextlib.contextmanager
        def inside() -> Iterator[None]:
            yield
            self.end_run()

        return inside()

    def log_params(self, params: dict[str, Any]) -> None:
        self.open[-1]["params"].update(params)

    def log_metrics(self, metrics: dict[str, float]) -> None:
        assert all(ALLOWED.fullmatch(name) for name in metrics), metrics
        self.open[-1]["metrics"].update(metrics)

    def end_run(self) -> None:
        self.open.pop()


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMLflow:
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return fake


@pytest.fixture
def given(small_data: Path, in_tmp: Path) -> dict[str, Any]:
    return {
        "data_path": str(small_data), "epochs": 1, "show_progress": False, "topk": [5], "valid_metric": "NDCG@5",
        "metrics": ["NDCG", "GiniIndex"], "embedding_size": 8,
    }  # fmt: skip


POPSTEER = {"sae_epochs": 1, "sae_scale": 2, "sae_k": 4, "profile_share": 0.3, "head_share": 0.2, "tail_share": 0.2}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for file in folder.rglob("events.out.tfevents.*"):
        events = EventAccumulator(str(file))
        events.Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, []).extend((event.step, event.value) for event in events.Scalars(tag))
    return found


def test_a_run_sends_its_result_and_its_variants(given: dict[str, Any], mlflow: FakeMLflow, in_tmp: Path) -> None:
    result = run_recbole_fair(
        "PopSteerBPR", "small", config_dict={**given, **POPSTEER, "log_mlflow": True, "mlflow_uri": "runs"}
    )
    (run,) = mlflow.runs
    assert (mlflow.uri, mlflow.experiment, run["name"]) == ("runs", "recbole_fair", "PopSteerBPR-small")
    assert not mlflow.open, "the run was ended"
    expected = {f"test/{name}".replace("@", "_at_"): value for name, value in result["test_result"].items()}
    for variant, metrics in result["variants"].items():
        expected |= {f"test-{variant}/{name}".replace("@", "_at_"): value for name, value in metrics.items()}
    assert {name: value for name, value in run["metrics"].items() if name.startswith("test")} == expected
    assert run["metrics"]["best_valid/ndcg_at_5"] == result["best_valid_result"]["ndcg@5"]
    assert run["params"]["sae_k"] == "4"
    assert run["params"]["model"] == "PopSteerBPR"
    sent = scalars(in_tmp / "log_tensorboard")
    assert sent["test-base/ndcg@5"][-1][1] == pytest.approx(result["base_test_result"]["ndcg@5"], rel=1e-6)
    assert sent["test/giniindex@5"][-1][1] == pytest.approx(result["test_result"]["giniindex@5"], rel=1e-6)


def test_a_search_sends_each_trial(given: dict[str, Any], mlflow: FakeMLflow, in_tmp: Path) -> None:
    pytest.importorskip("optuna")
    (in_tmp / "space.yaml").write_text("alpha_pop: {low: 0.0, high: 4.0}\nsteer_sigma: [group, pooled]\n")
    settings = {**given, **POPSTEER, "log_mlflow": True}
    found = tune("PopSteerBPR", "small", "space.yaml", trials=3, output="out", config_dict=settings)
    parent, *nested = mlflow.runs
    assert (parent["name"], parent["depth"]) == ("tune-PopSteerBPR-small", 0)
    assert [run["depth"] for run in nested] == [1, 1, 1]
    for row, run in zip(found.trials, nested, strict=True):
        assert run["params"]["steer_sigma"] == row["steer_sigma"]
        assert run["metrics"]["valid/ndcg_at_5"] == row["valid ndcg@5"]
    sent = scalars(in_tmp / "out" / "tensorboard")
    assert [step for step, _ in sent["trial/ndcg@5"]] == [row["trial"] for row in found.trials]
    assert [value for _, value in sent["setting/alpha_pop"]] == pytest.approx(
        [row["alpha_pop"] for row in found.trials]
    )


def test_weights_and_biases_get_them_by_recbole_s_logger(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch, in_tmp: Path
) -> None:
    summary: dict[str, float] = {}
    logged: list[dict[str, Any]] = []
    fake: Any = types.ModuleType("wandb")
    fake.run = types.SimpleNamespace(summary=summary)
    fake.define_metric = lambda *args, **kwargs: None
    fake.log = lambda metrics, commit=True: logged.append(metrics)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    settings = {**given, **POPSTEER, "log_wandb": True}
    result = run_recbole_fair("PopSteerBPR", "small", config_dict=settings)
    for variant, metrics in result["variants"].items():
        assert {name: summary[f"test-{variant}/{name}"] for name in metrics} == metrics
    assert summary["test/ndcg@5"] == result["test_result"]["ndcg@5"]
    again = evaluate_checkpoint(result["checkpoint"], {"alpha_pop": 2, "log_wandb": True})
    assert summary["test/ndcg@5"] == again["test_result"]["ndcg@5"]
    pytest.importorskip("optuna")
    (in_tmp / "space.yaml").write_text("alpha_pop: {low: 0.0, high: 4.0}\n")
    found = tune("PopSteerBPR", "small", "space.yaml", trials=2, output="out", config_dict=settings)
    trials = [entry for entry in logged if "trial_step" in entry]
    assert [entry["trial/ndcg@5"] for entry in trials] == [row["valid ndcg@5"] for row in found.trials]
    assert [entry["setting/alpha_pop"] for entry in logged if "setting/alpha_pop" in entry] == [
        row["alpha_pop"] for row in found.trials
    ]


def test_the_real_package_of_weights_and_biases_takes_them_offline(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch, in_tmp: Path
) -> None:
    wandb = pytest.importorskip("wandb")
    pytest.importorskip("optuna")
    for key, value in (("MODE", "offline"), ("SILENT", "true"), ("DIR", str(in_tmp))):
        monkeypatch.setenv(f"WANDB_{key}", value)
    settings = {**given, **POPSTEER, "log_wandb": True}
    try:
        result = run_recbole_fair("PopSteerBPR", "small", config_dict=settings)
        summary = dict(wandb.run.summary)
        assert summary["test/ndcg@5"] == result["test_result"]["ndcg@5"]
        for variant, metrics in result["variants"].items():
            assert {name: summary[f"test-{variant}/{name}"] for name in metrics} == metrics
        (in_tmp / "space.yaml").write_text("alpha_pop: {low: 0.0, high: 4.0}\nsteer_sigma: [group, pooled]\n")
        found = tune("PopSteerBPR", "small", "space.yaml", trials=2, output="out", config_dict=settings)
        last, summary = found.trials[-1], dict(wandb.run.summary)
        assert summary["trial_step"] == last["trial"]
        assert summary["trial/ndcg@5"] == last["valid ndcg@5"]
        assert (summary["setting/alpha_pop"], summary["setting/steer_sigma"]) == (
            last["alpha_pop"],
            last["steer_sigma"],
        )
    finally:
        wandb.finish()
    assert len(list(in_tmp.glob("wandb/offline-run-*/*.wandb"))) == 1


def test_a_tracker_that_fails_costs_no_result(
    given: dict[str, Any], mlflow: FakeMLflow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("the server is away")

    monkeypatch.setattr(mlflow, "log_metrics", refuse)
    result = run_recbole_fair("BPR", "small", config_dict={**given, "log_mlflow": True})
    assert result["test_result"]
    assert "Nothing more is sent to MLflow: the server is away" in caplog.text
    monkeypatch.setattr(mlflow, "set_experiment", refuse)
    assert run_recbole_fair("BPR", "small", config_dict={**given, "log_mlflow": True})["test_result"]
    assert "could not be reached" in caplog.text


def test_a_package_that_is_not_there_is_one_sentence(given: dict[str, Any]) -> None:
    if "mlflow" in sys.modules:
        pytest.skip("MLflow is installed")
    with pytest.raises(FairError, match="log_mlflow=True needs the package 'mlflow'"):
        run_recbole_fair("BPR", "small", config_dict={**given, "log_mlflow": True})
