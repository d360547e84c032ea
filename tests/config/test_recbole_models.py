"""RecBole's models under their own defaults and under each of their choices: they run, or say in a sentence why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recbole.utils import InputType, ModelType

from recbole_fair.config import registry
from recbole_fair.config.catalogue import key_named
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.recbole_models import OF_MODELS
from recbole_fair.errors import FairError
from recbole_fair.quick_start import run_recbole_fair

# Libraries that RecBole does not ask for; a run of these models names what it needs.
NEED_MORE = ("LightGBM", "XGBoost", "NCL", "NNCF", "RaCT", "S3Rec")
SMALL = {
    "epochs": 1, "topk": [3], "state": "error", "show_progress": False, "train_batch_size": 256,
    "MAX_ITEM_LIST_LENGTH": 8, "num_clusters": 5, "sampling_steps": 0, "checkpoint_dir": "saved",
}  # fmt: skip


@pytest.fixture
def data(in_tmp: Path, small_data: Path) -> Path:
    """The small data set with a knowledge graph."""
    folder = in_tmp / "data" / "small"
    folder.mkdir(parents=True)
    for file in (small_data / "small").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    rng = np.random.default_rng(0)
    triples = {(int(h), int(r), int(t)) for h, r, t in rng.integers(0, (40, 3, 40), (150, 3)) if h != t}
    (folder / "small.link").write_text("item_id:token\tentity_id:token\n" + "".join(f"i{i}\te{i}\n" for i in range(40)))
    lines = "".join(f"e{h}\tr{r}\te{t}\n" for h, r, t in sorted(triples))
    (folder / "small.kg").write_text("head_id:token\trelation_id:token\ttail_id:token\n" + lines)
    return folder.parent


def settings_of(model: str, data: Path, **changes: Any) -> dict[str, Any]:
    """Small ones, with the columns that the model's kind reads."""
    settings = {**SMALL, "data_path": str(data), **changes}
    known = FairConfig(model, "small", config_dict={"data_path": str(data)})
    columns: dict[str, Any] = {"inter": ["user_id", "item_id", "rating", "timestamp"], "item": ["item_id", "genre"]}
    if known["MODEL_TYPE"] == ModelType.KNOWLEDGE or model == "KSR":
        columns |= {"link": ["item_id", "entity_id"], "kg": ["head_id", "relation_id", "tail_id"]}
    settings["load_col"] = columns
    if "selected_features" in known:
        settings["selected_features"] = ["genre"]
    return {key: value for key, value in settings.items() if key in known or key in ("load_col", "topk")}


@pytest.mark.parametrize("loss", ["BPR", "CE", "NLL"])
def test_sine_with_each_loss(loss: str, data: Path):
    sampling = {} if loss == "BPR" else {"train_neg_sample_args": None}
    changes = settings_of("SINE", data, loss_type=loss, prototype_size=8, embedding_size=8, **sampling)
    assert run_recbole_fair("SINE", "small", config_dict={**changes, **sampling})["test_result"]
    with pytest.raises(FairError, match="loss_type='CEE' must be one of BPR, CE, NLL"):
        FairConfig("SINE", "small", config_dict={**changes, "loss_type": "CEE"})


def test_sasrec_with_sampled_items(data: Path):
    config = FairConfig("SASRec", "small", config_dict=settings_of("SASRec", data, loss_type="BPR"))
    assert (config["train_positions"], config["MODEL_INPUT_TYPE"]) == ("last", InputType.PAIRWISE)
    assert run_recbole_fair("SASRec", "small", config_dict=config.user_settings)["test_result"]


def test_labels_alone_ask_for_recboles_protocol_of_context_models(data: Path):
    for model in ("FM", "DeepFM", "LR"):
        config = FairConfig(model, "small", config_dict={"data_path": str(data), "threshold": {"rating": 4}})
        assert (config["metrics"], config["eval_args"]["mode"]["test"]) == (["AUC", "LogLoss"], "labeled")
    with pytest.raises(FairError, match=r"metrics: \[AUC\]"):
        FairConfig("BPR", "small", config_dict={"data_path": str(data), "threshold": {"rating": 4}})


@pytest.mark.parametrize("model", ["KSR", "GRU4RecKG"])
def test_sequential_models_of_knowledge_have_an_order_in_time(model: str):
    config = FairConfig(model, "ml-100k")
    assert (config["eval_args"]["order"], config["eval_args"]["split"]) == ("TO", {"LS": "valid_and_test"})


@pytest.mark.parametrize(
    ("model", "change", "says"),
    [
        ("KGCN", {"aggregator": "mean"}, "one of sum, neighbor, concat"),
        ("SimpleX", {"aggregator": "sum"}, "one of mean, user_attention, self_attention"),
        ("SGL", {"type": "inner"}, "one of ED, ND, RW"),
        ("CDAE", {"loss_type": "BPR"}, "one of BCE, MSE"),
    ],
)
def test_what_a_single_model_takes(model: str, change: dict[str, Any], says: str):
    with pytest.raises(FairError, match=says):
        FairConfig(model, "ml-100k", config_dict=change)


def choices(model: str) -> list[dict[str, Any]]:
    """Nothing, and each choice of each setting in the model's own file."""
    known = FairConfig(model, "ml-100k").internal_config_dict
    keys = {key: key_named(key, registry.get_model(model)) for key in known if key in OF_MODELS or key == "transform"}
    named = {key: found.choices for key, found in keys.items() if found is not None and found.choices is not None}
    found = [{key: choice} for key, values in named.items() for choice in values if len(values) < 8]
    return [{}, *(change for change in found if known[next(iter(change))] != next(iter(change.values())))]


@pytest.mark.slow
@pytest.mark.parametrize("model", [name for name in registry.recbole_models() if name not in NEED_MORE])
def test_every_model_runs_or_says_why_not(model: str, data: Path, capsys: pytest.CaptureFixture[str]):
    told = []
    for change in choices(model):
        try:
            document = run_recbole_fair(model, "small", config_dict=settings_of(model, data, **change), saved=False)
            assert document["test_result"] or document["notes"]
        except FairError as error:
            told.append(f"{model} {change or ''}: {error}")
    assert not any("\n" in said for said in told)
    with capsys.disabled():
        print(f"\n{model}: {len(choices(model)) - len(told)} of {len(choices(model))} run", *told, sep="\n  ")
