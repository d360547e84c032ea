"""What a command says at an end that is not as it should be: interrupted, or with files that could not be written."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from recbole_fair.commands.launching import end, speaks_of_interruption
from recbole_fair.errors import PeerError
from recbole_fair.io.text import visible

EXIT_INCOMPLETE = 1
EXIT_INTERRUPTED = 130  # 128 and the number of SIGINT
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_FOR_THE_SIGNAL = 1.0  # seconds
_AGAIN = 5.0  # seconds until a signal that nobody has heeded is raised again
_alarms: list[int] = []  # the signal that is raised again, if any


class Stopped(KeyboardInterrupt):
    """A signal that asks the process to end; it goes the way of Ctrl-C.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _stop(number: int, frame: FrameType | None) -> None:
    _raise_again(number)
    raise Stopped(number)


def _raise_again(number: int) -> None:
    """Let a signal be raised again, every few seconds, until :func:`_heeded` is called.

    What a handler raises is lost where C code has called Python and clears errors, as PyTorch does when it asks objects
    for attributes; a training would go on as if nobody had asked it to end.
    """
    if hasattr(signal, "setitimer") and signal.getsignal(signal.SIGALRM) == signal.SIG_DFL:  # not on Windows
        signal.signal(signal.SIGALRM, lambda _, frame: _stop(number, frame))
        signal.setitimer(signal.ITIMER_REAL, _AGAIN, _AGAIN)
        _alarms.append(number)


def _heeded() -> None:
    if _alarms:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        _alarms.clear()


def _default() -> str:
    return ""


@contextmanager
def interruptible(advice: Callable[[], str] = _default) -> Iterator[None]:
    """Inside the block Ctrl-C, SIGTERM and SIGHUP end the command with a sentence and exit code 130, 143 or 129.

    Args:
        advice: says what was kept and how to go on, when it comes to that.
    """
    before: dict[signal.Signals, Any] = {}
    for name in _SIGNALS:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        # A signal that is ignored (nohup) stays so.
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            with contextlib.suppress(ValueError):  # outside of the main thread
                before[number] = signal.signal(number, _stop)
    try:
        try:
            yield
        except PeerError:
            time.sleep(_FOR_THE_SIGNAL)  # all processes may have been told to end, and the others were quicker
            raise
    except KeyboardInterrupt as stop:
        _heeded()
        for number in before:
            signal.signal(number, signal.SIG_IGN)  # a second one must not cut the sentence short
        if speaks_of_interruption():
            text = advice()
            with contextlib.suppress(OSError):  # the terminal may be gone
                click.echo(visible("Interrupted" + (f": {text}." if text else ".")), err=True)
        end(128 + stop.number if isinstance(stop, Stopped) else EXIT_INTERRUPTED)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _heeded()


def checkpoint_advice(resumed: Any = None) -> Callable[[], str]:
    """Advice that names the checkpoint which this process, and no other, wrote last.

    Args:
        resumed: the checkpoint that the run goes on from, if any.
    """

    def advice() -> str:
        module = sys.modules.get("recbole_fair.io.checkpoint")
        path = (module.last_saved() if module is not None else None) or resumed
        if path:
            return f"the last checkpoint is {path}; go on with --resume={path}"
        return "no checkpoint was written yet"

    return advice


def report_failures(failed: Mapping[str, str] | None) -> None:
    """Name the files that could not be written, on the last lines, and exit; nothing where all are there."""
    if failed:
        for name, reason in failed.items():
            click.echo(visible(f"recbole-fair: {name} was not written: {reason}"), err=True)
        sys.exit(EXIT_INCOMPLETE)
