"""The lists of what there is agree with what there is, and are there without PyTorch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from recbole_fair.cli import main
from recbole_fair.commands.listings import explanation, key_lines
from recbole_fair.config import overview
from recbole_fair.config.catalogue import own_keys
from recbole_fair.config.general_keys import OF_NAMES
from recbole_fair.config.recbole_keys import _WHAT, COMPUTED_KEYS, GENERAL, RECBOLE_KEYS
from recbole_fair.config.registry import METHODS, MODELS, get_model, recbole_models, rerankers
from recbole_fair.errors import FairError
from recbole_fair.evaluator.metrics import CLASSES
from recbole_fair.evaluator.specs import SPECS


def outcome(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(words)
    streams = capsys.readouterr()
    return int(ended.value.code or 0), streams.out, streams.err


def test_every_metric_is_listed_with_its_formula_and_direction() -> None:
    listed = {entry.name: entry for entry in overview.metrics()}
    for spec in SPECS:
        assert listed[spec.name].line == spec.formula
        kind = "nearest 0" if spec.to_zero else "less is better" if spec.smaller else "more is better"
        assert listed[spec.name].kind == kind, spec.name
    assert {name for name, entry in listed.items() if not entry.kind.startswith("RecBole")} == {s.name for s in SPECS}
    assert {"AUC", "GAUC", "RMSE", "LogLoss"} <= set(listed)
    assert len(CLASSES) <= len(listed)


def test_every_model_and_reranker_is_listed_with_a_line() -> None:
    listed = {entry.name: entry for entry in overview.models()}
    assert set(listed) == {*METHODS, *MODELS, *recbole_models()}
    own = [listed[name] for name in (*METHODS, *MODELS)]
    assert all(entry.line for entry in own)
    doc = get_model("TALL").__doc__ or ""
    assert " ".join(doc.split()).startswith(listed["TALL"].line)
    assert listed["BPR"].kind == "RecBole, general"
    assert listed["BERT4Rec"].line.startswith("BERT4Rec: Sequential Recommendation")  # the paper's title
    assert {entry.name for entry in overview.reranker_entries()} == set(rerankers())
    assert all(entry.line for entry in overview.reranker_entries())


def test_every_key_is_listed() -> None:
    listed = {entry.name: entry for entry in overview.all_keys()}
    assert {*OF_NAMES, *own_keys(), *(RECBOLE_KEYS - COMPUTED_KEYS), *overview.reranker_keys()} == set(listed)
    assert not [name for name, entry in listed.items() if not entry.line]


def test_keys_of_recbole_are_explained_in_words() -> None:
    assert set(_WHAT) <= set(GENERAL)
    assert explanation("data_path")[0].startswith("data_path: folder above the data sets', or a table")
    lines = {entry.name: entry.line for entry in overview.all_keys()}
    assert lines["epochs"] == "passes over the training data, at most"


def test_a_key_is_explained() -> None:
    text = "\n".join(explanation("alpha_pop"))
    for said in ("steering strength", "a number at least 0", "2.0  (PopSteerSequential)", "strength:", "PopSteer"):
        assert said in text, said
    text = "\n".join(explanation("base"))
    assert "base model of a method" in text
    assert "read by  PopSteer, SPREE, DDC" in text
    text = "\n".join(explanation("reranker_alpha"))
    assert "a number above 0 and below 1  (FAstarIR)" in text
    assert "0.4  (IPR, PP)" in text
    text = "\n".join(explanation("learning_rate"))
    assert "0.003  (SASRec)" in text
    assert "every model" in text
    for entry in overview.all_keys():
        assert len(explanation(entry.name)) >= 3, entry.name


def test_lists_are_searched_and_slips_hinted_at(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = outcome(["models", "bpr"], capsys)
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()} >= {"BPR", "ILEBPR", "IPSBPR"}
    code, out, _ = outcome(["rerankers", "popularity"], capsys)
    assert "IPR" in out
    code, out, _ = outcome(["keys", "steer_"], capsys)
    assert "steer_sigma" in out
    code, out, err = outcome(["metrics", "NDCGG"], capsys)
    assert code == 2
    assert "did you mean 'NDCG'" in err
    code, out, _ = outcome(["--help", "alpha_pop"], capsys)
    assert code == 0
    assert out.startswith("alpha_pop: steering strength")
    code, out, _ = outcome(["keys", "--model=none:Such"], capsys)
    assert code == 2


def test_data_sets_of_a_folder(small_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = outcome(["datasets", "--data_path", str(small_data)], capsys)
    assert code == 0
    names = {line.split()[0]: line for line in out.splitlines()}
    assert "here" in names["small"]
    assert "with item features" in names["small"]
    assert {"ml-100k", "ml-1m", "amazon-books"} <= set(names)


OWN = '''
from dataclasses import dataclass

from recbole.model.general_recommender import BPR

from recbole_fair.config.keys import Key
from recbole_fair.evaluator.specs import BY_KEY, MetricSpec
from recbole_fair.rerank.base import ReRanker


class MyBPR(BPR):
    """Matrix factorisation of my own. And more."""

    keys = {"my_weight": Key("float", low=0, what="a weight of mine", default=1.5)}


@dataclass(frozen=True)
class MyOrder(ReRanker):
    """An order of my own."""

    depth: int = 2


Second = MetricSpec("SecondHit", "hit at rank 2", "", 0, 1, per_user=BY_KEY["hit"].per_user)
'''


def test_one_s_own(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("listed_own.py").write_text(OWN)
    assert (
        "Matrix factorisation of my own (keys of its own: my_weight)"
        in outcome(["models", "listed_own:MyBPR"], capsys)[1]
    )
    assert "An order of my own (keys: reranker_depth)" in outcome(["rerankers", "listed_own:MyOrder"], capsys)[1]
    assert "hit at rank 2" in outcome(["metrics", "listed_own:Second"], capsys)[1]
    text = "\n".join(key_lines("my_weight", "listed_own:MyBPR"))
    for said in ("a weight of mine", "at least 0", "1.5", "MyBPR"):
        assert said in text, said
    with pytest.raises(FairError, match="No key has 'nothing'"):
        key_lines("nothing", "listed_own:MyBPR")


@pytest.mark.parametrize("words", [["--help"], ["models"], ["metrics"], ["rerankers"], ["datasets"], ["keys"],
                                   ["keys", "alpha_pop"], ["convert", "--help"], ["audit", "--help"]])  # fmt: skip
def test_nothing_heavy_is_imported(words: list[str], in_tmp: Path) -> None:
    code = (
        "import sys\nfrom recbole_fair.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as ended:\n"
        "    assert not ended.code\nprint([m for m in ('torch', 'recbole', 'pandas', 'scipy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
