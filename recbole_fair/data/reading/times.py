"""Timestamps in single precision, without losing the order of interactions."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
from recbole.utils import ModelType

logger = logging.getLogger(__name__)


def keep_order_of_times(config: Any, dataset: Any) -> None:
    """Prepare a data set's timestamps for RecBole's conversion to single precision.

    A tensor of float32 tells Unix times of our days apart by the minute only, so that RecBole orders what happened
    within it by the line in the file: in MovieLens 100K that is another last item for every sixth user. Where the
    conversion would lose differences, times are counted from the first interaction, which RecBole's splits and models
    do not notice. If that is not enough and order matters, rows are put into the order of time first; all later sorting
    is stable and conversion is monotone, so that the order stays the true one.

    Args:
        config: the settings.
        dataset: what RecBole read, before ``build``; changed in place.
    """
    feat, field = dataset.inter_feat, dataset.time_field
    if field is None or not isinstance(feat, pd.DataFrame) or field not in feat or not _loses(feat[field]):
        return
    times = feat[field].astype(np.float64)
    if times.min() != 0:
        feat[field] = times - times.min()
        logger.info("'%s' counts from the first interaction: single precision does not hold the times apart.", field)
    by_time = config["MODEL_TYPE"] == ModelType.SEQUENTIAL or config["eval_args"]["order"] == "TO"
    if by_time and config["benchmark_filename"] is None and _loses(feat[field]):
        dataset.inter_feat = feat.sort_values(field, kind="stable", ignore_index=True)


def _loses(times: Any) -> bool:
    """Whether single precision makes different times equal."""
    distinct = np.unique(np.asarray(times, dtype=np.float64))
    return bool((np.diff(distinct.astype(np.float32)) == 0).any())
