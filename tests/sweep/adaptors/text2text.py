"""Texts to other texts, greedily."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from text import TEXTS, read_tokenizer, write_tokenizer

NEW = 8
HEAR = (
    "audioflamingo3",
    "glmasr",
    "granite_speech",
    "musicflamingo",
    "qwen2_audio",
    "vibevoice_asr",
    "voxtral",
    "voxtral_realtime",
)
"""Decoders that take sound and text, and here text alone; transformers lists them with the encoder-decoders."""


def settings(pair: Any) -> dict[str, Any]:
    return {} if pair.model_type in HEAR else {"is_encoder_decoder": True, "decoder_start_token_id": 0}


def equip(pair: Any, model: Any, folder: Path) -> Any:
    write_tokenizer(folder, encloses=True)
    return read_tokenizer(folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    chosen = {"max_new_tokens": NEW, "do_sample": False, "num_beams": 1}
    return [{"inputs": text, "generate_parameters": chosen} for text in TEXTS]


def merged(requests: list[dict[str, Any]]) -> dict[str, Any]:
    return {**requests[0], "inputs": [request["inputs"] for request in requests]}


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    ids = tools(request["inputs"], return_tensors="pt")
    made = model.generate(
        input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], max_new_tokens=NEW, do_sample=False, num_beams=1
    )
    written = made[0] if model.config.is_encoder_decoder else made[0, ids["input_ids"].shape[1] :]
    return tools.decode(written, skip_special_tokens=True)


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return result.results[index].generated_text
