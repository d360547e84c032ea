"""A command that is told to end does end, also where what the signal raised was lost on the way."""

from __future__ import annotations

import os
import signal
import time

import pytest

from recbole_fair.commands import interruptions


def _work(number: int, lost: int) -> None:
    """Get a signal, and do with its first exceptions what C code does that clears errors."""
    for left in range(lost, -1, -1):
        try:
            if left == lost:
                os.kill(os.getpid(), number)
            time.sleep(5)
        except KeyboardInterrupt:
            if not left:
                raise


@pytest.mark.parametrize("lost", [0, 1, 3])
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_is_raised_until_it_is_heeded(
    name: str, code: int, lost: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(interruptions, "_AGAIN", 0.05)
    number = getattr(signal, name)
    before = signal.getsignal(number)
    default = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
    signal.signal(number, default)
    began = time.monotonic()
    try:
        with pytest.raises(SystemExit) as caught, interruptions.interruptible(lambda: "all is kept"):
            _work(number, lost)
    finally:
        after = signal.signal(number, before)
    assert time.monotonic() - began < 5
    assert caught.value.code == code
    assert capsys.readouterr().err == "Interrupted: all is kept.\n"
    assert after == default
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    time.sleep(0.12)  # no alarm is left over: it would end this process


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptions.interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        assert signal.signal(signal.SIGHUP, before) == signal.SIG_IGN
