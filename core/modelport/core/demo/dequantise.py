"""Turns a GGUF file into a Hugging Face folder: `python -m modelport.core.demo.dequantise FILE FOLDER`.

Runs in a child process of `modelport demo`, the only one that imports torch for it. Prints a line before each step. The
conversion is transformers' own: its newest versions keep GGUF weights packed unless `GgufConfig` asks otherwise, older
ones always unpack them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["convert"]

# where the file came from says nothing about the model
_TRACES = ("_name_or_path", "_model_name_or_path", "name_or_path", "is_local", "local_files_only", "quantization_config")


def convert(source: Path, target: Path) -> None:
    """Writes config.json, the tokenizer and bfloat16 safetensors of the GGUF file `source` into the folder `target`."""
    import torch
    import transformers

    torch.set_num_threads(max(1, torch.get_num_threads()))
    extra: dict[str, Any] = {}
    if hasattr(transformers, "GgufConfig"):
        extra["quantization_config"] = transformers.GgufConfig(dequantize=True)
    _say("reading the tokenizer")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
    _say("unpacking the weights")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(source.parent), gguf_file=source.name, dtype=torch.bfloat16, **extra
    ).eval()
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    _tie(model)
    _say("writing safetensors")
    model.save_pretrained(str(target))
    tokenizer.save_pretrained(str(target))
    _mend_tokenizer(source, target)
    for name in ("config.json", "tokenizer_config.json"):
        path = target / name
        values = json.loads(path.read_text(encoding="utf-8"))
        kept = {key: value for key, value in values.items() if key not in _TRACES}
        path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _mend_tokenizer(source: Path, target: Path) -> None:
    """Puts right what transformers guesses of a byte-level tokenizer: its class, its special tokens, and whether a text starts
    with one. The file itself states all three."""
    import gguf

    fields = gguf.GGUFReader(source).fields
    facts = {key.removeprefix("tokenizer.ggml."): field.contents() for key, field in fields.items() if _is_small(key)}
    if facts.get("model") != "gpt2":
        return
    path = target / "tokenizer.json"
    pipeline = json.loads(path.read_text(encoding="utf-8"))
    if not facts.get("add_bos_token", False):
        pipeline["post_processor"] = None
    path.write_text(json.dumps(pipeline, ensure_ascii=False) + "\n", encoding="utf-8")
    words = {token["id"]: token["content"] for token in pipeline["added_tokens"]}
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    special = {f"{role}_token": words.get(facts.get(f"{name}_token_id")) for role, name in roles.items()}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= {role: word for role, word in special.items() if word is not None}
    (target / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _is_small(key: str) -> bool:
    return key.startswith("tokenizer.ggml.") and key.rpartition(".")[2] not in {"tokens", "merges", "token_type", "scores"}


def _tie(model: Any) -> None:
    """Makes input and output embedding one again, where the file holds the same matrix twice, quantised differently."""
    import torch

    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if model.config.tie_word_embeddings or head is None or head.weight.shape != table.weight.shape:
        return
    rows = slice(0, 8192)
    alike = torch.nn.functional.cosine_similarity(head.weight.data[rows].float(), table.weight.data[rows].float()).mean()
    if alike > 0.98:
        # the output copy is the more precise one in usual mixes
        table.weight.data.copy_(head.weight.data)
        model.config.tie_word_embeddings = True
        model.tie_weights()


def _say(step: str) -> None:
    print(step, flush=True)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
