"""Search spaces in yaml and in RecBole's form."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import cast

import pytest
import yaml
from recbole.trainer import HyperTuning

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.registry import METHODS, MODELS, get_reranker, rerankers
from recbole_fair.errors import FairError
from recbole_fair.model.popsteer.sequential import PopSteerSequential
from recbole_fair.runs.spaces import Choice, Numbers, check_space, dimension_of, read_space, shipped_space
from recbole_fair.runs.tune import space_names

# RecBole's own examples: hyper.test, and the forms of its documentation and of its benchmark's ranges.
RECBOLE = """learning_rate loguniform -8,0
embedding_size choice [64,96 , 128]
train_batch_size choice [512,1024,2048]
mlp_hidden_size choice ['[64,64,64]','[128,128]']
dropout_prob uniform 0,0.5
n_layers choice [1,2,3,4]
step quniform 0,2,0.5

hidden_act choice ['relu','tanh']
reg choice [1e-05,1e-04]
"""


def test_recboles_form(tmp_path: Path):
    (tmp_path / "model.hyper").write_text(RECBOLE)
    space = read_space(tmp_path / "model.hyper")
    assert space["learning_rate"] == Numbers(math.exp(-8), 1.0, log=True)
    assert space["embedding_size"] == Choice((64, 96, 128))
    assert space["mlp_hidden_size"] == Choice(([64, 64, 64], [128, 128]))
    assert space["dropout_prob"] == Numbers(0.0, 0.5)
    assert space["step"] == Numbers(0.0, 2.0, step=0.5)
    assert space["hidden_act"] == Choice(("relu", "tanh"))
    assert space["reg"] == Choice((1e-5, 1e-4))


# hyper.test of RecBole's repository (of its last and of an earlier version), and the example of its documentation.
OF_RECBOLE = {
    "last": (
        "learning_rate choice [0.004,0.003,0.002]\ndropout_prob choice [0.4,0.6,0.8]\ntrain_batch_size choice [2048]\n"
        "kl_loss_weight choice [0.4,0.5,0.6]",
        {"learning_rate": Choice((0.004, 0.003, 0.002)), "train_batch_size": Choice((2048,)),
         "dropout_prob": Choice((0.4, 0.6, 0.8)), "kl_loss_weight": Choice((0.4, 0.5, 0.6))},
    ),
    "earlier": (
        "learning_rate loguniform -8, 0\nembedding_size choice [64, 96 , 128]\n"
        "train_batch_size choice [512, 1024, 2048]\nmlp_hidden_size choice ['[64, 64, 64]','[128, 128]']\n",
        {"learning_rate": Numbers(math.exp(-8), 1.0, log=True), "embedding_size": Choice((64, 96, 128)),
         "train_batch_size": Choice((512, 1024, 2048)), "mlp_hidden_size": Choice(([64, 64, 64], [128, 128]))},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(OF_RECBOLE))
def test_recbole_s_own_files_give_their_spaces(tmp_path: Path, name: str):
    text, expected = OF_RECBOLE[name]
    (tmp_path / "hyper.test").write_text(text)
    assert read_space(tmp_path / "hyper.test") == expected


def test_a_line_that_names_no_kind_is_passed_over_as_under_recbole(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """hrm_hyper.test of RecBole's repository has such a line; RecBole does not vary the key, and does not say so."""
    (tmp_path / "hrm_hyper.test").write_text("embedding_size choice [64]\nreg_weight ['[0.0,0.0]','[0.01,0.0001]']\n")
    assert read_space(tmp_path / "hrm_hyper.test") == {"embedding_size": Choice((64,))}
    assert "line 2: reg_weight is not varied, as under RecBole" in caplog.text


# The forms that RecBole's own files have: repeated values, a comma at the end, spaces, texts of lists, a line in short.
FORMS = [
    "learning_rate choice [0.003,0.002,0.001,]\nembedding_size choice [64]\n",
    "anneal_cap choice [0.2]\ntotal_anneal_steps choice [1000,10000,100000,100000]",
    "learning_rate choice [0.01,0.005]\n\n",
    "learning_rate loguniform -8,0\nmlp_hidden_size choice ['[64,64,64]','[128,128]'] \n",
    "learning_rate choice [0.001,0.0003]\nreg_weight ['[0.0,0.0]','[0.01,0.0001]']",
    "step quniform 0,2,0.5\ndropout_prob uniform 0,0.5\n",
    RECBOLE,
    *(text for text, _ in OF_RECBOLE.values()),
]


@pytest.mark.parametrize("text", FORMS)
def test_the_space_is_the_one_that_recbole_reads(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch):
    """RecBole's own reader, with a hyperopt that gives back what it is asked for."""
    hp = SimpleNamespace(
        choice=lambda name, values: Choice(tuple(yaml.safe_load(v) if isinstance(v, str) else v for v in values)),
        uniform=lambda name, low, high: Numbers(low, high),
        quniform=lambda name, low, high, step: Numbers(low, high, step=step),
        loguniform=lambda name, low, high: Numbers(math.exp(low), math.exp(high), log=True),
    )
    monkeypatch.setitem(sys.modules, "hyperopt", cast(ModuleType, SimpleNamespace(hp=hp)))
    (tmp_path / "hyper.test").write_text(text)
    assert read_space(tmp_path / "hyper.test") == HyperTuning._build_space_from_file(tmp_path / "hyper.test")


def test_the_same_draws_as_recboles_hyperopt_would_allow():
    """The ends of loguniform are natural exponents, as in hyperopt: exp(uniform(low, high))."""
    space = Numbers(math.exp(-8), math.exp(0), log=True)
    assert space.holds(math.exp(-4))
    assert not space.holds(-4)


def test_yaml(tmp_path: Path):
    (tmp_path / "space.yaml").write_text(
        "alpha_pop: {low: 0, high: 5.0}\nsae_k: {low: 8, high: 64, log: true}\nsteps: {low: 0, high: 10, step: 5}\n"
        "steer_sigma: [group, pooled]\nkeep_reconstruction_error: [true, false]\n"
    )
    space = read_space(tmp_path / "space.yaml")
    assert space["alpha_pop"] == Numbers(0, 5.0)
    assert space["sae_k"] == Numbers(8, 64, log=True, whole=True)
    assert space["steps"] == Numbers(0, 10, step=5, whole=True)
    assert [space["steps"].holds(v) for v in (0, 5, 10, 3, 15)] == [True, True, True, False, False]
    assert space["steer_sigma"] == Choice(("group", "pooled"))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("x choice 3", "is not a list"),
        ("x choice __import__('os').system('true')", "is not a list"),
        ("x uniform 0", "needs 2 numbers"),
        ("x uniform 0,inf", "needs 2 numbers"),
        ("x uniform 1,0", "low must be below high"),
        ("x unifrom 0,1", "did you mean 'uniform'"),
        ("x loguniform 0,1000", "exponents of e"),
        ("x", "holds no search space"),
        ("x choice [1]\nx choice [2]", "is given twice"),
        ("", "holds no search space"),
    ],
)
def test_bad_lines_are_a_sentence(tmp_path: Path, line: str, says: str):
    (tmp_path / "x.hyper").write_text(line + "\n")
    with pytest.raises(FairError, match=says):
        read_space(tmp_path / "x.hyper")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (3, "needs a list of choices"),
        ([], "needs a list of choices"),
        ({"low": 1}, "needs a list of choices"),
        ({"low": 1, "high": 2, "logs": True}, "did you mean 'log'"),
        ({"low": 0, "high": 2, "log": True}, "a low above 0"),
        ({"low": 0, "high": "x"}, "finite numbers"),
        ({"low": 0, "high": 2, "step": 0}, "a step above 0"),
    ],
)
def test_bad_yaml_is_a_sentence(value: object, says: str):
    with pytest.raises(FairError, match=says):
        dimension_of("key", value, "space.yaml")


def test_values_have_to_be_allowed_for_their_keys():
    known = ["alpha_pop", "sae_k"]
    check_space({"alpha_pop": Numbers(0, 5)}, PopSteerSequential, known, {})
    with pytest.raises(FairError, match="alpha_pop=-1 is not allowed: it must be a number at least 0"):
        check_space({"alpha_pop": Numbers(-1, 5)}, PopSteerSequential, known, {})
    with pytest.raises(FairError, match="alpha_pup is not a known key; did you mean 'alpha_pop'"):
        check_space({"alpha_pup": Numbers(0, 5)}, PopSteerSequential, known, {})


@pytest.mark.parametrize("name", [name for name in rerankers() if name != "None"])
def test_each_re_ranker_comes_with_a_space_that_its_limits_allow(name: str):
    file = shipped_space([name])
    assert file is not None
    cls = get_reranker(name)
    limits = {key: cls.limits[field] for field, key in cls.keys().items() if field in cls.limits}
    check_space(read_space(file), PopSteerSequential, [], limits)


@pytest.mark.parametrize("name", [*sorted(set(MODELS) - {"Pop"}), *(f"{method}BPR" for method in METHODS)])
def test_each_model_of_ours_comes_with_a_space(name: str):
    config = FairConfig(name, "ml-100k")
    file = shipped_space(space_names(config))
    assert file is not None
    check_space(read_space(file), config.model_class, list(config.final_config_dict), {})
