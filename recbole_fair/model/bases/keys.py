"""Keys of the base models that are ours."""

from __future__ import annotations

from recbole_fair.config.keys import Key

#: SASRec's windows.
SASREC_KEYS: dict[str, Key] = {
    "train_positions": Key("str", choices=("all", "last"), what="windows with many targets, or RecBole's prefixes"),
    "window_stride": Key("int", low=1, optional=True, what="targets a training window"),
}
