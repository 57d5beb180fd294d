"""A configuration of a model type with the smallest sizes that still have every part: from its class's own defaults."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

VOCABULARY = 128
"""Tokens of the text that tiny models speak; see `text.py`."""
WIDTH = 32
HEADS = 4
LAYERS = 2

# What a number means is told by its name. Later rules do not see what an earlier one took.
_RULES: tuple[tuple[tuple[str, ...], int], ...] = (
    (("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num", "num_global_key_value_heads"), 2),
    (("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads",
      "attention_heads", "num_decoder_attention_heads", "num_encoder_attention_heads", "n_layer_heads"), HEADS),
    (("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers", "num_encoder_layers",
      "num_decoder_layers", "num_decoder_hidden_layers", "num_blocks"), LAYERS),
    (("intermediate_size", "n_inner", "ffn_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size", "d_inner",
      "dim_feedforward", "inner_dim", "feed_forward_proj_dim", "mlp_dim", "intermediate_dim"), 2 * WIDTH),
    (("hidden_size", "n_embd", "d_model", "dim", "hidden_dim", "embed_dim", "emb_dim"), WIDTH),
    (("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size", "shared_intermediate_size"), WIDTH),
    (("head_dim", "attention_head_dim", "kv_channels", "v_head_dim", "d_kv", "global_head_dim"), WIDTH // HEADS),
    (("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    (("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"), 2),
    (("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "max_seq_len", "seq_length"), 256),
    (("projection_dim", "pronunciation_embed_dim", "shape_embed_dim"), WIDTH),
    (("rotary_dim",), 4),
    (("qk_rope_head_dim", "qk_nope_head_dim", "linear_key_head_dim", "linear_value_head_dim", "mamba_d_head", "mamba_head_dim",
      "mamba_headdim", "index_head_dim"), 8),
    (("kv_lora_rank", "q_lora_rank", "state_size", "mamba_d_state", "ssm_state_size", "hidden_size_per_layer_input",
      "mamba_dt_rank", "time_step_rank"), 16),
    (("mamba_n_heads", "mamba_num_heads", "n_mamba_heads"), 8),
    (("mamba_d_ssm",), 64),
    (("linear_num_key_heads", "index_n_heads"), 2),
    (("linear_num_value_heads",), 4),
    (("num_dense_layers", "first_k_dense_replace", "topk_group"), 1),
    (("n_group",), 2),
    (("chunk_size", "mamba_chunk_size"), 16),
    (("image_size", "pretrain_img_size"), 64),
    (("num_frames", "frames_per_clip"), 4),
    (("num_queries", "num_object_queries", "num_detection_tokens"), 6),
    (("feature_size", "mask_feature_size", "fpn_feature_size", "fusion_hidden_size", "encoder_hidden_dim",
      "decoder_hidden_size", "encoder_feedforward_dim", "decoder_hidden_dim", "reassemble_hidden_size", "pool_hidden_size",
      "auxiliary_channels"), WIDTH),
)  # fmt: skip
_SIZES = {name: size for names, size in _RULES for name in names}
_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2,
            "unk_token_id": 3, "mask_token_id": 4, "decoder_start_token_id": 1, "forced_eos_token_id": None,
            "forced_bos_token_id": None}  # fmt: skip
FIRST_MARK = 5
"""Tokens from here on mark images, sounds and the like in a text; see `text.py`."""
MARKS = 16


def tiny_config(model_type: str, changes: Mapping[str, Any] | None = None) -> Any:
    """The configuration of `model_type`, shrunk; `changes` go before the rules: a table in them changes a nested configuration,
    or is a whole other one if it names its model_type.

    Raises:
        Exception: whatever the configuration's class raises for such sizes.
    """
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    try:
        made = kind()
    except Exception:  # made of parts that must be given
        fields = {}
    else:
        fields = _shrunk(_fields_of(made))
    _merge(fields, changes or {})
    if "out_indices" in (changes or {}):
        fields.pop("out_features", None)
    return kind(**fields)


def _fields_of(made: Any) -> dict[str, Any]:
    """What a configuration is made with, nested ones as tables. What it works out from other sizes is left to it."""
    parameters = inspect.signature(type(made).__init__).parameters
    fields = {}
    for name, value in made.to_dict().items():
        if name not in parameters and name != "out_features":
            continue
        derived = (
            name in parameters
            and parameters[name].default is None
            and isinstance(value, (int, float))
            and not isinstance(value, bool)
        )
        if not derived or name in _SIZES or name.endswith("_id"):
            fields[name] = value
    fields["layers of it"] = next((value for name, value in fields.items() if _is_depth(name, value)), 0)
    for name in getattr(made, "sub_configs", {}):
        nested = getattr(made, name, None)
        if nested is not None and hasattr(nested, "to_dict"):
            inner = _fields_of(nested) | {"model_type": nested.model_type}
            fields[name] = {key: value for key, value in inner.items() if key not in ("transformers_version",)}
    return fields


def _shrunk(fields: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    marks = 0
    depth = fields.get("layers of it", 0)
    for name, value in fields.items():
        if name == "layers of it":
            continue
        if isinstance(value, Mapping) and ("model_type" in value or name.endswith("_config")):
            made[name] = _shrunk(value)
        elif name in _SPECIAL:
            made[name] = (
                None if value is None and name not in ("pad_token_id", "eos_token_id", "bos_token_id") else _SPECIAL[name]
            )
        elif name.endswith(("token_id", "token_index")) and isinstance(value, int) and value >= 0:
            made[name] = FIRST_MARK + marks % MARKS
            marks += 1
        elif name.endswith("vocab_size") and isinstance(value, int) and value > 16:
            made[name] = VOCABULARY
        elif isinstance(value, list) and depth > LAYERS and len(value) == depth:
            made[name] = _kinds([min(each, _SIZES[name]) if name in _SIZES else each for each in value])
        elif isinstance(value, (list, tuple)) and value and all(type(each) is int for each in value) and "ndices" not in name:
            made[name] = _stages(name, list(value))
        elif name == "patch_size" and isinstance(value, int) and value > 8:
            made[name] = 16
        elif name == "window_size" and isinstance(value, int) and 2 < value <= 16:
            made[name] = 2
        elif name in _SIZES and isinstance(value, int) and not isinstance(value, bool):
            made[name] = min(value, _SIZES[name]) if value > 0 else value
        else:
            made[name] = value
    stages = made.get("out_features")
    if depth and stages:  # of a transformer: one layer for each that is read
        made["out_features"] = [f"stage{n + 1}" for n in range(len(stages))]
        made["num_hidden_layers"] = max(LAYERS, len(stages))
    elif stages is None:
        made.pop("out_features", None)
    return made


def _kinds(value: list[Any]) -> list[Any]:
    """The first layer and the first that differs from it, so that both kinds are there."""
    others = [each for each in value if each != value[0]]
    return ([value[0], *others[:1]] + [value[0]] * LAYERS)[:LAYERS]


def _stages(name: str, value: list[int]) -> list[int]:
    """Sizes of the stages of a model of images: wider ones stay wider, and heads divide all."""
    if name in _SIZES and len(value) == 2 and _SIZES[name] == 64:
        return [64, 64]
    if "depth" in name or name in ("layers", "num_layers", "num_blocks", "stage_num_blocks"):
        return [1] * len(value)
    if "head" in name:
        return [2] * len(value)
    if max(value) < 32 or any(word in name for word in ("stride", "kernel", "ratio", "factor")):
        return value
    return [each if each <= 4 else 8 * max(1, round(4 * each / max(value))) for each in value]


def _is_depth(name: str, value: Any) -> bool:
    return _SIZES.get(name) == LAYERS and isinstance(value, int) and value > LAYERS


def _merge(fields: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if isinstance(value, Mapping) and "model_type" in value:
            rest = {key: each for key, each in value.items() if key != "model_type"}
            fields[name] = tiny_config(value["model_type"], rest).to_dict()
        elif isinstance(value, Mapping) and isinstance(fields.get(name), dict):
            _merge(fields[name], value)
        else:
            fields[name] = value
