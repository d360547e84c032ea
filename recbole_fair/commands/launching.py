"""Several processes on one machine: ``--nproc=N`` starts them, and watches over them.

The processes are this command again, in the environment that ``torchrun`` would set. This module imports neither
PyTorch nor RecBole: who only watches needs no memory for them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from recbole_fair.errors import FairError

#: Path of a file that the first process to fail makes; the others are silent.
_FAILED = "RECBOLE_FAIR_FAILED"
_PARENT = "RECBOLE_FAIR_PARENT"
_FOR_THE_OTHERS = 5.0  # seconds that processes have to end by themselves once one has failed
_TO_STOP = 20.0  # seconds that processes have to write what they must when they are interrupted
_LOOK = 0.05
_WORDS = "recbole_fair.words"
_COMMANDS = ("run", "evaluate", "sweep", "frontier", "compare", "tune")  # what several processes can share


def number_of_processes(settings: Mapping[str, Any], files: Sequence[str] = ()) -> int:
    """How many processes ``nproc`` asks for: of the command line, else of the last file that says it.

    Inside a process of several it is 1: they are there already.

    Args:
        settings: those of the command line.
        files: names of yaml files.
    """
    if _world() > 1:
        return 1
    asked = settings.get("nproc")
    if asked is None and files:
        asked = _said_in(files, "nproc")
    return asked if isinstance(asked, int) and not isinstance(asked, bool) and asked > 1 else 1


def _said_in(files: Sequence[str], key: str) -> Any:
    from recbole_fair.config.layers import find_config_file, read_yaml

    found = None
    for name in files:
        with contextlib.suppress(FairError):  # the run says what is wrong with the file
            found = read_yaml(find_config_file(name)).get(key, found)
    return found


def begin_call(ctx: click.Context, words: Sequence[str]) -> None:
    """Keep the words of a call for the processes that may share it.

    Args:
        ctx: of the group of commands.
        words: the command first, if there is one.

    Raises:
        FairError: inside one process of several, for a command that each of them would run as a whole.
    """
    name = words[0] if words else None
    if _world() > 1 and name is not None and not name.startswith("-") and name not in _COMMANDS:
        raise FairError(
            f"{name} runs in one process; torchrun and nproc are for {', '.join(_COMMANDS)}: start it without."
        )
    ctx.meta[_WORDS] = list(words)


def words_of_call() -> list[str]:
    """The words of the running call, its command first."""
    words: list[str] = click.get_current_context().meta[_WORDS]
    return words


def _world() -> int:
    number = os.environ.get("WORLD_SIZE", "1")
    return int(number) if number.isdigit() and "RANK" in os.environ else 1


def _rank() -> int:
    number = os.environ.get("RANK", "0")
    return int(number) if number.isdigit() and _world() > 1 else 0


# -- inside one of the processes ---------------------------------------------------------------------------------------


def speaks() -> bool:
    """Whether this process is the one that says why the run ends: the first to fail, and the only one."""
    if _world() == 1:
        return True
    path = os.environ.get(_FAILED)
    if path is not None:
        return _is_first(path)
    try:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=_seconds(3))
        again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return int(store.add(f"recbole_fair/failed/{again}", 1)) == 1
    except (ImportError, KeyError, ValueError, RuntimeError):
        return True  # who has nobody to ask speaks


def _is_first(path: str) -> bool:
    """Whether nobody has made this file before."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    except OSError:  # the starting process has gone, and its folder with it
        return _rank() == 0
    return True


def _seconds(number: float) -> Any:
    from datetime import timedelta

    return timedelta(seconds=number)


def speaks_of_interruption() -> bool:
    """Whether this process is the one that says that the run was interrupted: the first one, unless it has failed."""
    return _rank() == 0 and speaks()


def end(code: int) -> NoReturn:
    """Exit; as one of several at once, without waiting for the others."""
    if _world() == 1:
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def say_and_end(text: str, code: int) -> NoReturn:
    """Say on standard error why the run ends, unless another process has, and exit."""
    if speaks():
        click.echo(text, err=True)
    end(code)


def end_with_traceback(error: Exception) -> NoReturn:
    """Exit of one of several processes on what is nobody's mistake; a process that is alone raises it again."""
    if _world() == 1:
        raise error
    if speaks():
        traceback.print_exception(error)
    end(1)


def watch_parent() -> None:
    """End with the process that has started this one, also where that was killed."""
    parent = os.environ.get(_PARENT)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_TO_STOP)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="recbole-fair-parent").start()


# -- in the process that starts them -----------------------------------------------------------------------------------


def launch_if_asked(words: Sequence[str], settings: Mapping[str, Any], files: Sequence[str] = ()) -> None:
    """Run a command in several processes and exit, where ``nproc`` asks for them; else do nothing.

    Args:
        words: the command's words.
        settings: those of the command line.
        files: names of yaml files.
    """
    count = number_of_processes(settings, files)
    if count > 1:
        launch(words, count, settings)


def launch(words: Sequence[str], count: int, settings: Mapping[str, Any]) -> NoReturn:
    """Run a command in several processes and exit as they do.

    Args:
        words: the command's words.
        count: processes on this machine.
        settings: ``world_size``, ``offset``, ``ip`` and ``port`` as RecBole means them, where other machines take
            part: processes in all, number of the first one here, address and port of the first machine.

    Raises:
        FairError: for numbers that do not go together.
    """
    environments = _environments(count, settings)
    with tempfile.TemporaryDirectory(prefix="recbole-fair-") as folder, _told_to_stop() as told:
        shared = {_FAILED: str(Path(folder) / "failed"), _PARENT: str(os.getpid())}
        command = [sys.executable, "-m", "recbole_fair", *words]
        children = [subprocess.Popen(command, env={**os.environ, **own, **shared}) for own in environments]
        first, world = (int(environments[0][name]) for name in ("RANK", "WORLD_SIZE"))

        def say(child: subprocess.Popen[bytes] | None) -> None:
            """Name a process that could not say itself why it ended; none where all were told to."""
            if child is None:
                if _is_first(shared[_FAILED]):
                    click.echo("Interrupted.", err=True)
            elif child.returncode < 0 and _is_first(shared[_FAILED]):
                ended = f"process {first + children.index(child)} of {world} was ended by"
                name = signal.Signals(-child.returncode).name
                click.echo(f"recbole-fair: {ended} {name}, and the others with it.", err=True)

        code = _watch(children, told, say)
    sys.exit(code)


def _environments(count: int, settings: Mapping[str, Any]) -> list[dict[str, str]]:
    world = int(settings.get("world_size") or -1)
    world = count if world <= 0 else world
    first = int(settings.get("offset") or 0)
    if not count + first <= world:
        raise FairError(f"nproc={count} from offset={first} on are more processes than world_size={world}.")
    alone = world == count
    address = str(settings.get("ip") or "127.0.0.1")
    if not alone and settings.get("port") is None:
        raise FairError(f"world_size={world}: name ip and port of the first machine, or start by torchrun.")
    port = settings.get("port") or _free_port()
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // count))
    return [
        {
            "RANK": str(first + number),
            "LOCAL_RANK": str(number),
            "WORLD_SIZE": str(world),
            "MASTER_ADDR": address,
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": threads,
            "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),  # who has lost whom is said once
        }
        for number in range(count)
    ]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def _told_to_stop() -> Iterator[list[int]]:
    """The numbers of the signals that ask this process to end, as they come."""
    told: list[int] = []
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), lambda number, _: told.append(number)) for name in names}
    try:
        yield told
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def _watch(
    children: list[subprocess.Popen[bytes]], told: list[int], say: Callable[[subprocess.Popen[bytes] | None], None]
) -> int:
    """Wait for all processes; once one has failed, or this one is told to stop, see to it that all end."""
    failed: subprocess.Popen[bytes] | None = None
    deadline, stopped = None, 0
    while any(child.poll() is None for child in children):
        if told:
            if told[0] == signal.SIGINT:  # the terminal has told them as well
                time.sleep(1.0)
            stopped = stopped or told[0]
            told.clear()
            _tell(children, signal.SIGTERM)
            deadline = time.monotonic() + _TO_STOP
        if failed is None and not stopped:
            failed = _failed(children)
            if failed is not None:
                say(failed)
                deadline = time.monotonic() + _FOR_THE_OTHERS
        if deadline is not None and time.monotonic() > deadline:
            stubborn = failed is None or time.monotonic() > deadline + _FOR_THE_OTHERS
            _tell(children, signal.SIGKILL if stubborn else signal.SIGTERM)
            if stubborn:
                deadline = None
        time.sleep(_LOOK)
    if stopped or told:
        say(None)  # where the first process was told before it could say anything
        return 128 + (stopped or told[0])
    failed = failed or _failed(children)
    if failed is None:
        return 0
    say(failed)
    return failed.returncode if failed.returncode > 0 else 1


def _failed(children: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes] | None:
    """A process that has ended otherwise than well; one that was killed before one that has met its end."""
    codes = {child.poll() or 0: child for child in children}
    return codes[min(codes)] if min(codes) < 0 else codes[max(codes)] if max(codes) > 0 else None


def _tell(children: list[subprocess.Popen[bytes]], number: int) -> None:
    for child in children:
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(number)
