"""Score adjusters inside an evaluation: what they learn and on whom, and lists of adjusted scores."""

from __future__ import annotations

import torch
from recbole.data.interaction import Interaction
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_fair.data.contract import EvaluationLoader
from recbole_fair.rerank.adjuster import Offsets, ScoreAdjuster, norm_of
from recbole_fair.rerank.base import Candidates, Facts, Lists, lists_at
from recbole_fair.trainer.trainer import FairTrainerMixin

_NORMS = {"standard": "rec.spread", "softmax": "rec.log_total"}


def collect_pool(
    trainer: FairTrainerMixin, eval_data: EvaluationLoader, adjuster: ScoreAdjuster, k: int, show: bool = False
) -> DataStruct:
    """One pass over a split that keeps each user's best items, as an adjuster wants them.

    Args:
        trainer: a trainer that knows its splits.
        eval_data: the split.
        adjuster: says how many items it looks at, and on which scale their scores.
        k: length of the lists.
        show: whether to show a bar on a terminal.

    Returns:
        What the collector collects, with ``rec.candidates`` and, if needed, ``rec.spread`` or ``rec.log_total``.
    """
    size = min(max(adjuster.pool, k), eval_data._dataset.item_num)
    return collect_with_norm(trainer, eval_data, adjuster.scale, size, show)


def collect_with_norm(
    trainer: FairTrainerMixin, eval_data: EvaluationLoader, scale: str, size: int, show: bool = False
) -> DataStruct:
    """One pass over a split that keeps each user's best items, and what a scale has to know of all scores.

    Args:
        trainer: a trainer that knows its splits.
        eval_data: the split.
        scale: one of :data:`~recbole_fair.rerank.adjuster.SCALES`.
        size: best items to keep.
        show: whether to show a bar on a terminal.
    """
    norms: list[Tensor] = []

    def note(interaction: Interaction, scores: Tensor) -> Tensor:
        norm = norm_of(scale, scores)
        assert norm is not None
        norms.append(norm.cpu())
        return scores

    struct = trainer.collect(eval_data, show, candidates=size, adjust=None if scale == "raw" else note)
    if norms:
        struct[_NORMS[scale]] = torch.cat(norms)
    return struct


def pool_of(struct: DataStruct) -> Candidates:
    """The candidates in what :func:`collect_pool` returned."""
    items, scores = struct["rec.candidates"]
    spread, log_total = (struct[name] if name in struct else None for name in _NORMS.values())  # noqa: SIM401
    return Candidates(items, scores, struct["rec.users"], spread, log_total)


def learning_split(trainer: FairTrainerMixin, eval_data: EvaluationLoader, adjuster: ScoreAdjuster) -> EvaluationLoader:
    """The split on whose users an adjuster learns: validation if it says so and there is one, else ``eval_data``."""
    valid = trainer._valid_data
    return valid if adjuster.learn_on == "valid" and valid is not None else eval_data


def no_offsets(facts: Facts) -> Offsets:
    """Nothing to subtract."""
    return Offsets(torch.zeros(facts.n_items, dtype=torch.double))


def learn(
    trainer: FairTrainerMixin,
    eval_data: EvaluationLoader,
    adjuster: ScoreAdjuster,
    facts: Facts,
    k: int,
    show: bool = False,
) -> Offsets:
    """What an adjuster subtracts from scores, learnt on the split it asks for; held-out items are not looked at.

    Args:
        trainer: a trainer that knows its splits.
        eval_data: the split whose lists will be made.
        adjuster: the adjuster.
        facts: what is known from training.
        k: length of the lists.
        show: whether to show a bar on a terminal.
    """
    if adjuster.changes_nothing or not adjuster.learns:
        return adjuster.learn(None, facts, k) if not adjuster.learns else no_offsets(facts)
    split = learning_split(trainer, eval_data, adjuster)
    return adjuster.learn(pool_of(collect_pool(trainer, split, adjuster, k, show)), facts, k)


def collect_adjusted(
    trainer: FairTrainerMixin,
    eval_data: EvaluationLoader,
    adjuster: ScoreAdjuster,
    facts: Facts,
    offsets: Offsets,
    show: bool = False,
) -> DataStruct:
    """One pass over a split with adjusted scores of all items: lists, and what the metrics need.

    Args:
        trainer: a trainer that knows its splits.
        eval_data: the split.
        adjuster: the adjuster.
        facts: what is known from training.
        offsets: what it has learnt.
        show: whether to show a bar on a terminal.
    """
    k, user_field = max(trainer.config["topk"]), trainer.config["USER_ID_FIELD"]

    def adjust(interaction: Interaction, scores: Tensor) -> Tensor:
        users = interaction[user_field].long()
        if len(users) != len(scores):  # drawn candidates: a row each in the batch, one a user in the scores
            users = torch.unique_consecutive(users)
        return adjuster.adjusted(scores, users.to(scores.device), facts, k, offsets)

    return trainer.collect(eval_data, show, adjust=adjust)


def adjusted_lists(
    trainer: FairTrainerMixin,
    eval_data: EvaluationLoader,
    pool: Candidates,
    adjuster: ScoreAdjuster,
    facts: Facts,
    offsets: Offsets,
) -> Lists:
    """Lists of adjusted scores out of each user's best items; users whom these do not settle are scored again.

    Args:
        trainer: a trainer that knows its splits.
        eval_data: the split that the pool is of.
        pool: the best items of its users.
        adjuster: the adjuster.
        facts: what is known from training.
        offsets: what it has learnt.

    Returns:
        The lists that :func:`collect_adjusted` would collect.
    """
    k = max(trainer.config["topk"])
    ranked = adjuster.ranked(pool, facts, k, offsets)
    lists = lists_at(pool, ranked.places, k)
    if bool(ranked.certain.all()):
        return lists
    items, scores, start = lists.items.clone(), lists.scores.clone(), 0
    with torch.no_grad():
        for _, found, _, _ in trainer.scored_batches(eval_data):
            rows = (~ranked.certain[start : start + len(found)]).nonzero().squeeze(1)
            if len(rows):
                part = found[rows.to(found.device)]
                users = pool.users[start + rows].to(found.device)
                best = adjuster.best_of_all(part, users, facts, k, offsets)
                own = part.gather(1, best)
                items[start + rows, : best.shape[1]] = best.masked_fill(own == -torch.inf, 0).cpu()
                scores[start + rows, : best.shape[1]] = own.to(scores.dtype).cpu()
            start += len(found)
    return Lists(items, scores, lists.places.masked_fill(~ranked.certain.unsqueeze(1), -1))


def learning_notes(adjuster: ScoreAdjuster, offsets: Offsets, on_validation: bool) -> list[str]:
    """A sentence on how near to equilibrium the biases came."""
    found = offsets.report
    if not found:
        return []
    name, whose = type(adjuster).__name__, "validation users" if on_validation else "these very users"
    text = (
        f"{name}: biases learnt on {found['users']} {whose} in {found['rounds']} rounds; they miss equilibrium by "
        f"{found['residual']:.2g} on average (largest bias {found['largest_bias']:.3g})"
    )
    if found["largest_bias"] == 0 and found["residual"] > 0:
        text += "; no biases were found whose lists are better than the model's own"
    if found["certain"] < 1:
        text += f"; for {1 - found['certain']:.2%} of them {adjuster.pool} best items (reranker_pool) are too few"
    return [f"{text}."]
