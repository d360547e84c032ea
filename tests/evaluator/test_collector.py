"""What the collector makes of scores: short lists, held-out items, users, state."""

from __future__ import annotations

import math

import pytest
import torch
from metric_cases import config, interactions
from metric_oracle import random_case
from recbole.data.interaction import Interaction

from recbole_fair.data.facts.interactions import Interactions
from recbole_fair.errors import FairError
from recbole_fair.evaluator import FairCollector, FairEvaluator
from recbole_fair.evaluator import collector as collector_module


def collector_for(**given: object) -> FairCollector:
    return FairCollector(config(**{"metrics": ["NDCG"], **given}))


def test_lists_end_where_candidates_run_out() -> None:
    collector = collector_for(topk=[2, 6])
    scores = torch.tensor([[-math.inf, 3.0, 1.0, 2.0], [-math.inf, -math.inf, 1.0, -math.inf]])
    collector.eval_batch_collect(
        scores, Interaction({"user_id": torch.tensor([7, 3])}), torch.tensor([0, 1]), torch.tensor([3, 1])
    )
    struct = collector.get_data_struct()
    # Four columns but six places: RecBole's topk would raise here.
    assert struct["rec.items"].tolist() == [[1, 3, 2, 0, 0, 0], [2, 0, 0, 0, 0, 0]]
    assert struct["rec.topk"].tolist() == [[0, 1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 1]]
    assert struct["rec.users"].tolist() == [7, 3]


def test_held_out_items_named_twice_count_once_and_rows_without_any_are_kept() -> None:
    collector = collector_for(topk=[3])
    scores = torch.tensor([[-math.inf, 3.0, 1.0, 2.0]]).repeat(3, 1)
    users = Interaction({"user_id": torch.tensor([1, 2, 4])})
    collector.eval_batch_collect(scores, users, torch.tensor([2, 0, 0, 0, 2]), torch.tensor([2, 3, 1, 3, 1]))
    struct = collector.get_data_struct()
    assert struct["rec.topk"].tolist() == [[1, 1, 0, 2], [0, 0, 0, 0], [1, 0, 1, 2]]
    bounds, items = struct["rec.positives"]
    assert bounds.tolist() == [0, 2, 2, 4]
    assert items.tolist() == [1, 3, 1, 2]


def test_sampled_ranking_finds_the_user_of_each_row() -> None:
    """RecBole's sampled evaluation hands over all candidate rows of a user, one after another."""
    collector = collector_for(topk=[2])
    scores = torch.full((2, 5), -math.inf)
    scores[0, [1, 2, 3]] = torch.tensor([0.1, 0.3, 0.2])
    scores[1, [4, 2]] = torch.tensor([0.5, 0.9])
    rows = Interaction({"user_id": torch.tensor([9, 9, 9, 4, 4])})
    collector.eval_batch_collect(scores, rows, torch.tensor([0, 1]), torch.tensor([2, 4]))
    struct = collector.get_data_struct()
    assert struct["rec.users"].tolist() == [9, 4]
    assert struct["rec.items"].tolist() == [[2, 3], [2, 4]]


def test_scores_that_are_not_numbers_are_an_error() -> None:
    scores = torch.tensor([[-math.inf, math.nan, 1.0]])
    with pytest.raises(FairError, match="not numbers"):
        collector_for(topk=[1]).eval_batch_collect(
            scores, Interaction({"user_id": torch.tensor([1])}), torch.tensor([0]), torch.tensor([1])
        )


def test_training_data_are_read_once_a_split(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def reads(dataset: object) -> Interactions:
        calls.append(dataset)
        return interactions(random_case(0))

    monkeypatch.setattr(collector_module, "training_interactions", reads)
    collector, first, second = collector_for(), object(), object()
    for split in (first, first, second):
        collector.data_collect(split)
    assert calls == [first, second]


def test_validation_interactions_become_history_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(0)
    later = Interactions(
        *(interactions(case).__dict__[k][:1] for k in ("user", "item", "time")), case.n_users, case.n_items
    )
    splits = {"train": interactions(case), "valid": later}
    monkeypatch.setattr(collector_module, "training_interactions", lambda dataset: splits[dataset])
    for mode, extra in (("train", 0), ("train_valid", 1)):
        collector = collector_for(metric_history=mode)
        collector.data_collect("train")
        collector.use_validation_history("valid")
        struct = collector.get_data_struct()
        assert len(struct["data.histories"].items) == len(case.interactions) + extra
        assert struct["data.popularity"].counts.sum() == len(case.interactions)  # popularity stays that of training
        collector.use_validation_history(None)
        assert len(collector.get_data_struct()["data.histories"].items) == len(case.interactions)


def test_evaluator_names_missing_training_data() -> None:
    cfg = config(metrics=["UPD"], topk=[1])
    collector = FairCollector(cfg)
    scores = torch.tensor([[-math.inf, 1.0, 2.0]])
    one = torch.tensor([0])
    collector.eval_batch_collect(scores, Interaction({"user_id": torch.tensor([1])}), one, torch.tensor([1]))
    with pytest.raises(FairError, match="training data"):
        FairEvaluator(cfg).evaluate(collector.get_data_struct())


def test_defaults_of_the_options_are_those_of_overall_yaml() -> None:
    from recbole_fair.config.general_keys import KEYS
    from recbole_fair.config.layers import properties_dir, read_yaml
    from recbole_fair.evaluator.options import MetricOptions

    defaults = read_yaml(properties_dir() / "overall.yaml")
    own = {key: value for key, value in defaults.items() if key in MetricOptions.__dataclass_fields__ and key in KEYS}
    assert len(own) >= 12
    assert MetricOptions.from_config(own) == MetricOptions()
