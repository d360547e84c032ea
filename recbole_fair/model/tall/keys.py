"""Keys of TALL, of MultVAE on which it stands, and of its baselines."""

from __future__ import annotations

from recbole_fair.config.keys import Key, Need

#: The autoencoder of every expert.
MULTVAE_KEYS: dict[str, Key] = {
    "kl_reduction": Key("str", choices=("mean", "sum"), what="mean or sum over the users of a batch"),
}

#: Experts, or local models.
EXPERTS_KEYS: dict[str, Key] = {
    "n_experts": Key(
        "int",
        low=1,
        high=10**5,
        what="experts (TALL) or local models (LOCA, EnLFT)",
        need=Need(8e5, "of memory for a thousand items"),
    ),
}

#: Gate, users' weights and their schedule.
TALL_KEYS: dict[str, Key] = {
    **EXPERTS_KEYS,
    "gate": Key("str", choices=("inverse", "softmax", "uniform", "mlp"), what="how the experts are weighted"),
    "gate_norm": Key("str", choices=("sum", "mean"), what="losses in the gate: sum or mean over the held-out items"),
    "gate_temperature": Key("float", low=0, open_low=True, what="divides what the gate's softmax is taken of"),
    "gate_grad": Key("bool", what="whether gradients flow through the loss-driven gate"),
    "gate_source": Key("str", choices=("fold", "valid"), what="held-out items: of training, or the validation items"),
    "gate_fold_share": Key(
        "float", low=0, high=1, open_low=True, open_high=True, what="share of a user's training items that is held out"
    ),
    "gate_hidden_size": Key(
        "int",
        low=1,
        high=10**6,
        what="hidden units of the gate under gate mlp",
        need=Need(4e3, "of memory for a thousand items"),
    ),
    "weight_signal": Key("str", choices=("change", "loss", "none"), what="what the users' weights follow from"),
    "weight_norm": Key("str", choices=("sum", "mean"), what="losses in the weights: sum or mean over held-out items"),
    "weight_alpha": Key("float", low=0, open_low=True, what="the smaller, the more unequal the users' weights"),
    "weight_solver": Key("str", choices=("clip", "simplex"), what="the paper's closed form, or the exact solution"),
    "weight_decay_by_experts": Key("bool", what="whether weight_decay is divided by the number of experts"),
    "gap": Key("int", low=0, what="epochs before users are weighted; early stopping counts from there"),
    "loss_window": Key(
        "int",
        low=1,
        high=10**5,
        what="changes of the loss that are averaged",
        need=Need(8e3, "of memory for a thousand users"),
    ),
}

#: Weights against the mainstream.
WL_KEYS: dict[str, Key] = {
    "wl_exponent": Key("float", low=0, what="exponent of the distance from the mainstream, 0 for equal weights"),
}

#: Local models around anchors.
LOCA_KEYS: dict[str, Key] = {
    **EXPERTS_KEYS,
    "loca_anchors": Key("str", choices=("coverage", "kmeans", "random"), what="how LOCA's anchors are chosen"),
    "loca_train_h": Key("float", low=0, open_low=True, what="width of LOCA's kernel in training"),
    "loca_test_h": Key("float", low=0, open_low=True, what="width of LOCA's kernel in scoring"),
}

#: Copies fine-tuned around users.
LFT_KEYS: dict[str, Key] = {
    "lft_smoothing": Key("float", low=0, high=1, what="weight of a user's own row in the smoothed profile"),
    "lft_smoothing_threshold": Key("float", low=0, high=1, what="similarity from which other users smooth a profile"),
    "lft_threshold": Key("float", low=0, high=1, what="similarity of profiles above which users are neighbours"),
    "lft_min_neighbors": Key("int", low=1, what="smallest number of neighbours"),
    "lft_max_neighbors": Key("int", low=1, optional=True, what="largest number of neighbours"),
    "lft_epochs": Key("int", low=0, what="passes of a copy over its users"),
    "lft_batch_size": Key("int", low=1, what="users a step of fine-tuning"),
    "lft_learning_rate": Key("float", low=0, open_low=True, what="learning rate of fine-tuning"),
    "lft_weight_decay": Key("float", low=0, what="weight decay of fine-tuning"),
    "lft_dropout": Key("float", low=0, high=1, open_high=True, what="dropout of input items in fine-tuning"),
    "lft_beta": Key("float", low=0, what="weight of the divergence in fine-tuning"),
    "lft_chunk": Key("int", low=1, optional=True, what="copies fine-tuned at once"),
}
