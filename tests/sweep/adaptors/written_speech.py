"""Speech to the text that a decoder writes, greedily."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from seamless import write_seamless
from sounds import features, heard, media, sounds, write_extractor
from text import read_tokenizer, write_tokenizer

SETTINGS: dict[str, Any] = {"is_encoder_decoder": True, "decoder_start_token_id": 1, "layerdrop": 0.0, "max_length": 64}
NEW = 8
LANGUAGE = "eng"
WHISPER = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>",
           "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>", *(f"<|{step * 0.02:.2f}|>" for step in range(101)))  # fmt: skip
"""Tokens by which Whisper is told what to do, and times; ids from 256 on."""


def equip(pair: Any, model: Any, folder: Path) -> Any:
    extractor = write_extractor(pair, model, folder)
    if pair.model_type == "whisper":
        _write_whisper(model, folder)
        from transformers import AutoTokenizer

        return extractor, AutoTokenizer.from_pretrained(str(folder))
    if pair.model_type.startswith("seamless"):
        return extractor, write_seamless(model, folder)
    write_tokenizer(folder, encloses=True)
    return extractor, read_tokenizer(folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    chosen = {"max_new_tokens": NEW, "do_sample": False, "num_beams": 1}
    told = {"language": LANGUAGE} if pair.model_type.startswith("seamless") else {}
    return [{"inputs": media(sound), "generate_parameters": chosen, **told} for sound in sounds()]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    extractor, tokenizer = tools
    inputs = features(model, extractor, heard(request["inputs"]))
    told = {"tgt_lang": request["language"]} if "language" in request else {}
    (made,) = model.generate(**inputs, **told, max_new_tokens=NEW, do_sample=False, num_beams=1)
    return tokenizer.decode(made, skip_special_tokens=True)


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return result.text


def _write_whisper(model: Any, folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    ids = {name: 256 + at for at, name in enumerate(WHISPER)}
    own = {
        "no_timestamps_token_id": ids["<|notimestamps|>"], "prev_sot_token_id": ids["<|startofprev|>"], "max_length": 48,
        "is_multilingual": False, "suppress_tokens": [*range(128, 256), *range(257, 366)], "begin_suppress_tokens": [32, 256],
        "max_initial_timestamp_index": 50, "_from_model_config": False,
    }  # fmt: skip
    for name, value in own.items():
        setattr(model.generation_config, name, value)
    letters = {letter: at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in WHISPER[:9]])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in WHISPER[9:]])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "WhisperTokenizer", "eos_token": WHISPER[0], "pad_token": WHISPER[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
