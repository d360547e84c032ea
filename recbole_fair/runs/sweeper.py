"""Trade-off curves from one cached pass: users are encoded once, each setting costs an edit, a product and a top-k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import pandas as pd
from recbole.evaluator.collector import DataStruct

from recbole_fair.analysis.grid import Setting
from recbole_fair.config.catalogue import strengths_of
from recbole_fair.config.contract import Settings
from recbole_fair.config.keys import did_you_mean
from recbole_fair.config.registry import get_reranker
from recbole_fair.errors import FairError
from recbole_fair.io.processes import current
from recbole_fair.model.contract import FairModel, SplitScoring, remembered_users
from recbole_fair.rerank.adjuster import Offsets, ScoreAdjuster
from recbole_fair.rerank.base import ReRanker
from recbole_fair.rerank.pufr import PUFR
from recbole_fair.rerank.settings import CANDIDATES
from recbole_fair.runs.adjusting import adjusted_lists, collect_adjusted, collect_pool, pool_of
from recbole_fair.runs.reranking import check_reranker, facts_of_split, listed_struct, reranked_struct
from recbole_fair.trainer.trainer import FairTrainerMixin


def check_keys(model: str, model_class: type[Any], reranker: str | None, keys: Sequence[str]) -> None:
    """See, before anything is loaded, that a grid's keys apply at scoring time.

    Args:
        model: the model's name.
        model_class: its class.
        reranker: the re-ranker's name, if there is one.
        keys: the grid's keys.

    Raises:
        FairError: for a model without strengths and without a re-ranker, or a key that is none of theirs.
    """
    strengths = strengths_of(model_class)
    of_lists = tuple(get_reranker(reranker).keys().values()) if reranker else ()
    for key in keys:
        if key in strengths or key in of_lists:
            continue
        if key.startswith("reranker_") and not reranker:
            raise FairError(f"grid key {key}: choose a re-ranker by --reranker=NAME.")
        if not strengths and not of_lists:
            raise FairError(
                f"{model} has no strengths to sweep; use the checkpoint of a steered model, or add --reranker=NAME and "
                "sweep its keys."
            )
        allowed = ", ".join((*strengths, *of_lists))
        raise FairError(
            f"{key} is not a scoring-time setting of {' and '.join(filter(None, (model, reranker)))} ({allowed})"
            f"{did_you_mean(key, (*strengths, *of_lists))}"
        )


class Sweeper:
    """Measures one model, with or without a re-ranker, under many settings.

    Used as ``with Sweeper(trainer, splits) as sweeper:``; the model's own strengths come back at the end.

    Args:
        trainer: a trainer with its splits bound and a model that can be scored.
        splits: evaluation loaders by name, such as ``valid`` and ``test``.
        reranker: name of the re-ranker that orders the lists; its other settings are those of the configuration.
    """

    def __init__(self, trainer: FairTrainerMixin, splits: Mapping[str, Any], reranker: str | None = None) -> None:
        self.trainer, self.splits, self.reranker = trainer, dict(splits), reranker
        self.model: FairModel = trainer.contract
        self.strength_keys = self.model.strength_keys
        self._stack = ExitStack()
        self._collected: dict[str, tuple[Setting, Any, Any]] = {}
        self._offsets: tuple[str, Offsets] | None = None

    def __enter__(self) -> Sweeper:
        """Begin to remember what the settings share."""
        self.trainer.model.eval()
        self._before = self.model.strengths
        self._stack.enter_context(self.model.encoded_once())
        if not self.strength_keys and isinstance(self.trainer.model, SplitScoring):
            self._stack.enter_context(remembered_users(self.trainer.model))
        self._stack.enter_context(self.trainer.remembered_batches())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Forget it, and give the model its strengths back."""
        self._collected.clear()
        self.model.set_strengths(**self._before)
        self._stack.close()

    def check(self, settings: Sequence[Setting]) -> None:
        """See that every setting can be applied, before the first is measured.

        Raises:
            FairError: naming the value that cannot.
        """
        check_keys(
            self.trainer.config["model"], type(self.trainer.model), self.reranker, list(settings[0]) if settings else ()
        )
        seen: set[str] = set()
        for setting in settings:
            ours, theirs = self._parts(setting)
            for key, value in ours.items():
                if repr((key, value)) not in seen:
                    self.model.check_strength(key, value)
                seen.add(repr((key, value)))
            if self.reranker and repr(theirs) not in seen:
                seen.add(repr(theirs))
                check_reranker(self.trainer, self._made(theirs))

    def base(self) -> dict[str, dict[str, float]]:
        """Metrics by split of what settings are compared with.

        Of a model with variants it is the plain one, of others the model as it was saved; no re-ranker in either.
        """
        found = {}
        with self.model.use_variant(self.model.base_variant):
            for split, loader in self.splits.items():
                found[split] = dict(self.trainer.evaluator.evaluate(self.trainer.collect(loader)))
        return found

    def measure(self, setting: Setting) -> dict[str, dict[str, float]]:
        """Metrics by split under one setting; with a re-ranker the candidates of the last model setting are reused."""
        ours, theirs = self._parts(setting)
        self.model.set_strengths(**ours)
        found: dict[str, dict[str, float]] = {}
        for split, loader in self.splits.items():
            if self.reranker is None:
                with self.model.use_variant(self.model.final_variant):
                    found[split] = dict(self.trainer.evaluator.evaluate(self.trainer.collect(loader)))
                continue
            made = self._made(theirs)
            if isinstance(made, ScoreAdjuster):
                changed = self._adjusted(split, ours, made)
            else:
                struct, facts = self._candidates(split, ours, made)
                changed = reranked_struct(struct, made, facts)
            found[split] = dict(self.trainer.evaluator.evaluate(changed))
        return found

    def pieces(self, settings: Sequence[Setting], missing: Sequence[int]) -> list[list[int]]:
        """Settings to measure, as pieces of work for whoever is free.

        With a re-ranker those of one setting of the model come together: they share its candidates.

        Args:
            settings: all settings.
            missing: indices of those to measure.
        """
        if not self.reranker:
            return [[index] for index in missing]
        together: dict[str, list[int]] = {}
        for index in missing:
            together.setdefault(repr(self._parts(settings[index])[0]), []).append(index)
        if len(together) >= 2 * current().world:
            return list(together.values())
        return [[index] for piece in together.values() for index in piece]

    # -- one setting ---------------------------------------------------------------------------------------------

    def _parts(self, setting: Setting) -> tuple[Setting, Setting]:
        ours = {key: value for key, value in setting.items() if key in self.strength_keys}
        return ours, {key: value for key, value in setting.items() if key not in ours}

    def _made(self, changes: Setting) -> ReRanker:
        made: ReRanker = get_reranker(str(self.reranker)).from_config(Overlay(self.trainer.config, changes))
        return made

    def _adjusted(self, split: str, strengths: Setting, adjuster: ScoreAdjuster) -> DataStruct:
        """Lists of adjusted scores: out of each user's best items, or of all items where these are not enough."""
        struct, facts = self._candidates(split, strengths, adjuster)
        k = struct["rec.items"].shape[1]
        learnt_on = "valid" if adjuster.learn_on == "valid" and "valid" in self.splits else split
        key = repr((strengths, adjuster, learnt_on))
        if self._offsets is None or self._offsets[0] != key:  # both splits of a setting share what is learnt
            on = self._candidates(learnt_on, strengths, adjuster)
            self._offsets = key, adjuster.learn(pool_of(on[0]) if adjuster.learns else None, on[1], k)
        offsets, pool = self._offsets[1], pool_of(struct)
        with self.model.use_variant(self.model.final_variant):
            if "rec.meanrank" in struct:
                return collect_adjusted(self.trainer, self.splits[split], adjuster, facts, offsets)
            return listed_struct(
                struct, adjusted_lists(self.trainer, self.splits[split], pool, adjuster, facts, offsets)
            )

    def _candidates(self, split: str, strengths: Setting, reranker: ReRanker) -> tuple[Any, Any]:
        known = self._collected.get(split)
        made_for = {
            **strengths,
            "reranker_models": reranker.files if isinstance(reranker, PUFR) else (),
        }  # facts come from these models
        if isinstance(reranker, ScoreAdjuster):
            made_for |= {"reranker_pool": reranker.pool, "scale": reranker.scale}
        if known is None or known[0] != made_for:
            loader = self.splits[split]
            with self.model.use_variant(self.model.final_variant):
                if isinstance(reranker, ScoreAdjuster):
                    struct = collect_pool(self.trainer, loader, reranker, max(self.trainer.config["topk"]))
                else:
                    wanted = self.trainer.config[CANDIDATES] or loader._dataset.item_num
                    struct = self.trainer.collect(loader, candidates=wanted)
                facts = facts_of_split(self.trainer, loader, struct, reranker)
            self._collected[split] = known = (made_for, struct, facts)
        return known[1], known[2]


class Overlay:
    """A configuration with some keys changed."""

    def __init__(self, config: Settings, changes: Mapping[str, Any]) -> None:
        self._config, self._changes = config, changes

    def __getitem__(self, key: str) -> Any:
        return self._changes[key] if key in self._changes else self._config[key]


def sweep_table(
    settings: Sequence[Setting], results: Sequence[Mapping[str, Mapping[str, float]]], front: Sequence[int]
) -> pd.DataFrame:
    """One row a setting: its strengths, ``SPLIT NAME`` of every metric, and whether it is on the Pareto front.

    Args:
        settings: the settings.
        results: metrics by split of each.
        front: indices of those on the front.
    """
    rows = []
    for index, (setting, splits) in enumerate(zip(settings, results, strict=True)):
        row = dict(setting)
        for split, values in splits.items():
            row |= {f"{split} {name}": value for name, value in values.items()}
        rows.append({**row, "front": index in front})
    return pd.DataFrame(rows)
