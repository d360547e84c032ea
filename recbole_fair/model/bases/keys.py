"""Keys of the base models that are ours."""

from __future__ import annotations

from recbole_fair.config.keys import Key

#: SASRec's windows.
SASREC_KEYS: dict[str, Key] = {
    "train_positions": Key("str", choices=("all", "last"), what="windows with many targets, or RecBole's prefixes"),
    "window_stride": Key("int", low=1, optional=True, what="targets a training window"),
    "softmax_negatives": Key(
        "int", low=1, optional=True, what="items drawn a step for a sampled softmax; null: the loss is over all items"
    ),
    "softmax_negatives_power": Key(
        "float", low=0, high=1, optional=True, what="power of the popularity by which they are drawn; null: 0.5"
    ),
}
