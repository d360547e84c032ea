"""Checkpoints of tensors and plain values: nothing in them can run code when they are read.

A checkpoint is what ``torch.save`` makes of a dictionary of tensors, numbers, texts, lists and dictionaries, with a
digest behind it (:mod:`recbole_fair.io.archive`). It is written to a temporary file, flushed and renamed, so that a
kill leaves either the old file or the new one.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse

from recbole_fair import __version__
from recbole_fair.errors import FairError
from recbole_fair.io.archive import on_device, read_archive, write_archive
from recbole_fair.io.atomic import atomic_file, fresh_file
from recbole_fair.io.pickles import DamagedFileError, UnsafeFileError

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.model.abstract_recommender import AbstractRecommender

logger = logging.getLogger(__name__)

FORMAT = "recbole_fair"
# What values of a wrong make end in, whatever is done with them.
_MISFITS = (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, OverflowError)
FORMAT_VERSION = 2  # 1: without a digest


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
    """Put back what :func:`pack_arrays` replaced.

    Raises:
        FairError: for arrays that do not fit together.
    """
    try:
        return _unpacked(value)
    except _MISFITS as error:
        raise FairError(f"A matrix stored in the checkpoint is no matrix ({_one_line(error)}).") from error


def _unpacked(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    if "__array__" in value:
        array = value["__array__"].cpu().numpy()
        return np.asmatrix(array) if value["matrix"] else array
    if "__sparse__" in value:
        parts = tuple(part.cpu().numpy() for part in value["parts"])
        matrix = sparse.csr_matrix(parts, shape=tuple(value["shape"]))
        matrix.check_format(full_check=True)  # an index beyond the end would be read as whatever stands there
        return matrix.asformat(value["__sparse__"])
    return {key: _unpacked(item) for key, item in value.items()}


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
    """Write ``content`` atomically, with the format's name and version, the package's version and a digest.

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
            write_archive(payload, made.file)
        path = made.path
    else:
        with atomic_file(path, "the checkpoint ") as file:
            write_archive(payload, file)
    _last_saved = str(path)
    return _last_saved


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint of ours onto ``device``.

    Raises:
        FairError: one sentence for a missing, truncated, changed, foreign or newer file.
    """
    source = Path(path)
    try:
        if not source.is_file():
            raise FairError(f"There is no checkpoint file {source}.")
        with source.open("rb") as file:
            content, sealed = read_archive(file)
    except OSError as error:
        raise FairError(f"{source} cannot be read: {error.strerror or error}.") from error
    except UnsafeFileError as error:
        raise FairError(
            f"{source} holds pickled Python objects (a checkpoint of plain RecBole?), which could run any code when "
            "read; train the model through recbole_fair to get a safe checkpoint."
        ) from error
    except DamagedFileError as error:
        raise FairError(
            f"{source} is not a checkpoint, or is damaged or cut short ({error}); train again or use another file."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FairError(f"{source} is not a checkpoint of recbole_fair.")
    version = content.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise FairError(
            f"{source} has format version {version}, written by recbole_fair {content.get('package_version')}; "
            f"this is {__version__}, which reads up to version {FORMAT_VERSION}: upgrade it."
        )
    if not sealed:
        if version > 1:
            raise FairError(f"{source} is damaged: its digest is missing; train again or use another file.")
        logger.warning("%s was written before checkpoints had a digest: not all damage to it would be noticed.", source)
    check_entries(content, source)
    moved: dict[str, Any] = on_device(content, device)
    return moved


#: What every checkpoint holds, and of which types.
_ENTRIES: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "dataset": (str,),
    "config": (dict,),
    "user_settings": (dict,),
    "fingerprint": (str, type(None)),
    "state_dict": (dict,),
    "other_parameter": (dict, type(None)),
    "training": (dict, type(None)),
}
_ENTRIES_OF_TRAINING: dict[str, tuple[type, ...]] = {
    "epoch": (int,),
    "cur_step": (int,),
    "best_valid_score": (float, int),
    "best_valid_result": (dict, type(None)),
    "state_dict": (dict, type(None)),
    "other_parameter": (dict, type(None)),
    "optimizer": (dict,),
    "random": (dict,),
    "loader": (dict, torch.Tensor, type(None)),
}
# What only some trainers write.
_OTHERS_OF_TRAINING: dict[str, tuple[type, ...]] = {
    "optimizers": (dict, type(None)),
    "optimizer_in_use": (str, type(None)),
    "progress": (dict, type(None)),
}
_ENTRIES_OF_CONFIG: dict[str, tuple[type, ...]] = {
    "seed": (int, type(None)),
    "epochs": (int,),
    "eval_step": (int,),
    "stopping_step": (int,),
    "metrics": (list, tuple, str),
}


def check_entries(content: Mapping[str, Any], source: str | Path) -> None:
    """See that a checkpoint holds what it has to, each of its type.

    Raises:
        FairError: naming the file and the entry.
    """
    _check_types(content, _ENTRIES, source, "")
    training = content["training"]
    states = [("state_dict", content["state_dict"])]
    if training is not None:
        others = {name: types for name, types in _OTHERS_OF_TRAINING.items() if name in training}
        _check_types(training, _ENTRIES_OF_TRAINING | others, source, "training.")
        states.append(("training.state_dict", training["state_dict"] or {}))
    for name, state in states:
        for key, value in state.items():
            if not isinstance(key, str) or not isinstance(value, torch.Tensor):
                raise FairError(f"{source} is not usable: {name} holds {key!r}, which is no tensor with a name.")
    for name in ("config", "user_settings"):
        for key, value in content[name].items():
            if not isinstance(key, str) or _holds_tensor(value):
                raise FairError(f"{source} is not usable: {name} holds {key!r}, which is no setting.")
    _check_types(content["config"], _ENTRIES_OF_CONFIG, source, "config.")


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_tensor, value.values()))
    return isinstance(value, torch.Tensor) or (isinstance(value, list | tuple) and any(map(_holds_tensor, value)))


def _check_types(
    held: Mapping[str, Any], entries: Mapping[str, tuple[type, ...]], source: str | Path, part: str
) -> None:
    for name, types in entries.items():
        if name not in held:
            raise FairError(f"{source} is not usable: it has no entry {part}{name}.")
        value = held[name]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise FairError(f"{source} is not usable: its entry {part}{name} is a {type(value).__name__}.")


def restore_model(model: AbstractRecommender, content: Mapping[str, Any], source: str | Path) -> None:
    """Give a model what a checkpoint, or the training part of one, holds of it.

    Args:
        model: the model.
        content: ``state_dict`` and ``other_parameter``.
        source: where that is from, for the message.

    Raises:
        FairError: if that is of a model of another make.
    """
    load_weights(model, content["state_dict"], source)
    load_others(model, unpack_arrays(content.get("other_parameter")), source)


def load_others(model: AbstractRecommender, values: Mapping[str, Any] | None, source: str | Path) -> None:
    """RecBole's ``load_other_parameter()``, which would set any attribute that a file names.

    Raises:
        FairError: for a name that is none of the model's own.
    """
    own = model.other_parameter()
    for name, value in (values or {}).items():
        if name not in own:
            raise FairError(f"{source} holds {name!r}, which {type(model).__name__} has not.")
        if isinstance(own[name], dict | list | str) and not isinstance(value, type(own[name])):
            raise FairError(f"{source} holds {name!r} as a {type(value).__name__}, which does not fit.")
    try:
        model.load_other_parameter(values)
    except _MISFITS as error:
        raise FairError(f"{source} does not fit {type(model).__name__} ({_one_line(error)}).") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def load_weights(model: torch.nn.Module, state: Mapping[str, torch.Tensor], source: str | Path) -> None:
    """Give a model the weights of a checkpoint.

    Args:
        model: the model.
        state: its ``state_dict``.
        source: where that is from, for the message.

    Raises:
        FairError: if the model has other weights or weights of other sizes.
    """
    check_finite(model, state, source)
    try:
        model.load_state_dict(state)
    except _MISFITS as error:
        raise FairError(
            f"{source} does not fit the settings: {str(error).splitlines()[-1].strip()}; "
            "use those that it was trained with."
        ) from error


def check_finite(model: torch.nn.Module, state: Mapping[str, torch.Tensor], source: str | Path) -> None:
    """See that weights are numbers; buffers may hold what is not known as NaN.

    Args:
        model: says which entries are weights.
        state: the entries.
        source: where they are from, for the message.

    Raises:
        FairError: for a weight that is NaN or infinite.
    """
    for name, _ in model.named_parameters():
        value = state.get(name)
        if value is not None and not bool(torch.isfinite(value).all()):
            raise FairError(f"{source} holds weights that are no finite numbers ({name}): the training has diverged.")


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
    """Put back what :func:`random_states` took.

    Raises:
        FairError: if these are no such states.
    """
    try:
        _restore_random_states(states)
    except _MISFITS as error:
        raise FairError(f"The states of the random generators in the checkpoint are not usable ({error}).") from error


def _restore_random_states(states: Mapping[str, Any]) -> None:
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
    name, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
