"""A Whisper that was written for CTranslate2 comes back as transformers writes it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.core.demo.whisper import convert, read_variables

SPECIALS = {name: at for at, name in enumerate(("<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>", "<|notimestamps|>"))}


def write(path: Path, variables: dict[str, np.ndarray], spec: str = "WhisperSpec", version: int = 6) -> Path:
    """The binary file: a head, then each variable's name, shape, type and bytes."""
    kinds = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    data = struct.pack("<I", version) + text(spec) + struct.pack("<II", 3, len(variables))
    for name, array in variables.items():
        data += text(name) + struct.pack("<B", array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape)
        data += struct.pack("<BI", kinds[array.dtype.name], array.nbytes) + array.tobytes()
    path.write_bytes(data)
    return path


def as_ctranslate2(weights: dict[str, Any]) -> dict[str, np.ndarray]:
    """transformers' weights, with projections of one input in one matrix."""
    w = {name: tensor.numpy().astype(np.float16) for name, tensor in weights.items()}
    out: dict[str, np.ndarray] = {"encoder/num_heads": np.array([2], np.int16)}

    def linear(target: str, *sources: str) -> None:
        out[f"{target}/weight"] = np.concatenate([w[f"{source}.weight"] for source in sources])
        biases = [w.get(f"{source}.bias", np.zeros(len(w[f"{source}.weight"]), np.float16)) for source in sources]
        out[f"{target}/bias"] = np.concatenate(biases)

    def norm(target: str, source: str) -> None:
        out[f"{target}/gamma"], out[f"{target}/beta"] = w[f"{source}.weight"], w[f"{source}.bias"]

    for side in ("encoder", "decoder"):
        source, target = f"model.{side}.layers.0", f"{side}/layer_0"
        norm(f"{target}/self_attention/layer_norm", f"{source}.self_attn_layer_norm")
        linear(f"{target}/self_attention/linear_0", *(f"{source}.self_attn.{letter}_proj" for letter in "qkv"))
        linear(f"{target}/self_attention/linear_1", f"{source}.self_attn.out_proj")
        if side == "decoder":
            norm(f"{target}/attention/layer_norm", f"{source}.encoder_attn_layer_norm")
            linear(f"{target}/attention/linear_0", f"{source}.encoder_attn.q_proj")
            linear(f"{target}/attention/linear_1", *(f"{source}.encoder_attn.{letter}_proj" for letter in "kv"))
            linear(f"{target}/attention/linear_2", f"{source}.encoder_attn.out_proj")
        norm(f"{target}/ffn/layer_norm", f"{source}.final_layer_norm")
        linear(f"{target}/ffn/linear_0", f"{source}.fc1")
        linear(f"{target}/ffn/linear_1", f"{source}.fc2")
        norm(f"{side}/layer_norm", f"model.{side}.layer_norm")
        out[f"{side}/position_encodings/encodings"] = w[f"model.{side}.embed_positions.weight"]
    for conv in ("conv1", "conv2"):
        linear(f"encoder/{conv}", f"model.encoder.{conv}")
    out["decoder/embeddings/weight"] = w["model.decoder.embed_tokens.weight"]
    return out


def test_weights_and_settings_are_those_of_the_model_that_was_written(tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    one = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 1), ("attention_heads", 2))}
    sizes = {"d_model": 8, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 4, "vocab_size": 16}
    ids = {f"{name}_token_id": 0 for name in ("pad", "bos", "eos")}
    config = transformers.WhisperConfig(**one, **sizes, **ids, max_source_positions=10, max_target_positions=12)
    model = transformers.WhisperForConditionalGeneration(config)
    weights = {name: tensor for name, tensor in model.state_dict().items() if name != "proj_out.weight"}
    for tensor in weights.values():
        torch.nn.init.normal_(tensor)
    binary = write(tmp_path / "model.bin", as_ctranslate2(weights))
    own = {"alignment_heads": [[0, 1]], "suppress_ids": [-1, 5], "suppress_ids_begin": [7]}
    (tmp_path / "config.json").write_text(json.dumps(own))
    words = {"added_tokens": [{"content": name, "id": at} for name, at in SPECIALS.items()]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(words))
    folder = tmp_path / "made"
    folder.mkdir()

    convert(binary, tmp_path / "config.json", tmp_path / "tokenizer.json", folder)

    made, info = transformers.WhisperForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for name, tensor in weights.items():
        assert torch.equal(made.state_dict()[name], tensor.half().float()), name
    assert (made.config.encoder_layers, made.config.decoder_attention_heads, made.config.max_target_positions) == (1, 2, 12)
    assert (made.generation_config.alignment_heads, made.generation_config.suppress_tokens) == ([[0, 1]], [5])
    assert made.generation_config.no_timestamps_token_id == SPECIALS["<|notimestamps|>"]


@pytest.mark.parametrize(("spec", "version"), [("TransformerSpec", 6), ("WhisperSpec", 9)])
def test_what_is_no_whisper_is_refused(tmp_path: Path, spec: str, version: int) -> None:
    with pytest.raises(ValueError, match=f"holds a {spec} of version {version}"):
        read_variables(write(tmp_path / "model.bin", {}, spec, version))
