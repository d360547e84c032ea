"""What the settings of RecBole's models may hold; RecBole itself checks hardly any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from recbole_fair.config.keys import Key, Need
from recbole_fair.config.kinds import is_whole

_TABLE = Need(4e3, "of memory for a table of a thousand rows")
_LAYERS = Need(16_384, "of memory at a width of 64")
_SIZE = Key("int", low=1, high=10**5, need=_TABLE)
_DEPTH = Key("int", low=0, high=1000, need=_LAYERS)
_LAYER = Key("int", low=1, high=1000, need=_LAYERS)
_COUNT = Key("int", low=0, high=10**7)
_STEPS = Key("int", low=1, high=10**9)
_WEIGHT = Key("float", low=0)
_NUMBER = Key("float")
_POSITIVE = Key("float", low=0, open_low=True)
_SHARE = Key("float", low=0, high=1)
_DROPOUT = Key("float", low=0, high=1, open_high=True)
_FLAG = Key("bool")
_LIKE_FLAG = Key("bool|int", low=0, high=1)
_LAYER_SIZES = Key("list", of=_SIZE)
_WEIGHTS = Key("list", of=_WEIGHT)
_PATH = Key("path", optional=True)
_COLUMN = Key("column")
_COLUMNS = Key("list", of=_COLUMN)
_ACTIVATIONS = ("sigmoid", "tanh", "relu", "leakyrelu", "none")
_POOLING = ("mean", "max", "sum")


def _of(key: Key, names: str) -> Iterator[tuple[str, Key]]:
    return ((name, key) for name in names.split())


def _fields_of(value: Mapping[object, object]) -> str | None:
    if all(is_whole(number) and _COLUMNS.accepts(names) for number, names in value.items()):
        return None
    return "it must give the columns of each field by its number, as in {0: [user_id], 1: [item_id, class]}"


def _one_of(*choices: str) -> Key:
    return Key("str", choices=choices)


#: Keys of one or several models, by name.
OF_MODELS: dict[str, Key] = {
    **dict(
        _of(
            _SIZE,
            """
            attention_size class_num embedding_size expert_num gcn_output_dim hidden_dimension hidden_size inner_size
            interest_size item_embedding_size kernel_size kfac kg_embedding_size latent_dimension low_rank
            mf_embedding_size mlp_embedding_size neigh_embedding_size neigh_num neighbor_sample_size nh nv
            num_basis_functions num_clusters num_conv_kernel pool_kernel_size conv_kernel_size prototype_size rank
            ui_embedding_size user_embedding_size weight_size n_memory k k_interests history_len history_num_per_term
            n_factors n_heads num_heads n_facet n_facet_all n_facet_context n_facet_emb n_facet_hidden n_facet_reranker
            reranker_CAN_NUM short_item_length metrics_k n_cate order_len feature_num topk_factor
            """,
        )
    ),
    **dict(
        _of(
            _LAYER,
            """
            block_num context_hops cross_layer_num depth high_layers_num high_order hyper_layers item_agg_layer
            lightgcn_layer low_layers_num n_hop n_hops n_iter n_iterations num_layers order step t_depth
            """,
        )
    ),
    "n_layers": _LAYER,
    **dict(
        _of(
            _STEPS,
            """
            anneal_steps kge_interval m_step n_dec_epochs n_enc_epochs pretrain_epochs save_step steps
            train_kg_step train_rec_step vae_anneal_steps resolution
            """,
        )
    ),
    **dict(_of(_COUNT, "sampling_steps split_to warm_up_step token_num_threhold token_num_threshold")),
    "total_anneal_steps": _COUNT,  # 0: no annealing
    **dict(
        _of(
            _WEIGHT,
            """
            aap_weight align_weight alpha anneal_cap beta cor_weight gamma initializer_range kg_weight l1_ratio lambda1
            lambda2 lambda_coeff lamda lmd lmd_sem ls_weight map_weight mip_weight negative_weight noise_max noise_min
            noise_scale proto_reg q reg_loss_ratio reg_weight_1 reg_weight_2 rho second_order_loss_weight
            shrink sim_regularity sp_weight ssl_reg ssl_weight vae_anneal_cap w_max w_min weight spatial_ratio
            global_ratio
            """,
        )
    ),
    **dict(_of(_POSITIVE, "layer_norm_eps ssl_tau ssl_temp tau temperature tau_ratio")),
    "margin": _NUMBER,
    **dict(_of(_SHARE, "corruption_ratio eta ft_ratio mask_ratio")),
    **dict(
        _of(
            _DROPOUT,
            """
            attn_dropout_prob drop_ex drop_im drop_ratio dropout hidden_dropout_prob item_dropout mess_dropout
            mess_dropout_rate message_dropout node_dropout node_dropout_rate sess_dropout
            """,
        )
    ),
    "dropout_prob": Key("float", low=0, high=1, open_high=True, many=True),
    "dropout_probs": Key("list", of=_DROPOUT),
    **dict(
        _of(
            _FLAG,
            """
            L1_flag apply_norm beta_fixed build_graph_separately center_columns convert_token_to_onehot direct
            double_tower dual_domain fredom freeze_kg has_residual hide_item joint_train mf_train mixed mlp_train nogb
            norm positive_only reparam reweight sampling_noise sparse_feature time-aware use_filter use_inner
            use_inner_product use_out_emb use_outer use_pretrain use_st_gumbel
            """,
        )
    ),
    **dict(_of(_LIKE_FLAG, "context_norm use_proj_bias post_remove_context")),
    **dict(_of(Key("int", low=-1000, high=1000), "n_facet_MLP n_facet_window")),
    "std": Key("bool|float", low=0),
    **dict(
        _of(
            _LAYER_SIZES,
            """
            cin cin_layer_size cnn_channels cnn_kernels cnn_strides critic_layers dilations dims_dnn encoder_hidden_size
            hidden_size_list in_dims item_hidden_size_list layers mlp_hidden_size order_list out_dims t_cin
            user_hidden_size_list
            """,
        )
    ),
    "reg_weight": Key("float", low=0, many=True),
    **dict(_of(_WEIGHTS, "mixture_weights reg_weights")),
    **dict(_of(_PATH, "pretrain_path mf_pretrain_path mlp_pretrain_path")),
    "item_attribute": _COLUMN,
    "selected_features": _COLUMNS,
    "fields": Key("dict", check=_fields_of, optional=True),
    # Choices.
    "accum": _one_of("stack", "sum"),
    "ae_act_func": _one_of(*_ACTIVATIONS),
    "mlp_act_func": _one_of(*_ACTIVATIONS),
    "hid_activation": _one_of("relu", "sigmoid", "tanh"),
    "out_activation": _one_of("sigmoid", "relu"),
    "hidden_act": _one_of("gelu", "relu", "swish", "tanh", "sigmoid"),
    "aggregator": _one_of("sum", "neighbor", "concat", "mean", "user_attention", "self_attention"),
    "aggregator_type": _one_of("gcn", "graphsage", "bi"),
    "algorithm": _one_of("prod", "concat"),
    "contrast": _one_of("un", "su", "us", "us_x"),
    "dnn_type": _one_of("trm", "ave"),
    "fredom_type": Key("str", choices=("un", "su", "us", "us_x", "None"), optional=True),
    "gru_type": _one_of("GRU", "AIGRU", "AGRU", "AUGRU"),
    "ind": _one_of("cosine", "distance", "mi"),
    "inter_matrix_type": _one_of("01", "rating"),
    "knn_method": _one_of("item", "user"),
    "loss_function": _one_of("inner_product", "transe"),
    "loss_type": Key("str"),
    "mean_type": _one_of("x0", "eps"),
    "neigh_info_method": _one_of("random", "knn", "louvain"),
    "noise_schedule": _one_of("linear", "linear-var", "cosine", "binomial"),
    "partition_merging_mode": _one_of("replace", "add", "half"),
    "phase": _one_of("teacher_training", "distillation", "finetuning"),
    "pooling_mode": _one_of(*_POOLING),
    "pooling_type": _one_of("average", "max"),
    "pooling_type_layer_1": _one_of("max", "average"),
    "pooling_type_layer_2": _one_of("max", "average"),
    "reranker_merging_mode": _one_of("replace", "add"),
    "sim": _one_of("dot", "cos"),
    "structure": _one_of("stacked", "parallel"),
    # RecBole evaluates this text; its own classes of teachers are all that it can name.
    "teacher": _one_of("CrossNet", "CIN"),
    "train_method": _one_of("no_pretrain", "after_pretrain"),
    "train_stage": Key("str"),
    "type": _one_of("ED", "ND", "RW", "inner", "outer"),
    "warm_up": Key("str"),
    "weight_mode": _one_of("", "dynamic", "static", "max_logits"),
    # Decision trees, whose settings their libraries check.
    "lgb_params": Key("dict", of=Key("any")),
    "lgb_num_boost_round": Key("int", low=1, high=10**6),
    "lgb_early_stopping_rounds": Key("int", low=1, high=10**6, optional=True),
    "xgb_params": Key("dict", of=Key("any")),
    "xgb_num_boost_round": Key("int", low=1, high=10**6),
    "xgb_early_stopping_rounds": Key("int", low=1, high=10**6, optional=True),
    "xgb_model": _PATH,
    "xgb_nthread": Key("int", low=-1, high=1024, optional=True),
    "xgb_silent": Key("bool|int", low=0, high=3, optional=True),
    "xgb_verbose_eval": Key("bool|int", low=0, high=10**6),
    "verbose": Key("bool|int", low=0, high=10),
}

_OF_GRAPHS = _one_of("sum", "neighbor", "concat")
#: What single models take of a setting that several have.
OF_ONE_MODEL: dict[str, dict[str, Key]] = {
    "CDAE": {"loss_type": _one_of("BCE", "MSE")},
    "KD_DAGFM": {"type": _one_of("inner", "outer")},
    "KGCN": {"aggregator": _OF_GRAPHS},
    "KGNNLS": {"aggregator": _OF_GRAPHS},
    "SGL": {"type": _one_of("ED", "ND", "RW")},
    "SimpleX": {"aggregator": _one_of("mean", "user_attention", "self_attention")},
}
