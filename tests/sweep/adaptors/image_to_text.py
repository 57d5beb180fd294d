"""Images to the text that an encoder of images and a decoder of texts read in them, greedily."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from images import media, opened, pictures, write_processor
from text import read_tokenizer, write_tokenizer

SETTINGS: dict[str, Any] = {"decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_id": 2}
NEW = 8


def equip(pair: Any, model: Any, folder: Path) -> Any:
    model.generation_config.update(**SETTINGS)
    write_tokenizer(folder, encloses=True)
    return write_processor(pair, model, folder), read_tokenizer(folder)


def requests(pair: Any, model: Any, tools: Any) -> list[dict[str, Any]]:
    asked = {"max_new_tokens": NEW, "do_sample": False}
    return [{"inputs": media(image), "generate_parameters": asked} for image in pictures()]


def expected(model: Any, tools: Any, request: dict[str, Any]) -> Any:
    processor, tokenizer = tools
    seen = processor([opened(request["inputs"])], return_tensors="pt")["pixel_values"]
    made = model.generate(pixel_values=seen, max_new_tokens=NEW, do_sample=False)
    return tokenizer.decode(made[0], skip_special_tokens=True).strip()


def answered(result: Any, request: dict[str, Any], index: int) -> Any:
    return result.results[0].generated_text
