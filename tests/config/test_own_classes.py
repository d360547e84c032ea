"""Somebody's own model, post-hoc model, metric, re-ranker and trainer by import path, on the command line too."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recbole_fair.cli import main
from recbole_fair.config import registry
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import load_checkpoint
from recbole_fair.quick_start import evaluate_checkpoint, run_recbole_fair

MODULE = '''
"""Everything that a stranger may add, in one file."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from recbole.evaluator.base_metric import AbstractMetric
from recbole.model.general_recommender import BPR
from recbole.trainer import Trainer
from recbole.utils import EvaluatorType

from recbole_fair.config.keys import Key
from recbole_fair.evaluator.specs import MetricSpec, PerUser
from recbole_fair.model.posthoc import PostHocModel
from recbole_fair.rerank import ReRanker


class Halved(BPR):
    keys = {"halving": Key("float", low=0, high=1, default=0.5, what="factor of all scores")}

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.halving = config["halving"]

    def full_sort_predict(self, interaction):
        return super().full_sort_predict(interaction) * self.halving


class Shrunk(PostHocModel):
    """Shrinks users' vectors towards their mean."""

    base_class, base_model_name, type, input_type = BPR, "BPR", BPR.type, BPR.input_type
    keys = {
        "shrink_by": Key("float", low=0, high=1, default=0.25, scope="strength", what="0 is the base"),
        "shrink_rounds": Key("int", low=1, default=2),
    }

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.rounds = config["shrink_rounds"]
        self.register_buffer("mean", torch.zeros(config["embedding_size"]))

    def fit_intervention(self, train_data, valid_data, show_progress=False):
        self.mean.copy_(self.base.user_embedding.weight[1:].mean(0))
        self.fitted.fill_(True)
        self.report = {"rounds": self.rounds}
        return self.report

    def edit(self, users, variant):
        return users + self.shrink_by * (self.mean - users)


class HitAtFirst(AbstractMetric):
    """Share of users whose first item is right: one of RecBole's kind."""

    metric_type, metric_need, smaller = EvaluatorType.RANKING, ["rec.topk"], False

    def calculate_metric(self, dataobject):
        return {f"hitatfirst@{k}": dataobject.get("rec.topk")[:, 0].double().mean().item() for k in (3, 5)}


def hits(inputs):
    return PerUser(torch.stack([inputs.hits[:, :k].double().sum(1) for k in inputs.topk], dim=1))


NUMBER_OF_HITS = MetricSpec("NumberOfHits", formula="hits in the list", notes="", low=0, high="k", per_user=hits)


@dataclass(frozen=True)
class Reversed(ReRanker):
    """The best candidates, worst first."""

    limits: ClassVar[dict[str, Key]] = {"skip": Key("int", low=0)}

    skip: int = 0

    def places(self, candidates, facts, k):
        return torch.arange(self.skip + k - 1, self.skip - 1, -1).expand(len(candidates.items), -1)


class Patient(Trainer):
    def fit(self, *args, **kwargs):
        self.patience = True
        return super().fit(*args, **kwargs)


NOTHING = 3
'''


@pytest.fixture
def module(in_tmp: Path, small_data: Path) -> Iterator[str]:
    """Name of a module in the working folder, which is not on the import path."""
    name = f"own_{in_tmp.name.replace('-', '_')}"
    (in_tmp / f"{name}.py").write_text(MODULE)
    (in_tmp / "base.yaml").write_text(
        f"data_path: {small_data}\nepochs: 2\nembedding_size: 8\ntopk: [5, 3]\nstate: error\nshow_progress: false\n"
        "metrics: [NDCG, Hit]\nload_col: {inter: [user_id, item_id, timestamp]}\n"
    )
    yield name
    sys.modules.pop(name, None)


def run(*words: str) -> dict:
    with pytest.raises(SystemExit) as ended:
        main(["run", "-d", "small", "-c", "base.yaml", "--result_file=out.json", *words])
    assert ended.value.code == 0
    return json.loads(Path("out.json").read_text())


def test_a_model(module: str):
    result = run(f"--model={module}:Halved", "--halving=0.25")
    assert result["model"] == "Halved"
    assert result["config"]["halving"] == 0.25
    name = f"{module}:Halved"
    with pytest.raises(FairError, match=r"halving=7 is not allowed: it must be a number at least 0 and at most 1"):
        FairConfig(name, "small", ["base.yaml"], {"halving": 7})
    with pytest.raises(FairError, match="'Halved' is not a known model"):
        evaluate_checkpoint(result["checkpoint"])
    again = evaluate_checkpoint(result["checkpoint"], {"model": name})
    assert again["test_result"] == result["test_result"]
    with pytest.raises(FairError, match="model cannot be changed"):
        evaluate_checkpoint(result["checkpoint"], {"model": f"{module}:Shrunk"})
    assert str(Path.cwd()) not in sys.path


def test_a_post_hoc_model_with_keys_of_its_own(module: str):
    base = run("--model=BPR")
    result = run("-m", f"{module}:Shrunk", "--shrink_by=0", "--shrink_rounds=4")
    assert result["base"]["source"] == "checkpoint_dir"  # the method's own keys do not train the base anew
    assert result["intervention"] == {"rounds": 4}
    assert result["variants"]["base"] == result["variants"]["intervened"] == base["test_result"]
    name = f"{module}:Shrunk"
    assert FairConfig(name, "small", ["base.yaml"])["shrink_by"] == 0.25
    with pytest.raises(FairError, match="shrink_by=2 is not allowed"):
        FairConfig(name, "small", ["base.yaml"], {"shrink_by": 2})
    with pytest.raises(FairError, match=r"shrink_buy=0.1 is not a known key; did you mean 'shrink_by'\?"):
        FairConfig(name, "small", ["base.yaml"], {"shrink_buy": 0.1})
    moved = evaluate_checkpoint(result["checkpoint"], {"model": name, "shrink_by": 1.0})
    assert moved["variants"]["intervened"] != moved["variants"]["base"]
    with pytest.raises(FairError, match="shrink_rounds=9 cannot take effect"):
        evaluate_checkpoint(result["checkpoint"], {"model": name, "shrink_rounds": 9})


def test_metrics(module: str):
    result = run(
        "-m", "BPR", f"--metrics=['NDCG','{module}:HitAtFirst','{module}:NUMBER_OF_HITS','Recall']",
        f"--valid_metric={module}:NUMBER_OF_HITS@3",
    )  # fmt: skip
    found = result["test_result"]
    assert {"ndcg@5", "hitatfirst@5", "numberofhits@3"} <= found.keys()
    assert result["best_valid_score"] == result["best_valid_result"]["numberofhits@3"]
    assert 0 <= found["hitatfirst@5"] <= found["numberofhits@5"]
    with pytest.raises(FairError, match="is neither a MetricSpec nor a class derived"):
        FairConfig("BPR", "small", ["base.yaml"], {"metrics": [f"{module}:NOTHING"]})


def test_a_reranker(module: str):
    result = run("-m", "BPR", f"--reranker={module}:Reversed", "--reranker_skip=1", "--recommendations_file=r.csv")
    assert result["reranker"]["reranker_skip"] == 1
    with pytest.raises(
        FairError, match=r"reranker_skip=-1 is not allowed for .*: it must be a whole number at least 0"
    ):
        FairConfig("BPR", "small", ["base.yaml"], {"reranker": f"{module}:Reversed", "reranker_skip": -1})


def test_a_trainer(module: str):
    config = FairConfig("BPR", "small", ["base.yaml"], {"trainer": f"{module}:Patient"})
    found = registry.get_trainer(config, config.model_class)
    names = [c.__name__ for c in found.__mro__]
    assert names.index("FairTrainerMixin") < names.index("Patient")
    assert run("-m", "BPR", f"--trainer={module}:Patient")["test_result"]
    with pytest.raises(FairError, match=r"trainer='PostHocTrainr' is not a known trainer; did you mean 'PostHoc"):
        run_recbole_fair("BPR", "small", ["base.yaml"], {"trainer": "PostHocTrainr"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no_such_module_here:X", "there is no module 'no_such_module_here' in"),
        ("{}:Nothing", r"holds no Nothing; did you mean 'NOTHING'\?"),
        ("{}:NOTHING", "is not a class derived from RecBole's AbstractRecommender"),
        ("{}:Reversed", "is not a class derived from RecBole's AbstractRecommender"),
        ("{}:", "write module:Class"),
        (":X", "write module:Class"),
        ("os.path:join('a')", "write module:Class"),
        ("broken:X", "importing broken failed: SyntaxError"),
        ("wanting:X", "wanting needs the package 'not_installed_anywhere'"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(module: str, text: str, says: str):
    Path("broken.py").write_text("def x(:\n")
    Path("wanting.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(FairError, match=says) as caught:
        FairConfig(text.format(module), "small", ["base.yaml"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["reranker", "trainer", "metrics"])
def test_nothing_is_imported_because_a_checkpoint_says_so(module: str, key: str, monkeypatch: pytest.MonkeyPatch):
    file = run("-m", "BPR")["checkpoint"]
    content = load_checkpoint(file)
    Path("trap.py").write_text("from pathlib import Path\nPath('sprung').touch()\n")
    trap = "trap:X" if key != "metrics" else ["NDCG", "trap:X"]
    for place in ("user_settings", "config"):
        stored = {**content, place: {**content[place], key: trap}}
        monkeypatch.setattr("recbole_fair.quick_start.open_checkpoint", lambda *_, stored=stored: stored)
        with pytest.raises(FairError, match=f"{key}='trap:X' is stored in the checkpoint.*nothing is imported"):
            evaluate_checkpoint(file)
    assert not Path("sprung").exists()
    if key != "trainer":  # another one of those cannot take effect
        assert evaluate_checkpoint(file, {key: ["NDCG"] if key == "metrics" else None})["test_result"]
