"""Every key with values of every kind: taken, or refused in one sentence, and never a traceback."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_fair.config import registry
from recbole_fair.config.catalogue import declared, method_keys
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.general_keys import KEYS
from recbole_fair.config.layers import properties_dir, read_yaml
from recbole_fair.config.recbole_keys import COMPUTED_KEYS, RECBOLE
from recbole_fair.errors import FairError

VALUES: dict[str, Any] = {
    "null": None, "true": True, "negative": -1, "zero": 0, "fraction": 1.5, "huge": 10**12, "beyond floats": 10**400,
    "beyond text": 10**5000, "infinite": float("inf"), "nan": float("nan"), "empty": "", "word": "banana",
    "lines": "a\nb\0c", "empty list": [], "list": [1, "a", None], "nested list": [[-1], {"x": [0]}],
    "empty mapping": {}, "mapping": {"a": 1}, "odd mapping": {1: {"b": None}, None: 2}, "bytes": b"\xff", "set": {3},
    "array": np.array([np.inf, 2.0]), "NumPy number": np.int64(3), "path": Path("somewhere/x"),
    "surrogate": "\ud800", "object": object(),
}  # fmt: skip


def missing_models() -> set[str]:
    """Models of RecBole 1.2.1 that 1.2.0, which newer Pythons have, does not know."""
    return {"SASRecCPR"} if version("recbole") == "1.2.0" else set()


def models() -> dict[str, str]:
    """A model that reads a key, by key, for keys that not every model reads."""
    found = {key: name for name in registry.MODELS for key in declared(registry.get_model(name))}
    for name in ("S3Rec", "KD_DAGFM", "DiffRec", "SASRecCPR", "RaCT", "KGAT", "NeuMF", "FEARec", "SINE", "DIN"):
        if name in missing_models():
            continue
        found |= {key: name for key in FairConfig(name, "ml-100k").internal_config_dict if key not in found}
    return found


def keys() -> list[str]:
    own = (KEYS, method_keys(), RECBOLE)
    return sorted(set(itertools.chain(*own)) - COMPUTED_KEYS)


def outcome(model: str, settings: dict[str, Any]) -> str:
    """``taken`` or the sentence; any other exception is a failure of the test."""
    try:
        config = FairConfig(config_dict={"model": model, "dataset": "ml-100k", **settings})
    except FairError as error:
        said = str(error)
        return said if "\n" not in said and len(said) < 1500 else f"unfit to be shown: {said}"
    again = FairConfig(config_dict=config.to_plain())  # what is stored is taken again
    assert again.final_config_dict.keys() == config.final_config_dict.keys()
    return "taken"


def tried(names: list[str], values: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    known = models()
    for key in names:
        for kind, value in values.items():
            try:
                yield key, kind, outcome(known.get(key, "BPR"), {key: value})
            except Exception as error:
                raise AssertionError(f"{key} with {kind}: {type(error).__name__}: {str(error)[:300]}") from error


@pytest.mark.slow
def test_every_key_with_every_kind_of_value(capsys: pytest.CaptureFixture[str], in_tmp: Path):
    found = list(tried(keys(), VALUES))
    taken = [(key, kind) for key, kind, said in found if said == "taken"]
    with capsys.disabled():
        print(f"\n{len(found)} pairs of {len(keys())} keys and {len(VALUES)} values, {len(taken)} taken, no traceback")
    assert not [said for *_, said in found if said.startswith("unfit")]
    never = {"infinite", "nan", "beyond floats", "beyond text", "bytes", "set", "object", "odd mapping"}
    assert not [pair for pair in taken if pair[1] in never]


@pytest.mark.slow
def test_every_key_of_a_reranker_with_every_kind_of_value(in_tmp: Path):
    for name in registry.rerankers():
        for key in registry.get_reranker(name).keys().values():
            for kind, value in VALUES.items():
                try:
                    outcome("BPR", {"reranker": name, key: value})
                except Exception as error:
                    raise AssertionError(f"{name}, {key} with {kind}: {str(error)[:300]}") from error


def test_some_keys_with_every_kind_of_value(in_tmp: Path):
    names = ["topk", "eval_args", "valid_metric", "alias_of_item_id", "gpu_id", "group_metrics", "encoding"]
    assert len(list(tried(names, VALUES))) == len(names) * len(VALUES)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("embedding_size", 10**12, "10+ would need .* PiB of memory for a table of a thousand rows|1e\\+12 would need"),
        ("worker", 10**6, "each being a process"),
        ("bootstrap", 10**12, "1e\\+12 would need"),
        ("learning_rate", float("inf"), "learning_rate=inf is not allowed"),
        ("learning_rate", 10**400, "learning_rate=1000"),
        pytest.param("learning_rate", 10**5000, "a number of 16610 bits", id="digits"),
        ("encoding", "utf-9", "the name of an encoding"),
        ("USER_ID_FIELD", "a:b", "the name of a column"),
        ("teacher", "__import__('os')", "one of CrossNet, CIN"),
        ("benchmark_filename", {"train": "a", "tst": "b"}, "train, valid and test"),
        ("entity_kg_num_interval", "[2,inf", r"write \[5,inf\)"),
        ("val_interval", {"rating": "[5,2]"}, "val_interval: rating="),
        ("clip_grad_norm", {"norm_type": 2}, "it must name max_norm"),
        ("eval_args", {"mode": [1]}, "eval_args: mode="),
        ("eval_args", {"split": {"RS": ["a", 1, 2]}}, r"RS=\['a', 1, 2\] must be three shares"),
        ("load_col", {"inter": "user_id"}, "load_col: inter='user_id'"),
        ("valid_metric", "NDCG@²", "needs a list length"),
        ("nproc", "two", "nproc='two'"),
        ("group_metrics", [3], r"group_metrics=\[3\] is not allowed: it must be a mapping or text"),
        ("group_metrics", {"gender": {}}, "group_metrics.gender={} must name its metrics"),
        ("group_metrics", {"gender": {"metrics": ["NDCG"], "bin": 2}}, "unknown key 'bin'"),
        ("group_metrics", {"gender": {"metrics": ["NDCG"], "thresholds": [1]}}, "in the place of bins"),
        ("group_metrics", {"gender": {"metrics": ["NDCG"], "bins": 1}}, "gender.bins=1 must be a whole number"),
        ("pce_levels", [0.5, 0.2], r"pce_levels=\[0.5, 0.2\] .* a rising list of numbers from 0 to 1"),
        ("coverage_min_count", [0], r"coverage_min_count=\[0\]"),
        ("upd_over", "items", "one of users, groups"),
        ("upd_base", 1, "upd_base=1 is not allowed: it must be a number above 1"),
        ("encoding", "rot13", "the name of an encoding"),
        ("checkpoint_dir", "a\ud800", "checkpoint_dir="),
    ],
)
def test_what_is_said(key: str, value: Any, says: str):
    model = "KD_DAGFM" if key == "teacher" else "BPR"
    with pytest.raises(FairError, match=says):
        FairConfig(model, "ml-100k", config_dict={key: value})


def test_defaults_of_all_models_are_allowed():
    for name in registry.known_models():
        try:
            config = FairConfig(name, "ml-100k")
        except (FairError, ModuleNotFoundError):
            continue
        assert FairConfig(config_dict=config.to_plain()).final_config_dict == config.final_config_dict, name
    for file in (properties_dir() / "paper").glob("*.yaml"):
        assert read_yaml(file)


def test_values_of_numpy_and_paths(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("embedding_size: 16\n")
    given = {
        "learning_rate": np.float32(0.5), "topk": np.array([5, 10]), "epochs": np.int64(3), "seed": np.uint8(7),
        "shuffle": np.bool_(False), "checkpoint_dir": tmp_path, "metrics": ("NDCG",), "stopping_step": np.array(4),
    }  # fmt: skip
    for files in (tmp_path / "a.yaml", str(tmp_path / "a.yaml"), [tmp_path / "a.yaml"]):
        config = FairConfig("BPR", "ml-100k", files, given)
        assert config["embedding_size"] == 16
        assert (config["learning_rate"], config["topk"], config["epochs"]) == (0.5, [5, 10], 3)
        assert (config["shuffle"], config["checkpoint_dir"], config["stopping_step"]) == (False, str(tmp_path), 4)
        assert {type(config[key]) for key in ("epochs", "seed", "stopping_step")} == {int}
    for wrong in (5, [1], {"a": 1}):
        with pytest.raises(FairError, match="neither a path nor a list of paths"):
            FairConfig("BPR", "ml-100k", wrong)
