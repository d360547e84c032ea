"""Keys of recbole_fair that hold for every model; those of a method stand beside it, in ``model/<method>/keys.py``."""

from __future__ import annotations

from recbole_fair.config.concepts import complaint_about
from recbole_fair.config.keys import Key, Need
from recbole_fair.config.parts import groupings

#: Keys that are part of the model's name as soon as they are read, and so have no value in a configuration.
OF_NAMES: dict[str, Key] = {
    "base": Key(
        "str", what="base model of a method: --model=PopSteer --base=GRU4Rec is --model=PopSteerGRU4Rec", imports=True
    ),
}

#: Name to what the key may hold. Default values stand in ``properties/overall.yaml``.
KEYS: dict[str, Key] = {
    # Files that a run writes.
    "result_file": Key("path", optional=True, what="path of the JSON result document", scope="file"),
    "recommendations_file": Key("path", optional=True, what="path of the CSV of recommended lists", scope="file"),
    "per_user_file": Key("path", optional=True, what="path of the CSV of metrics by user", scope="file"),
    "per_item_file": Key("path", optional=True, what="path of the CSV of exposure by item", scope="file"),
    # Checkpoints that a run starts from.
    "base_model_file": Key(
        "path", optional=True, what="checkpoint of the base model of a post-hoc method", scope="start"
    ),
    "resume": Key("path", optional=True, what="checkpoint of an interrupted run to go on from", scope="start"),
    # Trackers, beside RecBole's log_wandb.
    "log_mlflow": Key("bool", what="send final values and trials to MLflow", scope="machine"),
    "mlflow_uri": Key("str", optional=True, what="place of MLflow's runs; null: MLflow's own", scope="machine"),
    "mlflow_experiment": Key("str", what="name of the experiment in MLflow", scope="machine"),
    # Training.
    "trainer": Key("str", optional=True, what="trainer: a name, or module:Class; null: the model's", imports=True),
    "learning_rate_schedule": Key("str", choices=("constant", "linear"), what="course of the learning rate"),
    "learning_rate_warmup": Key("float", low=0, high=10**7, what="epochs over which the rate first rises from 0"),
    # Data.
    "data_cache": Key("bool", what="keep columns of large files as arrays beside the data", scope="machine"),
    "time_order": Key(
        "str",
        choices=("exact", "recbole"),
        what="order of interactions: exact times, or RecBole's in single precision",
        scope="protocol",
    ),
    # Processes.
    "process_timeout": Key(
        "float",
        low=0,
        open_low=True,
        high=10**7,
        what="seconds after which a process that does not answer the others is given up",
        scope="machine",
    ),
    # Evaluation.
    "eval_memory_mb": Key(
        "int",
        low=1,
        high=2**24,
        what="memory for the score matrix of one evaluation batch, in megabytes",
        scope="machine",
    ),
    "mask_seen": Key(
        "str",
        choices=("auto", "none", "train", "all"),
        what="which items of a user's past are left out of the lists",
        scope="protocol",
    ),
    "valid_constraint": Key(
        "str",
        optional=True,
        many=True,
        what="bound that a validation metric must keep, such as 'GiniIndex@10 <= 0.8'",
        scope="protocol",
    ),
    # Metrics.
    "coverage_min_count": Key(
        "int",
        low=1,
        high=10**9,
        many=True,
        what="lists that must hold an item for it to count as covered",
        scope="evaluation",
    ),
    "segment_head_share": Key(
        "float",
        low=0,
        high=1,
        open_low=True,
        open_high=True,
        what="share of head items in segment metrics",
        scope="evaluation",
    ),
    "segment_tail_share": Key(
        "float",
        low=0,
        high=1,
        open_low=True,
        open_high=True,
        what="share of tail items in segment metrics",
        scope="evaluation",
    ),
    "segment_by": Key(
        "str", choices=("interactions", "items"), what="what the segment shares are shares of", scope="evaluation"
    ),
    "upd_base": Key(
        "float|str", low=1, open_low=True, choices=("e",), what="base of UPD's logarithm", scope="evaluation"
    ),
    "upd_over": Key(
        "str",
        choices=("users", "groups", "fifths"),
        what="what UPD is averaged over: users, three taste groups or five equal ones",
        scope="evaluation",
    ),
    "upd_smoothing": Key("float", low=0, what="added to the shares that UPD compares", scope="evaluation"),
    "pce_levels": Key(
        "int|rising",
        low=2,
        high=10_001,
        what="quantile levels of PCE: how many from 0 to 1, or a rising list",
        scope="evaluation",
    ),
    "group_field": Key(
        "column", optional=True, what="item column with the item groups of CKL and drift (genre)", scope="evaluation"
    ),
    "ckl_smoothing": Key(
        "float", low=0, high=1, open_low=True, what="Steck's smoothing in CKL and drift", scope="evaluation"
    ),
    "group_metrics": Key(
        "dict|str",
        check=groupings,
        many=True,
        optional=True,
        what="metrics by user group; names alone report NDCG by these groups",
        scope="evaluation",
        imports=True,
    ),
    "epoch_groups": Key("bool", what="log the metrics of group_metrics after each validation", scope="machine"),
    "bootstrap": Key(
        "int",
        low=0,
        high=10**6,
        what="resamples of users for 95 % intervals, 0 for none",
        scope="evaluation",
        need=Need(8e3, "of memory for a thousand users"),
    ),
    "concept": Key(
        "str",
        check=complaint_about,
        what="what is steered and counted: popularity, genre:Documentary, user:gender=F or file:items.txt",
        scope="evaluation",
    ),
    "metric_history": Key(
        "str", choices=("train", "train_valid"), what="what counts as history when testing", scope="evaluation"
    ),
    # The re-ranker, whose class declares the keys of its own.
    "reranker": Key(
        "str",
        optional=True,
        what="re-ranker that runs after the model: a name, or module:Class",
        scope="evaluation",
        imports=True,
    ),
    "reranker_candidates": Key(
        "int", low=1, high=10**7, optional=True, what="best items that it sees a user, null for all", scope="evaluation"
    ),
}
