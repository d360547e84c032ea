"""What the tables over many runs share: their JSON file and how a mean over seeds is written."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_fair.outputs import write_atomically


def opened(path: Path, setup: Mapping[str, Any]) -> dict[str, Any]:
    """Content of a JSON file of runs, ``{"setup": ..., "runs": {name: run}}``; without runs when there is no file yet.

    Raises:
        SystemExit: if its runs were made in another way.
    """
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"setup": dict(setup), "runs": {}}
    if content["setup"] != setup:
        raise SystemExit(f"{path} was made with {content['setup']}, not {setup}: choose another --out.")
    return content


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_atomically(path, lambda file: json.dump(content, file, indent=1))


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Mean and, of several values, standard deviation over the seeds."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"
