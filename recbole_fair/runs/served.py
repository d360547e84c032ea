"""Score adjusters (Lorenz, Tilt) away from their data: what they have learnt travels in the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_fair.config.catalogue import RERANKER_PREFIX, scope_of
from recbole_fair.config.fair_config import FairConfig
from recbole_fair.data.facts.histories import Histories
from recbole_fair.data.facts.id_rows import Rows
from recbole_fair.data.facts.interactions import split_interactions
from recbole_fair.data.facts.popularity import Popularity
from recbole_fair.data.facts.stored import DATA
from recbole_fair.errors import FairError
from recbole_fair.io.checkpoint import plain_config, save_checkpoint
from recbole_fair.io.imported import open_checkpoint
from recbole_fair.io.latest import named_checkpoint
from recbole_fair.rerank.adjuster import Offsets, ScoreAdjuster
from recbole_fair.rerank.base import Facts
from recbole_fair.rerank.settings import make_reranker
from recbole_fair.runs.adjusting import learn
from recbole_fair.runs.loading import check_changes, config_of, load_trainer
from recbole_fair.runs.logs import begin_log
from recbole_fair.runs.reranking import check_reranker, facts_of_split

OFFSETS = "offsets"


class ServedAdjuster:
    """An adjuster with what it has learnt, for users whose histories are given.

    Args:
        adjuster: the adjuster.
        offsets: what it has learnt; None for one that follows from popularity alone.
        counts: long ``[n_items]`` training interactions.
    """

    def __init__(self, adjuster: ScoreAdjuster, offsets: Offsets | None, counts: Tensor) -> None:
        self.adjuster = adjuster
        self._popularity = Popularity(counts)
        nobody = Histories(np.zeros(1, np.int64), np.zeros(0, np.int64), None, len(counts))
        self._offsets = offsets or adjuster.learn(None, Facts(self._popularity, nobody), 1)
        total = float(counts.sum())
        weighted = float((counts.double() * self._popularity.log_counts).sum())
        self._mean = weighted / total if total else None

    @property
    def item_bias(self) -> Tensor | None:
        """What it adds to everybody's scores, float64 ``[n_items]``, if that is all it does; else None."""
        alike = self.adjuster.scale == "raw" and not self.adjuster.per_user
        return -self._offsets.bias if alike else None

    def __call__(self, scores: Tensor, rows: Rows, k: int) -> Tensor:
        """Adjusted scores ``[B, n_items]``.

        Args:
            scores: the model's, -inf for what may not be shown.
            rows: histories of the users.
            k: length of the lists.
        """
        histories = Histories(rows.starts, rows.items, None, self._popularity.n_items)
        facts = Facts(self._popularity, histories, population=self._mean)
        users = torch.arange(len(scores), device=scores.device)
        return self.adjuster.adjusted(scores, users, facts, k, self._offsets)


def served_adjuster(config: FairConfig, content: Mapping[str, Any]) -> tuple[ServedAdjuster | None, list[str]]:
    """The adjuster that a checkpoint's settings name, and notes on what cannot be applied.

    Args:
        config: the settings.
        content: the checkpoint.

    Raises:
        FairError: for an adjuster that has to learn on other users first and has not.
    """
    reranker = make_reranker(config)
    if reranker is None:
        return None, []
    name = config["reranker"]
    if not isinstance(reranker, ScoreAdjuster):
        return None, [f"reranker={name} orders the lists of an evaluation together; these lists are the model's own."]
    if reranker.changes_nothing:
        return None, []
    offsets = None
    if reranker.learns:
        kept = content.get(OFFSETS)
        if kept is None or kept["settings"] != settings_of_reranker(config):
            raise FairError(
                f"reranker={name} learns its biases on validation users, and this checkpoint holds none for these "
                "settings: write one with `recbole-fair save CHECKPOINT --output=NEW.pth`, the data and these settings."
            )
        offsets = Offsets(kept["bias"], dict(kept["report"]))
    return ServedAdjuster(reranker, offsets, content[DATA]["counts"]), []


def settings_of_reranker(config: FairConfig) -> dict[str, Any]:
    """The re-ranker and its keys, as plain values."""
    plain = plain_config(config)
    return {key: plain[key] for key in sorted(plain) if key == "reranker" or key.startswith(RERANKER_PREFIX)}


def save_served(
    model_file: str | Path, output: str | Path, config_dict: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write a checkpoint with other strengths, and with what a score adjuster learns on the validation users.

    Args:
        model_file: the checkpoint.
        output: the new one; it recommends and is exported under the settings given here.
        config_dict: strengths, a re-ranker with its keys, ``data_path``.

    Returns:
        ``checkpoint``, the ``settings`` that it is about, and the ``report`` of the learning.

    Raises:
        FairError: for settings that nothing but a new training could follow, or data that are not the checkpoint's.
    """
    model_file = named_checkpoint(model_file, config_dict)
    content = open_checkpoint(model_file)
    changes = dict(config_dict or {})
    config = config_of(content, changes)
    check_changes(content, config, changes)
    begin_log(config)
    trainer, loaders = load_trainer(config, content, model_file)
    reranker = make_reranker(config)
    report: dict[str, Any] = {}
    if reranker is not None:
        check_reranker(trainer, reranker)
    content.pop(OFFSETS, None)
    if isinstance(reranker, ScoreAdjuster) and reranker.learns and not reranker.changes_nothing:
        split = loaders[1] if loaders[1] is not None else loaders[2]
        if split is None:
            raise FairError(f"reranker={config['reranker']} learns on users, and eval_args leave none to learn on.")
        facts = facts_of_split(trainer, split, reranker=reranker)
        if config["metric_history"] == "train_valid" and loaders[1] is not None:  # as the test would have it
            facts.histories = facts.histories.extended(split_interactions(loaders[1]._dataset))
        with trainer.contract.use_variant(trainer.final_variant):
            offsets = learn(trainer, split, reranker, facts, max(config["topk"]))
        report = offsets.report
        content[OFFSETS] = {"settings": settings_of_reranker(config), "bias": offsets.bias, "report": report}
    kept = {key: value for key, value in changes.items() if scope_of(key, config.model_class) != "file"}
    content["user_settings"] = {**content["user_settings"], **kept}
    content["config"] = plain_config(config)
    content["fingerprint"] = content["fingerprint"] or trainer.fingerprint
    content[DATA] = content.get(DATA) or trainer.stored_data()
    save_checkpoint(output, content)
    return {"checkpoint": str(output), "settings": kept, "report": report}
