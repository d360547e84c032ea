"""Names to classes: recbole_fair's models and trainers first, then RecBole's.

Classes are named as ``"module:Class"`` and imported when asked for, so that ``--help`` and error messages stay quick.
Wherever a name goes, one's own class may be named so as well: see :mod:`recbole_fair.config.imports`.
"""

from __future__ import annotations

import ast
import functools
import importlib.machinery
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_fair.config.imports import load, load_class_named, load_named
from recbole_fair.config.keys import did_you_mean
from recbole_fair.config.layers import properties_dir
from recbole_fair.config.traits import Traits
from recbole_fair.errors import FairError

if TYPE_CHECKING:
    from recbole.config import Config

#: Models of recbole_fair. ``SASRec`` and ``Pop`` replace RecBole's models of these names.
MODELS: dict[str, str] = {
    "Pop": "recbole_fair.model.bases.pop:Pop",
    "SASRec": "recbole_fair.model.bases.sasrec:SASRec",
    "ILEBPR": "recbole_fair.model.ile.ile:ILEBPR",
    "ILELightGCN": "recbole_fair.model.ile.ile:ILELightGCN",
    "IPSBPR": "recbole_fair.model.ile.ile:IPSBPR",
    "IPSLightGCN": "recbole_fair.model.ile.ile:IPSLightGCN",
    "TALL": "recbole_fair.model.tall.tall:TALL",
    "MultVAE": "recbole_fair.model.tall.tall:MultVAE",
    "WL": "recbole_fair.model.tall.tall:WL",
    "LOCA": "recbole_fair.model.tall.loca:LOCA",
    "LFT": "recbole_fair.model.tall.lft:LFT",
    "EnLFT": "recbole_fair.model.tall.lft:EnLFT",
    "DecFM": "recbole_fair.model.decrs.decrs:DecFM",
    "DecNFM": "recbole_fair.model.decrs.decrs:DecNFM",
}

#: Methods that stand on a base model of the user's choice: ``--model=PopSteer --base=GRU4Rec``, or ``PopSteerGRU4Rec``.
METHODS: dict[str, str] = {
    "PopSteer": "recbole_fair.model.popsteer.popsteer:PopSteer",
    "SPREE": "recbole_fair.model.spree.spree:SPREE",
    "DDC": "recbole_fair.model.ddc.ddc:DDC",
}
#: Short forms that are suggested where a name is not known; any other base does as well.
SHORT_FORMS = (
    "PopSteerSASRec",
    "PopSteerBPR",
    "PopSteerLightGCN",
    "SPREESASRec",
    "SPREEBERT4Rec",
    "DDCBPR",
    "DDCLightGCN",
)

#: Trainers of recbole_fair by the name that a model's ``trainer_name`` attribute gives.
TRAINERS: dict[str, str] = {
    "FairTrainer": "recbole_fair.trainer.trainer:FairTrainer",
    "PostHocTrainer": "recbole_fair.trainer.posthoc_trainer:PostHocTrainer",
    "ExpertTrainer": "recbole_fair.trainer.tall_trainer:ExpertTrainer",
    "TALLTrainer": "recbole_fair.trainer.tall_trainer:TALLTrainer",
    "DecRSTrainer": "recbole_fair.trainer.decrs_trainer:DecRSTrainer",
}

# Classes that one's own derive from.
_MODEL = "recbole.model.abstract_recommender:AbstractRecommender"
_POST_HOC = "recbole_fair.model.posthoc:PostHocModel"
_RERANKER = "recbole_fair.rerank.base:ReRanker"
_TRAINER = "recbole.trainer:Trainer"
_MIXIN = "recbole_fair.trainer.trainer:FairTrainerMixin"

# RecBole names two models in its file names only, or without a properties file of their own.
_RECBOLE_WITHOUT_YAML = ("Random", "LightGBM", "XGBoost")
_RECBOLE_YAML_ONLY = ("lightgbm", "xgboost")


@functools.cache
def rerankers() -> dict[str, str]:
    """Re-rankers by name, sorted: those with a file of default values, ``properties/rerank/<Name>.yaml``.

    A class is looked for by its name in the modules of ``rerank/``, none of which is imported.
    """
    names = {file.stem for file in (properties_dir() / "rerank").glob("*.yaml")}
    found: dict[str, str] = {}
    for file in sorted((Path(__file__).resolve().parent.parent / "rerank").glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name in names:
                found[node.name] = f"recbole_fair.rerank.{file.stem}:{node.name}"
    return dict(sorted(found.items()))


@functools.cache
def recbole_folder() -> Path | None:
    """Where RecBole is installed, found without importing it; None where it is not."""
    # Not importlib.util.find_spec: that also asks the finder that mends RecBole, which imports SciPy for it.
    spec = importlib.machinery.PathFinder.find_spec("recbole")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


@functools.cache
def recbole_models() -> tuple[str, ...]:
    """Names of RecBole's own models, sorted; found from its properties files without importing any model."""
    root = recbole_folder()
    if root is None:
        return ()
    folder = root / "properties" / "model"
    names = {path.stem for path in folder.glob("*.yaml")} - set(_RECBOLE_YAML_ONLY)
    return tuple(sorted(names | set(_RECBOLE_WITHOUT_YAML)))


def known_models() -> tuple[str, ...]:
    """All model names that ``--model`` understands, sorted."""
    return tuple(sorted({*MODELS, *METHODS, *SHORT_FORMS, *recbole_models()}))


def method_and_base(name: str) -> tuple[str, str] | None:
    """The method and the base that a model's name is made of; the base is empty in ``PopSteer``, None for neither."""
    if name in MODELS or name in recbole_models():
        return None
    for method in METHODS:
        base = name.removeprefix(method)
        if base != name and (not base or base in MODELS or base in recbole_models()):
            return method, base
    return None


def get_model(name: str, base: str | type[Any] | None = None) -> type[Any]:
    """The model class of that name: recbole_fair's if there is one, else RecBole's; or one's own by its import path.

    Args:
        name: model name, matched exactly (``BPR``, not ``bpr``), or ``"module:Class"``.
        base: the base model of a method that stands on one: such a name, or a class.

    Returns:
        The class.

    Raises:
        FairError: when no model has that name (the nearest name is suggested), when a method has no base or stands on
            none, or when a library that the model needs is not installed.
    """
    parts = method_and_base(name)
    if base is not None and isinstance(base, str):
        base = get_model(base)
    if parts is None and base is not None and name.startswith(tuple(METHODS)):
        # The name of a checkpoint whose base is a class of one's own.
        parts = next(((one, base.__name__) for one in METHODS if name == one + base.__name__), None)
    if parts is not None:
        method, short = parts
        if base is None:
            if not short:
                raise FairError(
                    f"model={name} stands on a base model: add --base=NAME, such as SASRec, GRU4Rec or BPR."
                )
            base = get_model(short)
        elif short and base.__name__ != short:
            raise FairError(f"base={base.__name__} does not go with model={name}: say --model={method}.")
        made: type[Any] = load(METHODS[method]).on(base)
        return made
    if base is not None and ":" in name:  # a method of one's own
        own = load_class_named("model", name, load(_POST_HOC), "recbole_fair.model.posthoc.PostHocModel")
        on_base: type[Any] = own.on(base)
        return on_base
    if base is not None:
        raise FairError(
            f"base={base.__name__}: {name} stands on no base model; those that do are {', '.join(METHODS)}."
        )
    if name in MODELS:
        ours: type[Any] = load(MODELS[name])
        return ours
    if ":" in name:
        return load_class_named("model", name, load(_MODEL), "RecBole's AbstractRecommender")
    if name not in recbole_models():
        begins_as = next((one for one in METHODS if name.startswith(one)), None)
        if begins_as is not None:
            hint = did_you_mean(name, [f"{begins_as}{one}" for one in known_models()])
            raise FairError(
                f"model={name!r} is not a known model{hint} A base of your own is named with --base=module:Class."
            )
        raise FairError(f"model={name!r} is not a known model{did_you_mean(name, known_models())}")
    from recbole.utils import get_model as recbole_get_model

    try:
        model: type[Any] = recbole_get_model(name)
    except ModuleNotFoundError as error:
        raise FairError(f"model={name!r} needs the package '{error.name}', which is not installed.") from error
    return model


def get_reranker(name: str) -> type[Any]:
    """The re-ranker class of that name, or the one that ``"module:Class"`` names.

    Args:
        name: a name in :func:`rerankers`, matched exactly, or an import path of one's own class.

    Returns:
        The class.

    Raises:
        FairError: when there is no such class; the nearest name is suggested.
    """
    if ":" in name:
        return load_class_named("reranker", name, load(_RERANKER), "recbole_fair.rerank.ReRanker")
    if name not in rerankers():
        raise FairError(f"reranker={name!r} is not a known re-ranker{did_you_mean(name, rerankers())}")
    found: type[Any] = load(rerankers()[name])
    return found


def lineage(model_class: type[Any], name: str | None = None) -> tuple[str, ...]:
    """Names whose yaml files make up a model's defaults, from the most basic to the model itself.

    A class says by ``base_model_name`` (text or None) on which model's settings its own stand. Without it, the
    class's ancestors are looked through for the first with a known model name, so that ``class MyBPR(BPR)`` starts
    from BPR's settings.

    Args:
        model_class: the model's class.
        name: its name; the class's own name when left out.

    Returns:
        For PopSteerSASRec on SASRec: ``("SASRec", "PopSteerSASRec")``.
    """
    name = name or model_class.__name__
    if model_class.__module__.startswith("recbole."):
        return (name,)  # each model of RecBole has a complete file of its own
    names = [name]
    base = model_class.__dict__.get("base_model_name")
    if base is None:
        known = set(known_models())
        ancestors = [c for c in model_class.__mro__[1:] if c.__name__ in known and c.__name__ != name]
        if ancestors:
            below = lineage(ancestors[0])
            return (*below, name)
        inherited = Traits.of(model_class).base_model_name
        base = inherited if inherited != name else None
    if base is not None:
        names = [*lineage(_stands_on(model_class, base), base), name]
    return tuple(names)


def _stands_on(model_class: type[Any], base: str) -> type[Any]:
    """The class of the base model, which may be a user's own, whose name says nothing here."""
    return Traits.of(model_class).base_class or get_model(base)


def adopted_metrics(key: str, value: Any) -> Any:
    """Make the metrics that a setting names by their import paths known, and give back the setting with plain names.

    Args:
        key: the setting, for messages.
        value: a name, names, or groups with their names.

    Returns:
        The same with ``MyMetric`` for ``my_metrics:MyMetric`` (and ``MyMetric@10`` for ``my_metrics:MyMetric@10``).

    Raises:
        FairError: for one that cannot be imported, is no metric, or has the name of another one.
    """
    if isinstance(value, str) and ":" in value:
        path, at, k = value.partition("@")
        name: str = load("recbole_fair.evaluator.metrics:adopt")(key, path, load_named(key, path))
        return f"{name}{at}{k}"
    if isinstance(value, Mapping):
        return {name: adopted_metrics(key, inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [adopted_metrics(key, inner) for inner in value]
    return value


def layers_of(model_class: type[Any], name: str | None = None) -> tuple[str, ...]:
    """The yaml files that make up a model's defaults, from the most basic to the model's own.

    Every class of the package that a model derives from may have a file of its name in ``method/``: that of a method
    holds for all its models, and for those that others derive from it.

    Args:
        model_class: the model's class.
        name: its name; the class's own name when left out.

    Returns:
        Names below ``properties/``; for PopSteerBPR ``("model/BPR.yaml", "method/PopSteer.yaml",
        "method/PopSteerGeneral.yaml", "model/PopSteerBPR.yaml")``. Not all of them need exist.
    """
    name = name or model_class.__name__
    names: list[str] = []
    base = Traits.of(model_class).base_class
    for one in lineage(model_class, name):
        cls = model_class if one == name else base if base is not None and base.__name__ == one else get_model(one)
        ours = (c for c in reversed(cls.__mro__) if c.__module__.startswith("recbole_fair."))
        names += [f"method/{c.__name__}.yaml" for c in ours]
        names.append(f"model/{one}.yaml")
    return tuple(dict.fromkeys(names))


def get_trainer(config: Config | Mapping[str, Any], model_class: type[Any]) -> type[Any]:
    """The trainer class for a model.

    Order: the setting ``trainer``; the model class's ``trainer_name`` (a name in :data:`TRAINERS` or
    ``"module:Class"``); RecBole's choice for the model and its ancestors. RecBole's special trainers (KGAT, S3Rec,
    RecVAE, Pop, ...) are combined with our evaluation; its trainers of XGBoost and LightGBM are taken as they are.

    Args:
        config: gives ``MODEL_TYPE`` and ``model``.
        model_class: the model's class.

    Returns:
        A class to be called with ``(config, model)``.
    """
    chosen = config["trainer"] if "trainer" in config else None  # noqa: SIM401
    if chosen is not None:
        return _trainer_named(chosen)
    name = Traits.of(model_class).trainer_name
    if name is not None:
        declared_trainer: type[Any] = load(TRAINERS.get(name, name))
        return declared_trainer
    return fair_trainer_class(_recbole_trainer(config, model_class))


def _trainer_named(name: str) -> type[Any]:
    if name in TRAINERS:
        ours: type[Any] = load(TRAINERS[name])
        return ours
    if ":" not in name:
        raise FairError(f"trainer={name!r} is not a known trainer{did_you_mean(name, TRAINERS)}")
    return fair_trainer_class(load_class_named("trainer", name, load(_TRAINER), "RecBole's Trainer"))


def _recbole_trainer(config: Config | Mapping[str, Any], model_class: type[Any]) -> type[Any]:
    import recbole.trainer as recbole_trainer
    from recbole.utils import get_trainer as recbole_get_trainer

    for name in reversed(lineage(model_class, str(config["model"]))):
        if hasattr(recbole_trainer, f"{name}Trainer"):
            found: type[Any] = getattr(recbole_trainer, f"{name}Trainer")
            return found
    chosen: type[Any] = recbole_get_trainer(config["MODEL_TYPE"], str(config["model"]))
    return chosen


_COMPOSED: dict[type[Any], type[Any]] = {}


def fair_trainer_class(recbole_class: type[Any]) -> type[Any]:
    """RecBole's trainer class with our evaluation and checkpoints.

    Args:
        recbole_class: a trainer class of RecBole, or a subclass of one.

    Returns:
        ``FairTrainer`` for RecBole's plain trainer, the class itself when it already has our parts or trains decision
        trees (which have neither gradient steps nor rankings), else a class made of ``FairTrainerMixin`` and it. The
        same class for the same argument.
    """
    from recbole.trainer.trainer import DecisionTreeTrainer, Trainer

    plain, mixin = load(TRAINERS["FairTrainer"]), load(_MIXIN)
    if recbole_class is Trainer:
        return plain
    if issubclass(recbole_class, (DecisionTreeTrainer, mixin)):
        return recbole_class
    if recbole_class in _COMPOSED:
        return _COMPOSED[recbole_class]
    doc = f"RecBole's {recbole_class.__name__} with recbole_fair's evaluation and checkpoints."
    composed = type(
        f"Fair{recbole_class.__name__}",
        (mixin, recbole_class),
        {"__doc__": doc, "__module__": __name__},
    )
    return _COMPOSED.setdefault(recbole_class, composed)
