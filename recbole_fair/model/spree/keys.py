"""Keys of SPREE: where popularity is probed, how biased a list is, how far users are moved."""

from __future__ import annotations

from recbole_fair.config.keys import Key
from recbole_fair.model.profile_keys import CHOSEN_STRENGTHS, CONCEPTS, LEANING_USERS, SHARES, SYNTHETIC_USERS

#: On every base.
SPREE_KEYS: dict[str, Key] = {
    "spree_strength": Key("float", what="steering strength lambda, any real number; 0 is the base", scope="strength"),
    "spree_adaptive": Key(
        "bool", what="whether each user's step is that user's estimated bias (Eq. 5) or 1 (Eq. 3)", scope="strength"
    ),
    "spree_sites": Key("str|list", choices=("last", "grid"), what="places to probe, or [[block, position], ...]"),
    "bias_list_length": Key("int", low=1, high=10**6, what="length of the lists whose popularity bias is learnt"),
    "bias_regularization": Key(
        "float|str", low=0, open_low=True, choices=("cv",), what="L1 penalty of the bias estimator"
    ),
    **SHARES,
    **CHOSEN_STRENGTHS,
    **SYNTHETIC_USERS,
    **CONCEPTS,
}

#: On a base with one vector a user, whose own users are the profiles.
GENERAL_KEYS: dict[str, Key] = {**LEANING_USERS}
