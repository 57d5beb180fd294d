from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from modelport_torch.support import cache_bytes_per_token, cannot_step


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "t5", "is_encoder_decoder": True}, "an encoder and a decoder"),
        ({"model_type": "mamba", "state_size": 16}, "recurrent state"),
        ({"model_type": "qwen3_next", "layer_types": ["linear_attention", "full_attention"]}, "linear_attention"),
        ({"model_type": "bloom"}, "no position"),
        ({"model_type": "falcon", "alibi": True}, "no position"),
        ({"model_type": "gemma3n", "text_config": {"num_hidden_layers": 2, "num_kv_shared_layers": 1}}, "share keys and values"),
    ],
)
def test_support_says_in_a_sentence_which_architectures_cannot_be_stepped(config: dict[str, Any], words: str) -> None:
    reason = cannot_step(config)
    assert reason is not None
    assert words in reason
    assert reason.startswith(config["model_type"])
    assert reason.endswith(".")


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama"},
        {"model_type": "gpt2"},
        {"model_type": "gemma3_text", "layer_types": ["sliding_attention", "full_attention"]},
        {"model_type": "falcon", "alibi": False},
    ],
)
def test_support_takes_decoders_with_attention(config: dict[str, Any]) -> None:
    assert cannot_step(config) is None


def test_cache_estimate_counts_key_heads_of_all_layers() -> None:
    config = {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576, "head_dim": 64}
    assert cache_bytes_per_token(config, "bfloat16") == 2 * 30 * 3 * 64 * 2
    assert cache_bytes_per_token({"n_layer": 2, "n_head": 4, "n_embd": 64}, "float32") == 2 * 2 * 64 * 4
    assert cache_bytes_per_token({}, "float32") == 0


def test_judging_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, modelport_torch.backend, modelport_torch.support, modelport_torch.dtype;"
        "sys.exit(bool({'torch', 'transformers', 'safetensors'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
