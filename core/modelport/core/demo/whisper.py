"""Makes a Whisper's folder: `python -m modelport.core.demo.whisper MODEL CONFIG TOKENIZER FOLDER`, from files of CTranslate2."""

from __future__ import annotations

import json
import math
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

__all__ = ["convert", "read_variables"]

_VERSIONS = (5, 6)
_TYPES = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2"}
_SPEC = "WhisperSpec"


def convert(model: Path, settings: Path, tokenizer: Path, target: Path) -> None:
    """Writes float16 weights, configuration, tokenizer and extractor of a Whisper that knows English only.

    Args:
        model: CTranslate2's binary file.
        settings: Its config.json: tokens never said, and the heads that follow what is heard.
        tokenizer: The tokenizer, as Hugging Face writes it.
        target: The folder.
    """
    print("unpacking the weights", flush=True)
    variables = read_variables(model)
    weights = _renamed(variables)
    save_file(weights, str(target / "model.safetensors"), metadata={"format": "pt"})
    own = json.loads(settings.read_text(encoding="utf-8"))
    words = json.loads(tokenizer.read_text(encoding="utf-8"))
    added = {token["content"]: token["id"] for token in words["added_tokens"]}
    end = added["<|endoftext|>"]
    ids = {
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": added["<|startoftranscript|>"],
    }
    vocabulary, width = weights["model.decoder.embed_tokens.weight"].shape
    layers = sum(name.startswith("model.decoder.layers.") and name.endswith(".fc1.bias") for name in weights)
    heads, bins = int(variables["encoder/num_heads"].reshape(-1)[0]), weights["model.encoder.conv1.weight"].shape[1]
    sides = ("encoder", "decoder")
    written: dict[str, Any] = {
        "config": {
            "architectures": ["WhisperForConditionalGeneration"],
            "model_type": "whisper",
            "vocab_size": vocabulary,
            "d_model": width,
            "num_mel_bins": bins,
            **{f"{side}_layers": layers for side in sides},
            **{f"{side}_attention_heads": heads for side in sides},
            **{f"{side}_ffn_dim": 4 * width for side in sides},
            "max_source_positions": weights["model.encoder.embed_positions.weight"].shape[0],
            "max_target_positions": weights["model.decoder.embed_positions.weight"].shape[0],
            "activation_function": "gelu",
            "is_encoder_decoder": True,
            "scale_embedding": False,
            "dtype": "float16",
            **ids,
        },
        "generation_config": {
            **ids,
            "max_length": weights["model.decoder.embed_positions.weight"].shape[0],
            "max_initial_timestamp_index": 50,
            "is_multilingual": False,
            "no_timestamps_token_id": added["<|notimestamps|>"],
            "prev_sot_token_id": added["<|startofprev|>"],
            "return_timestamps": False,
            "alignment_heads": own["alignment_heads"],
            "suppress_tokens": [token for token in own["suppress_ids"] if token >= 0],
            "begin_suppress_tokens": own["suppress_ids_begin"],
        },
        "tokenizer": words,
        "tokenizer_config": {
            "tokenizer_class": "WhisperTokenizer",
            "model_max_length": 1024,
            "add_prefix_space": False,
            "errors": "replace",
            **{f"{name}_token": "<|endoftext|>" for name in ("bos", "eos", "unk", "pad")},
        },
        "preprocessor_config": {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "processor_class": "WhisperProcessor",
            "feature_size": bins,
            "sampling_rate": 16000,
            "hop_length": 160,
            "n_fft": 400,
            "chunk_length": 30,
            "n_samples": 480000,
            "nb_max_frames": 3000,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": False,
        },
    }
    for name, value in written.items():
        (target / f"{name}.json").write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """The named arrays of a CTranslate2 file that holds a Whisper.

    Raises:
        ValueError: if it holds something else, or is of another version.
    """
    data = path.read_bytes()
    at = 0

    def take(code: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{code}", data, at)
        at += struct.calcsize(code)
        return int(value)

    def text() -> str:
        nonlocal at
        size = take("H")  # the NUL at its end is counted
        at += size
        return data[at - size : at - 1].decode()

    version, spec = take("I"), text()
    take("I")  # the revision of the spec
    if version not in _VERSIONS or spec != _SPEC:
        raise ValueError(f"{path.name} holds a {spec} of version {version}, and not a {_SPEC} of version 5 or 6")
    found = {}
    for _ in range(take("I")):
        name = text()
        shape = tuple(take("I") for _ in range(take("B")))
        kind, size = _TYPES[take("B")], take("I")
        found[name] = np.frombuffer(data, kind, math.prod(shape), at).reshape(shape)
        at += size
    return found


def _renamed(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights by the names of transformers, float16. Projections of one input lie in one matrix, one below the other."""
    made: dict[str, np.ndarray] = {}

    def put(name: str, source: str, rows: slice = slice(None), bias: bool = True) -> None:
        made[f"{name}.weight"] = variables[f"{source}/weight"][rows]
        if bias:
            made[f"{name}.bias"] = variables[f"{source}/bias"][rows]

    def norm(name: str, source: str) -> None:
        made[f"{name}.weight"], made[f"{name}.bias"] = variables[f"{source}/gamma"], variables[f"{source}/beta"]

    for side in ("encoder", "decoder"):
        count = len({name.split("/")[1] for name in variables if name.startswith(f"{side}/layer_") and "/ffn/" in name})
        for layer in range(count):
            source, name = f"{side}/layer_{layer}", f"model.{side}.layers.{layer}"
            norm(f"{name}.self_attn_layer_norm", f"{source}/self_attention/layer_norm")
            both = f"{source}/self_attention/linear_0"
            width = variables[f"{both}/weight"].shape[0] // 3
            for at, letter in enumerate("qkv"):  # the bias of keys is zero, and transformers has none
                put(f"{name}.self_attn.{letter}_proj", both, slice(at * width, (at + 1) * width), bias=letter != "k")
            put(f"{name}.self_attn.out_proj", f"{source}/self_attention/linear_1")
            if side == "decoder":
                norm(f"{name}.encoder_attn_layer_norm", f"{source}/attention/layer_norm")
                put(f"{name}.encoder_attn.q_proj", f"{source}/attention/linear_0")
                for at, letter in enumerate("kv"):
                    rows = slice(at * width, (at + 1) * width)
                    put(f"{name}.encoder_attn.{letter}_proj", f"{source}/attention/linear_1", rows, bias=letter == "v")
                put(f"{name}.encoder_attn.out_proj", f"{source}/attention/linear_2")
            norm(f"{name}.final_layer_norm", f"{source}/ffn/layer_norm")
            for at in (0, 1):
                put(f"{name}.fc{at + 1}", f"{source}/ffn/linear_{at}")
        norm(f"model.{side}.layer_norm", f"{side}/layer_norm")
        made[f"model.{side}.embed_positions.weight"] = variables[f"{side}/position_encodings/encodings"]
    for conv in ("conv1", "conv2"):
        put(f"model.encoder.{conv}", f"encoder/{conv}")
    made["model.decoder.embed_tokens.weight"] = variables["decoder/embeddings/weight"]
    return {name: np.ascontiguousarray(array.astype(np.float16)) for name, array in made.items()}


if __name__ == "__main__":
    convert(*map(Path, sys.argv[1:]))
