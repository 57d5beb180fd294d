"""What can be asked of the generation engine. Imports nothing: the server judges with it, and the engine obeys it."""

from __future__ import annotations

__all__ = ["ENGINE_PARAMS"]

ENGINE_PARAMS = frozenset(
    {
        "max_new_tokens", "min_new_tokens", "do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty",
        "presence_penalty", "frequency_penalty", "eos_token_id", "ignore_eos", "seed", "n",
    }
)  # fmt: skip
"""What openvino_genai's continuous batching honours for each request by itself, each shown by a test."""
