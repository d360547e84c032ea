"""Signals that come at a bad moment are heeded a moment later."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM")


@contextmanager
def heeded_afterwards() -> Iterator[None]:
    """Inside the block what would be raised by Ctrl-C, SIGTERM, SIGHUP and SIGALRM waits for the block's end.

    For calls of libraries in C++ that call back into Python: an exception that a signal raises there is lost, or comes
    out as an error of theirs. A signal that ends the process without Python's doing so still does.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are Python's main thread's
        yield
        return
    came: list[tuple[int, FrameType | None]] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))

    before: dict[int, Any] = {}
    for name in _NAMES:
        number = getattr(signal, name, None)  # Windows lacks some
        if number is not None and callable(signal.getsignal(number)):
            before[number] = signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            number, frame = came[0]
            before[number](number, frame)
