"""The one reading of atomic files, against Python's ``csv`` and by hand."""

from __future__ import annotations

import csv
import io
import os
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from recbole_fair.data.reading import table as table_module
from recbole_fair.data.reading.table import Form, Table, form_of, read_header, read_table
from recbole_fair.errors import FairError

WORDS = ["NA", "null", "nan", "None", "007", "7", "-1", "1e5", "x", "u1", "B00005OMGE", "a b", " lead", "trail ", "'q'"]
ACCENTS = ["é", "Łódź", "日本", "naïve café", "ß" * 20, "\u2028", "\x85", "\x0c", "a\x1cb"]
SEPARATORS = [",", "\t", ";", "|", " ", "::", "¦"]
ENCODINGS = ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "gbk"]


def written(folder: Path, text: str | bytes, encoding: str = "utf-8", name: str = "own.inter") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def cells(table: Table) -> list[list[str | float]]:
    columns = [
        table.texts[name].values.tolist() if name in table.texts else table.numbers[name].values.tolist()
        for name in table.header
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def random_cell(rng: random.Random, separator: str, hostile: bool) -> str:
    kind = rng.random()
    if kind < 0.35:
        return str(rng.randrange(10 ** rng.randint(1, 17)))
    if kind < 0.6:
        return rng.choice(WORDS)
    if kind < 0.7:
        return rng.choice(ACCENTS)
    if kind < 0.75:
        return "x" * rng.choice([1, 7, 8, 9, 16, 17, 63, 64, 65, 300])
    if kind < 0.8:
        return ""
    parts = ['"', separator, "a", "7", '""', " "] + (["\n", "\r\n", "\r"] if hostile else [])
    return "".join(rng.choice(parts) for _ in range(rng.randint(1, 5)))


@dataclass(frozen=True)
class Made:
    """A random file.

    ``plain`` says that a sane program wrote it, and no cell has several lines: it has to be read.
    """

    text: str
    separator: str
    encoding: str
    width: int
    plain: bool


def random_file(rng: random.Random) -> Made:
    separator, encoding = rng.choice(SEPARATORS), rng.choice(ENCODINGS)
    width = rng.randint(1, 5)
    header = [f"c{number}:token" for number in range(width)]
    sane = rng.random() < 0.6 and len(separator) == 1
    several_lines = not sane or rng.random() < 0.3
    rows = [[random_cell(rng, separator, several_lines) for _ in header] for _ in range(rng.randint(0, 30))]
    end = rng.choice(["\n", "\r\n"])
    if sane:
        stream = io.StringIO()
        quoting = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
        csv.writer(stream, delimiter=separator, quoting=quoting, lineterminator=end).writerows([header, *rows])
        text = stream.getvalue()
    else:
        for row in rows:
            if rng.random() < 0.02:
                row.append("more")
        text = end.join(separator.join(row) for row in [header, *rows])
        text += rng.choice(["", end, end + end, end + "  " + end])
    return Made(text, separator, encoding, width, sane and not several_lines)


def by_csv(text: str, separator: str) -> list[list[str]]:
    """Python's own reading, without empty lines."""
    if len(separator) > 1:
        found = [line.rstrip("\n").split(separator) for line in io.StringIO(text, newline=None)]
    else:
        found = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    single = len(found[0]) == 1
    return [row for row in found if len(row) > 1 or (row and (row[0].strip() or (single and row[0])))]


def agree(folder: Path, seed: int) -> bool:
    """Whether a random file is read as Python's csv reads it; False for a sentence."""
    rng = random.Random(seed)
    while True:
        made = random_file(rng)
        try:
            path = written(folder, made.text, made.encoding)
            made.separator.encode(made.encoding)
            break
        except UnicodeEncodeError:  # a sign that the encoding does not have: another file
            continue
    oracle = by_csv(made.text, made.separator)
    assert len(oracle[0]) == made.width
    try:
        found = cells(read_table(path, Form(made.separator, made.encoding.removesuffix("-sig"))))
    except FairError as error:
        sentence = str(error)
    else:
        assert found == oracle[1:], seed
        return True
    assert str(path) in sentence, seed
    assert "\n" not in sentence, seed
    assert not made.plain, f"{seed}: {sentence}"
    return False


def sweep(folder: Path, seeds: range) -> tuple[int, int]:
    agreed = sum(agree(folder, seed) for seed in seeds)
    return agreed, len(seeds) - agreed


@pytest.mark.parametrize("block", [1 << 24, 64])
def test_random_files_are_read_as_python_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(table_module, "_BLOCK", block)
    agreed, refused = sweep(tmp_path, range(60))
    assert agreed + refused == 60
    assert agreed >= 30


@pytest.mark.slow
def test_five_hundred_random_files(tmp_path: Path) -> None:
    agreed, refused = sweep(tmp_path, range(1000, 1500))
    print(f"{agreed} of 500 agree row by row, {refused} are one sentence")
    assert agreed + refused == 500
    assert agreed >= 250


def read(folder: Path, text: str | bytes, form: Form | None = None, encoding: str = "utf-8") -> Table:
    return read_table(written(folder, text, encoding), form or Form())


TWO = "u:token\ti:token\n"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (TWO + "NA\tnull\n007\tNone\n", [["NA", "null"], ["007", "None"]]),
        (TWO + "a\tb", [["a", "b"]]),
        (TWO + "\na\tb\n  \n\nc\td\n\n", [["a", "b"], ["c", "d"]]),
        ("\ufeff" + TWO + "a\tb\r\nc\td\r\n", [["a", "b"], ["c", "d"]]),
        (TWO.replace("\n", "\r") + "a\tb\rc\td", [["a", "b"], ["c", "d"]]),
        ('"u:token"\ti:token\n"a ""b"""\tc\n', [['a "b"', "c"]]),
        (TWO + 'a\t5" nail\n', [["a", '5" nail']]),
        (TWO + 'a\t"two\nlines"\nb\tc\n', [["a", "two\nlines"], ["b", "c"]]),
        (TWO + "a\t\n", [["a", ""]]),
        (TWO + f'{"x" * 200_000}\t"{"y" * 200_000}"\n', [["x" * 200_000, "y" * 200_000]]),
        (TWO + "abcdefgh\tabcdefghi\nabcdefgh\tabcdefghj\n", [["abcdefgh", "abcdefghi"], ["abcdefgh", "abcdefghj"]]),
    ],
)
def test_cells_are_text_as_it_stands(tmp_path: Path, text: str, rows: list[list[str]]) -> None:
    assert cells(read(tmp_path, text)) == rows


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TWO + "a\tb\nc\td\te\n", r"line 3: 3 cells where the header names 2 columns"),
        (TWO + "a\tb\n\nc\n", r"line 4: 1 cells where"),
        (TWO + "a\tb\t\n", r"line 2: 3 cells where .*an empty cell after a last separator"),
        (TWO + 'a\t"b\nc\td\n', r"line 2: a quote that is opened there is never closed"),
        (TWO + 'a\tb\nc\t"d\ne\tf"\ng\th\n', r"line 3: a quote that is opened there is closed in line 4 only"),
        (TWO + "a\tb\0c\n", r"line 2: there is a NUL byte"),
        ((TWO + "a\tb\nc\t\xe9\n").encode("latin-1"), r"line 3, is not in utf-8: set encoding"),
        ("", "is empty; its first line"),
        ("\na\tb\n", "is empty; its first line"),
        ("u\ti:token\n", r"the column 'u' is not name:type"),
        ("u:token\ti:token\t\n", r"the column '' is not name:type"),
        (":token\n", r"the column ':token' is not name:type"),
        ("u:token\tu:float\n", r"two columns are named 'u'"),
        ("u:token\tx:float\na\t1\nb\tone\n", r"line 3: the column 'x' holds 'one', something that is not a number"),
        ('u:token\tx:float\n"a"\t1\nb\t1_0\n', r"line 3: the column 'x' holds '1_0'"),
        ('"u:token\ti:token\n', r"line 1: a quote in the header is not closed"),
    ],
)
def test_slips_are_one_sentence_with_file_and_line(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(FairError, match=says) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "own.inter") in str(caught.value)


def test_lines_are_counted_over_blocks_and_empty_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"u{row}\ti{row}" for row in range(100)]
    lines[40:40] = ["", "", "  "]
    text = TWO + "\n".join(lines) + "\n"
    monkeypatch.setattr(table_module, "_BLOCK", 37)
    table = read(tmp_path, text)
    assert [table.line_of(row) for row in (0, 39, 40, 99)] == [2, 41, 45, 104]
    quoted = read(tmp_path, text.replace("u7\t", '"u\n7"\t'))
    assert [quoted.line_of(row) for row in (0, 7, 8, 40, 99)] == [2, 9, 11, 46, 105]
    with pytest.raises(FairError, match="line 105: 1 cells"):
        read(tmp_path, text + "x\n")


def test_empty_ids_are_named(tmp_path: Path) -> None:
    table = read(tmp_path, TWO + "a\tb\n\n\tb\n\tc\n")
    table.check_ids(["i", "other"])
    with pytest.raises(FairError, match=r"own.inter, line 4: the cell of 'u' is empty \(2 rows in all\); give"):
        table.check_ids(["u", "i"])


def test_numbers(tmp_path: Path) -> None:
    texts = [
        "1",
        "12345678",
        "123456789",
        "978300760",
        "1e5",
        "-3",
        "+.5",
        "",
        "NA",
        "nan",
        "inf",
        " 7 ",
        "007",
        "1.10",
    ]
    texts += ["999999999999999", "1234567890123456789", "0.1234567890123456789", "-Infinity"]
    number = {"": "nan", "NA": "nan"}
    expected = [float(number.get(text, text)) for text in texts]
    found = read(tmp_path, "x:float\tu:token\n" + "".join(f"{text}\ta\n" for text in texts)).numbers["x"].values
    assert found.tolist() == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    rng = random.Random(0)
    whole = [str(rng.randrange(10**size)) for size in range(1, 16) for _ in range(20)]
    found = read(tmp_path, "x:float\n" + "\n".join(whole)).numbers["x"].values
    assert found.tolist() == [float(text) for text in whole]
    for text in ("/", "1/2", ":", "1:2", "12345678/", "\u0661"):  # the neighbours of the digits, and other digits
        with pytest.raises(FairError, match="is not a number"):
            read(tmp_path, f"x:float\n1\n{text}\n")


def test_columns_that_are_not_asked_for_are_not_looked_at(tmp_path: Path) -> None:
    path = written(tmp_path, "u:token\tx:float\na\tone\n")
    table = read_table(path, Form(), ["u"])
    assert (list(table.texts), table.numbers, table.header) == (["u"], {}, {"u": "token", "x": "float"})


def test_two_cells_with_one_hash_stay_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole_fair.data.reading.blocks._mixed", lambda cells: cells[:, 0].copy())
    assert cells(read(tmp_path, TWO + "abcdefghi\tx\nabcdefghj\tx\n")) == [["abcdefghi", "x"], ["abcdefghj", "x"]]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"field_separator": ""}, "field_separator='' cannot separate"),
        ({"field_separator": '"'}, "cannot separate"),
        ({"field_separator": 7}, "field_separator=7 cannot"),
        ({"encoding": "latin-7b"}, "encoding='latin-7b' is not one that Python knows"),
        ({"encoding": 8}, "encoding=8 is not"),
        ({"encoding": "base64"}, "encoding='base64' is not"),
    ],
)
def test_forms_that_cannot_be(settings: dict[str, object], says: str) -> None:
    with pytest.raises(FairError, match=says):
        form_of({"field_separator": None, "encoding": None, **settings})


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.inter")
    for name in ("fifo.inter", "."):
        with pytest.raises(FairError, match="is not a file"):
            read_header(tmp_path / name, Form())
    with pytest.raises(FairError, match="cannot be read: No such file"):
        read_header(tmp_path / "none.inter", Form())
