"""Keys of DecRS: adjustment, inference, controls, features."""

from __future__ import annotations

from dataclasses import replace

from recbole_fair.config.general_keys import KEYS
from recbole_fair.config.keys import Key

#: On every factorisation machine.
DECRS_KEYS: dict[str, Key] = {
    # The model is built of these groups, beside what the metrics do with them.
    "group_field": replace(KEYS["group_field"], scope="training"),
    "mediator": Key("str", choices=("fm", "product", "none"), what="Eq. 8, Eq. 7, or the plain machine alone"),
    "confounder_prior": Key("str", choices=("interactions", "catalogue", "uniform"), what="prior over item groups"),
    "group_init_std": Key("float", low=0, what="standard deviation of the initial vectors of item groups"),
    "inference": Key(
        "str",
        choices=("fused", "deconfounded", "backbone", "backbone2", "control"),
        what="variant a run is about",
        scope="strength",
    ),
    "fusion_alpha": Key(
        "float", low=0, what="exponent of the drift in the weight of the deconfounded model", scope="strength"
    ),
    "fusion_control": Key("bool", what="whether to mix the backbone with a second backbone as well"),
    "drift_history": Key("str", choices=("train", "train_valid"), what="interactions that interest drift is read from"),
    "unawareness": Key("bool", what="whether the item groups are left out of the features"),
    "user_features": Key("str|list", what="columns of the user file that are features: all, or a list"),
    "item_features": Key("str|list", what="columns of the item file beside group_field that are: all, or a list"),
    "propensity": Key("str", choices=("none", "user", "item"), what="whose inverse propensity weighs the loss (IPS)"),
    "propensity_clip": Key("float", low=1, what="largest of these weights"),
}
