"""Rows of the catalogue are made again as their command makes them, and judged by their tolerance."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from recbole_fair import quick_start
from recbole_fair.cli import main
from recbole_fair.commands import verification
from recbole_fair.config.results import Row
from recbole_fair.errors import FairError
from recbole_fair.report.verdicts import Difference, Verdict, summary, verdict_lines
from recbole_fair.runs.verify import verify

SETTINGS = {"epochs": 1, "embedding_size": 8, "group_metrics": {"mainstream": {"metrics": ["NDCG"], "bins": 5}}}


def row(name: str = "row", **entries: object) -> Row:
    plain: dict[str, object] = {
        "table": "table", "label": "BPR", "model": "BPR", "dataset": "small", "settings": SETTINGS, "seeds": (3,),
        "ours": {"ndcg@10": 0.0}, "sd": {}, "paper": {}, "tolerance": {"ndcg@10": 1.0}, "minutes": 1,
    }  # fmt: skip
    return Row(name=name, **{**plain, **entries})  # type: ignore[arg-type]


def test_numbers_are_those_of_the_command(small_data: Path, in_tmp: Path) -> None:
    grouped = "ndcg@10[mainstream=low]"
    wanted = {"ndcg@10": 0.0, grouped: 0.0}
    plain = row("plain", ours=wanted, tolerance=dict.fromkeys(wanted, 1.0))
    ranked = row("ranked", scoring={"reranker": "CP", "reranker_lambda": 0.9})
    seen: list[str] = []
    before = logging.root.manager.disable
    verdicts = verify([plain, ranked], None, str(small_data), in_tmp / "kept", lambda v: seen.append(v.row.name))
    assert seen == ["plain", "ranked"]
    assert logging.root.manager.disable == before
    assert len(list((in_tmp / "kept").glob("BPR-*.pth"))) == 1  # rows of one training share it
    given = {**SETTINGS, "seed": 3, "data_path": str(small_data), "show_progress": False}
    result = quick_start.run_recbole_fair("BPR", "small", config_dict=given, saved=False)
    reranked = quick_start.run_recbole_fair(
        "BPR", "small", config_dict={**given, "reranker": "CP", "reranker_lambda": 0.9}, saved=False
    )
    groups = {group["group"]: group["values"] for group in result["groups"]["mainstream"]["groups"]}
    assert verdicts[0].differences[0].found == result["test_result"]["ndcg@10"] > 0
    assert verdicts[0].differences[1].found == groups["low"]["ndcg@10"]
    assert verdicts[1].differences[0].found == reranked["test_result"]["ndcg@10"]
    assert reranked["test_result"]["ndcg@10"] != result["test_result"]["ndcg@10"]


def test_seeds_share_a_split_where_the_row_says_so(small_data: Path) -> None:
    random = {
        **SETTINGS,
        "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": "user", "mode": "full"},
    }
    shared = row("shared", model="Pop", settings=random, seeds=(1, 2), split_seed=5)
    own = replace(shared, split_seed=None)
    (one, two) = (verify([replace(shared, seeds=(seed,))], None, str(small_data))[0] for seed in (1, 2))
    assert one.differences[0].found == two.differences[0].found  # Pop has no other chance
    (one, two) = (verify([replace(own, seeds=(seed,))], None, str(small_data))[0] for seed in (1, 2))
    assert one.differences[0].found != two.differences[0].found
    (first,) = verify([own], 1, str(small_data))
    assert first.seeds == (1,)
    assert first.differences[0].found == one.differences[0].found
    (both,) = verify([own], None, str(small_data))
    assert both.differences[0].found == (one.differences[0].found + two.differences[0].found) / 2


def test_a_metric_that_is_not_there_is_named(small_data: Path, in_tmp: Path) -> None:
    for metric in ("upd@10", "ndcg@10[mainstream=middle]", "ndcg@10[gender=F]"):
        wrong = row(ours={metric: 0.1}, tolerance={metric: 1.0})
        with pytest.raises(FairError, match=r"row: its settings do not give the metric"):
            verify([wrong], None, str(small_data), in_tmp)
    with pytest.raises(FairError, match="seeds=0 is no number of seeds"):
        verify([row()], 0)


def test_verdicts_say_how_far_off() -> None:
    near = Difference("ndcg@10", 0.2, 0.205, 0.01, 0.25)
    far, nothing = Difference("giniindex@10", 0.9, 0.8, 0.05), Difference("x@10", 0.1, float("nan"), 9.0)
    assert (near.within, far.within, nothing.within) == (True, False, False)
    assert Difference("x", 0.25, 0.5, 0.25).within  # the bound itself is allowed
    good, bad = (Verdict(row(), (3,), differences, 7.2) for differences in ((near,), (near, far)))
    lines = verdict_lines(bad)
    assert lines[0] == "row (BPR; seed 3; 7 s): outside its tolerance (giniindex@10)"
    assert lines[3].split() == ["ndcg@10", "0.2050", "0.2000", "+0.0050", "0.0100", "0.2500"]
    assert lines[4].split() == ["giniindex@10", "0.8000", "0.9000", "-0.1000", "0.0500"]
    assert verdict_lines(good)[0].endswith("within its tolerance")
    assert summary([good, good]) == ["2 of 2 rows within tolerance, 14 s."]
    assert summary([good, bad]) == ["1 of 2 rows within tolerance, 14 s.", "Outside: row."]


def ended(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(words)
    streams = capsys.readouterr()
    return int(end.value.code or 0), streams.out, streams.err


def test_the_command_ends_with_1_outside_the_tolerance(
    small_data: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick, slow = row("quick", quick=True), row("slow", tolerance={"ndcg@10": 1e-9})
    monkeypatch.setattr(verification, "rows", lambda: {"quick": quick, "slow": slow})
    monkeypatch.setattr(verification, "rows_named", lambda names: [{"quick": quick, "slow": slow}[n] for n in names])
    code, out, _ = ended(["verify", "--quick", f"--data_path={small_data}"], capsys)
    assert code == 0
    assert out.splitlines()[-1].startswith("1 of 1 rows within tolerance")
    code, out, _ = ended(["verify", "slow", "--data_path", str(small_data)], capsys)
    assert code == 1
    assert "Outside: slow." in out
    code, _, err = ended(["verify", "--quick", "--all"], capsys)
    assert (code, err) == (2, "recbole-fair: verify takes names, --all or --quick; give one of them.\n")


def test_without_names_rows_are_listed_and_nothing_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ended(["verify"], capsys)
    assert code == 0
    assert "ile-authors-bpr" in out
    assert "by a script" in out
    assert "not measured" in out
    assert "(quick)" in out
    code, out, _ = ended(["verify", "--table", "decrs-nfm"], capsys)
    assert code == 0
    assert "| fused | 0.0609 | 0.1088 |" in out
    code, _, err = ended(["verify", "--table", "absent"], capsys)
    assert code == 2
    assert "no table absent" in err
    assert ended(["verify", "nothing"], capsys)[0] == 2
