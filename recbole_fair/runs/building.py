"""From a configuration and data to an untrained model, also where it starts from another model's weights."""

from __future__ import annotations

import functools
import importlib.util
import logging
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recbole_fair.config.catalogue import own_keys
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.contract import DataSet
from recbole_fair.errors import FairError


@dataclass(frozen=True)
class Start:
    """How a model of RecBole is told to start from trained weights.

    Attributes:
        key: the setting that decides it.
        values: its values under which it does; empty for any value but null.
        paths: the settings that name the files.
        plain: settings under which the same model is built without them; empty where there are none.
    """

    key: str
    values: tuple[object, ...]
    paths: tuple[str, ...]
    plain: Mapping[str, Any] = field(default_factory=dict)

    def holds(self, config: FairConfig) -> bool:
        """Whether the configuration tells it so."""
        value = config[self.key]
        return value in self.values if self.values else value is not None


_STARTS: dict[str, Start] = {
    "NeuMF": Start("use_pretrain", (True,), ("mf_pretrain_path", "mlp_pretrain_path"), {"use_pretrain": False}),
    "NAIS": Start("pretrain_path", (), ("pretrain_path",), {"pretrain_path": None}),
    "ConvNCF": Start("train_method", ("after_pretrain",), ("pre_model_path",), {"train_method": "no_pretrain"}),
    "KD_DAGFM": Start("phase", ("distillation", "finetuning"), ("warm_up",)),
    "RaCT": Start("train_stage", ("critic_pretrain", "finetune"), ("pre_model_path",)),
    "S3Rec": Start("train_stage", ("finetune",), ("pre_model_path",)),
}
_READING = (OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError, AttributeError, AssertionError)

# Models of RecBole that import a package in the midst of training only.
_LATE_IMPORTS = {"KGIN": "torch_scatter", "MCCLK": "torch_scatter", "NCL": "faiss"}


def new_model(config: FairConfig, dataset: DataSet, weights: Mapping[str, Tensor] | None = None) -> Any:
    """An untrained model; RecBole's later stages of training take the weights of the stage before.

    Args:
        config: the configuration.
        dataset: the training data.
        weights: those that the model is about to be given. Files of other weights, which they hold already, are then
            not asked for.

    Raises:
        FairError: if these cannot be read or do not fit, or RecBole's class refuses what the user set of its settings.
    """
    for package in _late_imports(config.model_class):
        if importlib.util.find_spec(package) is None:
            raise FairError(f"model={config['model']!r} needs the package '{package}', which is not installed.")
    start = _STARTS.get(config["model"])
    if start is not None and not start.holds(config):
        start = None
    changed = start.plain if start is not None and weights is not None else {}
    before = {key: config[key] for key in changed}
    if start is not None and weights is None:
        _check_files(config, start)
    for key, value in changed.items():
        config[key] = value
    try:
        with _mended_log(), _plain_loading(weights):
            return config.model_class(config, dataset).to(config["device"])
    except FairError:
        raise
    except ModuleNotFoundError as error:
        if not config.model_class.__module__.startswith("recbole."):
            raise
        raise FairError(
            f"model={config['model']!r} needs the package '{error.name}', which is not installed."
        ) from error
    except (*_READING, pickle.UnpicklingError) as error:
        if start is not None and weights is None:
            raise _does_not_fit(config, start, error) from error
        given = _settings_of_the_model(config)
        if not given or not config.model_class.__module__.startswith("recbole."):
            raise
        said = " ".join(str(error).split()).rstrip(".") or "it refuses them"
        raise FairError(f"{config['model']} cannot be built with {given}: {said[:300]}.") from error
    finally:
        for key, value in before.items():
            config[key] = value


def _late_imports(model_class: type[Any]) -> list[str]:
    ancestors = (cls.__name__ for cls in model_class.__mro__ if cls.__module__.startswith("recbole.model."))
    return [_LATE_IMPORTS[name] for name in ancestors if name in _LATE_IMPORTS]


def _check_files(config: FairConfig, start: Start) -> None:
    for key in start.paths:
        path = config[key]
        if not path or not Path(str(path)).is_file():
            raise FairError(
                f"{key}={path!r} is not a file, and {config['model']} with {start.key}={config[start.key]!r} starts "
                f"from its weights; give the checkpoint of the stage before, or another {start.key}."
            )


def _does_not_fit(config: FairConfig, start: Start, error: Exception) -> FairError:
    reason = "it does not hold plain weights"
    if isinstance(error, OSError):
        reason = str(error.strerror)
    elif isinstance(error, RuntimeError):
        reason = str(error).splitlines()[-1].strip()
    files = ", ".join(f"{key}={config[key]!r}" for key in start.paths)
    return FairError(
        f"{files} cannot be used for {start.key}={config[start.key]} ({reason}); give the checkpoint that the stage "
        "before wrote under the same settings."
    )


def _settings_of_the_model(config: FairConfig) -> str:
    """What the user set of a model's own settings, ``key=value`` joined by commas."""
    general = {key for kind in ("General", "Training", "Evaluation", "Dataset") for key in config.parameters[kind]}
    own = {key: value for key, value in config.user_settings.items() if key not in general and key not in own_keys()}
    return ", ".join(f"{key}={value!r}" for key, value in own.items())


@contextmanager
def _plain_loading(weights: Mapping[str, Tensor] | None) -> Iterator[None]:
    """RecBole's classes read files of weights as pickles; inside the block they get plain weights, or these."""
    load = torch.load
    torch.load = functools.partial(load, weights_only=True)
    if weights is not None:
        torch.load = lambda *_, **__: {"state_dict": weights}
    try:
        yield
    finally:
        torch.load = load


@contextmanager
def _mended_log() -> Iterator[None]:
    """RaCT hands its logger a value without a place for it, which ends in a traceback on the terminal."""

    def mend(record: logging.LogRecord) -> bool:
        if record.args and "%" not in str(record.msg):
            record.msg, record.args = " ".join(map(str, (record.msg, *record.args))), None
        return True

    root = logging.getLogger()
    root.addFilter(mend)
    try:
        yield
    finally:
        root.removeFilter(mend)
