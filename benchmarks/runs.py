"""What the tables over many runs share: their JSON file, their options, and how a mean over seeds is written."""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from recbole_fair.runs.outputs import write_atomically


class Runs:
    """Runs by name in a JSON file, ``{"setup": ..., "runs": {name: run}}``.

    A run that stands there is not done again, so a script may be stopped and started at will.

    Attributes:
        done: finished runs by name.

    Raises:
        SystemExit: if the file's runs were made in another way.
    """

    def __init__(self, path: str, setup: Mapping[str, Any], minutes: float | None = None) -> None:
        self.path = Path(path)
        self.content: dict[str, Any] = {"setup": dict(setup), "runs": {}}
        if self.path.is_file():
            self.content = json.loads(self.path.read_text())
        if self.content["setup"] != setup:
            raise SystemExit(f"{path} was made with {self.content['setup']}, not {setup}: choose another --out.")
        self.done: dict[str, Any] = self.content["runs"]
        self.end = None if minutes is None else time.monotonic() + 60 * minutes

    @property
    def folder(self) -> Path:
        """Where checkpoints of the runs are kept, beside the file."""
        return self.path.with_suffix("").absolute()

    def add(self, name: str, run: Callable[[], Mapping[str, Any]], shown: Callable[[Any], str]) -> None:
        """Do a run unless it is there, write the file, and print its seconds and what ``shown`` makes of it.

        A run that goes on from another one's state returns the seconds of that as ``earlier_seconds``.

        Raises:
            SystemExit: with code 0, if the time is up.
        """
        if name in self.done:
            return
        if self.end is not None and time.monotonic() > self.end:
            print("The time is up; run the same command again to go on.")
            raise SystemExit(0)
        start = time.perf_counter()
        found = {"earlier_seconds": 0.0, **run()}
        found["seconds"] = round(time.perf_counter() - start + found.pop("earlier_seconds"), 1)
        self.done[name] = found
        write_atomically(self.path, lambda file: json.dump(self.content, file, indent=1))
        print(f"{name}: {found['seconds']:.0f} s, {shown(found)}", flush=True)


def parser_of(doc: str | None, out: str) -> argparse.ArgumentParser:
    """A parser with the options that all scripts over many runs have."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--data_path")
    parser.add_argument("--out", default=out)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--stopping_step", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="start no further run after so many minutes")
    parser.add_argument("--table", action="store_true", help="print the table of what is there and train nothing")
    return parser


def settle(args: argparse.Namespace) -> None:
    """Threads; no warnings, and of the logs only errors."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(args.threads)


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Mean and, of several values, standard deviation over the seeds."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"
