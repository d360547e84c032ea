"""FairConfig: layers, parsing, checks, and independence from the process around it."""

from __future__ import annotations

import ast
import copy
import logging
import os
import pickle
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from recbole.config import Config
from recbole.model.general_recommender import BPR
from recbole.utils import ModelType, argument_list

from recbole_fair.config import registry
from recbole_fair.config.catalogue import RERANKER_PREFIX, key_named, own_keys
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.keys import Key
from recbole_fair.config.layers import find_config_file, parse_value, properties_dir
from recbole_fair.config.recbole_keys import COMPUTED_KEYS, RECBOLE_KEYS
from recbole_fair.errors import FairError


class MyBPR(BPR):
    """A user's own model."""


class Steered(BPR):
    """A user's model that names the settings it stands on."""

    base_model_name = "LightGCN"


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


# -- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("-.5e2", -50.0),
        ("10", 10),
        ("true", True),
        ("False", False),
        ("None", None),
        ("~", None),
        ("['NDCG','Hit']", ["NDCG", "Hit"]),
        ("[5, None]", [5, None]),
        ("{'split':{'RS':[0.8,0.1,0.1]},'order':'RO'}", {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO"}),
        ("2020-01-02", "2020-01-02"),
        ("plain words", "plain words"),
        ("__import__('os').system('false')", "__import__('os').system('false')"),
        ("!!python/object/apply:os.getcwd []", "!!python/object/apply:os.getcwd []"),
        ("2020-13-45", "2020-13-45"),
    ],
)
def test_text_is_read_as_yaml_and_never_evaluated(text: str, value: object) -> None:
    assert parse_value("anything", text) == value
    assert type(parse_value("anything", text)) is type(value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=4),
        max_leaves=8,
    )
)
def test_python_literals_of_numbers_and_lists_mean_what_python_says(value: object) -> None:
    assert parse_value("anything", repr(value)) == ast.literal_eval(repr(value))


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("dataset", "2015"),
        ("user_inter_num_interval", "[5,10]"),
        ("field_separator", "\t"),
        ("seq_separator", " "),
        ("gpu_id", "0,1"),
        ("result_file", "1"),
        ("USER_ID_FIELD", "no"),
    ],
)
def test_text_keys_stay_text(key: str, text: str) -> None:
    assert parse_value(key, text) == text


def test_broken_list_is_a_sentence() -> None:
    with pytest.raises(FairError, match=r"^metrics=\['NDCG'"):
        parse_value("metrics", "['NDCG'")


# -- independence ----------------------------------------------------------------------------------------------------


def test_command_line_of_the_process_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest", "--epochs=3", "--model=Pop", "--nonsense=1"])
    config = FairConfig("BPR", "ml-100k")
    assert config["epochs"] == 300
    assert config["model"] == "BPR"


def test_two_configs_and_the_process_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    before = dict(os.environ)
    lists = copy.deepcopy({k: v for k, v in vars(argument_list).items() if isinstance(v, list)})
    resolvers = copy.deepcopy(list(yaml.FullLoader.yaml_implicit_resolvers))
    given_dict = {
        "eval_args": {"mode": "full"},
        "topk": "[5]",
        "gpu_id": "3",
        "train_neg_sample_args": {"sample_num": 2},
    }
    given_before = copy.deepcopy(given_dict)
    first = FairConfig("BPR", "ml-100k", config_dict=given_dict)
    second = FairConfig("BPR", "ml-100k")
    assert given_dict == given_before
    assert first["topk"] == [5]
    assert second["topk"] == [10]
    assert second["gpu_id"] == "0"
    first["eval_args"]["mode"]["valid"] = "uni9"
    first.parameters["Dataset"].append("mine")
    assert second["eval_args"]["mode"]["valid"] == "full"
    assert FairConfig("BPR", "ml-100k")["eval_args"]["mode"]["valid"] == "full"
    assert "mine" not in second.parameters["Dataset"]
    assert dict(os.environ) == before
    assert {k: v for k, v in vars(argument_list).items() if isinstance(v, list)} == lists
    assert list(yaml.FullLoader.yaml_implicit_resolvers) == resolvers


def test_device_is_chosen_by_what_pytorch_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert FairConfig("BPR", "ml-100k")["device"] == torch.device("cuda", 0)
    assert FairConfig("BPR", "ml-100k", config_dict={"gpu_id": 1})["device"] == torch.device("cuda", 1)
    assert FairConfig("BPR", "ml-100k", config_dict={"gpu_id": ""})["device"] == torch.device("cpu")
    assert FairConfig("BPR", "ml-100k", config_dict={"use_gpu": False})["device"] == torch.device("cpu")
    with pytest.raises(FairError, match=r"gpu_id='2' is not there: this machine shows 2"):
        FairConfig("BPR", "ml-100k", config_dict={"gpu_id": "2"})


def test_copies_and_pickles_like_recboles(tmp_path: Path) -> None:
    config = FairConfig("BPR", "ml-100k", config_dict={"epochs": 7})
    for twin in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert twin["epochs"] == 7
        twin["eval_args"]["order"] = "TO"
        assert config["eval_args"]["order"] == "RO"


# -- layers ----------------------------------------------------------------------------------------------------------


def test_precedence(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", "epochs: 11\ntopk: [3]\nlearning_rate: 1e-2\n")
    second = write(tmp_path / "b.yaml", "topk: [4]\nlearning_rate: 2e-2\n")
    config = FairConfig("BPR", "ml-100k", [first, second], {"learning_rate": 0.03})
    assert (config["epochs"], config["topk"], config["learning_rate"]) == (11, [4], 0.03)
    assert config.user_settings == {"epochs": 11, "topk": [4], "learning_rate": 0.03}
    assert config.differences() == {"epochs": 11, "topk": [4], "learning_rate": 0.03}
    assert FairConfig("BPR", "ml-100k", None, {"epochs": 300, "embedding_size": 8}).differences() == {
        "embedding_size": 8
    }


def test_model_and_dataset_may_stand_in_a_file(tmp_path: Path) -> None:
    config = FairConfig(config_file_list=[write(tmp_path / "a.yaml", "model: BPR\ndataset: ml-100k\n")])
    assert (config.model, config.model_class, config.dataset) == ("BPR", BPR, "ml-100k")
    for key in ("model", "dataset"):
        other = {"model": "BPR", "dataset": "ml-100k"}
        del other[key]
        with pytest.raises(FairError, match=f"^{key} is not set"):
            FairConfig(config_dict=other)


def test_bad_files_are_sentences(tmp_path: Path) -> None:
    assert FairConfig("BPR", "ml-100k", [write(tmp_path / "empty.yaml", "")])["epochs"] == 300
    for name, text, says in [
        ("broken.yaml", "a: 1\nb: [1\nc: 2\n", r"not valid YAML \(line \d, column \d\)"),
        ("list.yaml", "- 1\n", "'key: value' lines"),
        ("binary.yaml", "a: \ud800", "cannot be read"),
    ]:
        path = tmp_path / name
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(FairError, match=says):
            FairConfig("BPR", "ml-100k", [path])
    with pytest.raises(FairError, match=r"no file 'absent.yaml'"):
        FairConfig("BPR", "ml-100k", ["absent.yaml"])


def settings_files() -> list[Path]:
    """The yaml files of settings: all but those of searches and results."""
    spaces = {"tune", "frontier.yaml", "results"}
    return sorted(file for file in properties_dir().rglob("*.yaml") if not spaces & {file.parent.name, file.name})


def test_every_file_of_the_package_is_sound() -> None:
    files = settings_files()
    assert {"overall.yaml", "ml-1m.yaml", "popsteer-ml-1m.yaml"} <= {file.name for file in files}
    for file in files:
        names = {name for name in yaml.safe_load(file.read_text()) if not name.startswith(RERANKER_PREFIX)}
        assert names <= set(own_keys()) | RECBOLE_KEYS, file
    for file in (properties_dir() / "model").glob("*.yaml"):
        assert file.stem in registry.known_models()


def test_defaults_of_the_package_pass_their_own_checks() -> None:
    for file in settings_files():
        for key, value in yaml.safe_load(file.read_text()).items():
            known = key_named(key)
            if known is not None:
                assert known.accepts(value), (file, key, value)


def test_preset_is_found_by_name(in_tmp: Path) -> None:
    for name in ("paper/popsteer-ml-1m.yaml", "properties/paper/popsteer-ml-1m.yaml"):
        assert find_config_file(name).name == "popsteer-ml-1m.yaml"
    config = FairConfig("SASRec", "ml-1m", ["paper/popsteer-ml-1m.yaml"], {"data_path": "data"})
    assert config["data_path"] == os.path.join("data", "ml-1m")
    assert config["eval_args"]["split"] == {"LS": "valid_and_test"}
    assert (config["hidden_size"], config["inner_size"], config["layer_norm_eps"]) == (64, 256, 1e-12)
    assert config["item_inter_num_interval"] == "[5,inf)"


def test_model_defaults_come_from_the_base_model() -> None:
    recbole = FairConfig("BPR", "ml-100k")
    assert FairConfig(MyBPR, "ml-100k")["embedding_size"] == recbole["embedding_size"] == 64
    assert registry.lineage(MyBPR) == ("BPR", "MyBPR")
    assert registry.lineage(Steered) == ("LightGCN", "Steered")
    assert FairConfig(Steered, "ml-100k")["n_layers"] == 2  # LightGCN.yaml's
    sasrec = FairConfig("SASRec", "ml-100k")
    assert sasrec.model_class.__module__.startswith("recbole_fair")
    assert sasrec["inner_size"] == 256  # RecBole's SASRec.yaml
    assert sasrec["hidden_dropout_prob"] == 0.2  # ours on top of it


def test_ml_100k_is_the_embedded_one_unless_the_user_has_it(tmp_path: Path, small_data: Path) -> None:
    embedded = Path(FairConfig("BPR", "ml-100k")["data_path"])
    assert (embedded / "ml-100k.inter").is_file()
    assert Path(FairConfig("BPR", "ml-100k", None, {"data_path": str(tmp_path)})["data_path"]) == embedded
    own = tmp_path / "ml-100k"
    own.mkdir()
    (own / "ml-100k.inter").write_text((small_data / "small" / "small.inter").read_text())
    config = FairConfig("BPR", "ml-100k", None, {"data_path": str(tmp_path)})
    assert Path(config["data_path"]) == own
    assert Path(FairConfig(config_dict=config.to_plain())["data_path"]) == own


# -- RecBole's models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["BPR", "GRU4Rec", "LightGCN", "FM", "MultiVAE", "Pop", "BERT4Rec", "FPMC", "RecVAE"])
def test_recbole_models_keep_their_settings(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = FairConfig(model, "ml-100k")
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    theirs = Config(
        model,
        "ml-100k",
        config_dict={"train_neg_sample_args": None}
        if model == "GRU4Rec"
        else {"train_neg_sample_args": None}
        if model == "BERT4Rec"
        else None,
    )
    changed = {"metrics", "valid_metric", "model_class", *own_keys()}
    if model == "FM":
        changed |= {"eval_args", "train_neg_sample_args", "threshold", "valid_neg_sample_args", "test_neg_sample_args"}
        changed |= {"eval_type"}
    ours = {k: v for k, v in config.final_config_dict.items() if k not in changed}
    expected = {k: v for k, v in theirs.final_config_dict.items() if k not in changed}
    assert {k: ours.get(k) for k in expected if ours.get(k) != expected[k]} == {}
    assert set(ours) == set(expected)


@pytest.mark.parametrize("model", ["BPR", "GRU4Rec", "FM", "DIN", "Pop", "SASRec"])
def test_plain_settings_give_the_same_configuration_again(model: str) -> None:
    config = FairConfig(
        model,
        "ml-100k",
        config_dict={"epochs": 4, "topk": [3, 7], "valid_metric": "MRR@7"} if model != "DIN" else {"epochs": 4},
    )
    again = FairConfig(config_dict=config.to_plain())
    assert again.final_config_dict == config.final_config_dict
    assert again.differences() == config.differences()


def test_context_models_rank_unless_value_metrics_are_asked_for() -> None:
    ranking = FairConfig("FM", "ml-100k")
    assert ranking["MODEL_TYPE"] == ModelType.CONTEXT
    assert ranking["eval_args"]["mode"] == {"valid": "full", "test": "full"}
    assert ranking["train_neg_sample_args"]["distribution"] == "uniform"
    assert ranking["load_col"]["item"] == ["item_id", "release_year", "class"]
    clicks = FairConfig("FM", "ml-100k", config_dict={"metrics": "AUC"})
    assert clicks["eval_args"]["mode"] == {"valid": "labeled", "test": "labeled"}
    assert clicks["threshold"] == {"rating": 4}
    assert (clicks["metrics"], clicks["valid_metric"]) == (["AUC"], "AUC")
    assert FairConfig("DIN", "ml-100k")["metrics"] == ["AUC", "LogLoss"]


def test_cross_entropy_needs_no_word_about_negatives() -> None:
    assert FairConfig("GRU4Rec", "ml-100k")["train_neg_sample_args"]["distribution"] == "none"
    bpr = FairConfig("GRU4Rec", "ml-100k", config_dict={"loss_type": "BPR"})
    assert bpr["train_neg_sample_args"]["distribution"] == "uniform"
    for off in (None, "None", {"distribution": "none"}):
        FairConfig("GRU4Rec", "ml-100k", config_dict={"train_neg_sample_args": off})
    with pytest.raises(FairError, match=r"train_neg_sample_args=.*loss_type=CE"):
        FairConfig("GRU4Rec", "ml-100k", config_dict={"train_neg_sample_args": {"sample_num": 1}})


def test_valid_metric_follows_metrics_and_topk() -> None:
    assert FairConfig("BPR", "ml-100k")["valid_metric"] == "NDCG@10"
    assert FairConfig("BPR", "ml-100k", config_dict={"topk": 5})["valid_metric"] == "NDCG@5"
    config = FairConfig("BPR", "ml-100k", config_dict={"metrics": ["GiniIndex"], "topk": [20, 10]})
    assert (config["metrics"], config["valid_metric"]) == (["GiniIndex", "NDCG"], "NDCG@10")
    gini = FairConfig("BPR", "ml-100k", config_dict={"valid_metric": "GiniIndex@10"})
    assert gini["valid_metric_bigger"] is False


# -- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"learnig_rate": 1}, r"learnig_rate=1 is not a known key; did you mean 'learning_rate'\?"),
        ({"MASK_SEEN": "all"}, r"did you mean 'mask_seen'\?"),
        ({"zzzzqqq": 1}, r"zzzzqqq=1 is not a known key\.$"),
        ({"learning_rate": 0}, "learning_rate=0 is not allowed: it must be a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"epochs": "ten"}, "epochs='ten' is not allowed: it must be a whole number at least 1"),
        ({"epochs": True}, "epochs=True"),
        ({"epochs": 1.5}, "epochs=1.5"),
        ({"embedding_size": "64x"}, "embedding_size='64x'"),
        ({"reproducibility": "maybe"}, "reproducibility='maybe' is not allowed: it must be true or false"),
        ({"topk": [10, 0]}, r"topk=\[10, 0\]"),
        ({"topk": []}, r"topk=\[\]"),
        ({"seed": -1}, "seed=-1"),
        ({"learner": "adma"}, "learner='adma' is not allowed: it must be one of adam,"),
        ({"rm_dup_inter": "frist"}, "one of first, last, or null"),
        ({"metrics": ["NDGC"]}, r"no metric named 'NDGC'; did you mean 'NDCG'\?"),
        ({"metrics": ["NDCG", "AUC"]}, "AUC rate single rows"),
        ({"metrics": ["AUC"]}, "set the mode of eval_args"),
        ({"valid_metric": "NDCG@20"}, r"valid_metric='NDCG@20' needs a list length of topk=\[10\]"),
        ({"valid_metric": "NDGC@10"}, r"did you mean 'NDCG'\?"),
        ({"eval_args": {"splt": 1}}, r"'splt' is not one of .*did you mean 'split'\?"),
        ({"eval_args": {"split": {"RS": [0.8, -0.1]}}}, r"RS=\[0.8, -0.1\]"),
        ({"eval_args": {"split": {"LS": "valid"}}}, "LS='valid'"),
        ({"eval_args": {"split": {"LS:test_only": None}}}, "split=.*LS: valid_and_test"),
        ({"eval_args": {"order": "time"}}, "order='time'"),
        ({"eval_args": {"group_by": "item"}}, "group_by='item'"),
        ({"eval_args": {"mode": "uni0"}}, "mode='uni0'"),
        ({"train_neg_sample_args": {"distribution": "unifrom"}}, "distribution='unifrom'"),
        ({"train_neg_sample_args": {"sample_num": 0}}, "sample_num=0"),
        ({"train_neg_sample_args": {"number": 1}}, "'number' is not one of distribution, sample_num"),
        ({"training_neg_sample_num": 1}, "did you mean 'train_neg_sample_args'"),
        ({"device": "cpu"}, "device='cpu' cannot be set"),
        ({"mask_seen": "some"}, "mask_seen='some' is not allowed: it must be one of auto, none, train, all"),
        ({"eval_memory_mb": 0}, "eval_memory_mb=0"),
        ({"nproc": 2}, "nproc"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(settings: dict[str, object], says: str) -> None:
    with pytest.raises(FairError, match=says) as caught:
        FairConfig("BPR", "ml-100k", config_dict=settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "settings", "says"),
    [
        ("GRU4Rec", {"eval_args": {"mode": "full"}}, "GRU4Rec reads histories in time and needs order: TO"),
        ("GRU4Rec", {"repeatable": False}, "repeatable"),
        ("GRU4Rec", {"loss_type": "CEE"}, r"loss_type='CEE' must be one of CE, BPR; did you mean 'CE'\?"),
        ("bpr", {}, r"model='bpr' is not a known model; did you mean 'BPR'\?"),
        ("PopSteerSASrec", {}, r"did you mean 'PopSteerSASRec'\?"),
        ("os", {}, "model='os' is not a known model"),
    ],
)
def test_mistakes_with_models(model: str, settings: dict[str, object], says: str) -> None:
    with pytest.raises(FairError, match=says):
        FairConfig(model, "ml-100k", config_dict=settings)


def test_data_set_name_is_no_path() -> None:
    for name in ("../x", "a/b", "", ".."):
        with pytest.raises(FairError, match="is not a name"):
            FairConfig("BPR", name)


def test_unknown_keys_of_a_users_model_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        config = FairConfig(MyBPR, "ml-100k", config_dict={"my_strength": 3})
    assert config["my_strength"] == 3
    assert "my_strength=3 is not a known key" in caplog.text


def test_key_ranges() -> None:
    share = Key("float|str", low=0, high=1, choices=("cv",), open_high=True, many=True)
    assert [share.accepts(v) for v in (0, 0.5, 1, "cv", "xv", [0.1, "cv"], [], None, True)] == [
        True, True, False, True, False, True, False, False, False,
    ]  # fmt: skip
    assert share.allowed() == "a number at least 0 and below 1 or one of cv, or a list of these"


def test_frozen_keys_cover_what_recbole_reads() -> None:
    import recbole

    root = Path(recbole.__file__).parent
    pattern = re.compile(r"config\[\s*[\"']([A-Za-z_0-9]+)[\"']\s*\]")
    read = {key for file in (root / "model").rglob("*.py") for key in pattern.findall(file.read_text(encoding="utf-8"))}
    assert len(read) > 150
    assert read <= RECBOLE_KEYS | COMPUTED_KEYS


# -- registry --------------------------------------------------------------------------------------------------------


def test_all_recbole_models_are_known() -> None:
    names = registry.recbole_models()
    assert {"BPR", "Random", "LightGCN", "xDeepFM", "KD_DAGFM", "XGBoost"} <= set(names)
    assert not {"xgboost", "lightgbm"} & set(names)
    assert len(names) > 85


def test_trainers_gain_our_evaluation() -> None:
    from recbole.trainer import trainer as recbole_trainers
    from recbole.utils import get_model

    from recbole_fair.trainer.trainer import FairTrainer, FairTrainerMixin

    def trainer_of(name: str) -> type:
        cls = get_model(name)
        return registry.get_trainer({"model": name, "MODEL_TYPE": cls.type}, cls)

    assert trainer_of("BPR") is FairTrainer
    assert trainer_of("BPR").__mro__[1] is FairTrainerMixin
    for name, theirs in [
        ("Pop", recbole_trainers.TraditionalTrainer),
        ("RecVAE", recbole_trainers.RecVAETrainer),
        ("S3Rec", recbole_trainers.S3RecTrainer),
        ("KGAT", recbole_trainers.KGATTrainer),
        ("CKE", recbole_trainers.KGTrainer),
    ]:
        found = trainer_of(name)
        assert issubclass(found, (theirs,))
        assert found.__mro__[1] is FairTrainerMixin
        assert trainer_of(name) is found
    assert registry.fair_trainer_class(recbole_trainers.XGBoostTrainer) is recbole_trainers.XGBoostTrainer


def test_configuration_does_not_import_ray() -> None:
    FairConfig("BPR", "ml-100k")
    assert "ray" not in sys.modules


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"world_size": 4}, "world_size=4"),
        ({"nproc": 2}, "nproc=2"),
        ({"save_dataset": True}, "save_dataset=True is not supported"),
        ({"dataset_save_path": "old.pth"}, "dataset_save_path='old.pth' is not supported"),
        ({"user_inter_num_interval": "5 or more"}, "='5 or more' is not allowed: it must be an interval"),
        ({"item_inter_num_interval": "[5,inf"}, "must be an interval"),
        ({"val_interval": {"rating": "foo"}}, "val_interval: rating='foo' is not allowed: it must be an interval"),
        ({"clip_grad_norm": {"max_nrm": 5}}, "did you mean 'max_norm'"),
    ],
)
def test_what_would_be_passed_over_in_silence_is_an_error(settings, said):
    with pytest.raises(FairError, match=re.escape(said)):
        FairConfig("BPR", "ml-100k", config_dict=settings)


@pytest.mark.parametrize("interval", ["[5,inf)", "(0, 20]", "[5,10);(20,inf]", "[1e1,2.5e2]", "(-inf,3)", "[-1,Inf)"])
def test_intervals_that_recbole_reads_are_allowed(interval):
    config = FairConfig("BPR", "ml-100k", config_dict={"val_interval": {"rating": interval}})
    assert config["val_interval"] == {"rating": interval}
