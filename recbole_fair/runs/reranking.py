"""Re-ranking inside an evaluation: candidates out of the collected lists, metrics of the re-ranked ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from recbole.evaluator.collector import DataStruct
from recbole.utils import EvaluatorType
from torch import Tensor

from recbole_fair.config.contract import Settings
from recbole_fair.config.mask import Mask
from recbole_fair.data.contract import EvaluationLoader
from recbole_fair.data.ragged import owners
from recbole_fair.errors import FairError
from recbole_fair.evaluator import EvaluationResult
from recbole_fair.evaluator.collector import are_among
from recbole_fair.evaluator.metrics import INPUTS
from recbole_fair.io.checkpoint import restore_model
from recbole_fair.io.imported import open_checkpoint
from recbole_fair.model.contract import contract_of
from recbole_fair.rerank.adjuster import Offsets, ScoreAdjuster
from recbole_fair.rerank.base import Candidates, Facts, Lists, ReRanker
from recbole_fair.rerank.pufr import PUFR
from recbole_fair.rerank.settings import CANDIDATES, check_candidates
from recbole_fair.runs.adjusting import collect_adjusted, learn, learning_notes, learning_split
from recbole_fair.trainer.trainer import FairTrainerMixin

logger = logging.getLogger(__name__)


def check_reranker(trainer: FairTrainerMixin, reranker: ReRanker) -> None:
    """Find out before training whether a re-ranker will be able to run.

    Args:
        trainer: a trainer that knows its splits.
        reranker: the re-ranker.

    Raises:
        FairError: naming what is missing.
    """
    config = trainer.config
    if config["eval_type"] != EvaluatorType.RANKING:
        raise FairError(f"reranker={config['reranker']} orders lists; metrics={config['metrics']} rate single rows.")
    facts = facts_of(trainer)
    check_candidates(reranker, config, facts.n_items)
    reranker.check(facts, max(config["topk"]))
    if isinstance(reranker, PUFR):
        for file in reranker.files:
            _read(trainer, file)


def facts_of(trainer: FairTrainerMixin) -> Facts:
    """What a trainer's splits tell a re-ranker: from training alone, unless ``metric_history`` says otherwise."""
    collector, config = trainer.eval_collector, trainer.config
    assert collector.popularity is not None
    assert collector.histories is not None
    known = {} if collector.groups is None else {collector.groups.field: collector.groups}
    return Facts(
        popularity=collector.popularity,
        histories=collector.histories,
        dataset=trainer.train_data._dataset,
        group_field=config["group_field"],
        masks_seen=Mask.of(config).unseen_candidates,
        known_groups=known,
    )


def facts_of_split(
    trainer: FairTrainerMixin,
    eval_data: EvaluationLoader | None = None,
    struct: DataStruct | None = None,
    reranker: ReRanker | None = None,
) -> Facts:
    """What a re-ranker may know when it orders the lists of one split.

    Args:
        trainer: a trainer that knows its splits.
        eval_data: the split.
        struct: what was collected on it: histories come from there.
        reranker: for PUFR, the models that it compares are scored on the split.
    """
    facts = facts_of(trainer)
    if struct is not None:
        facts.histories = struct["data.histories"]
    if eval_data is not None and isinstance(reranker, PUFR):
        facts.deviation = score_deviation(trainer, eval_data, reranker.files)
    return facts


def evaluate_reranked(
    trainer: FairTrainerMixin, eval_data: EvaluationLoader, reranker: ReRanker, show_progress: bool = False
) -> tuple[EvaluationResult, EvaluationResult]:
    """Evaluate the model's own lists and the re-ranked ones in one pass; a post-hoc model's final variant.

    Args:
        trainer: a trainer that knows its splits.
        eval_data: a validation or test loader.
        reranker: the re-ranker.
        show_progress: whether to show a bar on a terminal.

    Returns:
        The results of the base lists and of the re-ranked lists.
    """
    adjusts = isinstance(reranker, ScoreAdjuster)
    candidates = 0 if adjusts else trainer.config[CANDIDATES] or eval_data._dataset.item_num
    with trainer.contract.use_variant(trainer.final_variant):
        struct = trainer.collect(eval_data, show_progress, candidates=candidates)
    changed, offsets = changed_struct(trainer, eval_data, struct, reranker, show_progress)
    result = trainer.evaluator.result(changed)
    result.notes += list_notes(reranker, trainer.config)
    if offsets is not None and isinstance(reranker, ScoreAdjuster):
        on_validation = learning_split(trainer, eval_data, reranker) is not eval_data
        result.notes += learning_notes(reranker, offsets, on_validation)
        if offsets.report:
            result.curves["equilibrium"] = offsets.report
    return trainer.evaluator.result(struct), result


def changed_struct(
    trainer: FairTrainerMixin,
    eval_data: EvaluationLoader,
    struct: DataStruct,
    reranker: ReRanker,
    show_progress: bool = False,
) -> tuple[DataStruct, Offsets | None]:
    """What was collected on a split, with a re-ranker's lists in place of the model's.

    Args:
        trainer: a trainer that knows its splits.
        eval_data: the split.
        struct: what was collected on it, with candidates (a score adjuster needs none: it scores all items again).
        reranker: the re-ranker.
        show_progress: whether to show a bar on a terminal.

    Returns:
        The new struct, and what a score adjuster has learnt; None for other re-rankers.
    """
    facts = facts_of_split(trainer, eval_data, struct, reranker)
    if not isinstance(reranker, ScoreAdjuster):
        return reranked_struct(struct, reranker, facts), None
    with trainer.contract.use_variant(trainer.final_variant):
        offsets = learn(trainer, eval_data, reranker, facts, max(trainer.config["topk"]), show_progress)
        return collect_adjusted(trainer, eval_data, reranker, facts, offsets, show_progress), offsets


def list_notes(reranker: ReRanker, config: Settings) -> list[str]:
    """What a reader of metrics at several cutoffs has to know about a re-ranker's lists."""
    *shorter, longest = sorted(set(config["topk"]))
    if reranker.builds_in_order or not shorter:
        return []
    return [
        f"{type(reranker).__name__} made lists of {longest}; metrics at {', '.join(map(str, shorter))} are of their "
        "first items. Set topk to one length for lists made for it."
    ]


def reranked_struct(struct: DataStruct, reranker: ReRanker, facts: Facts) -> DataStruct:
    """What the collector collected, with the lists of a re-ranker in place of the model's.

    Args:
        struct: with ``rec.candidates``; left unchanged.
        reranker: the re-ranker.
        facts: what it may know.

    Returns:
        A new struct: lists, their scores (the model's own, in the new order), hits, and the mean ranks of GAUC, for
        which the listed items come first and all others keep the model's order.
    """
    items, scores = struct["rec.candidates"]
    k = struct["rec.items"].shape[1]
    return listed_struct(struct, reranker.rerank(Candidates(items, scores, struct["rec.users"]), facts, k))


def listed_struct(struct: DataStruct, lists: Lists) -> DataStruct:
    """What was collected, with other lists; see :func:`reranked_struct`.

    Lists of items outside the candidates (``places`` -1) are possible as long as no metric ranks all items (GAUC).
    """
    items, _ = struct["rec.candidates"]
    new = DataStruct()
    for key, value in struct._data_dict.items():
        # Inputs made for the old lists do not fit the new ones.
        if key not in ("rec.candidates", "rec.spread", "rec.log_total", INPUTS):
            new[key] = value
    bounds, held_out = struct["rec.positives"]
    n_items = struct["data.num_items"]
    rows = torch.arange(len(items)).unsqueeze(1)
    keys = owners(bounds) * n_items + held_out
    shown = are_among(keys, rows * n_items + lists.items) & (lists.items > 0)
    new["rec.items"], new["rec.values"] = lists.items, lists.scores
    new["rec.topk"] = torch.cat([shown.long(), struct["rec.topk"][:, -1:]], dim=1)
    if "rec.meanrank" in struct:
        hits = are_among(keys, rows * n_items + items) & (items > 0)
        moved = (new_ranks(lists.places, items.shape[1]) - torch.arange(items.shape[1])) * hits
        ranks = struct["rec.meanrank"].clone()
        ranks[:, 0] += moved.sum(1)
        new["rec.meanrank"] = ranks
    return new


def new_ranks(places: Tensor, n_candidates: int) -> Tensor:
    """Rank of each candidate, from 0, when the listed ones come first and the others follow in their old order.

    Args:
        places: columns of the listed candidates ``[U, K]``, -1 = none, all of them before the end of the candidates.
        n_candidates: number of candidates C.

    Returns:
        long ``[U, C]``.
    """
    n_rows, k = places.shape
    listed = torch.full((n_rows, n_candidates + 1), -1, dtype=torch.long)
    listed.scatter_(1, places.masked_fill(places < 0, n_candidates), torch.arange(k).expand(n_rows, k))
    at = listed[:, :n_candidates]
    # Each listed item from further back pushes an unlisted one down by one.
    behind = (at >= 0).long().flip(1).cumsum(1).flip(1)
    return torch.where(at >= 0, at, torch.arange(n_candidates) + behind)


def score_deviation(trainer: FairTrainerMixin, eval_data: EvaluationLoader, files: Sequence[str]) -> Tensor:
    """Standard deviation, between models, of each item's mean score over the users of a split.

    Args:
        trainer: holds the evaluated model, one of the models compared.
        eval_data: the split; masked scores are left out of the means.
        files: checkpoints of the others.

    Returns:
        float64 ``[n_items]``; 0 for items that no user may be shown.
    """
    own = trainer.model
    means = [_mean_scores(trainer, eval_data)]
    try:
        for file in files:
            content = _read(trainer, file)
            net = trainer.config.model_class(trainer.config, trainer.train_data._dataset).to(trainer.config["device"])
            restore_model(net, content, f"reranker_models: {file}")
            other, mine = contract_of(net), contract_of(own)
            other.set_strengths(**mine.strengths)  # seeds are compared, not strengths
            other.variant = mine.variant
            trainer.model = net
            means.append(_mean_scores(trainer, eval_data))
    finally:
        trainer.model = own
    return torch.stack(means).std(0, correction=0)


def _mean_scores(trainer: FairTrainerMixin, eval_data: EvaluationLoader) -> Tensor:
    total = count = torch.zeros(eval_data._dataset.item_num, dtype=torch.double)
    for _, scores, _, _ in trainer.scored_batches(eval_data):
        shown = scores > -torch.inf
        total = total + scores.double().masked_fill(~shown, 0.0).sum(0).cpu()
        count = count + shown.sum(0).cpu()
    return total / count.clamp(min=1)


def _read(trainer: FairTrainerMixin, file: str) -> dict[str, Any]:
    content: dict[str, Any] = open_checkpoint(file, trainer.config["device"])
    name = trainer.config["model"]
    if content["model"] != name:
        raise FairError(f"reranker_models: {file} is a checkpoint of {content['model']}, not of {name}.")
    if content["fingerprint"] not in (None, trainer.fingerprint):
        logger.warning("reranker_models: %s was trained on another split; it may have seen test items.", file)
    return content
