"""The command ``export``: a checkpoint as an ONNX graph, or as a user encoder and arrays for an index over items."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recbole_fair import __version__
from recbole_fair.errors import FairError
from recbole_fair.io.atomic import atomic_file
from recbole_fair.model.contract import contract_of
from recbole_fair.runs.graph import KnownUserGraph, ScoreGraph, UserEncoder, item_arrays, known_users, variant_of
from recbole_fair.runs.recommender import Recommender

logger = logging.getLogger(__name__)

FORMATS = ("onnx", "arrays")
OPSET = 18
_CHECKED = 200
_CLOSE = 1e-4  # relative: two items whose scores are so close may change places


def export_checkpoint(
    model_file: str | Path,
    output: str | Path,
    kind: str = "onnx",
    k: int | None = None,
    exclude_seen: bool = False,
    variant: str | None = None,
    config_dict: Mapping[str, Any] | None = None,
    check: int = _CHECKED,
) -> dict[str, Any]:
    """Write a model for serving, and check it against ``recommend``.

    Args:
        model_file: the checkpoint.
        output: the file (``onnx``) or the folder (``arrays``).
        kind: ``onnx`` or ``arrays``.
        k: the graph gives the best so many items; scores of all items when left out.
        exclude_seen: whether the graph leaves out the items of the history.
        variant: how a steered model scores, such as ``base``.
        config_dict: strengths.
        check: so many made-up histories, of every length up to beyond the model's window, are compared.

    Returns:
        ``output``, ``metadata``, ``checked`` lists, how many ``differ`` and the ``largest_error`` of a score.

    Raises:
        FairError: for a model that cannot be exported, a package that is missing, or a graph that gives other lists.
    """
    if kind not in FORMATS:
        raise FairError(f"format={kind!r} is not allowed: it must be one of {', '.join(FORMATS)}.")
    recommender = Recommender.load(model_file, {**(config_dict or {}), "use_gpu": False})
    name = variant_of(recommender, variant)
    by_history = recommender.sequential or recommender.folds_in
    if exclude_seen and not by_history:
        raise FairError("exclude_seen needs histories: this graph takes users by number, and knows nothing of theirs.")
    if k is not None and not 1 <= k < len(recommender.item_ids):
        raise FairError(f"k={k} is not allowed: there are {len(recommender.item_ids) - 1} items.")
    facts = metadata(recommender, name, k, exclude_seen)
    with recommender.scoring(None, name), torch.no_grad():
        if kind == "arrays":
            return _write_arrays(recommender, Path(output), name, facts, check)
        graph = ScoreGraph(recommender, name, k, exclude_seen) if by_history else KnownUserGraph(recommender, name, k)
        outputs = ["scores"] if k is None else ["items", "scores"]
        _write_onnx(graph, Path(output), by_history, outputs, facts)
        found = check_onnx(recommender, Path(output), name, by_history, k, exclude_seen, check)
    return {"output": str(output), "metadata": facts, **found}


def metadata(recommender: Recommender, variant: str, k: int | None, exclude_seen: bool) -> dict[str, str]:
    """What stands in an exported file beside the graph; all values are texts, lists and mappings JSON."""
    model = contract_of(recommender.model)
    by_history = recommender.sequential or recommender.folds_in
    found = {
        "producer": f"recbole_fair {__version__}",
        "model": str(recommender.config["model"]),
        "dataset": str(recommender.config["dataset"]),
        "variant": variant,
        "strengths": json.dumps(model.strengths),
        "window": str(recommender.window),
        "item_ids": json.dumps(recommender.item_ids, ensure_ascii=False),
        "k": str(k or ""),
        "exclude_seen": str(exclude_seen).lower(),
    }
    if not by_history:
        found["user_ids"] = json.dumps(recommender.user_ids, ensure_ascii=False)
    return found


def _needed(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FairError(
            f"Exporting needs the package '{name}', which is not installed or does not fit ({error}): "
            "pip install 'recbole_fair[export]'."
        ) from error


def exports_graphs() -> bool:
    """Whether the installed PyTorch exports ONNX graphs of any batch and length; 2.4 does not."""
    return "dynamic_shapes" in inspect.signature(torch.onnx.export).parameters


def _write_onnx(graph: nn.Module, output: Path, by_history: bool, outputs: list[str], facts: Mapping[str, str]) -> None:
    """Export a graph with a dynamic batch and, for histories, a dynamic length."""
    onnx = _needed("onnx")
    _needed("onnxscript")
    if not exports_graphs():
        raise FairError(
            f"PyTorch {torch.__version__} cannot say a model as an ONNX graph of any length: use PyTorch 2.5 or later."
        )
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    if by_history:
        items = torch.tensor([[1, 2, 0], [1, 0, 0]])
        inputs: tuple[Tensor, ...] = (items, torch.tensor([2, 1]))
        shapes: dict[str, Any] = {"item_ids": {0: batch, 1: length}, "lengths": {0: batch}}
    else:
        inputs, shapes = (torch.tensor([0, 1, 1]),), {"users": {0: batch}}
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exporter.setLevel(logging.ERROR)  # it names packages that nobody needs here
            program = torch.onnx.export(
                graph.eval(),
                inputs,
                input_names=list(shapes),
                output_names=outputs,
                dynamic_shapes=shapes,
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # whatever the tracing of somebody's forward pass raises
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise FairError(f"The model cannot be said as an ONNX graph: {reason[:300]}") from error
    finally:
        exporter.setLevel(level)
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, dict(facts))
    with atomic_file(output, "the graph ") as file:
        file.write(proto.SerializeToString())


def made_up_histories(recommender: Recommender, n: int, seed: int = 0) -> list[list[str]]:
    """Histories of every length from 1 to two beyond the window, ``n`` in all, of random items."""
    rng = np.random.default_rng(seed)
    longest = recommender.window + 2 if recommender.sequential else 50
    lengths = np.arange(n) % longest + 1
    return [
        [recommender.item_ids[item] for item in rng.integers(1, len(recommender.item_ids), size)] for size in lengths
    ]


def check_onnx(
    recommender: Recommender,
    output: Path,
    variant: str,
    by_history: bool,
    k: int | None,
    exclude_seen: bool,
    n: int = _CHECKED,
) -> dict[str, Any]:
    """Compare a graph, run by onnxruntime in ragged batches, with ``recommend``.

    Args:
        recommender: the recommender.
        output: the graph.
        variant: how a steered model scores.
        by_history: whether the graph takes histories.
        k: as in :func:`export_checkpoint`.
        exclude_seen: likewise.
        n: number of made-up histories.

    Returns:
        ``checked`` lists, how many ``differ`` and the ``largest_error`` of a score.

    Raises:
        FairError: if lists differ by more than items of almost equal scores.
    """
    runtime = _needed("onnxruntime")
    session = runtime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    length = k or min(10, len(recommender.item_ids) - 1)
    if by_history:
        histories = made_up_histories(recommender, n)
        expected = recommender.recommend(histories, length, variant=variant, exclude_seen=exclude_seen)
    else:
        users = recommender.user_ids[1 : n + 1]
        expected = recommender.recommend(users=users, k=length, variant=variant, exclude_seen=False)
        histories = [[user] for user in users]
    items, scores = [], []
    for start in range(0, len(histories), 37):
        part = histories[start : start + 37]
        if by_history:
            rows, _ = recommender.numbered(part)
            feed = {"item_ids": rows.padded(int(rows.lengths.max())).numpy(), "lengths": rows.lengths}
        else:
            feed = {"users": np.arange(start + 1, start + 1 + len(part))}
        try:
            found = session.run(None, feed)
        except Exception as error:  # onnxruntime's errors have no common class of their own
            output.unlink(missing_ok=True)
            raise FairError(
                f"{recommender.config['model']} cannot be exported: its graph holds for one size of batch only, since "
                "the model's code counts rows in Python."
            ) from error
        if k is None:
            values, best = torch.from_numpy(found[0]).topk(length, dim=1)
        else:
            best, values = (torch.from_numpy(one) for one in found)
        items.append(best)
        scores.append(values)
    return _compare(expected.ids, expected.scores, torch.cat(items), torch.cat(scores), output)


def _compare(ids: Tensor, scores: Tensor, found_ids: Tensor, found_scores: Tensor, output: Path) -> dict[str, Any]:
    """Count the lists that differ; refuse a graph whose scores do."""
    there = scores > -torch.inf
    error = (scores - found_scores)[there].abs().max() if bool(there.any()) else torch.zeros(())
    scale = scores[there].abs().max().clamp_min(1.0)
    differ = int(((ids != found_ids) & there).any(1).sum())
    if float(error) > _CLOSE * float(scale):
        output.unlink(missing_ok=True)
        raise FairError(
            f"The exported graph scores otherwise than the model (by up to {float(error):.3g}); nothing was kept. "
            "Please report the model."
        )
    return {"checked": len(ids), "differ": differ, "largest_error": float(error)}


def _write_arrays(
    recommender: Recommender, folder: Path, variant: str, facts: Mapping[str, str], check: int
) -> dict[str, Any]:
    """``items.npy``, ``bias.npy``, ``metadata.json``, and ``encoder.onnx`` or, for known users, ``users.npy``."""
    items, bias = item_arrays(recommender)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"items.npy": items, "bias.npy": bias}
    if recommender.sequential or recommender.folds_in:
        encoder = UserEncoder(recommender, variant)
        _write_onnx(encoder, folder / "encoder.onnx", True, ["users"], facts)
        users = _encoded(recommender, folder / "encoder.onnx", histories := made_up_histories(recommender, check))
        expected = recommender.recommend(histories, 10, variant=variant, exclude_seen=False)
    else:
        arrays["users.npy"] = known = known_users(recommender, variant)
        users = known[1 : check + 1]
        names = recommender.user_ids[1 : check + 1]
        expected = recommender.recommend(users=names, k=10, variant=variant, exclude_seen=False)
    for name, array in arrays.items():
        with atomic_file(folder / name) as file:
            np.save(file, array.numpy())
    with atomic_file(folder / "metadata.json", mode="w", encoding="utf-8") as file:
        json.dump(dict(facts), file, indent=1, ensure_ascii=False)
    products = users @ items.t() + bias
    products[:, 0] = -torch.inf
    found = products.topk(expected.ids.shape[1], dim=1)
    differ = int((found.indices != expected.ids).any(1).sum())
    return {"output": str(folder), "metadata": dict(facts), "checked": len(expected.ids), "differ": differ}


def _encoded(recommender: Recommender, file: Path, histories: list[list[str]]) -> Tensor:
    """User vectors by the exported encoder."""
    session = _needed("onnxruntime").InferenceSession(str(file), providers=["CPUExecutionProvider"])
    rows, _ = recommender.numbered(histories)
    feed = {"item_ids": rows.padded(int(rows.lengths.max())).numpy(), "lengths": rows.lengths}
    return torch.from_numpy(session.run(None, feed)[0])
