"""A root logger as a fresh process has it, for tests of what a terminal shows."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def fresh_root() -> Iterator[None]:
    """A root logger as a fresh process has it; pytest's own handlers come back."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = before
    root.setLevel(level)


def with_fresh_root(test: Any) -> Any:
    @functools.wraps(test)
    def wrapped(*args: Any, **options: Any) -> None:
        with fresh_root():
            test(*args, **options)

    return wrapped
