"""The configuration keys of RecBole 1.2.1, frozen.

Collected from RecBole's argument lists, from the top level of every yaml file in its ``properties`` folder and from
every ``config["key"]`` in its sources; keys that RecBole computes itself (``device``,
``MODEL_TYPE``, ...) are left out.
"""

from __future__ import annotations

from recbole_fair.config.keys import Key

_READ = """
CROP_ITEM_SEQ CROP_ITEM_SEQ_LEN ENTITY_ID_FIELD HEAD_ENTITY_ID_FIELD INVERSE_ITEM_SEQ ITEM_ID_FIELD
ITEM_LIST_LENGTH_FIELD L1_flag LABEL_FIELD LIST_SUFFIX MASK_INDEX MASK_ITEM_SEQ MAX_ITEM_LIST_LENGTH NEG_ITEMS
NEG_PREFIX POSITION_FIELD POS_ITEMS RATING_FIELD RELATION_ID_FIELD REORDER_ITEM_SEQ TAIL_ENTITY_ID_FIELD TIME_FIELD
USER_ID_FIELD aap_weight accum additional_feat_suffix ae_act_func aggregator aggregator_type algorithm
alias_of_entity_id alias_of_item_id alias_of_relation_id alias_of_user_id align_weight alpha anneal_cap anneal_steps
apply_norm attention_size attn_dropout_prob benchmark_filename beta beta_fixed block_num build_graph_separately
center_columns checkpoint_dir cin cin_layer_size class_num clip_grad_norm cnn_channels cnn_kernels cnn_strides
config_file context_hops context_norm contrast conv_kernel_size convert_token_to_onehot cor_weight corruption_ratio
critic_layers cross_layer_num data_path dataloaders_save_path dataset dataset_save_path depth dilations dims_dnn
direct discretization dnn_type double_tower drop_ex drop_im drop_ratio dropout dropout_prob dropout_probs
dual_domain embedding_size enable_amp enable_scaler encoder_hidden_size encoding entity_kg_num_interval epochs eta
eval_args eval_batch_size eval_step expert_num feature_num field_separator fields filter_inter_by_user_or_item
fredom fredom_type freeze_kg ft_ratio gamma gcn_output_dim global_ratio gpu_id gru_type has_residual hid_activation
hidden_act hidden_dimension hidden_dropout_prob hidden_size hidden_size_list hide_item high_layers_num high_order
history_len history_num_per_term hyper_layers in_dims ind initializer_range inner_size inter_matrix_type
interest_size ip item_agg_layer item_attribute item_dropout item_embedding_size item_hidden_size_list
item_inter_num_interval joint_train k k_interests kernel_size kfac kg_embedding_size kg_reverse_r kg_weight
kge_interval knn_method l1_ratio lambda1 lambda2 lambda_coeff lamda latent_dimension layer_norm_eps layers learner
learning_rate lgb_early_stopping_rounds lgb_num_boost_round lgb_params lightgcn_layer lmd lmd_sem load_col
local_rank log_wandb loss_decimal_place loss_function loss_type low_layers_num low_rank ls_weight m_step map_weight
margin mask_ratio mean_type mess_dropout mess_dropout_rate message_dropout metric_decimal_place metrics metrics_k
mf_embedding_size mf_pretrain_path mf_train mip_weight mixed mixture_weights mlp_act_func mlp_embedding_size
mlp_hidden_size mlp_pretrain_path mlp_train model n_cate n_dec_epochs n_enc_epochs n_facet n_facet_MLP n_facet_all
n_facet_context n_facet_emb n_facet_hidden n_facet_reranker n_facet_window n_factors n_heads n_hop n_hops n_iter
n_iterations n_layers n_memory negative_weight neigh_embedding_size neigh_info_method neigh_num neighbor_sample_size
nh node_dropout node_dropout_rate nogb noise_max noise_min noise_scale noise_schedule norm normalize_all
normalize_field nproc num_basis_functions num_clusters num_conv_kernel num_heads num_layers numerical_features nv
offset order order_len order_list out_activation out_dims partition_merging_mode phase pool_kernel_size pooling_mode
pooling_type pooling_type_layer_1 pooling_type_layer_2 port positive_only post_remove_context pre_model_path
preload_weight pretrain_epochs pretrain_path proto_reg prototype_size q rank reg_loss_ratio reg_weight reg_weight_1
reg_weight_2 reg_weights relation_kg_num_interval reparam repeatable reproducibility require_pow reranker_CAN_NUM
reranker_merging_mode resolution reweight rho rm_dup_inter sampling_noise sampling_steps save_dataloaders
save_dataset save_step second_order_loss_weight seed selected_features seq_len seq_separator sess_dropout
short_item_length show_progress shrink shuffle sim sim_regularity sp_weight sparse_feature spatial_ratio split_to
ssl_reg ssl_tau ssl_temp ssl_weight state std step steps stopping_step structure t_cin t_depth tail_ratio tau
tau_ratio teacher temperature threshold time-aware token_num_threhold token_num_threshold topk topk_factor
total_anneal_steps train_batch_size train_kg_step train_method train_neg_sample_args train_rec_step train_stage
transform type ui_embedding_size unload_col unused_col use_filter use_gpu use_inner use_inner_product use_out_emb
use_outer use_pretrain use_proj_bias use_st_gumbel user_embedding_size user_hidden_size_list user_inter_num_interval
vae_anneal_cap vae_anneal_steps val_interval valid_metric valid_metric_bigger verbose w_max w_min wandb_project
warm_up warm_up_step weight weight_decay weight_mode weight_size worker world_size xgb_early_stopping_rounds
xgb_model xgb_nthread xgb_num_boost_round xgb_params xgb_silent xgb_verbose_eval
"""

_COMPUTED = """
MASK_INDEX MASK_ITEM_SEQ MODEL_INPUT_TYPE MODEL_TYPE NEG_ITEMS POS_ITEMS device eval_type model_class single_spec
test_neg_sample_args valid_neg_sample_args
"""

#: Every key that RecBole 1.2.1 reads, for any model.
RECBOLE_KEYS: frozenset[str] = frozenset(_READ.split())

#: Keys that RecBole or FairConfig computes from the others: never settings of a user.
COMPUTED_KEYS: frozenset[str] = frozenset(_COMPUTED.split())

_SIZE = Key("int", low=1)
_COUNT = Key("int", low=0)
_FLAG = Key("bool")
_DROPOUT = Key("float", low=0, high=1, open_high=True)
_PATH = Key("str", optional=True)
_DATA = "protocol"
_FIELD = Key("str", scope=_DATA)
_COLUMNS = Key("any", optional=True, scope=_DATA)
_INTERVAL = Key("str", optional=True, scope=_DATA)
_HERE = "machine"
_SHOWN_HERE = Key("bool", scope=_HERE)
_SAVED = Key("str", optional=True, scope=_HERE)
_LEVELS = ("debug", "info", "warning", "error", "critical")
_LEARNERS = ("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam")

#: What RecBole's keys may hold; RecBole itself checks late, by crashing, or not at all.
RECBOLE: dict[str, Key] = {
    # The machine.
    "data_path": Key("str", scope=_HERE),
    "checkpoint_dir": Key("str", scope=_HERE),
    "gpu_id": Key("int|str", low=0, many=True, optional=True, scope=_HERE, text=True),
    "use_gpu": _SHOWN_HERE,
    "worker": Key("int", low=0, scope=_HERE),
    "nproc": Key("any", scope=_HERE),
    "world_size": Key("any", scope=_HERE),
    "local_rank": Key("any", scope=_HERE),
    "offset": Key("any", scope=_HERE),
    "ip": Key("str", scope=_HERE),
    "port": Key("any", scope=_HERE),
    "state": Key("str", choices=(*_LEVELS, *(name.upper() for name in _LEVELS)), optional=True, scope=_HERE),
    "show_progress": _SHOWN_HERE,
    "log_wandb": _SHOWN_HERE,
    "wandb_project": Key("str", scope=_HERE),
    "eval_batch_size": Key("int", low=1, scope=_HERE),
    "metric_decimal_place": Key("int", low=0, scope=_HERE),
    "loss_decimal_place": Key("int", low=0, scope=_HERE),
    "save_dataset": Key("any", scope=_HERE),
    "save_dataloaders": Key("any", scope=_HERE),
    "dataset_save_path": _SAVED,
    "dataloaders_save_path": _SAVED,
    "config_file": _SAVED,
    # Names.
    "model": Key("str", imports=True),
    "dataset": Key("str", scope=_DATA),
    # Data.
    "encoding": Key("str", scope=_DATA),
    "field_separator": Key("str", scope=_DATA),
    "seq_separator": Key("str", scope=_DATA),
    **{name: _FIELD for name in _READ.split() if name.endswith("_FIELD")},
    "LIST_SUFFIX": _FIELD,
    "NEG_PREFIX": _FIELD,
    "load_col": Key("dict", optional=True, scope=_DATA),
    "unload_col": _COLUMNS,
    "unused_col": _COLUMNS,
    "additional_feat_suffix": _COLUMNS,
    "seq_len": _COLUMNS,
    "alias_of_user_id": _COLUMNS,
    "alias_of_item_id": _COLUMNS,
    "alias_of_entity_id": _COLUMNS,
    "alias_of_relation_id": _COLUMNS,
    "preload_weight": _COLUMNS,
    "normalize_field": _COLUMNS,
    "normalize_all": Key("any", scope=_DATA),
    "benchmark_filename": _COLUMNS,
    "threshold": Key("dict", optional=True, scope=_DATA),
    "val_interval": Key("dict", optional=True, scope=_DATA),
    "rm_dup_inter": Key("str", choices=("first", "last"), optional=True, scope=_DATA),
    "filter_inter_by_user_or_item": Key("any", scope=_DATA),
    "user_inter_num_interval": _INTERVAL,
    "item_inter_num_interval": _INTERVAL,
    "entity_kg_num_interval": _INTERVAL,
    "relation_kg_num_interval": _INTERVAL,
    "MAX_ITEM_LIST_LENGTH": Key("int", low=1, scope=_DATA),
    # Protocol and metrics.
    "seed": Key("int", low=0, high=2**32 - 1, scope="protocol"),
    "eval_args": Key("dict", scope="protocol"),
    "repeatable": Key("any", scope="protocol"),
    "valid_metric": Key("str", scope="protocol", imports=True),
    "metrics": Key("str", many=True, scope="evaluation", imports=True),
    "topk": Key("int", low=1, many=True, scope="evaluation"),
    "tail_ratio": Key("float", low=0, open_low=True, optional=True, scope="evaluation"),
    # Training.
    "epochs": _SIZE,
    "train_batch_size": _SIZE,
    "eval_step": _COUNT,
    "stopping_step": _COUNT,
    "learning_rate": Key("float", low=0, open_low=True),
    "weight_decay": Key("float", low=0),
    "learner": Key("str", choices=_LEARNERS),
    "reproducibility": _FLAG,
    "shuffle": _FLAG,
    "train_neg_sample_args": Key("dict", optional=True),
    "clip_grad_norm": Key("dict", optional=True),
    "pre_model_path": _PATH,
    "pretrain_path": _PATH,
    "mf_pretrain_path": _PATH,
    "mlp_pretrain_path": _PATH,
    # Models.
    "n_layers": _COUNT,
    "n_heads": _SIZE,
    "hidden_size": _SIZE,
    "inner_size": _SIZE,
    "embedding_size": _SIZE,
    "hidden_dropout_prob": _DROPOUT,
    "attn_dropout_prob": _DROPOUT,
    "dropout_prob": Key("float", low=0, high=1, open_high=True, many=True),
    "layer_norm_eps": Key("float", low=0, open_low=True),
    "initializer_range": Key("float", low=0),
    "hidden_act": Key("str", choices=("gelu", "relu", "swish", "tanh", "sigmoid")),
}
