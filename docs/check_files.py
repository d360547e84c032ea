"""Files that the commands on the pages name, made from ml-100k in a folder of its own (for ``check.py``)."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: RecBole's own training, which knows nothing of this package, and the checkpoints that the pages call by these names.
PLAIN = {
    "old.pth": "SASRec",
    "OLD.pth": "SASRec",
    "saved/SASRec-Jan-01-2023_10-00-00.pth": "SASRec",
    "saved/GRU4Rec-Jan-01-2023_10-00-00.pth": "GRU4Rec",
}
#: A file that one command on a page reads and another one writes: what is run for it where that one was not.
MADE_BY = {
    "saved/chosen.pth": "recbole-fair save latest --output=saved/chosen.pth --alpha_pop=1",
    "saved/gru.pth": (
        "recbole-fair import saved/GRU4Rec-Jan-01-2023_10-00-00.pth --data_path=data --output=saved/gru.pth"
    ),
    "served.pth": ("recbole-fair save saved/SASRec-….pth --output=served.pth --reranker=Lorenz --reranker_lambda=0.5"),
    "out.json": (
        "recbole-fair evaluate latest --result_file=out.json --recommendations_file=recommendations.csv"
        " --mask_seen=none"
    ),
    "results": "recbole-fair evaluate latest --result_file=results/run.json",
    "results/sweep.json": "recbole-fair sweep latest --grid alpha_pop=0:2:1 --output=results/sweep",
    "shop": "recbole-fair convert ratings.csv --output data/shop",
}


def write_files(folder: Path) -> None:
    """ml-100k as tables under the names that the pages use, two systems' lists, and a space for ``tune``."""
    (source,) = importlib.util.find_spec("recbole").submodule_search_locations  # type: ignore[union-attr]
    data = Path(source) / "dataset_example" / "ml-100k"
    (folder / "data").mkdir()
    (folder / "data" / "ml-100k").symlink_to(data)
    tables = {}
    for kind in ("inter", "item", "user"):
        with (data / f"ml-100k.{kind}").open(encoding="utf-8") as stream:
            head, *rows = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        tables[kind] = [[name.split(":")[0] for name in head], *rows]
    inter = sorted(tables["inter"][1:], key=lambda row: float(row[3]))
    latest: dict[str, list[str]] = {row[0]: row for row in inter}
    train = [row for row in inter if latest[row[0]] is not row]
    interactions = ["user", "item", "rating", "time"]
    for name in ("ratings.csv", "clicks.csv"):
        _write(folder / name, [interactions, *tables["inter"][1:]])
    _write(folder / "train.csv", [interactions, *train])
    _write(folder / "test.csv", [interactions, *latest.values()])
    films = [["item", "title", "year", "genre"]]
    films += [[item, title, year, genres.replace(" ", "|")] for item, title, year, genres in tables["item"][1:]]
    for name in ("items.csv", "products.csv"):
        _write(folder / name, films)
    _write(folder / "users.csv", [["user", "age", "gender", "occupation", "zip"], *tables["user"][1:]])
    (folder / "customers.jsonl").write_text(
        "".join(json.dumps({"user": row[0], "gender": row[2]}) + "\n" for row in tables["user"][1:]), encoding="utf-8"
    )
    _write(folder / "histories.csv", [["user", "item", "time"], *([u, i, t] for u, i, _, t in inter[:2000])])
    _write_lists(folder, train)
    _as_parquet(folder, {"clicks": "clicks", "lists": "old", "lists-2": "new"})
    (folder / "model.hyper").write_text("learning_rate loguniform -8,-4\nembedding_size choice [16,32]\n")


def _write_lists(folder: Path, train: list[list[str]]) -> None:
    """Two systems: the most popular items, and the most popular ones that the user has not had."""
    popular = [item for item, _ in Counter(row[1] for row in train).most_common()]
    seen: dict[str, set[str]] = defaultdict(set)
    for user, item, _, _ in train:
        seen[user].add(item)
    for name, known in (("lists", False), ("lists-2", True)):
        rows = [["user", "item", "rank"]]
        for user, had in seen.items():
            best = [item for item in popular if known or item not in had][:10]
            rows += [[user, item, str(place + 1)] for place, item in enumerate(best)]
        _write(folder / f"{name}.csv", rows)
    (folder / "LISTS.csv").write_bytes((folder / "lists.csv").read_bytes())


def _as_parquet(folder: Path, names: dict[str, str]) -> None:
    import pandas as pd

    for table, parquet in names.items():
        pd.read_csv(folder / f"{table}.csv", dtype=str).to_parquet(folder / f"{parquet}.parquet")


def _write(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)


def train_plain(folder: Path, name: str) -> None:
    """A checkpoint of plain RecBole after one epoch, under a name that the pages use."""
    script = [sys.executable, "-W", "ignore", str(ROOT / "tests" / "plain_recbole.py")]
    done = subprocess.run(
        [*script, "data", "ml-100k", PLAIN[name]], cwd=folder, capture_output=True, text=True, check=True
    )
    made = Path(done.stdout.split()[-1])
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / made).rename(folder / name)
