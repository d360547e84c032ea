"""One run at a time in a process: random generators, NumPy's and torch's settings and the log belong to all threads."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from recbole_fair.config.contract import Settings
from recbole_fair.errors import FairError
from recbole_fair.io.processes import TIMEOUT, join, place

P = ParamSpec("P")
R = TypeVar("R")

_running = threading.RLock()
_SHARED = (  # what several processes can do together
    "run_recbole_fair",
    "evaluate_checkpoint",
    "sweep_checkpoint",
    "frontier_datasets",
    "trained_checkpoints",
    "compare",
    "compare_datasets",
)


def together(config: Settings) -> None:
    """Join the other processes of the run, where the environment says that there are some.

    Raises:
        FairError: if they cannot be reached.
    """
    join(torch.device(config["device"]).type == "cuda", float(config["process_timeout"] or TIMEOUT))


def alone(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function run in one thread at a time; it may call others of its kind.

    Two runs that draw from the same generators would both give other numbers than each gives alone, and other ones each
    time.

    Args:
        function: what trains or evaluates.

    Returns:
        The function, which raises a FairError while another thread is in one.
    """

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        if function.__name__ not in _SHARED and place().world > 1:
            raise FairError(f"{function.__name__} runs in one process: start it without torchrun and nproc.")
        if not _running.acquire(blocking=False):
            raise FairError(
                f"{function.__name__}: another thread of this process is in a run, and both would draw from the same "
                "random generators; wait for it, or use processes."
            )
        try:
            return function(*args, **kwargs)
        finally:
            _running.release()

    return guarded
