"""Bring plain cases into the package's form, through the collector, as an evaluation would."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from metric_oracle import Case, concept_of, has_concept
from recbole.data.interaction import Interaction
from recbole.utils import EvaluatorType
from scipy import sparse

from recbole_fair.data.facts.groups import ItemGroups
from recbole_fair.data.facts.interactions import Interactions
from recbole_fair.evaluator import FairCollector, FairEvaluator
from recbole_fair.evaluator import collector as collector_module
from recbole_fair.evaluator.specs import SPECS

ALL = [spec.name for spec in SPECS]


class PlainConfig(dict[str, Any]):
    """What the collector asks of a configuration; absent keys are None as in RecBole."""

    def __missing__(self, key: str) -> None:
        return None


def config(**given: Any) -> PlainConfig:
    base = {
        "metrics": ALL,
        "topk": [10],
        "eval_args": {"mode": "full"},
        "eval_type": EvaluatorType.RANKING,
        "device": torch.device("cpu"),
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "LABEL_FIELD": "label",
        "metric_decimal_place": 4,
    }
    return PlainConfig({**base, **given})


def interactions(case: Case) -> Interactions:
    user, item = (np.array(column, dtype=np.int64) for column in zip(*case.interactions, strict=True))
    order = np.argsort(user, kind="stable")
    times = np.arange(len(user), dtype=np.float64)
    return Interactions(user[order], item[order], times[order], case.n_users, case.n_items)


def item_groups(case: Case) -> ItemGroups:
    names = sorted({g for genres in case.genres for g in genres})
    matrix = np.zeros((case.n_items, len(names)))
    for item, genres in enumerate(case.genres):
        for genre in genres:
            matrix[item, names.index(genre)] = 1 / len(genres)
    return ItemGroups(sparse.csr_matrix(matrix), tuple(names), "genre")


def scores_of(case: Case, rows: slice) -> torch.Tensor:
    """Scores whose top-k are the lists of the case; all other items are masked."""
    lists = case.lists[rows]
    scores = torch.full((len(lists), case.n_items), -np.inf)
    for row, ranked in enumerate(lists):
        for rank, item in enumerate(ranked):
            scores[row, item] = -float(rank)
    return scores


def collect(collector: FairCollector, case: Case, batch: int = 4) -> None:
    for start in range(0, len(case.users), batch):
        rows = slice(start, start + batch)
        positives = case.positives[rows]
        positive_u = torch.tensor([row for row, items in enumerate(positives) for _ in items])
        positive_i = torch.tensor([item for items in positives for item in sorted(items, reverse=True)])
        users = torch.tensor(case.users[rows])
        collector.eval_batch_collect(scores_of(case, rows), Interaction({"user_id": users}), positive_u, positive_i)


def make(case: Case, monkeypatch: Any, **given: Any) -> tuple[FairCollector, FairEvaluator]:
    cfg = config(topk=case.topk, **{"concept": f"genre:{concept_of(case)}", **given})
    monkeypatch.setattr(collector_module, "training_interactions", lambda dataset: interactions(case))
    collector = FairCollector(cfg)
    collector.groups = item_groups(case)
    collector.concept = torch.tensor([has_concept(item, case) for item in range(case.n_items)], dtype=torch.float64)
    collector.data_collect(SimpleNamespace())
    return collector, FairEvaluator(cfg)


def evaluate(case: Case, monkeypatch: Any, **given: Any) -> Any:
    collector, evaluator = make(case, monkeypatch, **given)
    collect(collector, case)
    return evaluator.result(collector.get_data_struct())
