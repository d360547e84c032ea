"""PopSteer and SPREE on every model that can be split, from the command's entry point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_split import settings, tiny  # noqa: F401

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.registry import get_model
from recbole_fair.errors import FairError
from recbole_fair.model.bases.split import split_names
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair

# A family each; the others are run by hand with -m slow.
QUICK = ("GRU4Rec", "Caser", "NGCF", "MultiVAE")
RUN = {
    "epochs": 1, "train_batch_size": 256, "learning_rate": 0.01, "topk": [5], "valid_metric": "NDCG@5",
    "metrics": ["NDCG", "GiniIndex"], "show_progress": False, "head_share": 0.2, "tail_share": 0.2,
}  # fmt: skip
POPSTEER = {"sae_scale": 4, "sae_k": 4, "sae_epochs": 3}
# NCE-PLRec's scores of unseen items differ by less than single precision resolves on so little data.
BY_ROUNDING = ("NCEPLRec",)
# Untrained in one epoch, or trained in two stages: their splitting is tested beside this.
STAGED = ("RaCT", "S3Rec")


def of_base(tiny: Path, name: str) -> dict[str, Any]:  # noqa: F811
    own = {**settings(tiny, name), **RUN}
    if get_model(f"PopSteer{name}").type.name == "SEQUENTIAL":
        own["synthetic_users"] = 100
    else:
        own["profile_share"] = 0.2
    if name in STAGED:
        own["train_stage"] = "actor_pretrain" if name == "RaCT" else "pretrain"
    return own


def with_marks(names: tuple[str, ...]) -> list[Any]:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", with_marks(split_names()))
def test_popsteer(name: str, tiny: Path, in_tmp: Path) -> None:  # noqa: F811
    if name == "NCL":
        pytest.importorskip("faiss")
    own = {**of_base(tiny, name), **POPSTEER}
    result = run_recbole_fair("PopSteer", "tiny", config_dict={**own, "base": name})
    assert result["model"] == f"PopSteer{name}"
    assert list(result["variants"]) == ["base", "reconstructed", "steered"]
    assert result["base"]["source"] == "trained"
    file = result["checkpoint"]
    assert evaluate_checkpoint(file)["variants"] == result["variants"]
    kept = evaluate_checkpoint(file, {"alpha_pop": 0, "alpha_unpop": 0, "keep_reconstruction_error": True})
    assert kept["test_result"] == result["base_test_result"]
    if name in BY_ROUNDING:
        return
    # The base is the model that a run of its own trains.
    alone = run_recbole_fair(name, "tiny", config_dict=of_base_alone(own))
    assert alone["test_result"] == pytest.approx(result["base_test_result"], abs=1e-12)


def of_base_alone(own: dict[str, Any]) -> dict[str, Any]:
    of_method = {*POPSTEER, "synthetic_users", "profile_share", "head_share", "tail_share"}
    return {key: value for key, value in own.items() if key not in of_method}


@pytest.mark.parametrize("name", with_marks(split_names()))
def test_spree(name: str, tiny: Path, in_tmp: Path) -> None:  # noqa: F811
    if name == "NCL":
        pytest.importorskip("faiss")
    own = {**of_base(tiny, name), "bias_regularization": 0.001}
    result = run_recbole_fair(f"SPREE{name}", "tiny", config_dict=own)
    assert list(result["variants"]) == ["base", "vanilla", "adaptive"]
    off = evaluate_checkpoint(result["checkpoint"], {"spree_strength": 0})
    assert off["test_result"] == result["base_test_result"]
    assert evaluate_checkpoint(result["checkpoint"])["variants"] == result["variants"]


def test_names(tiny: Path) -> None:  # noqa: F811
    by_key = FairConfig("PopSteer", "tiny", config_dict={**of_base(tiny, "GRU4Rec"), "base": "GRU4Rec"})
    short = FairConfig("PopSteerGRU4Rec", "tiny", config_dict=of_base(tiny, "GRU4Rec"))
    assert by_key.to_plain() == short.to_plain()
    assert by_key["model"] == "PopSteerGRU4Rec"
    assert by_key.model_class is get_model("PopSteerGRU4Rec") is short.model_class
    for model, base, message in [
        ("PopSteer", None, r"model=PopSteer stands on a base model: add --base=NAME"),
        ("PopSteer", "NeuMF", r"NeuMF cannot be a base: a network scores each pair"),
        ("PopSteer", "GRU4Recc", r"model='GRU4Recc' is not a known model.*GRU4Rec"),
        ("PopSteerGRU4Rec", "BPR", r"base=BPR does not go with model=PopSteerGRU4Rec"),
        ("PopSteer", "SPREEBPR", r"base=SPREEBPR is a post-hoc model itself"),
        ("BPR", "SASRec", r"base=SASRec: BPR stands on no base model"),
    ]:
        with pytest.raises(FairError, match=message):
            FairConfig(model, "tiny", config_dict={"base": base, "data_path": str(tiny)})


MODULE = """
import torch
from recbole.model.general_recommender import BPR


class Mine(BPR):
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.popularity = torch.nn.Parameter(torch.linspace(-1, 1, self.n_items))

    def full_sort_predict(self, interaction):
        scores = super().full_sort_predict(interaction).view(-1, self.n_items)
        return (scores + self.popularity).view(-1)

    def represent_users(self, interaction):
        return self.user_embedding(interaction[self.USER_ID])

    def item_representations(self):
        return self.item_embedding.weight

    def item_bias(self):
        return self.popularity


class Wrong(Mine):
    def item_bias(self):
        return -self.popularity
"""


def test_a_class_of_ones_own(tiny: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    (in_tmp / "own_base_model.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(in_tmp))
    own = {**of_base(tiny, "BPR"), **POPSTEER}
    result = run_recbole_fair("PopSteer", "tiny", config_dict={**own, "base": "own_base_model:Mine"})
    assert result["model"] == "PopSteerMine"
    file = result["checkpoint"]
    again = evaluate_checkpoint(file, {"base": "own_base_model:Mine"})
    assert again["variants"] == result["variants"]
    with pytest.raises(FairError, match=r"PopSteerMine' is not a known model.* named with --base=module:Class"):
        evaluate_checkpoint(file)
    with pytest.raises(FairError, match="Wrong cannot be a base: represent_users times"):
        run_recbole_fair("PopSteer", "tiny", config_dict={**own, "base": "own_base_model:Wrong"})


METHOD = """
from recbole.model.general_recommender import BPR
from recbole_fair.config.keys import Key
from recbole_fair.model.posthoc import PostHocModel


class Shrunk(PostHocModel):
    base_class, base_model_name, type, input_type = BPR, "BPR", BPR.type, BPR.input_type
    keys = {"shrink": Key("float", default=0.5, scope="strength", what="factor on the first coordinate")}

    def fit_intervention(self, train_data, valid_data, show_progress=False):
        self.fitted.fill_(True)
        return {}

    def edit(self, users, variant):
        moved = users.clone()
        moved[:, 0] *= self.shrink
        return moved
"""


def test_a_method_of_ones_own_on_another_base(tiny: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    (in_tmp / "own_method.py").write_text(METHOD)
    monkeypatch.syspath_prepend(str(in_tmp))
    named = {"model": "own_method:Shrunk", "base": "MultiVAE"}
    own = {key: value for key, value in of_base_alone(of_base(tiny, "MultiVAE")).items()}
    result = run_recbole_fair(named["model"], "tiny", config_dict={**own, "base": "MultiVAE"})
    assert result["model"] == "ShrunkMultiVAE"
    assert evaluate_checkpoint(result["checkpoint"], named)["variants"] == result["variants"]
    off = evaluate_checkpoint(result["checkpoint"], {**named, "shrink": 1.0})
    assert off["test_result"] == result["base_test_result"]
