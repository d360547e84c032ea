"""Models x re-rankers x seeds under one protocol: train what is missing, evaluate, test, write tables."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recbole.evaluator.collector import DataStruct

from recbole_fair.analysis.systems import (
    ALL_PAIRS,
    Cell,
    cells_table,
    comparisons_table,
    system_file,
    system_name,
    systems_table,
)
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.keys import did_you_mean
from recbole_fair.config.mask import Mask
from recbole_fair.config.registry import get_model
from recbole_fair.config.traits import Traits
from recbole_fair.data.contract import DataSet
from recbole_fair.errors import FairError
from recbole_fair.evaluator.csv_files import write_table
from recbole_fair.evaluator.options import MetricOptions
from recbole_fair.io.bars import bars_shown
from recbole_fair.io.checkpoint import load_checkpoint
from recbole_fair.io.locks import locked
from recbole_fair.io.processes import apart, current
from recbole_fair.report.comparison import latex, markdown, text
from recbole_fair.report.documents import ComparisonDocument, rows_of, write_document
from recbole_fair.rerank.settings import CANDIDATES, make_reranker
from recbole_fair.runs.alone import alone
from recbole_fair.runs.audit import measured
from recbole_fair.runs.audited import digest_of_lists, reference_of_config
from recbole_fair.runs.cells import cell_of, load_cell, save_cell
from recbole_fair.runs.journal import digest_of
from recbole_fair.runs.loading import load_trainer, new_trainer
from recbole_fair.runs.logs import begin_together, show_table
from recbole_fair.runs.outputs import claim, numbered, versions, write_each, write_lines
from recbole_fair.runs.plan import Plan, cell_key, make_plan
from recbole_fair.runs.reranking import changed_struct, check_reranker, list_notes
from recbole_fair.runs.shares import shared_out
from recbole_fair.runs.takeup import taken_up
from recbole_fair.runs.tuned import Tuning, tune_systems
from recbole_fair.trainer.trainer import FairTrainerMixin

logger = logging.getLogger(__name__)

SPREADS = ("seeds", "none")
_BOOTSTRAP = 1000


@alone
def compare(
    models: Sequence[str],
    rerankers: Sequence[str] = (),
    dataset: str | None = None,
    seeds: int | Sequence[int] = 3,
    reference: str | None = None,
    spread: str = "seeds",
    permutations: int = 10_000,
    output: str | Path | None = None,
    config_file_list: str | Path | Sequence[str | Path] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    lists: Mapping[str, str | Path] | None = None,
    tuning: Tuning | None = None,
) -> ComparisonDocument:
    """Train and evaluate models, alone and with re-rankers, under several seeds, and test their differences.

    Every model is trained once a seed. Post-hoc models of the same base share it, re-rankers order the lists of the
    trained model. A cell that is finished is kept on disk and not measured again by the next call with the same
    settings; a training that was cut short goes on from its last epoch.

    Args:
        models: names of models; the first is the reference.
        rerankers: names of re-rankers, each applied to every model.
        dataset: the data set's name.
        seeds: how many, counted up from the key ``seed``; or the seeds themselves.
        reference: system that the others are compared with (``SASRec``, ``SASRec + IPR``), or ``all`` for all pairs.
        spread: ``seeds``: standard deviation over at least two seeds; ``none``: means alone.
        permutations: random patterns of signs of the permutation test.
        output: the folder of the comparison; ``results/compare-DATASET`` if None.
        config_file_list: yaml files, or one of them; later ones win.
        config_dict: settings for all runs; ``bootstrap``: draws of the intervals, 1000 if not set.
        lists: files of lists that other systems have made, by name, measured on the test part of each seed.
        tuning: searches on validation for the settings of each system, before anything is tested.

    Returns:
        ``systems`` (mean and spread by system and metric), ``comparisons``, ``cells`` (metrics by system and seed),
        ``failed`` cells with reasons, ``reused`` (how many were there already), ``protocol`` and what names the
        comparison. Written: ``comparison.json``, ``.md``, ``.tex``, and ``systems.csv``, ``tests.csv``, ``cells.csv``.

    Raises:
        FairError: for names, settings or seeds that are not allowed, or when no cell has a result.
    """
    start = time.perf_counter()
    plan = make_plan(models, rerankers, dataset, seeds, config_file_list, config_dict)
    _check(spread, permutations, plan)
    plan.take_lists(lists or {})
    reference = _reference(reference, plan.names())
    folder = Path(output) if output is not None else Path("results", f"compare-{plan.dataset}")
    config = plan.config(plan.models[0], None, plan.seeds[0], folder / "checkpoints")
    begin_together(config)
    tuned = [] if tuning is None else tune_systems(plan, tuning, folder)
    run = _Run(plan, folder)
    run.measure_all()
    cells = _cells(run, reference)
    draws = int(plan.settings.get("bootstrap") or _BOOTSTRAP)
    tests = comparisons_table(cells, reference, MetricOptions.from_config(config), permutations, draws, plan.seeds[0])
    run.notes += _too_few(permutations, tests)
    result = ComparisonDocument(
        dataset=plan.dataset,
        models=plan.models,
        rerankers=plan.rerankers,
        seeds=plan.seeds,
        reference=reference,
        spread=spread,
        systems=rows_of(systems_table(cells)),
        comparisons=rows_of(tests),
        cells=[_described(cell) for cell in cells],
        failed=run.failed,
        reused=run.reused,
        tuned=tuned,
        protocol={**protocol_of(config), "permutations": permutations, "bootstrap": draws},
        settings=plan.settings,
        notes=[*plan.notes, *run.notes],
        seconds=time.perf_counter() - start,
        key=digest_of([plan.models, plan.rerankers, plan.seeds, reference, spread, permutations, run.cell_keys()]),
        versions=versions(),
    )
    result = _written(result, folder, cells, int(config["metric_decimal_place"] or 4))
    show_table(text(result, int(config["metric_decimal_place"] or 4)))
    return result


def _check(spread: str, permutations: int, plan: Plan) -> None:
    if spread not in SPREADS:
        raise FairError(f"spread={spread!r} is not allowed: it must be one of {', '.join(SPREADS)}.")
    if spread == "seeds" and len(plan.seeds) < 2:
        raise FairError("One seed has no spread: ask for at least two seeds, or for means alone by spread=none.")
    if isinstance(permutations, bool) or not isinstance(permutations, int) or permutations < 100:
        raise FairError(f"permutations={permutations!r} is not allowed: it must be a whole number from 100.")


def _reference(given: str | None, systems: Sequence[str]) -> str:
    reference = given or systems[0]
    if reference not in (*systems, ALL_PAIRS):
        raise FairError(f"reference={reference!r} is not compared here{did_you_mean(reference, systems)}")
    return reference


def _cells(run: _Run, reference: str) -> list[Cell]:
    """The cells with a result, in order; an error if there is nothing to compare."""
    cells = run.in_order()
    if not cells:
        raise FairError(f"No cell has a result; the first failed with: {run.failed[0]['error']}")
    if reference != ALL_PAIRS and reference not in {cell.system for cell in cells}:
        raise FairError(f"The reference {reference} has no result; its cells failed, see above.")
    return cells


def _too_few(permutations: int, tests: pd.DataFrame) -> list[str]:
    """A note where the permutations are too few for any comparison to be significant once corrected."""
    of_users = 0 if tests.empty else int((tests["kind"] == "users").sum())
    if of_users / (permutations + 1) < 0.05:
        return []
    note = (
        f"With {of_users} comparisons, {permutations} permutations cannot give a corrected p-value below .05: ask for "
        "more."
    )
    logger.warning(note)
    return [note]


def _written(result: ComparisonDocument, folder: Path, cells: Sequence[Cell], decimals: int) -> ComparisonDocument:
    """Write the document and the tables under names that no other comparison has; the first process does."""
    if not current().writes:
        return result
    names = ("comparison.json", "comparison.md", "comparison.tex", "systems.csv", "tests.csv", "cells.csv")
    files = numbered(folder, names)
    document, of_text, of_latex, systems, tests, all_cells = files(claim(files, str(result.key)))
    writers: dict[Path, Callable[[], None]] = {
        document: lambda: write_document(document, result),
        all_cells: lambda: write_table(cells_table(cells), all_cells),
        systems: lambda: write_table(pd.DataFrame(result.systems), systems),
        tests: lambda: write_table(pd.DataFrame(result.comparisons), tests),
        of_text: lambda: write_lines(of_text, markdown(result, decimals)),
        of_latex: lambda: write_lines(of_latex, latex(result, decimals)),
    }
    failed = write_each({str(path): write for path, write in writers.items()})
    logger.info("Written: %s in %s", ", ".join(path.name for path in writers), folder)
    return replace(result, failed_files=failed) if failed else result


class _Run:
    """Measures the cells of a plan, those that are not on disk yet."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self.cells: dict[tuple[str, str | None, int], Cell] = {}
        self.failed: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.reused = 0
        self._several = current().several
        self._held_out: dict[int, tuple[str, str]] = {}

    def in_order(self) -> list[Cell]:
        """The cells with a result, by system in the order of the tables, then by seed."""
        systems = [*self.plan.systems(), *((name, None) for name in self.plan.lists)]
        keys = [(*system, seed) for system in systems for seed in self.plan.seeds]
        return [self.cells[key] for key in keys if key in self.cells]

    def cell_keys(self) -> list[str]:
        """Digests of what the numbers of the cells depend on."""
        systems, seeds = self.plan.systems(), self.plan.seeds
        of_models = [cell_key(self._config(*system, seed)) for system in systems for seed in seeds]
        return [*of_models, *(f"{name} {digest_of_lists(path)}" for name, path in self.plan.lists.items())]

    def measure_all(self) -> None:
        """Go through seeds and models; what fails is noted, and the others go on.

        Several processes share out what stands on one base under one seed, and find each other's cells on the disk.
        """
        for note in self.plan.notes:
            logger.info(note)
        units = [(seed, models) for seed in self.plan.seeds for models in self._together()]
        there = [[self._read(model, seed) for model in models] for seed, models in units]
        missing = current().of_first([index for index, lists in enumerate(there) if any(lists)])
        reused = self.reused
        current().wait()  # nobody begins before all have seen what is there
        failed = shared_out([[index] for index in missing], lambda index: self._measure_unit(*units[index]))
        if self._several:
            self._take_all([row for index in missing for row in failed[index]])
            self.reused = reused
        if self.plan.lists:
            with apart():
                for seed in self.plan.seeds:
                    self._measure_lists(seed)

    def _together(self) -> list[list[str]]:
        """Models that one process measures one after the other, in order of training: several share a base."""
        found: dict[str, list[str]] = {}
        for model in self.plan.in_order_of_training():
            found.setdefault(_base_of(model) if self._several else model, []).append(model)
        return list(found.values())

    def _measure_unit(self, seed: int, models: Sequence[str]) -> list[dict[str, Any]]:
        """Measure models under one seed; returns what has failed."""
        before = len(self.failed)
        if self._several:
            self._held_out.clear()  # other processes may be before this one: all is compared in the end
        for model in models:
            if not self._read(model, seed):
                continue
            # Another comparison in this folder may be training what is needed here, and would be taken up half-way.
            folder = self._checkpoints(seed)
            with locked(folder / f".lock-{system_file(_base_of(model), None)}", str(folder)):
                self._measure_missing(model, seed)
        return self.failed[before:]

    def _take_all(self, failed: list[dict[str, Any]]) -> None:
        """Take the cells of all processes, in the order of one."""
        self.failed = failed
        self.cells.clear()
        self._held_out.clear()
        known = {(row["system"], row["seed"]) for row in failed}
        for seed in self.plan.seeds:
            for model in self.plan.in_order_of_training():
                for reranker in self._read(model, seed):
                    name = system_name(model, reranker)
                    if (name, seed) not in known | {(row["system"], row["seed"]) for row in self.failed}:
                        raise FairError(
                            f"What another process has measured of {name} is not in {self.folder}: give --output a "
                            "folder that all processes share."
                        )

    def _measure_lists(self, seed: int) -> None:
        """Measure the systems that have only lists, on the test part that the first model has."""
        for name, path in self.plan.lists.items():
            try:
                reference = reference_of_config(self._config(self.plan.models[0], None, seed))
                (one,) = measured(reference, {name: path}, {})
            except FairError as error:
                self._fail(name, [None], seed, str(error))
                continue
            facts = {"lists": path, "notes": [*one.lists.notes, *one.result.notes], "found": one.lists.counts}
            self.cells[name, None, seed] = replace(one.cell, seed=seed, facts=facts)
            self.notes += [f"{name}, seed {seed}: {note}" for note in one.lists.notes]

    def _measure_missing(self, model: str, seed: int) -> None:
        missing = self._read(model, seed)
        if not missing:
            return
        try:
            self._measure(model, seed, missing)
        except FairError as error:
            self._fail(model, missing, seed, str(error))
        except Exception as error:
            logger.exception("%s, seed %d", model, seed)
            self._fail(model, missing, seed, f"{type(error).__name__}: {error}")

    def _checkpoints(self, seed: int) -> Path:
        return self.folder / "checkpoints" / f"seed-{seed}"

    def _config(self, model: str, reranker: str | None, seed: int) -> FairConfig:
        return self.plan.config(model, reranker, seed, self._checkpoints(seed))

    def _file(self, model: str, reranker: str | None, seed: int) -> Path:
        return self.folder / "cells" / f"{system_file(model, reranker)}-seed-{seed}.npz"

    def _read(self, model: str, seed: int) -> list[str | None]:
        """Take the finished cells of a model; return the re-rankers (None: its own lists) of the others."""
        missing: list[str | None] = []
        for reranker in (None, *self.plan.rerankers):
            if (model, reranker, seed) in self.cells:
                continue
            cell = load_cell(self._file(model, reranker, seed), cell_key(self._config(model, reranker, seed)))
            if cell is None:
                missing.append(reranker)
                continue
            first, who = self._held_out.setdefault(seed, (cell.facts["held_out"], model))
            if cell.facts["held_out"] != first:
                self._fail(model, [reranker], seed, _other_users(model, who))
                continue
            self.cells[model, reranker, seed] = cell
            self.reused += 1
        return missing

    def _fail(self, model: str, rerankers: Sequence[str | None], seed: int, reason: str) -> None:
        for reranker in rerankers:
            if (model, reranker, seed) in self.cells:
                continue
            name = system_name(model, reranker)
            if any((row["system"], row["seed"]) == (name, seed) for row in self.failed):
                continue
            self.failed.append({"system": name, "seed": seed, "error": reason})
            logger.error("%s, seed %d has no result: %s", name, seed, reason)

    # -- one model under one seed --------------------------------------------------------------------------------

    def _measure(self, model: str, seed: int, missing: Sequence[str | None]) -> None:
        start = time.perf_counter()
        trainer, loaders, facts = self._trained(model, seed)
        test = loaders[2]
        if test is None:
            raise FairError("eval_args leave no test data; a comparison needs them.")
        config = trainer.config
        candidates = (config[CANDIDATES] or test._dataset.item_num) if any(missing) else 0
        shown = bars_shown(bool(config["show_progress"]))
        with trainer.contract.use_variant(trainer.final_variant):
            struct = trainer.collect(test, shown, candidates=candidates)
            held_out = _held_out(struct, test._dataset)
            first, who = self._held_out.setdefault(seed, (held_out, model))
            if held_out != first:
                raise FairError(_other_users(model, who))
            facts |= {"held_out": held_out, "seconds": time.perf_counter() - start}
            for reranker in missing:
                try:
                    self._add(model, reranker, seed, trainer, test, struct, facts)
                except FairError as error:
                    self._fail(model, [reranker], seed, str(error))

    def _add(
        self,
        model: str,
        reranker: str | None,
        seed: int,
        trainer: FairTrainerMixin,
        test: Any,
        struct: DataStruct,
        facts: dict[str, Any],
    ) -> None:
        config, start = self._config(model, reranker, seed), time.perf_counter()
        notes: list[str] = []
        if reranker is not None:
            trainer.config["reranker"] = reranker  # messages name it
            made = make_reranker(config)
            assert made is not None
            check_reranker(trainer, made)
            struct, _ = changed_struct(trainer, test, struct, made)
            described, notes = made.describe(max(config["topk"])), list_notes(made, config)
            facts = {**facts, "reranker": described, "seconds": time.perf_counter() - start}
        result = trainer.evaluator.result(struct)
        facts = {**facts, "notes": [*result.notes, *notes], "groups": result.to_dict()["groups"]}
        cell = cell_of(model, reranker, seed, result, test._dataset, facts)
        # The key is of the settings as they are now: loading may have completed the files on disk.
        save_cell(self._file(model, reranker, seed), cell, cell_key(config))
        self.cells[model, reranker, seed] = cell
        shown = ", ".join(f"{name} {value:.4f}" for name, value in list(cell.metrics.items())[:6])
        total = len(self.plan.names()) * len(self.plan.seeds)
        logger.info("%d of %d cells: %s, seed %d: %s", len(self.cells), total, cell.system, seed, shown)

    def _trained(self, model: str, seed: int) -> tuple[Any, Sequence[Any], dict[str, Any]]:
        """A trainer with its trained model: from the checkpoint of a finished cell, or from training."""
        config = self._config(model, None, seed)
        known = self.cells.get((model, None, seed))
        path = known.facts.get("checkpoint") if known is not None else None
        if known is not None and path is not None and Path(path).is_file():
            content = load_checkpoint(path, config["device"])
            return *load_trainer(config, content, path), {"checkpoint": path}
        trainer, loaders = new_trainer(config)
        trainer = taken_up(trainer, config, self._checkpoints(seed))
        shown = bars_shown(bool(config["show_progress"]))
        logger.info("Training %s, seed %d", model, seed)
        score, validation = trainer.fit(loaders[0], loaders[1], saved=True, show_progress=shown)
        trainer.load_best()
        facts = {
            "checkpoint": str(trainer.saved_model_file),
            "best_valid_score": float(score),
            "best_valid_result": dict(validation) if validation else None,
            "base": trainer.checkpoint_extra.get("base"),
        }
        return trainer, loaders, facts


def _base_of(model: str) -> str:
    """The model that is trained: the base of a post-hoc model, else the model itself."""
    return Traits.of(get_model(model)).base_model_name or model


def _other_users(model: str, than: str) -> str:
    return (
        f"{model} is tested on other users or other held-out items than {than}: set eval_args, and the same filters "
        "for all models."
    )


def _held_out(struct: DataStruct, dataset: DataSet) -> str:
    """Digest of who is tested on what, by the original ids."""
    bounds, items = struct["rec.positives"]
    users = struct["rec.users"].repeat_interleave(bounds.diff())
    pairs = zip(
        np.asarray(dataset.field2id_token[dataset.uid_field])[users.numpy()],
        np.asarray(dataset.field2id_token[dataset.iid_field])[items.numpy()],
        strict=True,
    )
    lines = sorted(f"{user}\x1f{item}" for user, item in pairs)
    return hashlib.blake2b("\x1e".join(lines).encode(), digest_size=16).hexdigest()


def _described(cell: Cell) -> dict[str, Any]:
    names = {"system": cell.system, "model": cell.model, "reranker": cell.reranker, "seed": cell.seed}
    return {**names, "metrics": cell.metrics, "users": len(np.unique(cell.users)), **cell.facts}


def protocol_of(config: FairConfig) -> dict[str, Any]:
    """What makes the numbers of different models comparable, as the settings say it."""
    plain = config.to_plain()
    shared = {key: plain.get(key) for key in ("eval_args", "metrics", "topk", "valid_metric", CANDIDATES)}
    return {**shared, "mask_seen": Mask.of(config).rule}
