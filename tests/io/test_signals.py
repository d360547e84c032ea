"""A signal in the middle of a file that torch writes neither gets lost nor damages the file."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
import torch

from recbole_fair.io.archive import read_archive, write_archive
from recbole_fair.io.signals import heeded_afterwards

CONTENT = {"weights": torch.arange(1000.0), "epoch": 3}


class _ToldError(Exception):
    pass


def _raise(number: int, frame: FrameType | None) -> None:
    raise _ToldError(number)


@pytest.fixture(params=["SIGINT", "SIGTERM", "SIGHUP"])
def number(request: pytest.FixtureRequest) -> Iterator[int]:
    found = getattr(signal, request.param)
    before = signal.signal(found, _raise)
    yield found
    assert signal.getsignal(found) is _raise
    signal.signal(found, before)


class _Interrupting(io.BytesIO):
    """Sends a signal to this process with each of the first three writes."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.left = number, 3

    def write(self, data: Any) -> int:
        if self.left:
            self.left -= 1
            os.kill(os.getpid(), self.number)
        return super().write(data)


def test_an_archive_is_written_to_its_records_end(number: int) -> None:
    file = _Interrupting(number)
    with pytest.raises(_ToldError):
        write_archive(CONTENT, file)
    assert file.left == 0
    content, _ = read_archive(io.BytesIO(file.getvalue()))
    assert content["epoch"] == 3
    assert torch.equal(content["weights"], CONTENT["weights"])


def test_one_signal_is_raised_at_the_end(number: int) -> None:
    reached = []

    @heeded_afterwards()
    def work() -> None:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        reached.append(True)

    with pytest.raises(_ToldError):
        work()
    assert reached


def test_what_fails_inside_is_the_context_of_the_signal(number: int) -> None:
    @heeded_afterwards()
    def work() -> None:
        os.kill(os.getpid(), number)
        raise ValueError("inside")

    with pytest.raises(_ToldError) as caught:
        work()
    assert isinstance(caught.value.__context__, ValueError)


def test_without_a_signal_nothing_changes(number: int) -> None:
    with heeded_afterwards():
        assert signal.getsignal(number) is not _raise


def test_other_threads_leave_signals_alone(number: int) -> None:
    seen = []

    def work() -> None:
        with heeded_afterwards():
            seen.append(signal.getsignal(number))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [_raise]
