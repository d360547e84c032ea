"""The Python on the pages runs: on made-up data in place of ml-100k, with one epoch in place of hundreds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_fair.io.verbosity import Verbosity, set_verbosity
from recbole_fair.quick_start import run_recbole_fair

pytestmark = pytest.mark.slow  # minutes of trainings; the frontier of all methods takes most of them

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PLACE = re.compile(r'"saved/(\w+)-….pth"')
#: Items that the pages name stand first.
ITEMS = ["1193", "661", "914", "2355", "50", "181", "258", *(str(number) for number in range(3000, 3023))]
QUICK: dict[str, Any] = {
    "epochs": 1, "embedding_size": 8, "hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 1,
    "MAX_ITEM_LIST_LENGTH": 8, "sae_epochs": 1, "sae_scale": 2, "sae_k": 2, "synthetic_users": 100,
    "synthetic_length": 6, "state": "error", "show_progress": False,
}  # fmt: skip
#: Pages whose Python has a test of its own.
ELSEWHERE = {"own-parts.md": "tests/house/test_contributing.py", "export.md": "tests/runs/test_exporting.py"}
#: Pages on which nothing is trained, and settings of training are refused.
UNTRAINED = {"audit.md"}
#: Parts that would take long: what they are, and what stands in for it.
SHORTER = {
    "seeds=3": "seeds=1, spread='none'",
    "strongest=20": "strongest=2, permutations=9, map='none', synthetic_users=50",
}


def write_data(folder: Path) -> None:
    """Data under the names that the pages use."""
    rng = np.random.default_rng(0)
    weight = 1.0 / np.arange(1, len(ITEMS) + 1)
    rows, tables = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"], ["user,item,rating,time"]
    for user in range(40):
        for time, item in enumerate(rng.choice(ITEMS, size=12, replace=False, p=weight / weight.sum())):
            rows.append(f"{user}\t{item}\t4\t{1000 * time + user}")
            tables.append(f"{user},{item},4,{10**9 + 1000 * time + user}")
    (folder / "dataset/ml-100k").mkdir(parents=True)
    (folder / "dataset/ml-100k/ml-100k.inter").write_text("\n".join(rows) + "\n")
    titles = ["item_id:token\tmovie_title:token_seq\tclass:token_seq", *(f"{i}\tFilm {i}\ta" for i in ITEMS)]
    (folder / "dataset/ml-100k/ml-100k.item").write_text("\n".join(titles) + "\n")
    (folder / "ratings.csv").write_text("\n".join(tables) + "\n")
    (folder / "products.csv").write_text("item,title\n" + "\n".join(f"{i},Film {i}" for i in ITEMS) + "\n")
    head, body = tables[0], tables[1:]
    (folder / "train.csv").write_text("\n".join([head, *body[::2]]) + "\n")
    (folder / "test.csv").write_text("\n".join([head, *body[1::2]]) + "\n")
    for name, shift in (("old", 0), ("new", 5)):
        lists = [f"{user},{ITEMS[(shift + place) % 30]},{place + 1}" for user in range(40) for place in range(10)]
        (folder / f"{name}.csv").write_text("user,item,rank\n" + "\n".join(lists) + "\n")
    (folder / "mine.yaml").write_text("train_batch_size: 512\n")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with data, trained models and a result, and the checkpoint that each model's placeholder means."""
    folder = tmp_path_factory.mktemp("pages")
    write_data(folder)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for model in ("PopSteerSASRec", "SPREESASRec"):
            result = run_recbole_fair(model, "ml-100k", config_dict={**QUICK, "result_file": "out.json"})
            found[model] = result["checkpoint"]
        found["SASRec"] = str(next(Path("saved").glob("SASRec-*.pth")))
        Path("results").mkdir()
        Path("out.json").rename("results/out.json")
        (folder / "out.json").write_text((folder / "results/out.json").read_text())
    return folder, found


def pages() -> list[str]:
    names = ["README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]
    return [name for name in names if BLOCK.search((ROOT / name).read_text()) and Path(name).name not in ELSEWHERE]


@pytest.mark.parametrize("page", pages())
def test_python_on_a_page_runs(
    page: str, workplace: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, checkpoints = workplace
    monkeypatch.chdir(folder)
    namespace: dict[str, Any] = {"QUICK": QUICK}
    text = "\n".join(BLOCK.findall((ROOT / page).read_text(encoding="utf-8")))
    text = PLACE.sub(lambda match: repr(checkpoints[match[1]]), text)
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    text = text.replace(".parquet", ".csv")
    if Path(page).name not in UNTRAINED:
        text = text.replace("config_dict={", "config_dict={**QUICK, ")
    try:
        exec(compile(text, page, "exec"), namespace)
    finally:
        set_verbosity(Verbosity.NORMAL)


def test_pages_that_are_tested_elsewhere_are() -> None:
    for page, test in ELSEWHERE.items():
        assert BLOCK.search((ROOT / "docs" / page).read_text(encoding="utf-8"))
        assert (ROOT / test).is_file()
