"""FairConfig: RecBole's configuration with our layers, checked keys and no hidden input.

Layers, later ones win: RecBole's defaults, ``properties/overall.yaml``, ``model/<Base>.yaml``,
``method/<Method>.yaml``, ``model/<Model>.yaml``, ``dataset/<name>.yaml``, ``rerank/<ReRanker>.yaml``, the user's files
in their order, ``config_dict``. The command line is merged into ``config_dict`` by :mod:`recbole_fair.cli`; this module
never looks at ``sys.argv``, evaluates no text and leaves the environment and the module globals of RecBole alone.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from recbole.config import Config
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import InputType

from recbole_fair.config import protocol
from recbole_fair.config.catalogue import (
    RERANKER_PREFIX,
    check_values,
    declared,
    key_named,
    mentions,
    own_keys,
    says_its_keys,
)
from recbole_fair.config.data_tables import DataTables, data_tables
from recbole_fair.config.imports import load
from recbole_fair.config.keys import did_you_mean
from recbole_fair.config.kinds import is_path, shown
from recbole_fair.config.layers import (
    FairLoader,
    files_of,
    find_config_file,
    parse_value,
    properties_dir,
    read_packaged,
    read_yaml,
    tidy,
)
from recbole_fair.config.recbole_keys import COMPUTED_KEYS, PROCESS_KEYS, RECBOLE_KEYS
from recbole_fair.config.recbole_models import OF_MODELS
from recbole_fair.config.registry import adopted_metrics, get_model, layers_of, lineage
from recbole_fair.config.rerankers import reranker_defaults
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import plain_config
from recbole_fair.io.latest import LATEST, named_checkpoint
from recbole_fair.io.processes import place

logger = logging.getLogger(__name__)

_PICKLING_KEYS = ("save_dataset", "save_dataloaders", "dataset_save_path", "dataloaders_save_path")


class FairConfig(Config):
    """The settings of one run.

    Reads like RecBole's Config: ``config["key"]`` (None when absent), ``config.key``, ``"key" in config``.

    Attributes:
        user_settings: what the user set (files, then ``config_dict``), without ``model`` and ``dataset``.
        fair_defaults: the values that would stand had the user set nothing; keys as in ``user_settings``.
        model: the model's name.
        model_class: the model's class.
        dataset: the name of the data set.
        data_tables: the tables that stand for it, where ``data_path`` names such.
    """

    parameters: dict[str, list[str]]
    user_settings: dict[str, Any]
    fair_defaults: dict[str, Any]
    data_tables: DataTables | None

    def __init__(
        self,
        model: str | type[Any] | None = None,
        dataset: str | None = None,
        config_file_list: str | Path | Sequence[str | Path] | None = None,
        config_dict: Mapping[str, Any] | None = None,
    ) -> None:
        """Gather, check and complete the settings.

        Args:
            model: a model's name or class; otherwise the key ``model`` of the files or of ``config_dict``.
            dataset: the data set's name; otherwise the key ``dataset``.
            config_file_list: yaml files, or one of them; later ones win. Presets of the package may be named without a
                path, as ``paper/popsteer-ml-1m.yaml``.
            config_dict: keys and values; wins over the files. Left unchanged.

        Raises:
            FairError: a file that cannot be read; an unknown model, key or metric; a value that is not allowed.
        """
        load("recbole_fair.evaluator.metrics:register_metrics")()
        super().__init__(model, dataset, config_file_list, config_dict)

    # -- hooks of RecBole's Config, in the order in which it calls them ------------------------------------------

    def _init_parameters_category(self) -> None:
        # RecBole hands out its module's lists and appends to them.
        super()._init_parameters_category()
        self.parameters = {category: list(keys) for category, keys in self.parameters.items()}

    def _build_yaml_loader(self) -> type[FairLoader]:
        return FairLoader

    def _update_internal_config_dict(self, file: str) -> dict[str, Any]:
        layer: dict[str, Any] = tidy(read_packaged(Path(file)))
        self.internal_config_dict.update(layer)
        return layer

    def _load_config_files(self, file_list: str | Path | Sequence[str | Path] | None) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for name in files_of(file_list):
            merged.update(tidy(read_yaml(find_config_file(name))))
        return merged

    def _convert_config_dict(self, config_dict: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(config_dict, Mapping) or not all(isinstance(key, str) for key in config_dict):
            raise FairError(f"config_dict={shown(config_dict)} is not a dictionary of keys and values.")
        return {
            key: parse_value(key, value) if isinstance(value, str) else tidy(value, key)
            for key, value in config_dict.items()
        }

    def _load_cmd_line(self) -> dict[str, Any]:
        return {}

    def _merge_external_config_dict(self) -> None:
        super()._merge_external_config_dict()
        external = self.external_config_dict
        external.pop("config_files", None)
        for key, value in external.items():
            known = key_named(key)
            if known is not None and known.kind == "interval" and isinstance(value, list):  # `[5,10]` without quotes
                external[key] = "[" + ",".join(map(str, value)) + "]"

    def _get_model_and_dataset(self, model: str | type[Any] | None, dataset: str | None) -> tuple[str, type[Any], str]:
        model = model if model is not None else self.external_config_dict.get("model")
        dataset = dataset if dataset is not None else self.external_config_dict.get("dataset")
        for key, value in (("model", model), ("dataset", dataset)):
            if value is None:
                raise FairError(f"{key} is not set: add --{key}=NAME, or '{key}: NAME' to a configuration file.")
        if not is_path(dataset) or dataset in (".", "..") or "/" in dataset or "\\" in dataset:
            raise FairError(f"dataset={shown(dataset)} is not a name; give the folder above it as data_path.")
        for key in ("model", "base"):
            if isinstance(self.external_config_dict.get(key), (int, float, list, dict)):
                raise FairError(f"{key}={shown(self.external_config_dict[key])} is not the name of a model.")
        base = self.external_config_dict.pop("base", None)  # from here on it is part of the model's name and class
        if isinstance(model, str):
            model_class = get_model(model, base)
            return model_class.__name__ if ":" in model or base is not None else model, model_class, dataset
        if not (isinstance(model, type) and issubclass(model, AbstractRecommender)):
            raise FairError(f"model={shown(model)} is neither a model's name nor a class of RecBole's models.")
        return model.__name__, model, dataset

    def _load_internal_config_dict(self, model: str, model_class: type[Any], dataset: str) -> None:
        names = lineage(model_class, model)
        super()._load_internal_config_dict(names[0], model_class, dataset)
        recbole_protocol = {
            key: copy.deepcopy(self.internal_config_dict.get(key)) for key in ("metrics", "valid_metric", "topk")
        }
        folder = properties_dir()
        own = declared(model_class)
        self.internal_config_dict.update({name: copy.deepcopy(key.default) for name, key in own.items()})
        for layer in ("overall.yaml", *layers_of(model_class, model), f"dataset/{dataset}.yaml"):
            file = folder / layer
            if file.is_file():
                self.internal_config_dict.update(read_packaged(file))
        self.user_settings = {k: v for k, v in self.external_config_dict.items() if k not in ("model", "dataset")}
        self.internal_config_dict.update(reranker_defaults(self.user_settings))
        self._check_keys()
        check_values(self.user_settings, self.internal_config_dict, model_class)
        protocol.settle(self.internal_config_dict, self.user_settings, recbole_protocol, model, dataset)
        self.fair_defaults = copy.deepcopy(self.internal_config_dict)

    def _check_keys(self) -> None:
        ours = own_keys()
        known = (RECBOLE_KEYS | ours.keys() | self.internal_config_dict.keys()) - COMPUTED_KEYS
        for key, value in self.user_settings.items():
            if key in known or key.startswith(RERANKER_PREFIX):
                continue
            hint = did_you_mean(key, known)
            if key in COMPUTED_KEYS:
                raise FairError(f"{key}={shown(value)} cannot be set: it follows from the other keys.")
            if says_its_keys(self.model_class):
                raise FairError(f"{key}={shown(value)} is not a known key{hint}")
            logger.warning("%s=%s is not a known key%s %s may read it.", key, shown(value), hint, self.model)
        for key in _PICKLING_KEYS:
            if self.user_settings.get(key):
                raise FairError(
                    f"{key}={shown(self.user_settings[key])} is not supported: RecBole pickles whole data sets, which "
                    "could run any code when read; leave the key out, the atomic files are read each time."
                )
        unread = []
        for key, value in self.user_settings.items():
            if value is None or key in self.internal_config_dict:
                continue
            of_others = key in ours or key.startswith(RERANKER_PREFIX)
            if of_others or (key in OF_MODELS and not mentions(self.model_class, key)):
                unread.append(f"{key}={shown(value)}")
        if unread:
            one, several = "%s has no effect: %s does not read it.", "%s have no effect: %s reads none of them."
            logger.warning(one if len(unread) == 1 else several, ", ".join(unread), self.model)

    def _set_default_parameters(self) -> None:
        final = self.final_config_dict
        # The defaults' nested values must not be shared with what RecBole fills in below.
        final.update(copy.deepcopy(final))
        final["model"] = self.model
        final["model_class"] = self.model_class
        for key in ("metrics", "valid_metric", "group_metrics"):
            final[key] = adopted_metrics(key, final[key])
        protocol.complete(final, self.user_settings, self.model_class)
        for key in ("resume", "base_model_file"):
            if final[key] == LATEST:
                final[key] = self.user_settings[key] = str(named_checkpoint(LATEST, final))
        data_path = final["data_path"]
        super()._set_default_parameters()
        final["MODEL_INPUT_TYPE"] = final.get("MODEL_INPUT_TYPE", InputType.POINTWISE)
        self._data_root = data_path
        self.data_tables = data_tables(data_path, self.dataset) if "data_path" in self.user_settings else None
        if self.data_tables is not None:
            final["data_path"] = str(self.data_tables.folder)
        elif self.dataset == "ml-100k" and "data_path" in self.user_settings:
            own = Path(data_path) / self.dataset
            if (own / f"{self.dataset}.inter").is_file():
                final["data_path"] = str(own)
            elif not any(own.glob(f"{self.dataset}.*")):
                logger.warning("data_path=%s holds no ml-100k: RecBole's own copy is read.", data_path)

    def _init_device(self) -> None:
        """Choose the device without touching the environment.

        RecBole writes ``CUDA_VISIBLE_DEVICES``, which later configurations then inherit. Here ``gpu_id`` counts the
        devices that PyTorch sees, and ``use_gpu: false`` or an empty ``gpu_id`` means the CPU.
        """
        final = self.final_config_dict
        gpu_id = final["gpu_id"]
        ids = list(gpu_id) if isinstance(gpu_id, (list, tuple)) else str("" if gpu_id is None else gpu_id).split(",")
        ids = [str(one).strip() for one in ids if str(one).strip()]
        final["gpu_id"] = ",".join(ids)
        where = place()
        several = [key for key in ("nproc", "world_size") if int(final.get(key) or 1) > 1]
        if several and where.world == 1:
            raise FairError(
                f"{several[0]}={final[several[0]]}: processes are started by the command line (recbole-fair run "
                "--nproc=2) or by torchrun, not from Python; leave the key out."
            )
        for key in PROCESS_KEYS:  # a checkpoint does not say how many processes wrote it
            final.pop(key, None)
            self.user_settings.pop(key, None)
        # RecBole's own way to several processes is not taken (see trainer/sharing.py).
        final["local_rank"] = 0
        final["single_spec"] = True
        if where.rank > 0:
            final["show_progress"] = final["log_wandb"] = False
        if where.world > 1 and "gpu_id" not in self.user_settings:
            ids = [str(where.local_rank)] if ids else []
        elif ids:
            ids = [ids[where.local_rank % len(ids)]]
        if not ids or not final.get("use_gpu", True) or not torch.cuda.is_available():
            final["device"] = torch.device("cpu")
            return
        if not ids[0].isdigit() or int(ids[0]) >= torch.cuda.device_count():
            raise FairError(f"gpu_id={gpu_id!r} is not there: this machine shows {torch.cuda.device_count()} GPU(s).")
        final["device"] = torch.device("cuda", int(ids[0]))

    # -- what others ask of a configuration ----------------------------------------------------------------------

    def differences(self) -> dict[str, Any]:
        """The user's settings that change something, in their final form; as plain values."""
        mine, theirs = self.to_plain(), FairConfig(self.model_class, self.dataset).to_plain()
        return {
            key: mine[key]
            for key in self.user_settings
            if key in mine and (key not in theirs or mine[key] != theirs[key])
        }

    def to_plain(self) -> dict[str, Any]:
        """All settings of the run as plain values (text, numbers, lists, dicts), for a checkpoint.

        ``FairConfig(config_dict=config.to_plain())`` gives the same configuration again. What RecBole computes
        (device, model type, ...) is left out, and ``data_path`` is the folder above the data set's.
        """
        skipped = COMPUTED_KEYS | {"local_rank", "valid_metric_bigger"}
        kept = {key: value for key, value in plain_config(self).items() if key not in skipped}
        kept["data_path"] = str(self._data_root)
        return kept

    def __deepcopy__(self, memo: dict[int, Any]) -> FairConfig:
        """Copy the settings; classes and the yaml loader are shared."""
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return twin
