"""Files that ``torch.save`` wrote with Python objects in them, read as tensors, plain values and inert records.

Both of torch's containers are read: the zip archive (torch 1.6 and later) and the file of pickles before it. Nothing in
the file is imported or called; see :mod:`recbole_fair.io.pickles`.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recbole_fair.io.pickles import DamagedFileError, Name, Record, Stateful, UnsafeFileError, read_pickle

_MAGIC = 0x1950A86A20F9469CFC6C  # torch's own, first in the file of pickles
_STORAGES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
_DTYPES = {f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}

# What may be "called" and stays a record: enums and loggers of RecBole's models, patterns of yaml's loader.
_INERT = ("recbole.utils.enum_type.", "logging.getLogger", "re._compile")
_MOST_VALUES = 1_000_000  # in settings and other parameters; shared values count each time they are met
_REPEATED = 2**20  # numbers of a tensor that may repeat those of its storage


def read_foreign(path: str | Path) -> Any:
    """Read a file of ``torch.save`` without running anything in it.

    Args:
        path: the file.

    Returns:
        What was saved: tensors (on the CPU), NumPy arrays and scalars as Python numbers, plain containers, and
        :class:`~recbole_fair.io.pickles.Record` or :class:`~recbole_fair.io.pickles.Name` for everything else.

    Raises:
        UnsafeFileError: if reading it in the ordinary way would call something that no checkpoint needs.
        DamagedFileError: if it is cut short, changed, or no file of ``torch.save``.
    """
    source = Path(path)
    try:
        with source.open("rb") as file:
            return read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file)
    except UnsafeFileError as error:
        raise UnsafeFileError(
            f"{source} would run code if it were read in the ordinary way: {error}. Nothing was run, and the file is "
            "not used; get the checkpoint from whoever trained the model."
        ) from error
    except DamagedFileError as error:
        raise DamagedFileError(f"{source} is damaged or no checkpoint: {error}.") from error
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise DamagedFileError(f"{source} is damaged and cannot be read: {error}.") from error


# -- containers ------------------------------------------------------------------------------------------------------


def read_zip(file: IO[bytes]) -> Any:
    """What an archive of torch.save holds, read as :func:`read_foreign` reads it."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise DamagedFileError("it holds no data.pkl of torch.save")
        folder = pickles[0].rpartition("/")[0]
        order = f"{folder}/byteorder"
        if order in entries and _content(archive, entries[order]) != b"little":
            raise DamagedFileError("its numbers are in big-endian order, which is not supported")
        known: dict[str, Tensor] = {}

        def storage(reference: object) -> Tensor:
            dtype, key, count = _reference(reference)
            if key not in known:
                entry = entries.get(f"{folder}/data/{key}")
                if entry is None:
                    raise DamagedFileError(f"the numbers of storage {key} are missing")
                known[key] = _numbers(_content(archive, entry), dtype, count)
            return known[key]

        stream = io.BytesIO(_content(archive, entries[pickles[0]]))
        return read_pickle(stream, _BUILDERS, _is_inert, storage)


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """The bytes of one entry; torch stores them as they are, so that a compressed one may be a bomb."""
    if entry.compress_type != zipfile.ZIP_STORED:
        raise DamagedFileError(f"its part {entry.filename} is compressed, which torch.save never does")
    return archive.read(entry)


def _read_legacy(file: IO[bytes]) -> Any:
    """The container before torch 1.6: five pickles (magic number, version, system, content, keys), then the numbers."""

    def plain() -> Any:
        return read_pickle(file, {}, lambda name: False)

    file.seek(0)
    if file.read(1) != b"\x80":
        raise DamagedFileError("it is not a file of torch.save, or cut short")
    file.seek(0)
    if plain() != _MAGIC:
        raise DamagedFileError("it is a pickle, but not one of torch.save")
    plain()
    system = plain()
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise DamagedFileError("its numbers are in big-endian order, which is not supported")
    known: dict[str, Tensor] = {}

    def storage(reference: object) -> Tensor:
        if isinstance(reference, tuple) and reference and reference[0] == "module":
            return reference[1]  # a class with its source text
        dtype, key, count = _reference(reference)
        if key not in known:
            size = _size(file)
            if count * dtype.itemsize > size:
                raise DamagedFileError(f"storage {key} is larger than the file")
            known[key] = torch.zeros(count, dtype=dtype)
        view = reference[5] if isinstance(reference, tuple) and len(reference) > 5 else None
        if view is None:
            return known[key]
        _, offset, length = view
        return known[key][offset : offset + length]

    content = read_pickle(file, _BUILDERS, _is_inert, storage)
    for key in plain():
        found = known[str(key)]
        count = int.from_bytes(file.read(8), "little", signed=True)
        if count != len(found):
            raise DamagedFileError(f"the numbers of storage {key} are missing")
        found.copy_(_numbers(file.read(count * found.element_size()), found.dtype, count))
    return content


def _size(file: IO[bytes]) -> int:
    here = file.tell()
    size = file.seek(0, io.SEEK_END)
    file.seek(here)
    return size


def _reference(reference: object) -> tuple[torch.dtype, str, int]:
    """Type, key and length that a persistent id names."""
    if not (isinstance(reference, tuple) and len(reference) >= 5 and reference[0] == "storage"):
        raise DamagedFileError("it points at something that is no storage")
    _, kind, key, _, count = reference[:5]
    name = kind.full.rpartition(".")[2] if isinstance(kind, Name) else ""
    if name not in _STORAGES or not isinstance(count, int) or count < 0:
        raise DamagedFileError(f"it has numbers of an unknown type ({name or kind})")
    return _STORAGES[name], str(key), count


def _numbers(data: bytes, dtype: torch.dtype, count: int) -> Tensor:
    if len(data) < count * dtype.itemsize:
        raise DamagedFileError("numbers are missing at the end of a storage")
    if count == 0:
        return torch.zeros(0, dtype=dtype)
    return torch.frombuffer(bytearray(data[: count * dtype.itemsize]), dtype=dtype)


# -- builders --------------------------------------------------------------------------------------------------------


def _is_inert(name: str) -> bool:
    return name.startswith(_INERT)


def _tensor(storage: object, offset: object, size: object, stride: object, *rest: object) -> Tensor:
    """``torch._utils._rebuild_tensor_v2``, with the bounds checked: ``set_`` would enlarge a storage."""
    if not isinstance(storage, Tensor) or not isinstance(offset, int):
        raise DamagedFileError("a tensor without a storage")
    size, stride = _whole(size), _whole(stride)
    if len(size) != len(stride) or offset < 0:
        raise DamagedFileError("a tensor of a shape that cannot be")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if prod(size) else offset - 1
    if last >= len(storage) or prod(size) > max(len(storage), _REPEATED):
        raise DamagedFileError("a tensor is larger than its storage")
    # A view: the numbers of the old container are read after the tensors are made.
    return torch.as_strided(storage, size, stride, offset) if prod(size) else storage.new_empty(size)


def _whole(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or not all(type(value) is int and value >= 0 for value in values):
        raise DamagedFileError("a shape that is not made of whole numbers")
    return tuple(values)


def _typed_tensor(storage: object, offset: object, size: object, stride: object, *rest: object) -> Tensor:
    """``torch._utils._rebuild_tensor_v3``: the type stands apart from the storage."""
    _, _, dtype, *_ = rest
    if not isinstance(storage, Tensor) or not isinstance(dtype, Name) or dtype.full not in _DTYPES:
        raise DamagedFileError("a tensor of an unknown type")
    return _tensor(storage.view(_DTYPES[dtype.full]), offset, size, stride)


def _parameter(data: object, *rest: object) -> Any:
    return data


def _layout(name: object) -> str:
    return str(name)


def _sparse_tensor(layout: object, data: object) -> Tensor:
    if layout != "torch.sparse_coo":
        raise DamagedFileError("a sparse tensor of a kind that is not supported")
    if not isinstance(data, tuple) or len(data) < 3:
        raise DamagedFileError("a sparse tensor without numbers")
    indices, values, size = data[:3]
    if not isinstance(indices, Tensor) or not isinstance(values, Tensor):
        raise DamagedFileError("a sparse tensor without numbers")
    return torch.sparse_coo_tensor(indices, values, _whole(size), check_invariants=True)


class _Dtype(Stateful):
    """A NumPy type while its byte order is still to come; objects and structures have none here."""

    def __init__(self, code: object, *rest: object) -> None:
        name = code if isinstance(code, str) else code.full.rpartition(".")[2] if isinstance(code, Name) else ""
        self.objects = name in ("O", "O8", "object", "object_")
        self.dtype = np.dtype("V1") if self.objects else np.dtype(name)
        if self.dtype.kind not in "biufcSUmMV" or (self.dtype.kind == "V" and not self.objects):
            raise DamagedFileError(f"numbers of NumPy's type {name}")

    def take(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _Array(Stateful):
    """A NumPy array while its numbers are still to come."""

    def __init__(self, kind: object, *rest: object) -> None:
        self.matrix = isinstance(kind, Name) and kind.full.endswith("matrix")
        self.value: object = None

    def take(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise DamagedFileError("an array without numbers")
        _, shape, dtype, by_column, data = state
        found = _array(data, dtype, shape, "F" if by_column else "C")
        self.value = np.asmatrix(found) if self.matrix and isinstance(found, np.ndarray) else found


def _array(data: object, dtype: object, shape: object, order: object = "C", *rest: object) -> object:
    if not isinstance(dtype, _Dtype):
        raise DamagedFileError("an array without a type")
    if dtype.objects and isinstance(data, list):
        return list(data)
    if dtype.objects or not isinstance(data, bytes | bytearray):
        raise DamagedFileError("an array without numbers")
    found = np.frombuffer(data, dtype.dtype).reshape(_whole(shape), order="F" if order == "F" else "C")
    return found.astype(dtype.dtype.newbyteorder("="))


def _scalar(dtype: object, data: object = b"") -> Any:
    found = _array(data, dtype, ())
    return found.item() if isinstance(found, np.ndarray) else found


def _encode(text: object, encoding: object = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1", "ascii", "utf-8"):
        raise DamagedFileError(f"a text in the encoding {encoding!r}")
    return str(text).encode(encoding)


def _pairs(*arguments: object) -> dict[Any, Any]:
    """A dictionary of any kind from another one or from pairs; what a default dictionary calls is left out."""
    given = [argument for argument in arguments if isinstance(argument, dict | list | tuple)]
    return dict(given[0]) if given else {}


def _items(kind: Callable[[Any], Any]) -> Callable[..., Any]:
    def build(values: object = (), *rest: object) -> Any:
        if not isinstance(values, list | tuple | set | frozenset):
            raise DamagedFileError("a container of something that is no container")
        return kind(values)

    return build


def _device(kind: object = "cpu", *rest: object) -> str:
    return ":".join(map(str, (kind, *rest)))


def _object(kind: object, *rest: object) -> Record:
    if not isinstance(kind, Name):
        raise UnsafeFileError(f"it makes an object of {kind!r}")
    return Record(kind.full)


_BUILDERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_sparse_tensor": _sparse_tensor,
    "torch.serialization._get_layout": _layout,
    "torch.Size": _items(tuple),
    "torch.device": _device,
    "collections.OrderedDict": _pairs,
    "collections.defaultdict": _pairs,
    "collections.Counter": _pairs,
    "collections.deque": _items(list),
    "builtins.dict": _pairs,
    "builtins.list": _items(list),
    "builtins.tuple": _items(tuple),
    "builtins.set": _items(set),
    "builtins.frozenset": _items(frozenset),
    "_codecs.encode": _encode,
    "copyreg._reconstructor": _object,
    "numpy.dtype": _Dtype,
    **{
        f"numpy.{core}.{name}": build
        for core in ("core", "_core")
        for name, build in (
            ("multiarray.scalar", _scalar),
            ("multiarray._reconstruct", _Array),
            ("numeric._frombuffer", _array),
        )
    },
}


# -- what was read ---------------------------------------------------------------------------------------------------


def finished(value: object) -> Any:
    """A value that was read, with arrays and sparse matrices in place of the records of them.

    Args:
        value: a part of what :func:`read_foreign` returned.

    Raises:
        FairError: for a value that holds itself, or unfolds to more than a million values.
    """
    return _Finisher().finish(value, 0)


class _Finisher:
    """One pass over a value, with a count of what was met."""

    def __init__(self) -> None:
        self.met = 0

    def finish(self, value: object, depth: int) -> Any:
        self.met += 1
        if depth > 40 or self.met > _MOST_VALUES:
            raise UnsafeFileError("The file holds values that unfold without end; it is not used.")
        if isinstance(value, _Array):
            return value.value
        if isinstance(value, dict):
            return {key: self.finish(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return type(value)([self.finish(item, depth + 1) for item in value])
        if isinstance(value, Record) and value.kind.startswith("scipy.sparse."):
            return _sparse_matrix(value)
        return value


def _sparse_matrix(record: Record) -> Any:
    """SciPy's compressed and coordinate matrices; other kinds stay records."""
    name = record.kind.rpartition(".")[2]
    parts = {key: finished(part) for key, part in record.attributes.items()}
    shape = _whole(parts.get("_shape"))
    make: dict[str, tuple[Any, Sequence[str]]] = {
        "csr_matrix": (sparse.csr_matrix, ("data", "indices", "indptr")),
        "csc_matrix": (sparse.csc_matrix, ("data", "indices", "indptr")),
    }
    if name == "coo_matrix":
        coordinates = parts["coords"] if "coords" in parts else (parts["row"], parts["col"])
        return sparse.coo_matrix((parts["data"], tuple(coordinates)), shape=shape)
    if name not in make:
        return record
    kind, names = make[name]
    try:
        matrix = kind(tuple(parts[part] for part in names), shape=shape)
        matrix.check_format(full_check=True)
    except (KeyError, ValueError, TypeError) as error:
        raise DamagedFileError(f"The file holds a sparse matrix that cannot be: {error}.") from error
    return matrix
