"""Keys of DDC: its two directions, the fine-tuning of two numbers a user, and how much of each is used."""

from __future__ import annotations

from recbole_fair.config.keys import Key
from recbole_fair.model.profile_keys import HEAD_TAIL

DDC_KEYS: dict[str, Key] = {
    **HEAD_TAIL,
    "ddc_head_at_least": Key("int", low=1, optional=True, what="interactions of a popular item, in place of a share"),
    "ddc_tail_at_most": Key("int", low=1, optional=True, what="interactions of an unpopular item, in place of a share"),
    "ddc_direction": Key("str", choices=("pca", "mean"), what="popularity: component of differences, or of means"),
    "ddc_preferred_share": Key(
        "float", low=0, high=1, open_low=True, what="share of a user's training items, best first, that are the taste"
    ),
    "ddc_terms": Key(
        "str", choices=("b_a", "a_a", "b_b", "ab_ab"), what="terms in the scores of positives and of negatives"
    ),
    "ddc_regularization": Key("float", low=0, what="weight of the squares of both numbers in the loss"),
    "ddc_init": Key("float", low=0, what="both numbers start uniform between this and its negative"),
    "ddc_learning_rate": Key("float", low=0, open_low=True, what="learning rate of the two numbers"),
    "ddc_batch_size": Key("int", low=1, what="training interactions a step"),
    "ddc_epochs": Key("int", low=1, what="passes over the training interactions at most"),
    "ddc_stopping_step": Key("int", low=1, what="epochs without a better validation NDCG"),
    "ddc_popularity": Key("float", what="factor on the popularity term in scoring; 1 as learnt", scope="strength"),
    "ddc_preference": Key("float", what="factor on the preference term in scoring; 1 as learnt", scope="strength"),
}
