"""Figures 1 and 3 of TALL's paper from runs of tall_ml1m.py with --groups: who peaks when, and whom the loss weighs.

    M="python benchmarks/tall_ml1m.py --data_path=DIRECTORY --seeds 1 --groups"
    $M --models MultVAE --eval_step=2 --epochs=300 --stopping_step=300 --out=groups-1.json
    $M --models TALL --n_experts=10 --eval_step=5 --stopping_step=6 --out=groups-10.json
    python benchmarks/tall_figure.py groups-1.json groups-10.json --figure=docs/tall-epochs

One seed; a panel a run, and the weights of the last.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tall_ml1m import GROUPS

from recbole_fair.report.style import LINES, MARKERS, PALETTE, house_style, new_figure, save_figure


def peaks(course: list[dict[str, Any]]) -> dict[str, tuple[int, float]]:
    """Epoch and value of each group's best validation."""
    return {
        group: max(((entry["epoch"], entry["groups"][group]) for entry in course), key=lambda peak: peak[1])
        for group in GROUPS
    }


@house_style()
def draw(runs: list[dict[str, Any]], stem: str) -> None:
    """NDCG by group and epoch, a panel a run, each group's peak marked; then the weights of the last run."""
    figure, panels = new_figure(1, len(runs) + 1, width=4.2 * (len(runs) + 1), height=3.9)
    for axes, run in zip(panels, runs, strict=False):
        course, best = run["course"], peaks(run["course"])
        for place, group in enumerate(GROUPS):
            values = [entry["groups"][group] for entry in course]
            epochs = [entry["epoch"] for entry in course]
            axes.plot(epochs, values, color=PALETTE[place], linestyle=LINES[place], label=group)
            axes.plot(*best[group], marker="*", markersize=11, color=PALETTE[place], linestyle="")
        axes.set_title(f"{run['method']}: validation NDCG@20")
        axes.set_xlabel("epoch (a star: the group's best)")
    panels[0].sharey(panels[len(runs) - 1])
    weighted = [entry for entry in runs[-1]["course"] if f"TALL/weight_{GROUPS[0]}" in entry]
    for place, group in enumerate(GROUPS):
        panels[-1].plot(
            [entry["epoch"] for entry in weighted], [entry[f"TALL/weight_{group}"] for entry in weighted],
            color=PALETTE[place], linestyle=LINES[place], marker=MARKERS[place], markersize=3,
        )  # fmt: skip
    panels[-1].set_title(f"{runs[-1]['method']}: mean weight in the loss")
    panels[-1].set_xlabel("epoch")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(GROUPS))
    save_figure(figure, stem)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", help="files of tall_ml1m.py, of TALL the last")
    parser.add_argument("--figure", default="tall-epochs", help="where to write it, without suffix")
    args = parser.parse_args()
    runs = [run for file in args.runs for run in json.loads(Path(file).read_text())["runs"].values()]
    for run in runs:
        shown = (f"{group} {value:.4f} at {epoch}" for group, (epoch, value) in peaks(run["course"]).items())
        print(f"{run['method']}: best {', '.join(shown)}")
    draw(runs, args.figure)


if __name__ == "__main__":
    main()
