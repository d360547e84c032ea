"""Parts that are computed side by side."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator

import pytest
import torch

from recbole_fair.io.threads import in_threads, parts_for, parts_only


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_from_threads_that_run_together(two_threads: None) -> None:
    together = threading.Barrier(2, timeout=10)  # one after the other, neither would ever pass

    def work(number: int) -> tuple[int, int, int]:
        together.wait()
        return number, torch.get_num_threads(), threading.get_ident()

    (first, width, one), (second, other_width, other) = in_threads([lambda: work(0), lambda: work(1)])
    assert (first, second, width, other_width) == (0, 1, 1, 1)
    assert len({one, other, threading.get_ident()}) == 3
    assert torch.get_num_threads() == 2


def test_the_mode_of_gradients_is_the_callers(two_threads: None) -> None:
    for wanted in (True, False):
        with torch.set_grad_enabled(wanted):
            assert in_threads([torch.is_grad_enabled] * 2) == [wanted] * 2


def test_an_error_is_raised_once_all_have_ended(two_threads: None) -> None:
    ended = threading.Event()

    def fail() -> None:
        raise ValueError("part")

    with pytest.raises(ValueError, match="part"):
        in_threads([fail, ended.set])
    assert ended.is_set()


def test_how_many_parts(two_threads: None) -> None:
    assert [parts_for(works) for works in (0, 1, 2, 1000)] == [1, 1, 2, 2]
    assert in_threads([lambda: parts_for(1000)] * 2) == [1, 1]  # no parts of parts
    torch.set_num_threads(1)
    assert parts_for(1000) == 1


def test_parts_alone_take_the_threads(two_threads: None) -> None:
    together = threading.Barrier(2, timeout=10)

    def fail() -> None:
        with parts_only():
            assert torch.get_num_threads() == 1
            assert parts_for(1000) == 2
            assert in_threads([lambda: (together.wait(), torch.get_num_threads())[1]] * 2) == [1, 1]
            assert torch.get_num_threads() == 1
            with parts_only():
                assert parts_for(1000) == 2
            assert parts_for(1000) == 2
            raise ValueError("end")

    with pytest.raises(ValueError, match="end"):
        fail()
    assert torch.get_num_threads() == 2
    assert parts_for(1000) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_forked_process_starts_threads_of_its_own(two_threads: None) -> None:
    in_threads([lambda: 1] * 2)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, bytes(in_threads([lambda: 3] * 2)))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(read, 2) == b"\3\3"
