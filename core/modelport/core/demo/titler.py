"""Makes a T5's folder: `python -m modelport.core.demo.titler ENCODER-ONNX DECODER-ONNX TOKENIZER FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from safetensors.numpy import save_file

from modelport.core.demo.onnx_weights import read_weights

__all__ = ["convert"]


def convert(encoder: Path, decoder: Path, tokenizer: Path, target: Path) -> None:
    """Writes the fine-tuned flan-t5-small that the two exports were made from: float32 weights, configuration and tokenizer."""
    print("unpacking the weights", flush=True)
    weights = read_weights(decoder, lambda name: name.removeprefix("m.")) | read_weights(encoder, _encoder_name)
    save_file(weights, str(target / "model.safetensors"), metadata={"format": "pt"})
    ids = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    config = {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "vocab_size": 32128,
        "d_model": 512,
        "d_kv": 64,
        "d_ff": 1024,
        "num_heads": 6,
        "num_layers": 8,
        "num_decoder_layers": 8,
        "feed_forward_proj": "gated-gelu",
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "tie_word_embeddings": False,
        "is_encoder_decoder": True,
        "dtype": "float32",
        **ids,
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 512,
        "model_input_names": ["input_ids", "attention_mask"],
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    written = {
        "config": config,
        "generation_config": {**ids, "max_new_tokens": 32},
        "tokenizer": json.loads(tokenizer.read_text(encoding="utf-8")) | {"truncation": None, "padding": None},
        "tokenizer_config": tokenizer_config,
    }
    for name, value in written.items():
        (target / f"{name}.json").write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _encoder_name(name: str) -> str:
    return "shared.weight" if name.startswith("enc.embed_tokens") else name.replace("enc.", "encoder.", 1)


if __name__ == "__main__":
    convert(*map(Path, sys.argv[1:]))
