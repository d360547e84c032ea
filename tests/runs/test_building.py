"""Models of RecBole that start from other weights, and what its classes refuse."""

from __future__ import annotations

import importlib.util
import pickle
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.registry import get_model
from recbole_fair.errors import FairError
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair
from recbole_fair.runs.building import new_model


def run(model: str, data: Path, **changes: Any) -> dict[str, Any]:
    settings = {"data_path": str(data), "epochs": 1, "state": "error", "show_progress": False, "topk": [3], **changes}
    return run_recbole_fair(model, "small", config_dict=settings)


@pytest.mark.parametrize(
    ("model", "changes", "says"),
    [
        ("NeuMF", {"use_pretrain": True}, "mf_pretrain_path=None is not a file, and NeuMF with use_pretrain=True"),
        ("NAIS", {"pretrain_path": "no.pth"}, "pretrain_path='no.pth' is not a file"),
        ("ConvNCF", {"train_method": "after_pretrain"}, "pre_model_path='' is not a file, and ConvNCF"),
        (
            "KD_DAGFM",
            {"phase": "distillation", "metrics": ["AUC"]},
            "warm_up='' is not a file, and KD_DAGFM with phase",
        ),
        pytest.param(
            "SASRecCPR",
            {"n_facet_window": 5},
            "SASRecCPR cannot be built with n_facet_window=5|is not allowed",
            marks=pytest.mark.skipif(version("recbole") == "1.2.0", reason="RecBole 1.2.0 has no SASRecCPR"),
        ),
        ("KGCN", {"aggregator": "self_attention"}, "must be one of sum, neighbor, concat"),
    ],
)
def test_what_is_missing_is_one_sentence(
    model: str, changes: dict[str, Any], says: str, small_data: Path, in_tmp: Path
):
    with pytest.raises(FairError, match=says) as caught:
        run(model, small_data, **changes)
    assert "\n" not in str(caught.value)


def test_parts_of_a_fused_model_may_be_gone_when_it_is_evaluated(small_data: Path, in_tmp: Path):
    sizes = {"mf_embedding_size": 4, "mlp_embedding_size": 4, "mlp_hidden_size": [8, 4]}
    mf = run("NeuMF", small_data, mlp_train=False, **sizes)["checkpoint"]
    mlp = run("NeuMF", small_data, mf_train=False, **sizes)["checkpoint"]
    Path("moved.pth").write_bytes(Path(mf).read_bytes())
    parts = {"use_pretrain": True, "mf_pretrain_path": "moved.pth", "mlp_pretrain_path": mlp}
    with pytest.raises(FairError, match=r"mf_pretrain_path='moved.pth', mlp_pretrain_path=.* cannot be used"):
        run("NeuMF", small_data, **parts, **{**sizes, "mf_embedding_size": 6})
    fused = run("NeuMF", small_data, **parts, **sizes)
    Path("moved.pth").unlink()
    assert evaluate_checkpoint(fused["checkpoint"])["test_result"] == fused["test_result"]


LATE = [("KGIN", "torch_scatter"), ("MCCLK", "torch_scatter"), ("NCL", "faiss")]


@pytest.mark.parametrize(("model", "package"), LATE)
def test_a_package_that_a_model_imports_late_is_missed_before_training(
    model: str, package: str, small_data: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))
    config = FairConfig("BPR", "small", config_dict={"data_path": str(small_data)})
    config.model_class, config["model"] = get_model(model), model
    with pytest.raises(FairError, match=f"model='{model}' needs the package '{package}', which is not installed"):
        new_model(config, None)  # type: ignore[arg-type]


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("sprung"),))


def test_a_pickle_is_not_run(small_data: Path, in_tmp: Path):
    Path("trap.pth").write_bytes(pickle.dumps({"state_dict": Trap()}))
    with pytest.raises(FairError, match=r"pretrain_path='trap.pth' cannot be used for pretrain_path"):
        run("NAIS", small_data, pretrain_path="trap.pth")
    assert not Path("sprung").exists()
