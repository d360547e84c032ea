"""The processes of one run: which one this is, and what they say to each other.

Whoever asks for :func:`current` gets the processes that were joined, or one that is alone, whose sums are what goes in
and which waits for nobody: code reads the same either way. Everything stands on ``torch.distributed`` and on the
environment that ``torchrun`` sets (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR``, ``MASTER_PORT``).

All methods that exchange something have to be called by every process, in the same order.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from recbole_fair.errors import FairError, PeerError

T = TypeVar("T")

#: Seconds after which a process that does not answer is given up, unless ``process_timeout`` says otherwise.
TIMEOUT = 1800
_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PATIENCE = timedelta(days=365)
_BUCKET = 1 << 24  # numbers that are added up in one message


@dataclass(frozen=True)
class Place:
    """Where a process stands among those of its run, by the environment.

    Attributes:
        rank: 0, 1, ...; 0 writes files.
        world: how many there are.
        local_rank: number within the machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0


def place() -> Place:
    """What the environment says; alone where it says nothing, or names one process.

    Raises:
        FairError: for numbers that are none.
    """
    if any(name not in os.environ for name in _NEEDED):
        return Place()
    try:
        rank, world, local = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    except ValueError:
        rank, world, local = -1, 0, 0
    if not 0 <= rank < world:
        raise FairError(
            f"RANK={os.environ['RANK']} and WORLD_SIZE={os.environ['WORLD_SIZE']} of the environment name no process "
            "of a run: start by torchrun, or unset them."
        )
    return Place(rank, world, local) if world > 1 else Place()


class Processes:
    """The processes of a run, seen from one of them.

    Args:
        place: which one this is.
        device: where tensors are exchanged: of the GPU under nccl, else the CPU.

    Attributes:
        rank: number of this process.
        world: how many there are.
        share: part of the running batch's targets that this process holds; 1 while it holds the whole batch.
        shared: whether the running batch is shared among the processes.
    """

    def __init__(self, place: Place, device: torch.device | None = None) -> None:
        self.rank, self.world = place.rank, place.world
        self.device = device or torch.device("cpu")
        self.share, self.shared = 1.0, False
        self._patient: Any = None

    @property
    def several(self) -> bool:
        """Whether there is more than this one."""
        return self.world > 1

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes files and logs."""
        return self.rank == 0

    # -- numbers -------------------------------------------------------------------------------------------------

    def add(self, values: Tensor) -> Tensor:
        """Sum over the processes, in place; in float64 or integers where order must not matter.

        Args:
            values: of any shape, the same in every process.
        """
        if self.several:
            with _answers():
                if values.device == self.device or self.device.type == "cpu":
                    dist.all_reduce(values)
                else:
                    moved = values.to(self.device)
                    dist.all_reduce(moved)
                    values.copy_(moved)
        return values

    def any(self, flag: bool) -> bool:
        """Whether it holds for any process."""
        return bool(self.add(torch.tensor(int(flag), dtype=torch.long)) > 0) if self.several else flag

    def gather(self, values: Tensor, sizes: list[int] | None = None) -> list[Tensor]:
        """What each process has, by rank.

        Args:
            values: ``[n, ...]``; ``n`` may differ from process to process, and be 0.
            sizes: ``n`` of each process, where that is known.
        """
        if not self.several:
            return [values]
        if sizes is None:
            lengths = torch.zeros(self.world, dtype=torch.long)
            lengths[self.rank] = len(values)
            sizes = self.add(lengths).tolist()
        kind = values.to(self.device)
        as_bytes = kind.dtype == torch.bool
        kind = kind.to(torch.uint8) if as_bytes else kind
        mine = kind.new_zeros(max(sizes), *kind.shape[1:])
        mine[: len(values)] = kind
        found = [torch.empty_like(mine) for _ in sizes]
        with _answers():
            dist.all_gather(found, mine.contiguous())
        parts = [part[:size].to(values.device) for part, size in zip(found, sizes, strict=True)]
        return [part.bool() for part in parts] if as_bytes else parts

    def gather_values(self, value: T) -> list[T]:
        """The value of each process, by rank; plain values as in :meth:`of_first`."""
        if not self.several:
            return [value]
        found = self.gather(torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8))
        return [json.loads(part.numpy().tobytes()) for part in found]

    # -- values of the first process -----------------------------------------------------------------------------

    def of_first(self, value: T) -> T:
        """A value of the first process.

        Args:
            value: text, numbers, None, and lists and dicts of them; those of the other processes are passed over.
        """
        if not self.several:
            return value
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(self.device)
        size = torch.tensor(len(data), dtype=torch.long, device=self.device)
        with _answers():
            dist.broadcast(size, 0)
            data = data if self.rank == 0 else torch.empty(int(size), dtype=torch.uint8, device=self.device)
            dist.broadcast(data, 0)
        found: T = json.loads(bytes(data.cpu().tolist()))
        return found

    def made_by_first(self, make: Callable[[], T]) -> T:
        """What ``make`` returns in the first process, which alone calls it; values as in :meth:`of_first`."""
        return self.of_first(make() if self.writes else None)  # type: ignore[return-value]

    def take_from_first(self, tensors: Mapping[str, Tensor]) -> None:
        """Give tensors the values of the first process, in place."""
        if not self.several:
            return
        with torch.no_grad(), _answers():
            for name in sorted(tensors):
                values = tensors[name]
                moved = values.detach().to(self.device).contiguous()
                moved = moved.to(torch.uint8) if moved.dtype == torch.bool else moved
                dist.broadcast(moved, 0)
                values.copy_(moved.to(values.dtype))

    # -- order ---------------------------------------------------------------------------------------------------

    def wait(self) -> None:
        """Wait until every process is here."""
        self.add(torch.zeros(1))

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """The block is run by the first process and only then by the others, which find what it has left on disk."""
        if self.rank > 0:
            self.wait()
        yield
        if self.rank == 0:
            self.wait()

    # -- work that is shared out ---------------------------------------------------------------------------------

    def takes(self, name: str) -> bool:
        """Whether this process is the first to ask for a piece of work; the others need not be listening.

        Args:
            name: of the piece, one for the whole run.
        """
        if not self.several:
            return True
        with _answers():
            return _store().add(f"recbole_fair/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{name}", 1) == 1

    @contextmanager
    def all_at_work(self) -> Iterator[None]:
        """Each process does the block in its own time; who is done waits for the others as long as they live."""
        # Work takes as long as it takes: the time limit of what is exchanged in step does not hold here.
        if self.several and self._patient is None:
            with _answers():
                self._patient = dist.new_group(timeout=_PATIENCE, backend="gloo")
        yield
        if self.several:
            with _answers():
                dist.all_reduce(torch.zeros(1), group=self._patient)

    # -- batches that are shared ---------------------------------------------------------------------------------

    @contextmanager
    def sharing(self, share: float) -> Iterator[None]:
        """Inside the block this process holds a part of a batch, and the others hold the rest."""
        self.share, self.shared = share, True
        try:
            yield
        finally:
            self.share, self.shared = 1.0, False

    def over_batch(self, values: Tensor) -> Tensor:
        """Sum over the parts of a shared batch, through which gradients flow; values themselves for a whole batch.

        What every process makes of the sum is the same, and enters its loss with the weight of its share. These add up
        to 1, and the gradient of the sum is added over the processes: it is that of one process with the whole batch.
        """
        if not self.shared:
            return values
        added: Tensor = _Added.apply(values)  # type: ignore[no-untyped-call]
        return added


class _Added(torch.autograd.Function):
    """Sum over the processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return current().add(values.detach().clone().contiguous())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return current().add(grads[0].clone().contiguous())


_current = Processes(Place())
_is_apart = False


def current() -> Processes:
    """The processes of this run: those joined, or this one alone."""
    return _current


@contextmanager
def apart() -> Iterator[None]:
    """Inside the block this process is alone: it trains, measures and writes without the others, which do likewise."""
    global _current, _is_apart
    before = _current, _is_apart
    _current, _is_apart = Processes(Place()), True
    try:
        yield
    finally:
        _current, _is_apart = before


@functools.cache
def _store() -> Any:
    """The store by which the processes have found each other, once more, for what they ask of it themselves."""
    return dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, wait_for_workers=False
    )


def join(use_gpu: bool = False, timeout: float = TIMEOUT) -> Processes:
    """Join the processes that the environment names; a second call changes nothing.

    Args:
        use_gpu: whether tensors are on GPUs, one a process: nccl then, gloo otherwise.
        timeout: seconds after which a process that does not answer is given up.

    Raises:
        FairError: if the others cannot be reached.
    """
    global _current
    where = place()
    if where.world == 1 or _current.several or _is_apart:
        return _current
    if not dist.is_available():
        raise FairError("This PyTorch was built without torch.distributed: run one process.")
    device = torch.device("cuda", where.local_rank) if use_gpu else torch.device("cpu")
    if use_gpu:
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        try:
            limit = timedelta(seconds=timeout)
            dist.init_process_group("cpu:gloo,cuda:nccl" if use_gpu else "gloo", timeout=limit)
        except (RuntimeError, ValueError) as error:
            raise PeerError(
                f"Process {where.rank} of {where.world} did not reach the others at {os.environ['MASTER_ADDR']}:"
                f"{os.environ['MASTER_PORT']} ({_first_line(error)})."
            ) from error
        atexit.register(leave)
    _current = Processes(where, device)
    return _current


def leave() -> None:
    """Part from the others; this process is alone again."""
    global _current
    _current = Processes(Place())
    _store.cache_clear()
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ConnectionError) as error:
        raise PeerError(f"Another process of the run has ended or does not answer ({_first_line(error)}).") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def add_all(processes: Processes, tensors: list[Tensor]) -> None:
    """Add many tensors up over the processes, in place, in a few large messages."""
    for kind in dict.fromkeys((value.dtype, value.device) for value in tensors):
        alike = [value for value in tensors if (value.dtype, value.device) == kind]
        while alike:
            count = size = 0
            while count < len(alike) and (not count or size + alike[count].numel() <= _BUCKET):
                size += alike[count].numel()
                count += 1
            part, alike = alike[:count], alike[count:]
            flat = torch.cat([value.reshape(-1) for value in part]) if count > 1 else part[0].contiguous().view(-1)
            processes.add(flat)
            for value, added in zip(part, torch.split(flat, [value.numel() for value in part]), strict=True):
                value.copy_(added.view_as(value))
