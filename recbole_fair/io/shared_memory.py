"""Memory that the processes of one machine share: what they exchange goes through it, not through sockets.

A message by sockets costs a millisecond and more, which is much beside a training step of ten. Here each process writes
its numbers into a place of its own, says so, and reads the places of the others once they have said so.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

#: Environment variable: ``0`` lets the processes of one machine speak by sockets as well.
SWITCH = "RECBOLE_FAIR_SHARED_MEMORY"
_FOLDER = Path("/dev/shm")
_PLACE = 1 << 22  # bytes of one process, twice: while some still read one message, others write the next
_LINE = 64  # bytes between the counters, which different processors write
_AT_ONCE, _LATER = 2000, 0.0002  # looks without a pause, then seconds between them
_LOOKS = 500  # between two looks at whether the others live

Gather = Callable[[list[object]], list[list[object]]]


class GoneError(RuntimeError):
    """A process that shares the memory has ended, or has not come in time."""


class SharedMemory:
    """One message after the other, each read by all before its place is used again.

    Args:
        memory: the memory, the same in all processes.
        rank: number of this process.
        pids: numbers that the system gives the processes, by rank.
        timeout: seconds after which a process that does not come is given up.
    """

    def __init__(self, memory: mmap.mmap, rank: int, pids: list[int], timeout: float) -> None:
        self._rank, self._pids, self._timeout = rank, pids, timeout
        world = len(pids)
        self._counts = np.frombuffer(memory, dtype=np.int64, count=world * _LINE // 8)[:: _LINE // 8]
        places = torch.frombuffer(memory, dtype=torch.uint8, offset=world * _LINE, count=2 * world * _PLACE)
        self._places = places.view(2, world, _PLACE)
        self._count = 0

    def exchange(self, values: Tensor) -> Iterator[tuple[slice, list[Tensor]]]:
        """What all processes have, piece by piece.

        Args:
            values: flat, on the CPU, equally long in all processes.

        Yields:
            Where a piece lies in ``values``, and the piece of each process, by rank, as long as the next is not asked
            for.
        """
        width = values.element_size()
        most = _PLACE // width
        for start in range(0, len(values), most):
            piece = slice(start, min(start + most, len(values)))
            turn = self._places[self._count % 2]
            own = values[piece]
            bytes_of_it = len(own) * width
            turn[self._rank, :bytes_of_it].view(values.dtype).copy_(own)
            self._wait()
            yield piece, [place[:bytes_of_it].view(values.dtype) for place in turn]

    def _wait(self) -> None:
        """Wait until all have written what this process has written."""
        self._count += 1
        time.sleep(0)  # which lets go of a lock: what was written before is seen before the counter
        self._counts[self._rank] = self._count
        looks, begun = 0, time.monotonic()
        while int(self._counts.min()) < self._count:
            looks += 1
            time.sleep(0 if looks < _AT_ONCE else _LATER)
            if looks % _LOOKS == 0:
                self._look(begun)
        time.sleep(0)

    def _look(self, begun: float) -> None:
        """See that the others are there."""
        late = [rank for rank, count in enumerate(self._counts.tolist()) if count < self._count]
        for rank in late:
            if not _lives(self._pids[rank]):
                raise GoneError(f"process {rank} is gone")
        if late and time.monotonic() > begun + self._timeout:
            raise GoneError(f"process {late[0]} has not answered for {self._timeout:g} seconds")


def _lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not yet taken away by who started it does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in "ZX"


def shared_memory(rank: int, world: int, timeout: float, gather: Gather) -> SharedMemory | None:
    """Memory of all processes, if they are on one machine and it has room; called by all at once.

    Args:
        rank: number of this process.
        world: how many there are.
        timeout: as in :class:`SharedMemory`.
        gather: gives each process what all have, by rank.
    """
    usable = os.environ.get(SWITCH, "1") != "0" and os.access(_FOLDER, os.W_OK) and hasattr(os, "posix_fallocate")
    size = world * (_LINE + 2 * _PLACE)
    memory: mmap.mmap | None = None
    path = None
    if usable and rank == 0:
        with contextlib.suppress(OSError, ValueError):
            handle, path = tempfile.mkstemp(prefix="recbole-fair-", dir=_FOLDER)
            try:
                os.posix_fallocate(handle, 0, size)  # a full folder would else end the process at its first write
                memory = mmap.mmap(handle, size)
            finally:
                os.close(handle)
    where = gather([socket.gethostname(), path if memory is not None else None, os.getpid(), usable])
    name = where[0][1]
    alike = name is not None and all(one[0] == where[0][0] and one[3] for one in where)
    if alike and rank > 0:
        with contextlib.suppress(OSError, ValueError), open(str(name), "r+b") as file:
            memory = mmap.mmap(file.fileno(), size)
    pids = [int(str(one[2])) for one in where]
    works = bool(alike) and memory is not None and all(map(_lives, pids))
    works = all(bool(one[0]) for one in gather([works]))
    if path is not None:  # it stays as long as a process has it, and no longer
        with contextlib.suppress(OSError):
            os.unlink(path)
    return SharedMemory(memory, rank, pids, timeout) if works and memory is not None else None
