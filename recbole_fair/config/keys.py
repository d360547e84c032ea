"""What a configuration key may hold: kinds, ranges and choices, and the checks that turn a slip into one sentence.

Default values live in ``properties/*.yaml`` alone; this module only says what is allowed.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from recbole_fair.errors import FairError

_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "list": (list, tuple),
    "dict": (dict,),
    "any": (object,),
}
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "dict": "a mapping",
    "any": "anything",
}


@dataclass(frozen=True)
class Key:
    """What one configuration key may hold.

    Attributes:
        kind: ``int``, ``float``, ``bool``, ``str``, ``list``, ``dict`` or ``any``; several joined by ``|``
            (``"float|str"``: a number or one of ``choices``).
        low: smallest allowed number, or None.
        high: largest allowed number, or None.
        choices: allowed texts, or None for any text.
        what: one line for humans: what the key does, with its unit.
        open_low: whether ``low`` itself is excluded.
        open_high: whether ``high`` itself is excluded.
        many: whether a list of such values is allowed as well.
        optional: whether null is allowed (null means "not set").
    """

    kind: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None
    what: str = ""
    open_low: bool = False
    open_high: bool = False
    many: bool = False
    optional: bool = False

    def allowed(self) -> str:
        """Say the allowed values in words, as error messages print them."""
        parts = []
        for kind in self.kind.split("|"):
            if kind == "str" and self.choices is not None:
                parts.append("one of " + ", ".join(self.choices))
            elif kind in ("int", "float"):
                parts.append(_WORDS[kind] + self._range())
            else:
                parts.append(_WORDS[kind])
        words = " or ".join(parts)
        if self.many:
            words += ", or a list of these"
        if self.optional:
            words += ", or null"
        return words

    def _range(self) -> str:
        low_sign, high_sign = ("above " if self.open_low else "at least "), ("below " if self.open_high else "at most ")
        bounds = []
        if self.low is not None:
            bounds.append(f"{low_sign}{self.low:g}")
        if self.high is not None:
            bounds.append(f"{high_sign}{self.high:g}")
        return (" " + " and ".join(bounds)) if bounds else ""

    def accepts(self, value: Any) -> bool:
        """Whether ``value`` is of the right kind and inside the range.

        Args:
            value: the value after YAML parsing.

        Returns:
            True when the value may be used.
        """
        if value is None:
            return self.optional
        if self.many and isinstance(value, (list, tuple)):
            return len(value) > 0 and all(v is not None and self._accepts_one(v) for v in value)
        return self._accepts_one(value)

    def _in_range(self, value: Any) -> bool:
        # bool is an int in Python, but `epochs: true` is a slip.
        if isinstance(value, bool) or math.isnan(value):
            return False
        if self.low is not None and (value < self.low or (self.open_low and value == self.low)):
            return False
        return self.high is None or not (value > self.high or (self.open_high and value == self.high))

    def _accepts_one(self, value: Any) -> bool:
        for kind in self.kind.split("|"):
            if not isinstance(value, _KINDS[kind]):
                continue
            if kind in ("int", "float") and not self._in_range(value):
                continue
            if kind == "str" and self.choices is not None and value not in self.choices:
                continue
            return True
        return False


#: Keys of recbole_fair. Every key in properties/*.yaml that is not RecBole's stands here.
KEYS: dict[str, Key] = {
    # Files a run reads and writes.
    "result_file": Key("str", optional=True, what="path of the JSON result document"),
    "recommendations_file": Key("str", optional=True, what="path of the CSV of recommended lists"),
    "neurons_file": Key("str", optional=True, what="path of the CSV neuron table (PopSteer)"),
    "base_model_file": Key("str", optional=True, what="checkpoint of the base model of a post-hoc method"),
    "resume": Key("str", optional=True, what="checkpoint of an interrupted run to go on from"),
    # SASRec.
    "train_positions": Key("str", choices=("all", "last"), what="windows with many targets, or RecBole's prefixes"),
    "window_stride": Key("int", low=1, optional=True, what="targets a training window"),
    # Sparse autoencoder and PopSteer.
    "sae_scale": Key("int", low=1, what="hidden size of the autoencoder as a multiple of the representation's size"),
    "sae_k": Key("int", low=1, what="latents kept for a user"),
    "sae_encoder_bias": Key("bool", what="whether the autoencoder's encoder has a bias"),
    "sae_aux_coef": Key("float", low=0, what="weight of the dead latents' loss"),
    "sae_dead_after": Key("int", low=1, optional=True, what="inputs without firing after which a latent is dead"),
    "sae_learning_rate": Key("float", low=0, open_low=True, what="learning rate of the autoencoder"),
    "sae_batch_size": Key("int", low=1, what="vectors a training step of the autoencoder"),
    "sae_epochs": Key("int", low=1, what="most passes over the vectors"),
    "sae_max_inputs": Key("int", low=1, optional=True, what="most training vectors seen, repetitions counted"),
    "sae_stopping_step": Key("int", low=1, what="epochs without improvement before the autoencoder stops"),
    "sae_vectors": Key("str", choices=("all", "last"), what="vectors of all training prefixes, or one a user"),
    "sae_vector_stride": Key("int", low=1, what="prefixes beyond the window that share one pass of the base model"),
    "synthetic_users": Key("int", low=1, what="synthetic users a side"),
    "synthetic_length": Key(
        "int|str", low=1, choices=("matched",), optional=True, what="items of a synthetic user, or 'matched'"
    ),
    "profile_share": Key("float", low=0, high=0.5, open_low=True, what="users a side, of all users"),
    "profile_history": Key("int", low=1, optional=True, what="last training interactions that tell a user's side"),
    "head_share": Key("float", low=0, high=1, open_low=True, open_high=True, what="share of popular items"),
    "tail_share": Key("float", low=0, high=1, open_low=True, open_high=True, what="share of unpopular items"),
    "head_tail_by": Key("str", choices=("items", "interactions"), what="what those shares are shares of"),
    "alpha_pop": Key("float", low=0, what="steering strength on neurons that lean to popular users"),
    "alpha_unpop": Key("float", low=0, what="steering strength on neurons that lean to unpopular users"),
    "beta": Key("float", low=0, what="smallest effect size that is steered"),
    "steer_sigma": Key("str", choices=("group", "pooled", "real", "crossed"), what="deviation that scales the steps"),
    "steer_mode": Key("str", choices=("popsteer", "noise", "random_select", "dense"), what="PopSteer or an ablation"),
    "noise_std": Key("float", low=0, what="noise on the chosen neurons under steer_mode noise"),
    "dense_strength": Key("float", low=0, what="step from popular to unpopular users under steer_mode dense"),
    "keep_reconstruction_error": Key("bool", what="add back what the autoencoder cannot reconstruct"),
    # ILE and its baseline IPS.
    "ile_weight": Key("float", low=0, what="weight of the distance between the group losses, 0 is the base"),
    "ile_distance": Key("str", choices=("std", "ent", "mad"), what="distance between the group losses"),
    "ile_warmup": Key("float", low=0, what="epochs over which ile_weight rises from 0"),
    "ips_max": Key("float", low=1, what="divisor of the most popular item's loss"),
    "ips_normalize": Key("bool", what="whether the weights have mean 1 over the training interactions"),
    # TALL and its baselines.
    "n_experts": Key("int", low=1, what="experts (TALL) or local models (LOCA, EnLFT)"),
    "gate": Key("str", choices=("inverse", "softmax", "uniform", "mlp"), what="how the experts are weighted"),
    "gate_norm": Key("str", choices=("sum", "mean"), what="losses in the gate: sum or mean over the held-out items"),
    "gate_temperature": Key("float", low=0, open_low=True, what="divides what the gate's softmax is taken of"),
    "gate_grad": Key("bool", what="whether gradients flow through the loss-driven gate"),
    "gate_source": Key("str", choices=("fold", "valid"), what="held-out items: of training, or the validation items"),
    "gate_fold_share": Key(
        "float", low=0, high=1, open_low=True, open_high=True, what="share of a user's training items that is held out"
    ),
    "gate_hidden_size": Key("int", low=1, what="hidden units of the gate under gate mlp"),
    "kl_reduction": Key("str", choices=("mean", "sum"), what="mean or sum over the users of a batch"),
    "weight_signal": Key("str", choices=("change", "loss", "none"), what="what the users' weights follow from"),
    "weight_norm": Key("str", choices=("sum", "mean"), what="losses in the weights: sum or mean over held-out items"),
    "weight_alpha": Key("float", low=0, open_low=True, what="the smaller, the more unequal the users' weights"),
    "weight_solver": Key("str", choices=("clip", "simplex"), what="the paper's closed form, or the exact solution"),
    "weight_decay_by_experts": Key("bool", what="whether weight_decay is divided by the number of experts"),
    "gap": Key("int", low=0, what="epochs before users are weighted; early stopping counts from there"),
    "loss_window": Key("int", low=1, what="changes of the loss that are averaged"),
    "wl_exponent": Key("float", low=0, what="exponent of the distance from the mainstream, 0 for equal weights"),
    "loca_anchors": Key("str", choices=("coverage", "kmeans", "random"), what="how LOCA's anchors are chosen"),
    "loca_train_h": Key("float", low=0, open_low=True, what="width of LOCA's kernel in training"),
    "loca_test_h": Key("float", low=0, open_low=True, what="width of LOCA's kernel in scoring"),
    "lft_smoothing": Key("float", low=0, high=1, what="weight of a user's own row in the smoothed profile"),
    "lft_smoothing_threshold": Key("float", low=0, high=1, what="similarity from which other users smooth a profile"),
    "lft_threshold": Key("float", low=0, high=1, what="similarity of profiles above which users are neighbours"),
    "lft_min_neighbors": Key("int", low=1, what="smallest number of neighbours"),
    "lft_max_neighbors": Key("int", low=1, optional=True, what="largest number of neighbours"),
    "lft_epochs": Key("int", low=0, what="passes of a copy over its users"),
    "lft_batch_size": Key("int", low=1, what="users a step of fine-tuning"),
    "lft_learning_rate": Key("float", low=0, open_low=True, what="learning rate of fine-tuning"),
    "lft_weight_decay": Key("float", low=0, what="weight decay of fine-tuning"),
    "lft_dropout": Key("float", low=0, high=1, open_high=True, what="dropout of input items in fine-tuning"),
    "lft_beta": Key("float", low=0, what="weight of the divergence in fine-tuning"),
    "lft_chunk": Key("int", low=1, optional=True, what="copies fine-tuned at once"),
    # DecRS.
    "mediator": Key("str", choices=("fm", "product", "none"), what="Eq. 8, Eq. 7, or the plain machine alone"),
    "confounder_prior": Key("str", choices=("interactions", "catalogue", "uniform"), what="prior over item groups"),
    "group_init_std": Key("float", low=0, what="standard deviation of the initial vectors of item groups"),
    "inference": Key(
        "str", choices=("fused", "deconfounded", "backbone", "backbone2", "control"), what="variant a run is about"
    ),
    "fusion_alpha": Key("float", low=0, what="exponent of the drift in the weight of the deconfounded model"),
    "fusion_control": Key("bool", what="whether to mix the backbone with a second backbone as well"),
    "drift_history": Key("str", choices=("train", "train_valid"), what="interactions that interest drift is read from"),
    "unawareness": Key("bool", what="whether the item groups are left out of the features"),
    "user_features": Key("str|list", what="columns of the user file that are features: all, or a list"),
    "item_features": Key("str|list", what="columns of the item file beside group_field that are: all, or a list"),
    "propensity": Key("str", choices=("none", "user", "item"), what="whose inverse propensity weighs the loss (IPS)"),
    "propensity_clip": Key("float", low=1, what="largest of these weights"),
    # Training.
    # SPREE.
    "spree_strength": Key("float", what="steering strength lambda, any real number; 0 is the base"),
    "spree_adaptive": Key("bool", what="whether each user's step is that user's estimated bias (Eq. 5) or 1 (Eq. 3)"),
    "spree_sites": Key("str|list", choices=("last", "grid"), what="places to probe, or [[block, position], ...]"),
    "bias_list_length": Key("int", low=1, what="length of the lists whose popularity bias is learnt"),
    "bias_regularization": Key(
        "float|str", low=0, open_low=True, choices=("cv",), what="L1 penalty of the bias estimator"
    ),
    "learning_rate_schedule": Key("str", choices=("constant", "linear"), what="course of the learning rate"),
    "learning_rate_warmup": Key("float", low=0, what="epochs over which the rate first rises from 0"),
    # Evaluation.
    "eval_memory_mb": Key("int", low=1, what="memory for the score matrix of one evaluation batch, in megabytes"),
    "mask_seen": Key(
        "str", choices=("auto", "none", "train", "all"), what="which items of a user's past are left out of the lists"
    ),
    # Metrics.
    "coverage_min_count": Key("int", low=1, many=True, what="lists that must hold an item for it to count as covered"),
    "segment_head_share": Key(
        "float", low=0, high=1, open_low=True, open_high=True, what="share of head items in segment metrics"
    ),
    "segment_tail_share": Key(
        "float", low=0, high=1, open_low=True, open_high=True, what="share of tail items in segment metrics"
    ),
    "segment_by": Key("str", choices=("interactions", "items"), what="what the segment shares are shares of"),
    "upd_base": Key("float|str", low=1, open_low=True, choices=("e",), what="base of UPD's logarithm"),
    "upd_over": Key("str", choices=("users", "groups"), what="what UPD is averaged over: users or three taste groups"),
    "upd_smoothing": Key("float", low=0, what="added to the shares that UPD compares"),
    "pce_levels": Key("int|list", low=2, what="quantile levels of PCE: how many from 0 to 1, or a rising list"),
    "group_field": Key("str", optional=True, what="item column with the item groups of CKL and drift (genre)"),
    "ckl_smoothing": Key("float", low=0, high=1, open_low=True, what="Steck's smoothing in CKL and drift"),
    "group_metrics": Key(
        "dict|str", many=True, optional=True, what="metrics by user group; names alone report NDCG by these groups"
    ),
    "bootstrap": Key("int", low=0, what="resamples of users for 95 % intervals, 0 for none"),
    "metric_history": Key("str", choices=("train", "train_valid"), what="what counts as history when testing"),
    "valid_constraint": Key(
        "str", optional=True, many=True, what="bound that a validation metric must keep, such as 'GiniIndex@10 <= 0.8'"
    ),
    # Re-rankers; each checks the narrower range of its own keys.
    "reranker": Key("str", optional=True, what="re-ranker that runs after the model: a name, or module:Class"),
    "reranker_candidates": Key("int", low=1, optional=True, what="best items that it sees a user, null for all"),
    "reranker_alpha": Key("float", low=0, what="strength (IPR, PP, RandomNeighbors), significance level (FAstarIR)"),
    "reranker_lambda": Key("float", low=0, what="strength (PMMF, CP, Calibration, FairCo, PUFR), relevance (PCT)"),
    "reranker_theta": Key("float", low=0, high=1, what="strength of Diversity"),
    "reranker_p": Key("float", low=0, high=1, what="share of tail items that FAstarIR wants"),
    "reranker_correction": Key("str", choices=("exact", "sidak", "none"), what="how FAstarIR adjusts its level"),
    "reranker_provider": Key("str", what="whose exposure counts: group (head, mid, tail), item, or an item column"),
    "reranker_score": Key("str", choices=("minmax", "sigmoid", "raw"), what="scale of the scores in a re-ranker"),
    "reranker_hard_budget": Key("bool", what="whether PMMF shuts exhausted providers out"),
    "reranker_seed": Key("int", low=0, optional=True, what="seed of the re-ranker's draws, the run's when null"),
    "reranker_pool": Key("int", low=1, what="best candidates that Random draws from"),
    "reranker_pool_factor": Key("int", low=1, what="Diversity looks at so many times K candidates"),
    "reranker_order": Key("str", choices=("random", "score"), what="order of drawn items"),
    "reranker_target": Key("float|str", low=0, high=1, choices=("equal", "items"), what="PCT's target: or tail share"),
    "reranker_groups": Key("str", choices=("tail", "segments"), what="PCT's groups: tail and rest, or three segments"),
    "reranker_solver": Key("str", choices=("auto", "proportional", "lp"), what="how PCT finds the users' targets"),
    "reranker_popular_share": Key(
        "float", low=0, high=1, open_low=True, open_high=True, what="share that DUOR's popular items make up"
    ),
    "reranker_popular_by": Key("str", choices=("items", "interactions"), what="what that share is a share of"),
    "reranker_last": Key("int", low=1, optional=True, what="interactions at the end of a history that DUOR looks at"),
    "reranker_smoothing": Key("float", low=0, high=1, open_low=True, what="Steck's smoothing in Calibration"),
    "reranker_models": Key("str", many=True, optional=True, what="checkpoints of other seeds (PUFR)"),
    "per_user_file": Key("str", optional=True, what="path of the CSV of metrics by user"),
    "per_item_file": Key("str", optional=True, what="path of the CSV of exposure by item"),
}

_POSITIVE_INT = Key("int", low=1)
_COUNT = Key("int", low=0)
_SHARE = Key("float", low=0, high=1)
_FLAG = Key("bool")

#: RecBole's own keys whose ranges RecBole itself does not check, or checks only by crashing later.
RECBOLE_RANGES: dict[str, Key] = {
    "epochs": _POSITIVE_INT,
    "train_batch_size": _POSITIVE_INT,
    "eval_batch_size": _POSITIVE_INT,
    "eval_step": _COUNT,
    "stopping_step": _COUNT,
    "learning_rate": Key("float", low=0, open_low=True),
    "weight_decay": Key("float", low=0),
    "learner": Key("str", choices=("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam")),
    "seed": Key("int", low=0, high=2**32 - 1),
    "topk": Key("int", low=1, many=True),
    "metrics": Key("str", many=True),
    "valid_metric": Key("str"),
    "metric_decimal_place": _COUNT,
    "loss_decimal_place": _COUNT,
    "worker": _COUNT,
    "gpu_id": Key("int|str", low=0, many=True, optional=True),
    "use_gpu": _FLAG,
    "show_progress": _FLAG,
    "reproducibility": _FLAG,
    "shuffle": _FLAG,
    "state": Key(
        "str",
        choices=("debug", "info", "warning", "error", "critical", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
        optional=True,
    ),
    "data_path": Key("str"),
    "checkpoint_dir": Key("str"),
    "eval_args": Key("dict"),
    "train_neg_sample_args": Key("dict", optional=True),
    "clip_grad_norm": Key("dict", optional=True),
    "load_col": Key("dict", optional=True),
    "val_interval": Key("dict", optional=True),
    "threshold": Key("dict", optional=True),
    "rm_dup_inter": Key("str", choices=("first", "last"), optional=True),
    "MAX_ITEM_LIST_LENGTH": _POSITIVE_INT,
    "n_layers": _COUNT,
    "n_heads": _POSITIVE_INT,
    "hidden_size": _POSITIVE_INT,
    "inner_size": _POSITIVE_INT,
    "embedding_size": _POSITIVE_INT,
    "hidden_dropout_prob": Key("float", low=0, high=1, open_high=True),
    "attn_dropout_prob": Key("float", low=0, high=1, open_high=True),
    "dropout_prob": Key("float", low=0, high=1, open_high=True, many=True),
    "layer_norm_eps": Key("float", low=0, open_low=True),
    "initializer_range": Key("float", low=0),
    "hidden_act": Key("str", choices=("gelu", "relu", "swish", "tanh", "sigmoid")),
    "tail_ratio": Key("float", low=0, open_low=True, optional=True),
}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest in spelling to ``name``, upper and lower case alike, or None when nothing is close."""
    by_lower: dict[str, str] = {}
    for candidate in sorted(known):
        by_lower.setdefault(candidate.lower(), candidate)
    hits = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[hits[0]] if hits else None


def metric_parts(metric: str) -> tuple[str, int | None, str]:
    """Name, count and list length in a metric's name: ``ItemCoverage``, 5 and ``10`` in ``ItemCoverage_min5@10``."""
    name, _, cutoff = metric.partition("@")
    base, mark, count = name.lower().rpartition("_min")
    counted = bool(mark) and count.isdigit()
    return name[: len(base)] if counted else name, int(count) if counted else None, cutoff


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest known name, or a full stop when nothing is close: ends a sentence."""
    hit = nearest(name, known)
    return f"; did you mean '{hit}'?" if hit else "."


def check_values(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Check the user's values against the schema and, for keys without an entry, against the kind of the default.

    Args:
        settings: the user's keys and values.
        defaults: the values that stand when the user says nothing.

    Raises:
        FairError: for the first value that is not allowed; names key, value and what is allowed.
    """
    for name, value in settings.items():
        key = KEYS.get(name) or RECBOLE_RANGES.get(name) or _key_like(defaults.get(name))
        if key is not None and not key.accepts(value):
            raise FairError(f"{name}={value!r} is not allowed: it must be {key.allowed()}.")


def _key_like(default: Any) -> Key | None:
    """The loosest key that ``default`` itself fits, for RecBole keys without an entry of their own."""
    if isinstance(default, bool):
        return _FLAG
    if isinstance(default, (int, float)):
        return Key("float")
    if isinstance(default, (list, tuple)):
        return Key("list", optional=True)
    if isinstance(default, dict):
        return Key("dict", optional=True)
    return None
