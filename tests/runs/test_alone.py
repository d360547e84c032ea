"""Runs in several threads are refused."""

from __future__ import annotations

import threading

import pytest

from recbole_fair.errors import FairError
from recbole_fair.quick_start import compare, evaluate_checkpoint, run_recbole_fair
from recbole_fair.runs.alone import alone


def test_a_second_thread_is_refused_and_the_first_goes_on() -> None:
    inside, done = threading.Event(), threading.Event()
    found: list[int] = []

    @alone
    def first() -> None:
        inside.set()
        done.wait(10)
        found.append(alone(lambda: 1)())  # a comparison calls runs

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(10)
    for function, args in (
        (run_recbole_fair, ("BPR", "toy")),
        (evaluate_checkpoint, ("x.pth",)),
        (compare, (["BPR"],)),
    ):
        with pytest.raises(FairError, match="another thread of this process is in a run"):
            function(*args)  # type: ignore[operator]
    done.set()
    thread.join()
    assert found == [1]
    with pytest.raises(FairError, match="There is no checkpoint file"):
        evaluate_checkpoint("x.pth")
