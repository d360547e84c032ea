"""Rows a second and peak memory of ``recbole-fair convert``, by kind and size of the file.

    python benchmarks/convert.py --rows 2000000 20000000 --kinds csv jsonl parquet

Files are made on the spot in a temporary folder: user ids with leading zeros, skewed items, ratings, ISO dates with a
time zone. Each conversion runs in a process of its own, whose peak resident memory is reported with that of a process
that has only imported the converter. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

_CHUNK = 500_000
_CONVERT = """
import json, sys, time
from recbole_fair.data.tables.conversion import Request, convert


def peak():  # getrusage would give that of the process that started this one, too
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024


idle = peak()
start, cpu = time.perf_counter(), time.process_time()
written = convert(Request(sys.argv[1], sys.argv[2]))[0].written
found = {"rows": written, "seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu,
         "peak_mb": peak(), "idle_mb": idle}
print(json.dumps(found))
"""


def chunk(rows: int) -> pd.DataFrame:
    """Interactions at random."""
    rng = np.random.default_rng(0)
    instants = pd.to_datetime(rng.integers(1_200_000_000, 1_600_000_000, rows), unit="s")
    return pd.DataFrame({
        "userId": [f"{user:07d}" for user in rng.integers(0, 200_000, rows)],
        "movieId": (rng.pareto(1, rows) * 200).astype(np.int64) % 50_000,
        "rating": rng.integers(1, 6, rows),
        "date": instants.strftime("%Y-%m-%dT%H:%M:%SZ"),
    })  # fmt: skip


def write(path: Path, rows: int) -> None:
    """Make the file: the same rows over and over, which the converter does not know."""
    one = chunk(min(rows, _CHUNK))
    times, rest = divmod(rows, _CHUNK)
    parts = [one] * times + ([one[:rest]] if rest else [])
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetWriter(path, pa.Schema.from_pandas(one, preserve_index=False)) as writer:
            for part in parts:
                writer.write_table(pa.Table.from_pandas(part, preserve_index=False))
        return
    texts: dict[int, str] = {}
    with path.open("w", encoding="utf-8") as file:
        if path.suffix == ".csv":
            file.write(",".join(one.columns) + "\n")
        for part in parts:
            if len(part) not in texts:
                as_csv = path.suffix == ".csv"
                text = part.to_csv(header=False, index=False) if as_csv else part.to_json(orient="records", lines=True)
                texts[len(part)] = str(text)
            file.write(texts[len(part)])


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000_000])
    parser.add_argument("--kinds", nargs="+", default=["csv", "jsonl", "parquet"])
    args = parser.parse_args()
    print("| kind | rows | file | seconds (CPU) | rows a second (CPU) | peak memory | before |")
    print("|---|---|---|---|---|---|---|")
    for rows in args.rows:
        for kind in args.kinds:
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder, f"r.{kind}")
                write(source, rows)
                run = [sys.executable, "-c", _CONVERT, str(source), str(Path(folder, "out"))]
                found = json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
                size = source.stat().st_size / 2**20
            assert found["rows"] == rows
            print(
                f"| {kind} | {rows:,} | {size:.0f} MB | {found['seconds']:.0f} ({found['cpu']:.0f}) | "
                f"{rows / found['seconds']:,.0f} ({rows / found['cpu']:,.0f}) | {found['peak_mb']:.0f} MB | "
                f"{found['idle_mb']:.0f} MB |",
                flush=True,
            )


if __name__ == "__main__":
    main()
