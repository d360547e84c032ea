"""Timestamps: who needs them, whether they are there, and their order in single precision."""

from __future__ import annotations

import logging
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
from recbole.utils import ModelType

from recbole_fair.config.contract import Settings
from recbole_fair.config.traits import Traits
from recbole_fair.data.contract import DataSet
from recbole_fair.data.reading.order import stable_order
from recbole_fair.data.reading.table import Table
from recbole_fair.errors import FairError
from recbole_fair.io.threads import in_threads

logger = logging.getLogger(__name__)


def why_time(config: Settings) -> str:
    """What the timestamps are needed for, as a clause; empty if for nothing."""
    lists = config["benchmark_filename"] is not None  # finished splits hold each row's past items, in order
    sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL and not lists
    if sequential or Traits.of(config["model_class"]).reads_time(config):
        return f"{config['model']} reads histories in time"
    if config["eval_args"]["order"] == "TO" and not lists:
        return "eval_args order=TO splits by time"
    if "drift" in (config["group_metrics"] or ()):
        return "the table by interest drift needs it (group_metrics=null turns it off)"
    return ""


def check_times(config: Settings, table: Table) -> None:
    """Check that every interaction has a time, where something goes by time.

    Args:
        config: the settings.
        table: the interactions as they were read.

    Raises:
        FairError: naming file, line and what the times are needed for.
    """
    field, why = config["TIME_FIELD"], why_time(config)
    if not why or field not in table.numbers:
        return
    times = table.numbers[field].values
    bad = np.flatnonzero(~np.isfinite(times))
    if len(bad):
        raise FairError(
            f"{table.path}: {len(bad)} of {len(times)} interactions have no timestamp in '{field}' "
            f"(the first in line {table.line_of(int(bad[0]))}), and {why}: remove these rows or fill them in."
        )


def keep_order_of_times(config: Settings, dataset: DataSet) -> None:
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
    if field is None or not isinstance(feat, pd.DataFrame) or field not in feat:
        return
    times = feat[field].to_numpy(dtype=np.float64)
    if not len(times) or _holds_whole_numbers(times):
        return
    order = stable_order(times)
    rising = times if order is None else times[order]
    if not _loses(rising):
        return
    first = rising[0]
    if first != 0:
        feat[field] = times - first
        logger.info("'%s' counts from the first interaction: single precision does not hold the times apart.", field)
    by_time = config["MODEL_TYPE"] == ModelType.SEQUENTIAL or config["eval_args"]["order"] == "TO"
    if by_time and config["benchmark_filename"] is None and order is not None and _loses(rising - first):
        columns = in_threads([partial(feat[name].array.take, order) for name in feat])
        dataset.inter_feat = pd.DataFrame(dict(zip(feat, columns, strict=True)), copy=False)


def _holds_whole_numbers(times: npt.NDArray[np.float64]) -> bool:
    """Whether single precision has room for these, all of them being whole."""
    small = np.abs(times) <= 1 << 24
    return bool(small.all()) and bool((np.floor(times) == times).all())


def _loses(rising: npt.NDArray[np.float64]) -> bool:
    """Whether single precision makes different times equal; missing ones stand at the end."""
    single = rising.astype(np.float32)
    return bool(((rising[1:] > rising[:-1]) & (single[1:] == single[:-1])).any())
