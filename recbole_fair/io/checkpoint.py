"""Checkpoints of tensors and plain values: nothing in them can run code when they are read.

A checkpoint is what ``torch.save`` makes of a dictionary of tensors, numbers, texts, lists and dictionaries; it is read
with ``weights_only=True``. It is written to a temporary file, flushed and renamed, so that a kill leaves either the old
file or the new one.
"""

from __future__ import annotations

import pickle
import random
import zipfile
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from scipy import sparse

from recbole_fair import __version__
from recbole_fair.errors import FairError
from recbole_fair.io.atomic import atomic_file, fresh_file

FORMAT = "recbole_fair"
FORMAT_VERSION = 1


def to_plain(value: Any) -> Any:
    """Copy of a value made of dictionaries, lists, tuples, tensors, numbers, texts, booleans and None only.

    Enums become their names, NumPy arrays tensors, NumPy scalars numbers, devices and paths texts.

    Raises:
        TypeError: for anything else, naming its type.
    """
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, np.generic):  # np.float64 is a float, but not a plain one
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, torch.device | Path):
        return str(value)
    if isinstance(value, Mapping):
        return {to_plain(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(to_plain(item) for item in value)
    if isinstance(value, list | set | frozenset):
        return [to_plain(item) for item in value]
    raise TypeError(f"A checkpoint holds plain values only, not {type(value).__name__}.")


def other_parameters(model: Any) -> dict[str, Any]:
    """RecBole's ``other_parameter()``: what a model is beside its ``state_dict``.

    RecBole's models with features of items (SASRecF, DIN, ...) name parts of themselves there, whose weights the
    ``state_dict`` holds already; these are left out.
    """
    found: dict[str, Any] = model.other_parameter()
    return {name: value for name, value in found.items() if not isinstance(value, torch.nn.Module)}


def pack_arrays(value: Any) -> Any:
    """Replace NumPy arrays and SciPy sparse matrices (ItemKNN's, EASE's parameters) by tagged plain values."""
    if isinstance(value, Mapping):
        return {key: pack_arrays(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return {"__array__": torch.from_numpy(np.array(value)), "matrix": isinstance(value, np.matrix)}
    if sparse.issparse(value):
        matrix = value.tocsr()
        parts = [torch.from_numpy(np.asarray(part)) for part in (matrix.data, matrix.indices, matrix.indptr)]
        return {"__sparse__": value.format, "shape": list(matrix.shape), "parts": parts}
    return value


def unpack_arrays(value: Any) -> Any:
    """Put back what :func:`pack_arrays` replaced."""
    if not isinstance(value, Mapping):
        return value
    if "__array__" in value:
        array = value["__array__"].cpu().numpy()
        return np.asmatrix(array) if value["matrix"] else array
    if "__sparse__" in value:
        parts = tuple(part.cpu().numpy() for part in value["parts"])
        return sparse.csr_matrix(parts, shape=tuple(value["shape"])).asformat(value["__sparse__"])
    return {key: unpack_arrays(item) for key, item in value.items()}


def plain_config(config: Config) -> dict[str, Any]:
    """The configuration as plain values; entries that cannot be (classes, devices) are left out."""
    plain = {}
    for key, value in config.final_config_dict.items():
        if isinstance(value, torch.device | Enum | type):
            continue
        try:
            plain[key] = to_plain(value)
        except TypeError:
            continue
    return plain


_last_saved: str | None = None


def last_saved() -> str | None:
    """The checkpoint that this process wrote last; None before the first."""
    return _last_saved


def save_checkpoint(path: str | Path, content: Mapping[str, Any], fresh: bool = False) -> str:
    """Write ``content`` atomically, with the format's name and version and the package's version.

    Args:
        path: the file; its directory is made if it is missing.
        content: anything :func:`to_plain` accepts.
        fresh: whether to replace no file: the first free one of ``path``, ``path-2``, ... is taken.

    Returns:
        Where it was written.

    Raises:
        FairError: if the file cannot be written.
    """
    global _last_saved
    payload = {"format": FORMAT, "format_version": FORMAT_VERSION, "package_version": __version__, **to_plain(content)}
    if fresh:
        with fresh_file(path, "the checkpoint ") as made:
            torch.save(payload, made.file)
        path = made.path
    else:
        with atomic_file(path, "the checkpoint ") as file:
            torch.save(payload, file)
    _last_saved = str(path)
    return _last_saved


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint of ours onto ``device``.

    Raises:
        FairError: one sentence for a missing, truncated, foreign or newer file.
    """
    source = Path(path)
    if not source.is_file():
        raise FairError(f"There is no checkpoint file {source}.")
    if not zipfile.is_zipfile(source):
        raise FairError(f"{source} is not a checkpoint or is cut short; train again or use another file.")
    try:
        with zipfile.ZipFile(source) as archive:
            if archive.testzip() is not None:  # torch.load does not compare the stored check sums
                raise zipfile.BadZipFile("a check sum is wrong")
        content = torch.load(source, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise FairError(
            f"{source} holds pickled Python objects (a checkpoint of plain RecBole?), which could run any code when "
            "read; train the model through recbole_fair to get a safe checkpoint."
        ) from error
    except (RuntimeError, EOFError, KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise FairError(f"{source} is damaged and cannot be read; train again or use another file.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FairError(f"{source} is not a checkpoint of recbole_fair.")
    version = content.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise FairError(
            f"{source} has format version {version}, written by recbole_fair {content.get('package_version')}; "
            f"this is {__version__}, which reads up to version {FORMAT_VERSION}: upgrade it."
        )
    return content


def load_weights(model: torch.nn.Module, state: Mapping[str, torch.Tensor], source: str | Path) -> None:
    """Give a model the weights of a checkpoint.

    Args:
        model: the model.
        state: its ``state_dict``.
        source: where that is from, for the message.

    Raises:
        FairError: if the model has other weights or weights of other sizes.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise FairError(
            f"{source} does not fit the settings: {str(error).splitlines()[-1].strip()}; "
            "use those that it was trained with."
        ) from error


def random_states() -> dict[str, Any]:
    """State of every random generator that training draws from: Python's, NumPy's, torch's and each GPU's."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    version, internal, gauss_next = random.getstate()
    return {
        "python": [version, list(internal), gauss_next],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), gauss],
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else [],
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Put back what :func:`random_states` took."""
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
    name, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
