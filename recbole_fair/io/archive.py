"""The archive that a checkpoint is: what ``torch.save`` writes, sealed by a digest of all its bytes.

The digest stands behind the archive, as the comment that a zip file may have. It covers every byte before it, the
directory of the archive among them: no bit of a sealed file can change unnoticed. Reading runs nothing
(:mod:`recbole_fair.io.pickles`), takes records as they are stored, never larger than the file, and hands over plain
values and tensors only.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from itertools import pairwise
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor

from recbole_fair.io.foreign import read_zip
from recbole_fair.io.pickles import DamagedFileError, UnsafeFileError
from recbole_fair.io.signals import heeded_afterwards

_MARK = b"recbole_fair sha256 "
_SEAL = len(_MARK) + 64
_LENGTH_AT = 2  # the last bytes of a zip file without a comment say how long the comment is: 0
_BLOCK = 2**20
_DEEPEST = 100  # containers within containers
_LONG = 256  # texts in a list from which on they are stored as one array


class _Digesting:
    """A file that is only written to, and the digest of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def write_archive(content: Mapping[str, Any], file: IO[bytes]) -> None:
    """Write plain values and tensors, and seal them.

    Args:
        content: dictionaries, lists, tuples, tensors, numbers, texts, booleans and None.
        file: an open, empty binary file.
    """
    digesting = _Digesting(file)
    with heeded_afterwards():  # torch calls back for every record
        torch.save(_pack(content), cast("IO[bytes]", digesting))
    file.seek(-_LENGTH_AT, os.SEEK_END)
    file.write(_SEAL.to_bytes(_LENGTH_AT, "little"))
    file.write(_MARK + digesting.digest.hexdigest().encode())


def read_archive(file: IO[bytes]) -> tuple[Any, bool]:
    """What :func:`write_archive` wrote, on the CPU.

    Args:
        file: an open binary file.

    Returns:
        The content, and whether the file was sealed.

    Raises:
        DamagedFileError: for bytes that no writer of archives leaves behind, and for a seal that does not fit.
        UnsafeFileError: for an archive that holds objects, or calls something.
    """
    sealed = _check_seal(file)
    try:
        pickled = _check_records(file)
        content = read_zip(file)
        return _unpack(content, pickled), sealed
    except (DamagedFileError, UnsafeFileError):
        raise
    except Exception as error:  # zipfile, struct, torch: whatever they make of bytes that nobody wrote
        raise DamagedFileError(" ".join(str(error).split()) or type(error).__name__) from error


def _check_seal(file: IO[bytes]) -> bool:
    size = file.seek(0, os.SEEK_END)
    if size < _SEAL + _LENGTH_AT:
        return False
    file.seek(-_SEAL, os.SEEK_END)
    seal = file.read(_SEAL)
    if not seal.startswith(_MARK):
        return False
    digest, left = hashlib.sha256(), size - _SEAL - _LENGTH_AT
    file.seek(0)
    while left:
        block = file.read(min(left, _BLOCK))
        if not block:
            raise DamagedFileError("it ends while it is read")
        digest.update(block)
        left -= len(block)
    if file.read(_LENGTH_AT) != _SEAL.to_bytes(_LENGTH_AT, "little"):
        raise DamagedFileError("its end does not fit its digest")
    digest.update(bytes(_LENGTH_AT))  # as the archive stood before it was sealed
    if seal[len(_MARK) :] != digest.hexdigest().encode():
        raise DamagedFileError("its digest is not that of its bytes")
    return True


def _check_records(file: IO[bytes]) -> int:
    """See that every record is stored as it is, once, and within the file; bytes of the one with the values."""
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        if len({record.filename for record in records}) != len(records):
            raise DamagedFileError("two of its records have one name")
        if sum(record.file_size for record in records) > size:
            raise DamagedFileError("its records hold more than the file")
        pickled = 0
        for record in records:
            plain = record.compress_type == zipfile.ZIP_STORED and record.compress_size == record.file_size
            if not plain or record.is_dir() or record.external_attr or record.flag_bits & 1:
                raise DamagedFileError(f"its record {record.filename!r} is no plain stored file")
            if record.filename.endswith("/data.pkl"):
                pickled = record.file_size
        return pickled


# -- plain values ----------------------------------------------------------------------------------------------------


def _pack(value: Any) -> Any:
    """Long lists of texts as arrays: reading them takes no step a text."""
    if isinstance(value, Mapping):
        return {key: _pack(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_pack(item) for item in value)
    if not isinstance(value, list):
        return value
    if len(value) < _LONG or not all(type(item) is str for item in value):
        return [_pack(item) for item in value]
    encoded = [item.encode("utf-8", "surrogatepass") for item in value]
    ends = np.cumsum([len(item) for item in encoded], dtype=np.int64)
    letters = np.frombuffer(bytearray(b"".join(encoded)), dtype=np.uint8)
    return {"__texts__": torch.from_numpy(letters), "ends": torch.from_numpy(ends)}


def _unpack_texts(value: Mapping[str, Any]) -> list[str]:
    letters, ends = value["__texts__"], value.get("ends")
    if not isinstance(letters, Tensor) or not isinstance(ends, Tensor):
        raise DamagedFileError("a list of texts is no such list")
    if (
        letters.dtype != torch.uint8
        or ends.dtype != torch.long
        or letters.dim() != 1
        or ends.dim() != 1
        or not len(ends)
    ):
        raise DamagedFileError("a list of texts is no such list")
    if int(ends[0]) < 0 or bool((ends.diff() < 0).any()) or int(ends[-1]) != len(letters):
        raise DamagedFileError("the bounds of a list of texts do not fit it")
    data, starts = letters.numpy().tobytes(), [0, *ends.tolist()]
    return [data[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(starts)]


def _unpack(content: Any, most: int) -> Any:
    """The content with its lists of texts, after a look at every value.

    Args:
        content: what a pickle held.
        most: values that it may hold: each takes a byte of the pickle at least, unless it is met again and again.
    """
    left = most

    def check(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > _DEEPEST:
            raise DamagedFileError("its values unfold without end")
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, Tensor):
            return _check_tensor(value)
        if type(value) is dict:
            if "__texts__" in value:
                return _unpack_texts(value)
            if not all(type(key) in (str, int) for key in value):
                raise DamagedFileError("a key is neither text nor number")
            return {key: check(item, depth + 1) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(check(item, depth + 1) for item in value)
        raise UnsafeFileError(f"it holds {type(value).__name__} objects")

    return check(content, 0)


def _check_tensor(value: Tensor) -> Tensor:
    if value.layout == torch.strided and value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise DamagedFileError("a tensor is larger than what it is made of")
    return value


def on_device(value: Any, device: torch.device | str) -> Any:
    """A copy of plain values with every tensor on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: on_device(item, device) for key, item in value.items()}
    return type(value)(on_device(item, device) for item in value) if isinstance(value, (list, tuple)) else value
