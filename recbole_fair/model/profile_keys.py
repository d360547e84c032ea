"""Keys that several methods share: popular and unpopular items, and the synthetic users made of them."""

from __future__ import annotations

from recbole_fair.config.concepts import complaint_about, complaint_about_many, complaint_about_steps
from recbole_fair.config.keys import Key

#: How many items are popular, and how many are not.
SHARES: dict[str, Key] = {
    "head_share": Key("float", low=0, high=1, open_low=True, open_high=True, what="share of popular items"),
    "tail_share": Key("float", low=0, high=1, open_low=True, open_high=True, what="share of unpopular items"),
}

#: These, and what they are shares of.
HEAD_TAIL: dict[str, Key] = {
    **SHARES,
    "head_tail_by": Key("str", choices=("items", "interactions"), what="what those shares are shares of"),
}

#: How strengths are found where the user gives none.
CHOSEN_STRENGTHS: dict[str, Key] = {
    "strengths": Key("str", choices=("auto", "fixed"), what="strengths chosen on validation, or those of the settings"),
    "strength_goal": Key("str", what="metric that the choice is to better, such as GiniIndex or PCE"),
    "strength_budget": Key(
        "float", low=0, high=1, open_high=True, what="share of valid_metric that the choice may lose"
    ),
}

#: Users who like only popular, or only unpopular items.
SYNTHETIC_USERS: dict[str, Key] = {
    "synthetic_users": Key("int", low=1, high=10**8, what="synthetic users a side"),
    "synthetic_length": Key(
        "int|str", low=1, choices=("matched",), optional=True, what="items of a synthetic user, or 'matched'"
    ),
}

#: Users whose histories lean most to either side.
LEANING_USERS: dict[str, Key] = {
    "profile_share": Key("float", low=0, high=0.5, open_low=True, what="users a side, of all users"),
    "profile_history": Key("int", low=1, optional=True, what="last training interactions that tell a user's side"),
}

#: What is steered.
CONCEPTS: dict[str, Key] = {
    "concept": Key(
        "str",
        check=complaint_about,
        what="what is steered and counted: popularity, genre:Documentary, user:gender=F or file:items.txt",
    ),
    "concepts": Key(
        "str",
        many=True,
        optional=True,
        check=complaint_about_many,
        what="further concepts of the same fit; a column alone means each of its values",
    ),
    "steer": Key(
        "float|str|dict",
        optional=True,
        check=complaint_about_steps,
        what="steps by concept, 'Documentary=+2, popular=-1', or a step towards the concept itself",
        scope="strength",
    ),
}
