"""The loaded data set, looked at before training: enough of everything, and nothing repeated unnoticed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from recbole.utils import EvaluatorType, FeatureType, ModelType

from recbole_fair.config.contract import Settings, given_by_user
from recbole_fair.config.traits import Traits
from recbole_fair.data.contract import DataSet
from recbole_fair.errors import FairError

IntArray = NDArray[np.int64]

logger = logging.getLogger(__name__)

_FILTERS = ("user_inter_num_interval", "item_inter_num_interval", "val_interval", "rm_dup_inter")
# Models of RecBole that read columns of the items, and the key that names these.
_FEATURES = {
    "FDSA": "selected_features",
    "GRU4RecF": "selected_features",
    "SASRecF": "selected_features",
    "S3Rec": "item_attribute",
}
_NUMBERS = (FeatureType.FLOAT, FeatureType.FLOAT_SEQ)
_EMPTY = ("feat is empty", "No feat", "at least one array")


@contextmanager
def filtering_errors(config: Settings, step: str = "read") -> Iterator[None]:
    """Turn RecBole's errors about files and filters into a sentence; wraps the loading of a data set.

    Args:
        config: the settings, for the filters in use.
        step: what is being done, for the sentence.

    Raises:
        FairError: when nothing is left, or RecBole or pandas cannot read the files.
    """
    try:
        yield
    except FairError:
        raise
    except ValueError as error:
        if "not defined in dataset" in str(error):  # a field of val_interval and the like
            raise FairError(
                f"dataset={config['dataset']!r}: {str(error).rstrip('.')}; is it loaded (load_col)?"
            ) from error
        if any(text in str(error) for text in _EMPTY):
            raise FairError(_nothing_left(config)) from error
        hint = f" Set encoding (now {config['encoding'] or 'utf-8'})." if isinstance(error, UnicodeDecodeError) else ""
        reason = str(error).strip().rstrip(".")
        raise FairError(f"dataset={config['dataset']!r} cannot be {step}: {reason}.{hint}") from error


def check_dataset(config: Settings, dataset: DataSet) -> None:
    """Check a loaded data set before it is split.

    Args:
        config: the settings.
        dataset: RecBole's data set, before or after ``build``.

    Raises:
        FairError: when no interaction is left, when no user has enough interactions to be tested, or when the
            catalogue is shorter than the recommended lists.
    """
    users = np.asarray(dataset.inter_feat[config["USER_ID_FIELD"]])
    items = np.asarray(dataset.inter_feat[config["ITEM_ID_FIELD"]])
    if len(users) == 0:
        raise FairError(_nothing_left(config))
    n_items = int(dataset.item_num) - 1  # without the padding item
    longest = max(config["topk"])
    if config["eval_type"] == EvaluatorType.RANKING and longest > n_items:
        raise FairError(f"topk={longest} is longer than the catalogue: only {n_items} items are left in the data.")
    _check_features(config, dataset)
    _check_context(config, dataset)
    _check_labels(config, dataset)
    _check_histories(config, users)
    if not config["repeatable"]:
        _warn_of_repeats(config, users, items)


def _check_features(config: Settings, dataset: DataSet) -> None:
    """RecBole's models with item features need these columns."""
    known = dataset.item_feat.columns if dataset.item_feat is not None else ()
    key = _FEATURES.get(config["model"])
    given = config[key] if key else None
    for field in given if isinstance(given, (list, tuple)) else [given] if given else []:
        if field not in known:
            raise FairError(
                f"{key}: {field!r} is not a loaded column of the items ({', '.join(known) or 'none are loaded'}); name "
                "another one, or load it (load_col: {item: [...]})."
            )
        if dataset.field2type[field] in _NUMBERS and field not in (config["numerical_features"] or ()):
            raise FairError(
                f"{key}: {field!r} holds numbers, which {config['model']} reads only where numerical_features names "
                f"them as well; do so, or declare it as {field}:token in the header of the items."
            )


def _check_context(config: Settings, dataset: DataSet) -> None:
    """Context models read columns of the interactions, which the items of a full ranking do not have."""
    if config["MODEL_TYPE"] != ModelType.CONTEXT or Traits.of(config["model_class"]).ranks_all_items:
        return
    if "full" not in config["eval_args"]["mode"].values():
        return
    numerical = config["numerical_features"] or ()
    known = (config["USER_ID_FIELD"], config["ITEM_ID_FIELD"], config["LABEL_FIELD"])
    read = [
        field
        for field in dataset.inter_feat.columns
        if field not in known
        and (field in numerical or dataset.field2type[field] in (FeatureType.TOKEN, FeatureType.TOKEN_SEQ))
    ]
    if read:
        raise FairError(
            f"load_col: {config['model']} would read {', '.join(map(repr, read))} of the interactions, which an item "
            "that is only ranked does not have; leave it out of load_col, or rank sampled items "
            "(eval_args: {mode: uni100})."
        )


def _check_labels(config: Settings, dataset: DataSet) -> None:
    """Rankings take every interaction for a positive one, whatever its label."""
    field = config["LABEL_FIELD"]
    if config["eval_type"] != EvaluatorType.RANKING or config["threshold"] or field not in dataset.inter_feat:
        return
    labels = np.asarray(dataset.inter_feat[field])
    negative = int((labels <= 0).sum()) if labels.dtype.kind in "fiu" else 0
    if not negative:
        return
    says = f"LABEL_FIELD={field!r}: {negative} of {len(labels)} interactions have the label 0"
    sampling = config["train_neg_sample_args"] or {}
    if "train_neg_sample_args" in given_by_user(config) and sampling.get("distribution", "none") == "none":
        logger.warning("%s; rankings do not look at labels, so that these count as interactions and as hits.", says)
        return
    raise FairError(
        f"{says}, which rankings do not look at: these would count as interactions all the same. Leave them out by "
        f'val_interval={{{field}: "(0,inf)"}}, do not load the column, or rate rows (metrics: [AUC]).'
    )


def _check_histories(config: Settings, users: IntArray) -> None:
    """Each user needs an interaction to learn from and one to be tested on, where the split goes by user."""
    eval_args = config["eval_args"]
    if config["benchmark_filename"] or eval_args["group_by"] != "user":
        return
    lengths = np.unique(users, return_counts=True)[1]
    split = eval_args["split"]
    if "TS" in split:
        return  # one time for all: a user may well be on one side of it
    parts = sum(share > 0 for share in split["RS"]) if "RS" in split else 1 + len(split["LS"].split("_and_"))
    short = int((lengths < parts).sum())
    if parts > 1 and short == len(lengths):
        raise FairError(
            f"eval_args: the longest history has {lengths.max()} interaction(s); the split {split} needs "
            f"users with at least {parts}."
        )
    if short:
        logger.warning(
            "%d of %d users have fewer than %d interactions and are missing from training, validation or test.",
            short,
            len(lengths),
            parts,
        )


def _warn_of_repeats(config: Settings, users: IntArray, items: IntArray) -> None:
    """A pair in both training and test is an answer given away."""
    pairs = users.astype(np.int64) * (int(items.max()) + 1) + items
    repeated = len(pairs) - len(np.unique(pairs))
    if repeated:
        logger.warning(
            "%d of %d interactions repeat an earlier user-item pair, so that a pair may be in training and in test; "
            "rm_dup_inter: first keeps the first of each.",
            repeated,
            len(pairs),
        )


def _nothing_left(config: Settings) -> str:
    used = ", ".join(f"{key}={config[key]}" for key in _FILTERS if config[key] not in (None, "[0,inf)"))
    return f"dataset={config['dataset']!r}: no interaction is left after filtering ({used or 'no filter is set'})."
