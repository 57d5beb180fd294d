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
    (("projection_dim",), WIDTH),
)  # fmt: skip
_SIZES = {name: size for names, size in _RULES for name in names}
_VOCABULARIES = ("vocab_size", "vocab_size_per_layer_input", "encoder_vocab_size", "decoder_vocab_size", "src_vocab_size",
                 "tgt_vocab_size")  # fmt: skip
_BY_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type", "attention_types", "block_types", "no_rope_layers",
             "attention_layers", "sparse_layers", "mlp_only_layers", "hybrid_layer_ids", "block_type")  # fmt: skip
_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2, "unk_token_id": 3,
            "mask_token_id": 4, "decoder_start_token_id": 1, "forced_eos_token_id": None, "forced_bos_token_id": None}  # fmt: skip
FIRST_MARK = 5
"""Tokens from here on mark images, sounds and the like in a text; see `text.py`."""
MARKS = 16


def tiny_config(model_type: str, changes: Mapping[str, Any] | None = None) -> Any:
    """The configuration of `model_type`, shrunk; `changes` go before the rules, nested ones for nested configurations.

    Raises:
        Exception: whatever the configuration's class raises for such sizes.
    """
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    fields = _shrunk(_defaults(kind))
    _merge(fields, changes or {})
    return kind(**fields)


def _defaults(kind: Any) -> dict[str, Any]:
    """What the class is made with by default, nested configurations as tables."""
    made = kind()
    told = made.to_dict()
    accepted = set(inspect.signature(kind.__init__).parameters) | set(getattr(kind, "sub_configs", {}))
    fields = {name: value for name, value in told.items() if name in accepted}
    for name in getattr(kind, "sub_configs", {}):
        nested = getattr(made, name, None)
        if nested is not None and hasattr(nested, "to_dict"):
            inner = _defaults(type(nested)) | {"model_type": nested.model_type}
            fields[name] = {key: value for key, value in inner.items() if key not in ("transformers_version",)}
    return fields


def _shrunk(fields: Mapping[str, Any]) -> dict[str, Any]:
    made = {}
    marks = 0
    layers = next((LAYERS for name in fields if _SIZES.get(name) == LAYERS and "layer" in name), LAYERS)
    for name, value in fields.items():
        if isinstance(value, Mapping) and ("model_type" in value or name.endswith("_config")):
            made[name] = _shrunk(value)
        elif name in _SPECIAL:
            made[name] = None if value is None and name not in ("pad_token_id", "eos_token_id", "bos_token_id") else _SPECIAL[name]
        elif name.endswith(("token_id", "token_index")) and isinstance(value, int) and value >= 0:
            made[name] = FIRST_MARK + marks % MARKS
            marks += 1
        elif name in _VOCABULARIES and isinstance(value, int):
            made[name] = VOCABULARY
        elif name in _BY_LAYER and isinstance(value, list):
            made[name] = _kinds(value, layers)
        elif name in _SIZES and isinstance(value, int) and not isinstance(value, bool):
            made[name] = min(value, _SIZES[name]) if value > 0 else value
        else:
            made[name] = value
    return made


def _kinds(value: list[Any], layers: int) -> list[Any]:
    """The first layer and the first that differs from it, so that both kinds are there."""
    if not value:
        return value
    others = [each for each in value if each != value[0]]
    return ([value[0], *others[:1]] + [value[0]] * layers)[:layers]


def _merge(fields: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if isinstance(value, Mapping) and isinstance(fields.get(name), dict):
            _merge(fields[name], value)
        else:
            fields[name] = value
