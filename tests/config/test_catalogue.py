"""What keys there are, where they are declared, and what follows from their scopes."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest
import yaml

from recbole_fair.config import catalogue, registry
from recbole_fair.config.catalogue import RERANKER_PREFIX, declared, key_named, keys_of, method_keys, scope_of
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.general_keys import KEYS
from recbole_fair.config.keys import SCOPES, Key
from recbole_fair.config.layers import properties_dir
from recbole_fair.config.recbole_keys import COMPUTED_KEYS, RECBOLE, RECBOLE_KEYS

PACKAGE = Path(catalogue.__file__).parents[1]


def test_a_key_is_declared_once():
    tables = catalogue.tables_of_methods()
    assert {"popsteer.POPSTEER_KEYS", "decrs.DECRS_KEYS", "bases.SASREC_KEYS"} <= set(tables)
    first: dict[str, Key] = dict(KEYS)
    for table in tables.values():
        for name, key in table.items():
            # The same declaration may stand in several tables; a method may say more strictly what depends on it.
            assert dataclasses.replace(first.setdefault(name, key), scope=key.scope) == key, name
    assert not KEYS.keys() & RECBOLE_KEYS
    assert not RECBOLE.keys() & COMPUTED_KEYS
    # PopSteer's smallest effect size is called as a setting of RecBole's models is.
    assert method_keys().keys() & RECBOLE_KEYS == {"beta"}


def test_no_module_keeps_a_list_of_keys_by_hand():
    known = {name for name in (*KEYS, *method_keys(), *RECBOLE) if "_" in name}
    kept = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] in ("config", "model"):  # a method may say which keys it goes without
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
                words = [one.value for one in node.elts if isinstance(one, ast.Constant)]
                if sum(word in known for word in words if isinstance(word, str)) > 4:
                    kept.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert not kept


def test_every_class_declares_what_its_files_set():
    ours = method_keys().keys() - RECBOLE_KEYS
    for name in (*registry.MODELS, *registry.SHORT_FORMS, "SPREEBPR", "PopSteerMultiVAE"):
        cls = registry.get_model(name)
        own = declared(cls).keys() | {k for base in registry.lineage(cls) for k in declared(registry.get_model(base))}
        layers = [properties_dir() / layer for layer in registry.layers_of(cls, name)]
        found = {key for file in layers if file.is_file() for key in yaml.safe_load(file.read_text())}
        assert found & ours <= own, name
        assert declared(cls).keys() <= found | KEYS.keys() | {"neurons_file"}, name


@pytest.mark.parametrize(
    ("key", "scope"),
    [
        ("result_file", "file"), ("neurons_file", "file"), ("resume", "start"), ("worker", "machine"),
        ("eval_memory_mb", "machine"), ("load_col", "protocol"), ("mask_seen", "protocol"), ("topk", "evaluation"),
        ("reranker_alpha", "evaluation"), ("alpha_pop", "strength"), ("sae_k", "training"), ("nonsense", "training"),
        ("learning_rate", "training"), ("group_field", "evaluation"),
    ],
)  # fmt: skip
def test_scopes(key: str, scope: str):
    assert scope_of(key) == scope
    assert scope in SCOPES


def test_a_model_may_say_that_it_is_trained_on_what_others_only_measure():
    assert scope_of("group_field", registry.get_model("DecFM")) == "training"
    assert catalogue.matters_for_training("group_field", registry.get_model("DecFM"))
    assert not catalogue.matters_for_training("group_field", registry.get_model("BPR"))


def test_files_are_what_a_run_writes():
    files = {"result_file", "recommendations_file", "neurons_file", "per_user_file", "per_item_file"}
    assert files <= set(keys_of("file"))
    assert all(key.optional and key.is_text for name in keys_of("file") if (key := key_named(name)))


def test_the_base_is_given_what_belongs_to_no_method():
    preset = FairConfig("PopSteerSASRec", "ml-1m", ["paper/popsteer-ml-1m.yaml"]).user_settings
    given = {**preset, "spree_strength": 2.0, "window_stride": 5, "resume": "x.pth", "n_layers": 3, "my_own": 1}
    model, base = (registry.get_model(name) for name in ("PopSteerSASRec", "SASRec"))
    left = catalogue.settings_of_base(given, model, base)
    assert {"window_stride": 5, "n_layers": 3, "my_own": 1}.items() <= left.items()
    assert not {"spree_strength", "sae_k", "alpha_pop", "resume"} & left.keys()
    assert not any(key.startswith(("sae_", "steer_", RERANKER_PREFIX)) for key in left)


def test_text_stays_text_where_a_key_holds_nothing_else():
    text = {name for name in (*KEYS, *method_keys(), *RECBOLE) if (key := key_named(name)) and key.is_text}
    assert {"dataset", "data_path", "USER_ID_FIELD", "encoding", "gpu_id", "resume", "item_inter_num_interval"} <= text
    assert not {"topk", "metrics", "spree_sites", "synthetic_length", "threshold", "user_features"} & text


def test_a_scope_that_is_none():
    with pytest.raises(ValueError, match="not a scope"):
        Key("int", scope="everything")
