"""User representations of a sequential model over a whole training set, collected once.

What is collected is the representation at scoring time: evaluation mode, no gradients, the window of the last ``L``
items of a prefix. For a causal encoder one pass over a window gives the exact representations of all prefixes that
start where the window starts; longer prefixes need a window each, or, with ``stride`` above 1, share one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_fair.errors import FairError
from recbole_fair.io.processes import current

IntArray = npt.NDArray[np.int64]
Progress = Callable[[int, int, str], None]

_CPU_ROWS = 64  # windows a batch: larger ones leave the processor's cache and run at half the speed
_GPU_ROWS = 1024


@dataclass(frozen=True)
class UserVectors:
    """Representations with their owners."""

    vectors: Tensor
    """``[n, d]``."""
    users: Tensor
    """``[n]`` inner user id of each vector."""
    last: Tensor
    """``[n]`` bool: the user's whole history (exact for every stride), one a user."""


@torch.no_grad()
def collect_prefix_vectors(
    base: Any,
    users: IntArray,
    items: IntArray,
    which: Literal["all", "last"] = "all",
    stride: int = 1,
    progress: Progress | None = None,
    most_mb: int | None = None,
) -> UserVectors:
    """Representations of the prefixes of every user's sequence.

    Args:
        base: a sequential model; one that encodes all positions at once is much faster. It is put into evaluation
            mode for the time of the call.
        users: ``[n]`` inner user ids in ascending order.
        items: ``[n]`` items, in order of time within a user.
        which: ``all`` prefixes (one vector an interaction) or only each user's ``last``, the whole history.
        stride: prefixes longer than the window ``L`` that share one pass; their context is then between
            ``L - stride + 1`` and ``L`` items instead of exactly ``L``. Counted back from the end of each sequence,
            so that each user's last vector is exact. Only with ``encode``.
        progress: called as ``progress(rows_done, rows, "")``.
        most_mb: on a CPU, vectors that take more megabytes than this are written to a temporary file and mapped into
            memory, page by page as they are read.

    Returns:
        Vectors in the order of the interactions, on the device of the model.

    Raises:
        FairError: the folder of temporary files has no room for them.
    """
    window = int(base.max_seq_length)
    starts, ends = _bounds(users)
    first, last, keep = _plan(starts, ends, window, which, min(stride, window) if base.encodes_positions else 0)
    device, processes, shared = next(base.parameters()).device, current(), False
    rows = _CPU_ROWS if device.type == "cpu" else _GPU_ROWS
    order = np.argsort(last - first, kind="stable")
    sequence = np.append(items, 0)
    vectors: Tensor | None = None
    was_training = base.training
    base.eval()
    try:
        begins = range(0, len(order), rows)
        shared = processes.several and len(begins) >= processes.world
        for number, begin in enumerate(begins):
            if shared and number % processes.world != processes.rank:
                continue
            index = order[begin : begin + rows]
            rows_of = (first[index], last[index], keep[index])
            out, target = _encode_rows(base, users, sequence, rows_of, device)
            if vectors is None:
                vectors = _room(out, len(items), most_mb)
                if shared:
                    vectors.zero_()  # each process adds its own rows to those of the others
            vectors[target] = out
            if progress is not None:
                progress(min(begin + rows, len(order)), len(order), "")
    finally:
        base.train(was_training)
    assert vectors is not None, "training data without interactions"
    if shared:
        processes.add(vectors)
    is_last = torch.zeros(len(items), dtype=torch.bool)
    is_last[torch.from_numpy(ends - 1)] = True
    owners = torch.from_numpy(np.ascontiguousarray(users))
    if which == "last":
        return UserVectors(vectors[is_last.to(device)], owners[is_last], is_last[is_last])
    return UserVectors(vectors, owners, is_last)


def _room(like: Tensor, n: int, most_mb: int | None) -> Tensor:
    """``[n, d]`` for vectors like these ``[m, d]``, in memory or in a temporary file without a name."""
    n_bytes = n * like.shape[1] * like.element_size()
    if like.device.type != "cpu" or most_mb is None or n_bytes <= most_mb * 2**20:
        return like.new_empty(n, like.shape[1])
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise FairError(
            f"The users' vectors take {n_bytes / 2**20:.0f} MB, and {folder} has {free / 2**20:.0f} MB left: set "
            "TMPDIR to a folder with room, raise eval_memory_mb, or set sae_vectors=last."
        )
    with tempfile.TemporaryFile(dir=folder) as file:
        mapped = np.memmap(file, dtype=like.numpy().dtype, mode="w+", shape=(n, like.shape[1]))
    return torch.from_numpy(mapped)


def _bounds(users: IntArray) -> tuple[IntArray, IntArray]:
    change = np.flatnonzero(np.diff(users)) + 1
    return np.concatenate([[0], change]), np.concatenate([change, [len(users)]])


def _plan(
    starts: IntArray, ends: IntArray, window: int, which: str, stride: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Windows ``[first, last)`` and how many of their last positions to keep; ``stride`` 0: no causal encoder."""
    if which == "last":
        return np.maximum(starts, ends - window), ends, np.ones_like(ends)
    if stride == 0:
        last = np.arange(starts[0], ends[-1]) + 1
        owner = np.repeat(starts, ends - starts)
        return np.maximum(owner, last - window), last, np.ones_like(last)
    head = np.minimum(starts + window, ends)
    tail = ends - head
    chunks = -(-tail // stride)
    owner = np.repeat(np.arange(len(starts)), chunks)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(chunks) - chunks, chunks)
    last = ends[owner] - number * stride
    keep = np.minimum(stride, last - head[owner])
    return (
        np.concatenate([starts, last - window]),
        np.concatenate([head, last]),
        np.concatenate([head - starts, keep]),
    )


def _encode_rows(
    base: Any, users: IntArray, sequence: IntArray, rows: tuple[IntArray, IntArray, IntArray], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Kept vectors ``[m, d]`` of some windows and the interactions ``[m]`` they belong to."""
    first, last, keep = rows
    lengths = last - first
    columns = np.arange(lengths.max() if base.any_width else base.max_seq_length)
    source = np.minimum(first[:, None] + columns, len(sequence) - 1)
    inputs = torch.from_numpy(np.where(columns < lengths[:, None], sequence[source], 0)).to(device)
    if int(keep.max()) == 1:
        columns_of = {base.ITEM_SEQ: inputs, base.ITEM_SEQ_LEN: torch.from_numpy(lengths).to(device)}
        if base.reads_user_id:
            columns_of[base.USER_ID] = torch.from_numpy(users[first]).to(device)
        batch = Interaction(columns_of)
        return base.represent_users(batch), torch.from_numpy(last - 1).to(device)
    depth = np.arange(keep.max())
    wanted = depth < keep[:, None]
    positions = np.maximum(lengths[:, None] - 1 - depth, 0)
    hidden = base.encode(inputs, torch.from_numpy(positions).to(device))
    target = (first[:, None] + positions)[wanted]
    return hidden[torch.from_numpy(wanted).to(device)], torch.from_numpy(target).to(device)
