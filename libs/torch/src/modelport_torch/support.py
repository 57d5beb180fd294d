"""What the torch runtime can do with a checkpoint, judged from its config.json alone: no torch, no files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from modelport.contract.program import Generate
from modelport_torch.dtype import itemsize

__all__ = [
    "STATIC_PARAMS",
    "STATIC_RULES",
    "cache_bytes_per_token",
    "cannot_step",
    "engine_params",
    "static_params",
    "text_config",
    "why_static",
]

_PARAMS = frozenset(
    {
        "max_new_tokens", "min_new_tokens", "do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p",
        "repetition_penalty", "no_repeat_ngram_size", "presence_penalty", "frequency_penalty", "logit_bias",
        "eos_token_id", "ignore_eos", "seed", "n", "logprobs", "prompt_logprobs", "num_beams",
    }
)  # fmt: skip
STATIC_PARAMS = _PARAMS - {"logit_bias", "presence_penalty", "frequency_penalty", "logprobs", "prompt_logprobs"}
"""What static batches honour."""
STATIC_RULES = frozenset({"whisper_timestamps"})
"""Rules over logits that static batches apply for entries that declare them."""

_BATCHED_LAYERS = frozenset({"full_attention", "attention", "sliding_attention", "chunked_attention"})
_STATE_SPACE = ("ssm", "mamba", "conv_kernel", "state_size", "rwkv", "linear_attn", "lru_width")
# Types whose forward takes no positions and derives them (or ALiBi) from a two-dimensional mask: rows of different lengths, each
# at its own place, cannot be told to them.
_NO_POSITIONS = frozenset(
    {"bloom", "mpt", "xlnet", "xlm", "ctrl", "openai-gpt", "transfo-xl", "reformer", "cpmant", "prophetnet"}
)


def engine_params(*, has_tokenizer: bool) -> frozenset[str]:
    """What is honoured where the engine steps, in the names of `GenerateRequest.needs()`.

    Constraints speak of texts, not of tokens. Beams are searched in static batches beside it, which honour `STATIC_PARAMS` only.
    """
    return _PARAMS | {"constraint"} if has_tokenizer else _PARAMS


def static_params(rules: Collection[str]) -> frozenset[str]:
    """What static batches honour: for an entry that declares `rules`, probabilities of tokens too, as the rules leave them."""
    return STATIC_PARAMS | {"logprobs"} if rules else STATIC_PARAMS


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of config.json that describes the language model: `text_config` of a multimodal one, else all of it."""
    nested = config.get("text_config")
    return nested if isinstance(nested, Mapping) and "num_hidden_layers" in nested else config


def why_static(entry: Generate, config: Mapping[str, Any]) -> str | None:
    """Why an entry runs in static batches, as a sentence, or None if the stepped engine has it."""
    if entry.mode == "own":
        return "the program asks for the model's own generate."
    return cannot_step(config)


def cannot_step(config: Mapping[str, Any]) -> str | None:
    """Why the stepped engine cannot batch such a model, as a sentence, or None if it can.

    >>> cannot_step({"model_type": "llama", "num_hidden_layers": 2}) is None
    True
    """
    kind = str(config.get("model_type") or "this")
    if config.get("is_encoder_decoder"):
        return f"{kind} models have an encoder and a decoder, and the stepped engine has decoders only."
    text = text_config(config)
    unknown = sorted({str(layer) for layer in text.get("layer_types") or ()} - _BATCHED_LAYERS)
    if unknown:
        return f"{kind} models have layers of the kind {', '.join(unknown)}, whose state the stepped engine cannot batch."
    marks = sorted(key for key in text if any(mark in key for mark in _STATE_SPACE) and text[key])
    if marks or "mamba" in kind or "rwkv" in kind:
        why = f" (config.json has {', '.join(marks[:3])})" if marks else ""
        return f"{kind} models keep a recurrent state instead of attention{why}, which the stepped engine cannot batch."
    if kind in _NO_POSITIONS or text.get("alibi"):
        return f"{kind} models take no position of each token, so sequences of different lengths cannot share a step."
    if text.get("num_kv_shared_layers"):
        return f"{kind} models share keys and values between layers, which the stepped engine cannot batch."
    return None


def cache_bytes_per_token(config: Mapping[str, Any], dtype: str) -> int:
    """Bytes of keys and values that one token takes, estimated from config.json; 0 if it does not say."""
    text = text_config(config)
    layers = _first(text, "num_hidden_layers", "n_layer", "num_layers", "decoder_layers")
    heads = _first(text, "num_attention_heads", "n_head", "num_heads", "decoder_attention_heads")
    hidden = _first(text, "hidden_size", "n_embd", "d_model")
    if not (layers and heads and hidden):
        return 0
    key_heads = _first(text, "num_key_value_heads") or heads
    width = _first(text, "head_dim") or hidden // heads
    return 2 * layers * key_heads * width * itemsize(dtype)


def _first(config: Mapping[str, Any], *names: str) -> int:
    return next((value for name in names if isinstance(value := config.get(name), int)), 0)
