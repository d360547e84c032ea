"""Reading yaml: what is refused, and how soon."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from recbole_fair.commands.settings import file_names
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.layers import FairLoader, load_yaml, read_yaml
from recbole_fair.errors import FairError

BOMB = "\n".join(
    [f"a0: &a0 [{','.join('x' * 10)}]", *(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12))]
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("topk: [3]\ntopk: [5]\n", r"\(line 2, column 1\): the key 'topk' is given twice"),
        ("eval_args: {order: RO, mode: full, order: TO}\n", "the key 'order' is given twice"),
        ("topk: &a [*a]\n", "it holds itself"),
        ("a: &a {b: *a}\n", "it holds itself"),
        (BOMB, "multiplies into more than 100,000 values"),
        ("topk: " + "[" * 40 + "]" * 40, "nests lists or mappings deeper than any"),
        ("topk: " + "[" * 20_000, "nests lists or mappings deeper than any setting does"),
        ("dataset: 2020-13-45\n", "2020-13-45 is no date .month must be in 1..12.; put it into quotes"),
        ("seed: " + "9" * 5000, "holds a value that cannot be read"),
        ("a: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("topk: \x00\n", "not valid YAML"),
        ("? [a, b]\n: 1\n", "not valid YAML|'key: value' lines"),
        ("- 1\n", "'key: value' lines"),
    ],
)
def test_refused_within_a_second(text: str, says: str, tmp_path: Path):
    file = tmp_path / "a.yaml"
    file.write_text(text)
    start = time.perf_counter()
    with pytest.raises(FairError, match=says) as caught:
        read_yaml(file)
    assert time.perf_counter() - start < 5  # a second where no other work is done
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_what_is_read():
    read = load_yaml("a: 1e-3\nb: 2020-01-02\nc: &c [1, 2]\nd: *c\ne: ~\nf: 007\n", "text")
    assert read == {"a": 0.001, "b": "2020-01-02", "c": [1, 2], "d": [1, 2], "e": None, "f": 7}
    base = "base: &base {lr: 1, k: 2}\nown: {<<: *base, k: 3}\n"
    assert load_yaml(base, "text")["own"] == {"lr": 1, "k": 3}
    assert load_yaml("", "text") is None
    assert FairLoader("").get_single_node() is None


def test_a_byte_order_mark_and_a_large_file(tmp_path: Path):
    (tmp_path / "bom.yaml").write_bytes("\ufeffepochs: 3\n".encode())
    assert read_yaml(tmp_path / "bom.yaml") == {"epochs": 3}
    (tmp_path / "large.yaml").write_text("a: 1\n" + "#" * 1_000_001)
    with pytest.raises(FairError, match=r"1,000,006 bytes; a file of settings has at most 1,000,000"):
        read_yaml(tmp_path / "large.yaml")


def test_values_that_hold_themselves():
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(FairError, match="topk holds itself"):
        FairConfig("BPR", "ml-100k", config_dict={"topk": loop})
    for key in ("topk", "eval_args"):
        with pytest.raises(FairError, match="nests lists"):
            FairConfig("BPR", "ml-100k", config_dict={key: "[" * 5000})


def test_files_whose_names_hold_spaces(in_tmp: Path):
    Path("my files").mkdir()
    for name in ("my files/a b.yaml", "c.yaml", "my files/d.yaml"):
        Path(name).write_text("epochs: 3\n")
    assert file_names(["my files/a b.yaml c.yaml my files/d.yaml"]) == [
        "my files/a b.yaml",
        "c.yaml",
        "my files/d.yaml",
    ]
    assert file_names(["=c.yaml  nowhere.yaml", " my files/d.yaml "]) == ["c.yaml", "nowhere.yaml", "my files/d.yaml"]
    assert file_names([]) == []
