"""Attention for one new token per row when several query heads share a key head, without repeating keys and values.

transformers repeats each key head for its query heads before it calls the fused kernel with a mask: at every layer of every
step the whole cache is copied. The query heads of one key head are here rows of one small matrix instead; the mathematics is
the same, and only the query is reshaped.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

__all__ = ["NAME", "use_grouped"]

NAME = "modelport_grouped"


def use_grouped(model: Any) -> bool:
    """Lets `model` use grouped attention, if it runs transformers' own fused attention now. Says whether it does."""
    if getattr(model.config, "_attn_implementation", None) != "sdpa" or not getattr(model, "_supports_attention_backend", False):
        return False
    AttentionInterface.register(NAME, grouped)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    return True


def grouped(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers' fused attention, with its arguments, for shapes (batch, heads, tokens, width)."""
    batch, heads, tokens, width = query.shape
    key_heads = key.shape[1]
    if tokens != 1 or heads == key_heads:
        result: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
        )
        return result
    rows = heads // key_heads
    if attention_mask is not None:
        if attention_mask.shape[1] == heads:  # a mask for each query head, as Doge makes
            attention_mask = attention_mask.reshape(attention_mask.shape[0], key_heads, rows, -1)
        else:
            attention_mask = attention_mask.expand(-1, -1, rows, -1)
    out = scaled_dot_product_attention(
        query.view(batch, key_heads, rows, width), key, value, attn_mask=attention_mask, scale=scaling
    )
    return out.reshape(batch, 1, heads, value.shape[-1]), None
