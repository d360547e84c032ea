"""Keys of ILE and of its baseline IPS."""

from __future__ import annotations

from recbole_fair.config.keys import Key
from recbole_fair.model.profile_keys import HEAD_TAIL

#: Item-loss equalisation.
ILE_KEYS: dict[str, Key] = {
    "ile_weight": Key("float", low=0, what="weight of the distance between the group losses, 0 is the base"),
    "ile_distance": Key("str", choices=("std", "ent", "mad"), what="distance between the group losses"),
    "ile_warmup": Key("float", low=0, what="epochs over which ile_weight rises from 0"),
    **HEAD_TAIL,
}

#: Inverse propensity weights.
IPS_KEYS: dict[str, Key] = {
    "ips_max": Key("float", low=1, what="divisor of the most popular item's loss"),
    "ips_normalize": Key("bool", what="whether the weights have mean 1 over the training interactions"),
}
