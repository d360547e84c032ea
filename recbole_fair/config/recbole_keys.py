"""The configuration keys of RecBole 1.2.1, frozen.

Collected from RecBole's argument lists, from the top level of every yaml file in its ``properties`` folder and from
every ``config["key"]`` in its sources; keys that RecBole computes itself (``device``,
``MODEL_TYPE``, ...) are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from recbole_fair.config.keys import Key, Need
from recbole_fair.config.parts import CLIPPING, EVAL_ARGS, NEGATIVES, clipping_norm, sampling
from recbole_fair.config.recbole_models import OF_MODELS

_READ = """
ENTITY_ID_FIELD HEAD_ENTITY_ID_FIELD ITEM_ID_FIELD
ITEM_LIST_LENGTH_FIELD L1_flag LABEL_FIELD LIST_SUFFIX MASK_INDEX MASK_ITEM_SEQ MAX_ITEM_LIST_LENGTH NEG_ITEMS
NEG_PREFIX POSITION_FIELD POS_ITEMS RATING_FIELD RELATION_ID_FIELD TAIL_ENTITY_ID_FIELD TIME_FIELD
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
CROP_ITEM_SEQ CROP_ITEM_SEQ_LEN INVERSE_ITEM_SEQ MASK_INDEX MASK_ITEM_SEQ REORDER_ITEM_SEQ MODEL_INPUT_TYPE MODEL_TYPE
NEG_ITEMS POS_ITEMS device eval_type model_class single_spec test_neg_sample_args valid_neg_sample_args
"""

#: Every key that RecBole 1.2.1 reads, for any model.
RECBOLE_KEYS: frozenset[str] = frozenset(_READ.split())

#: Keys that RecBole or FairConfig computes from the others: never settings of a user.
COMPUTED_KEYS: frozenset[str] = frozenset(_COMPUTED.split())

#: Keys that say how many processes there are, and where.
PROCESS_KEYS = ("nproc", "world_size", "local_rank", "offset", "ip", "port")


_HERE, _DATA = "machine", "protocol"
_FLAG = Key("bool")
_SHOWN_HERE = Key("bool", scope=_HERE)
_SAVED = Key("path", optional=True, scope=_HERE)
_COLUMN = Key("column", scope=_DATA)
_COLUMNS = Key("list", of=Key("column"), optional=True, scope=_DATA)
_OF_FILES = Key("dict", of=Key("list|str", of=Key("column"), choices=("*",), optional=True), optional=True, scope=_DATA)
_INTERVAL = Key("interval", optional=True, scope=_DATA)
_LEVELS = ("debug", "info", "warning", "error", "critical")
_LEARNERS = ("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam")
_PROCESSES = Need(2e8, "of memory, each being a process of its own")


def _one_field(value: Mapping[str, object]) -> str | None:
    return None if len(value) == 1 else "it must name one field and its bound, as in {rating: 4}"


def _three_parts(value: object) -> str | None:
    if isinstance(value, dict):
        return None if set(value) == {"train", "valid", "test"} else "it must name train, valid and test"
    parts = value if isinstance(value, (list, tuple)) else ()
    return None if len(parts) == 3 else "it must name three parts: training, validation and test"


# One line for humans a key; names of columns say themselves.
_WHAT = {
    "data_path": "folder above the data sets', or a table (parquet, csv, jsonl) in the place of one",
    "checkpoint_dir": "folder of the checkpoints that runs write",
    "gpu_id": "numbers of the GPUs that PyTorch sees; empty: the CPU",
    "use_gpu": "whether to use a GPU if there is one",
    "worker": "processes that load batches beside the main one",
    "state": "least weight of what the log tells",
    "show_progress": "whether to show bars",
    "log_wandb": "send losses, validation scores and final values to Weights & Biases",
    "wandb_project": "name of the project in Weights & Biases",
    "eval_batch_size": "rows of an evaluation batch, where eval_memory_mb does not decide",
    "metric_decimal_place": "digits after the point when metrics are printed",
    "loss_decimal_place": "digits after the point when losses are printed",
    "model": "the model: a name of recbole_fair or RecBole, or module:Class",
    "dataset": "name of the data set: its folder below data_path and its files",
    "encoding": "encoding of the atomic files",
    "field_separator": "sign between the cells of an atomic file",
    "seq_separator": "sign between the values of a cell of the types token_seq and float_seq",
    "load_col": "columns to read, by kind of file",
    "unload_col": "columns not to read, by kind of file",
    "threshold": "field and value from which an interaction has the label 1",
    "val_interval": "fields and intervals of values outside which rows are dropped",
    "rm_dup_inter": "which of repeated interactions of a pair is kept; null: all",
    "filter_inter_by_user_or_item": "drop interactions of users and items that filters dropped",
    "user_inter_num_interval": "interactions that a user must have, such as [5,inf)",
    "item_inter_num_interval": "interactions that an item must have, such as [5,inf)",
    "benchmark_filename": "finished splits: endings of the files for training, validation and test",
    "normalize_all": "scale all columns of numbers to [0, 1]",
    "MAX_ITEM_LIST_LENGTH": "window of sequential models: so many last items are looked at",
    "seed": "of all random draws",
    "eval_args": "split, order and candidates of the evaluation",
    "repeatable": "whether a user may meet an item again, so that nothing seen is masked",
    "valid_metric": "metric that chooses the epoch, with its list length",
    "metrics": "what is measured: names, or module:Class",
    "topk": "lengths of the lists that metrics look at",
    "tail_ratio": "share of tail items in RecBole's TailPercentage",
    "epochs": "passes over the training data, at most",
    "train_batch_size": "rows of a training batch; of a window, targets",
    "eval_step": "epochs between two validations",
    "stopping_step": "validations without a better score before training stops",
    "learning_rate": "step size of the optimizer",
    "weight_decay": "the optimizer's weight of squared parameters",
    "learner": "the optimizer",
    "reproducibility": "the same numbers each time, at some cost on a GPU",
    "shuffle": "whether training rows are drawn in a new order each epoch",
    "enable_amp": "train in mixed precision where the model can",
    "train_neg_sample_args": "how items that a user has not met are drawn for training",
    "clip_grad_norm": "bound of the gradient's norm, as in {max_norm: 5}",
    "pre_model_path": "checkpoint of the stage before, for models trained in stages",
}

#: What RecBole's keys may hold, but those of single models: RecBole checks late, by crashing, or not at all.
GENERAL: dict[str, Key] = {
    # The machine.
    "data_path": Key("path", scope=_HERE),
    "checkpoint_dir": Key("path", scope=_HERE),
    "gpu_id": Key("int|gpus", low=0, high=9999, many=True, optional=True, scope=_HERE, text=True),
    "use_gpu": _SHOWN_HERE,
    "worker": Key("int", low=0, high=1024, scope=_HERE, need=_PROCESSES),
    "nproc": Key("int", low=1, high=1024, scope=_HERE, need=_PROCESSES),
    "world_size": Key("int", low=-1, high=10**5, scope=_HERE),
    "local_rank": Key("int", low=0, high=10**5, optional=True, scope=_HERE),
    "offset": Key("int", low=0, high=10**5, scope=_HERE),
    "ip": Key("str", scope=_HERE),
    "port": Key("int|str", low=1, high=65535, scope=_HERE),
    "state": Key("str", choices=(*_LEVELS, *(name.upper() for name in _LEVELS)), optional=True, scope=_HERE),
    "show_progress": _SHOWN_HERE,
    "log_wandb": _SHOWN_HERE,
    "wandb_project": Key("str", scope=_HERE),
    "eval_batch_size": Key("int", low=1, scope=_HERE),
    "metric_decimal_place": Key("int", low=0, high=15, scope=_HERE),
    "loss_decimal_place": Key("int", low=0, high=15, scope=_HERE),
    "save_dataset": _SHOWN_HERE,
    "save_dataloaders": _SHOWN_HERE,
    "dataset_save_path": _SAVED,
    "dataloaders_save_path": _SAVED,
    "config_file": _SAVED,
    # Names.
    "model": Key("str", imports=True),
    "dataset": Key("str", scope=_DATA),
    # Data.
    "encoding": Key("encoding", scope=_DATA),
    "field_separator": Key("separator", scope=_DATA),
    "seq_separator": Key("separator", scope=_DATA),
    **{name: _COLUMN for name in _READ.split() if name.endswith("_FIELD")},
    "LIST_SUFFIX": _COLUMN,
    "NEG_PREFIX": _COLUMN,
    "load_col": _OF_FILES,
    "unload_col": _OF_FILES,
    "unused_col": _OF_FILES,
    "additional_feat_suffix": Key("column", many=True, optional=True, scope=_DATA),
    "seq_len": Key("dict", of=Key("int", low=1, high=10**6), optional=True, scope=_DATA),
    "alias_of_user_id": _COLUMNS,
    "alias_of_item_id": _COLUMNS,
    "alias_of_entity_id": _COLUMNS,
    "alias_of_relation_id": _COLUMNS,
    "preload_weight": Key("dict", of=Key("column"), optional=True, scope=_DATA),
    "normalize_field": _COLUMNS,
    "normalize_all": Key("bool", optional=True, scope=_DATA),
    "numerical_features": Key("list", of=Key("column")),
    "discretization": Key(
        "dict",
        of=Key("dict", parts={"method": Key("str", choices=("ED", "LD")), "bucket": Key("int", low=1, high=10**6)}),
        optional=True,
    ),
    "kg_reverse_r": Key("bool", scope=_DATA),
    "benchmark_filename": Key("list|dict", of=Key("column"), check=_three_parts, optional=True, scope=_DATA),
    "threshold": Key("dict", of=Key("float"), check=_one_field, optional=True, scope=_DATA),
    "val_interval": Key("dict", of=Key("interval|list"), optional=True, scope=_DATA),
    "rm_dup_inter": Key("str", choices=("first", "last"), optional=True, scope=_DATA),
    "filter_inter_by_user_or_item": Key("bool", scope=_DATA),
    "user_inter_num_interval": _INTERVAL,
    "item_inter_num_interval": _INTERVAL,
    "entity_kg_num_interval": _INTERVAL,
    "relation_kg_num_interval": _INTERVAL,
    "MAX_ITEM_LIST_LENGTH": Key(
        "int", low=1, high=10**5, scope=_DATA, need=Need(8e3, "of memory for a thousand histories")
    ),
    "transform": Key(
        "str", choices=("mask_itemseq", "inverse_itemseq", "crop_itemseq", "reorder_itemseq"), optional=True
    ),
    # Protocol and metrics.
    "seed": Key("int", low=0, high=2**32 - 1, scope="protocol"),
    "eval_args": Key("dict", parts=EVAL_ARGS, scope="protocol"),
    "repeatable": Key("bool", scope="protocol"),
    "valid_metric": Key("str", scope="protocol", imports=True),
    "valid_metric_bigger": Key("bool", scope="protocol"),
    "metrics": Key("str", many=True, scope="evaluation", imports=True),
    "topk": Key(
        "int", low=1, high=10**5, many=True, scope="evaluation", need=Need(8e3, "of memory for a thousand lists")
    ),
    "tail_ratio": Key("float", low=0, open_low=True, optional=True, scope="evaluation"),
    # Training.
    "epochs": Key("int", low=1, high=10**7),
    "train_batch_size": Key("int", low=1),
    "eval_step": Key("int", low=0),
    "stopping_step": Key("int", low=0),
    "learning_rate": Key("float", low=0, open_low=True, high=1e3),
    "weight_decay": Key("float", low=0, high=1e6),
    "learner": Key("str", choices=_LEARNERS),
    "reproducibility": _FLAG,
    "shuffle": _FLAG,
    "enable_amp": _FLAG,
    "enable_scaler": _FLAG,
    "require_pow": _FLAG,
    "train_neg_sample_args": Key("dict", parts=NEGATIVES, check=sampling, optional=True),
    "clip_grad_norm": Key("dict", parts=CLIPPING, check=clipping_norm, optional=True),
    "pre_model_path": Key("str", optional=True),
}

GENERAL = {name: replace(key, what=_WHAT.get(name, "")) for name, key in GENERAL.items()}

#: What all keys of RecBole may hold.
RECBOLE: dict[str, Key] = {**OF_MODELS, **GENERAL}
