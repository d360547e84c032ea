"""Keys of PopSteer: its autoencoder, its users, its steering."""

from __future__ import annotations

from recbole_fair.config.keys import Key, Need
from recbole_fair.model.profile_keys import CHOSEN_STRENGTHS, CONCEPTS, HEAD_TAIL, LEANING_USERS, SYNTHETIC_USERS

#: On every base.
POPSTEER_KEYS: dict[str, Key] = {
    "neurons_file": Key("path", optional=True, what="path of the CSV neuron table (PopSteer)", scope="file"),
    "sae_scale": Key(
        "int",
        low=1,
        high=10**4,
        what="hidden size of the autoencoder as a multiple of the representation's size",
        need=Need(3e4, "of memory for representations of 64 numbers"),
    ),
    "sae_k": Key("int", low=1, high=10**6, what="latents kept for a user"),
    "sae_encoder_bias": Key("bool", what="whether the autoencoder's encoder has a bias"),
    "sae_selection": Key(
        "str", choices=("topk", "batch_topk", "matryoshka"), what="how the autoencoder's latents are selected"
    ),
    "sae_activation": Key("str", choices=("relu", "abs"), what="largest pre-activations, or largest in magnitude"),
    "sae_score_coef": Key(
        "float", low=0, what="weight of the error in scores of all items beside that of the reconstruction"
    ),
    "sae_aux_coef": Key("float", low=0, what="weight of the dead latents' loss"),
    "sae_dead_after": Key("int", low=1, optional=True, what="inputs without firing after which a latent is dead"),
    "sae_learning_rate": Key("float", low=0, open_low=True, what="learning rate of the autoencoder"),
    "sae_batch_size": Key("int", low=1, what="vectors a training step of the autoencoder"),
    "sae_epochs": Key("int", low=1, what="most passes over the vectors"),
    "sae_max_inputs": Key("int", low=1, optional=True, what="most training vectors seen, repetitions counted"),
    "sae_most_unexplained": Key(
        "float",
        low=0,
        high=1,
        open_low=True,
        optional=True,
        what="variance unexplained above which it is fitted again with more latents a user",
    ),
    "sae_stopping_step": Key("int", low=1, what="epochs without improvement before the autoencoder stops"),
    **HEAD_TAIL,
    **CHOSEN_STRENGTHS,
    "alpha_pop": Key("float", low=0, what="steering strength on neurons that lean to popular users", scope="strength"),
    "alpha_unpop": Key(
        "float", low=0, what="steering strength on neurons that lean to unpopular users", scope="strength"
    ),
    "beta": Key("float", low=0, what="smallest effect size that is steered", scope="strength"),
    "steer_sigma": Key(
        "str", choices=("group", "pooled", "real", "crossed"), what="deviation that scales the steps", scope="strength"
    ),
    "steer_norm": Key(
        "str",
        choices=("global", "side"),
        what="|d| over the largest of all or of its own side",
        scope="strength",
    ),
    "steer_mode": Key(
        "str",
        choices=("popsteer", "noise", "random_select", "dense", "erase", "erase_dense"),
        what="PopSteer, an ablation, or erasing the concept",
        scope="strength",
    ),
    "noise_std": Key("float", low=0, what="noise on the chosen neurons under steer_mode noise", scope="strength"),
    "erase_share": Key(
        "float", low=0, high=1, what="share of the way to the middle of both sides when erasing", scope="strength"
    ),
    "dense_strength": Key(
        "float", low=0, what="step from popular to unpopular users under steer_mode dense", scope="strength"
    ),
    "keep_reconstruction_error": Key("bool", what="add back what the autoencoder cannot reconstruct", scope="strength"),
    **CONCEPTS,
}

#: On a base that reads sequences, which synthetic users can be shown to.
SEQUENTIAL_KEYS: dict[str, Key] = {
    "sae_vectors": Key("str", choices=("all", "last"), what="vectors of all training prefixes, or one a user"),
    "sae_vector_stride": Key("int", low=1, what="prefixes beyond the window that share one pass of the base model"),
    **SYNTHETIC_USERS,
    "synthetic_error": Key(
        "float",
        low=0,
        open_low=True,
        optional=True,
        what="standard error of effect sizes, a share of those above 1, at which drawing users ends",
    ),
}

#: On a base with one vector a user, whose own users are the profiles.
GENERAL_KEYS: dict[str, Key] = {**LEANING_USERS}
