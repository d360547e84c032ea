"""Measure rows of the catalogue of results, and print the lines that go into ``properties/results``.

    python benchmarks/record_results.py ile-ml-100k --data_path=DIRECTORY
    python benchmarks/record_results.py popsteer-ablation-base --folder=bases

A row is printed when its seeds are done. ``--folder`` keeps checkpoints, so that post-hoc methods find their base.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import warnings

import torch

from recbole_fair.config.results import Row, rows, tables
from recbole_fair.runs.verify import verify


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="+", help="rows or tables")
    parser.add_argument("--data_path")
    parser.add_argument("--folder")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    wanted = [row for name in args.names for row in (tables()[name].rows if name in tables() else (rows()[name],))]
    by_seed = []
    for row in wanted:  # in one call, so that rows of one training share it
        metrics = tables()[row.table].metrics
        anything = dict.fromkeys(metrics, math.inf)
        open_row = dataclasses.replace(row, ours=dict.fromkeys(metrics, 0.0), tolerance=anything, script=None)
        by_seed += [dataclasses.replace(open_row, seeds=(seed,)) for seed in row.seeds]
    found: dict[str, list[tuple[list[float], float]]] = {}

    def add(verdict: object) -> None:
        row: Row = verdict.row  # type: ignore[attr-defined]
        values = [one.found for one in verdict.differences]  # type: ignore[attr-defined]
        found.setdefault(row.name, []).append((values, verdict.seconds))  # type: ignore[attr-defined]
        if len(found[row.name]) == len(rows()[row.name].seeds):
            show(row.name, found[row.name])

    verify(by_seed, None, args.data_path, args.folder, add)


def show(name: str, runs: list[tuple[list[float], float]]) -> None:
    columns = list(zip(*(values for values, _ in runs), strict=True))
    print(f"      {name}:")
    print(f"        ours: [{', '.join(f'{statistics.fmean(column):.5g}' for column in columns)}]")
    if len(runs) > 1:
        print(f"        sd: [{', '.join(f'{statistics.stdev(column):.2g}' for column in columns)}]")
    print(f"        # seconds: {', '.join(f'{seconds:.0f}' for _, seconds in runs)}", flush=True)


if __name__ == "__main__":
    main()
