"""Which method serves best on which data: bases, default PopSteer and SPREE on them, and the frontier of all methods.

    python benchmarks/which_method.py run --data_path=data --folder=results/which
    python benchmarks/which_method.py run --datasets=ml-1m --seeds=2020 --stages=base,frontier
    python benchmarks/which_method.py table --folder=results/which --figure=docs/which-method

`run` trains SASRec for every data set and seed, fits the methods of `--fit` with their defaults on it, and runs
`recbole-fair frontier`. What is finished stands in FOLDER/journal.jsonl; the same command goes on from there. `table`
prints Markdown from the journal and the frontiers' documents, and draws the figure.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_fair.evaluator.directions import display_name
from recbole_fair.quick_start import frontier_checkpoint, run_recbole_fair
from recbole_fair.report.frontier import front_rows
from recbole_fair.report.style import BASE, LINES, MARKERS, PALETTE, house_style, new_figure, save_figure

Row = dict[str, Any]
DATASETS = ("ml-1m", "amazon-digital-music", "foursquare-tky", "yelp2019", "amazon-cds")
FIVE_CORE = {"user_inter_num_interval": "[5,inf)", "item_inter_num_interval": "[5,inf)"}
#: Of data sets for which the package has no file of its own.
DATA: dict[str, Row] = {"yelp2019": {**FIVE_CORE, "rm_dup_inter": "first"}, "amazon-cds": FIVE_CORE}
#: Of frontiers: item groups for Calibration and Diversity.
GROUPS: dict[str, Row] = {"ml-1m": {"group_field": "genre"}}
#: A shorter training than the default one. In validation NDCG@10 two seeds on amazon-digital-music ended 3 to 4 %
#: higher than another seed of the default training, two on foursquare-tky 3 to 4 % lower.
BASE_SETTINGS: Row = {
    "learning_rate_schedule": "linear", "epochs": 6, "eval_step": 2, "stopping_step": 3, "metrics": ["NDCG"],
    "show_progress": False,
}  # fmt: skip
X, Y, LOSS = ("giniindex@10", "pce@10"), "ndcg@10", (0.05, 0.1)
DRAWN = ("Lorenz", "PMMF", "FAstarIR", "Penalty", "IPR", "PopSteerSASRec")


class Journal:
    """Rows of finished work, one line each, by data set, seed and stage."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "journal.jsonl"
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.rows: list[Row] = [json.loads(line) for line in lines]

    def find(self, dataset: str, seed: int, stage: str) -> Row | None:
        """The row of a stage, if it is finished."""
        wanted = (dataset, seed, stage)
        return next((row for row in self.rows if (row["dataset"], row["seed"], row["stage"]) == wanted), None)

    def once(self, dataset: str, seed: int, stage: str, work: Callable[[], Row]) -> Row:
        """The row of a stage; what is not there yet is worked out and written down."""
        found = self.find(dataset, seed, stage)
        if found is not None:
            return found
        print(f"{dataset} {seed} {stage}", flush=True)
        wall, spent = time.perf_counter(), time.process_time()
        row = {"dataset": dataset, "seed": seed, "stage": stage, **work()}
        row |= {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - spent}
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        return row


# -- running -----------------------------------------------------------------------------------------------------------


def train(dataset: str, seed: int, settings: Row) -> Row:
    known = sorted(Path(settings["checkpoint_dir"]).glob("SASRec-*.pth"), key=lambda file: file.stat().st_mtime)
    if known:  # trained before, by hand
        return {"checkpoint": str(known[-1])}
    result = run_recbole_fair("SASRec", dataset, config_dict={**BASE_SETTINGS, **settings, "seed": seed})
    return {
        "checkpoint": result["checkpoint"],
        "valid": dict(result["best_valid_result"]),
        "test": dict(result["test_result"]),
    }


def fit(model: str, dataset: str, seed: int, base: str, settings: Row) -> Row:
    """A post-hoc method with its defaults."""
    metrics = ["NDCG", "GiniIndex", "PCE", "ItemCoverage"]
    own = {**settings, "seed": seed, "base_model_file": base, "metrics": metrics, "show_progress": False}
    result = run_recbole_fair(model, dataset, config_dict=own)
    return {
        "checkpoint": result["checkpoint"],
        "base": dict(result["base_test_result"]),
        "test": dict(result["test_result"]),
        "notes": [note for note in result["notes"] if "trength" in note],
    }


def frontier(output: str, base: str, settings: Row, methods: Sequence[str] | None) -> Row:
    changes = {key: settings[key] for key in ("data_path", "group_field") if key in settings}
    result = frontier_checkpoint(
        base, X, Y, LOSS, methods, output=output, config_dict={**changes, "show_progress": False}
    )
    return {"file": f"{output}.json", "settings": len(result["settings"]), "skipped": list(result["skipped"])}


def run(options: argparse.Namespace) -> None:
    journal, stages = Journal(Path(options.folder)), options.stages.split(",")
    for seed in map(int, options.seeds.split(",")):
        for dataset in options.datasets.split(","):
            folder = str(Path(options.folder) / "saved" / f"{dataset}-{seed}")
            settings = {**DATA.get(dataset, {}), "data_path": options.data_path, "checkpoint_dir": folder}
            if "base" in stages:
                journal.once(dataset, seed, "base", lambda d=dataset, s=seed, own=settings: train(d, s, own))
            base = journal.find(dataset, seed, "base")
            if base is None:
                continue
            for model in options.fit.split(",") if "fit" in stages and options.fit else ():
                journal.once(
                    dataset, seed, model,
                    lambda m=model, d=dataset, s=seed, b=base, own=settings: fit(m, d, s, b["checkpoint"], own),
                )  # fmt: skip
            if "frontier" in stages:
                output = str(Path(options.folder) / f"frontier-{dataset}-{seed}")
                own = {**settings, **GROUPS.get(dataset, {})}
                methods = options.methods.split(",") if options.methods else None
                journal.once(
                    dataset, seed, "frontier",
                    lambda o=output, b=base, own=own, m=methods: frontier(o, b["checkpoint"], own, m),
                )  # fmt: skip


# -- tables ------------------------------------------------------------------------------------------------------------


def documents(journal: Journal) -> Iterator[tuple[str, list[Row]]]:
    """Data sets with the documents of their frontiers, one a seed."""
    for dataset in DATASETS:
        rows = [row for row in journal.rows if row["dataset"] == dataset and row["stage"] == "frontier"]
        if rows:
            yield dataset, [json.loads(Path(row["file"]).read_text(encoding="utf-8")) for row in rows]


def short(values: Sequence[float], digits: int = 4) -> str:
    """Mean and standard deviation over seeds."""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def winner(document: Row, x: str, loss: float, method: str) -> Row | None:
    return next((w for w in document["winners"] if w["x"] == x and w["loss"] == loss and w["method"] == method), None)


def dataset_table(dataset: str, found: Sequence[Row]) -> list[str]:
    """A row a method: its best setting within each budget, chosen on validation, on test; mean and spread over seeds.

    A method that betters nothing within the budget stands with the base's value; of one that was not run on every seed
    there are its own seeds alone.
    """
    columns = [(x, loss) for x in X for loss in LOSS]
    header = [f"{display_name(x)}, {100 * loss:g} % (NDCG)" for x, loss in columns]
    lines = [f"### {dataset}", "", f"{len(found)} seed{'s' if len(found) > 1 else ''}.", ""]
    lines += ["| method | " + " | ".join(header) + " |", "|---" * (1 + len(columns)) + "|"]
    base = [short([d["base"]["test"][x] for d in found]) for x, _ in columns]
    lines.append("| base | " + " | ".join(base) + " |")
    methods = list(dict.fromkeys(row["method"] for d in found for row in d["methods"]))
    table: dict[str, list[tuple[float, str]]] = {}
    for method in methods:
        cells = []
        having = [d for d in found if any(row["method"] == method for row in d["methods"])]
        few = f", {len(having)} seed{'s' if len(having) > 1 else ''}" if len(having) < len(found) else ""
        for x, loss in columns:
            won = [winner(d, x, loss, method) for d in having]
            values = [d["base"]["test"][x] if w is None else w["test"][x] for d, w in zip(having, won, strict=True)]
            changes = [0.0 if w is None else w["test"][Y] / d["base"]["test"][Y] - 1
                       for d, w in zip(having, won, strict=True)]  # fmt: skip
            text = "–" if not any(won) else f"{short(values)} ({100 * np.mean(changes):+.1f} %{few})"
            cells.append((float(np.mean(values)), text))
        table[method] = cells
    best = [min(cells[column][0] for cells in table.values()) for column in range(len(columns))]
    for method, cells in sorted(table.items(), key=lambda item: item[1][1][0]):
        shown = [f"**{text}**" if value == best[i] and text != "–" else text for i, (value, text) in enumerate(cells)]
        if any(text != "–" for _, text in cells):
            lines.append(f"| {method} | " + " | ".join(shown) + " |")
    return lines


def second_best(rows: Sequence[Row], x: str) -> tuple[Row, Row] | None:
    """The two rows of a budget that are lowest on test, if there are two."""
    first, *others = sorted(rows, key=lambda row: row["test"][x])
    return (first, others[0]) if others else None


def verdicts(dataset: str, found: Sequence[Row]) -> list[str]:
    """A row a metric and budget: who is first on test by seed, how far ahead, and how often the intervals lie apart."""
    lines = []
    for x in X:
        for loss in LOSS:
            firsts, seconds, ahead, apart = [], [], [], 0
            for document in found:
                rows = [w for w in document["winners"] if w["x"] == x and w["loss"] == loss]
                pair = second_best(rows, x) if rows else None
                if pair is None:
                    firsts += [row["method"] for row in rows]
                    continue
                firsts.append(pair[0]["method"])
                seconds.append(pair[1]["method"])
                ahead.append(pair[1]["test"][x] - pair[0]["test"][x])
                (_, high), (low, _) = ((row.get("intervals") or {}).get(x, (np.inf, -np.inf)) for row in pair)
                apart += high < low
            counts, behind = (
                ", ".join(f"{name} {names.count(name)}" for name in dict.fromkeys(names)) or "nobody"
                for names in (firsts, seconds)
            )
            lines.append(
                f"| {dataset} | {display_name(x)} | {100 * loss:g} % | {counts} | {behind} | "
                f"{short(ahead) if ahead else '–'} | {apart} of {len(found)} |"
            )
    return lines


def paired_differences(dataset: str, found: Sequence[Row]) -> list[str]:
    """A row a metric, budget and seed: validation's winner against the best of the others, paired by user."""
    lines = []
    for x in X:
        for loss in LOSS:
            for document in found:
                rows = [w for w in document["winners"] if w["x"] == x and w["loss"] == loss]
                compared = [row for row in rows if row.get("difference")]
                if compared:
                    next_best = min(compared, key=lambda row: row["test"][x])
                    value, (low, high) = (next_best["difference"][key] for key in ("value", "interval"))
                    what = (
                        f"{dataset} | {document['seed']} | {display_name(x)} | {100 * loss:g} % | {rows[0]['method']}"
                    )
                    lines.append(f"| {what} | {next_best['method']} | {value:+.4f} ({low:+.4f} to {high:+.4f}) |")
    return lines


def readme_lines(dataset: str, found: Sequence[Row]) -> list[str]:
    """The row of the README: base, Lorenz, and the best mean of the others, in Gini within the smaller budget."""
    x, loss = X[0], LOSS[0]

    def mean(method: str) -> tuple[float, str]:
        won = [winner(document, x, loss, method) for document in found]
        values = [d["base"]["test"][x] if w is None else w["test"][x] for d, w in zip(found, won, strict=True)]
        return float(np.mean(values)), short(values, 3)

    methods = list(dict.fromkeys(row["method"] for d in found for row in d["methods"]))
    others = {name: mean(name) for name in methods if name != "Lorenz"}
    best = min(others, key=lambda name: others[name][0])
    base = short([document["base"]["test"][x] for document in found], 3)
    return [f"| {dataset} | {len(found)} | {base} | {mean('Lorenz')[1]} | {others[best][1]} ({best}) |"]


def chosen_strengths(notes: Sequence[str]) -> str:
    """What a default run chose on validation, as its note says it."""
    found = [re.search(r"Strengths chosen on validation \((.*?)\)", note) for note in notes]
    return next((match.group(1) for match in found if match), "strength 0 kept")


def default_lines(journal: Journal) -> list[str]:
    """A line a data set and method: what the default run did."""
    lines = []
    for dataset in DATASETS:
        for stage in dict.fromkeys(row["stage"] for row in journal.rows if row["stage"] not in ("base", "frontier")):
            rows = [row for row in journal.rows if row["dataset"] == dataset and row["stage"] == stage]
            if rows:
                goal = "pce@10" if stage.startswith("SPREE") else "giniindex@10"
                before, after = ([row[which][goal] for row in rows] for which in ("base", "test"))
                change = np.mean([row["test"][Y] / row["base"][Y] - 1 for row in rows])
                chosen = "; ".join(chosen_strengths(row["notes"]) for row in rows)
                lines.append(
                    f"| {dataset} | {stage} | {len(rows)} | {display_name(goal)} {short(before)} | {short(after)} | "
                    f"{100 * change:+.1f} % | {chosen} |"
                )
    return lines


@house_style()
def draw(journal: Journal, stem: str) -> None:
    """Fronts of the first seed: Gini against what is left of NDCG, one panel a data set."""
    found = list(documents(journal))
    figure, panels = new_figure(1, len(found), width=max(7.0, 3.6 * len(found)), height=4.4, squeeze=False, sharey=True)
    for axes, (dataset, all_seeds) in zip(panels[0], found, strict=True):
        document = all_seeds[0]
        base = document["base"]["test"]
        for place, method in enumerate(DRAWN):
            rows = front_rows(document, method, X[0])
            if not rows:
                continue
            axes.plot(
                [row[f"test {X[0]}"] for row in rows], [100 * row[f"test {Y}"] / base[Y] for row in rows],
                marker=MARKERS[place], linestyle=LINES[place], color=PALETTE[place], label=method,
            )  # fmt: skip
        axes.plot([base[X[0]]], [100], marker="*", linestyle="", color=BASE, markersize=12, label="base")
        for loss in LOSS:
            axes.axhline(100 * (1 - loss), color=BASE, linestyle="--", linewidth=0.8)
        axes.set_title(dataset)
        axes.set_xlabel("Gini@10 (lower is better)")
        axes.set_ylim(85, 103)
    panels[0][0].set_ylabel("NDCG@10, % of the base's")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4 if len(found) < 3 else len(labels))
    save_figure(figure, stem)


def table(options: argparse.Namespace) -> None:
    journal = Journal(Path(options.folder))
    found = list(documents(journal))
    for dataset, rows in found:
        print("\n".join([*dataset_table(dataset, rows), ""]))
    parts: tuple[tuple[str, Callable[[str, Sequence[Row]], list[str]]], ...] = (
        ("data | metric | budget | lowest on test | next | ahead by | intervals apart", verdicts),
        ("data | seed | metric | budget | chosen | next | difference, 95 % interval", paired_differences),
        ("data | seeds | base | Lorenz | next best", readme_lines),
    )
    for heads, rows_of in parts:
        print(f"| {heads} |\n" + "|---" * (1 + heads.count("|")) + "|")
        print("\n".join([line for dataset, rows in found for line in rows_of(dataset, rows)] + [""]))
    print("| data | run | seeds | base | after | NDCG | chosen |\n" + "|---" * 7 + "|")
    print("\n".join(default_lines(journal)))
    if options.figure:
        draw(journal, options.figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--folder", default="results/which")
    parser.add_argument("--data_path", default="data")
    parser.add_argument("--datasets", default=",".join(DATASETS))
    parser.add_argument("--seeds", default="2020,2021,2022")
    parser.add_argument("--stages", default="base,fit,frontier")
    parser.add_argument("--fit", default="PopSteerSASRec,SPREESASRec", help="methods to fit; empty for none")
    parser.add_argument("--methods", help="of the frontier; all if left out")
    parser.add_argument("--figure", help="stem of the figure, for table")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    {"run": run, "table": table}[options.what](options)


if __name__ == "__main__":
    main()
