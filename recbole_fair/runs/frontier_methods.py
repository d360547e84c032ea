"""What a frontier tries on a checkpoint: methods, their settings, and the struct of lists under each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from recbole.evaluator.collector import DataStruct
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_fair.analysis.grid import Setting, settings_of
from recbole_fair.config.catalogue import method_keys
from recbole_fair.config.keys import Key
from recbole_fair.config.layers import properties_dir, read_yaml
from recbole_fair.config.registry import get_reranker
from recbole_fair.config.rerankers import reranker_defaults
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import load_checkpoint
from recbole_fair.model.concept_steering import ConceptSteering
from recbole_fair.model.contract import SplitScoring, remembered_users
from recbole_fair.rerank.adjuster import Offsets, ScoreAdjuster, on_scale
from recbole_fair.rerank.base import Candidates, Facts, ReRanker, key_of
from recbole_fair.rerank.settings import CANDIDATES
from recbole_fair.runs.adjusting import adjusted_lists, collect_adjusted, collect_with_norm, pool_of
from recbole_fair.runs.reranking import check_reranker, facts_of_split, listed_struct, reranked_struct
from recbole_fair.runs.sweeper import Overlay
from recbole_fair.trainer.trainer import FairTrainerMixin

logger = logging.getLogger(__name__)

#: Most of a user's best items that are kept for all methods together.
POOL = 500
_STEPS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # towards a concept, or away


def default_grids(gaps: Mapping[str, float]) -> tuple[dict[str, list[Setting]], dict[str, list[Setting]]]:
    """What is tried when nobody says otherwise.

    Args:
        gaps: what :func:`score_gaps` gives: distances in which some strengths are counted.

    Returns:
        Settings of each re-ranker (whole keys, as ``reranker_alpha``), and strengths by method (``PopSteer``).
    """
    grids = read_yaml(properties_dir() / "frontier.yaml")
    of_lists = {
        name: _settings(given, gaps, get_reranker(name).limits_by_key(), key_of)
        for name, given in grids["rerankers"].items()
    }
    of_models = {name: _settings(given, gaps, method_keys(), str) for name, given in grids["methods"].items()}
    return of_lists, of_models


def _settings(
    given: Any, gaps: Mapping[str, float], keys: Mapping[str, Key | None], named: Callable[[str], str]
) -> list[Setting]:
    """The settings of one grid, or of several one after the other."""
    return [
        setting
        for grid in (given if isinstance(given, list) else [given])
        for setting in settings_of(
            {named(name): _values(values, gaps, keys[named(name)]) for name, values in grid.items()}
        )
    ]


def _values(
    values: Sequence[Any] | Mapping[str, Sequence[float]], gaps: Mapping[str, float], key: Key | None
) -> list[Any]:
    if isinstance(values, Mapping):
        return [float(f"{share * gaps[name]:.3g}") for name, shares in values.items() for share in shares]
    return [value if key is None else key.as_kind(value) for value in values]


def score_gaps(struct: DataStruct) -> dict[str, float]:
    """Distances in which strengths are counted: ``of_gap`` and ``of_probability_gap``.

    Median, over users, of the distance between the first and the last score of a list, and between the first and the
    last probability (softmax); 1 where there is none.
    """
    scores: torch.Tensor = struct["rec.values"]
    probabilities = on_scale("softmax", scores.double(), struct["rec.log_total"])
    return {"of_gap": _gap(scores), "of_probability_gap": _gap(probabilities)}


def _gap(values: torch.Tensor) -> float:
    gaps = (values[:, 0] - values[:, -1]).double()
    gaps = gaps[gaps.isfinite() & (gaps > 0)]
    return float(gaps.median()) if len(gaps) else 1.0


class ListMethods:
    """Re-rankers and score adjusters over one model, from one pass over each split.

    Used as ``with ListMethods(trainer, splits) as methods:``.

    Args:
        trainer: a trainer with its splits bound.
        splits: evaluation loaders by name, ``valid`` and ``test``.
    """

    def __init__(self, trainer: FairTrainerMixin, splits: Mapping[str, Any]) -> None:
        self.trainer, self.splits = trainer, dict(splits)
        self.k = max(trainer.config["topk"])
        self.structs: dict[str, DataStruct] = {}
        self.facts: dict[str, Facts] = {}
        self._offsets: tuple[ReRanker, Offsets] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> ListMethods:
        """Collect the lists and the best items of each split."""
        trainer = self.trainer
        trainer.model.eval()
        self._stack.enter_context(trainer.contract.encoded_once())
        if isinstance(trainer.model, SplitScoring):
            self._stack.enter_context(remembered_users(trainer.model))
        self._stack.enter_context(trainer.remembered_batches())
        self._stack.enter_context(trainer.contract.use_variant(trainer.final_variant))
        size = max(POOL, trainer.config[CANDIDATES] or 0, self.k)
        for split, loader in self.splits.items():
            self.structs[split] = collect_with_norm(trainer, loader, "softmax", min(size, loader._dataset.item_num))
            self.facts[split] = facts_of_split(trainer, loader, self.structs[split])
        return self

    def __exit__(self, *error: object) -> None:
        """Forget what was collected."""
        self.structs.clear()
        self._stack.close()

    def made(self, name: str, setting: Setting) -> ReRanker:
        """A re-ranker under its own defaults with some keys changed.

        Raises:
            FairError: for a value that is not allowed, or data that it cannot work on.
        """
        settings = {**reranker_defaults({"reranker": name}), **setting}
        made: ReRanker = get_reranker(name).from_config(Overlay(self.trainer.config, settings))
        check_reranker(self.trainer, made)
        return made

    def struct(self, reranker: ReRanker, split: str) -> DataStruct:
        """What the metrics need of a split under a re-ranker."""
        if isinstance(reranker, ScoreAdjuster):
            return self._adjusted(reranker, split)
        struct = self.structs[split]
        number = self.trainer.config[CANDIDATES]
        return reranked_struct(_first(struct, number) if number else struct, reranker, self.facts[split])

    def offsets(self, adjuster: ScoreAdjuster, split: str) -> Offsets:
        """What an adjuster learns for a split, on validation unless it says otherwise."""
        if self._offsets is None or self._offsets[0] != adjuster or adjuster.learn_on == "own":
            on = "valid" if adjuster.learn_on == "valid" else split
            learning = self._pool(adjuster, on) if adjuster.learns else None
            self._offsets = adjuster, adjuster.learn(learning, self.facts[on], self.k)
        return self._offsets[1]

    def _pool(self, adjuster: ScoreAdjuster, split: str) -> Candidates:
        if adjuster.scale == "standard":
            raise FairError("A frontier keeps no spread of scores: use reranker_score raw or softmax.")
        return pool_of(_first(self.structs[split], max(adjuster.pool, self.k)))

    def _adjusted(self, adjuster: ScoreAdjuster, split: str) -> DataStruct:
        offsets, pool, facts = self.offsets(adjuster, split), self._pool(adjuster, split), self.facts[split]
        struct, loader = self.structs[split], self.splits[split]
        if "rec.meanrank" in struct:
            return collect_adjusted(self.trainer, loader, adjuster, facts, offsets)
        return listed_struct(struct, adjusted_lists(self.trainer, loader, pool, adjuster, facts, offsets))


@dataclass(frozen=True)
class Try:
    """One method under one setting.

    Attributes:
        method: name of a re-ranker, or of a fitted model.
        setting: its keys and values.
    """

    method: str
    setting: Setting


@dataclass
class Bench:
    """What measures the methods: re-rankers over the base, and fitted models of their own.

    Attributes:
        lists: the re-rankers.
        fitted: trainer, splits and checkpoint of each fitted model by name.
    """

    lists: ListMethods
    fitted: dict[str, tuple[FairTrainerMixin, Mapping[str, Any], Path]] = field(default_factory=dict)

    def check(self, one: Try) -> None:
        """Raise a FairError for a setting that its re-ranker does not take, or data that it cannot work on."""
        if one.method not in self.fitted:
            self.lists.made(one.method, one.setting)

    def struct(self, one: Try, split: str) -> DataStruct:
        """What the metrics need of a split under a method."""
        if one.method not in self.fitted:
            return self.lists.struct(self.lists.made(one.method, one.setting), split)
        trainer, splits, _ = self.fitted[one.method]
        trainer.contract.set_strengths(**one.setting)
        with trainer.contract.use_variant(trainer.final_variant):
            return trainer.collect(splits[split])

    def measure(self, one: Try) -> dict[str, dict[str, float]]:
        """Metrics by split under a method."""
        evaluator = self.lists.trainer.evaluator
        return {split: dict(evaluator.evaluate(self.struct(one, split))) for split in self.lists.splits}


def _first(struct: DataStruct, number: int) -> DataStruct:
    """The same with so many candidates a user only."""
    items, scores = struct["rec.candidates"]
    if items.shape[1] <= number:
        return struct
    fewer = DataStruct()
    for key, value in struct._data_dict.items():
        fewer[key] = value
    fewer["rec.candidates"] = items[:, :number], scores[:, :number]
    return fewer


def fitted_beside(model_file: str | Path, content: Mapping[str, Any]) -> dict[str, Path]:
    """Checkpoints in the same folder that were fitted on this very model: the newest of each name.

    Args:
        model_file: the base's checkpoint.
        content: what is in it.
    """
    own, found = content["state_dict"], {}
    for path in sorted(Path(model_file).parent.glob("*.pth"), key=lambda file: file.stat().st_mtime):
        try:
            other = load_checkpoint(path)
        except FairError as error:
            logger.debug("Not a checkpoint to use: %s", error)
            continue
        state, name = other.get("state_dict") or {}, str(other.get("model"))
        if name != content["model"] and stands_on(state, own) and other["fingerprint"] == content["fingerprint"]:
            found[name] = path
    return found


def stands_on(state: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    """Whether a post-hoc model's weights hold those of a base, under ``base.``."""
    return all(
        isinstance(state.get(f"base.{name}"), torch.Tensor)
        and state[f"base.{name}"].shape == value.shape
        and torch.equal(state[f"base.{name}"], value)
        for name, value in base.items()
    )


def steps_of(model: AbstractRecommender) -> list[Setting]:
    """Steps of a model that was fitted for another concept than popularity, either way; none for other models."""
    if not isinstance(model, ConceptSteering) or model.steers_popularity:
        return []
    return [{"steer": sign * size} for sign in (-1, 1) for size in _STEPS]


def grid_of_model(name: str, strengths: Sequence[str], grids: Mapping[str, list[Setting]]) -> list[Setting]:
    """Settings of a fitted model: those of the method whose name its own begins with, as far as it has the keys."""
    for method, settings in grids.items():
        if name.startswith(method):
            kept = [{key: value for key, value in one.items() if key in strengths} for one in settings]
            return list({repr(one): one for one in kept if one}.values())
    return []
