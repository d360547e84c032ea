"""From a configuration to data sets and loaders: ours where they are quicker, RecBole's otherwise."""

from __future__ import annotations

import importlib
import logging
from typing import Any

from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.dataset import Dataset, KnowledgeBasedDataset, SequentialDataset
from recbole.data.utils import get_dataloader
from recbole.sampler import KGSampler
from recbole.utils import FeatureType, ModelType

from recbole_fair.config.contract import MutableSettings, Settings, given_by_user
from recbole_fair.config.traits import Traits, trained_class, trained_name
from recbole_fair.data.batches.loaders import FullRankingLoader, UserLoader
from recbole_fair.data.batches.pairs import JoinedBatches, PairLoader
from recbole_fair.data.batches.samplers import create_samplers
from recbole_fair.data.batches.sequences import FairSequentialDataset, WindowLoader
from recbole_fair.data.batches.tensor_columns import look_up_by_tensor
from recbole_fair.data.contract import DataSet
from recbole_fair.data.reading.atomic_files import ensure_atomic_files
from recbole_fair.data.reading.checks import check_dataset, filtering_errors
from recbole_fair.data.reading.quick import quick
from recbole_fair.data.reading.times import keep_order_of_times
from recbole_fair.io.processes import current
from recbole_fair.io.text import without_colours
from recbole_fair.io.verbosity import FOR_THE_FILE

logger = logging.getLogger(__name__)

# FEARec reads the padded lists of the whole training set at once.
_NEEDS_PADDED_LISTS = ("FEARec",)
_COPIES = 4  # of a score matrix that masking, top-k and the model's own work hold at the same time
_FLOAT = 4
_MOST_USERS = 1024  # larger batches are no quicker, and too few of them cannot be shared by several processes


def load_data(config: MutableSettings) -> tuple[Any, Any, Any]:
    """Loaders of training, validation and test for a configuration, from the atomic files on disk.

    Raises:
        FairError: if files or columns are missing, or too little is left after filtering.
    """
    with current().first_before_others():  # downloads, and cuts text up for all
        ensure_atomic_files(config)
        with filtering_errors(config):
            dataset = create_dataset(config)
    keep_last_items(config, dataset)
    if config["time_order"] != "recbole":
        keep_order_of_times(config, dataset)
    check_dataset(config, dataset)
    logger.info("%s", without_colours(str(dataset)), extra=FOR_THE_FILE)
    with filtering_errors(config, "prepared"):
        return data_preparation(config, dataset)


def create_dataset(config: Settings) -> Any:
    """The data set of a configuration.

    RecBole's special data sets (``<Model>Dataset``) stay as they are; sequential models get
    :class:`~recbole_fair.data.batches.sequences.FairSequentialDataset`. Nothing is read from pickled files.
    """
    module = importlib.import_module("recbole.data.dataset")
    name = trained_name(config["model_class"], config["model"])
    special = getattr(module, f"{name}Dataset", None)
    kind = config["MODEL_TYPE"]
    if special is not None:
        found = special
    elif kind == ModelType.KNOWLEDGE:
        found = KnowledgeBasedDataset
    elif kind != ModelType.SEQUENTIAL:
        found = Dataset
    elif config["benchmark_filename"] is not None or name in _NEEDS_PADDED_LISTS:
        found = SequentialDataset
    else:
        found = FairSequentialDataset
    return quick(found)(config)


def keep_last_items(config: Settings, dataset: DataSet) -> None:
    """Cut the lists of past items in finished splits to the last ``MAX_ITEM_LIST_LENGTH``, as far back as models see.

    RecBole leaves them as long as they are, which a model with so many positions cannot read.

    Args:
        config: the settings.
        dataset: what RecBole read, before ``build``; changed in place.
    """
    length = getattr(dataset, "item_list_length_field", None)
    if not config["benchmark_filename"] or length is None or length not in dataset.inter_feat:
        return
    feat, most = dataset.inter_feat, int(config["MAX_ITEM_LIST_LENGTH"])
    longer = int((feat[length] > most).sum())
    if not longer:
        return
    for field in [base + config["LIST_SUFFIX"] for base in feat.columns]:  # the lists that RecBole takes as such
        if field in feat and dataset.field2type[field] in (FeatureType.TOKEN_SEQ, FeatureType.FLOAT_SEQ):
            feat[field] = feat[field].map(lambda past: past[-most:])
            dataset.field2seqlen[field] = min(dataset.field2seqlen[field], most)
    feat[length] = feat[length].clip(upper=most)
    logger.info("%d of %d rows have more than %d past items: the last ones are read.", longer, len(feat), most)


def users_per_batch(config: Settings, n_items: int) -> int:
    """Users that one batch of full ranking may hold within ``eval_memory_mb``.

    Counted are the score matrix with its working copies, for sequential models the encoder's activations, and for
    context models, which RecBole scores pair by pair, the repeated rows and their embeddings. At most 1,024.
    """
    budget = int(config["eval_memory_mb"] or 256) * 2**20
    size = int(config["hidden_size"] or config["embedding_size"] or 64)
    per_user = n_items * _FLOAT * _COPIES
    if config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
        per_user += int(config["MAX_ITEM_LIST_LENGTH"]) * size * _FLOAT * 16
    elif config["MODEL_TYPE"] == ModelType.CONTEXT and not Traits.of(config["model_class"]).ranks_all_items:
        per_user += n_items * (64 + 16 * size) * _FLOAT
    return max(1, min(budget // per_user, _MOST_USERS))


def trains_on_windows(config: Settings) -> bool:
    """Whether the model (or its base model) learns from windows, all positions at once."""
    by_windows = Traits.of(trained_class(config["model_class"])).reads_windows
    return config["train_positions"] == "all" and by_windows


def samples_items(config: Settings) -> bool:
    """Whether training compares a user's items with sampled ones."""
    return (config["train_neg_sample_args"] or {}).get("distribution", "none") != "none"


def trains_on_pairs(config: Settings) -> bool:
    """Whether the model learns from labelled pairs whose negatives are drawn uniformly."""
    args = config["train_neg_sample_args"]
    uniform = samples_items(config) and args.get("distribution") == "uniform" and not args.get("dynamic")
    return uniform and Traits.of(config["model_class"]).reads_pairs


def trains_on_users(config: Settings) -> bool:
    """Whether the model (or its base model) learns from users' whole rows."""
    return Traits.of(trained_class(config["model_class"])).reads_users


def _loader_class(config: Settings, phase: str) -> type[Any]:
    """RecBole's choice of a loader, by the name of the model that is trained."""
    asked = {key: config[key] for key in ("MODEL_TYPE", "eval_args")}
    name = trained_name(config["model_class"], config["model"])
    chosen: type[Any] = get_dataloader({**asked, "model": name}, phase)
    return chosen


def data_preparation(config: MutableSettings, dataset: DataSet) -> tuple[Any, Any, Any]:
    """Split a data set and make the loaders of training, validation and test.

    Full ranking takes as many users a batch as ``eval_memory_mb`` allows unless the user set ``eval_batch_size``,
    whose unit is RecBole's: users for sequential models, user-item pairs for the others.

    Args:
        config: the configuration.
        dataset: what :func:`create_dataset` made; it is used up.

    Returns:
        Training, validation and test loader; the last two are None where the split leaves them empty.
    """
    splits = dataset.build()
    samplers = create_samplers(config, dataset, splits)
    if trains_on_windows(config):
        train: Any = WindowLoader(config, splits[0], shuffle=config["shuffle"])
    elif trains_on_pairs(config):
        train = PairLoader(config, splits[0], shuffle=config["shuffle"])
    elif trains_on_users(config):
        train = UserLoader(config, splits[0])
    else:
        extra = []
        if config["MODEL_TYPE"] == ModelType.KNOWLEDGE:
            args = config["train_neg_sample_args"]
            extra = [KGSampler(dataset, args["distribution"], args["alpha"])]
        look_up_by_tensor(splits[0])
        train = _loader_class(config, "train")(config, splits[0], samplers[0], *extra, shuffle=config["shuffle"])
        if Traits.of(config["model_class"]).reads_pairs and not samples_items(config):
            train = JoinedBatches(config, train)
    asked = config["eval_batch_size"]
    evaluations: list[Any] = []
    for phase, split, sampler in zip(("valid", "test"), splits[1:], samplers[1:], strict=True):
        if len(split) == 0:
            evaluations.append(None)
            continue
        if config["eval_args"]["mode"][phase] == "full" and "eval_batch_size" not in given_by_user(config):
            users = users_per_batch(config, dataset.item_num)
            sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
            config["eval_batch_size"] = users if sequential else users * dataset.item_num
        loader = _loader_class(config, phase)
        if loader is FullSortEvalDataLoader:
            loader = FullRankingLoader
        evaluations.append(loader(config, split, sampler, shuffle=False))
        config["eval_batch_size"] = asked
    return train, evaluations[0], evaluations[1]
