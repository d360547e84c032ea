"""Which lists a run writes: without what users have had, unless it was told otherwise."""

from __future__ import annotations

import numpy as np
from recbole.utils import ModelType

from recbole_fair.config.fair_config import FairConfig
from recbole_fair.config.mask import Mask
from recbole_fair.data.contract import EvaluationLoader
from recbole_fair.data.facts.histories import Histories
from recbole_fair.evaluator import EvaluationResult
from recbole_fair.rerank.base import ReRanker
from recbole_fair.runs.outputs import share_seen
from recbole_fair.runs.reranking import evaluate_reranked
from recbole_fair.trainer.trainer import FairTrainerMixin


def leaves_out_seen(config: FairConfig, reranker: ReRanker | None) -> bool:
    """Whether ``recommendations_file`` leaves out seen items that the evaluation ranks.

    That is so for sequential models whose ``mask_seen`` is ``auto``: RecBole ranks seen items there without anybody
    having asked for it. A mask that is named, ``repeatable`` of other models, and a re-ranker that promotes seen items
    are choices.

    Args:
        config: of the run.
        reranker: of the run.
    """
    mask = Mask.of(config)
    chosen = (config["mask_seen"] or "auto") != "auto" or config["MODEL_TYPE"] != ModelType.SEQUENTIAL
    promoted = reranker is not None and reranker.promotes_seen
    return bool(config["recommendations_file"]) and mask.full and mask.rule == "none" and not chosen and not promoted


def lists_to_write(
    trainer: FairTrainerMixin,
    test_data: EvaluationLoader,
    reranker: ReRanker | None,
    evaluated: EvaluationResult,
    show_progress: bool = False,
) -> EvaluationResult:
    """The lists for ``recommendations_file``: the evaluated ones, or the same anew without seen items.

    Args:
        trainer: a trainer that knows its splits.
        test_data: the test loader.
        reranker: of the run.
        evaluated: what the run is about.
        show_progress: whether to show a bar on a terminal.
    """
    if not leaves_out_seen(trainer.config, reranker):
        return evaluated
    with trainer.scorer.masked("all"):
        if reranker is not None:
            return evaluate_reranked(trainer, test_data, reranker, show_progress)[1]
        return trainer.evaluate_variants(test_data, show_progress, [trainer.final_variant])[trainer.final_variant]


def notes_on_seen(
    config: FairConfig, trainer: FairTrainerMixin, reranker: ReRanker | None, evaluated: EvaluationResult
) -> list[str]:
    """A sentence for whoever takes the written lists for those that the metrics rate, or for recommendations.

    Args:
        config: of the run.
        trainer: has evaluated.
        reranker: of the run.
        evaluated: what the run is about.
    """
    histories = trainer.eval_collector.histories
    if not config["recommendations_file"] or Mask.of(config).rule != "none" or histories is None:
        return []
    assert evaluated.lists is not None
    assert evaluated.user_ids is not None
    share = share_seen(evaluated.lists, evaluated.user_ids, histories)
    if share < 0.005:
        return []
    once = "" if _met_again(histories) else ", though nobody meets an item twice in the training data"
    rated = (
        f"{100 * share:.0f} % of the items in the lists that the metrics rate are ones that their user has had{once}"
    )
    if leaves_out_seen(config, reranker):
        return [
            f"{rated} (mask_seen: none, RecBole's rule for sequential models). {config['recommendations_file']} leaves "
            "them out; mask_seen=none writes the rated lists, mask_seen=all rates lists without them."
        ]
    return [
        f"{rated} (mask_seen: none), and so they are in {config['recommendations_file']}. Set mask_seen=all, or use "
        "recbole-fair recommend, for new ones."
    ]


def _met_again(histories: Histories) -> bool:
    """Whether some user has an item more than once."""
    pairs = histories.users * histories.n_items + histories.items
    return len(np.unique(pairs)) < len(pairs)
