"""The catalogue of results: its own files are sound, and what is wrong with one is a sentence."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import yaml

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.layers import find_config_file
from recbole_fair.config.registry import recbole_folder
from recbole_fair.config.results import rows, rows_named, tables
from recbole_fair.errors import FairError

TABLE = """\
paper: A paper
tables:
  first:
    metrics: [ndcg@10, giniindex@10]
    model: BPR
    dataset: small
    settings: {epochs: 1}
    seeds: [1, 2]
    tolerance: [0.01, 0.02]
    minutes: 2
    rows:
      one: {ours: [0.1, 0.2], sd: [0.01, ~], paper: [~, 0.3]}
      two: {settings: {epochs: 2}, scoring: {reranker: CP}, tolerance: [0.5, 0.6], ours: [0.1, 0.2], quick: true}
      three: {paper: [0.1, 0.2]}
      four: {script: python mine.py, ours: [0.1, 0.2]}
"""


def written(folder: Path, text: str) -> Path:
    (folder / "paper.yaml").write_text(text)
    tables.cache_clear()
    return folder


def test_rows_take_from_their_table_what_they_leave_out(tmp_path: Path) -> None:
    found = rows(written(tmp_path, TABLE))
    one, two = found["one"], found["two"]
    assert (one.model, one.dataset, one.seeds, one.minutes, one.table) == ("BPR", "small", (1, 2), 2, "first")
    assert one.ours == {"ndcg@10": 0.1, "giniindex@10": 0.2}
    assert one.sd == {"ndcg@10": 0.01}
    assert one.paper == {"giniindex@10": 0.3}
    assert one.tolerance == {"ndcg@10": 0.01, "giniindex@10": 0.02}
    assert two.settings == {"epochs": 2}
    assert two.tolerance == {"ndcg@10": 0.5, "giniindex@10": 0.6}
    assert two.command == "recbole-fair run -m BPR -d small --epochs=2 --reranker=CP --seed=1"
    assert [row.repeatable for row in found.values()] == [True, True, False, False]
    assert found["three"].command == ""
    assert [row.name for row in rows_named(["first", "one"], tmp_path)] == ["one", "two"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("minutes: 2", "minuts: 2", r"minuts is no entry; did you mean 'minutes'"),
        ("quick: true", "quik: true", r"two: quik is no entry; did you mean 'quick'"),
        ("ours: [0.1, 0.2], sd", "ours: [0.1], sd", r"one: ours has 1 numbers for 2 metrics"),
        ("ours: [0.1, 0.2], sd", "ours: [0.1, much], sd", r"one: ours holds 'much', which is no number"),
        ("ours: [0.1, 0.2], sd", "ours: [0.1, .nan], sd", r"one: ours holds nan, which is no number"),
        ("    tolerance: [0.01, 0.02]\n", "", r"one: no tolerance is given for giniindex@10"),
        ("    seeds: [1, 2]\n", "", r"one: no seeds is given"),
        ("    model: BPR\n", "    heads: [NDCG]\n", r"heads=\['NDCG'\] are not as many as metrics"),
        ("scoring: {", "variant: base, scoring: {", r"two: variant=base cannot be set"),
        ("    minutes: 2\n", "    minutes: 2\n    change: five\n", r"change=five is no row of it"),
        ("three: {", "three: {also: [x], ", r"three has 1 further cells, the table 0"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in TABLE
    with pytest.raises(FairError, match=says):
        tables(written(tmp_path, TABLE.replace(old, new)))


def test_names_that_cannot_be_made_again_are_sentences(tmp_path: Path) -> None:
    folder = written(tmp_path, TABLE)
    for name, says in (
        ("on", r"No row or table of results is called 'on'; did you mean 'one'\?"),
        ("three", "three holds the paper's numbers alone"),
        ("four", r"four needs several trainings at once; make it again by: python mine.py"),
    ):
        with pytest.raises(FairError, match=says):
            rows_named([name], folder)
    (folder / "other.yaml").write_text("tables: {second: {metrics: [], rows: {one: {}}}}")
    tables.cache_clear()
    with pytest.raises(FairError, match="there are two rows one"):
        rows_named(["one"], folder)


def test_rows_of_the_package_name_what_there_is() -> None:
    found = rows()
    assert len(found) > 100
    assert {row.model for row in found.values() if row.quick} >= {"BPR", "ILEBPR", "PopSteerBPR", "SPREEBPR", "DecFM"}
    configs: set[str] = set()
    for row in found.values():
        for preset in row.presets:
            find_config_file(preset)
        if not row.ours:
            assert row.paper, f"{row.name} holds no number"
            continue
        assert all(limit > 0 for limit in row.tolerance.values())
        assert all(deviation >= 0 for deviation in row.sd.values())
        assert all(math.isfinite(value) for value in row.ours.values())
        # A deviation that is far beyond the tolerance would make a row fail by chance.
        for metric, deviation in row.sd.items():
            assert row.script or 1.5 * deviation <= row.tolerance[metric], (row.name, metric)
        what = repr((row.model, row.dataset, row.presets, row.settings))
        if not row.script and what not in configs:
            configs.add(what)
            FairConfig(row.model, row.dataset, row.presets, {**row.settings, "data_path": "data"})


def test_data_sets_of_the_papers_are_recboles_and_have_presets() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "papers.md").read_text(encoding="utf-8")
    names: set[str] = set()
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 5 and cells[4] in ("measured", "not tried"):
            names |= set(re.findall(r"`([a-z0-9-]+)`", cells[2]))
    folder = recbole_folder()
    assert folder is not None
    known = yaml.safe_load((folder / "properties" / "dataset" / "url.yaml").read_text())
    assert len(names) >= 10
    assert names <= set(known)
    for name in names | {"foursquare-tky-merged", "foursquare-tky-not-merged"}:
        assert find_config_file(f"dataset/{name}.yaml").is_file()
        assert name in known
        config = FairConfig("BPR", name, config_dict={"data_path": "data"})
        assert config["ITEM_ID_FIELD"] in config["load_col"]["inter"]
    for preset in set(re.findall(r"`(paper/[a-z0-9-]+\.yaml)`", page)):
        find_config_file(preset)


@pytest.mark.parametrize(
    ("model", "presets", "key", "value"),
    [
        ("SASRec", ["paper/spree-ml-1m.yaml", "paper/spree-figure-3.yaml"], "reranker_candidates", None),
        ("ILEBPR", ["paper/ile-ml-1m.yaml"], "embedding_size", 128),
        ("DecNFM", ["paper/decrs-nfm-ml-1m.yaml"], "train_batch_size", 512),
        ("PopSteerSASRec", ["paper/popsteer-ml-1m.yaml"], "segment_by", "items"),
    ],
)
def test_presets_of_the_papers_are_configurations(model: str, presets: list[str], key: str, value: object) -> None:
    config = FairConfig(model, "ml-1m", presets, {"data_path": "data"})
    assert config[key] == value
