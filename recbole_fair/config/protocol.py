"""What is trained on and measured: the rules that tie loss, sampling, split, metrics and list lengths together.

RecBole checks these late or with a traceback; here each slip is one sentence, and what follows from the other settings
is filled in.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from recbole.evaluator import metric_types
from recbole.utils import EvaluatorType, InputType, ModelType

from recbole_fair.config.keys import did_you_mean, metric_parts
from recbole_fair.config.parts import NEGATIVES
from recbole_fair.config.traits import Traits, trained_class, trained_name
from recbole_fair.errors import FairError

logger = logging.getLogger(__name__)

# Click-through models of RecBole that rank sampled candidates or single rows only.
_VALUE_MODELS = ("DIN", "DIEN")
# Models of RecBole that learn from users' rows, without sampled items.
_ROW_MODELS = ("MultiDAE", "MultiVAE", "MacridVAE", "CDAE", "ENMF", "RaCT", "RecVAE", "DiffRec", "LDiffRec")
# Settings that RecBole's transforms of sequences read.
_TRANSFORMS = {"mask_itemseq": ("mask_ratio",), "crop_itemseq": ("eta",), "reorder_itemseq": ("beta",)}
# Stages of RecBole's models that are trained in several.
_STAGES = {"RaCT": ("actor_pretrain", "critic_pretrain", "finetune"), "S3Rec": ("pretrain", "finetune")}
_RANKING_EVAL_ARGS: dict[str, Any] = {
    "split": {"RS": [0.8, 0.1, 0.1]},
    "order": "RO",
    "group_by": "user",
    "mode": "full",
}
_ONE_NEGATIVE: dict[str, Any] = {part: key.default for part, key in NEGATIVES.items()}
# Losses of RecBole's models that say PAIRWISE whatever the loss is.
_LOSSES = {"SINE": ("BPR", "CE", "NLL")}


def settle(
    defaults: dict[str, Any],
    user: Mapping[str, Any],
    recbole: Mapping[str, Any],
    model: str,
    dataset: str,
) -> None:
    """Choose between full ranking and RecBole's click-through protocol for the models that know both.

    RecBole evaluates context-aware models (FM, NFM, ...) by AUC on labelled rows. Here they are ranked like every
    other model, so that they serve as baselines, unless the user asks for value metrics (AUC, LogLoss, ...) or for
    ``mode: labeled``, or for labels (``threshold``) and names no metrics. DIN, DIEN and the decision trees keep
    RecBole's protocol.

    Args:
        defaults: the merged defaults; changed in place.
        user: the user's settings.
        recbole: RecBole's own defaults of ``metrics``, ``valid_metric`` and ``topk`` for this model.
        model: the model's name.
        dataset: the data set's name (RecBole has presets for ml-100k).
    """
    kind = defaults["MODEL_TYPE"]
    clicks = kind == ModelType.DECISIONTREE or model in _VALUE_MODELS
    if kind == ModelType.CONTEXT:
        clicks = _asks_for_values(user)
        if not clicks:
            defaults["eval_args"] = dict(_RANKING_EVAL_ARGS)
            defaults["train_neg_sample_args"] = dict(_ONE_NEGATIVE)
            if dataset == "ml-100k":
                defaults["threshold"] = None
    if kind == ModelType.SEQUENTIAL and defaults["eval_args"].get("order") != "TO":
        # RecBole leaves the models with embeddings of a knowledge graph (KSR, GRU4RecKG) a random order.
        defaults["eval_args"] = {**_RANKING_EVAL_ARGS, "split": {"LS": "valid_and_test"}, "order": "TO"}
    if clicks:
        defaults.update({key: recbole[key] for key in ("metrics", "valid_metric", "topk")})


def _asks_for_values(user: Mapping[str, Any]) -> bool:
    named = user.get("metrics") or []
    names = [named] if isinstance(named, str) else list(named)
    if isinstance(user.get("valid_metric"), str):
        names.append(user["valid_metric"].split("@")[0])
    if any(metric_types.get(str(name).rpartition(":")[2].lower()) == EvaluatorType.VALUE for name in names):
        return True
    if user.get("threshold") is not None and not names and "eval_args" not in user:
        return True  # labels are made for nothing else
    eval_args = user.get("eval_args")
    mode = eval_args.get("mode") if isinstance(eval_args, dict) else None
    return "labeled" in (mode.values() if isinstance(mode, dict) else (mode,))


def complete(final: dict[str, Any], user: Mapping[str, Any], model_class: type[Any]) -> None:
    """Check the settings that depend on each other and fill in what follows from the rest.

    Args:
        final: all settings; changed in place.
        user: the user's settings.
        model_class: the model's class.

    Raises:
        FairError: for settings that contradict each other.
    """
    _metrics(final)
    _valid_metric(final, user)
    _eval_args(final, user)
    _loss(final, user, model_class)
    _train_sampling(final, user, model_class)
    _transform(final)
    _train_positions(final, user, model_class)
    for package in ("wandb", "mlflow"):
        if final.get(f"log_{package}") and package not in sys.modules and find_spec(package) is None:
            raise FairError(f"log_{package}=True needs the package '{package}', which is not installed.")
    _threshold(final, user)
    stages = _STAGES.get(trained_name(model_class, final["model"]))
    if stages and final.get("train_stage") not in stages:
        stage = final.get("train_stage")
        raise FairError(f"train_stage={stage!r} must be one of {', '.join(stages)}{did_you_mean(str(stage), stages)}")
    if str(final.get("learner")).lower() == "sparse_adam":
        raise FairError("learner=sparse_adam needs sparse gradients, which no model here has; use adam.")
    if final["MODEL_TYPE"] == ModelType.SEQUENTIAL and not final["repeatable"]:
        raise FairError("repeatable=False is not possible with a sequential model; leave the key out.")


def _metrics(final: dict[str, Any]) -> None:
    from recbole.evaluator.register import metrics_dict

    metrics = final["metrics"]
    final["metrics"] = metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    shown = [cls.__name__ for cls in metrics_dict.values()]
    for name in metrics:
        if name.lower() not in metric_types:
            raise FairError(f"metrics: there is no metric named {name!r}{did_you_mean(name, shown)}")
    if len({metric_types[name.lower()] for name in metrics}) > 1:
        values = [name for name in metrics if metric_types[name.lower()] == EvaluatorType.VALUE]
        raise FairError(f"metrics: {', '.join(values)} rate single rows and cannot be mixed with ranking metrics.")
    topk = final["topk"]
    final["topk"] = [topk] if isinstance(topk, int) else list(dict.fromkeys(topk))


def _valid_metric(final: dict[str, Any], user: Mapping[str, Any]) -> None:
    by_user = "valid_metric" in user
    name = str(final["valid_metric"]).partition("@")[0]
    shown, count, k = metric_parts(str(final["valid_metric"]))
    base = shown.lower()
    if base not in metric_types:
        raise FairError(f"valid_metric={final['valid_metric']!r}: no such metric{did_you_mean(name, final['metrics'])}")
    values = metric_types[final["metrics"][0].lower()] == EvaluatorType.VALUE
    if values != (metric_types[base] == EvaluatorType.VALUE):
        if by_user:
            raise FairError(
                f"valid_metric={final['valid_metric']!r} does not go with metrics={final['metrics']}: "
                "one rates single rows, the other ranks."
            )
        first = final["metrics"][0]
        final["valid_metric"] = first if values else f"{first}@{final['topk'][0]}"
        return
    if values:
        if base not in (metric.lower() for metric in final["metrics"]):
            final["metrics"].append(name)
        return
    counts = final.get("coverage_min_count")
    if count is not None and count not in (counts if isinstance(counts, (list, tuple)) else [counts or 1]):
        raise FairError(
            f"valid_metric={final['valid_metric']!r} is not computed: coverage_min_count={counts} must hold {count}."
        )
    if base == "gauc":  # RecBole's, the only ranking metric without a list length
        final["valid_metric"] = name
        if base not in (metric.lower() for metric in final["metrics"]):
            final["metrics"].append(name)
        return
    if k == "" and by_user:
        k = str(final["topk"][0])
    if not (k.isascii() and k.isdigit()) or int(k) not in final["topk"]:
        if by_user:
            raise FairError(
                f"valid_metric={final['valid_metric']!r} needs a list length of topk={final['topk']} after the @."
            )
        k = str(final["topk"][0])
    final["valid_metric"] = f"{name}@{k}"
    if base not in (metric.lower() for metric in final["metrics"]):
        # Early stopping needs the value; it is then reported with the others.
        final["metrics"].append(shown)


def _eval_args(final: dict[str, Any], user: Mapping[str, Any]) -> None:
    given = final["eval_args"]
    way = next(iter(given.get("split", _RANKING_EVAL_ARGS["split"])))
    order = given.get("order", "RO")
    if final["MODEL_TYPE"] == ModelType.SEQUENTIAL and order != "TO":
        raise FairError(
            f"eval_args: {final['model']} reads histories in time and needs order: TO "
            "(and eval_args as a whole replaces the default: name split, order and mode)."
        )
    if way == "TS" and (order != "TO" or given.get("group_by", "user") != "user"):
        raise FairError(
            "eval_args: split TS cuts each user's history at a time: it needs order: TO and group_by: user."
        )
    mode = given.get("mode", "full")
    modes = list(dict.fromkeys(mode.values() if isinstance(mode, dict) else (mode,)))
    for one in modes:
        if one == "labeled" and metric_types[final["metrics"][0].lower()] != EvaluatorType.VALUE:
            raise FairError(
                f"eval_args: mode=labeled rates single rows, and metrics={final['metrics']} rank items: set metrics "
                "such as [AUC, LogLoss], or another mode."
            )
        if one == "full" and metric_types[final["metrics"][0].lower()] == EvaluatorType.VALUE:
            raise FairError(
                f"metrics={final['metrics']} rate single rows: set the mode of eval_args to labeled, uniN or popN."
            )
    if modes[0] == "labeled" and len(modes) > 1:
        raise FairError(f"eval_args: mode={mode!r}: RecBole cannot sample for test after labelled validation rows.")
    mask = user.get("mask_seen")
    if "full" not in modes and mask not in (None, "auto"):
        raise FairError(  # it would be named in the result and do nothing
            f"mask_seen={mask} has no effect with mode={'/'.join(modes)} of eval_args, which masks nothing; "
            "set mask_seen=auto, or mode: full."
        )


def _loss(final: dict[str, Any], user: Mapping[str, Any], model_class: type[Any]) -> None:
    """Settle negative sampling for losses over all items, and the model's input type where the loss decides it."""
    loss = final.get("loss_type")
    if loss is None or final["MODEL_TYPE"] != ModelType.SEQUENTIAL:
        return
    traits = Traits.of(trained_class(model_class))
    of_class = traits.loss_types if traits.input_type is None else None
    known = _LOSSES.get(trained_name(model_class, final["model"]), of_class)
    if known is not None and loss not in known:
        raise FairError(f"loss_type={loss!r} must be one of {', '.join(known)}{did_you_mean(str(loss), known)}")
    if loss == "BPR" or traits.input_type == InputType.PAIRWISE:
        return
    sampling = user.get("train_neg_sample_args")
    if isinstance(sampling, dict) and str(sampling.get("distribution", "uniform")).lower() != "none":
        raise FairError(
            f"train_neg_sample_args={sampling!r} does not go with loss_type={loss}, which needs no sampled items: "
            "leave the key out, or set loss_type=BPR."
        )
    final["train_neg_sample_args"] = None


def _threshold(final: Mapping[str, Any], user: Mapping[str, Any]) -> None:
    """Rankings do not look at labels: rows below the threshold would count as interactions, and as hits."""
    threshold = user.get("threshold")
    if threshold is None or metric_types[final["metrics"][0].lower()] == EvaluatorType.VALUE:
        return
    if "train_neg_sample_args" in user and final.get("train_neg_sample_args") is None:
        logger.warning(
            "threshold=%r makes labels for training; rankings do not look at them, so that rows below it count as "
            "interactions and as hits there.",
            threshold,
        )
        return
    field, bound = next(iter(threshold.items())) if isinstance(threshold, dict) and threshold else ("rating", 4)
    raise FairError(
        f"threshold={threshold!r} makes labels, which rankings do not look at: rows below it would count as "
        f'interactions all the same. Leave them out by val_interval={{{field}: "[{bound},inf)"}}, or rate rows '
        "(metrics: [AUC])."
    )


def _transform(final: Mapping[str, Any]) -> None:
    """RecBole's changes of batches are for sequences, and each reads settings of its own."""
    name = final.get("transform")
    if name is None:
        return
    if final["MODEL_TYPE"] != ModelType.SEQUENTIAL:
        raise FairError(f"transform={name} changes sequences, and {final['model']} reads none; leave the key out.")
    for key in _TRANSFORMS.get(str(name), ()):
        if final.get(key) is None:
            raise FairError(f"transform={name} needs {key}, which {final['model']} has no default for: set {key}.")


def _train_positions(final: dict[str, Any], user: Mapping[str, Any], model_class: type[Any]) -> None:
    """Windows have targets at all places and no sampled items; finished prefixes hold no histories to cut them from."""
    of_rows = final.get("loss_type") != "CE" or final.get("transform") is not None
    if final.get("train_positions") == "all" and of_rows and "train_positions" not in user:
        final["train_positions"] = "last"
    files = final.get("benchmark_filename")
    if files is None or final.get("train_positions") != "all":
        return
    if "train_positions" in user and Traits.of(trained_class(model_class)).reads_windows:
        raise FairError(
            f"train_positions=all is not possible with benchmark_filename={files}, whose rows have one target each; "
            "set train_positions=last."
        )
    final["train_positions"] = "last"


def _train_sampling(final: dict[str, Any], user: Mapping[str, Any], model_class: type[Any]) -> None:
    sampling = final.get("train_neg_sample_args")
    if isinstance(sampling, dict) and str(sampling.get("distribution", "uniform")).lower() == "none":
        final["train_neg_sample_args"] = sampling = None
    base = Traits.of(trained_class(model_class))
    name = trained_name(model_class, final["model"])
    by_rows = name in _ROW_MODELS or base.reads_users
    if sampling is None:
        pairs = base.input_type == InputType.PAIRWISE and final["MODEL_TYPE"] != ModelType.TRADITIONAL
        compares = (pairs and not by_rows and name not in _LOSSES) or final.get("loss_type") == "BPR"
        if compares and "train_neg_sample_args" in user:
            raise FairError(
                f"train_neg_sample_args: {final['model']} compares items with sampled ones, so there must be some; "
                "leave the key out."
            )
        return
    if not isinstance(sampling, dict):
        return
    if by_rows and sampling.get("dynamic"):
        raise FairError(f"train_neg_sample_args: dynamic has no meaning for {final['model']}, which samples no items.")
