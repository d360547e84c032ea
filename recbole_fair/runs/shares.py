"""Work of a study, shared out among the processes: each measures whole settings, and all learn what was found."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from recbole_fair.errors import FairError, PeerError
from recbole_fair.io.processes import Processes, apart, current
from recbole_fair.trainer.scorer import progress

T = TypeVar("T")

_number = itertools.count()  # of a study's shares, the same in every process


@contextmanager
def at_work() -> Iterator[Processes]:
    """Inside the block each process is alone, in its own time, and at its end it waits for the others.

    Yields:
        The processes, for what is to be asked of all.

    Raises:
        PeerError: for what a user can mend, where others wait: it ends the run, whatever goes on after other mistakes.
    """
    team = current()
    with team.all_at_work(), apart():
        try:
            yield team
        except FairError as error:
            if not team.several:
                raise
            raise PeerError(str(error)) from error


def shared_out(
    pieces: Sequence[Sequence[int]], do: Callable[[int], T], title: str = "", show: bool = False
) -> dict[int, T]:
    """Do all tasks, each in one process, which is then alone; pieces go to whoever is free.

    Args:
        pieces: numbers of tasks; those of a piece stay together, in their order. The same in every process.
        do: does one task; what it returns is plain, as in :meth:`~recbole_fair.io.processes.Processes.of_first`.
        title: of the bar.
        show: whether a bar is wanted.

    Returns:
        What was returned, by task, the same in every process.
    """
    team = current()
    if not team.several:
        tasks = [task for piece in pieces for task in piece]
        return {task: do(task) for task in progress(tasks, len(tasks), title, show)}
    share, found = next(_number), dict[int, T]()
    with at_work():
        for number, piece in enumerate(progress(pieces, len(pieces), title, show)):
            if team.takes(f"{share}/{number}"):
                found |= {task: do(task) for task in piece}
    everywhere = team.gather_values([[task, result] for task, result in found.items()])
    return {task: result for part in everywhere for task, result in part}  # type: ignore[misc]
