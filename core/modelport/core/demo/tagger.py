"""Makes a token classifier's folder: `python -m modelport.core.demo.tagger ONNX TAGS TOKENIZER FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from safetensors.numpy import save_file

from modelport.core.demo.onnx_weights import read_weights

__all__ = ["convert"]


def convert(export: Path, tags: Path, tokenizer: Path, target: Path) -> None:
    """Writes the DistilBERT that `export` was made from: float32 weights, configuration and tokenizer."""
    print("unpacking the weights", flush=True)
    save_file(read_weights(export), str(target / "model.safetensors"), metadata={"format": "pt"})
    labels = json.loads(tags.read_text(encoding="utf-8"))["tags"]
    config = {
        "architectures": ["DistilBertForTokenClassification"],
        "model_type": "distilbert",
        "vocab_size": 28996,
        "dim": 768,
        "hidden_dim": 3072,
        "n_heads": 12,
        "n_layers": 6,
        "max_position_embeddings": 512,
        "activation": "gelu",
        "pad_token_id": 0,
        "dtype": "float32",
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    pipeline = json.loads(tokenizer.read_text(encoding="utf-8")) | {"truncation": None}
    special = {f"{role}_token": f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 512,
        "do_lower_case": False,
        "model_input_names": ["input_ids", "attention_mask"],
        **special,
    }
    for name, value in (("config", config), ("tokenizer", pipeline), ("tokenizer_config", tokenizer_config)):
        (target / f"{name}.json").write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    convert(*map(Path, sys.argv[1:]))
