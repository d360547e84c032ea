"""Parts of one computation side by side, each in a thread of its own.

PyTorch splits every single operation among its threads, and NumPy and pandas split nothing. Here each thread does a
whole part, operation after operation, and they wait for each other once. Worth it where a part is a few long
operations, which let go of Python's lock; many short ones, such as a training step of a small model, wait for it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")

_MOST = 8  # further threads split operations, as ever
_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


class _Own(threading.local):
    """Whether a thread does a part already, for parts of parts follow one another; and how many it may start."""

    inside = False
    most: int | None = None


_own = _Own()


def parts_for(works: int) -> int:
    """How many of so many works on the CPU are to run side by side.

    Args:
        works: works in all.

    Returns:
        At most the number of PyTorch's threads (before :func:`parts_only`), and 1 inside of a part.
    """
    return 1 if _own.inside else max(1, min(_threads(), works, _MOST))


def _threads() -> int:
    return _own.most or torch.get_num_threads()


@contextmanager
def parts_only() -> Iterator[None]:
    """Inside the block single operations take one thread, and :func:`in_threads` as many as before.

    For parts between many short operations: PyTorch's own threads wait for the next operation without letting go of
    their cores, which the parts then lack.
    """
    threads = torch.get_num_threads()
    if _own.inside or _own.most or threads == 1:
        yield
        return
    _own.most = threads
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _own.most = None


def in_threads(works: Sequence[Callable[[], T]]) -> list[T]:
    """Results of some functions, computed side by side, in their order.

    As many at a time as :func:`parts_for` says. Each has its share of PyTorch's threads and the caller's grad mode. A
    single one runs where it is called. They must not draw from the global generators, whose order would be a matter of
    chance.

    Args:
        works: the functions, any number.

    Raises:
        Exception: the first that one of them raises, after those of its turn have ended.
    """
    most = parts_for(len(works))
    return [found for at in range(0, len(works), most) for found in _at_once(works[at : at + most])]


def _at_once(works: Sequence[Callable[[], T]]) -> list[T]:
    if len(works) == 1:
        return [work() for work in works]
    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()
    width, pool = max(1, _threads() // len(works)), _workers()
    futures = [pool.submit(_run, work, width, grad) for work in works]
    try:
        wait(futures)
    finally:
        torch.set_num_threads(threads)  # a thread that starts later takes over what was set last
    return [future.result() for future in futures]


def _run(work: Callable[[], T], width: int, grad: bool) -> T:
    _own.inside = True
    torch.set_num_threads(width)  # of this thread alone
    with torch.set_grad_enabled(grad):
        return work()


def _workers() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(_MOST, "recbole-fair-part")
        return _pool


def _forget() -> None:
    """A process that was forked off has none of its parent's threads."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()
    _own.inside, _own.most = False, None


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget)
