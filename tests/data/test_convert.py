"""Tables of others become atomic files in which every id, text and instant is what it was."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbole_fair.cli import main
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.facts.interactions import split_interactions
from recbole_fair.data.reading.prepare import load_data
from recbole_fair.data.reading.table import Form, Table, read_table
from recbole_fair.data.tables.conversion import Request, convert
from recbole_fair.data.tables.sources import open_table
from recbole_fair.errors import FairError

ROWS = [("007", "NA", "4.5", "1425168000"), ("7", "null", "3", "1425168060"), ("007", "1e3", "", "1425168120")]


def read(folder: Path, suffix: str = "inter") -> Table:
    return read_table(folder / f"{folder.name}.{suffix}", Form())


def texts(table: Table, column: str) -> list[str]:
    return table.texts[column].values.tolist()


def write_csv(path: Path, header: list[str], rows: list[Any], separator: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, delimiter=separator)
        out.writerow(header)
        out.writerows(rows)
    return path


def written(tmp_path: Path, kind: str) -> Path:
    """The rows above in a file of some kind."""
    names = ["userId", "movieId", "rating", "timestamp"]
    if kind in ("csv", "tsv"):
        return write_csv(tmp_path / f"r.{kind}", names, list(ROWS), "\t" if kind == "tsv" else ",")
    frame = pd.DataFrame(ROWS, columns=names)
    frame["rating"] = pd.to_numeric(frame["rating"])
    frame["timestamp"] = frame["timestamp"].astype(int)
    path = tmp_path / f"r.{kind}"
    if kind == "parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True)
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_file_gives_the_same(tmp_path: Path, kind: str) -> None:
    (report,) = convert(Request(written(tmp_path, kind), tmp_path / "shop"))
    table = read(tmp_path / "shop")
    assert report.header == ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
    assert texts(table, "user_id") == ["007", "7", "007"]
    assert texts(table, "item_id") == ["NA", "null", "1e3"]
    np.testing.assert_array_equal(table.numbers["rating"].values, [4.5, 3, np.nan])
    np.testing.assert_array_equal(table.numbers["timestamp"].values, [float(row[3]) for row in ROWS])
    assert (report.read, report.written, report.users, report.items, report.dropped) == (3, 3, 2, 3, {})


_TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1, max_size=8)
_MARKS = st.text(st.sampled_from("ab \t\n\r\",|;\\'\u2028\x85\x0b"), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(_TEXT | _MARKS, _TEXT | _MARKS, _TEXT | _MARKS), min_size=1, max_size=6))
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_texts_are_read_back_as_they_were(tmp_path: Path, kind: str, rows: list[tuple[str, str, str]]) -> None:
    folder = tmp_path / "shop"
    if kind == "jsonl":
        source = tmp_path / "r.jsonl"
        lines = [json.dumps(dict(zip(("user", "item", "note"), row, strict=True))) for row in rows]
        source.write_text("\n".join(lines), encoding="utf-8")
    else:  # what pandas reads in a csv file is what is to be there
        source = tmp_path / "r.csv"
        pd.DataFrame(rows, columns=["user", "item", "note"]).to_csv(source, index=False, quoting=csv.QUOTE_ALL)
        frame = pd.read_csv(source, dtype=object, keep_default_na=False, na_filter=False)
        rows = [(row[0], row[1], row[2]) for row in frame.itertuples(index=False)]
        if any(line.count(",") >= 2 for row in rows for cell in row for line in cell.split("\n")[1:]):
            return  # looks like a quote that swallows rows, and is refused as such
    convert(Request(source, folder, keep=["note:token"], overwrite=True))
    table = read(folder)
    found = list(zip(*(texts(table, name) for name in ("user_id", "item_id", "note")), strict=True))
    for row, back in zip(rows, found, strict=True):
        assert back == row or back == tuple(_in_one_line(cell) for cell in row)
        if not any("\t" in cell for cell in row):
            assert back == row


def _in_one_line(cell: str) -> str:
    return cell.replace("\r\n", " ").replace("\r", " ").replace("\n", " ")


INSTANT = 1425218523  # 2015-03-01 14:02:03 UTC


@pytest.mark.parametrize(
    ("cells", "seconds", "words"),
    [
        ([str(INSTANT)], INSTANT, "seconds since"),
        ([f"{INSTANT}.25"], INSTANT + 0.25, "seconds since"),
        ([f"{INSTANT}123"], INSTANT + 0.123, "milliseconds"),
        ([f"{INSTANT}000001"], INSTANT + 1e-6, "microseconds"),
        ([f"{INSTANT}000000000"], INSTANT, "nanoseconds"),
        (["2015-03-01T14:02:03Z"], INSTANT, "ISO"),
        (["2015-03-01 14:02:03"], INSTANT, "ISO"),
        (["2015-03-01 14:02:03 UTC"], INSTANT, "ISO"),
        (["2015-03-01T15:02:03+01:00"], INSTANT, "ISO"),
        (["2015-03-01T14:02:03.5"], INSTANT + 0.5, "ISO"),
        (["2015-03-01"], INSTANT - 50523, "ISO"),
        (["20150301"], INSTANT - 50523, "days as"),
        (["20150301140203"], INSTANT, "dates as 2015"),
        (["01.03.2015 14:02:03"], INSTANT, "%d.%m.%Y"),
        (["03/13/2015", "03/01/2015"], INSTANT - 50523 + 12 * 86400, "%m/%d/%Y"),
        (["13/03/2015", "01/03/2015"], INSTANT - 50523 + 12 * 86400, "%d/%m/%Y"),
        (["Sun Mar 01 14:02:03 +0000 2015"], INSTANT, "%a %b"),
        (["Sun, 01 Mar 2015 14:02:03 GMT"], INSTANT, "GMT"),
        (["03 1, 2015"], INSTANT - 50523, "%m %d, %Y"),
        (["12"], 12, "as they stand"),
    ],
)
def test_times_in_any_usual_form(tmp_path: Path, cells: list[str], seconds: float, words: str) -> None:
    source = write_csv(tmp_path / "r.csv", ["user", "item", "date"], [("u", f"i{n}", c) for n, c in enumerate(cells)])
    (report,) = convert(Request(source, tmp_path / "shop"))
    assert read(tmp_path / "shop").numbers["timestamp"].values[0] == pytest.approx(seconds, abs=1e-6)
    assert any(words in note for note in report.notes)


@given(st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_iso_dates_are_those_of_the_standard_library(tmp_path: Path, instant: datetime) -> None:
    source = write_csv(tmp_path / "r.csv", ["user", "item", "date"], [("u", "i", instant.isoformat())])
    convert(Request(source, tmp_path / "shop", overwrite=True))
    seconds = read(tmp_path / "shop").numbers["timestamp"].values[0]
    assert seconds == pytest.approx(instant.replace(tzinfo=timezone.utc).timestamp(), abs=2e-6)


def test_a_given_unit_or_form_goes_first(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "r.csv", ["user", "item", "time"], [("u", "i", "86400000")])
    convert(Request(source, tmp_path / "shop", time_unit="ms"))
    assert read(tmp_path / "shop").numbers["timestamp"].values.tolist() == [86400]
    source = write_csv(tmp_path / "q.csv", ["user", "item", "time"], [("u", "i", "03/04/2015")])
    with pytest.raises(FairError, match=r"day and month cannot be told apart.*--time-format"):
        convert(Request(source, tmp_path / "other"))
    convert(Request(source, tmp_path / "other", time_format="%d/%m/%Y"))
    day = datetime(2015, 4, 3, tzinfo=timezone.utc).timestamp()
    assert read(tmp_path / "other").numbers["timestamp"].values.tolist() == [day]


def test_instants_and_numbers_of_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({
        "user": [1.0, 2.0, None], "item": ["a", "b", "c"], "ts": pd.to_datetime(["2015-03-01 14:02:03", None,
        "2015-01-01 00:00:00"]), "tags": [["Sci Fi", "War"], [], None], "price": [1.5, np.nan, 2], "sort": [1, 2, 3],
    })  # fmt: skip
    frame["sort"] = frame["sort"].astype("category")
    frame.to_parquet(tmp_path / "r.parquet")
    request = Request(tmp_path / "r.parquet", tmp_path / "shop", keep=["all"])
    (report,) = convert(request)
    table = read(tmp_path / "shop")
    assert texts(table, "user_id") == ["1"]  # ids with gaps among them are floats in pandas
    assert table.numbers["timestamp"].values.tolist() == [INSTANT]
    assert texts(table, "tags") == ["Sci_Fi War"]
    assert report.dropped == {"without a user": (1, 3), "without a time that can be read": (1, 2)}
    assert {"tags:token_seq", "price:float", "sort:float"} < set(report.header)


def test_ratings_and_times_may_be_left_out(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "r.csv", ["user", "item", "rating", "date"], [("u", "i", "4", "yesterday")])
    with pytest.raises(FairError, match="whose form is not known"):
        convert(Request(source, tmp_path / "shop"))
    (report,) = convert(Request(source, tmp_path / "shop", rating="none", time="none"))
    assert report.header == ["user_id:token", "item_id:token"]
    with pytest.raises(FairError, match="names no data set"):
        convert(Request(source, tmp_path / ".."))


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    rows = [("u", "i", "4", "1425218523"), ("", "i", "4", "1425218523"), ("u", "", "4", "1425218523")]
    rows += [("u", "i", "good", "1425218523"), ("u", "i", "", "1425218523"), ("u", "i", "4", "soon"), ("", "", "", "")]
    source = write_csv(tmp_path / "r.csv", ["user", "item", "rating", "time"], rows)
    (report,) = convert(Request(source, tmp_path / "shop"))
    assert (report.read, report.written) == (7, 2)
    assert report.dropped == {
        "without a user": (2, 2),
        "without an item": (1, 3),
        "without a time that can be read": (1, 6),
        "with a rating that is no number": (1, 4),
    }
    assert any("1 ratings are missing" in note for note in report.notes)


def test_types_of_items(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "r.csv", ["user", "item"], [("u", "1")])
    rows = [("1", 'A "b", c', "Drama|Sci Fi", "1999", "01234"), ("2", "Say\n|hello|", "", "", "00000"), ("1", *"xxxx")]
    items = write_csv(tmp_path / "i.csv", ["id", "title", "genres", "year", "zip"], rows)
    _, report = convert(Request(source, tmp_path / "shop", items=items, types=["year:token"]))
    table = read(tmp_path / "shop", "item")
    assert report.header == ["item_id:token", "title:token_seq", "genres:token_seq", "year:token", "zip:token"]
    assert report.dropped == {"with an id of an earlier row": (1, 3)}
    assert texts(table, "genres") == ["Drama Sci_Fi", ""]
    convert(Request(source, tmp_path / "shop", items=items, types=["title:token"], overwrite=True))
    assert texts(read(tmp_path / "shop", "item"), "title") == ['A "b", c', "Say\n|hello|"]


def test_a_column_that_is_text_after_all(tmp_path: Path) -> None:
    rows = [("u", f"i{n}", n) for n in range(140_000)] + [("u", "last", "many")]
    source = write_csv(tmp_path / "r.csv", ["user", "item", "count"], rows)
    (report,) = convert(Request(source, tmp_path / "shop", keep=["count"]))
    assert report.header[-1] == "count:token"
    assert texts(read(tmp_path / "shop"), "count")[-1] == "many"
    assert report.written == report.items == 140_001
    with pytest.raises(FairError, match="Row 140001: 'count' is to be float and holds 'many'"):
        convert(Request(source, tmp_path / "shop", keep=["count:float"], overwrite=True))


def test_folders_packed_files_and_files_without_a_header(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    write_csv(parts / "a.csv", ["user", "item"], [("u1", "i1")])
    with gzip.open(parts / "b.csv.gz", "wt", encoding="utf-8") as file:
        file.write("user,item\nu2,i2\n")
    convert(Request(parts, tmp_path / "shop"))
    assert texts(read(tmp_path / "shop"), "user_id") == ["u1", "u2"]
    dat = tmp_path / "ratings.dat"
    dat.write_text("1::1193::5::978300760\n2::661::3::978302109\n")
    (report,) = convert(Request(dat, tmp_path / "ml", columns=["user", "item", "rating", "time"]))
    assert (report.written, texts(read(tmp_path / "ml"), "item_id")) == (2, ["1193", "661"])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("r.xlsx", "", "ending .xlsx is not known"),
        ("r.csv", "", "is empty"),
        ("r.csv", "user,item\n", "has columns but no rows"),
        ("r.csv", "user,thing\n1,2\n", "which column holds the items.*--item=COLUMN"),
        ("r.csv", "user,item\n1,2\n1,2,3\n", "line 3: 3 cells where the header names 2"),
        ("r.csv", "user,item\n1,2,3\n", "line 2: 3 cells where the header names 2"),
        ("r.csv", 'user,item\n1,"2\n3,4\n5,6"\n', "holds whole rows"),
        ("r.csv", "user,item,user\n1,2,3\n", "two columns are named 'user'"),
        ("r.csv", "user,item\n,2\n", "no row is left; 1 rows without a user"),
        ("r.csv", "user,item,time\n1,2,whenever\n", "'time' holds times such as 'whenever'.*--time-format"),
        ("r.jsonl", '{"user": 1, "item": 2}\n[1, 2]\n', "line 2 is not an object"),
        ("r.jsonl", '{"user": 1, "item": 2}\n{"user"\n', "line 2 is not JSON"),
        ("r.jsonl", '{"user": "\\ud800", "item": 2}\n', "half a character"),
        ("r.jsonl", '{"user": "\\u0000", "item": 2}\n', "NUL"),
    ],
)
def test_slips_are_sentences(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(FairError, match=says):
        convert(Request(tmp_path / name, tmp_path / "shop"))
    assert not (tmp_path / "shop" / "shop.inter").exists()


def test_more_slips(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_bytes("user,item\nJos\xe9,1\n".encode("latin-1"))
    with pytest.raises(FairError, match=r"not in utf-8.*--encoding"):
        convert(Request(tmp_path / "r.csv", tmp_path / "shop"))
    convert(Request(tmp_path / "r.csv", tmp_path / "shop", encoding="latin-1"))
    assert texts(read(tmp_path / "shop"), "user_id") == ["José"]
    with pytest.raises(FairError, match=r"is there already.*--overwrite"):
        convert(Request(tmp_path / "r.csv", tmp_path / "shop", encoding="latin-1"))
    with pytest.raises(FairError, match=r"item='itm' is not a column of .*did you mean 'item'"):
        convert(Request(tmp_path / "r.csv", tmp_path / "other", item="itm", encoding="latin-1"))
    with pytest.raises(FairError, match="There is no file"):
        open_table(tmp_path / "none.csv")


def test_ratings_that_are_words_only_stop_who_named_them(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "r.csv", ["user", "item", "score"], [("u", "i", "good"), ("u", "j", "bad")])
    (report,) = convert(Request(source, tmp_path / "shop"))
    assert report.header == ["user_id:token", "item_id:token"]
    with pytest.raises(FairError, match="'score' holds no ratings but texts such as 'good'"):
        convert(Request(source, tmp_path / "shop", rating="score", overwrite=True))


def test_a_converted_data_set_is_the_one_it_was(small_data: Path, tmp_path: Path) -> None:
    """From atomic files through csv with dates and back: loaders of the two hold the same."""
    frame = pd.read_csv(small_data / "small" / "small.inter", sep="\t", dtype=str)
    frame.columns = ["userId", "movieId", "rating", "when"]
    frame["when"] = pd.to_datetime(frame["when"].astype(int), unit="s").dt.strftime("%d.%m.%Y %H:%M:%S")
    frame.to_csv(tmp_path / "ratings.csv", index=False)
    convert(Request(tmp_path / "ratings.csv", tmp_path / "again", time="when"))
    found = []
    for name, folder in (("small", small_data), ("again", tmp_path)):
        config = FairConfig("SASRec", name, config_dict={"data_path": str(folder)})
        parts = [split_interactions(loader._dataset) for loader in load_data(config)]
        data = load_data(config)[0]._dataset
        found.append([(data.id2token("user_id", p.user), data.id2token("item_id", p.item), p.time) for p in parts])
    for one, other in zip(*found, strict=True):
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_csv(tmp_path / "r.dat", ["who", "item", "time"], [("u", "i", "2015-03-01")], "\t")
    words = ["--output", str(tmp_path / "data" / "shop"), "--user=who", "--separator", "\\t"]
    with pytest.raises(SystemExit) as ended:
        main(["convert", str(source), *words])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert "1 of 1 rows" in out
    assert f"--dataset=shop --data_path={tmp_path / 'data'}" in out
